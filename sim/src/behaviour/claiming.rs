//! What a workload does with reservations and volumes: reserves, refines, makes volumes, lets them grow and
//! shrink, destroys them, and gives back, in accepts, before it launches.
//!
//! Reservations are made of bundles of the same size with some cpus in them, because disk alone is
//! below what is worth an offer.

use meros_proto::ids::OperationId;
use meros_proto::labels::{Label, Labels};
use meros_proto::offer::Operation;
use meros_proto::operation::{Change, ChangeKind, ResourceOperation};
use meros_proto::resources::{
    Reservation, Reservations, Resource, ResourceName, Resources, Scalar, Volume,
};
use meros_proto::role::RoleName;

use crate::prng::Rng;

/// The disk of a bundle, and of a volume; in MiB.
const DISK: u32 = 200;
const VOLUME: u32 = 50;
/// By so much a volume grows and shrinks, in MiB.
const STEP: u32 = 20;
/// Persistence ids; few, so that they are used again.
const IDS: [&str; 3] = ["v0", "v1", "v2"];

/// What is done, as often as it stands here: half of it makes something.
pub(crate) const KINDS: [ChangeKind; 8] = [
    ChangeKind::Reserve,
    ChangeKind::Reserve,
    ChangeKind::Unreserve,
    ChangeKind::Create,
    ChangeKind::Create,
    ChangeKind::Destroy,
    ChangeKind::Grow,
    ChangeKind::Shrink,
];

/// The wishes of one framework.
#[derive(Debug)]
pub(crate) struct Claiming {
    /// In so many of a hundred accepts it changes something.
    percent: u64,
    rng: Rng,
    made: u32,
}

impl Claiming {
    pub(crate) fn new(percent: u64, rng: Rng) -> Self {
        let made = 0;
        Self { percent, rng, made }
    }

    /// Steps for an accept of this; afterwards it is as if they were done.
    pub(crate) fn steps(&mut self, role: &RoleName, free: &mut Resources) -> Vec<Operation> {
        let mut steps = Vec::new();
        if self.percent == 0 || role.is_any() || !self.rng.percent(self.percent) {
            return steps;
        }
        for _ in 0..self.rng.between(1, 3) {
            let Some(change) = self.draw(role, free) else {
                continue;
            };
            let parts = change.parts().expect("drawn well");
            if free.replace_in_place(&parts.from, &parts.to).is_err() {
                continue;
            }
            self.made += 1;
            let id = self.rng.percent(70).then(|| format!("op{}", self.made));
            let operation_id = id.map(|id| OperationId::new(id).expect("letters and digits"));
            steps.push(Operation::Change(Box::new(ResourceOperation {
                operation_id,
                change,
            })));
        }
        steps
    }

    /// A volume of this that a task could use.
    pub(crate) fn volume(&mut self, role: &RoleName, free: &Resources) -> Option<Resources> {
        let volumes = of_role(role, free, |it| it.volume().is_some());
        match volumes.is_empty() || self.percent == 0 || self.rng.percent(30) {
            true => None,
            false => Some(self.rng.pick(&volumes).clone().into()),
        }
    }

    fn draw(&mut self, role: &RoleName, free: &Resources) -> Option<Change> {
        let kind = *self.rng.pick(&KINDS);
        let by = Scalar::whole(STEP);
        let resources = match kind {
            ChangeKind::Reserve => self.reserve(role, free)?,
            ChangeKind::Unreserve => {
                let is_bundle = |it: &Resource| it.is_claim() && it.volume().is_none();
                let stacks = of_role(role, free, is_bundle);
                bundle(self.some(&stacks)?.reservations())
            }
            ChangeKind::Create => {
                let is_disk =
                    |it: &Resource| *it.name() == ResourceName::DISK && it.volume().is_none();
                let disks = of_role(role, free, is_disk);
                let disk = self.some(&disks)?.with_amount(Scalar::whole(VOLUME));
                let id = *self.rng.pick(&IDS);
                let volume = Volume::new(id, format!("data/{id}")).expect("well formed");
                disk.with_volume(volume).expect("reserved disk").into()
            }
            ChangeKind::Destroy => {
                let volumes = of_role(role, free, |it| it.volume().is_some());
                self.some(&volumes)?.clone().into()
            }
            ChangeKind::Grow | ChangeKind::Shrink => {
                let volumes = of_role(role, free, |it| it.volume().is_some());
                let volume = self.some(&volumes)?;
                let change = match kind {
                    ChangeKind::Grow => Change::grow(volume, by),
                    _ => Change::shrink(volume, by),
                };
                // One that has shrunk before may be too small.
                return change.ok();
            }
        };
        Some(Change::new(kind, resources))
    }

