//! Whether a history of calls is linearizable: whether there is one order of all calls, each between
//! its begin and its end, in which a sequential model gives every answer that was seen.
//!
//! The search of Wing and Gong with the memory of Lowe: depth first over which call came next, never
//! twice from the same set of calls done and the same state of the model. A call without an answer
//! may have happened at any time after its begin, or not at all.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What calls mean, one at a time.
pub trait Model {
    /// What there is between two calls.
    type State: Clone + Eq + Hash;
    /// A call with its arguments.
    type Call: Clone + Debug;
    /// What is answered.
    type Answer: Clone + Debug;

    /// Before the first call.
    fn initial(&self) -> Self::State;

    /// The state after the call, if it can be answered so; without an answer, if it was carried out.
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

/// One call of a history. Times are of one clock.
#[derive(Debug, Clone)]
pub struct Operation<C, A> {
    /// Which client made it.
    pub client: usize,
    /// The call.
    pub call: C,
    /// When it was made.
    pub begin: u64,
    /// When it was answered and what; none if nobody knows.
    pub end: Option<(u64, A)>,
}

/// A history as far as its checker got with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. So many calls, at most, could be put in order.
    Wrong {
        /// Calls in the longest order.
        longest: usize,
    },
    /// It took too many steps to tell.
    Unknown,
}

/// Steps after which a search is given up: some seconds.
const STEPS_MAX: usize = 20_000_000;

/// The calls that are done, as bits.
type Done = Vec<u64>;

/// Checks a history.
pub fn check<M: Model>(model: &M, history: &[Operation<M::Call, M::Answer>]) -> Verdict {
    let mut calls: Vec<&Operation<M::Call, M::Answer>> = history.iter().collect();
    calls.sort_by_key(|call| call.begin);
    let answered = calls.iter().filter(|call| call.end.is_some()).count();
    let mut search = Search {
        model,
        calls,
        seen: HashSet::new(),
    };
    search.run(answered)
}

struct Search<'a, M: Model> {
    model: &'a M,
    /// By their begin.
    calls: Vec<&'a Operation<M::Call, M::Answer>>,
    seen: HashSet<(Done, M::State)>,
}

/// A place in the search: what was done to come here, and what is to be tried next.
struct Place<S> {
    state: S,
    done: Done,
    /// Calls with an answer that are done.
    answered: usize,
    /// Which of the calls that can come next are still to be tried.
    next: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, answered: usize) -> Verdict {
        let done = vec![0; self.calls.len().div_ceil(64)];
        let mut longest = 0;
        let mut steps = 0;
        let mut path = vec![self.place(self.model.initial(), done, 0)];
        while let Some(place) = path.last_mut() {
            if place.answered == answered {
                return Verdict::Linearizable;
            }
            longest = longest.max(place.answered);
            let Some(at) = place.next.pop() else {
                path.pop();
                continue;
            };
            steps += 1;
            if steps > STEPS_MAX {
                return Verdict::Unknown;
            }
            let call = self.calls[at];
            let answer = call.end.as_ref().map(|(_, answer)| answer);
            let Some(state) = self.model.step(&place.state, &call.call, answer) else {
                continue;
            };
            if answer.is_none() && state == place.state {
                // It may as well not have happened.
                continue;
            }
            let mut done = place.done.clone();
            done[at / 64] |= 1 << (at % 64);
            let answered = place.answered + usize::from(answer.is_some());
            if self.seen.insert((done.clone(), state.clone())) {
                let place = self.place(state, done, answered);
                path.push(place);
            }
        }
        Verdict::Wrong { longest }
    }

    fn place(&self, state: M::State, done: Done, answered: usize) -> Place<M::State> {
        // What has begun after something else has ended cannot come before it.
        let mut first_end = u64::MAX;
        let mut next = Vec::new();
        'calls: for (word, done) in done.iter().enumerate() {
            let mut left = !done;
            while left != 0 {
                let at = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                match self.calls.get(at) {
                    Some(call) if call.begin <= first_end => {
                        let end = call.end.as_ref().map_or(u64::MAX, |(end, _)| *end);
                        first_end = first_end.min(end);
                        next.push(at);
                    }
                    _ => break 'calls,
                }
            }
        }
        next.retain(|at| self.calls[*at].begin <= first_end);
        // The last is tried first: those with an answer that ended first are the likeliest, those
        // without one the unlikeliest.
        next.sort_by_key(|at| {
            let end = self.calls[*at].end.as_ref();
            std::cmp::Reverse(end.map_or(u64::MAX, |(end, _)| *end))
        });
        Place {
            state,
            done,
            answered,
            next,
        }
    }
}

