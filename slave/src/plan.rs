//! From an order to run a task to a container: command, environment, limits.
//!
//! The environment is made, not inherited: what the slave was started with, secrets included, is
//! none of the task's business. A task gets `PATH` as the slave has it, `HOME` (its sandbox, so that
//! tools do not write into somebody's real home), `MEROS_TASK_ID`, `MEROS_FRAMEWORK_ID`,
//! `MEROS_SLAVE_ID`, `MEROS_CONTAINER_ID`, `MEROS_ROLE`, `MEROS_SANDBOX`, with ports `MEROS_PORTS`
//! (`31000-31002,31005`), and over all that what its framework says.
//!
//! CPU: `cpus` of its resources is its share under contention. A quota is set when the task has a
//! limit of its own, or when the slave is configured to hold every task to its `cpus`. Memory: the
//! hard limit is the task's own limit, else `mem` of its resources, and at least [`MEMORY_MIN_MIB`].
//! Disk: what the sandbox takes is held to `disk` of its resources, if there is any.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use meros_proto::check::Probe;
use meros_proto::executor::{
    EXECUTOR_ID_VARIABLE, EXECUTOR_SHUTDOWN_GRACE_VARIABLE, EXECUTOR_SOCKET_VARIABLE,
    SHUTDOWN_GRACE_DEFAULT,
};
use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::resources::{ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::task::{Command, Execute, TaskDescription, TaskLimits};
use meros_slave_core::{CheckPurpose, ContainerId, ExecutorKey, Owner, TaskKey};
use meros_v1::ids::Ids;
use serde::Deserialize;

use crate::container::{CheckCommand, ContainerSpec, Limits, TaskCommand};
use crate::executor::SOCKET;

/// No task gets less memory, in MiB: a shell and its libraries need a few, and a task that is killed
/// before it can say anything helps nobody. Mesos has the same.
pub(crate) const MEMORY_MIN_MIB: u64 = 32;

/// What is the same for all tasks of a slave.
#[derive(Debug, Clone)]
pub(crate) struct TaskSettings {
    /// `PATH` of tasks.
    pub(crate) path: String,
    /// The user that the slave runs as; a task of the same user needs no change of user.
    pub(crate) own_user: Option<String>,
    /// Whether every task is held to its cpus.
    pub(crate) cpu_quota: bool,
    /// Processes and threads of one task.
    pub(crate) pids_max: u64,
    /// Whether a task is held to its disk.
    pub(crate) disk_quota: bool,
    /// Bytes kept of each output.
    pub(crate) log_bytes_max: u64,
    /// How long an executor has to come back.
    pub(crate) executor_reregistration_timeout: Duration,
}

/// The container that an order asks for; none if there is no command, which the core refuses.
pub(crate) fn container_spec(
    run: &RunTask,
    slave_id: SlaveId,
    container: ContainerId,
    sandbox: &Path,
    settings: &TaskSettings,
    ends_with_slave: bool,
) -> Option<ContainerSpec> {
    let command = run.task.command.as_ref()?;
    let user = command.user.as_ref().or(run.framework.user.as_ref());
    Some(ContainerSpec {
        id: container.to_string(),
        owner: owner(&(run.framework.framework_id, run.task.task_id.clone())),
        command: what_to_run(command),
        env: environment(run, slave_id, container, sandbox, settings),
        sandbox: sandbox.to_owned(),
        limits: limits(run, settings),
        stdout_bytes_max: settings.log_bytes_max,
        stderr_bytes_max: settings.log_bytes_max,
        // Known when they are put into the sandbox.
        shown: Vec::new(),
        user: user
            .filter(|user| settings.own_user.as_ref() != Some(user))
            .cloned(),
        image: None,
        ends_with_slave,
        checks: checks(&run.task),
    })
}

/// Where an executor that speaks v1 finds its slave, and how it proves who it is (semantics M6).
#[derive(Debug)]
pub(crate) struct V1Access<'a> {
    pub(crate) ids: Ids,
    /// Where HTTP is served: `host:port`.
    pub(crate) agent: &'a str,
    pub(crate) token: String,
}

/// How long an executor that speaks v1 looks for a slave that is away, as the SDK does.
const V1_RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The longest that it waits between two attempts, and the part of the time that it has to come back.
const V1_BACKOFF_MAX: Duration = Duration::from_secs(2);
const V1_BACKOFF_PART: u32 = 4;