    /// A bundle of what is reserved for nobody or for a role above.
    fn reserve(&mut self, role: &RoleName, free: &Resources) -> Option<Resources> {
        let is_above = |it: &&Resource| {
            let owner = it.reservations().role();
            owner.is_none_or(|owner| role.is_strict_subrole_of(owner))
        };
        let disks = free.iter().filter(|it| *it.name() == ResourceName::DISK);
        let disks: Vec<Resource> = disks
            .filter(is_above)
            .filter(|it| it.volume().is_none())
            .cloned()
            .collect();
        let below = self.some(&disks)?.reservations().clone();
        let labels = match self.rng.percent(30) {
            true => {
                let label = Label::new("of", Some("this".to_owned())).expect("short");
                Labels::from_list(vec![label]).expect("one")
            }
            false => Labels::new(),
        };
        let reservation = Reservation::dynamic(role.clone(), None, labels).expect("a role");
        bundle(&below).push_reservation(&reservation).ok()
    }

    fn some<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| self.rng.pick(from))
    }
}

/// What is reserved for exactly this role.
fn of_role(role: &RoleName, free: &Resources, keep: impl Fn(&Resource) -> bool) -> Vec<Resource> {
    let all = free.iter().filter(|it| it.is_reserved_for(role));
    all.filter(|it| keep(it)).cloned().collect()
}

/// What operators change: a bundle reserved for a role, or a volume in it.
pub(crate) fn ordered(kind: ChangeKind, role: &RoleName) -> Change {
    let reservation = Reservation::dynamic(role.clone(), None, Labels::new());
    let stack = Reservations::new().push(reservation.expect("a role"));
    let stack = stack.expect("the first");
    let volume = |stack: Reservations, size: u32| {
        let disk = Resource::new(ResourceName::DISK, Scalar::whole(size));
        let disk = disk.expect("an amount").with_reservations(stack);
        let volume = Volume::new(IDS[0], "data").expect("well formed");
        let volume = disk.expect("not revocable").with_volume(volume);
        volume.expect("reserved disk")
    };
    let by = Scalar::whole(STEP);
    match kind {
        ChangeKind::Reserve | ChangeKind::Unreserve => Change::new(kind, bundle(&stack)),
        ChangeKind::Create | ChangeKind::Destroy => Change::new(kind, volume(stack, VOLUME).into()),
        ChangeKind::Grow => Change::grow(&volume(stack, VOLUME), by).expect("by something"),
        ChangeKind::Shrink => {
            Change::shrink(&volume(stack, VOLUME + STEP), by).expect("something is left")
        }
    }
}

/// So much is reserved at a time.
pub(crate) fn bundle(reservations: &Reservations) -> Resources {
    let cpus = Scalar::from_thousandths(200).expect("positive");
    let mut sum = Resources::new();
    for (name, amount) in [
        (ResourceName::CPUS, cpus),
        (ResourceName::DISK, Scalar::whole(DISK)),
    ] {
        let plain = Resource::new(name, amount).expect("an amount");
        let reserved = plain.with_reservations(reservations.clone());
        sum.checked_add_assign(&reserved.expect("not revocable").into())
            .expect("small amounts");
    }
    sum
}
