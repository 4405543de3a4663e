//! Framework state against a model that keeps everything in lists, and its bounds one by one.

mod naive;

use std::time::Duration;

use meros_proto::state::{
    Changed, Condition, KeyChange, LeaseName, Numbered, Revision, SessionId, SpaceId, SpaceName,
    StateAnswer, StateBound, StateChange, StateEntry, StateKey, StateOperation, StateRefusal,
    StateValue, Token,
};
use proptest::prelude::*;

use super::*;
use naive::Naive;

fn space(name: &str) -> SpaceId {
    SpaceId {
        principal: "p".to_owned(),
        name: SpaceName::new(name).expect("a name"),
    }
}

fn key(name: &str) -> StateKey {
    StateKey::new(name).expect("a key")
}

fn lease(name: &str) -> LeaseName {
    LeaseName::new(name).expect("a name")
}

fn set(name: &str, value: &str) -> StateOperation {
    StateOperation::Set {
        key: key(name),
        value: value.into(),
    }
}

fn commit(conditions: Vec<Condition>, operations: Vec<StateOperation>) -> StateChange {
    StateChange::Commit {
        conditions,
        operations,
    }
}

fn acquire(name: &str, permits: u32, wait: bool) -> StateChange {
    StateChange::Acquire {
        lease: lease(name),
        permits,
        wait,
    }
}

fn release(name: &str, token: Token) -> StateChange {
    StateChange::Release {
        lease: lease(name),
        token,
    }
}

