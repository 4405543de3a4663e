//! Operations on resources: reserve, unreserve, create and destroy volumes (semantics D3, D6, D7).
//!
//! An operation names resources as they are while claimed: [`ChangeKind::Reserve`] and
//! [`ChangeKind::Unreserve`] with the reservation on top, [`ChangeKind::Create`] and
//! [`ChangeKind::Destroy`] with the volume. What they are made of follows from that, so that masters
//! and slaves compute the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, OperationId, SlaveId};
use crate::resources::{ConvertError, Reservation, ResourceName, Resources};
use crate::role::RoleName;

/// The most bytes of one reservation with its labels and its principal.
pub const RESERVATION_BYTES_MAX: usize = 4_096;
/// The most operations of one slave that it has not answered; one more is refused. Also how many
/// answers a slave keeps, so that none is lost with a connection.
pub const OPERATIONS_PENDING_MAX: usize = 128;

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
}

impl ChangeKind {
    /// The word, as JSON and the command line have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Unreserve => "unreserve",
            Self::Create => "create",
            Self::Destroy => "destroy",
        }
    }

    /// Whether there is more claimed afterwards.
    #[must_use]
    pub fn claims(self) -> bool {
        matches!(self, Self::Reserve | Self::Create)
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
    /// What to, as it is while claimed.
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

    /// What it takes away and what it puts there.
    ///
    /// # Errors
    /// There can be no such change.
    pub fn parts(&self) -> Result<Parts, ChangeError> {
        if self.resources.is_empty() {
            return Err(ChangeError::Empty);
        }
        let claimed = self.resources.clone();
        let plain = match self.kind {
            ChangeKind::Reserve | ChangeKind::Unreserve => {
                check_reservations(&claimed)?;
                claimed
                    .pop_reservation()
                    .map_err(|source| ChangeError::Convert { source })?
            }
            ChangeKind::Create | ChangeKind::Destroy => without_volumes(&claimed)?,
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
        let Some(volume) = resource.volume() else {
            return Err(ChangeError::NotAVolume {
                name: resource.name().clone(),
            });
        };
        if resource.is_shared() {
            return Err(ChangeError::Shared {
                id: volume.id().to_owned(),
            });
        }
        disk.checked_add_assign(&resource.clone().without_volume().into())
            .map_err(|source| ChangeError::Convert {
                source: ConvertError::SumTooLarge { source },
            })?;
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
