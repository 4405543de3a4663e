//! Tasks as a framework wishes for them, and the matcher that places them on an offer.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use meros_proto::check::{Check, HealthCheck};
use meros_proto::executor::ExecutorDescription;
use meros_proto::fetch::FetchUri;
use meros_proto::ids::{ExecutorId, ParseIdError, TaskId};
use meros_proto::image::Image;
use meros_proto::labels::{Label, Labels, LabelsError};
use meros_proto::offer::Offer;
use meros_proto::resources::{
    Insufficient, Resource, ResourceName, Resources, Scalar, ScalarError, SumTooLarge,
};
use meros_proto::task::{Command, TaskDescription, TaskLimits};

/// Concrete resources of `free` that meet `want`: reserved ones first, then unreserved. `None` if
/// it does not fit.
///
/// ```
/// use meros_sdk::{Resources, fit};
/// let free: Resources = "cpus:4;mem:1024".parse()?;
/// assert!(fit(&free, &"cpus:1.5;mem:512".parse()?).is_some());
/// assert!(fit(&free, &"gpus:1".parse()?).is_none());
/// # Ok::<(), meros_sdk::ParseResourcesError>(())
/// ```
#[must_use]
pub fn fit(free: &Resources, want: &Resources) -> Option<Resources> {
    free.take_fitting(want)
}

/// Why a task could not be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// There is not enough left on this offer; another one may do.
    #[error("the offer has no room: {0}")]
    NoRoom(Insufficient),
    /// There are not enough ports left on this offer; another one may do.
    #[error("the offer has no room: ports: wanted {wanted}, has {has}")]
    NoPorts {
        /// Ports that the task wants.
        wanted: u64,
        /// Ports that are left.
        has: u64,
    },
    /// The id of the task, or of its group, is not valid; no offer will do.
    #[error(transparent)]
    TaskId(ParseIdError),
    /// An amount is not valid; no offer will do.
    #[error("the amount of {name} is not valid: {why}")]
    Amount {
        /// Of what.
        name: &'static str,
        /// What is wrong with it.
        why: ScalarError,
    },
    /// Amounts add up to more than can be; no offer will do.
    #[error(transparent)]
    TooMuch(SumTooLarge),
    /// A label is not valid; no offer will do.
    #[error(transparent)]
    Label(LabelsError),
}

impl PlaceError {
    /// Whether another offer may do. If not, the task itself is not valid.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom(_) | Self::NoPorts { .. })
    }
}

/// A task as a framework wishes for it, not yet on any slave.
///
/// ```
/// use meros_sdk::Task;
/// let task = Task::new("web.1").command("exec ./server").cpus(0.5).mem(256.0).ports(1);
/// ```
///
/// What is not valid is found by [`Placement::place`].
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    id: String,
    name: Option<String>,
    command: Command,
    want: Resources,
    ports: u64,
    limits: TaskLimits,
    kill_grace: Option<Duration>,
    max_completion_time: Option<Duration>,
    labels: Vec<Label>,
    health_check: Option<HealthCheck>,
    check: Option<Check>,
    executor: Option<ExecutorDescription>,
    data: Bytes,
    wrong: Option<PlaceError>,
}

