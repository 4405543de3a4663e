//! Tasks and executors as frameworks describe them (semantics D1, R9).

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::check::{
    CHECK_INTERVAL_MIN, CHECK_TIMEOUT_MAX, CHECK_TIMEOUT_MIN, Check, HealthCheck, HttpProbe, Probe,
};
use meros_proto::executor::ExecutorDescription;
use meros_proto::fetch::{FetchUri, check_uris};
use meros_proto::group::TaskGroup;
use meros_proto::ids::{ExecutorId, TaskId};
use meros_proto::image::Image;
use meros_proto::resources::Scalar;
use meros_proto::task::{Command, Execute, TaskDescription, TaskLimits};

use crate::ids::Ids;
use crate::pb;
use crate::refused::{Refused, absent};
use crate::resources::{from_v1, labels_from_v1};

/// An image of a task, and how its command goes with it.
struct InImage {
    image: Image,
    /// Whether the program of a command is an argument of the image's entrypoint, as with Docker, and not
    /// instead of it.
    keeps_entrypoint: bool,
}

/// Reads a task.
///
/// # Errors
/// The first field that breaks a rule, or that Meros cannot honour.
pub fn task(from: &pb::TaskInfo, ids: Ids) -> Result<TaskDescription, Refused> {
    let image = container("container", from.container.as_ref())?;
    absent(
        image.is_some() && from.executor.is_some(),
        "container",
        "a task of an executor runs where that does: give the image to the executor",
    )?;
    let grace = from.kill_policy.as_ref().and_then(|it| it.grace_period);
    Ok(TaskDescription {
        name: from.name.clone(),
        task_id: task_id(&from.task_id)?,
        slave_id: ids.read_slave(&from.agent_id),
        resources: from_v1("resources", &from.resources)?,
        limits: limits(from)?,
        command: match &from.command {
            Some(it) => Some(command_in("command", it, image)?),
            None => None,
        },
        executor: match &from.executor {
            Some(it) => Some(executor(it)?),
            None => None,
        },
        kill_grace: match grace {
            Some(it) => Some(duration("kill_policy.grace_period", it)?),
            None => None,
        },
        max_completion_time: match from.max_completion_time {
            Some(it) => Some(duration("max_completion_time", it)?),
            None => None,
        },
        labels: labels_from_v1("labels", from.labels.as_ref())?,
        data: from.data.clone().unwrap_or_default(),
        health_check: match &from.health_check {
            Some(it) => Some(health_check(it)?),
            None => None,
        },
        check: match &from.check {
            Some(it) => Some(check(it)?),
            None => None,
        },
    })
}

/// Times that Mesos takes and that make no sense are brought into the range of Meros: no interval is the
/// shortest, no timeout the longest.
fn times(
    field: &str,
    probe: Probe,
    delay: f64,
    interval: f64,
    timeout: f64,
) -> Result<Check, Refused> {
    let timeout = match seconds(&format!("{field}.timeout_seconds"), timeout)? {
        Duration::ZERO => CHECK_TIMEOUT_MAX,
        timeout => timeout.clamp(CHECK_TIMEOUT_MIN, CHECK_TIMEOUT_MAX),
    };
    let interval = seconds(&format!("{field}.interval_seconds"), interval)?;
    Ok(Check {
        probe,
        delay: seconds(&format!("{field}.delay_seconds"), delay)?,
        interval: interval.max(CHECK_INTERVAL_MIN),
        timeout,
    })
}

fn seconds(field: &str, from: f64) -> Result<Duration, Refused> {
    Duration::try_from_secs_f64(from).map_err(|error| Refused::invalid(field, error))
}

fn port(field: &str, from: u32) -> Result<u16, Refused> {
    u16::try_from(from).map_err(|_| Refused::invalid(field, "a port is 1 to 65535"))
}