/// A value with what was last written to it: reads, writes and compare-and-sets of one key.
#[derive(Debug, Clone, Copy)]
pub struct Register;

/// A call of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterCall {
    /// Read it.
    Read,
    /// Write a value, or none.
    Write(Option<u64>),
    /// Write a value if it has another one.
    Swap {
        /// What it must be.
        from: Option<u64>,
        /// What it is then.
        to: u64,
    },
}

/// What a register answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterAnswer {
    /// It was read.
    Value(Option<u64>),
    /// It was written.
    Written,
    /// It was not what it had to be.
    Different,
}

impl Model for Register {
    type State = Option<u64>;
    type Call = RegisterCall;
    type Answer = RegisterAnswer;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(
        &self,
        state: &Option<u64>,
        call: &RegisterCall,
        answer: Option<&RegisterAnswer>,
    ) -> Option<Option<u64>> {
        let (next, says) = match call {
            RegisterCall::Read => (*state, RegisterAnswer::Value(*state)),
            RegisterCall::Write(value) => (*value, RegisterAnswer::Written),
            RegisterCall::Swap { from, to } if from == state => {
                (Some(*to), RegisterAnswer::Written)
            }
            RegisterCall::Swap { .. } => (*state, RegisterAnswer::Different),
        };
        answer.is_none_or(|answer| *answer == says).then_some(next)
    }
}

/// A lease of so many permits: who holds it, by fencing tokens. A lock has one permit.
#[derive(Debug, Clone, Copy)]
pub struct Permits(pub usize);

/// A call of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseCall {
    /// Hold it, waiting for that.
    Acquire,
    /// Hold it if it is free.
    TryAcquire,
    /// Hold it no more.
    Release(u64),
    /// It was taken away. Its holder does not know when: a call without an answer, from when it last
    /// could rely on it.
    Expire(u64),
    /// Act under a token, and be refused if it holds no more.
    Act(u64),
}

/// What a lease answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// It is held, with this token.
    Held(u64),
    /// It is held by others.
    Taken,
    /// It is done.
    Done,
    /// The token holds it no more.
    Stale,
}

impl Model for Permits {
    /// The tokens that hold it, and the highest there ever was.
    type State = (Vec<u64>, u64);
    type Call = LeaseCall;
    type Answer = LeaseAnswer;

    fn initial(&self) -> (Vec<u64>, u64) {
        (Vec::new(), 0)
    }