impl Task {
    /// A task with this id, unique in the framework among its live tasks: 1 to 255 bytes that can
    /// be the name of a file, without white space. Until told otherwise it runs `true`, and wants
    /// nothing, which a master refuses (semantics D9).
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: None,
            command: Command::shell("true"),
            want: Resources::new(),
            ports: 0,
            limits: TaskLimits::default(),
            kill_grace: None,
            max_completion_time: None,
            labels: Vec::new(),
            health_check: None,
            check: None,
            executor: None,
            data: Bytes::new(),
            wrong: None,
        }
    }

    /// A name for people. Default: the id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A line for `/bin/sh -c`.
    #[must_use]
    pub fn command(self, line: impl Into<String>) -> Self {
        self.run(Command::shell(line))
    }

    /// A program and its arguments.
    #[must_use]
    pub fn argv<S: Into<String>>(self, argv: impl IntoIterator<Item = S>) -> Self {
        self.run(Command::argv(argv))
    }

    /// A file that is in its sandbox before it starts; more than one may be given. Call it after the
    /// command.
    ///
    /// ```
    /// use meros_sdk::{FetchUri, Task};
    /// let tool = FetchUri::new("https://example.org/tool-1.2.tar.gz").extract().cache();
    /// let task = Task::new("t").command("tool-1.2/run").fetch(tool).cpus(0.5).mem(64.0);
    /// ```
    #[must_use]
    pub fn fetch(mut self, uri: FetchUri) -> Self {
        self.command = self.command.fetch(uri);
        self
    }

    /// Runs in the file tree of this image instead of the slave's: with its entrypoint, environment, working
    /// directory and user. Call it after the command, which is what its entrypoint is given; a
    /// [shell line](Self::command) takes the place of both. See docs/images.md.
    ///
    /// ```
    /// use meros_sdk::Task;
    /// let task = Task::new("t").argv(["echo", "hello"]).image("alpine:3.20").cpus(0.5).mem(64.0);
    /// // What the image itself says:
    /// let web = Task::new("web").argv::<String>([]).image("nginx").cpus(0.5).mem(64.0);
    /// ```
    #[must_use]
    pub fn image(mut self, reference: impl Into<String>) -> Self {
        self.command = self.command.image(Image::new(reference));
        self
    }

    /// A command with its surroundings.
    #[must_use]
    pub fn run(mut self, command: Command) -> Self {
        self.command = command;
        self
    }

    /// Runs in an executor of the framework's own instead of as a command: the slave starts it with the first
    /// task that names it, and gives it that and the later ones. All tasks of one `executor_id` on one slave
    /// give the same description.
    #[must_use]
    pub fn in_executor(mut self, executor: ExecutorDescription) -> Self {
        self.executor = Some(executor);
        self
    }

    /// What the executor finds in the task's description. At most 1 MiB.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Cores, to a thousandth; adds to what was wished for before, as do the next two. A share under contention, not a limit: see [`Task::limits`].
    #[must_use]
    pub fn cpus(self, cpus: f64) -> Self {
        self.amount(ResourceName::CPUS, "cpus", cpus)
    }

    /// Memory in MiB: the task is ended when it uses more.
    #[must_use]
    pub fn mem(self, mebibytes: f64) -> Self {
        self.amount(ResourceName::MEM, "mem", mebibytes)
    }

    /// Disk in MiB.
    #[must_use]
    pub fn disk(self, mebibytes: f64) -> Self {
        self.amount(ResourceName::DISK, "disk", mebibytes)
    }

    /// So many ports: the lowest that the offer has. The task finds them in its environment.
    #[must_use]
    pub fn ports(mut self, count: u64) -> Self {
        self.ports = count;
        self
    }

    /// Other resources, instead of those wished for so far (but for ports).
    #[must_use]
    pub fn resources(mut self, want: Resources) -> Self {
        self.want = want;
        self
    }

    /// Also these, exactly as they are: a volume, or what is reserved in a certain way. What is wished
    /// for otherwise comes from wherever the offer has it.
    #[must_use]
    pub fn exactly(mut self, more: &Resources) -> Self {
        match self.want.checked_add(more) {
            Ok(want) => self.want = want,
            Err(error) => self.wrong = self.wrong.or(Some(PlaceError::TooMuch(error))),
        }
        self
    }

    /// Limits above the resources.
    #[must_use]
    pub fn limits(mut self, limits: TaskLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Between SIGTERM and SIGKILL. At most an hour; default 3 s.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = Some(grace);
        self
    }

    /// The task fails when it runs longer. Default: it may run for ever.
    #[must_use]
    pub fn max_completion_time(mut self, time: Duration) -> Self {
        self.max_completion_time = Some(time);
        self
    }

    /// Kills the task when it fails this several times in a row; its statuses say whether it is healthy.
    /// Port 0 stands for the first of the task's [ports](Self::ports).
    ///
    /// ```
    /// use std::time::Duration;
    /// use meros_sdk::{Check, HealthCheck, Task};
    /// let check = Check::http(8080, "/healthz").interval(Duration::from_secs(5));
    /// let health = HealthCheck::new(check).consecutive_failures(2);
    /// let task = Task::new("web.1").command("exec ./server").cpus(0.5).health_check(health);
    /// ```
    #[must_use]
    pub fn health_check(mut self, check: impl Into<HealthCheck>) -> Self {
        self.health_check = Some(check.into());
        self
    }

    /// Reports this in the statuses of the task, and nothing else: readiness. Port 0 stands for the first of
    /// the task's [ports](Self::ports).
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// A label, for people and tools.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        match Label::new(key, Some(value.into())) {
            Ok(label) => self.labels.push(label),
            Err(error) => self.wrong = self.wrong.or(Some(PlaceError::Label(error))),
        }
        self
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn amount(mut self, name: ResourceName, text: &'static str, units: f64) -> Self {
        let sum = Scalar::from_f64(units)
            .map_err(|why| PlaceError::Amount { name: text, why })
            .and_then(|amount| {
                let more = Resource::new(name, amount).expect("cpus, mem and disk are scalars");
                self.want
                    .checked_add(&more.into())
                    .map_err(PlaceError::TooMuch)
            });
        match sum {
            Ok(want) => self.want = want,
            Err(wrong) => self.wrong = self.wrong.or(Some(wrong)),
        }
        self
    }

    /// What it takes of these resources: everything wished for, with concrete ports.
    fn take_of(&self, free: &Resources) -> Result<Resources, PlaceError> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let ports = free.ports().take(self.ports);
        if ports.len() < self.ports {
            return Err(PlaceError::NoPorts {
                wanted: self.ports,
                has: ports.len(),
            });
        }
        let ports = Resource::new(ResourceName::PORTS, ports).expect("ports are ranges");
        let want = self
            .want
            .checked_add(&ports.into())
            .map_err(PlaceError::TooMuch)?;
        free.fit(&want).map_err(PlaceError::NoRoom)
    }
}