fn http(
    field: &str,
    port_number: u32,
    path: Option<&String>,
    scheme: Option<&String>,
) -> Result<Probe, Refused> {
    let tls = match scheme.map(String::as_str) {
        None | Some("" | "http") => false,
        Some("https") => true,
        Some(_) => {
            let field = format!("{field}.scheme");
            return Err(Refused::invalid(field, "it is http or https"));
        }
    };
    Ok(Probe::Http(HttpProbe {
        port: port(&format!("{field}.port"), port_number)?,
        path: path
            .filter(|path| !path.is_empty())
            .map_or("/", String::as_str)
            .to_owned(),
        tls,
    }))
}

/// semantics: M8
fn health_check(from: &pb::HealthCheck) -> Result<HealthCheck, Refused> {
    use pb::health_check::Type;
    let missing = |name: &str| Refused::invalid(format!("health_check.{name}"), "it is missing");
    // Older clients leave the type out.
    let kind = match from.r#type() {
        Type::Unknown if from.command.is_some() => Type::Command,
        Type::Unknown if from.http.is_some() => Type::Http,
        Type::Unknown if from.tcp.is_some() => Type::Tcp,
        kind => kind,
    };
    let probe = match kind {
        Type::Unknown => return Err(missing("type")),
        Type::Command => {
            let command = from.command.as_ref().ok_or_else(|| missing("command"))?;
            check_command("health_check.command", command)?
        }
        Type::Http => {
            let it = from.http.as_ref().ok_or_else(|| missing("http"))?;
            absent(
                !it.statuses.is_empty(),
                "health_check.http.statuses",
                "200 to 399 are healthy",
            )?;
            http(
                "health_check.http",
                it.port,
                it.path.as_ref(),
                it.scheme.as_ref(),
            )?
        }
        Type::Tcp => {
            let it = from.tcp.as_ref().ok_or_else(|| missing("tcp"))?;
            let port = port("health_check.tcp.port", it.port)?;
            Probe::Tcp { port }
        }
    };
    let (delay, interval) = (from.delay_seconds(), from.interval_seconds());
    let grace = from.grace_period_seconds();
    Ok(HealthCheck {
        check: times(
            "health_check",
            probe,
            delay,
            interval,
            from.timeout_seconds(),
        )?,
        grace_period: seconds("health_check.grace_period_seconds", grace)?,
        consecutive_failures: from.consecutive_failures(),
    })
}

/// semantics: M8
fn check(from: &pb::CheckInfo) -> Result<Check, Refused> {
    use pb::check_info::Type;
    let missing = |name: &str| Refused::invalid(format!("check.{name}"), "it is missing");
    let probe = match from.r#type() {
        Type::Unknown => return Err(missing("type")),
        Type::Command => {
            let it = from.command.as_ref().ok_or_else(|| missing("command"))?;
            check_command("check.command.command", &it.command)?
        }
        Type::Http => {
            let it = from.http.as_ref().ok_or_else(|| missing("http"))?;
            http("check.http", it.port, it.path.as_ref(), None)?
        }
        Type::Tcp => {
            let it = from.tcp.as_ref().ok_or_else(|| missing("tcp"))?;
            let port = port("check.tcp.port", it.port)?;
            Probe::Tcp { port }
        }
    };
    let (delay, interval) = (from.delay_seconds(), from.interval_seconds());
    times("check", probe, delay, interval, from.timeout_seconds())
}

fn check_command(field: &str, from: &pb::CommandInfo) -> Result<Probe, Refused> {
    Ok(Probe::Command(Box::new(command(field, from)?)))
}

/// Reads the id of a task.
///
/// # Errors
/// It cannot be a path component (semantics A9).
pub fn task_id(from: &pb::TaskId) -> Result<TaskId, Refused> {
    TaskId::new(&from.value).map_err(|error| Refused::invalid("task_id", error))
}

/// Reads a length of time.
///
/// # Errors
/// It is negative.
pub fn duration(field: &str, from: pb::DurationInfo) -> Result<Duration, Refused> {
    u64::try_from(from.nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| Refused::invalid(field, "it must not be negative"))
}

