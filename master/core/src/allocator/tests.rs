//! The allocator by itself.

mod differential;
mod explaining;
mod naive;
mod policy;
mod semantics;

use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use proptest::prelude::*;

use super::{Allocator, FILTERS_PER_FRAMEWORK_MAX, FILTERS_PER_KEY_MAX, Grant};

const F: FrameworkId = FrameworkId(0);
const S: SlaveId = SlaveId(0);

fn any_role() -> RoleName {
    RoleName::any()
}

fn cpus(count: u64) -> Resources {
    format!("cpus:{count}").parse().expect("well formed")
}

fn plan(allocator: &mut Allocator) -> Vec<Grant> {
    let mut grants = Vec::new();
    allocator.plan(&mut grants);
    grants
}

/// Whether a framework would not be offered this because it has declined it.
fn hides(allocator: &Allocator, slave: SlaveId, resources: &Resources) -> bool {
    let leaf = allocator
        .tree
        .find_leaf(F, &any_role())
        .expect("it has filters");
    allocator.filters.until(leaf, slave, resources).is_some()
}

fn with_slaves(count: u32) -> Allocator {
    let mut allocator = Allocator::default();
    for number in 0..count {
        allocator.add_slave(SlaveId(number), &cpus(4));
    }
    allocator
}

#[test]
fn slaves_are_divided_evenly_among_equals() {
    // semantics: E10
    let mut allocator = with_slaves(100);
    for number in 0..4 {
        allocator.set_active(FrameworkId(number), &any_role(), true);
    }
    let grants = plan(&mut allocator);
    for number in 0..4 {
        let of = grants
            .iter()
            .filter(|grant| grant.framework == FrameworkId(number));
        assert_eq!(of.count(), 25);
    }
}

#[test]
fn a_round_looks_at_nothing_where_nothing_has_changed() {
    let mut allocator = with_slaves(3);
    allocator.set_active(F, &any_role(), true);
    assert_eq!(plan(&mut allocator).len(), 3);
    assert!(!allocator.is_dirty());
    allocator.release(F, &any_role(), SlaveId(1), cpus(4));
    assert!(allocator.dirty.iter().eq([1]));
}

#[test]
fn a_filter_hides_a_part_of_what_was_refused_and_nothing_more() {
    // semantics: E3
    let mut allocator = with_slaves(1);
    allocator.set_active(F, &any_role(), true);
    assert!(allocator.filter(F, &any_role(), S, cpus(2), Timestamp(10)));
    let hides = |allocator: &Allocator, count| hides(allocator, S, &cpus(count));
    assert!(hides(&allocator, 1) && hides(&allocator, 2) && !hides(&allocator, 3));
    allocator.expire_filters(Timestamp(9));
    assert!(hides(&allocator, 2));
    allocator.expire_filters(Timestamp(10));
    assert!(!hides(&allocator, 2) && allocator.next_expiry().is_none());
    assert!(allocator.is_consistent());
}

#[test]
fn filters_of_one_slave_are_few_and_the_first_to_end_makes_room() {
    let mut allocator = with_slaves(1);
    // Each is longer and smaller than the one before: none hides another for its whole time.
    for number in 0..=FILTERS_PER_KEY_MAX as u64 {
        let until = Timestamp(100 + number);
        assert!(allocator.filter(F, &any_role(), S, cpus(20 - number), until));
    }
    assert!(!hides(&allocator, S, &cpus(20)));
    assert!(hides(&allocator, S, &cpus(19)));
    assert_eq!(allocator.filters_replaced(), 1);
    assert!(allocator.is_consistent());
}