/// Names the port that is only known now.
fn fill_in_port(check: &mut Check, taken: &Resources) {
    let first = taken.ports().iter().next().map(|range| range.begin());
    let first = first.and_then(|port| u16::try_from(port).ok());
    if let (Some(port @ 0), Some(first)) = (check.probe.port_mut(), first) {
        *port = first;
    }
}

/// An offer being filled with tasks; hand it to [`Actions::launch`](crate::Actions::launch).
#[derive(Debug, Clone)]
pub struct Placement<'a> {
    offer: &'a Offer,
    free: Resources,
    tasks: Vec<TaskDescription>,
    /// Executors that are there, or are paid for with a task that is placed.
    executors: BTreeSet<ExecutorId>,
}

impl<'a> Placement<'a> {
    /// An offer with nothing on it yet.
    #[must_use]
    pub fn on(offer: &'a Offer) -> Self {
        Self {
            offer,
            free: offer.resources.clone(),
            tasks: Vec::new(),
            executors: BTreeSet::new(),
        }
    }

    /// A part of an offer with nothing on it yet.
    pub(crate) fn within(offer: &'a Offer, free: Resources) -> Self {
        Self {
            offer,
            free,
            tasks: Vec::new(),
            executors: BTreeSet::new(),
        }
    }

    /// This executor runs on the slave already: tasks in it do not take its resources again. Without this
    /// the first one needs room for both, and the master gives back what it does not charge.
    pub fn has_executor(&mut self, executor_id: ExecutorId) {
        self.executors.insert(executor_id);
    }

    /// Puts a task on the offer, if there is room.
    ///
    /// # Errors
    /// [`PlaceError::NoRoom`]: try another offer. Anything else: the task is not valid. Nothing
    /// is placed on error.
    pub fn place(&mut self, task: &Task) -> Result<(), PlaceError> {
        let executor = task.executor.as_ref();
        let starts = executor.filter(|it| !self.executors.contains(&it.executor_id));
        let mut free = self.free.clone();
        if let Some(executor) = starts {
            free = free
                .checked_sub(&executor.resources)
                .map_err(PlaceError::NoRoom)?;
        }
        let resources = task.take_of(&free)?;
        let task_id = TaskId::new(&task.id).map_err(PlaceError::TaskId)?;
        let labels = Labels::from_list(task.labels.clone()).map_err(PlaceError::Label)?;
        let free = free.checked_sub(&resources).map_err(PlaceError::NoRoom)?;
        let (mut health_check, mut check) = (task.health_check.clone(), task.check.clone());
        let health = health_check.as_mut().map(|health| &mut health.check);
        for check in health.into_iter().chain(check.as_mut()) {
            fill_in_port(check, &resources);
        }
        self.tasks.push(TaskDescription {
            name: task.name.clone().unwrap_or_else(|| task.id.clone()),
            task_id,
            slave_id: self.offer.slave_id,
            resources,
            limits: task.limits,
            command: match executor {
                Some(_) => None,
                None => Some(task.command.clone()),
            },
            executor: executor.cloned(),
            kill_grace: task.kill_grace,
            max_completion_time: task.max_completion_time,
            labels,
            data: task.data.clone(),
            health_check,
            check,
        });
        self.executors
            .extend(executor.map(|it| it.executor_id.clone()));
        self.free = free;
        Ok(())
    }