/// One space, and the number of each session's last change.
struct Bench {
    state: State,
    id: SpaceId,
    number: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            state: State::default(),
            id: space("s"),
            number: 0,
        }
    }

    fn apply(&mut self, change: &StateChange) -> Result<Changed, StateRefusal> {
        let outcome = self.state.apply(&self.id, None, change).outcome;
        self.state.check().expect("it holds");
        outcome
    }

    fn by(&mut self, session: SessionId, change: &StateChange) -> Result<Changed, StateRefusal> {
        self.number += 1;
        let number = self.number;
        self.numbered(session, number, change)
    }

    fn numbered(
        &mut self,
        session: SessionId,
        number: u64,
        change: &StateChange,
    ) -> Result<Changed, StateRefusal> {
        let by = Some(Numbered { session, number });
        let outcome = self.state.apply(&self.id, by, change).outcome;
        self.state.check().expect("it holds");
        outcome
    }

    fn commit(&mut self, operations: Vec<StateOperation>) -> Result<Changed, StateRefusal> {
        self.apply(&commit(Vec::new(), operations))
    }

    fn open(&mut self) -> SessionId {
        let open = StateChange::Open {
            holder: "h".to_owned(),
            ttl: Duration::from_secs(5),
        };
        match self.apply(&open) {
            Ok(Changed::Opened { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    fn acquire(&mut self, session: SessionId, name: &str, permits: u32) -> (Token, bool) {
        match self.by(session, &acquire(name, permits, true)) {
            Ok(Changed::Queued { token, holds }) => (token, holds),
            other => panic!("{other:?}"),
        }
    }

    fn value(&self, name: &str) -> Option<StateEntry> {
        match self.state.read(&self.id, &[key(name)]) {
            StateAnswer::Entries { entries, .. } => entries.into_iter().next(),
            other => panic!("{other:?}"),
        }
    }

    fn changes(&self, after: u64) -> Result<Vec<(u64, String, bool)>, StateRefusal> {
        let answer = self.state.changes(&self.id, "", Revision(after))?;
        let changes = match answer {
            None => Vec::new(),
            Some(StateAnswer::Changes { changes, .. }) => changes,
            Some(other) => panic!("{other:?}"),
        };
        let row = |change: &KeyChange| {
            let is_set = matches!(change, KeyChange::Set(_));
            (change.revision().0, change.key().to_string(), is_set)
        };
        Ok(changes.iter().map(row).collect())
    }
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let mut bench = Bench::new();
    bench
        .commit(vec![set("a", "1"), set("b", "1")])
        .expect("it fits");
    let a = bench.value("a").expect("it is there");
    assert_eq!((a.created, a.modified), (Revision(1), Revision(1)));

    let absent = Condition::Absent(key("c"));
    let seen = Condition::Revision {
        key: key("a"),
        modified: a.modified,
    };
    let swap = commit(
        vec![absent, seen],
        vec![
            set("c", "2"),
            set("a", "2"),
            StateOperation::Delete(key("b")),
        ],
    );
    assert_eq!(
        bench.apply(&swap),
        Ok(Changed::Done {
            revision: Revision(2)
        })
    );
    assert_eq!(bench.value("b"), None);
    assert_eq!(bench.value("a").map(|it| it.created), Some(Revision(1)));

    let refused = bench.apply(&swap);
    assert_eq!(refused, Err(StateRefusal::Conflict { condition: 0 }));
    let is_two = Condition::Value {
        key: key("a"),
        value: "2".into(),
    };
    let deletes = commit(vec![is_two], vec![StateOperation::Delete(key("a"))]);
    bench.apply(&deletes).expect("it is two");
    assert_eq!(
        bench.apply(&deletes),
        Err(StateRefusal::Conflict { condition: 0 })
    );
    let nothing = bench.commit(vec![StateOperation::Delete(key("a"))]);
    assert_eq!(
        nothing,
        Ok(Changed::Done {
            revision: Revision(3)
        }),
        "it was gone"
    );
}

#[test]
fn of_several_operations_on_a_key_the_last_counts() {
    let mut bench = Bench::new();
    let operations = vec![
        set("a", "1"),
        StateOperation::Delete(key("a")),
        set("a", "3"),
    ];
    bench.commit(operations).expect("it fits");
    assert_eq!(bench.value("a").map(|it| it.value), Some("3".into()));
    let operations = vec![set("a", "4"), StateOperation::Delete(key("a"))];
    bench.commit(operations).expect("it fits");
    assert_eq!(
        bench.state.totals(),
        Totals::default(),
        "an empty space takes no room"
    );
}

#[test]
fn a_change_that_is_sent_again_is_carried_out_once() {
    let mut bench = Bench::new();
    let session = bench.open();
    let absent = commit(vec![Condition::Absent(key("a"))], vec![set("a", "1")]);
    let first = bench.numbered(session, 5, &absent);
    assert_eq!(
        first,
        Ok(Changed::Done {
            revision: Revision(2)
        })
    );
    assert_eq!(
        bench.numbered(session, 5, &absent),
        first,
        "the answer was lost"
    );
    let conflict = bench.numbered(session, 6, &absent);
    assert_eq!(conflict, Err(StateRefusal::Conflict { condition: 0 }));
    bench
        .commit(vec![StateOperation::Delete(key("a"))])
        .expect("it is there");
    assert_eq!(
        bench.numbered(session, 6, &absent),
        conflict,
        "also of a refusal"
    );
    let late = bench.numbered(session, 5, &absent);
    assert_eq!(late, Err(StateRefusal::Outdated { number: 5 }));
    assert_eq!(bench.value("a"), None);

    let closed = bench.numbered(session, 7, &StateChange::Close);
    closed.expect("it is open");
    let ended = bench.numbered(session, 8, &absent);
    assert_eq!(ended, Err(StateRefusal::SessionEnded { session }));
}

#[test]
fn a_lease_goes_from_holder_to_holder_with_growing_tokens() {
    let mut bench = Bench::new();
    let [a, b, c] = [bench.open(), bench.open(), bench.open()];
    let (first, holds) = bench.acquire(a, "leader", 1);
    assert!(holds);
    let (second, holds) = bench.acquire(b, "leader", 1);
    assert!(!holds && second > first);
    let taken = bench.by(c, &acquire("leader", 1, false));
    assert_eq!(
        taken,
        Err(StateRefusal::LeaseHeld {
            lease: lease("leader")
        })
    );
    let differs = bench.by(c, &acquire("leader", 2, true));
    let expected = StateRefusal::PermitsDiffer {
        lease: lease("leader"),
        permits: 1,
    };
    assert_eq!(differs, Err(expected));

    let fenced = |token| {
        let holds = Condition::Holds {
            lease: lease("leader"),
            token,
        };
        commit(vec![holds], vec![set("epoch", &token.to_string())])
    };
    let stale = |token| StateRefusal::StaleToken {
        lease: lease("leader"),
        token,
    };
    bench.apply(&fenced(first)).expect("it holds");
    assert_eq!(bench.apply(&fenced(second)), Err(stale(second)), "it waits");
    assert_eq!(
        bench.by(b, &release("leader", first)),
        Err(stale(first)),
        "another's"
    );

    let changed = bench.state.end_session(&bench.id, a);
    assert_eq!(changed, [lease("leader")]);
    assert!(
        bench.state.end_session(&bench.id, a).is_empty(),
        "it has ended"
    );
    assert_eq!(bench.apply(&fenced(first)), Err(stale(first)), "fenced off");
    bench.apply(&fenced(second)).expect("it holds now");

    let view = bench.state.lease(&bench.id, &lease("leader"));
    assert_eq!(
        view.holders().map(|it| it.token).collect::<Vec<_>>(),
        [second]
    );
    bench
        .by(b, &release("leader", second))
        .expect("it holds it");
    assert_eq!(
        bench.state.lease(&bench.id, &lease("leader")).revision,
        Revision(0)
    );
    let (third, holds) = bench.acquire(c, "leader", 1);
    assert!(holds && third > second, "tokens do not begin again");
}

#[test]
fn a_semaphore_has_as_many_holders_as_permits() {
    let mut bench = Bench::new();
    let [a, b] = [bench.open(), bench.open()];
    let (first, _) = bench.acquire(a, "slots", 2);
    let (second, holds) = bench.acquire(a, "slots", 2);
    assert!(holds, "one session may hold several");
    let (third, holds) = bench.acquire(b, "slots", 2);
    assert!(!holds);
    bench.by(a, &release("slots", first)).expect("held");
    let view = bench.state.lease(&bench.id, &lease("slots"));
    let holders: Vec<Token> = view.holders().map(|it| it.token).collect();
    assert_eq!(holders, [second, third]);
}

#[test]
fn a_copy_that_is_restored_gives_out_no_token_twice_and_keeps_the_keys() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.commit(vec![set("a", "1")]).expect("fits");
    let copy = bench.state.clone();
    let (lost, _) = bench.acquire(session, "leader", 1);
    bench.state = copy;
    bench.state.pass_over(1_000);
    assert_eq!(bench.value("a").map(|it| it.value), Some("1".into()));
    assert!(matches!(
        bench.changes(2),
        Err(StateRefusal::Compacted { .. })
    ));
    let ended = bench.by(session, &acquire("leader", 1, true));
    assert_eq!(ended, Err(StateRefusal::SessionEnded { session }));
    let session = bench.open();
    let (token, holds) = bench.acquire(session, "leader", 1);
    assert!(holds && token > lost);
}

#[test]
fn watchers_are_told_the_latest_of_each_key_and_deletions() {
    let mut bench = Bench::new();
    bench
        .commit(vec![set("a", "1"), set("b", "1")])
        .expect("fits");
    bench.commit(vec![set("a", "2")]).expect("fits");
    bench
        .commit(vec![StateOperation::Delete(key("b"))])
        .expect("fits");
    let row = |revision, key: &str, is_set| (revision, key.to_owned(), is_set);
    assert_eq!(
        bench.changes(0),
        Ok(vec![row(2, "a", true), row(3, "b", false)])
    );
    assert_eq!(bench.changes(2), Ok(vec![row(3, "b", false)]));
    assert_eq!(bench.changes(3), Ok(vec![]));
    let revision = Revision(3);
    let compacted = Err(StateRefusal::Compacted { revision });
    assert_eq!(bench.changes(4), compacted, "not of this cluster's past");

    for round in 0..=DELETED_KEYS_MAX {
        let name = format!("k{round}");
        bench.commit(vec![set(&name, "")]).expect("fits");
        bench
            .commit(vec![StateOperation::Delete(key(&name))])
            .expect("fits");
    }
    assert!(matches!(
        bench.changes(2),
        Err(StateRefusal::Compacted { .. })
    ));
    assert!(bench.changes(5).is_ok(), "the last ones are remembered");

    let present = bench.state.revision();
    bench.apply(&StateChange::Clear).expect("always");
    assert!(matches!(
        bench.changes(present.0),
        Err(StateRefusal::Compacted { .. })
    ));
    assert_eq!(bench.changes(present.0 + 1), Ok(vec![]));
}

#[test]
fn a_list_and_a_watch_come_in_pages() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..1_500).map(|at| format!("k{at:04}")).collect();
    for names in names.chunks(60) {
        let operations = names.iter().map(|name| set(name, "v"));
        bench.commit(operations.collect()).expect("fits");
    }
    bench
        .commit(vec![set("j", "v"), set("l", "v")])
        .expect("fits");
    let mut seen: Vec<String> = Vec::new();
    let mut after = None;
    loop {
        let page = bench.state.list(&bench.id, "k", after.as_ref());
        let StateAnswer::Entries { entries, more, .. } = page else {
            panic!("{page:?}");
        };
        after = entries.last().map(|it| it.key.clone());
        seen.extend(entries.iter().map(|it| it.key.to_string()));
        if !more {
            break;
        }
    }
    assert_eq!(seen, names);

    let mut count = 0;
    let mut revision = Revision(0);
    while let Some(StateAnswer::Changes {
        changes,
        revision: next,
    }) = bench
        .state
        .changes(&bench.id, "k", revision)
        .expect("nothing is forgotten")
    {
        assert!(next > revision);
        (count, revision) = (count + changes.len(), next);
    }
    assert_eq!((count, revision), (1_500, bench.state.revision()));
}