    fn step(
        &self,
        (holders, highest): &(Vec<u64>, u64),
        call: &LeaseCall,
        answer: Option<&LeaseAnswer>,
    ) -> Option<(Vec<u64>, u64)> {
        let without = |token: u64| {
            let left = holders.iter().copied().filter(|it| *it != token);
            (left.collect::<Vec<_>>(), *highest)
        };
        let same = || (holders.clone(), *highest);
        match (call, answer) {
            (LeaseCall::Acquire | LeaseCall::TryAcquire, Some(LeaseAnswer::Held(token))) => {
                // Of several permits the order of tokens and that of holding may differ.
                let is_new = self.0 > 1 || token > highest;
                (holders.len() < self.0 && is_new).then(|| {
                    let mut holders = holders.clone();
                    holders.push(*token);
                    holders.sort_unstable();
                    (holders, *token.max(highest))
                })
            }
            (LeaseCall::TryAcquire, Some(LeaseAnswer::Taken)) => {
                (holders.len() >= self.0).then(same)
            }
            // Given up twice is given up.
            (
                LeaseCall::Release(token) | LeaseCall::Expire(token),
                Some(LeaseAnswer::Done) | None,
            ) => Some(without(*token)),
            (LeaseCall::Act(token), Some(LeaseAnswer::Done)) => holders.contains(token).then(same),
            (LeaseCall::Act(token), Some(LeaseAnswer::Stale)) => {
                (!holders.contains(token)).then(same)
            }
            // Whoever does not know its token cannot be said to hold anything.
            (_, None) => Some(same()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Calls<C, A> = Vec<(usize, C, u64, Option<(u64, A)>)>;

    fn verdict<M: Model>(model: &M, calls: Calls<M::Call, M::Answer>) -> Verdict {
        let operation = |(client, call, begin, end)| Operation {
            client,
            call,
            begin,
            end,
        };
        let history: Vec<_> = calls.into_iter().map(operation).collect();
        check(model, &history)
    }

    use LeaseAnswer as Says;
    use LeaseCall as Ask;
    use RegisterAnswer::{Different, Value, Written};
    use RegisterCall::{Read, Swap, Write};

    #[test]
    fn calls_at_the_same_time_may_come_in_any_order() {
        let write =
            |client, value, begin, end| (client, Write(Some(value)), begin, Some((end, Written)));
        let read = |client, value, begin, end| (client, Read, begin, Some((end, Value(value))));
        let fine = vec![
            write(0, 1, 0, 10),
            read(1, None, 1, 3),
            read(1, Some(1), 4, 6),
        ];
        assert_eq!(verdict(&Register, fine), Verdict::Linearizable);
        let back = vec![
            write(0, 1, 0, 10),
            read(1, Some(1), 1, 3),
            read(1, None, 4, 6),
        ];
        assert_eq!(verdict(&Register, back), Verdict::Wrong { longest: 2 });
    }

    #[test]
    fn a_read_of_what_was_overwritten_before_it_began_is_wrong() {
        let stale = vec![
            (0, Write(Some(1)), 0, Some((1, Written))),
            (0, Write(Some(2)), 2, Some((3, Written))),
            (1, Read, 4, Some((5, Value(Some(1))))),
        ];
        assert_eq!(verdict(&Register, stale), Verdict::Wrong { longest: 2 });
        let lost = vec![
            (0, Write(Some(1)), 0, Some((1, Written))),
            (1, Read, 2, Some((3, Value(None)))),
        ];
        assert_eq!(verdict(&Register, lost), Verdict::Wrong { longest: 1 });
    }

    #[test]
    fn a_call_without_an_answer_has_happened_once_or_not_at_all() {
        let unknown = |client| (client, Write(Some(1)), 0, None);
        let read = |value, begin| (9, Read, begin, Some((begin + 1, Value(value))));
        let happened = vec![unknown(0), read(None, 1), read(Some(1), 3)];
        assert_eq!(verdict(&Register, happened), Verdict::Linearizable);
        let never = vec![unknown(0), read(None, 1), read(None, 3)];
        assert_eq!(verdict(&Register, never), Verdict::Linearizable);
        let twice = vec![
            unknown(0),
            read(Some(1), 1),
            (1, Write(Some(2)), 3, Some((4, Written))),
            read(Some(2), 5),
            read(Some(1), 7),
        ];
        assert_eq!(verdict(&Register, twice), Verdict::Wrong { longest: 3 });
    }

    #[test]
    fn two_swaps_from_the_same_value_cannot_both_win() {
        let swap = |client, to, answer| {
            let call = Swap { from: None, to };
            (client, call, 0, Some((9, answer)))
        };
        let fine = vec![swap(0, 1, Written), swap(1, 2, Different)];
        assert_eq!(verdict(&Register, fine), Verdict::Linearizable);
        let both = vec![swap(0, 1, Written), swap(1, 2, Written)];
        assert_eq!(verdict(&Register, both), Verdict::Wrong { longest: 1 });
        let none = vec![swap(0, 1, Different), swap(1, 2, Different)];
        assert_eq!(verdict(&Register, none), Verdict::Wrong { longest: 0 });
    }

    fn acquire(client: usize, token: u64, begin: u64, end: u64) -> LeaseRow {
        (client, Ask::Acquire, begin, Some((end, Says::Held(token))))
    }

    fn release(client: usize, token: u64, begin: u64, end: u64) -> LeaseRow {
        (client, Ask::Release(token), begin, Some((end, Says::Done)))
    }

    type LeaseRow = (usize, LeaseCall, u64, Option<(u64, LeaseAnswer)>);

    #[test]
    fn a_lock_has_one_holder_and_growing_tokens() {
        let fine = vec![
            acquire(0, 1, 0, 1),
            acquire(1, 2, 0, 9),
            release(0, 1, 4, 5),
            release(1, 2, 10, 11),
        ];
        assert_eq!(verdict(&Permits(1), fine), Verdict::Linearizable);
        let both = vec![
            acquire(0, 1, 0, 1),
            acquire(1, 2, 0, 3),
            release(0, 1, 4, 5),
        ];
        assert_eq!(
            verdict(&Permits(1), both.clone()),
            Verdict::Wrong { longest: 1 }
        );
        assert_eq!(verdict(&Permits(2), both), Verdict::Linearizable);
        let backwards = vec![
            acquire(0, 7, 0, 1),
            release(0, 7, 2, 3),
            acquire(1, 5, 4, 5),
        ];
        assert_eq!(
            verdict(&Permits(1), backwards),
            Verdict::Wrong { longest: 2 }
        );
    }

    #[test]
    fn who_was_fenced_off_cannot_act_and_who_holds_is_not_refused() {
        let act = |token, begin, answer| (0, Ask::Act(token), begin, Some((begin + 1, answer)));
        let expiry = (0, Ask::Expire(1), 2, None);
        let next = acquire(1, 2, 0, 6);
        let fine = vec![
            acquire(0, 1, 0, 1),
            expiry.clone(),
            act(1, 3, Says::Done),
            next.clone(),
            act(1, 7, Says::Stale),
        ];
        assert_eq!(verdict(&Permits(1), fine), Verdict::Linearizable);
        let late = vec![acquire(0, 1, 0, 1), expiry, next, act(1, 7, Says::Done)];
        assert_eq!(verdict(&Permits(1), late), Verdict::Wrong { longest: 2 });
        let refused = vec![acquire(0, 1, 0, 1), act(1, 3, Says::Stale)];
        assert_eq!(verdict(&Permits(1), refused), Verdict::Wrong { longest: 1 });
    }

    #[test]
    fn a_semaphore_has_at_most_so_many_holders() {
        let three = vec![
            acquire(0, 1, 0, 1),
            acquire(1, 2, 0, 1),
            acquire(2, 3, 0, 1),
        ];
        assert_eq!(
            verdict(&Permits(2), three.clone()),
            Verdict::Wrong { longest: 2 }
        );
        assert_eq!(verdict(&Permits(3), three), Verdict::Linearizable);
        let taken = (2, Ask::TryAcquire, 2, Some((3, Says::Taken)));
        let free = vec![acquire(0, 1, 0, 1), taken];
        assert_eq!(verdict(&Permits(2), free), Verdict::Wrong { longest: 1 });
    }

    #[test]
    fn many_calls_without_an_answer_do_not_make_the_search_endless() {
        let mut history: Calls<LeaseCall, LeaseAnswer> = Vec::new();
        for token in 1..200 {
            let at = token * 10;
            history.push(acquire(0, token, at, at + 1));
            history.push((0, Ask::Expire(token), at + 2, None));
        }
        assert_eq!(verdict(&Permits(1), history.clone()), Verdict::Linearizable);
        history.push(acquire(1, 150, 5_000, 5_001));
        assert_eq!(
            verdict(&Permits(1), history),
            Verdict::Wrong { longest: 199 }
        );
    }

    #[test]
    fn a_long_history_of_many_clients_is_checked_in_time() {
        let mut history = Vec::new();
        let mut value = None;
        for round in 0..2_000 {
            // Eight at a time; the order within a round is that of the numbers.
            for client in 0..8 {
                let (begin, end) = (round * 100 + client, round * 100 + 50 + client);
                let (call, answer) = match client % 2 {
                    0 => {
                        value = Some(round * 8 + client);
                        (Write(value), Written)
                    }
                    _ => (Read, Value(value)),
                };
                let client = usize::try_from(client).expect("small");
                history.push((client, call, begin, Some((end, answer))));
            }
        }
        assert_eq!(verdict(&Register, history), Verdict::Linearizable);
    }
}
