//! The replicated log of the masters as its users see it: one leader of a term at a time may add to
//! it, what is committed stays, and of what a deposed leader had proposed a beginning may be
//! committed by its successor and the rest is lost. How masters agree on that is not modelled: the
//! consensus library is tested with real processes.

use std::collections::VecDeque;

use meros_master_core::{Command, ProposalId, Registry};
use meros_proto::ids::{ClusterId, Epoch};

use crate::journal::Journal;
use crate::prng::Rng;

/// What is committed, and what the leader has proposed.
#[derive(Debug)]
pub(crate) struct Log {
    registry: Registry,
    /// Committed commands that some master may not have applied yet; the first has this number.
    recent: VecDeque<Command>,
    first: u64,
    /// The latest term, and the master that leads in it.
    term: u64,
    leader: Option<usize>,
    journal: Journal<(ProposalId, Command)>,
}

impl Log {
    /// The log of a cluster that has just been formed, and configured with these.
    pub(crate) fn form(cluster_id: ClusterId, configured: &[Command]) -> Self {
        let mut registry = Registry::default();
        registry
            .apply(&Command::FormCluster { cluster_id })
            .expect("the first command of an empty log");
        for command in configured {
            registry
                .apply(command)
                .expect("quotas and weights fit an empty log");
        }
        Self {
            registry,
            recent: VecDeque::new(),
            first: 0,
            term: 0,
            leader: None,
            journal: Journal::new(),
        }
    }

    /// What all committed commands add up to.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who may commit now.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.leader
    }

    pub(crate) fn term(&self) -> Epoch {
        Epoch(self.term)
    }

    /// The number of the next command.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::try_from(self.recent.len()).expect("lengths fit 64 bits")
    }

    /// Committed commands from this number on.
    pub(crate) fn since(&self, number: u64) -> Vec<Command> {
        let known = usize::try_from(number - self.first).expect("it was a length");
        self.recent.iter().skip(known).cloned().collect()
    }

    /// All masters have applied what comes before this number.
    pub(crate) fn forget_before(&mut self, number: u64) {
        while self.first < number && self.recent.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// A master proposes; true if a write has to be begun for it. A proposal of one that does not
    /// lead any more is lost.
    pub(crate) fn propose(
        &mut self,
        master: usize,
        term: Option<Epoch>,
        proposal: ProposalId,
        command: Command,
    ) -> bool {
        let leads = self.leader == Some(master) && term == Some(self.term());
        leads && self.journal.append((proposal, command))
    }

    /// A write has ended: what is committed by it, and whether another one begins.
    pub(crate) fn written(&mut self) -> (Vec<(ProposalId, Command)>, bool) {
        let (durable, goes_on) = self.journal.written();
        for (_, command) in &durable {
            self.commit(command);
        }
        (durable, goes_on)
    }

    /// A term begins. Of what the last leader had proposed a beginning is
    /// committed.
    pub(crate) fn begin_term(&mut self, leader: usize, rng: &mut Rng) {
        for (_, command) in self.journal.crash(rng) {
            self.commit(&command);
        }
        self.term += 1;
        self.leader = Some(leader);
    }

    fn commit(&mut self, command: &Command) {
        // Commands that no longer fit are results, not failures.
        let _ = self.registry.apply(command);
        self.recent.push_back(command.clone());
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::SlaveId;
    use meros_proto::time::Timestamp;

    use super::*;

    fn remove(number: u32) -> Command {
        let slave_id = SlaveId(number);
        let at = Timestamp(1);
        Command::RemoveSlave { slave_id, at }
    }

    #[test]
    fn only_the_leader_of_the_latest_term_adds_to_the_log() {
        let mut rng = Rng::new(1);
        let mut log = Log::form(ClusterId(1), &[]);
        log.begin_term(0, &mut rng);
        let first = log.term();
        assert!(log.propose(0, Some(first), ProposalId(1), remove(1)));
        assert!(
            !log.propose(1, Some(first), ProposalId(1), remove(2)),
            "it does not lead"
        );
        assert_eq!(log.written(), (vec![(ProposalId(1), remove(1))], false));
        log.begin_term(1, &mut rng);
        assert!(
            !log.propose(0, Some(first), ProposalId(2), remove(3)),
            "deposed"
        );
        assert_eq!(log.since(0), [remove(1)]);
        assert_eq!(log.end(), 1);
    }

    #[test]
    fn of_a_deposed_leaders_proposals_a_beginning_is_committed() {
        let mut kept = [0; 4];
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut log = Log::form(ClusterId(1), &[]);
            log.begin_term(0, &mut rng);
            let term = log.term();
            for number in 0..3 {
                log.propose(0, Some(term), ProposalId(number.into()), remove(number));
            }
            log.begin_term(1, &mut rng);
            let committed = log.since(0);
            assert_eq!(committed, [0, 1, 2].map(remove)[..committed.len()]);
            kept[committed.len()] += 1;
        }
        assert!(kept.iter().all(|count| *count > 0), "{kept:?}");
    }

    #[test]
    fn what_all_masters_have_applied_is_not_kept() {
        let mut log = Log::form(ClusterId(1), &[]);
        for number in 0..3 {
            log.commit(&remove(number));
        }
        log.forget_before(2);
        assert_eq!((log.since(2), log.end()), (vec![remove(2)], 3));
    }
}
