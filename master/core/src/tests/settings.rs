//! Settings of the cluster: they count instead of what masters were started with, also for the next leader.

use super::world::{World, check, framework, secs};
use crate::{ClusterSetting, OperatorCall};

fn set(settings: &[(ClusterSetting, Option<u64>)]) -> OperatorCall {
    OperatorCall::SetSettings {
        settings: settings.to_vec(),
    }
}

#[test]
fn what_is_set_counts_for_what_begins_from_then_on_and_for_the_next_leader() {
    let mut world = World::new();
    let short = (ClusterSetting::OfferTimeout, Some(2_000));
    check(world.operator(1, set(&[short])), &["reply 1 done"]);
    world.slave("cpus:4");
    world.framework(framework());
    let lines = world.pass(secs(3));
    assert!(lines.contains(&"f2 rescind O1-1".to_owned()), "{lines:?}");

    let mut next = world.after_failover();
    assert_eq!(
        next.core.registry().settings()[&ClusterSetting::OfferTimeout],
        2_000
    );
    check(
        next.operator(2, set(&[(ClusterSetting::OfferTimeout, None)])),
        &["reply 2 done"],
    );
    assert!(next.core.registry().settings().is_empty());
    assert_eq!(next.core.config, next.core.started_with);
}

#[test]
fn a_setting_out_of_its_range_or_given_twice_is_refused_and_nothing_changes() {
    let mut world = World::new();
    let good = (ClusterSetting::HoardingOffers, Some(7));
    for bad in [
        vec![good, good],
        vec![good, (ClusterSetting::OfferTimeout, Some(999))],
        vec![good, (ClusterSetting::AllocationDelay, Some(u64::MAX))],
    ] {
        check(world.operator(1, set(&bad)), &["reply 1 invalid"]);
        assert!(world.core.registry().settings().is_empty());
    }
}
