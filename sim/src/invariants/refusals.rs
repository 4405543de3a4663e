//! W16: what a framework has declined is not offered to it again before its time, unless there is
//! more of it, or the framework asks for it, or the slave has changed (semantics E3).

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::ids::{FrameworkId, OfferId, SlaveId};
use meros_proto::message::slave::{RunGroup, RunTask};
use meros_proto::offer::REFUSE_MAX;
use meros_proto::resources::{Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveState;
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, OfferEnd, OfferView, SlaveView};

use super::{Broken, check};

/// What a framework does not want for a while.
#[derive(Debug)]
struct Refused {
    until: Timestamp,
    what: Resources,
    /// Unless the master may have had to forget it for a reason that cannot be seen from outside.
    is_sure: bool,
}

type Key = (FrameworkId, RoleName, SlaveId);

/// What has been declined at one master, and what was left of accepts.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    offers: BTreeMap<OfferId, OfferView>,
    slaves: BTreeMap<SlaveId, SlaveView>,
    subscribed_since: BTreeMap<FrameworkId, Timestamp>,
    refused: BTreeMap<Key, Vec<Refused>>,
    /// While an answer to offers is dealt with: until when what is in it is refused.
    until: Option<Timestamp>,
    /// What is left of the offers of an accept, while it is dealt with.
    rest: Option<(Key, Resources)>,
    /// How often the master has let one that it kept make room for another, before the present
    /// answer and now.
    replaced: (u64, u64),
}

impl Refusals {
    /// The master is about to deal with a decline or an accept.
    pub(crate) fn on_answer(&mut self, now: Timestamp, refuse: Duration) {
        self.until = (!refuse.is_zero()).then(|| now.after(refuse.min(REFUSE_MAX)));
    }

    /// The master has dealt with it, at this time of its own.
    pub(crate) fn on_answered(&mut self, now: Timestamp) {
        self.refuse_rest(now);
        self.until = None;
        self.replaced.0 = self.replaced.1;
    }

    /// So many have made room up to the end of the present event.
    pub(crate) fn on_replaced(&mut self, replaced: u64) {
        self.replaced.1 = replaced;
    }

    /// A framework asks for what it has declined; the master may say no to that.
    pub(crate) fn on_revive(&mut self, framework: FrameworkId) {
        self.doubt(|of, _| of == framework);
    }

    /// What these refused may be offered again.
    fn doubt(&mut self, concerns: impl Fn(FrameworkId, SlaveId) -> bool) {
        let keys = self.refused.iter_mut();
        for (_, refused) in keys.filter(|((of, _, at), _)| concerns(*of, *at)) {
            refused.iter_mut().for_each(|it| it.is_sure = false);
        }
    }

    fn refuse_rest(&mut self, now: Timestamp) {
        if let (Some((key, rest)), Some(until)) = (self.rest.take(), self.until) {
            self.refuse(key, rest, until, now);
        }
    }

    /// As the master keeps it: what another one covers is not kept, and beyond its bound one makes
    /// room. Which one that is depends on what cannot be seen.
    fn refuse(&mut self, key: Key, what: Resources, until: Timestamp, now: Timestamp) {
        let refused = self.refused.entry(key).or_default();
        refused.retain(|it| it.until > now);
        if self.replaced.1 > self.replaced.0 {
            refused.clear();
        }
        let covers = |it: &Refused| it.is_sure && it.until >= until && it.what.contains(&what);
        if what.is_empty() || refused.iter().any(covers) {
            return;
        }
        refused.retain(|it| !(it.is_sure && it.until <= until && what.contains(&it.what)));
        refused.push(Refused {
            until,
            what,
            is_sure: true,
        });
    }