/// Limits above the resources: no entry is the resource itself, Infinity is no limit.
fn limits(from: &pb::TaskInfo) -> Result<TaskLimits, Refused> {
    let mut limits = TaskLimits::default();
    for (name, amount) in &from.limits {
        let field = format!("limits.{}", crate::resources::shortened(name));
        let is_endless = amount.value == f64::INFINITY;
        let read =
            || Scalar::from_f64(amount.value).map_err(|error| Refused::invalid(&field, error));
        match name.as_str() {
            // As many as are idle, which is what a slave does without a limit.
            "cpus" if is_endless => {}
            "cpus" => limits.cpus = Some(read()?),
            "mem" if is_endless => {
                let why = "a task without a limit of memory could take the slave's: give a number";
                return Err(Refused::unsupported(field, why));
            }
            "mem" => limits.mem = Some(read()?),
            _ => return Err(Refused::invalid(field, "only cpus and mem have limits")),
        }
    }
    Ok(limits)
}

/// Reads a command.
///
/// # Errors
/// What cannot be done of it, with `field` in front.
fn command(field: &str, from: &pb::CommandInfo) -> Result<Command, Refused> {
    let uris: Vec<FetchUri> = from.uris.iter().map(uri).collect();
    check_uris(&uris).map_err(|why| Refused::invalid(format!("{field}.uris"), why))?;
    let mut environment = BTreeMap::new();
    let variables = from.environment.as_ref().map(|it| it.variables.as_slice());
    for variable in variables.unwrap_or_default() {
        absent(
            variable.secret.is_some(),
            &format!("{field}.environment.secret"),
            "there is no store of secrets",
        )?;
        environment.insert(variable.name.clone(), variable.value().to_owned());
    }
    let value = from.value.as_ref();
    let execute = match (from.shell(), value) {
        (true, Some(line)) => Execute::Shell(line.clone()),
        (true, None) => {
            return Err(Refused::invalid(format!("{field}.value"), "it is missing"));
        }
        (false, Some(program)) => {
            // The first argument is what the program sees as its own name; Meros gives it the path.
            let arguments = from.arguments.iter().skip(1).cloned();
            Execute::Argv(std::iter::once(program.clone()).chain(arguments).collect())
        }
        (false, None) => Execute::Argv(from.arguments.clone()),
    };
    Ok(Command {
        execute,
        environment,
        user: from.user.clone().filter(|user| !user.is_empty()),
        uris,
        image: None,
    })
}

/// The same in an image. Without a program an image is asked what to run; with one Docker gives that to the
/// image's entrypoint, and Mesos's own containers run it instead.
fn command_in(
    field: &str,
    from: &pb::CommandInfo,
    image: Option<InImage>,
) -> Result<Command, Refused> {
    let mut command = command(field, from)?;
    let Some(InImage {
        mut image,
        keeps_entrypoint,
    }) = image
    else {
        return Ok(command);
    };
    if let (false, Some(program)) = (from.shell(), &from.value) {
        let arguments = from.arguments.iter().cloned();
        if keeps_entrypoint {
            let all = std::iter::once(program.clone()).chain(arguments);
            command.execute = Execute::Argv(all.collect());
        } else {
            image.entrypoint = Some(program.clone());
            command.execute = Execute::Argv(arguments.skip(1).collect());
        }
    }
    image
        .check()
        .map_err(|why| Refused::invalid(format!("{field}: image"), why))?;
    command.image = Some(image);
    Ok(command)
}