    /// The offer.
    #[must_use]
    pub fn offer(&self) -> &'a Offer {
        self.offer
    }

    /// What is left of it.
    #[must_use]
    pub fn free(&self) -> &Resources {
        &self.free
    }

    /// Whether nothing was placed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks placed so far.
    #[must_use]
    pub fn into_tasks(self) -> Vec<TaskDescription> {
        self.tasks
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::attribute::Attributes;
    use meros_proto::ids::{Epoch, FrameworkId, OfferId, SlaveId};
    use meros_proto::role::RoleName;

    use super::*;

    fn offer(resources: &str) -> Offer {
        Offer {
            offer_id: OfferId {
                epoch: Epoch(1),
                number: 1,
            },
            framework_id: FrameworkId(1),
            slave_id: SlaveId(4),
            hostname: "here".to_owned(),
            http_address: String::new(),
            role: RoleName::any(),
            resources: resources.parse().expect("resources"),
            attributes: Attributes::default(),
            unavailability: None,
        }
    }

    #[test]
    fn tasks_are_placed_until_the_offer_is_full() {
        let offer = offer("cpus:1;mem:100;ports:[100-102]");
        let mut placement = Placement::on(&offer);
        let task = |id: &str| Task::new(id).command("true").cpus(0.4).mem(10.0).ports(1);
        placement.place(&task("a")).expect("there is room");
        placement.place(&task("b")).expect("there is room");
        let error = placement.place(&task("c")).expect_err("0.2 cpus are left");
        assert!(error.is_no_room());
        assert_eq!(
            error.to_string(),
            "the offer has no room: cpus: wanted 0.4, has 0.2"
        );
        assert_eq!(
            placement.free().to_string(),
            "cpus:0.2;mem:80;ports:[102-102]"
        );
        let tasks = placement.into_tasks();
        assert_eq!(
            tasks[1].resources.to_string(),
            "cpus:0.4;mem:10;ports:[101-101]"
        );
        assert_eq!(
            (tasks[1].slave_id, tasks[1].name.as_str()),
            (SlaveId(4), "b")
        );
        let error = Placement::on(&offer)
            .place(&task("d").ports(4))
            .expect_err("three ports");
        assert_eq!(
            error.to_string(),
            "the offer has no room: ports: wanted 4, has 3"
        );
    }

    #[test]
    fn a_check_of_port_0_is_of_the_first_port_that_the_task_gets() {
        let offer = offer("cpus:1;ports:[100-109]");
        let mut placement = Placement::on(&offer);
        let task = Task::new("a").cpus(0.1).ports(2);
        let task = task.health_check(Check::http(0, "/")).check(Check::tcp(9));
        placement.place(&task.name("first")).expect("there is room");
        let second = Task::new("b").cpus(0.1).ports(1).check(Check::tcp(0));
        placement.place(&second).expect("there is room");
        let tasks = placement.into_tasks();
        let health = tasks[0].health_check.clone().expect("given");
        assert_eq!(health.check, Check::http(100, "/"));
        assert_eq!(tasks[0].check, Some(Check::tcp(9)));
        assert_eq!(tasks[1].check, Some(Check::tcp(102)));
    }

    #[test]
    fn reserved_resources_are_used_first() {
        let offer = offer("cpus(*):1;mem:100;cpus(web):1");
        let mut placement = Placement::on(&offer);
        placement
            .place(&Task::new("a").cpus(1.5).mem(1.0))
            .expect("there is room");
        let left = placement.free().to_string();
        assert_eq!(left, "cpus:0.5;mem:99");
    }

    #[test]
    fn what_is_not_valid_is_told_apart_from_no_room() {
        let offer = offer("cpus:1;mem:100");
        let place = |task: Task| Placement::on(&offer).place(&task).expect_err("not valid");
        for task in [
            Task::new("a").cpus(f64::NAN),
            Task::new("a").cpus(-1.0).mem(1.0),
            Task::new("a").mem(9e15).mem(9e15),
            Task::new("a b").cpus(0.1),
            Task::new("../a").cpus(0.1),
            Task::new("a").cpus(0.1).label("k".repeat(2_000), "v"),
        ] {
            let error = place(task.clone());
            assert!(!error.is_no_room(), "{task:?}: {error}");
        }
    }
}
