//! The rules for what peers send: descriptions of slaves, frameworks and tasks.
//!
//! Every check names the field and the rule, so that the answer tells what to do. Decoding has
//! checked ids, roles, labels and resources by themselves already.

use std::ops::RangeInclusive;
use std::time::Duration;

use meros_proto::check::{
    CHECK_COMMAND_BYTES_MAX, CHECK_INTERVAL_MIN, CHECK_PATH_BYTES_MAX, CHECK_PERIOD_MAX,
    CHECK_TIMEOUT_MAX, CHECK_TIMEOUT_MIN, Check, Probe,
};
use meros_proto::executor::{EXECUTOR_DATA_BYTES_MAX, ExecutorDescription};
use meros_proto::fetch::check_uris;
use meros_proto::framework::{FAILOVER_TIMEOUT_MAX, FRAMEWORK_ROLES_MAX, FrameworkDescription};
use meros_proto::ids::SlaveId;
use meros_proto::labels::Labels;
use meros_proto::refusal::Refusal;
use meros_proto::resources::{ResourceName, Resources};
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveCapability, SlaveDescription};
use meros_proto::task::{
    COMMAND_BYTES_MAX, Command, Execute, TASK_DATA_BYTES_MAX, TaskDescription,
};

/// The longest name, host name, address, version or user, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 1_024;
/// The longest address of a user interface, in bytes.
pub(crate) const URL_BYTES_MAX: usize = 4_096;
/// The most bytes of labels on one task or framework: they are kept for as long as it lives.
pub(crate) const LABELS_BYTES_MAX: usize = 64 * 1_024;
/// How the name begins under which a slave keeps the sandbox and the output of an executor, among those of
/// tasks.
const EXECUTOR_PLACE_PREFIX: &str = "executor:";
/// The most capabilities in one description.
pub(crate) const CAPABILITIES_MAX: usize = 64;

fn invalid(field: &str, why: impl Into<String>) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why: why.into(),
    }
}

fn check_length(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() > max {
        return Err(invalid(
            field,
            format!("it has {} bytes; at most {max} are allowed", text.len()),
        ));
    }
    Ok(())
}

fn check_labels(field: &str, labels: &Labels) -> Result<(), Refusal> {
    let bytes: usize = labels
        .iter()
        .map(|label| label.key().len() + label.value().map_or(0, str::len))
        .sum();
    if bytes > LABELS_BYTES_MAX {
        return Err(invalid(
            field,
            format!("they have {bytes} bytes; at most {LABELS_BYTES_MAX} are allowed"),
        ));
    }
    Ok(())
}

/// Checks what a slave says of itself.
pub(crate) fn check_slave(slave: &SlaveDescription) -> Result<(), Refusal> {
    if slave.hostname.is_empty() {
        return Err(invalid(
            "hostname",
            "it is empty; tasks and people reach the machine by it",
        ));
    }
    check_length("hostname", &slave.hostname, TEXT_BYTES_MAX)?;
    check_length("http_address", &slave.http_address, TEXT_BYTES_MAX)?;
    check_length("version", &slave.version, TEXT_BYTES_MAX)?;
    if slave.capabilities.len() > CAPABILITIES_MAX {
        return Err(invalid(
            "capabilities",
            format!("at most {CAPABILITIES_MAX} are allowed"),
        ));
    }
    if let Some(resource) = slave
        .resources
        .iter()
        .find(|it| it.is_revocable() || it.is_shared() || it.is_claim())
    {
        let why = format!(
            "`{}` is revocable, reserved dynamically, or a volume, which a slave cannot declare",
            resource.name()
        );
        return Err(invalid("resources", why));
    }
    Ok(())
}

