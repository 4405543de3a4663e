//! Operations on resources: reserve, unreserve, create, destroy, grow and shrink volumes (semantics D3,
//! D6, D7).
//!
//! An operation names resources as they are while claimed: [`ChangeKind::Reserve`] and
//! [`ChangeKind::Unreserve`] with the reservation on top, [`ChangeKind::Create`] and
//! [`ChangeKind::Destroy`] with the volume, [`ChangeKind::Grow`] and [`ChangeKind::Shrink`] with the
//! small volume and the disk that is added or given back. What they are made of follows from that, so that
//! masters and slaves compute the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, OperationId, SlaveId};
use crate::resources::{
    ConvertError, Reservation, Resource, ResourceName, Resources, Scalar, SumTooLarge, Value,
};
use crate::role::RoleName;

/// The most bytes of one reservation with its labels and its principal.
pub const RESERVATION_BYTES_MAX: usize = 4_096;
/// The most operations of one slave that it has not answered; one more is refused. Also how many
/// answers a slave keeps, so that none is lost with a connection.
pub const OPERATIONS_PENDING_MAX: usize = 128;
/// The least that a volume keeps when it shrinks: 1 MiB.
pub const SHRUNK_VOLUME_MIN: Scalar = Scalar::ONE;

/// What becomes of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// One dynamic reservation more (semantics D6).
    Reserve,
    /// The topmost reservation, which is dynamic, is taken off.
    Unreserve,
    /// Reserved disk becomes volumes (semantics D7).
    Create,
    /// Volumes become reserved disk again, and their data is wiped.
    Destroy,
    /// A volume and disk that is reserved as it is become one volume, with the data of the former.
    Grow,
    /// A volume becomes a smaller one, with all its data, and reserved disk.
    Shrink,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Reserve,
        Self::Unreserve,
        Self::Create,
        Self::Destroy,
        Self::Grow,
        Self::Shrink,
    ];

    /// The word, as JSON and the command line have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Unreserve => "unreserve",
            Self::Create => "create",
            Self::Destroy => "destroy",
            Self::Grow => "grow",
            Self::Shrink => "shrink",
        }
    }

    /// Those with this word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Whether there is more claimed afterwards.
    #[must_use]
    pub fn claims(self) -> bool {
        matches!(self, Self::Reserve | Self::Create | Self::Grow)
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A change of what a slave has. The amount stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What is done.
    pub kind: ChangeKind,
    /// What to, as it is while claimed; to grow and to shrink a volume: the volume while it is small, and
    /// disk that is reserved as it is.
    pub resources: Resources,
}

/// What a change takes away and what it puts in place of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What must be there, in nobody's use.
    pub from: Resources,
    /// What is there afterwards.
    pub to: Resources,
}

/// Why there can be no such change, wherever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing is named.
    #[error("it names no resources")]
    Empty,
    /// A volume was to be made or destroyed, and this is none.
    #[error("`{name}` is no volume; write it as `disk(role)[id:path]:amount`")]
    NotAVolume {
        /// What it is.
        name: ResourceName,
    },
    /// Volumes that several tasks use at a time.
    #[error("volume `{id}` is shared, which is not supported yet; leave `{{SHA}}` out")]
    Shared {
        /// The persistence id.
        id: String,
    },
    /// A volume was to grow or shrink, and this is not one with disk of its kind.
    #[error(
        "to grow or shrink a volume takes the volume and disk that is reserved in the same way, such as \
         `disk(role)[id:path]:40;disk(role):20`"
    )]
    NotAVolumeAndDisk,
    /// Too little would be left of a volume.
    #[error(
        "of volume `{id}` {left} MiB would be left; it keeps at least {SHRUNK_VOLUME_MIN}: shrink it by less, or \
         destroy it"
    )]
    TooSmall {
        /// The persistence id.
        id: String,
        /// How much would be left, in MiB.
        left: Scalar,
    },
    /// A reservation with very much text.
    #[error(
        "a reservation with its labels has {got} bytes; at most {RESERVATION_BYTES_MAX} are allowed"
    )]
    ReservationTooLong {
        /// How many.
        got: usize,
    },
    /// A reservation that cannot be added or taken off.
    #[error("{}", reason(source))]
    Convert {
        /// Why.
        source: ConvertError,
    },
}