    pub(crate) fn on_published(
        &mut self,
        change: &ClusterChange,
        now: Timestamp,
    ) -> Result<(), Broken> {
        match change {
            ClusterChange::Elected(_) => *self = Self::default(),
            ClusterChange::Slave(slave) => {
                self.convert_rest(slave)?;
                let is_as_before = self.slaves.get(&slave.slave_id).is_some_and(|before| {
                    (&before.resources, &before.attributes) == (&slave.resources, &slave.attributes)
                });
                if !is_as_before || slave.state == SlaveState::Unreachable {
                    self.doubt(|_, at| at == slave.slave_id);
                }
                self.slaves.insert(slave.slave_id, slave.clone());
            }
            ClusterChange::SlaveRemoved(slave_id) => {
                self.slaves.remove(slave_id);
                self.refused.retain(|(_, _, at), _| at != slave_id);
            }
            ClusterChange::Framework(framework) => {
                let id = framework.framework_id;
                let since = framework.state_since;
                // Nothing that was refused outlives a subscription (semantics N6).
                if self.subscribed_since.insert(id, since) != Some(since) {
                    self.refused.retain(|(of, _, _), _| *of != id);
                }
            }
            ClusterChange::OfferMade(offer) => {
                self.refuse_rest(now);
                self.check_offer(offer, now)?;
                self.offers.insert(offer.offer_id, offer.clone());
            }
            ClusterChange::OfferEnded { offer_id, end } => {
                if let Some(offer) = self.offers.remove(offer_id) {
                    self.on_offer_ended(offer, *end, now);
                }
            }
            ClusterChange::TaskAdded(task) => {
                let of = (task.framework_id, &task.role, task.slave_id);
                self.take_of_rest(of, &task.resources, || task.task_id.to_string())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The master orders a task for which its executor is started: that is paid for with it, and what is
    /// left of the accept is so much less. Its part is more than was refused when it ends.
    pub(crate) fn on_executor_starts(&mut self, run: &RunTask) -> Result<(), Broken> {
        let Some(executor) = &run.task.executor else {
            return Ok(());
        };
        let of = (run.framework.framework_id, &run.role, run.task.slave_id);
        self.take_of_rest(of, &executor.resources, || {
            format!("executor {}", executor.executor_id)
        })
    }

    /// The same of a group of tasks.
    pub(crate) fn on_group_starts(&mut self, run: &RunGroup) -> Result<(), Broken> {
        let Some(first) = run.group.tasks.first() else {
            return Ok(());
        };
        let executor = &run.group.executor;
        let of = (run.framework.framework_id, &run.role, first.slave_id);
        self.take_of_rest(of, &executor.resources, || {
            format!("group {}", executor.executor_id)
        })
    }

    /// While an accept is dealt with, what is launched by it is no more left of it.
    fn take_of_rest(
        &mut self,
        of: (FrameworkId, &RoleName, SlaveId),
        resources: &Resources,
        what: impl FnOnce() -> String,
    ) -> Result<(), Broken> {
        let Some((key, rest)) = &mut self.rest else {
            return Ok(());
        };
        if (key.0, &key.1, key.2) != of {
            return Ok(());
        }
        let fits = rest.checked_sub_assign(resources);
        check("W16", fits.is_ok(), || {
            format!("{} is launched on less than it takes", what())
        })
    }

    /// While an accept is dealt with, what its slave has changes by operations on what is left of it.
    fn convert_rest(&mut self, now: &SlaveView) -> Result<(), Broken> {
        let (Some((key, rest)), Some(before)) = (&mut self.rest, self.slaves.get(&now.slave_id))
        else {
            return Ok(());
        };
        if key.2 != now.slave_id {
            return Ok(());
        }
        let changed = rest.checked_sub_assign(&beyond(&before.resources, &now.resources));
        check("W16", changed.is_ok(), || {
            format!("{} changes more than was accepted", now.slave_id)
        })?;
        rest.checked_add_assign(&beyond(&now.resources, &before.resources))
            .expect("parts of one slave");
        Ok(())
    }

    fn on_offer_ended(&mut self, offer: OfferView, end: OfferEnd, now: Timestamp) {
        let key = (offer.framework_id, offer.role, offer.slave_id);
        match (end, self.until) {
            (OfferEnd::Declined, Some(until)) => self.refuse(key, offer.resources, until, now),
            (OfferEnd::Accepted, Some(_)) => match &mut self.rest {
                Some((_, rest)) => rest
                    .checked_add_assign(&offer.resources)
                    .expect("parts of one slave"),
                None => self.rest = Some((key, offer.resources)),
            },
            _ => {}
        }
    }

    fn check_offer(&self, offer: &OfferView, now: Timestamp) -> Result<(), Broken> {
        let key = (offer.framework_id, offer.role.clone(), offer.slave_id);
        let hidden = self
            .refused
            .get(&key)
            .into_iter()
            .flatten()
            .find(|it| it.is_sure && it.until > now && it.what.contains(&offer.resources));
        check("W16", hidden.is_none(), || {
            let what = format!("{} of {}", offer.resources, offer.slave_id);
            format!("{what} is offered at {now:?} though declined: {hidden:?}")
        })
    }
}

/// What of these the others have not got; of ranges and sets, which nothing here changes, nothing.
fn beyond(these: &Resources, others: &Resources) -> Resources {
    let mut sum = Resources::new();
    for resource in these {
        let Value::Scalar(amount) = resource.value() else {
            continue;
        };
        if resource.volume().is_some() {
            // A volume that has another size is another one as far as claims go: it is taken and given whole.
            if !others.iter().any(|other| other == resource) {
                sum.checked_add_assign(&resource.clone().into())
                    .expect("parts of one slave");
            }
            continue;
        }
        let mut same = others.iter().filter_map(|other| match other.value() {
            Value::Scalar(has) if other.with_amount(*amount) == *resource => Some(*has),
            _ => None,
        });
        let has = same.next().unwrap_or(Scalar::ZERO);
        if let Some(more) = amount.checked_sub(has).filter(|it| *it > Scalar::ZERO) {
            sum.checked_add_assign(&resource.with_amount(more).into())
                .expect("parts of one slave");
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::example::{offer_view, run_in_executor, slave_view, task_view};
    use super::*;

    fn offer(number: u64, cpus: &str) -> OfferView {
        offer_view(number, "*", cpus)
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
        checker.on_answered(Timestamp(0));
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

    #[test]
    fn what_has_made_room_may_come_again_and_what_it_made_room_for_not() {
        let mut checker = declined();
        let third = offer(3, "cpus:1;mem:9");
        let offer_id = third.offer_id;
        let end = OfferEnd::Declined;
        let made = |number, what| ClusterChange::OfferMade(offer(number, what));
        let mut hear = |change| checker.on_published(&change, Timestamp(1));
        assert_eq!(hear(ClusterChange::OfferMade(third)), Ok(()));
        checker.on_answer(Timestamp(1), Duration::from_secs(1));
        checker.on_replaced(1);
        let ended = ClusterChange::OfferEnded { offer_id, end };
        assert_eq!(checker.on_published(&ended, Timestamp(1)), Ok(()));
        checker.on_answered(Timestamp(1));
        let mut hear = |change| checker.on_published(&change, Timestamp(2));
        assert_eq!(hear(made(4, "cpus:2")), Ok(()));
        let again = hear(made(5, "cpus:1;mem:9"));
        assert_eq!(again.expect_err("too early").id, "W16");
    }

    #[test]
    fn what_an_accept_has_left_and_comes_again_too_early_is_rejected() {
        let again = |cpus: &str| {
            let mut checker = Refusals::default();
            let first = offer(1, "cpus:3");
            let offer_id = first.offer_id;
            checker.on_answer(Timestamp(0), Duration::from_secs(1));
            let mut hear = |change| checker.on_published(&change, Timestamp(0));
            assert_eq!(hear(ClusterChange::OfferMade(first)), Ok(()));
            let end = OfferEnd::Accepted;
            assert_eq!(hear(ClusterChange::OfferEnded { offer_id, end }), Ok(()));
            let task = task_view(FrameworkId(0));
            assert_eq!(hear(ClusterChange::TaskAdded(task)), Ok(()));
            hear(ClusterChange::OfferMade(offer(2, cpus)))
        };
        assert_eq!(again("cpus:2").expect_err("it is left").id, "W16");
        assert_eq!(again("cpus:2.5"), Ok(()), "there is more");
    }

    #[test]
    fn what_an_executor_takes_is_not_left_of_the_accept_that_starts_it() {
        let after = |takes: &str, again: &str| {
            let mut checker = Refusals::default();
            let first = offer(1, "cpus:3");
            let (offer_id, end) = (first.offer_id, OfferEnd::Accepted);
            checker.on_answer(Timestamp(0), Duration::from_secs(1));
            let task = ClusterChange::TaskAdded(task_view(FrameworkId(0)));
            let made = ClusterChange::OfferMade(first);
            for change in [made, ClusterChange::OfferEnded { offer_id, end }, task] {
                assert_eq!(checker.on_published(&change, Timestamp(0)), Ok(()));
            }
            checker.on_executor_starts(&run_in_executor(takes))?;
            checker.on_published(&ClusterChange::OfferMade(offer(2, again)), Timestamp(0))
        };
        // Of three one is the task's.
        assert_eq!(after("cpus:0.5", "cpus:1.5").expect_err("left").id, "W16");
        assert_eq!(after("cpus:0.5", "cpus:1").expect_err("left").id, "W16");
        assert_eq!(
            after("cpus:0.5", "cpus:2"),
            Ok(()),
            "the executor has ended"
        );
        let too_much = after("cpus:2.5", "cpus:2.5");
        assert_eq!(too_much.expect_err("not all was offered").id, "W16");
    }

    #[test]
    fn an_accept_changes_what_it_was_offered_and_nothing_else() {
        let after = |cpus: &str, task: &str| {
            let mut checker = Refusals::default();
            checker.on_answer(Timestamp(0), Duration::from_secs(1));
            let mut hear = |change| checker.on_published(&change, Timestamp(0));
            let slave = slave_view(SlaveId(0), "cpus:3");
            assert_eq!(hear(ClusterChange::Slave(slave)), Ok(()));
            let first = offer(1, "cpus:2");
            let (offer_id, end) = (first.offer_id, OfferEnd::Accepted);
            assert_eq!(hear(ClusterChange::OfferMade(first)), Ok(()));
            assert_eq!(hear(ClusterChange::OfferEnded { offer_id, end }), Ok(()));
            hear(ClusterChange::Slave(slave_view(SlaveId(0), cpus)))?;
            let mut launched = task_view(FrameworkId(0));
            launched.resources = task.parse().expect("well formed");
            hear(ClusterChange::TaskAdded(launched))
        };
        let reserved = "cpus:1.5;cpus(web,):1.5";
        assert_eq!(after(reserved, "cpus(web,):1.5"), Ok(()));
        assert_eq!(after(reserved, "cpus:1").expect_err("reserved").id, "W16");
        let too_much = after("cpus:0.5;cpus(web,):2.5", "cpus:0.1");
        assert_eq!(too_much.expect_err("not all was offered").id, "W16");
    }

    #[test]
    fn a_slave_that_was_away_for_a_moment_does_not_void_what_was_declined() {
        let view = |state| {
            ClusterChange::Slave(SlaveView {
                state,
                ..slave_view(SlaveId(0), "cpus:2")
            })
        };
        let after = |states: &[SlaveState]| {
            let mut checker = Refusals::default();
            let registered = view(SlaveState::Registered);
            assert_eq!(checker.on_published(&registered, Timestamp(0)), Ok(()));
            checker.refused = declined().refused;
            for state in states {
                assert_eq!(checker.on_published(&view(*state), Timestamp(0)), Ok(()));
            }
            checker.on_published(&ClusterChange::OfferMade(offer(2, "cpus:2")), Timestamp(1))
        };
        let blink = [SlaveState::Disconnected, SlaveState::Registered];
        assert_eq!(after(&blink).expect_err("too early").id, "W16");
        let away = [SlaveState::Unreachable, SlaveState::Registered];
        assert_eq!(after(&away), Ok(()));
    }
}