#[test]
fn everything_has_a_bound_with_a_name() {
    let over = |bound, limit| Err(StateRefusal::OverLimit { bound, limit });
    let mut bench = Bench::new();
    let big = "v".repeat(StateValue::BYTES_MAX);
    let too_big = bench.commit(vec![set("a", &format!("{big}v"))]);
    assert_eq!(too_big, over(StateBound::ValueBytes, 64 << 10));
    let many = bench.commit(vec![set("a", ""); 65]);
    assert_eq!(many, over(StateBound::Operations, 64));
    let much: Vec<_> = (0..9).map(|at| set(&format!("{at}"), &big)).collect();
    assert_eq!(
        bench.commit(much),
        over(StateBound::TransactionBytes, 512 << 10)
    );
    assert_eq!(bench.state, State::default(), "nothing of it was done");

    for at in 0..31 {
        bench
            .commit(vec![set(&format!("big{at}"), &big)])
            .expect("below 2 MiB");
    }
    let full = bench.commit(vec![set("last", &big)]);
    assert_eq!(full, over(StateBound::SpaceBytes, SPACE_BYTES_MAX));
    bench
        .commit(vec![set("big3", &big)])
        .expect("in the place of what was there");
    bench
        .commit(vec![set("last", &big), StateOperation::Delete(key("big1"))])
        .expect("it swaps");

    bench.apply(&StateChange::Clear).expect("always");
    for names in (0..KEYS_MAX).collect::<Vec<_>>().chunks(64) {
        let operations = names.iter().map(|at| set(&format!("{at}"), ""));
        bench.commit(operations.collect()).expect("not too many");
    }
    assert_eq!(
        bench.commit(vec![set("x", "")]),
        over(StateBound::Keys, 4_096)
    );
    bench
        .commit(vec![set("x", ""), StateOperation::Delete(key("0"))])
        .expect("as many");

    bench.apply(&StateChange::Clear).expect("always");
    let sessions: Vec<SessionId> = (0..SESSIONS_PER_SPACE_MAX).map(|_| bench.open()).collect();
    let open = |holder: String| StateChange::Open {
        holder,
        ttl: Duration::ZERO,
    };
    assert_eq!(
        bench.apply(&open(String::new())),
        over(StateBound::Sessions, 256)
    );
    assert_eq!(
        bench.apply(&open("h".repeat(257))),
        over(StateBound::HolderBytes, 256)
    );
    let permits = bench.by(sessions[0], &acquire("l", PERMITS_MAX_PLUS_ONE, true));
    assert_eq!(permits, over(StateBound::Permits, 1_000_000));
    for at in 0..HOLDS_PER_SPACE_MAX {
        let by = Some(Numbered {
            session: sessions[at % sessions.len()],
            number: 10 + at as u64,
        });
        let queued = bench.state.apply(&bench.id, by, &acquire("slots", 5, true));
        queued.outcome.expect("not too many");
    }
    let holds = bench.numbered(sessions[0], 2_000, &acquire("other", 1, true));
    assert_eq!(holds, over(StateBound::Holds, 1_024));
    let unnamed = bench.apply(&acquire("l", 1, true));
    assert_eq!(unnamed, Err(StateRefusal::NoSession));

    for name in ["t", "u", "v"] {
        bench.id = space(name);
        bench.commit(vec![set("a", "")]).expect("four spaces");
    }
    bench.id = space("w");
    assert_eq!(
        bench.commit(vec![set("a", "")]),
        over(StateBound::Spaces, 4)
    );
    bench.id.principal = "another".to_owned();
    bench.commit(vec![set("a", "")]).expect("another's");
}