#[test]
fn a_framework_with_too_many_filters_gets_no_more() {
    let mut allocator = Allocator::default();
    let bound = u32::try_from(FILTERS_PER_FRAMEWORK_MAX).expect("small");
    for number in 0..bound {
        assert!(allocator.filter(F, &any_role(), SlaveId(number), cpus(1), Timestamp(9)));
    }
    assert!(!allocator.filter(F, &any_role(), SlaveId(bound), cpus(1), Timestamp(9)));
    allocator.clear_filters(F, Some(&any_role()));
    assert!(allocator.filter(F, &any_role(), S, cpus(1), Timestamp(9)));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u32, u64),
    Remove(u32),
    Offerable(u32, bool),
    Active(u32, u8, bool),
    Plan,
    GiveBack(usize, u64),
    ClearFilters(u32),
    ClearSlave(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5u32, 1..9u64).prop_map(|(slave, count)| Step::Add(slave, count)),
        (0..5u32).prop_map(Step::Remove),
        (0..5u32, any::<bool>()).prop_map(|(slave, on)| Step::Offerable(slave, on)),
        (0..4u32, 0..2u8, any::<bool>()).prop_map(|(f, role, on)| Step::Active(f, role, on)),
        Just(Step::Plan),
        (0..9usize, 0..30u64).prop_map(|(grant, refuse)| Step::GiveBack(grant, refuse)),
        (0..4u32).prop_map(Step::ClearFilters),
        (0..5u32).prop_map(Step::ClearSlave),
        (0..20u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn nothing_is_granted_twice_and_the_orders_stay_right(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let roles = [any_role(), RoleName::new("a").expect("well formed")];
        let mut allocator = Allocator::default();
        let mut held = Vec::new();
        let mut now = Timestamp(0);
        for step in steps {
            match step {
                Step::Add(slave, count) => {
                    // As the core does: all is taken back before a slave is another.
                    let slave = SlaveId(slave);
                    held.retain(|grant: &Grant| {
                        let stays = grant.slave != slave;
                        if !stays {
                            allocator.release(grant.framework, &grant.role, slave, grant.resources.clone());
                        }
                        stays
                    });
                    allocator.add_slave(slave, &cpus(count));
                }
                Step::Remove(slave) => {
                    let slave = SlaveId(slave);
                    allocator.remove_slave(slave);
                    held.retain(|grant| {
                        let stays = grant.slave != slave;
                        if !stays {
                            allocator.release(grant.framework, &grant.role, slave, grant.resources.clone());
                        }
                        stays
                    });
                }
                Step::Offerable(slave, on) => allocator.set_offerable(SlaveId(slave), on),
                Step::Active(framework, role, on) => {
                    allocator.set_active(FrameworkId(framework), &roles[usize::from(role)], on);
                }
                Step::Plan => held.extend(plan(&mut allocator)),
                Step::GiveBack(at, refuse) if at < held.len() => {
                    let grant = held.swap_remove(at);
                    let (framework, slave) = (grant.framework, grant.slave);
                    let until = now.after(Duration::from_micros(refuse));
                    allocator.filter(framework, &grant.role, slave, grant.resources.clone(), until);
                    allocator.release(framework, &grant.role, slave, grant.resources);
                }
                Step::GiveBack(..) => {}
                Step::ClearFilters(framework) => allocator.clear_filters(FrameworkId(framework), None),
                Step::ClearSlave(slave) => allocator.clear_slave_filters(SlaveId(slave)),
                Step::Pass(micros) => {
                    now = now.after(Duration::from_micros(micros));
                    allocator.expire_filters(now);
                }
            }
            prop_assert!(allocator.is_consistent());
            for slave in (0..5).map(SlaveId) {
                let Some(free) = allocator.free(slave) else { continue };
                let mut sum = free.clone();
                for grant in held.iter().filter(|grant| grant.slave == slave) {
                    sum.checked_add_assign(&grant.resources).expect("small");
                }
                prop_assert_eq!(Some(&sum), allocator.total(slave));
            }
            for framework in (0..4).map(FrameworkId) {
                for role in &roles {
                    let mut sum = Resources::new();
                    for grant in held.iter().filter(|it| it.framework == framework && it.role == *role) {
                        sum.checked_add_assign(&grant.resources).expect("small");
                    }
                    prop_assert!(allocator.is_charged_with(framework, role, &sum));
                }
            }
        }
    }
}