/// Reads a file to fetch. v1 has no field for a digest: `#sha256=` and the digits at the end of the URI
/// says it, as package tools of other systems have it.
fn uri(from: &pb::command_info::Uri) -> FetchUri {
    let value = from.value.trim();
    let with_digest = value.rsplit_once("#sha256=");
    let with_digest = with_digest.and_then(|(value, digits)| Some((value, digits.parse().ok()?)));
    let (value, digest) = match with_digest {
        Some((value, digest)) => (value, Some(digest)),
        None => (value, None),
    };
    FetchUri {
        value: value.to_owned(),
        digest,
        executable: from.executable(),
        extract: from.extract(),
        cache: from.cache(),
        output_file: from.output_file.clone().filter(|name| !name.is_empty()),
    }
}

/// The id of an executor.
pub(crate) fn executor_id(field: &str, from: &pb::ExecutorId) -> Result<ExecutorId, Refused> {
    ExecutorId::new(&from.value).map_err(|error| Refused::invalid(field, error))
}

fn executor(from: &pb::ExecutorInfo) -> Result<ExecutorDescription, Refused> {
    let is_default = from.r#type() == pb::executor_info::Type::Default;
    absent(
        is_default,
        "executor.type",
        "the default executor runs task groups: use LAUNCH_GROUP instead of LAUNCH",
    )?;
    let image = container("executor.container", from.container.as_ref())?;
    let no_command = || Refused::invalid("executor.command", "it is missing");
    let from_command = from.command.as_ref().ok_or_else(no_command)?;
    let command = command_in("executor.command", from_command, image)?;
    described_executor(from, Some(command))
}

/// A group of tasks under the default executor (semantics D2, M7).
///
/// # Errors
/// What cannot be done of it, and whose it is, if that of one task.
pub fn group(
    from: &pb::offer::operation::LaunchGroup,
    ids: Ids,
) -> Result<TaskGroup, (Option<pb::TaskId>, Refused)> {
    let of_all = |refused| (None, refused);
    let executor = default_executor(&from.executor).map_err(of_all)?;
    let tasks = from.task_group.tasks.iter().map(|info| {
        let of_it = |refused| (Some(info.task_id.clone()), refused);
        absent(
            info.executor.is_some(),
            "executor",
            "a task of a group runs under the executor of its group: leave it out",
        )
        .map_err(of_it)?;
        task(info, ids).map_err(of_it)
    });
    let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
    Ok(TaskGroup { executor, tasks })
}

fn default_executor(from: &pb::ExecutorInfo) -> Result<ExecutorDescription, Refused> {
    let is_default = from.r#type() == pb::executor_info::Type::Default;
    absent(
        !is_default,
        "executor.type",
        "a group runs under the default executor: give the type DEFAULT, or LAUNCH the tasks one by one in \
         an executor of your own",
    )?;
    if from.command.is_some() {
        let why = "the default executor has none: leave it out";
        return Err(Refused::invalid("executor.command", why));
    }
    let image = container("executor.container", from.container.as_ref())?;
    absent(
        image.is_some(),
        "executor.container",
        "the default executor is no process: give each task its image",
    )?;
    described_executor(from, None)
}

fn described_executor(
    from: &pb::ExecutorInfo,
    command: Option<Command>,
) -> Result<ExecutorDescription, Refused> {
    Ok(ExecutorDescription {
        executor_id: executor_id("executor.executor_id", &from.executor_id)?,
        framework_id: None,
        name: from.name().to_owned(),
        command,
        resources: from_v1("executor.resources", &from.resources)?,
        labels: labels_from_v1("executor.labels", from.labels.as_ref())?,
        shutdown_grace: from
            .shutdown_grace_period
            .as_ref()
            .and_then(|it| u64::try_from(it.nanoseconds).ok())
            .map(Duration::from_nanos),
        data: from.data.clone().unwrap_or_default(),
    })
}