const PERMITS_MAX_PLUS_ONE: u32 = meros_proto::state::PERMITS_MAX + 1;

#[test]
fn all_spaces_together_have_a_bound() {
    let mut bench = Bench::new();
    let big = "v".repeat(StateValue::BYTES_MAX);
    let mut filled = 0;
    let full = loop {
        bench.id = SpaceId {
            principal: format!("p{}", filled / 28),
            name: SpaceName::new("s").expect("a name"),
        };
        match bench
            .state
            .apply(
                &bench.id,
                None,
                &commit(Vec::new(), vec![set(&filled.to_string(), &big)]),
            )
            .outcome
        {
            Ok(_) => filled += 1,
            Err(refusal) => break refusal,
        }
        assert!(filled < 600, "no bound");
    };
    let expected = StateRefusal::OverLimit {
        bound: StateBound::Bytes,
        limit: STATE_BYTES_MAX,
    };
    assert_eq!(full, expected);
    assert!(bench.state.totals().bytes <= STATE_BYTES_MAX);
}

#[derive(Debug, Clone)]
enum Step {
    Change(SpaceId, Option<(u8, i8)>, StateChange),
    End(SpaceId, u8),
}

fn a_key() -> impl Strategy<Value = StateKey> {
    (0..4u8).prop_map(|at| key(&format!("{}{at}", if at < 2 { "a/" } else { "b/" })))
}

