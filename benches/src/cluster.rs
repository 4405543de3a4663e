//! Clusters to measure: slaves, frameworks and what they hold.

use std::fmt::Write as _;

use meros_master_core::allocator::{Abilities, Allocator, Grant};
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

/// Longer than anything here takes.
pub const FOR_EVER: Timestamp = Timestamp(365 * 24 * 60 * 60 * 1_000_000);

/// A slave of the workload in which slaves come and grow.
const SLAVE: &str = "cpus:2;mem:1024;disk:4096;ports:[31000-32000]";

/// Resources from their text.
///
/// # Panics
/// The text is not well formed.
#[must_use]
pub fn parsed(text: &str) -> Resources {
    text.parse().expect("written in this file")
}

/// Chance that a seed fixes: SplitMix64.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// A number from 0 to `bound`, which it never is.
    ///
    /// # Panics
    /// `bound` is zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((x ^ (x >> 31)) % u64::from(bound)).expect("below a u32")
    }
}

/// What came out, so that two commits can be seen to decide the same.
#[derive(Debug, Default)]
pub struct Digest(u64);

impl Digest {
    /// Of one round, or several.
    #[must_use]
    pub fn of(grants: &[Grant]) -> Self {
        let mut digest = Self::default();
        digest.add(grants);
        digest
    }

    /// Takes a round in.
    pub fn add(&mut self, grants: &[Grant]) {
        for grant in grants {
            for part in [grant.slave.0, grant.framework.0] {
                self.0 = (self.0 ^ u64::from(part)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    /// Prints it.
    pub fn print(&self, name: &str) {
        println!("{name}: digest of the decisions {:016x}", self.0);
    }
}

/// What comes out of the same run, again and again.
#[derive(Debug)]
pub struct Again {
    name: String,
    first: Option<u64>,
}

impl Again {
    /// Of a bench of this name.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, first: None }
    }

    /// Takes one run in, and prints the first.
    ///
    /// # Panics
    /// It is not what came out of the first.
    pub fn add(&mut self, digest: &Digest) {
        if self.first.is_none() {
            digest.print(&self.name);
        }
        let first = self.first.get_or_insert(digest.0);
        assert_eq!(*first, digest.0, "{}: other decisions", self.name);
    }
}

/// An allocator with slaves 0.. and frameworks 0.., and a buffer for its grants.
#[derive(Debug)]
pub struct Cluster {
    /// What is measured.
    pub allocator: Allocator,
    /// What the last round granted.
    pub grants: Vec<Grant>,
    /// How many frameworks there are.
    pub frameworks: u32,
    /// The role of all of them.
    pub role: RoleName,
}

impl Cluster {
    /// Without slaves; no framework wants anything yet.
    #[must_use]
    pub fn empty(frameworks: u32) -> Self {
        Self {
            allocator: Allocator::default(),
            grants: Vec::new(),
            frameworks,
            role: RoleName::any(),
        }
    }

    /// The set-up that the benchmarks of Apache Mesos share: all frameworks in one role, and on
    /// each slave a part in use by one of them, with 16 port ranges.
    ///
    /// # Panics
    /// The allocator does not have what was added to it.
    #[must_use]
    pub fn fragmented(slaves: u32, frameworks: u32, mem_in_use: u32) -> Self {
        let mut cluster = Self::empty(frameworks);
        let mut ports = String::new();
        for at in 0..16u32 {
            let begin = 31_000 + at * 60;
            let comma = if at == 0 { "" } else { "," };
            write!(ports, "{comma}{begin}-{}", begin + 30).expect("a string takes it");
        }
        let total = parsed("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
        let in_use = parsed(&format!(
            "cpus:16;mem:{mem_in_use};disk:1024;ports:[{ports}]"
        ));
        cluster.activate_all();
        for number in 0..slaves {
            let slave = SlaveId(number);
            cluster.allocator.add_slave(slave, &total);
            let holder = FrameworkId(number % frameworks);
            assert!(
                cluster
                    .allocator
                    .charge(holder, &cluster.role, slave, &in_use)
            );
        }
        cluster
    }

    /// Frameworks that can do with revocable resources, and slaves of which all is offered. Offers that
    /// are out share their sums with the allocator, so they are kept.
    ///
    /// # Panics
    /// Something is not offered.
    #[must_use]
    pub fn full(slaves: u32, frameworks: u32) -> Self {
        let mut cluster = Self::empty(frameworks);
        cluster.activate_all();
        let abilities = Abilities {
            revocable: true,
            ..Abilities::default()
        };
        for framework in (0..frameworks).map(FrameworkId) {
            cluster.allocator.set_abilities(framework, abilities);
        }
        let total = parsed(SLAVE);
        for number in 0..slaves {
            cluster.allocator.add_slave(SlaveId(number), &total);
        }
        cluster.plan();
        assert_eq!(cluster.grants.len(), slaves as usize);
        cluster
    }

    /// Slaves come one by one, each in use in part, with a round after each.
    ///
    /// # Panics
    /// The allocator does not have what was added to it.
    pub fn add_slaves_one_by_one(&mut self, slaves: u32) {
        let total = parsed(SLAVE);
        let in_use = parsed("cpus:1;mem:512;disk:2048;ports:[31000-31500]");
        for number in 0..slaves {
            let slave = SlaveId(number);
            self.allocator.add_slave(slave, &total);
            let holder = FrameworkId(number % self.frameworks);
            let is_charged = self.allocator.charge(holder, &self.role, slave, &in_use);
            assert!(is_charged, "it is free");
            self.allocator.plan(&mut self.grants);
        }
    }

    /// Each slave gets 10 revocable cpus, one after the other, with a round after each.
    ///
    /// # Panics
    /// A slave has too much.
    pub fn grow_slaves_one_by_one(&mut self, slaves: u32) {
        let cpus = Resource::new(ResourceName::CPUS, Scalar::whole(10)).expect("plain");
        let more = Resources::from(cpus.into_revocable().expect("unreserved"));
        for number in 0..slaves {
            let grown = self.allocator.grow_slave(SlaveId(number), &more);
            grown.expect("small");
            self.allocator.plan(&mut self.grants);
        }
    }

    /// A framework wants offers, or does not.
    pub fn set_active(&mut self, framework: u32, is_active: bool) {
        self.allocator
            .set_active(FrameworkId(framework), &self.role, is_active);
    }

    /// All frameworks want offers.
    pub fn activate_all(&mut self) {
        for framework in 0..self.frameworks {
            self.set_active(framework, true);
        }
    }

    /// One round, into the buffer.
    pub fn plan(&mut self) {
        self.grants.clear();
        self.allocator.plan(&mut self.grants);
    }

    /// Gives all grants of the last round back, refused until then or not at all.
    ///
    /// # Panics
    /// A framework has too many filters.
    pub fn give_back(&mut self, until: Option<Timestamp>) {
        for grant in self.grants.drain(..) {
            if let Some(until) = until {
                assert!(self.allocator.filter(
                    grant.framework,
                    &grant.role,
                    grant.slave,
                    grant.resources.clone(),
                    until,
                ));
            }
            self.allocator
                .release(grant.framework, &grant.role, grant.slave, grant.resources);
        }
    }
}