/// Checks what a framework says of itself (semantics B1) against the name in its certificate.
pub(crate) fn check_framework(
    framework: &FrameworkDescription,
    suppressed_roles: &[RoleName],
    principal: &str,
) -> Result<(), Refusal> {
    if framework.name.is_empty() {
        return Err(invalid(
            "name",
            "it is empty; give the framework a name for people",
        ));
    }
    check_length("name", &framework.name, TEXT_BYTES_MAX)?;
    check_length("webui_url", &framework.webui_url, URL_BYTES_MAX)?;
    check_length(
        "user",
        framework.user.as_deref().unwrap_or_default(),
        TEXT_BYTES_MAX,
    )?;
    check_labels("labels", &framework.labels)?;
    if framework
        .principal
        .as_ref()
        .is_some_and(|claimed| claimed != principal)
    {
        let why = format!("it is not the name in the certificate, {principal:?}; leave it out");
        return Err(invalid("principal", why));
    }
    if framework.capabilities.len() > CAPABILITIES_MAX {
        return Err(invalid(
            "capabilities",
            format!("at most {CAPABILITIES_MAX} are allowed"),
        ));
    }
    if framework.failover_timeout > FAILOVER_TIMEOUT_MAX {
        let days = FAILOVER_TIMEOUT_MAX.as_secs() / (24 * 60 * 60);
        return Err(invalid(
            "failover_timeout",
            format!("at most {days} days are allowed"),
        ));
    }
    if framework.roles.is_empty() || framework.roles.len() > FRAMEWORK_ROLES_MAX {
        let why = format!(
            "{} were given; 1 to {FRAMEWORK_ROLES_MAX} are allowed",
            framework.roles.len()
        );
        return Err(invalid("roles", why));
    }
    let mut sorted: Vec<&RoleName> = framework.roles.iter().collect();
    sorted.sort_unstable();
    if let Some(twin) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(invalid("roles", format!("`{}` is given twice", twin[0])));
    }
    check_roles("suppressed_roles", suppressed_roles, framework)
}

/// Checks that a framework speaks of its own roles only.
pub(crate) fn check_roles(
    field: &str,
    roles: &[RoleName],
    framework: &FrameworkDescription,
) -> Result<(), Refusal> {
    if roles.len() > FRAMEWORK_ROLES_MAX {
        return Err(invalid(
            field,
            format!("at most {FRAMEWORK_ROLES_MAX} are allowed"),
        ));
    }
    match roles.iter().find(|role| !framework.roles.contains(role)) {
        Some(role) => Err(invalid(
            field,
            format!("`{role}` is not one of the framework's roles"),
        )),
        None => Ok(()),
    }
}

/// Checks a task against the rules of semantics D1, D8 and D9, for the slave of its offers.
pub(crate) fn check_task(
    task: &TaskDescription,
    slave_id: SlaveId,
    slave: &SlaveDescription,
) -> Result<(), Refusal> {
    check_length("name", &task.name, TEXT_BYTES_MAX)?;
    if task.task_id.as_str().starts_with(EXECUTOR_PLACE_PREFIX) {
        let why = format!(
            "it begins with `{EXECUTOR_PLACE_PREFIX}`, under which slaves keep what executors leave; \
             choose another id"
        );
        return Err(invalid("task_id", why));
    }
    if task.slave_id != slave_id {
        return Err(invalid(
            "slave_id",
            format!("it is {}, but the offers are of {slave_id}", task.slave_id),
        ));
    }
    check_runnable(task, slave)?;
    check_task_resources(task)?;
    check_checks(task)?;
    check_labels("labels", &task.labels)?;
    if task.data.len() > TASK_DATA_BYTES_MAX {
        let why = format!(
            "it has {} bytes; at most {TASK_DATA_BYTES_MAX} are allowed",
            task.data.len()
        );
        return Err(invalid("data", why));
    }
    Ok(())
}

fn check_runnable(task: &TaskDescription, slave: &SlaveDescription) -> Result<(), Refusal> {
    match (&task.command, &task.executor) {
        (Some(command), None) => check_command("command", command),
        (None, Some(executor)) => {
            if !slave
                .capabilities
                .contains(&SlaveCapability::CustomExecutors)
            {
                return Err(invalid(
                    "executor",
                    "its slave runs no executors of frameworks; give a command",
                ));
            }
            check_executor_texts(executor)?;
            let none =
                "there is none: what a group runs under runs no task by itself, launch a group";
            let command = executor.command.as_ref();
            check_command(
                "executor.command",
                command.ok_or_else(|| invalid("executor.command", none))?,
            )
        }
        (Some(_), Some(_)) => Err(invalid(
            "command",
            "there is an executor as well; give exactly one of them",
        )),
        (None, None) => Err(invalid(
            "command",
            "there is no executor either; give exactly one of them",
        )),
    }
}