fn a_token() -> impl Strategy<Value = Token> {
    (0..40u64).prop_map(Token)
}

fn a_lease() -> impl Strategy<Value = LeaseName> {
    (0..2u8).prop_map(|at| lease(&format!("l{at}")))
}

fn a_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        a_key().prop_map(Condition::Absent),
        (a_key(), 0..40u64).prop_map(|(key, at)| Condition::Revision {
            key,
            modified: Revision(at)
        }),
        (a_key(), 0..3u8).prop_map(|(key, value)| Condition::Value {
            key,
            value: value.to_string().into()
        }),
        (a_lease(), a_token()).prop_map(|(lease, token)| Condition::Holds { lease, token }),
    ]
}

fn an_operation() -> impl Strategy<Value = StateOperation> {
    prop_oneof![
        3 => (a_key(), 0..3u8).prop_map(|(key, value)| StateOperation::Set {
            key,
            value: value.to_string().into()
        }),
        1 => a_key().prop_map(StateOperation::Delete),
    ]
}

fn a_change() -> impl Strategy<Value = StateChange> {
    let conditions = prop::collection::vec(a_condition(), 0..2);
    let operations = prop::collection::vec(an_operation(), 0..4);
    prop_oneof![
        2 => (2..9u64).prop_map(|ttl| StateChange::Open {
            holder: format!("h{ttl}"),
            ttl: Duration::from_secs(ttl)
        }),
        6 => (conditions, operations).prop_map(|(a, b)| commit(a, b)),
        6 => (a_lease(), 0..3u32, any::<bool>()).prop_map(|(lease, permits, wait)| {
            StateChange::Acquire { lease, permits, wait }
        }),
        4 => (a_lease(), a_token()).prop_map(|(lease, token)| StateChange::Release {
            lease,
            token
        }),
        1 => Just(StateChange::Close),
        1 => Just(StateChange::Clear),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let id = || prop_oneof![3 => Just(space("s")), 1 => Just(space("t"))];
    let by = prop_oneof![
        1 => Just(None),
        4 => (0..30u8, prop_oneof![6 => Just(1i8), 1 => Just(0i8), 1 => Just(-1i8)]).prop_map(Some),
    ];
    prop_oneof![
        20 => (id(), by, a_change()).prop_map(|(id, by, change)| Step::Change(id, by, change)),
        1 => (id(), 0..30u8).prop_map(|(id, session)| Step::End(id, session)),
    ]
}

proptest! {
    #[test]
    fn lists_decide_the_same(steps in prop::collection::vec(a_step(), 1..80)) {
        let (mut state, mut naive) = (State::default(), Naive::default());
        // The number that each session used last.
        let mut numbers = BTreeMap::<SessionId, u64>::new();
        let mut opened: Vec<SessionId> = Vec::new();
        let pick = |opened: &[SessionId], at: u8| match opened.len() {
            0 => SessionId(99),
            // The latest ones, and one that never was.
            count => opened.get(count.saturating_sub(1 + usize::from(at) / 8)).copied()
                .unwrap_or(SessionId(99)),
        };
        for step in steps {
            match step {
                Step::Change(id, by, change) => {
                    let by = by.map(|(at, step)| {
                        let session = pick(&opened, at);
                        let number = numbers.entry(session).or_insert(5);
                        *number = number.saturating_add_signed(step.into()).max(1);
                        Numbered { session, number: *number }
                    });
                    let applied = state.apply(&id, by, &change);
                    let outcome = naive.apply(&id, by, &change);
                    prop_assert_eq!(&applied.outcome, &outcome, "{:?} {:?}", by, change);
                    if let Ok(Changed::Opened { session, .. }) = outcome
                        && !opened.contains(&session)
                    {
                        opened.push(session);
                    }
                }
                Step::End(id, at) => {
                    let session = pick(&opened, at);
                    state.end_session(&id, session);
                    naive.end_session(&id, session);
                }
            }
            if let Err(why) = state.check() {
                prop_assert!(false, "{}", why);
            }
            for id in [space("s"), space("t")] {
                let StateAnswer::Entries { entries, revision, .. } = state.list(&id, "a/", None) else {
                    unreachable!("a list is entries")
                };
                prop_assert_eq!((revision, entries), naive.list(&id, "a/"));
                prop_assert_eq!(state.leases(&id), naive.leases(&id));
                // Whoever has followed since any revision knows what there is, or is told that it
                // does not.
                let present = state.revision().0;
                for after in (present.saturating_sub(12)..=present).chain([0]) {
                    naive.check_changes(&id, Revision(after), state.changes(&id, "", Revision(after)));
                }
            }
        }
        // A snapshot is all there is.
        let json = serde_json::to_string(&state).expect("it has a form");
        prop_assert_eq!(serde_json::from_str::<State>(&json).expect("it is one"), state);
    }
}