/// The innermost cause says it in the words that help.
fn reason(error: &ConvertError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl Change {
    /// A change of these.
    #[must_use]
    pub fn new(kind: ChangeKind, resources: Resources) -> Self {
        Self { kind, resources }
    }

    /// A volume gets so many MiB more, of disk that is reserved as it is.
    ///
    /// # Errors
    /// It is no volume, or the change is by nothing.
    pub fn grow(volume: &Resource, by: Scalar) -> Result<Self, ChangeError> {
        Self::resize(ChangeKind::Grow, volume.clone(), by)
    }

    /// A volume gives so many MiB back, which stay reserved.
    ///
    /// # Errors
    /// It is no volume, the change is by nothing, or [`ChangeError::TooSmall`].
    pub fn shrink(volume: &Resource, by: Scalar) -> Result<Self, ChangeError> {
        let left = amount(volume).saturating_sub(by);
        Self::resize(ChangeKind::Shrink, volume.with_amount(left), by)
    }

    fn resize(kind: ChangeKind, small: Resource, by: Scalar) -> Result<Self, ChangeError> {
        let volume = small.volume().ok_or_else(|| ChangeError::NotAVolume {
            name: small.name().clone(),
        })?;
        if amount(&small).is_zero() {
            // An entry of nothing would not be there at all.
            return Err(ChangeError::TooSmall {
                id: volume.id().to_owned(),
                left: Scalar::ZERO,
            });
        }
        let mut pieces = Resources::from(small.clone().without_volume().with_amount(by));
        let sum = pieces.checked_add_assign(&small.into());
        sum.map_err(too_large)?;
        let change = Self::new(kind, pieces);
        change.parts()?;
        Ok(change)
    }

    /// What it takes away and what it puts there.
    ///
    /// # Errors
    /// There can be no such change.
    pub fn parts(&self) -> Result<Parts, ChangeError> {
        if self.resources.is_empty() {
            return Err(ChangeError::Empty);
        }
        let named = self.resources.clone();
        let (plain, claimed) = match self.kind {
            ChangeKind::Reserve | ChangeKind::Unreserve => {
                check_reservations(&named)?;
                let plain = named.pop_reservation();
                let plain = plain.map_err(|source| ChangeError::Convert { source })?;
                (plain, named)
            }
            ChangeKind::Create | ChangeKind::Destroy => (without_volumes(&named)?, named),
            ChangeKind::Grow | ChangeKind::Shrink => {
                let (small, large) = joined(&named)?;
                if self.kind == ChangeKind::Shrink {
                    check_left(small)?;
                }
                (named, large.into())
            }
        };
        Ok(match self.kind.claims() {
            true => Parts {
                from: plain,
                to: claimed,
            },
            false => Parts {
                from: claimed,
                to: plain,
            },
        })
    }

    /// The roles that its topmost reservations are for.
    pub fn roles(&self) -> impl Iterator<Item = &RoleName> {
        self.resources
            .iter()
            .filter_map(|resource| resource.reservations().role())
    }
}

/// The volume in these two pieces, and what it is with the disk beside it.
fn joined(pieces: &Resources) -> Result<(&Resource, Resource), ChangeError> {
    let (volumes, disks): (Vec<&Resource>, Vec<&Resource>) =
        pieces.iter().partition(|it| it.volume().is_some());
    let ([small], [disk]) = (&volumes[..], &disks[..]) else {
        return Err(ChangeError::NotAVolumeAndDisk);
    };
    let (small, disk) = (*small, *disk);
    check_unshared(small)?;
    let by = amount(disk);
    if small.with_amount(by).without_volume() != *disk {
        return Err(ChangeError::NotAVolumeAndDisk);
    }
    let sum = amount(small).checked_add(by);
    let sum = sum.ok_or_else(|| {
        too_large(SumTooLarge {
            name: ResourceName::DISK,
        })
    })?;
    Ok((small, small.with_amount(sum)))
}

/// How much of it there is; nothing of what is no scalar, as volumes are.
fn amount(resource: &Resource) -> Scalar {
    match resource.value() {
        Value::Scalar(amount) => *amount,
        Value::Ranges(_) | Value::Set(_) => Scalar::ZERO,
    }
}

fn check_left(small: &Resource) -> Result<(), ChangeError> {
    match (small.volume(), amount(small)) {
        (Some(volume), left) if left < SHRUNK_VOLUME_MIN => Err(ChangeError::TooSmall {
            id: volume.id().to_owned(),
            left,
        }),
        _ => Ok(()),
    }
}

fn check_unshared(volume: &Resource) -> Result<(), ChangeError> {
    match volume.volume() {
        Some(it) if volume.is_shared() => Err(ChangeError::Shared {
            id: it.id().to_owned(),
        }),
        _ => Ok(()),
    }
}

fn too_large(source: SumTooLarge) -> ChangeError {
    let source = ConvertError::SumTooLarge { source };
    ChangeError::Convert { source }
}

fn check_reservations(resources: &Resources) -> Result<(), ChangeError> {
    let tops = resources.iter().filter_map(|it| it.reservations().top());
    match tops
        .map(Reservation::bytes)
        .find(|got| *got > RESERVATION_BYTES_MAX)
    {
        Some(got) => Err(ChangeError::ReservationTooLong { got }),
        None => Ok(()),
    }
}

fn without_volumes(volumes: &Resources) -> Result<Resources, ChangeError> {
    let mut disk = Resources::new();
    for resource in volumes {
        if resource.volume().is_none() {
            return Err(ChangeError::NotAVolume {
                name: resource.name().clone(),
            });
        }
        check_unshared(resource)?;
        disk.checked_add_assign(&resource.clone().without_volume().into())
            .map_err(too_large)?;
    }
    Ok(disk)
}

/// A change as a framework orders it in an accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceOperation {
    /// Set to hear what became of it ([`OperationStatus`]); chosen by the framework.
    pub operation_id: Option<OperationId>,
    /// What is ordered.
    pub change: Change,
}

