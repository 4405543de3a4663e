//! The steps of an accept: reservations, volumes and launches, in order (semantics B4, D3, D6, D7).

use meros_proto::ids::OperationId;
use meros_proto::labels::Labels;
use meros_proto::offer::{Offer, Operation};
use meros_proto::operation::{Change, ChangeError, ChangeKind, ResourceOperation};
use meros_proto::resources::{
    ConvertError, Insufficient, Reservation, ReservationError, Resource, ResourceError, Resources,
    Scalar, Volume,
};

use crate::{Group, PlaceError, Placement, Task};

/// Why a step cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The offer, after the steps before, has not got it.
    #[error("the offer has not got it: {0}")]
    Insufficient(Insufficient),
    /// The role of the offer is `*`: nothing can be reserved for everybody.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// It cannot be reserved, or made a volume.
    #[error("{source}")]
    Resource {
        /// Why.
        source: ResourceError,
    },
    /// It cannot be reserved.
    #[error("{source}")]
    Convert {
        /// Why.
        source: ConvertError,
    },
    /// There can be no such operation.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A volume is made of one piece of disk; this is something else, or several.
    #[error("a volume is made of one piece of reserved disk, not of `{got}`")]
    NotOnePiece {
        /// What it is.
        got: String,
    },
}

/// What to do with an offer, step by step; each sees what the ones before have left.
///
/// A database that keeps its data on the slave: the first accept reserves disk, makes a volume and
/// starts it; every later one finds the volume in an offer of that slave.
///
/// ```
/// use meros_sdk::{Actions, Offer, Steps, Task, Volume};
///
/// fn start(offer: &Offer, actions: &mut Actions) -> Result<(), Box<dyn std::error::Error>> {
///     let mut steps = Steps::on(offer);
///     let known = offer.resources.filter(|it| it.volume().is_some_and(|it| it.id() == "db"));
///     let volume = match known.is_empty() {
///         false => known,
///         true => {
///             let disk = steps.reserve(&"disk:1024".parse()?)?;
///             steps.named("make-db".parse()?).create(&disk, Volume::new("db", "data")?)?
///         }
///     };
///     let task = Task::new("db").command("exec ./database --dir data").cpus(0.5).mem(256.0);
///     steps.place(&task.exactly(&volume))?;
///     actions.carry_out(steps);
///     Ok(())
/// }
/// ```
///
/// A step that the master refuses after all is told by [`Scheduler::operation`] if it has a name, else by
/// [`Scheduler::refused`]; tasks that needed it end as `TASK_ERROR`.
///
/// [`Scheduler::operation`]: crate::Scheduler::operation
/// [`Scheduler::refused`]: crate::Scheduler::refused
#[derive(Debug, Clone)]
pub struct Steps<'a> {
    offer: &'a Offer,
    rest: Resources,
    operations: Vec<Operation>,
    next_id: Option<OperationId>,
}

impl<'a> Steps<'a> {
    /// No steps yet, on all of an offer.
    #[must_use]
    pub fn on(offer: &'a Offer) -> Self {
        Self {
            offer,
            rest: offer.resources.clone(),
            operations: Vec::new(),
            next_id: None,
        }
    }

    /// What is left for further steps.
    #[must_use]
    pub fn rest(&self) -> &Resources {
        &self.rest
    }

    /// Gives the next step but a launch a name, under which its outcome is told.
    pub fn named(&mut self, operation_id: OperationId) -> &mut Self {
        self.next_id = Some(operation_id);
        self
    }

    /// Reserves for the role of the offer: from now on only that role and those below it are offered
    /// it. Returns it as it is afterwards.
    ///
    /// # Errors
    /// It is not there, or cannot be reserved.
    pub fn reserve(&mut self, part: &Resources) -> Result<Resources, StepError> {
        self.reserve_labelled(part, Labels::new())
    }

    /// The same with labels, which keep it apart from what is reserved otherwise.
    ///
    /// # Errors
    /// As [`Steps::reserve`].
    pub fn reserve_labelled(
        &mut self,
        part: &Resources,
        labels: Labels,
    ) -> Result<Resources, StepError> {
        let reservation = Reservation::dynamic(self.offer.role.clone(), None, labels)?;
        let reserved = part
            .push_reservation(&reservation)
            .map_err(|source| StepError::Convert { source })?;
        self.change(Change::new(ChangeKind::Reserve, reserved.clone()))?;
        Ok(reserved)
    }

    /// Takes the topmost reservation off; it was made at run time, and no volume is on it. Returns it
    /// as it is afterwards.
    ///
    /// # Errors
    /// It is not there, or not reserved so.
    pub fn unreserve(&mut self, part: &Resources) -> Result<Resources, StepError> {
        self.change(Change::new(ChangeKind::Unreserve, part.clone()))
    }