/// The image of a container of either kind; Docker itself runs neither.
fn image(field: &str, from: &pb::ContainerInfo) -> Result<Option<InImage>, Refused> {
    use pb::container_info::docker_info::Network;
    use pb::image::Type;
    let path = |name: &str| format!("{field}.{name}");
    let missing = |name: &str| Refused::invalid(path(name), "it is missing");
    let from_mesos = from.mesos.as_ref().and_then(|it| it.image.as_ref());
    if from.r#type() == pb::container_info::Type::Docker {
        let docker = from.docker.as_ref().ok_or_else(|| missing("docker"))?;
        absent(
            docker.network() != Network::Host,
            &path("docker.network"),
            "tasks use the slave's own network: HOST",
        )?;
        absent(
            docker.privileged(),
            &path("docker.privileged"),
            "the slave's configuration decides about capabilities",
        )?;
        absent(
            !docker.parameters.is_empty(),
            &path("docker.parameters"),
            "they are for the program `docker`, which does not run here",
        )?;
        return Ok(Some(InImage {
            image: Image::new(&docker.image),
            keeps_entrypoint: true,
        }));
    }
    absent(
        from.docker.is_some(),
        &path("docker"),
        "it goes with the type DOCKER",
    )?;
    let Some(image) = from_mesos else {
        return Ok(None);
    };
    absent(
        image.r#type() == Type::Appc,
        &path("mesos.image.appc"),
        "images are those of Docker and of the OCI",
    )?;
    let docker = image.docker.as_ref();
    let docker = docker.ok_or_else(|| missing("mesos.image.docker"))?;
    Ok(Some(InImage {
        image: Image::new(&docker.name),
        keeps_entrypoint: false,
    }))
}

