//! Clusters to measure: slaves, frameworks and what they hold.

use std::fmt::Write as _;

use meros_master_core::allocator::{Allocator, Grant};
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

/// Longer than anything here takes.
pub const FOR_EVER: Timestamp = Timestamp(365 * 24 * 60 * 60 * 1_000_000);

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