/// What became of an operation (semantics C6, D5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationState {
    /// It is done, and the slave has written it down.
    Finished,
    /// The slave could not do it; nothing has changed.
    Failed,
    /// It cannot be done; nothing has changed. The message says why.
    Error,
    /// It did not reach the slave; nothing has changed.
    Dropped,
    /// Only as an answer: it is on its way.
    Pending,
    /// Only as an answer: no such operation is on its way. It has ended, or there never was one.
    Unknown,
    /// Only as an answer: its slave cannot be reached.
    Unreachable,
    /// Only as an answer: its slave was declared gone.
    GoneByOperator,
    /// Only as an answer: its slave has not come back to this master yet.
    Recovering,
}

impl fmt::Display for OperationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finished => "OPERATION_FINISHED",
            Self::Failed => "OPERATION_FAILED",
            Self::Error => "OPERATION_ERROR",
            Self::Dropped => "OPERATION_DROPPED",
            Self::Pending => "OPERATION_PENDING",
            Self::Unknown => "OPERATION_UNKNOWN",
            Self::Unreachable => "OPERATION_UNREACHABLE",
            Self::GoneByOperator => "OPERATION_GONE_BY_OPERATOR",
            Self::Recovering => "OPERATION_RECOVERING",
        })
    }
}

/// What became of an operation that was given an id. Said once, to whoever is subscribed then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationStatus {
    /// Which.
    pub operation_id: OperationId,
    /// Where; none if no valid offer was named.
    pub slave_id: Option<SlaveId>,
    /// What.
    pub state: OperationState,
    /// Why, for people; empty if it is done.
    pub message: String,
}

/// The name of an operation between a master and its slaves: in this term the so-many-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationNumber {
    /// The leader's term.
    pub epoch: Epoch,
    /// Counted from 1 in each term.
    pub number: u64,
}