/// A container that asks for nothing else than what every task has, and perhaps an image.
fn container(field: &str, from: Option<&pb::ContainerInfo>) -> Result<Option<InImage>, Refused> {
    let Some(from) = from else { return Ok(None) };
    let path = |name: &str| format!("{field}.{name}");
    let image = image(field, from)?;
    absent(
        !from.volumes.is_empty(),
        &path("volumes"),
        "use the slave's own paths, or a persistent volume among the resources",
    )?;
    absent(
        from.network_infos
            .iter()
            .any(|it| it.name.is_some() || !it.port_mappings.is_empty()),
        &path("network_infos"),
        "tasks use the slave's own network",
    )?;
    absent(
        from.hostname.as_ref().is_some_and(|name| !name.is_empty()),
        &path("hostname"),
        "tasks have the slave's own name",
    )?;
    absent(
        from.linux_info.is_some(),
        &path("linux_info"),
        "the slave's configuration decides about namespaces and capabilities",
    )?;
    absent(
        from.rlimit_info.is_some(),
        &path("rlimit_info"),
        "set limits in the command, with ulimit",
    )?;
    absent(
        from.tty_info.is_some(),
        &path("tty_info"),
        "tasks have no terminal",
    )?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{ClusterId, SlaveId};

    use super::*;
    use crate::encoding::{Media, decode};

    fn read(json: &str) -> Result<TaskDescription, String> {
        let ids = Ids::new(ClusterId(7));
        let agent = ids.slave(SlaveId(2)).value;
        let json = json.replace("AGENT", &agent);
        let info: pb::TaskInfo = decode(Media::Json, json.as_bytes()).expect("well formed");
        task(&info, ids).map_err(|refused| refused.to_string())
    }

    const HEAD: &str = r#""name":"n","task_id":{"value":"t"},"agent_id":{"value":"AGENT"}"#;

    #[test]
    fn a_command_task_is_read_with_all_that_meros_can_do() {
        let json = format!(
            r#"{{{HEAD},"slave_id":{{"value":"x"}},"unknown":[1],
            "resources":[{{"name":"cpus","type":"SCALAR","scalar":{{"value":"0.5"}}}},
                         {{"name":"gpus","type":"SCALAR","scalar":{{"value":0.0}}}}],
            "command":{{"value":"exit 3","shell":"true","user":"","environment":
              {{"variables":[{{"name":"A","value":"1"}}]}}}},
            "container":{{"type":"MESOS","mesos":null}},
            "kill_policy":{{"grace_period":{{"nanoseconds":5000000000}}}},
            "limits":{{"cpus":{{"value":"Infinity"}},"mem":{{"value":64}}}},
            "labels":{{"labels":[{{"key":"k"}}]}},"data":"aGk="}}"#
        );
        let task = read(&json).expect("all of it can be done");
        assert_eq!(task.slave_id, SlaveId(2));
        assert_eq!(task.resources, "cpus:0.5".parse().expect("well formed"));
        let command = task.command.expect("given");
        assert_eq!(command, Command::shell("exit 3").env("A", "1"));
        assert_eq!(task.kill_grace, Some(Duration::from_secs(5)));
        assert_eq!(
            (task.limits.cpus, task.limits.mem),
            (None, Some(Scalar::whole(64)))
        );
        assert_eq!(task.data.as_ref(), b"hi");
    }

    #[test]
    fn a_program_has_its_arguments_after_its_name() {
        let json = format!(
            r#"{{{HEAD},"command":{{"shell":false,"value":"/bin/echo","arguments":["echo","a"]}}}}"#
        );
        let command = read(&json).expect("fine").command.expect("given");
        assert_eq!(command, Command::argv(["/bin/echo", "a"]));
    }

    #[test]
    fn an_image_runs_what_docker_or_mesos_would_run_in_it() {
        let docker = r#"{"type":"DOCKER","docker":{"image":"a:1","force_pull_image":true}}"#;
        let mesos =
            r#"{"type":"MESOS","mesos":{"image":{"type":"DOCKER","docker":{"name":"a:1"}}}}"#;
        let image = Image::new("a:1");
        let program = r#"{"shell":false,"value":"p","arguments":["x","y"]}"#;
        let arguments = r#"{"shell":false,"arguments":["x"]}"#;
        let nothing = r#"{"shell":false}"#;
        let line = r#"{"value":"l"}"#;
        let of_docker = Command::argv(["p", "x", "y"]).image(image.clone());
        let of_mesos = Command::argv(["y"]).image(image.clone().entrypoint("p"));
        for (container, command, expected) in [
            (docker, program, of_docker),
            (mesos, program, of_mesos),
            (docker, arguments, Command::argv(["x"]).image(image.clone())),
            (mesos, arguments, Command::argv(["x"]).image(image.clone())),
            (
                mesos,
                nothing,
                Command::argv::<String>([]).image(image.clone()),
            ),
            (docker, line, Command::shell("l").image(image)),
        ] {
            let json = format!(r#"{{{HEAD},"container":{container},"command":{command}}}"#);
            assert_eq!(read(&json).expect("fine").command, Some(expected), "{json}");
        }
        let executor = r#""executor":{"executor_id":{"value":"e"},"command":{"value":"x"}}"#;
        let why = read(&format!(r#"{{{HEAD},"container":{docker},{executor}}}"#));
        assert!(
            why.expect_err("two places")
                .starts_with("container is not supported")
        );
        let bad = docker.replace("a:1", "A B");
        let why = read(&format!(r#"{{{HEAD},"container":{bad},"command":{line}}}"#));
        assert!(
            why.expect_err("no image")
                .starts_with("command: image is not valid")
        );
    }

    #[test]
    fn checks_are_read_with_the_defaults_of_m8() {
        let json = format!(
            r#"{{{HEAD},"command":{{"value":"x"}},
            "health_check":{{"http":{{"port":80,"scheme":"https","path":"/h"}},"interval_seconds":2.5}},
            "check":{{"type":"COMMAND","command":{{"command":{{"value":"true"}}}},"timeout_seconds":0}}}}"#
        );
        let task = read(&json).expect("fine");
        let interval = Duration::from_millis(2_500);
        let health = Check::https(80, "/h").interval(interval);
        assert_eq!(task.health_check, Some(HealthCheck::new(health)));
        let check = Check::shell("true").timeout(CHECK_TIMEOUT_MAX);
        assert_eq!(task.check, Some(check));
        for (rest, why) in [
            (
                r#""check":{"tcp":{"port":1}}"#,
                "check.type is not valid: it is missing",
            ),
            (
                r#""check":{"type":"TCP","tcp":{"port":65536}}"#,
                "check.tcp.port is not valid: a port is 1 to 65535",
            ),
            (
                r#""health_check":{"type":"TCP"}"#,
                "health_check.tcp is not valid: it is missing",
            ),
            (
                r#""health_check":{"type":"HTTP","http":{"port":1,"scheme":"ftp"}}"#,
                "health_check.http.scheme is not valid: it is http or https",
            ),
        ] {
            assert_eq!(read(&format!("{{{HEAD},{rest}}}")).expect_err(rest), why);
        }
        let json =
            format!(r#"{{{HEAD},"check":{{"type":"TCP","tcp":{{"port":1}},"delay_seconds":-1}}}}"#);
        let why = read(&json).expect_err("negative");
        assert!(why.starts_with("check.delay_seconds is not valid"), "{why}");
    }

    #[test]
    fn files_to_fetch_are_read_with_the_defaults_of_v1() {
        let digest = "ab".repeat(32);
        let json = format!(
            r#"{{{HEAD},"command":{{"value":"x","uris":[
            {{"value":"http://h/a.tgz#sha256={digest}","cache":true}},
            {{"value":"file:///b","executable":true,"extract":false,"output_file":"c/d"}}]}}}}"#
        );
        let command = read(&json).expect("fine").command.expect("given");
        let archive = FetchUri::new("http://h/a.tgz").extract().cache();
        let expected = [
            archive.digest(digest.parse().expect("a digest")),
            FetchUri::new("file:///b").executable().output_file("c/d"),
        ];
        assert_eq!(command.uris, expected);
        for bad in ["hdfs://h/a", "http://h", "a"] {
            let json =
                format!(r#"{{{HEAD},"command":{{"value":"x","uris":[{{"value":"{bad}"}}]}}}}"#);
            let why = read(&json).expect_err(bad);
            assert!(why.starts_with("command.uris is not valid"), "{why}");
        }
    }

    #[test]
    fn what_meros_cannot_do_is_named() {
        for (rest, field) in [
            (
                r#""health_check":{"type":"HTTP","http":{"port":1,"statuses":[500]}}"#,
                "health_check.http.statuses",
            ),
            (
                r#""container":{"type":"DOCKER","docker":{"image":"a","network":"BRIDGE"}}"#,
                "container.docker.network",
            ),
            (
                r#""container":{"type":"DOCKER","docker":{"image":"a","privileged":true}}"#,
                "container.docker.privileged",
            ),
            (
                r#""container":{"type":"DOCKER","docker":{"image":"a","parameters":[{"key":"k","value":"v"}]}}"#,
                "container.docker.parameters",
            ),
            (
                r#""container":{"type":"MESOS","docker":{"image":"a"}}"#,
                "container.docker",
            ),
            (
                r#""container":{"type":"MESOS","mesos":{"image":{"type":"APPC"}}}"#,
                "container.mesos.image.appc",
            ),
            (
                r#""container":{"type":"MESOS","volumes":[{"container_path":"a","mode":"RW"}]}"#,
                "container.volumes",
            ),
            (r#""limits":{"mem":{"value":"Infinity"}}"#, "limits.mem"),
            (
                r#""executor":{"executor_id":{"value":"e"},"type":"DEFAULT"}"#,
                "executor.type",
            ),
        ] {
            let why = read(&format!("{{{HEAD},{rest}}}")).expect_err(rest);
            assert!(
                why.starts_with(&format!("{field} is not supported")),
                "{why}"
            );
        }
        let why = read(&format!(r#"{{{HEAD},"command":{{}}}}"#)).expect_err("nothing to run");
        assert_eq!(why, "command.value is not valid: it is missing");
    }
}
