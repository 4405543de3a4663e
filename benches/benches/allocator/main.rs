//! `allocator/*`: the offer-matching hot path, with the workloads of Apache Mesos's benchmarks.
//!
//! Set-up is asserted before anything is timed, and a digest of the decisions is printed, so that
//! two commits can be compared. What is timed is the processor time of the one thread that decides,
//! because machines are shared. With `--test` everything runs once, on small clusters.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meros_benches::cluster::{Again, Chance, Cluster, Digest, FOR_EVER, parsed};
use meros_benches::cpu_time::CpuTime;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::labels::{Label, Labels};
use meros_proto::quota::Quota;
use meros_proto::resources::{Reservation, ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;

fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// The size, or a small one in a test.
fn sized(slaves: u32, frameworks: u32) -> (u32, u32) {
    if is_test() {
        (slaves.min(200), frameworks.min(20))
    } else {
        (slaves, frameworks)
    }
}

/// Five rounds: all offers come back without a filter, another fifth of the frameworks is
/// suppressed, and one round is timed. In the last one nobody is left to offer to.
fn suppress_offers(c: &mut Criterion) {
    for (slaves, frameworks) in [(10_000, 1_000), (20_000, 2_000), (50_000, 6_000)] {
        let (slaves, frameworks) = sized(slaves, frameworks);
        let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
        let mut digest = Digest::default();
        let fifth = frameworks / 5;
        // The time of the first four rounds, and that of the last.
        let rounds = |cluster: &mut Cluster, digest: &mut Digest| {
            let mut times = (Duration::ZERO, Duration::ZERO);
            cluster.activate_all();
            for round in 0..5u32 {
                cluster.give_back(None);
                for framework in round * fifth..(round + 1) * fifth {
                    cluster.set_active(framework, false);
                }
                let begin = CpuTime::now();
                cluster.plan();
                let time = begin.elapsed();
                let offers = if round < 4 { slaves } else { 0 };
                assert_eq!(cluster.grants.len(), offers as usize);
                digest.add(&cluster.grants);
                *(if round < 4 {
                    &mut times.0
                } else {
                    &mut times.1
                }) += time;
            }
            (times.0 / 4, times.1)
        };
        rounds(&mut cluster, &mut digest);
        digest.print(&format!("suppress_offers/{slaves}x{frameworks}"));
        let mut group = c.benchmark_group("allocator/suppress_offers");
        group.sample_size(10);
        let size = format!("{slaves}x{frameworks}");
        group.bench_function(BenchmarkId::new("round", &size), |b| {
            b.iter_custom(|count| {
                (0..count)
                    .map(|_| rounds(&mut cluster, &mut digest).0)
                    .sum()
            });
        });
        group.bench_function(BenchmarkId::new("all_suppressed", &size), |b| {
            b.iter_custom(|count| {
                (0..count)
                    .map(|_| rounds(&mut cluster, &mut digest).1)
                    .sum()
            });
        });
    }
}

/// Rounds that are followed by declining every offer for ever.
fn decline_offers(c: &mut Criterion) {
    for (slaves, frameworks) in [(1_000, 200), (10_000, 1_000)] {
        let (slaves, frameworks) = sized(slaves, frameworks);
        let size = format!("{slaves}x{frameworks}");
        let mut group = c.benchmark_group("allocator/decline_offers");
        group.sample_size(10);
        let mut again = Again::new(format!("decline_offers/{size}"));
        let mut run = |rounds: u32| {
            let mut digest = Digest::default();
            let mut cluster = Cluster::fragmented(slaves, frameworks, 2_014);
            // All rounds with offers, and the slowest without.
            let mut with_offers = Vec::new();
            let mut slowest_without = Duration::ZERO;
            let begin = CpuTime::now();
            for round in 0..rounds {
                let begin = CpuTime::now();
                cluster.plan();
                let time = begin.elapsed();
                let offers = if round < frameworks { slaves } else { 0 };
                assert_eq!(cluster.grants.len(), offers as usize, "round {round}");
                // The round after the last decline finds that all is filtered; later ones know.
                match round.cmp(&frameworks) {
                    std::cmp::Ordering::Less => with_offers.push(time),
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => slowest_without = slowest_without.max(time),
                }
                digest.add(&cluster.grants);
                cluster.give_back(Some(FOR_EVER));
            }
            with_offers.sort_unstable();
            again.add(&digest);
            (begin.elapsed(), with_offers, slowest_without)
        };
        // The large one is measured on its first rounds: all of it would be ten million declines.
        let rounds = if slaves == 10_000 { 40 } else { 2 * frameworks };
        let (all, with_offers, without) = run(rounds);
        let (median, slowest) = (with_offers.len() / 2, with_offers.len() - 1);
        println!(
            "decline_offers/{size}: {rounds} rounds in {all:?}; with offers median {:?}, slowest \
             {:?}; without {without:?}",
            with_offers[median], with_offers[slowest]
        );
        group.bench_function(BenchmarkId::new("all_rounds", &size), |b| {
            b.iter_custom(|count| (0..count).map(|_| run(rounds).0).sum());
        });
    }
}

/// All slaves are added one by one, with a round after each; then each gets 10 revocable cpus.
fn add_slaves(c: &mut Criterion) {
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let mut again = Again::new(format!("add_and_update_slave/update/{size}"));
    let mut update = || {
        let mut cluster = Cluster::full(slaves, frameworks);
        let begin = CpuTime::now();
        cluster.grow_slaves_one_by_one(slaves);
        let time = begin.elapsed();
        assert_eq!(cluster.grants.len(), 2 * slaves as usize);
        again.add(&Digest::of(&cluster.grants));
        time
    };
    let mut again = Again::new(format!("add_and_update_slave/add/{size}"));
    let mut add = || {
        let mut cluster = Cluster::empty(frameworks);
        cluster.activate_all();
        let begin = CpuTime::now();
        cluster.add_slaves_one_by_one(slaves);
        let time = begin.elapsed();
        assert_eq!(cluster.grants.len(), slaves as usize);
        again.add(&Digest::of(&cluster.grants));
        time
    };
    let mut group = c.benchmark_group("allocator/add_and_update_slave");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("update", &size), |b| {
        b.iter_custom(|count| (0..count).map(|_| update()).sum());
    });
    group.bench_function(BenchmarkId::new("add", &size), |b| {
        b.iter_custom(|count| (0..count).map(|_| add()).sum());
    });
}