    /// Makes a piece of reserved disk a volume. Returns the volume.
    ///
    /// # Errors
    /// It is not there, or not one piece of reserved disk.
    pub fn create(&mut self, disk: &Resources, volume: Volume) -> Result<Resources, StepError> {
        let mut pieces = disk.iter();
        let (Some(piece), None) = (pieces.next(), pieces.next()) else {
            return Err(StepError::NotOnePiece {
                got: disk.to_string(),
            });
        };
        let volume = piece.clone().with_volume(volume);
        let volume: Resources = volume
            .map_err(|source| StepError::Resource { source })?
            .into();
        self.change(Change::new(ChangeKind::Create, volume.clone()))?;
        Ok(volume)
    }

    /// Destroys volumes: their data is wiped. Returns the disk.
    ///
    /// # Errors
    /// They are not there, or no volumes.
    pub fn destroy(&mut self, volumes: &Resources) -> Result<Resources, StepError> {
        self.change(Change::new(ChangeKind::Destroy, volumes.clone()))
    }

    /// Makes a volume larger by a piece of disk that is reserved in the same way; its data stays. Returns
    /// the volume.
    ///
    /// ```
    /// # use meros_sdk::{Actions, Offer, Steps};
    /// # fn more(offer: &Offer, actions: &mut Actions) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut steps = Steps::on(offer);
    /// let volume = offer.resources.filter(|it| it.volume().is_some_and(|it| it.id() == "db"));
    /// let disk = steps.reserve(&"disk:512".parse()?)?;
    /// let larger = steps.named("grow-db".parse()?).grow(&volume, &disk)?;
    /// actions.carry_out(steps);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// They are not there, or not one volume and disk that is reserved as it is.
    pub fn grow(&mut self, volume: &Resources, disk: &Resources) -> Result<Resources, StepError> {
        let pieces = volume
            .checked_add(disk)
            .map_err(|source| StepError::Convert {
                source: ConvertError::SumTooLarge { source },
            })?;
        self.change(Change::new(ChangeKind::Grow, pieces))
    }

    /// Takes so many MiB from a volume, which keeps at least 1. Its data stays, also if it is more than
    /// that: what is in a volume is not limited. Returns the volume and the disk, which is
    /// still reserved.
    ///
    /// # Errors
    /// It is not there, not one volume, or too little would be left.
    pub fn shrink(
        &mut self,
        volume: &Resources,
        by: Scalar,
    ) -> Result<(Resources, Resources), StepError> {
        let mut volumes = volume.iter();
        let (Some(volume), None) = (volumes.next(), volumes.next()) else {
            return Err(ChangeError::NotAVolumeAndDisk.into());
        };
        let pieces = self.change(Change::shrink(volume, by)?)?;
        let is_volume = |it: &Resource| it.volume().is_some();
        let disk = pieces.filter(|it| !is_volume(it));
        Ok((pieces.filter(is_volume), disk))
    }

    /// Launches a task on what is left.
    ///
    /// # Errors
    /// As [`Placement::place`].
    pub fn place(&mut self, task: &Task) -> Result<(), PlaceError> {
        let mut placement = Placement::within(self.offer, self.rest.clone());
        placement.place(task)?;
        self.rest = placement.free().clone();
        let placed = placement.into_tasks();
        match self.operations.last_mut() {
            Some(Operation::Launch(tasks)) => tasks.extend(placed),
            _ => self.operations.push(Operation::Launch(placed)),
        }
        Ok(())
    }

    /// Launches a group on what is left: all of its tasks or none.
    ///
    /// # Errors
    /// As [`Placement::place`]; nothing of it is placed then.
    pub fn launch_group(&mut self, group: &Group) -> Result<(), PlaceError> {
        let (placed, rest) = group.place(self.offer, &self.rest)?;
        self.rest = rest;
        self.operations
            .push(Operation::LaunchGroup(Box::new(placed)));
        Ok(())
    }

    /// The offer.
    #[must_use]
    pub fn offer(&self) -> &'a Offer {
        self.offer
    }

    /// The steps, for [`Actions::accept`](crate::Actions::accept) or [`Handle::accept`](crate::Handle::accept).
    #[must_use]
    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    fn change(&mut self, change: Change) -> Result<Resources, StepError> {
        let parts = change.parts()?;
        let changed = self.rest.replace_in_place(&parts.from, &parts.to);
        changed.map_err(|error| match error {
            ConvertError::Insufficient { source } => StepError::Insufficient(source),
            other => unreachable!("as much of everything as before: {other}"),
        })?;
        let operation_id = self.next_id.take();
        self.operations
            .push(Operation::Change(Box::new(ResourceOperation {
                operation_id,
                change,
            })));
        Ok(parts.to)
    }
}