fn check_executor_texts(executor: &ExecutorDescription) -> Result<(), Refusal> {
    check_length("executor.name", &executor.name, TEXT_BYTES_MAX)?;
    check_labels("executor.labels", &executor.labels)?;
    if executor.data.len() > EXECUTOR_DATA_BYTES_MAX {
        let why = format!(
            "it has {} bytes; at most {EXECUTOR_DATA_BYTES_MAX} are allowed: let it fetch a file",
            executor.data.len()
        );
        return Err(invalid("executor.data", why));
    }
    Ok(())
}

/// Checks what the tasks of a group are to run under.
pub(crate) fn check_group_executor(executor: &ExecutorDescription) -> Result<(), Refusal> {
    if !executor.is_group() {
        let why = "a group runs under no program: leave the command out, or launch the tasks one by one in \
                   this executor";
        return Err(invalid("executor.command", why));
    }
    check_executor_texts(executor)?;
    if (executor.resources.iter()).any(|it| it.volume().is_some() || it.is_revocable()) {
        let why = "a volume or revocable resources belong to a task of the group, not to itself";
        return Err(invalid("executor.resources", why));
    }
    if !executor.resources.scalar(&ResourceName::GPUS).is_whole() {
        let why = "`gpus` cannot be divided; take a whole number";
        return Err(invalid("executor.resources", why));
    }
    Ok(())
}

fn check_command(field: &str, command: &Command) -> Result<(), Refusal> {
    let bytes = command.bytes();
    if bytes > COMMAND_BYTES_MAX {
        let why = format!(
            "arguments and environment have {bytes} bytes; at most {COMMAND_BYTES_MAX} are allowed"
        );
        return Err(invalid(field, why));
    }
    check_uris(&command.uris).map_err(|why| invalid("uris", why))?;
    check_length(
        "user",
        command.user.as_deref().unwrap_or_default(),
        TEXT_BYTES_MAX,
    )?;
    let words = match &command.execute {
        Execute::Shell(line) => std::slice::from_ref(line),
        Execute::Argv(argv) => argv.as_slice(),
    };
    if let Some(image) = &command.image {
        image.check().map_err(|why| invalid("image", why))?;
    }
    // An image may know itself what to run.
    let is_for_image = command.image.is_some() && words.is_empty();
    if words.first().is_none_or(String::is_empty) && !is_for_image {
        return Err(invalid(field, "it names no program"));
    }
    if words
        .iter()
        .chain(command.environment.values())
        .any(|text| text.contains('\0'))
    {
        return Err(invalid(field, "a NUL byte cannot be passed to a program"));
    }
    let bad_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = command.environment.keys().find(bad_name) {
        let why = format!(
            "{name:?} cannot be the name of a variable: it is empty or has '=' or NUL in it"
        );
        return Err(invalid("environment", why));
    }
    Ok(())
}