/// Frameworks first, then slaves that come one by one, then a revival of every framework.
fn backlog(c: &mut Criterion) {
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let total = parsed("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
    let mut again = Again::new(format!("backlog/{size}"));
    let mut run = || {
        let mut cluster = Cluster::empty(frameworks);
        let begin = CpuTime::now();
        for framework in 0..frameworks {
            cluster.set_active(framework, true);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let added_frameworks = begin.elapsed();
        let begin = CpuTime::now();
        for number in 0..slaves {
            cluster.allocator.add_slave(SlaveId(number), &total);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let added_slaves = begin.elapsed();
        assert_eq!(cluster.grants.len(), slaves as usize);
        let begin = CpuTime::now();
        for framework in 0..frameworks {
            cluster
                .allocator
                .clear_filters(FrameworkId(framework), None);
            cluster.set_active(framework, true);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let revived = begin.elapsed();
        assert_eq!(cluster.grants.len(), slaves as usize);
        again.add(&Digest::of(&cluster.grants));
        [added_frameworks, added_slaves, revived]
    };
    let mut group = c.benchmark_group("allocator/backlog");
    group.sample_size(10);
    for (at, name) in ["add_frameworks", "add_slaves", "revive_all"]
        .into_iter()
        .enumerate()
    {
        group.bench_function(BenchmarkId::new(name, &size), |b| {
            b.iter_custom(|count| (0..count).map(|_| run()[at]).sum());
        });
    }
}

fn role_number(number: u32) -> RoleName {
    RoleName::new(&format!("role{number}")).expect("a good role")
}

fn quota_of(cpus: u32, mem: u32, disk: u32) -> Quota {
    let amounts = [
        (ResourceName::CPUS, Scalar::whole(cpus)),
        (ResourceName::MEM, Scalar::whole(mem)),
        (ResourceName::DISK, Scalar::whole(disk)),
    ];
    Quota {
        guarantees: amounts.clone().into(),
        limits: amounts.into(),
    }
}

/// Roles with a quota and a framework each; slaves are added one by one, with a round after each.
fn quota_roles(c: &mut Criterion) {
    let (slaves, roles) = sized(10_000, 1_000);
    let total = parsed("cpus:2;mem:1024;disk:4096;ports:[31000-32000]");
    let size = format!("{slaves}x{roles}");
    let mut again = Again::new(format!("quota_roles/{size}"));
    let mut run = || {
        let mut cluster = Cluster::empty(roles);
        for number in 0..roles {
            let role = role_number(number);
            // What eight slaves have: in the end some have nobody left to go to.
            cluster
                .allocator
                .set_quota(&role, &quota_of(16, 8 * 1_024, 8 * 4_096));
            cluster
                .allocator
                .set_active(FrameworkId(number), &role, true);
        }
        let begin = CpuTime::now();
        for number in 0..slaves {
            cluster.allocator.add_slave(SlaveId(number), &total);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let time = begin.elapsed();
        assert_eq!(cluster.grants.len(), (roles * 8).min(slaves) as usize);
        again.add(&Digest::of(&cluster.grants));
        time
    };
    let mut group = c.benchmark_group("allocator/quota_roles");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("add_slaves", &size), |b| {
        b.iter_custom(|count| (0..count).map(|_| run()).sum());
    });
}

/// Many small and some large quotas: one round that serves them all, and one that looks at every
/// slave again and finds nobody.
fn quota(c: &mut Criterion) {
    let (slaves, _) = sized(3_000, 0);
    let (small, large) = (slaves * 5 / 6, slaves / 6);
    let total = parsed("cpus:2;mem:2048;disk:2048");
    let mut again = Again::new(format!("quota/{slaves}"));
    let mut run = || {
        let mut cluster = Cluster::empty(small + large);
        for number in 0..small + large {
            let role = role_number(number);
            let quota = match number < small {
                true => quota_of(1, 1_024, 1_024),
                false => quota_of(4, 4_096, 4_096),
            };
            cluster.allocator.set_quota(&role, &quota);
            cluster
                .allocator
                .set_active(FrameworkId(number), &role, true);
        }
        for number in 0..slaves {
            cluster.allocator.add_slave(SlaveId(number), &total);
        }
        let begin = CpuTime::now();
        cluster.plan();
        let full = begin.elapsed();
        // Two slaves for each large one, half a slave for each small one.
        assert!(cluster.grants.len() >= (small + 2 * large) as usize);
        again.add(&Digest::of(&cluster.grants));
        // A weight that is set makes a round look everywhere.
        let role = role_number(0);
        cluster.allocator.set_weight(&role, Scalar::ONE);
        assert!(cluster.allocator.is_dirty());
        // To drop thousands of grants is no part of a round.
        cluster.grants.clear();
        let begin = CpuTime::now();
        cluster.plan();
        let none = begin.elapsed();
        assert_eq!(cluster.grants.len(), 0);
        [full, none]
    };
    let mut group = c.benchmark_group("allocator/quota");
    group.sample_size(10);
    for (at, name) in ["full_round", "round_for_nobody"].into_iter().enumerate() {
        group.bench_function(BenchmarkId::new(name, slaves), |b| {
            b.iter_custom(|count| (0..count).map(|_| run()[at]).sum());
        });
    }
}

/// One slave with many labelled reservations, all in use: one more is made and taken back.
fn reservations(c: &mut Criterion) {
    const RESERVATIONS: u32 = 200;
    let role = RoleName::new("role").expect("a good role");
    let reserved = |number: u32| {
        let label = Label::new("number", Some(number.to_string())).expect("short");
        let labels = Labels::from_list(vec![label]).expect("one");
        let reservation = Reservation::dynamic(role.clone(), None, labels).expect("good");
        parsed("cpus:1;mem:32")
            .push_reservation(&reservation)
            .expect("plain resources")
    };
    let (framework, slave) = (FrameworkId(0), SlaveId(0));
    let mut cluster = Cluster::empty(1);
    cluster.allocator.set_active(framework, &role, true);
    let mut total = parsed("cpus:1;mem:32");
    for number in 0..RESERVATIONS {
        total
            .checked_add_assign(&reserved(number))
            .expect("small amounts");
    }
    cluster.allocator.add_slave(slave, &total);
    for number in 0..RESERVATIONS {
        let in_use = reserved(number);
        assert!(cluster.allocator.charge(framework, &role, slave, &in_use));
    }
    let (plain, new) = (parsed("cpus:1;mem:32"), reserved(RESERVATIONS));
    let mut group = c.benchmark_group("allocator/reservations");
    group.bench_function(BenchmarkId::new("pair", RESERVATIONS), |b| {
        b.iter(|| {
            for (from, to) in [(&plain, &new), (&new, &plain)] {
                cluster.plan();
                let grant = cluster.grants.pop().expect("what is not in use");
                assert_eq!(*grant.resources, *from);
                let allocator = &mut cluster.allocator;
                allocator
                    .convert(framework, &role, slave, from, to)
                    .expect("it is there");
                allocator.release(framework, &role, slave, to.clone());
            }
        });
    });
}

/// Few frameworks with many tasks and many with few, until all tasks are placed: counts rounds.
fn multi_framework(c: &mut Criterion) {
    let kinds = [
        (4, 4_000, "cpus:0.07;mem:400", 100),
        (500, 5, "cpus:0.1;mem:4000", 1),
        (50, 20, "cpus:1;mem:1000", 5),
    ];
    let mut again = Again::new("multi_framework".to_owned());
    let mut run = || {
        let mut digest = Digest::default();
        let mut left: Vec<u32> = Vec::new();
        let mut tasks: Vec<(Resources, u32)> = Vec::new();
        for (frameworks, count, text, per_offer) in kinds {
            for _ in 0..frameworks {
                left.push(count);
                tasks.push((parsed(text), per_offer));
            }
        }
        let mut cluster = Cluster::empty(u32::try_from(left.len()).expect("hundreds"));
        for number in 0..80 {
            let total = parsed("cpus:64;mem:488000");
            cluster.allocator.add_slave(SlaveId(number), &total);
        }
        cluster.activate_all();
        let (mut rounds, mut deciding) = (0u32, Duration::ZERO);
        while left.iter().any(|left| *left > 0) {
            let begin = CpuTime::now();
            cluster.plan();
            deciding += begin.elapsed();
            rounds += 1;
            digest.add(&cluster.grants);
            assert!(rounds < 10_000, "tasks that are never placed");
            for mut grant in std::mem::take(&mut cluster.grants) {
                let at = grant.framework.0 as usize;
                let (task, per_offer) = &tasks[at];
                let rest = Arc::make_mut(&mut grant.resources);
                for _ in 0..left[at].min(*per_offer) {
                    if rest.checked_sub_assign(task).is_err() {
                        break;
                    }
                    left[at] -= 1;
                }
                if left[at] == 0 {
                    cluster.set_active(grant.framework.0, false);
                }
                cluster.allocator.release(
                    grant.framework,
                    &grant.role,
                    grant.slave,
                    grant.resources,
                );
            }
        }
        again.add(&digest);
        (rounds, deciding)
    };
    println!("multi_framework: all placed after {} rounds", run().0);
    let mut group = c.benchmark_group("allocator/multi_framework");
    group.sample_size(10);
    group.bench_function("all_placed", |b| {
        b.iter_custom(|count| (0..count).map(|_| run().1).sum());
    });
}

/// A round when nothing has happened.
fn idle(c: &mut Criterion) {
    let (slaves, frameworks) = sized(50_000, 1_000);
    let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
    cluster.plan();
    assert_eq!(cluster.grants.len(), slaves as usize);
    cluster.plan();
    let mut group = c.benchmark_group("allocator/idle");
    group.bench_function(BenchmarkId::from_parameter(slaves), |b| {
        b.iter(|| cluster.plan());
    });
    assert_eq!(cluster.grants.len(), 0);
}

/// Steady state: a task ends somewhere, and what it held is offered, and used again.
fn churn(c: &mut Criterion) {
    /// How many are timed depends on the machine; these are decided in any case, but in a test.
    const DIGESTED: usize = 10_000;
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
    cluster.plan();
    assert_eq!(cluster.grants.len(), slaves as usize);
    let mut held = std::mem::take(&mut cluster.grants);
    held.sort_by_key(|grant| grant.slave);
    let mut chance = Chance(7);
    let mut times: Vec<Duration> = Vec::new();
    let mut digest = Digest::default();
    let mut group = c.benchmark_group("allocator/churn");
    group.bench_function(BenchmarkId::new("completion", &size), |b| {
        b.iter_custom(|count| {
            let mut all = Duration::ZERO;
            for _ in 0..count {
                let at = chance.below(slaves) as usize;
                let begin = CpuTime::now();
                let resources = held[at].resources.clone();
                let (framework, slave) = (held[at].framework, held[at].slave);
                cluster
                    .allocator
                    .release(framework, &held[at].role, slave, resources);
                cluster.plan();
                let time = begin.elapsed();
                assert_eq!(cluster.grants.len(), 1);
                if times.len() < DIGESTED {
                    digest.add(&cluster.grants);
                }
                held[at] = cluster.grants.pop().expect("one");
                all += time;
                if times.len() < 1_000_000 {
                    times.push(time);
                }
            }
            all
        });
    });
    if times.len() >= DIGESTED {
        digest.print(&format!("churn/{size}, {DIGESTED} completions"));
    }
    times.sort_unstable();
    if let Some(p99) = times.get(times.len() * 99 / 100) {
        println!("churn/{size}: from freed to offered p99 {p99:?}");
    }
}

criterion_group!(
    benches,
    suppress_offers,
    decline_offers,
    add_slaves,
    backlog,
    quota_roles,
    quota,
    reservations,
    multi_framework,
    idle,
    churn
);
criterion_main!(benches);
