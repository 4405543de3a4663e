//! W16: what a framework has declined is not offered to it again before its time, unless there is
//! more of it, or the framework asks for it, or the slave has changed (semantics E3).

use std::collections::BTreeMap;
use std::time::Duration;

use meros_master_core::FILTERS_PER_KEY_MAX;
use meros_proto::ids::{FrameworkId, OfferId, SlaveId};
use meros_proto::offer::REFUSE_MAX;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, OfferEnd, OfferView};

use super::{Broken, check};

/// What has been declined at one master.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    offers: BTreeMap<OfferId, OfferView>,
    /// What was declined, and until when. What is left of an accept is refused as well, but how much
    /// that is cannot be seen from outside: there it is nothing.
    refused: BTreeMap<(FrameworkId, RoleName, SlaveId), Vec<(Timestamp, Resources)>>,
    /// While an answer to offers is dealt with: until when what is in it is refused.
    until: Option<Timestamp>,
}

impl Refusals {
    /// The master is about to deal with a decline or an accept.
    pub(crate) fn on_answer(&mut self, now: Timestamp, refuse: Duration) {
        self.until = (!refuse.is_zero()).then(|| now.after(refuse.min(REFUSE_MAX)));
    }

    /// The master has dealt with it, or is about to deal with something else.
    pub(crate) fn on_other(&mut self) {
        self.until = None;
    }

    /// A framework asks for what it has declined.
    pub(crate) fn on_revive(&mut self, framework: FrameworkId) {
        self.give_up(|of, _| of == framework);
    }

    /// What these refused may be offered again. It still counts towards the master's bound, which
    /// may know no reason to forget it.
    fn give_up(&mut self, concerns: impl Fn(FrameworkId, SlaveId) -> bool) {
        let keys = self.refused.iter_mut();
        for (_, refused) in keys.filter(|((of, _, at), _)| concerns(*of, *at)) {
            let all = refused.iter_mut();
            all.for_each(|(_, hidden)| *hidden = Resources::new());
        }
    }

    pub(crate) fn on_published(
        &mut self,
        change: &ClusterChange,
        now: Timestamp,
    ) -> Result<(), Broken> {
        match change {
            ClusterChange::Elected(_) => *self = Self::default(),
            ClusterChange::Slave(slave) => {
                self.give_up(|_, at| at == slave.slave_id);
            }
            ClusterChange::SlaveRemoved(slave_id) => {
                self.give_up(|_, at| at == *slave_id);
            }
            ClusterChange::Framework(framework) => {
                let id = framework.framework_id;
                self.give_up(|of, _| of == id);
            }
            ClusterChange::OfferMade(offer) => {
                self.check_offer(offer, now)?;
                self.offers.insert(offer.offer_id, offer.clone());
            }
            ClusterChange::OfferEnded { offer_id, end } => {
                let ended = self.offers.remove(offer_id);
                let is_answered = matches!(end, OfferEnd::Declined | OfferEnd::Accepted);
                if let (Some(offer), true, Some(until)) = (ended, is_answered, self.until) {
                    let key = (offer.framework_id, offer.role, offer.slave_id);
                    let refused = self.refused.entry(key).or_default();
                    refused.retain(|(until, _)| *until > now);
                    refused.push(match end {
                        OfferEnd::Declined => (until, offer.resources),
                        _ => (until, Resources::new()),
                    });
                    // Beyond its bound the master forgets the one that ends first; which, depends on
                    // what cannot be seen.
                    if refused.len() > FILTERS_PER_KEY_MAX {
                        let all = refused.iter_mut();
                        all.for_each(|(_, hidden)| *hidden = Resources::new());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_offer(&self, offer: &OfferView, now: Timestamp) -> Result<(), Broken> {
        let key = (offer.framework_id, offer.role.clone(), offer.slave_id);
        let hidden = self
            .refused
            .get(&key)
            .into_iter()
            .flatten()
            .find(|(until, refused)| {
                *until > now && !refused.is_empty() && refused.contains(&offer.resources)
            });
        check("W16", hidden.is_none(), || {
            let what = format!("{} of {}", offer.resources, offer.slave_id);
            format!("{what} is offered at {now:?} though declined: {hidden:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::Epoch;

    use super::*;

    fn offer(number: u64, cpus: &str) -> OfferView {
        OfferView {
            offer_id: OfferId {
                epoch: Epoch(1),
                number,
            },
            framework_id: FrameworkId(0),
            slave_id: SlaveId(0),
            role: "*".parse().expect("a role"),
            resources: cpus.parse().expect("resources"),
            made_at: Timestamp(1),
        }
    }

    /// Two cpus are offered, and declined for a second.
    fn declined() -> Refusals {
        let mut checker = Refusals::default();
        let first = offer(1, "cpus:2");
        let end = OfferEnd::Declined;
        let offer_id = first.offer_id;
        let made = ClusterChange::OfferMade(first);
        assert_eq!(checker.on_published(&made, Timestamp(0)), Ok(()));
        checker.on_answer(Timestamp(0), Duration::from_secs(1));
        let ended = ClusterChange::OfferEnded { offer_id, end };
        assert_eq!(checker.on_published(&ended, Timestamp(0)), Ok(()));
        checker.on_other();
        checker
    }

    #[test]
    fn what_was_declined_and_comes_again_too_early_is_rejected() {
        let again = |cpus: &str, now| {
            let made = ClusterChange::OfferMade(offer(2, cpus));
            declined().on_published(&made, Timestamp(now))
        };
        for cpus in ["cpus:2", "cpus:1"] {
            assert_eq!(again(cpus, 999_999).expect_err("too early").id, "W16");
        }
        assert_eq!(again("cpus:2.001", 1), Ok(()), "there is more");
        assert_eq!(again("cpus:2", 1_000_000), Ok(()), "its time is over");
        let mut revived = declined();
        revived.on_revive(FrameworkId(0));
        let made = ClusterChange::OfferMade(offer(2, "cpus:2"));
        assert_eq!(revived.on_published(&made, Timestamp(1)), Ok(()));
    }
}