fn check_task_resources(task: &TaskDescription) -> Result<(), Refusal> {
    if task.resources.is_empty() {
        return Err(invalid(
            "resources",
            "there are none; a task takes at least something",
        ));
    }
    let executor = task.executor.as_ref().map(|executor| &executor.resources);
    let both = std::iter::once(&task.resources).chain(executor);
    Resources::check_revocable_mix(both.clone())
        .map_err(|mix| invalid("resources", mix.to_string()))?;
    if let Some(executor) = executor {
        task.resources
            .checked_add(executor)
            .map_err(|sum| invalid("resources", sum.to_string()))?;
        // They would be looked for in a sandbox that was made for other tasks.
        if both.clone().flatten().any(|it| it.volume().is_some()) {
            let why = "a volume is put into the sandbox of a task with a command only, and this one \
                       has an executor";
            return Err(invalid("resources", why));
        }
    }
    task.resources
        .check_volume_paths()
        .map_err(|clash| invalid("resources", clash.to_string()))?;
    for resources in both {
        if !resources.scalar(&ResourceName::GPUS).is_whole() {
            return Err(invalid(
                "resources",
                "`gpus` cannot be divided; take a whole number",
            ));
        }
    }
    let mem = task.resources.scalar(&ResourceName::MEM);
    if task.limits.mem.is_some_and(|limit| limit < mem) {
        return Err(invalid(
            "limits.mem",
            format!("it is below the {mem} MiB of its resources"),
        ));
    }
    let cpus = task.resources.scalar(&ResourceName::CPUS);
    if task
        .limits
        .cpus
        .is_some_and(|limit| limit < cpus || limit.is_zero())
    {
        return Err(invalid(
            "limits.cpus",
            format!("it is below the {cpus} of its resources"),
        ));
    }
    Ok(())
}

/// Checks what a task is checked by (semantics M8).
fn check_checks(task: &TaskDescription) -> Result<(), Refusal> {
    if let Some(health) = &task.health_check {
        check_check("health_check", &health.check)?;
        check_range(
            "health_check.grace_period",
            health.grace_period,
            Duration::ZERO..=CHECK_PERIOD_MAX,
        )?;
        if health.consecutive_failures == 0 {
            let why = "it is 0; give at least 1, or a `check`, which kills nothing";
            return Err(invalid("health_check.consecutive_failures", why));
        }
    }
    match &task.check {
        Some(check) => check_check("check", check),
        None => Ok(()),
    }
}

fn check_check(field: &str, check: &Check) -> Result<(), Refusal> {
    let times = [
        ("delay", check.delay, Duration::ZERO, CHECK_PERIOD_MAX),
        (
            "interval",
            check.interval,
            CHECK_INTERVAL_MIN,
            CHECK_PERIOD_MAX,
        ),
        (
            "timeout",
            check.timeout,
            CHECK_TIMEOUT_MIN,
            CHECK_TIMEOUT_MAX,
        ),
    ];
    for (name, time, least, most) in times {
        check_range(&format!("{field}.{name}"), time, least..=most)?;
    }
    let check_path = |name: &str, path: &str| {
        let field = format!("{field}.{name}");
        check_length(&field, path, CHECK_PATH_BYTES_MAX)?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = "it has a blank, a control character or one beyond ASCII; write it as %XX";
            return Err(invalid(&field, why));
        }
        Ok(())
    };
    let port = match &check.probe {
        Probe::Command(command) => {
            let field = format!("{field}.command");
            check_command(&field, command)?;
            if command.image.is_some() {
                let why = "it has an image, and runs where its task does";
                return Err(invalid(&field, why));
            }
            let bytes = command.bytes();
            if bytes > CHECK_COMMAND_BYTES_MAX {
                let why = format!(
                    "arguments and environment have {bytes} bytes; at most {CHECK_COMMAND_BYTES_MAX} are allowed"
                );
                return Err(invalid(&field, why));
            }
            if command.user.is_some() {
                let why = "a check runs as the user of its task; leave it out";
                return Err(invalid(&format!("{field}.user"), why));
            }
            return Ok(());
        }
        Probe::Http(http) => {
            check_path("path", &http.path)?;
            if !http.path.starts_with('/') {
                return Err(invalid(
                    &format!("{field}.path"),
                    "it does not begin with /",
                ));
            }
            http.port
        }
        Probe::Tcp { port } => *port,
        Probe::Grpc { port, service } => {
            check_path("service", service)?;
            *port
        }
    };
    match port {
        0 => Err(invalid(
            &format!("{field}.port"),
            "it is 0; give 1 to 65535",
        )),
        _ => Ok(()),
    }
}

fn check_range(
    field: &str,
    time: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), Refusal> {
    if range.contains(&time) {
        return Ok(());
    }
    let why = format!(
        "it is {time:?}; {:?} to {:?} are allowed",
        range.start(),
        range.end()
    );
    Err(invalid(field, why))
}