/// A length of time as Mesos writes it.
fn v1_duration(length: Duration) -> String {
    match (length.as_secs(), length.subsec_nanos()) {
        (seconds, 0) if seconds >= 60 && seconds % 60 == 0 => format!("{}mins", seconds / 60),
        (seconds, 0) => format!("{seconds}secs"),
        _ => format!("{}ms", length.as_millis()),
    }
}

/// semantics: M6, R13
fn v1_environment(
    run: &RunExecutor,
    slave_id: SlaveId,
    sandbox: &Path,
    settings: &TaskSettings,
    access: V1Access<'_>,
) -> BTreeMap<String, String> {
    let V1Access { ids, agent, token } = access;
    let in_time = settings.executor_reregistration_timeout / V1_BACKOFF_PART;
    let backoff = V1_BACKOFF_MAX.min(in_time);
    let executor = &run.executor;
    let sandbox = sandbox.display().to_string();
    let grace = executor.shutdown_grace.unwrap_or(SHUTDOWN_GRACE_DEFAULT);
    let checkpoint = if run.framework.checkpoint { "1" } else { "0" };
    let framework = ids.framework(run.framework.framework_id).value;
    [
        ("MESOS_FRAMEWORK_ID", framework),
        ("MESOS_EXECUTOR_ID", executor.executor_id.to_string()),
        ("MESOS_DIRECTORY", sandbox.clone()),
        ("MESOS_SANDBOX", sandbox),
        ("MESOS_SLAVE_ID", ids.slave(slave_id).value),
        ("MESOS_SLAVE_PID", format!("slave(1)@{agent}")),
        ("MESOS_AGENT_ENDPOINT", agent.to_owned()),
        ("MESOS_CHECKPOINT", checkpoint.to_owned()),
        ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", v1_duration(grace)),
        ("MESOS_EXECUTOR_AUTHENTICATION_TOKEN", token),
        ("MESOS_RECOVERY_TIMEOUT", v1_duration(V1_RECOVERY_TIMEOUT)),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", v1_duration(backoff)),
        ("MESOS_ALLOCATION_ROLE", run.role.to_string()),
        ("MESOS_HTTP_COMMAND_EXECUTOR", "0".to_owned()),
        ("LIBPROCESS_PORT", "0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The container of an executor.
pub(crate) fn executor_spec(
    run: &RunExecutor,
    slave_id: SlaveId,
    container: ContainerId,
    sandbox: &Path,
    settings: &TaskSettings,
    ends_with_slave: bool,
    access: V1Access<'_>,
) -> ContainerSpec {
    let executor = &run.executor;
    let command = executor.command.as_ref();
    let command = command.expect("the core starts no container for a group");
    let user = command.user.as_ref().or(run.framework.user.as_ref());
    let key = (run.framework.framework_id, executor.executor_id.clone());
    let mut env = base_environment(key.0, &run.role, slave_id, container, sandbox, settings);
    let grace = executor.shutdown_grace.unwrap_or(SHUTDOWN_GRACE_DEFAULT);
    env.extend(
        [
            (EXECUTOR_ID_VARIABLE, key.1.to_string()),
            (
                EXECUTOR_SOCKET_VARIABLE,
                sandbox.join(SOCKET).display().to_string(),
            ),
            (
                EXECUTOR_SHUTDOWN_GRACE_VARIABLE,
                grace.as_millis().to_string(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    env.extend(v1_environment(run, slave_id, sandbox, settings, access));
    env.extend(command.environment.clone());
    ContainerSpec {
        id: container.to_string(),
        owner: executor_owner(&key),
        command: what_to_run(command),
        env,
        sandbox: sandbox.to_owned(),
        limits: limits_of(&executor.resources, TaskLimits::default(), settings),
        stdout_bytes_max: settings.log_bytes_max,
        stderr_bytes_max: settings.log_bytes_max,
        shown: Vec::new(),
        user: user
            .filter(|user| settings.own_user.as_ref() != Some(user))
            .cloned(),
        image: None,
        ends_with_slave,
        checks: BTreeMap::new(),
    }
}

fn what_to_run(command: &Command) -> TaskCommand {
    match &command.execute {
        Execute::Shell(line) => TaskCommand::Shell(line.clone()),
        Execute::Argv(argv) => TaskCommand::Argv(argv.clone()),
    }
}

/// Checks that are commands; the others need nothing of the container.
fn checks(task: &TaskDescription) -> BTreeMap<String, CheckCommand> {
    let all = CheckPurpose::ALL.into_iter();
    let commands = all.filter_map(|purpose| {
        let Probe::Command(command) = &purpose.of(task)?.probe else {
            return None;
        };
        let check = CheckCommand {
            command: what_to_run(command),
            env: command.environment.clone(),
        };
        Some((purpose.name().to_owned(), check))
    });
    commands.collect()
}

/// The name under which the sandbox and the output of an executor are kept, beside those of tasks.
pub(crate) fn executor_place(executor: &ExecutorKey) -> Option<TaskKey> {
    let name = TaskId::new(format!("executor:{}", executor.1)).ok()?;
    Some((executor.0, name))
}

/// Whose a container is, as it is written beside it.
fn owner(task: &TaskKey) -> String {
    serde_json::to_string(task).expect("two ids")
}

fn executor_owner(executor: &ExecutorKey) -> String {
    serde_json::json!({ "executor": executor }).to_string()
}

/// Reads back whose a container is.
pub(crate) fn parse_owner(text: &str) -> Option<Owner> {
    #[derive(Deserialize)]
    struct OfExecutor {
        executor: ExecutorKey,
    }
    let task = serde_json::from_str(text).ok().map(Owner::Task);
    task.or_else(|| {
        let it: OfExecutor = serde_json::from_str(text).ok()?;
        Some(Owner::Executor(it.executor))
    })
}

/// What tasks and executors have.
fn base_environment(
    framework: FrameworkId,
    role: &RoleName,
    slave_id: SlaveId,
    container: ContainerId,
    sandbox: &Path,
    settings: &TaskSettings,
) -> BTreeMap<String, String> {
    let sandbox = sandbox.display().to_string();
    [
        ("PATH", settings.path.clone()),
        ("HOME", sandbox.clone()),
        ("MEROS_FRAMEWORK_ID", framework.to_string()),
        ("MEROS_SLAVE_ID", slave_id.to_string()),
        ("MEROS_CONTAINER_ID", container.to_string()),
        ("MEROS_ROLE", role.to_string()),
        ("MEROS_SANDBOX", sandbox),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn environment(
    run: &RunTask,
    slave_id: SlaveId,
    container: ContainerId,
    sandbox: &Path,
    settings: &TaskSettings,
) -> BTreeMap<String, String> {
    let framework = run.framework.framework_id;
    let mut all = base_environment(framework, &run.role, slave_id, container, sandbox, settings);
    all.insert("MEROS_TASK_ID".to_owned(), run.task.task_id.to_string());
    let ports = run.task.resources.ports();
    if !ports.is_empty() {
        let pieces = ports
            .iter()
            .map(|interval| match (interval.begin(), interval.end()) {
                (begin, end) if begin == end => begin.to_string(),
                (begin, end) => format!("{begin}-{end}"),
            });
        all.insert(
            "MEROS_PORTS".to_owned(),
            pieces.collect::<Vec<_>>().join(","),
        );
    }
    if let Some(command) = &run.task.command {
        all.extend(command.environment.clone());
    }
    all
}

fn limits(run: &RunTask, settings: &TaskSettings) -> Limits {
    limits_of(&run.task.resources, run.task.limits, settings)
}

/// What a container may use that was given these.
pub(crate) fn limits_of(resources: &Resources, own: TaskLimits, settings: &TaskSettings) -> Limits {
    let cpus = resources.scalar(&ResourceName::CPUS);
    let quota = own.cpus.or(settings.cpu_quota.then_some(cpus));
    let mem = own
        .mem
        .unwrap_or_else(|| resources.scalar(&ResourceName::MEM));
    // What is a volume's is not the sandbox's.
    let disk = resources
        .iter()
        .filter(|it| *it.name() == ResourceName::DISK && it.volume().is_none());
    let disk = disk.filter_map(|it| match it.value() {
        Value::Scalar(scalar) => Some(thousandths(*scalar)),
        Value::Ranges(_) | Value::Set(_) => None,
    });
    let disk_bytes = disk.sum::<u64>().saturating_mul(1 << 20) / 1_000;
    // Thousandths of a MiB, rounded up to bytes.
    let memory_bytes = (thousandths(mem).saturating_mul(1 << 20)).div_ceil(1_000);
    Limits {
        cpu_shares_millis: thousandths(cpus),
        cpu_quota_millis: quota.map(thousandths).filter(|quota| *quota > 0),
        memory_bytes: Some(memory_bytes.max(MEMORY_MIN_MIB << 20)),
        disk_bytes: Some(disk_bytes).filter(|bytes| *bytes > 0 && settings.disk_quota),
        pids_max: Some(settings.pids_max),
    }
}

fn thousandths(scalar: Scalar) -> u64 {
    u64::try_from(scalar.thousandths()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use meros_proto::executor::ExecutorDescription;
    use meros_proto::ids::ExecutorId;
    use meros_proto::message::slave::TaskFramework;
    use meros_proto::task::TaskDescription;

    use super::*;

    fn settings() -> TaskSettings {
        TaskSettings {
            path: "/bin".to_owned(),
            own_user: Some("me".to_owned()),
            cpu_quota: false,
            pids_max: 100,
            disk_quota: true,
            log_bytes_max: 1 << 20,
            executor_reregistration_timeout: Duration::from_secs(15),
        }
    }

    fn run(resources: &str, command: Command) -> RunTask {
        let resources = resources.parse().unwrap();
        let task_id = TaskId::new("web.1").unwrap();
        RunTask {
            framework: TaskFramework {
                framework_id: FrameworkId(2),
                name: "f".to_owned(),
                user: Some("me".to_owned()),
                checkpoint: true,
                capabilities: Vec::new(),
            },
            role: "ads".parse().unwrap(),
            task: TaskDescription::command(task_id, SlaveId(1), resources, command),
        }
    }

    fn plan(run: &RunTask, settings: &TaskSettings) -> ContainerSpec {
        let container = ContainerId {
            incarnation: 1,
            number: 7,
        };
        container_spec(
            run,
            SlaveId(1),
            container,
            Path::new("/sandbox"),
            settings,
            false,
        )
        .unwrap()
    }

    #[test]
    fn a_task_gets_its_own_environment_and_nothing_of_the_slaves() {
        let run = run(
            "cpus:1;ports:[31000-31002,31005]",
            Command::shell("x").env("HOME", "/h"),
        );
        let spec = plan(&run, &settings());
        let expected = [
            ("HOME", "/h"),
            ("MEROS_CONTAINER_ID", "1-7"),
            ("MEROS_FRAMEWORK_ID", "F2"),
            ("MEROS_PORTS", "31000-31002,31005"),
            ("MEROS_ROLE", "ads"),
            ("MEROS_SANDBOX", "/sandbox"),
            ("MEROS_SLAVE_ID", "S1"),
            ("MEROS_TASK_ID", "web.1"),
            ("PATH", "/bin"),
        ];
        let found: Vec<(&str, &str)> = spec
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_executor_is_told_who_it_is_and_where_its_slave_listens() {
        // semantics: M6
        let executor = ExecutorDescription {
            shutdown_grace: Some(Duration::from_secs(7)),
            ..ExecutorDescription::new(
                ExecutorId::new("e").unwrap(),
                Command::shell("x").env("MODE", "fast"),
                "cpus:0.1;mem:64".parse().unwrap(),
            )
        };
        let run = RunExecutor {
            framework: run("cpus:1", Command::shell("x")).framework,
            role: "ads".parse().unwrap(),
            executor,
        };
        let container = ContainerId {
            incarnation: 1,
            number: 7,
        };
        let sandbox = Path::new("/sandbox");
        let access = V1Access {
            ids: Ids::new(meros_proto::ids::ClusterId(7)),
            agent: "10.0.0.1:5051",
            token: "secret".to_owned(),
        };
        let slave = SlaveId(1);
        let spec = executor_spec(&run, slave, container, sandbox, &settings(), true, access);
        let found = |name: &str| spec.env.get(name).map(String::as_str);
        assert_eq!(found("MEROS_EXECUTOR_ID"), Some("e"));
        assert_eq!(found("MEROS_FRAMEWORK_ID"), Some("F2"));
        assert_eq!(
            found("MEROS_EXECUTOR_SOCKET"),
            Some("/sandbox/executor.sock")
        );
        assert_eq!(found("MEROS_EXECUTOR_SHUTDOWN_GRACE_MS"), Some("7000"));
        assert_eq!(found("MODE"), Some("fast"));
        // semantics: R13
        let cluster = "00000000-0000-0000-0000-000000000007";
        let (framework, slave) = (format!("{cluster}-0002"), format!("{cluster}-S1"));
        assert_eq!(found("MESOS_FRAMEWORK_ID"), Some(framework.as_str()));
        assert_eq!(found("MESOS_SLAVE_ID"), Some(slave.as_str()));
        assert_eq!(found("MESOS_SLAVE_PID"), Some("slave(1)@10.0.0.1:5051"));
        assert_eq!(found("MESOS_AGENT_ENDPOINT"), Some("10.0.0.1:5051"));
        assert_eq!(found("MESOS_EXECUTOR_AUTHENTICATION_TOKEN"), Some("secret"));
        assert_eq!(found("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"), Some("7secs"));
        assert_eq!(found("MESOS_CHECKPOINT"), Some("1"));
        assert_eq!(found("MESOS_EXECUTOR_ID"), Some("e"));
        assert_eq!(found("MESOS_DIRECTORY"), Some("/sandbox"));
        assert_eq!(found("MESOS_SANDBOX"), Some("/sandbox"));
        assert_eq!(found("MESOS_RECOVERY_TIMEOUT"), Some("15mins"));
        assert_eq!(found("MESOS_SUBSCRIPTION_BACKOFF_MAX"), Some("2secs"));
        assert_eq!(found("MESOS_ALLOCATION_ROLE"), Some("ads"));
        assert_eq!(found("MESOS_HTTP_COMMAND_EXECUTOR"), Some("0"));
        assert_eq!(found("LIBPROCESS_PORT"), Some("0"));
        assert_eq!(found("MEROS_TASK_ID"), None);
        assert_eq!(spec.limits.memory_bytes, Some(64 << 20));
        assert!(spec.ends_with_slave);
    }

    #[test]
    fn whose_a_container_is_can_be_read_back() {
        let spec = plan(&run("cpus:1", Command::shell("x")), &settings());
        let task = (FrameworkId(2), TaskId::new("web.1").unwrap());
        assert_eq!(parse_owner(&spec.owner), Some(Owner::Task(task)));
        let executor = (FrameworkId(2), ExecutorId::new("e").unwrap());
        let found = parse_owner(&executor_owner(&executor));
        assert_eq!(found, Some(Owner::Executor(executor)));
        for garbage in ["", "[]", "[1]", "{\"a\":1}", "[2,\"a/b\"]"] {
            assert_eq!(parse_owner(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn cpus_are_a_share_and_a_quota_only_when_asked_for() {
        let mut run = run("cpus:0.5;mem:64", Command::shell("x"));
        let quota =
            |run: &RunTask, settings: &TaskSettings| plan(run, settings).limits.cpu_quota_millis;
        assert_eq!(plan(&run, &settings()).limits.cpu_shares_millis, 500);
        assert_eq!(quota(&run, &settings()), None);
        assert_eq!(
            quota(
                &run,
                &TaskSettings {
                    cpu_quota: true,
                    ..settings()
                }
            ),
            Some(500)
        );
        run.task.limits.cpus = Some(Scalar::whole(2));
        assert_eq!(
            quota(
                &run,
                &TaskSettings {
                    cpu_quota: true,
                    ..settings()
                }
            ),
            Some(2_000)
        );
    }

    #[test]
    fn memory_is_the_limit_else_mem_and_at_least_what_a_shell_needs() {
        let memory = |run: &RunTask| plan(run, &settings()).limits.memory_bytes.unwrap();
        let mut it = run("mem:64.5", Command::shell("x"));
        assert_eq!(memory(&it), (64 << 20) + (1 << 19));
        it.task.limits.mem = Some(Scalar::whole(128));
        assert_eq!(memory(&it), 128 << 20);
        assert_eq!(memory(&run("cpus:1", Command::shell("x"))), 32 << 20);
    }

    #[test]
    fn disk_is_the_sandboxs_limit_if_there_is_any_and_it_is_measured() {
        let disk = |text: &str, settings: &TaskSettings| {
            plan(&run(text, Command::shell("x")), settings)
                .limits
                .disk_bytes
        };
        assert_eq!(disk("cpus:1;disk:2.5", &settings()), Some(5 << 19));
        assert_eq!(disk("cpus:1", &settings()), None);
        let off = TaskSettings {
            disk_quota: false,
            ..settings()
        };
        assert_eq!(disk("cpus:1;disk:2.5", &off), None);
    }

    #[test]
    fn the_slaves_own_user_needs_no_change_of_user() {
        let mut command = Command::argv(["a", "b"]);
        assert_eq!(
            plan(&run("cpus:1", command.clone()), &settings()).user,
            None
        );
        command.user = Some("other".to_owned());
        let spec = plan(&run("cpus:1", command), &settings());
        assert_eq!(spec.user.as_deref(), Some("other"));
        assert_eq!(
            spec.command,
            TaskCommand::Argv(vec!["a".to_owned(), "b".to_owned()])
        );
    }
}