/// What a slave has decided about an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedOperation {
    /// Which.
    pub number: OperationNumber,
    /// Why it was refused; none if it is done.
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(kind: ChangeKind, text: &str) -> Result<(String, String), ChangeError> {
        let change = Change::new(kind, text.parse().expect("well formed"));
        let parts = change.parts()?;
        Ok((parts.from.to_string(), parts.to.to_string()))
    }

    #[test]
    fn a_change_and_its_reverse_take_and_give_the_same() {
        for (kind, back, claimed, plain) in [
            (
                ChangeKind::Reserve,
                ChangeKind::Unreserve,
                "cpus(web,alice,k=v):2",
                "cpus:2",
            ),
            (
                ChangeKind::Reserve,
                ChangeKind::Unreserve,
                "cpus(web)(web/ads,):2",
                "cpus(web):2",
            ),
            (
                ChangeKind::Create,
                ChangeKind::Destroy,
                "disk(web)[db:data]:64",
                "disk(web):64",
            ),
        ] {
            let there = parts(kind, claimed).expect("possible");
            let again = parts(back, claimed).expect("possible");
            let text = |text: &str| text.parse::<Resources>().expect("well formed").to_string();
            assert_eq!(there, (text(plain), text(claimed)));
            assert_eq!(again, (text(claimed), text(plain)));
        }
    }

    #[test]
    fn a_volume_grows_by_disk_of_its_kind_and_shrinks_by_the_same() {
        // semantics: D7
        for (small, disk, large) in [
            (
                "disk(web,)[db:data]:40",
                "disk(web,):20",
                "disk(web,)[db:data]:60",
            ),
            (
                "disk(web)[db:data]:0.5",
                "disk(web):1.5",
                "disk(web)[db:data]:2",
            ),
            (
                "disk(web)(web/ads,alice,k=v)[db:data]:1",
                "disk(web)(web/ads,alice,k=v):0.001",
                "disk(web)(web/ads,alice,k=v)[db:data]:1.001",
            ),
        ] {
            let resources = |text: &str| text.parse::<Resources>().expect("well formed");
            let one = |text: &str| resources(text).iter().next().expect("one").clone();
            let (small, disk, large) = (one(small), one(disk), one(large));
            let by = amount(&disk);
            let pieces = resources(&format!(
                "{};{}",
                Resources::from(small.clone()),
                Resources::from(disk)
            ));
            let grow = Change::grow(&small, by).expect("possible");
            assert_eq!(grow, Change::new(ChangeKind::Grow, pieces.clone()));
            let (from, to) = (pieces.clone(), Resources::from(large.clone()));
            assert_eq!(grow.parts(), Ok(Parts { from, to }));
            if amount(&small) < SHRUNK_VOLUME_MIN {
                let why = Change::shrink(&large, by)
                    .expect_err("too small")
                    .to_string();
                assert!(
                    why.starts_with("of volume `db` 0.5 MiB would be left"),
                    "{why}"
                );
                continue;
            }
            let shrink = Change::shrink(&large, by).expect("possible");
            assert_eq!(shrink, Change::new(ChangeKind::Shrink, pieces.clone()));
            let (from, to) = (large.into(), pieces);
            assert_eq!(shrink.parts(), Ok(Parts { from, to }));
        }
    }

    #[test]
    fn nothing_but_one_volume_and_disk_like_it_is_resized() {
        for pieces in [
            "disk(web,)[db:data]:40",
            "disk(web,):40",
            "disk(web,)[db:data]:40;disk:20",
            "disk(web,)[db:data]:40;disk(web):20",
            "disk(web,)[db:data]:40;disk(web,bob):20",
            "disk(web,)[db:data]:40;disk(web,,k=v):20",
            "disk(web,)[db:data]:40;disk(web,):20;cpus(web,):1",
            "disk(web,)[db:data]:40;disk(web,)[log:log]:5;disk(web,):20",
            "disk(web,)[db:data]:40;ports(web,):[1-9]",
            "disk(web,)[db:data]:40;mem(web,):20",
        ] {
            for kind in [ChangeKind::Grow, ChangeKind::Shrink] {
                let change = Change::new(kind, pieces.parse().expect("well formed"));
                assert_eq!(
                    change.parts(),
                    Err(ChangeError::NotAVolumeAndDisk),
                    "{pieces}"
                );
            }
        }
        let volume: Resources = "disk(web,)[db:data]:40".parse().expect("well formed");
        let volume = volume.iter().next().expect("one");
        let nothing = Change::grow(volume, Scalar::ZERO);
        assert_eq!(nothing, Err(ChangeError::NotAVolumeAndDisk));
        for by in [Scalar::whole(40), Scalar::whole(41), Scalar::MAX] {
            let why = Change::shrink(volume, by)
                .expect_err("nothing is left")
                .to_string();
            assert!(
                why.contains("0 MiB would be left; it keeps at least 1"),
                "{why}"
            );
        }
        let too_much = Change::grow(volume, Scalar::MAX)
            .expect_err("too much")
            .to_string();
        assert!(too_much.contains("too large"), "{too_much}");
        let shared: Resources = "disk(web,)[db:data]{SHA}:40".parse().expect("well formed");
        let shared = Change::grow(shared.iter().next().expect("one"), Scalar::ONE);
        assert!(
            matches!(shared, Err(ChangeError::Shared { .. })),
            "{shared:?}"
        );
        let plain: Resources = "disk(web,):40".parse().expect("well formed");
        let plain = Change::shrink(plain.iter().next().expect("one"), Scalar::ONE);
        assert!(
            matches!(plain, Err(ChangeError::NotAVolume { .. })),
            "{plain:?}"
        );
    }

    #[test]
    fn what_cannot_be_changed_is_told_apart() {
        let why = |kind, text: &str| parts(kind, text).expect_err("impossible").to_string();
        assert_eq!(why(ChangeKind::Reserve, ""), "it names no resources");
        assert_eq!(why(ChangeKind::Reserve, "cpus:1"), "it is not reserved");
        assert_eq!(
            why(ChangeKind::Unreserve, "cpus(web):1"),
            "it is reserved statically, by the configuration of the slave"
        );
        assert_eq!(
            why(ChangeKind::Unreserve, "disk(web,)[db:data]:1"),
            "volume `db` must be destroyed before its reservation changes"
        );
        assert_eq!(
            why(ChangeKind::Create, "disk(web,):1"),
            "`disk` is no volume; write it as `disk(role)[id:path]:amount`"
        );
        assert!(why(ChangeKind::Create, "disk(web,)[db:data]{SHA}:1").contains("is shared"));
        let long = format!("cpus(web,,{}):1", "x".repeat(1_000));
        assert!(parts(ChangeKind::Reserve, &long).is_ok());
        let long = format!("cpus(web,,k={}):1", "x".repeat(5_000));
        assert!(why(ChangeKind::Reserve, &long).contains("at most 4096"));
    }
}
