//! `meros run -- COMMAND`: a one-off framework. Launches tasks, shows their output while they
//! run, kills them on Ctrl-C, and returns their exit code.

mod output;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meros_proto::fetch::{FetchUri, ParseDigestError};
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::image::Image;
use meros_proto::offer::{Filters, Offer};
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;
use meros_proto::status::{TaskExit, TaskState, TaskStatus};
use meros_proto::task::Command;
use meros_sdk::{
    Check, Constraint, EndReason, Events, Group, Handle, News, OfferWishes, Session, SessionConfig,
    Steps, Subject, Task, TaskLimits,
};

use crate::client::{Client, ClusterArgs, IdentityArgs};
use crate::exit::{CliError, Exit, chain};
use crate::output::table::printable;
use crate::run::output::{Outputs, Place};
use crate::signal::Stop;

/// How long the tasks live on when this process cannot reach a master, or is gone.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a declined offer stays away. An offer with more in it comes at once all the same.
const REFUSE: Duration = Duration::from_secs(60);
/// Attempts to reach a master before giving up, when none was ever reached.
const ATTEMPTS_MAX: u32 = 4;
/// The most instances; more belong to a framework of their own.
const INSTANCES_MAX: u32 = 10_000;
/// When there is no room after this long, say so once.
const PATIENCE: Duration = Duration::from_secs(2);
/// The code of `timeout(1)` for a time-out.
const TIMED_OUT: u8 = 124;
/// The code of a shell for a program that SIGPIPE ended: nobody reads the output any more.
const READER_LEFT: u8 = 141;

/// What `meros run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Cores for each instance: a share under contention
    #[arg(long, allow_negative_numbers = true, default_value = "0.1")]
    cpus: Scalar,
    /// The most cores each instance may use, if there is to be a limit
    #[arg(long, allow_negative_numbers = true)]
    cpus_limit: Option<Scalar>,
    /// Memory for each instance in MiB: it is ended when it uses more
    #[arg(long, allow_negative_numbers = true, default_value = "64")]
    mem: Scalar,
    /// Disk for each instance in MiB
    #[arg(long, allow_negative_numbers = true, default_value = "0")]
    disk: Scalar,
    /// Ports for each instance, from its slave's; in MEROS_PORTS and PORT0, PORT1, …
    #[arg(long, default_value_t = 0)]
    ports: u64,
    /// How many to run at the same time
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(INSTANCES_MAX)))]
    instances: u32,
    /// A name for people and for the task ids [default: the command's]
    #[arg(long)]
    name: Option<String>,
    /// A variable for the environment; can be given again
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    env: Vec<(String, String)>,
    /// The role whose resources to use
    #[arg(long, default_value = "*")]
    role: RoleName,
    /// A line for /bin/sh to run beside each instance, on the same slave with the same resources: both start or
    /// none, if one fails the other is killed, and it ends with the instance. Can be given again
    #[arg(long = "with", value_name = "COMMAND")]
    beside: Vec<String>,
    /// Run on slaves of which this attribute matches all of this pattern; `hostname`, `region` and
    /// `zone` can be asked for as well. Can be given again: all must hold
    #[arg(long = "where", value_name = "NAME=PATTERN", value_parser = parse_where)]
    constraints: Vec<Constraint>,
    /// The user to run as [default: the slave's]
    #[arg(long)]
    user: Option<String>,
    /// A file that is in the sandbox before it starts: `http:`, `https:` or `file:`, and behind commas
    /// `extract`, `executable`, `cache`, `name=FILE`, `sha256=DIGITS`. Can be given again
    #[arg(long, value_name = "URI[,HOW…]", value_parser = parse_fetch)]
    fetch: Vec<FetchUri>,
    /// Run in the file tree of this image, with its entrypoint, variables, directory and user, such as
    /// alpine:3.20, registry:5000/app@sha256:… or oci:/srv/images/app; the command is what its entrypoint is
    /// given. Needs slaves that run as root
    #[arg(long, value_name = "REFERENCE", value_parser = parse_image)]
    image: Option<Image>,
    /// Run this program of the image in place of its entrypoint
    #[arg(long, value_name = "PROGRAM", requires = "image")]
    entrypoint: Option<String>,
    /// End everything after so long, such as 30s
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Kill an instance when this line for /bin/sh, run beside it, fails three times in a row
    #[arg(long, value_name = "COMMAND", group = "health")]
    health_cmd: Option<String>,
    /// Kill an instance when it takes no connection at this port three times in a row; 0 is PORT0
    #[arg(long, value_name = "PORT", group = "health")]
    health_tcp: Option<u16>,
    /// Kill an instance when GET of this path at this port is not answered with 200 to 399 three times in a
    /// row; port 0 is PORT0
    #[arg(long, value_name = "PORT/PATH", group = "health", value_parser = parse_health_http)]
    health_http: Option<Check>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// The command and its arguments; none is what the image says
    #[arg(last = true, required_unless_present = "image")]
    command: Vec<String>,
}

pub(crate) fn parse_env(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name before = is empty".to_owned());
    }
    if name.contains(char::is_control) {
        return Err(format!("the name {name:?} has a control character"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_fetch(text: &str) -> Result<FetchUri, String> {
    let (mut uri, mut ways) = (text, Vec::new());
    // From the end: a comma may also be in the URI.
    while let Some((before, way)) = uri.rsplit_once(',') {
        let is_way = matches!(way, "extract" | "executable" | "cache")
            || way.starts_with("name=")
            || way.starts_with("sha256=");
        if !is_way {
            break;
        }
        ways.push(way);
        uri = before;
    }
    let mut fetch = FetchUri::new(uri);
    for way in ways {
        fetch = match way.split_once('=') {
            Some(("name", name)) => fetch.output_file(name),
            Some((_, digits)) => {
                let wrong = |error: ParseDigestError| format!("{way:?}: {error}");
                let digest = digits.parse().map_err(wrong)?;
                fetch.digest(digest)
            }
            None if way == "extract" => fetch.extract(),
            None if way == "cache" => fetch.cache(),
            None => fetch.executable(),
        };
    }
    fetch.check()?;
    Ok(fetch)
}

fn parse_image(text: &str) -> Result<Image, String> {
    let image = Image::new(text);
    image.check().map(|()| image)
}

fn parse_where(text: &str) -> Result<Constraint, String> {
    let (name, pattern) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("write NAME=PATTERN, such as rack=r[12]")?;
    let subject = match name {
        "hostname" => Subject::Hostname,
        "region" => Subject::Region,
        "zone" => Subject::Zone,
        _ => Subject::attribute(name),
    };
    Ok(subject.matches(pattern))
}

fn parse_health_http(text: &str) -> Result<Check, String> {
    let how = "write PORT/PATH, such as 8080/healthz";
    let (port, path) = text.split_once('/').ok_or(how)?;
    let port = port.parse().map_err(|_| how)?;
    Ok(Check::http(port, format!("/{path}")))
}

pub(crate) fn run(args: Args) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        let mut run = Run::new(args)?;
        run.until_done().await
    });
    // A thread may still wait for the output of a slave that is gone.
    runtime.shutdown_background();
    ended
}

/// One instance of the command.
#[derive(Debug)]
enum Instance {
    /// Waits for an offer.
    Waiting,
    /// Accepted for; nothing heard yet.
    Launched(Place),
    /// Its end: the code it gives us.
    Ended(u8),
}

struct Run {
    args: Args,
    name: String,
    instances: BTreeMap<TaskId, Instance>,
    /// Those that run beside another: which, and what.
    beside: BTreeMap<TaskId, (TaskId, String)>,
    framework_id: Option<FrameworkId>,
    /// The most that one offer had, to say why nothing fits.
    best_shortfall: Option<String>,
    outputs: Outputs,
    stopping: bool,
    /// Since when there has been no subscription.
    away_since: Instant,
}

impl Run {
    fn new(args: Args) -> Result<Self, CliError> {
        let name = match &args.name {
            Some(name) => name.clone(),
            None => default_name(&args.command, args.image.as_ref()),
        };
        let task_id = |id: String| {
            TaskId::new(id).map_err(|error| {
                CliError::usage(format!("--name {name:?} cannot name tasks: {error}"))
            })
        };
        let (mut instances, mut beside) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..args.instances {
            // Padded, so that the order of ids is that of numbers.
            let id = task_id(format!("{name}.{number:04}"))?;
            for (at, line) in args.beside.iter().enumerate() {
                let other = task_id(format!("{id}.with{}", at + 1))?;
                instances.insert(other.clone(), Instance::Waiting);
                beside.insert(other, (id.clone(), line.clone()));
            }
            instances.insert(id, Instance::Waiting);
        }
        let client = Client::new(&args.cluster);
        let count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        let outputs = Outputs::new(client, count);
        Ok(Self {
            args,
            name,
            instances,
            beside,
            framework_id: None,
            best_shortfall: None,
            outputs,
            stopping: false,
            away_since: Instant::now(),
        })
    }

    fn session(&self) -> Result<(Events, Handle), CliError> {
        let identity = self.args.identity.folder()?;
        let mut config = SessionConfig::new(
            format!("run {}", self.name),
            self.args.cluster.masters(),
            identity,
        );
        config.framework.roles = vec![self.args.role.clone()];
        config.framework.user.clone_from(&self.args.user);
        config.framework.failover_timeout = FAILOVER_TIMEOUT;
        if !self.args.constraints.is_empty() {
            let wishes = OfferWishes::for_role(self.args.role.clone());
            config.wishes = vec![wishes.group(self.args.constraints.iter().cloned())];
        }
        // A task that is run by hand may run on any slave, those with gpus too.
        config.framework.capabilities = vec![
            FrameworkCapability::PartitionAware,
            FrameworkCapability::GpuResources,
        ];
        Session::connect(config).map_err(|error| CliError::usage(chain(&error)))
    }

    async fn until_done(&mut self) -> Result<Exit, CliError> {
        let mut stop = Stop::listen()?;
        let (mut events, handle) = self.session()?;
        let patience = tokio::time::sleep(PATIENCE);
        let timeout = self.args.timeout;
        let timeout = async move {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(patience, timeout);
        let mut timed_out = false;
        let mut reader_left = false;
        while !self.is_done() {
            tokio::select! {
                news = events.next() => match news {
                    Some(news) => self.on_news(news, &handle)?,
                    None => return Err(CliError::unreachable("the session has ended")),
                },
                () = &mut patience => {
                    self.explain_waiting();
                    patience.as_mut().reset(tokio::time::Instant::now() + Duration::from_secs(3_600));
                }
                () = stop.next() => self.on_stop(&handle),
                () = self.outputs.reader_left(), if !reader_left => {
                    reader_left = true;
                    self.on_stop(&handle);
                }
                () = &mut timeout, if !timed_out => {
                    timed_out = true;
                    self.explain_waiting();
                    eprintln!("meros: the time is up; ending what runs");
                    self.on_stop(&handle);
                }
            }
        }
        self.outputs.finish().await;
        // What cannot be told to the master ends by the failover timeout.
        if handle.teardown().is_ok() {
            // The master closes the connection; its drain need not be waited for.
            while !matches!(events.next().await, None | Some(News::Ended(_))) {}
        }
        Ok(match (timed_out, reader_left) {
            (true, _) => Exit::Code(TIMED_OUT),
            (false, true) => Exit::Code(READER_LEFT),
            (false, false) => self.exit(),
        })
    }

    fn is_done(&self) -> bool {
        let ended = |one: &Instance| matches!(one, Instance::Ended(_));
        self.instances
            .values()
            .all(|one| ended(one) || (self.stopping && matches!(one, Instance::Waiting)))
    }

    /// The first code that is not zero; else zero.
    fn exit(&self) -> Exit {
        let codes = self.instances.values().map(|one| match one {
            Instance::Ended(code) => *code,
            // Stopped before it was launched: as a shell says for Ctrl-C.
            Instance::Waiting | Instance::Launched(_) => 130,
        });
        codes
            .into_iter()
            .find(|code| *code != 0)
            .map_or(Exit::Success, Exit::Code)
    }

    fn on_news(&mut self, news: News, handle: &Handle) -> Result<(), CliError> {
        match news {
            News::Subscribed { framework_id, .. } => {
                self.framework_id = Some(framework_id);
            }
            News::Offers(offers) => self.on_offers(&offers, handle),
            News::Update(status) => self.on_update(&status, handle),
            // It orders none.
            News::Operation(_) | News::ExecutorEnded { .. } | News::ExecutorMessage { .. } => {}
            News::Refused { call, refusal } => eprintln!("meros: {call} was refused: {refusal}"),
            News::ConnectFailed { why, attempts, .. } => {
                if self.framework_id.is_none() && attempts >= ATTEMPTS_MAX {
                    return Err(CliError::unreachable(format!(
                        "no master can be reached: {why}.\nStart a local datacenter with \
                         `meros dev`, or say where the masters are with --master or MEROS_MASTER."
                    )));
                }
                if self.framework_id.is_some() && self.away_since.elapsed() > FAILOVER_TIMEOUT {
                    return Err(CliError::unreachable(format!(
                        "no master could be reached for {FAILOVER_TIMEOUT:?}: {why}.\nWhat was \
                         launched has ended by now, or ends when a master is back."
                    )));
                }
                if attempts > 1 {
                    eprintln!("meros: no master can be reached: {why}; trying again");
                }
            }
            News::Disconnected { why } => {
                self.away_since = Instant::now();
                eprintln!("meros: the connection to the master broke ({why}); coming back");
            }
            News::SlaveLost(slave) => eprintln!("meros: slave {slave} is lost"),
            News::Rescinded(_) => {}
            News::Ended(reason) => return Err(ended(reason)),
        }
        Ok(())
    }

    fn on_offers(&mut self, offers: &[Offer], handle: &Handle) {
        for offer in offers {
            let mut steps = Steps::on(offer);
            let mut placed = Vec::new();
            let waiting = self.instances.iter().filter(|(id, one)| {
                matches!(one, Instance::Waiting) && !self.beside.contains_key(*id)
            });
            for (id, _) in waiting {
                if self.stopping {
                    break;
                }
                let others: Vec<&TaskId> = self.those_beside(id).collect();
                let fits = match others.as_slice() {
                    [] => steps.place(&self.task(id)),
                    others => steps.launch_group(&self.group(id, others)),
                };
                match fits {
                    Ok(()) => {
                        placed.push(id.clone());
                        placed.extend(others.into_iter().cloned());
                    }
                    Err(why) => {
                        self.best_shortfall.get_or_insert(why.to_string());
                        break;
                    }
                }
            }
            let filters = Filters { refuse: REFUSE };
            let ids = vec![offer.offer_id];
            let told = if placed.is_empty() {
                handle.decline(ids, filters)
            } else {
                handle.accept(ids, steps.into_operations(), filters)
            };
            if told.is_err() {
                // The offer was not taken up; it comes again after its timeout.
                continue;
            }
            for id in placed {
                let place = Place {
                    slave_id: offer.slave_id,
                    slave: offer.http_address.clone(),
                    framework_id: offer.framework_id,
                };
                self.instances.insert(id, Instance::Launched(place));
            }
        }
    }

    /// The tasks that run beside this instance.
    fn those_beside<'a>(&'a self, id: &'a TaskId) -> impl Iterator<Item = &'a TaskId> {
        let all = self.beside.iter();
        all.filter(move |(_, (of, _))| of == id).map(|it| it.0)
    }

    /// An instance with those that run beside it.
    fn group(&self, id: &TaskId, others: &[&TaskId]) -> Group {
        let group = Group::new(id.as_str()).task(self.task(id));
        others
            .iter()
            .fold(group, |group, other| group.task(self.task(other)))
    }

    fn task(&self, id: &TaskId) -> Task {
        let beside = self.beside.get(id);
        let mut command = match beside {
            Some((_, line)) => Command::shell(line),
            None => Command::argv(self.args.command.iter().cloned()),
        };
        command.environment = self.args.env.iter().cloned().collect();
        command.user.clone_from(&self.args.user);
        command.uris.clone_from(&self.args.fetch);
        command.image.clone_from(&self.args.image);
        if let (Some(image), Some(program)) = (&mut command.image, &self.args.entrypoint) {
            image.entrypoint = Some(program.clone());
        }
        let task = Task::new(id.as_str())
            .name(self.name.clone())
            .run(command)
            .resources(self.want())
            .limits(TaskLimits {
                cpus: self.args.cpus_limit,
                mem: None,
            })
            .ports(self.args.ports);
        match self.health_check().filter(|_| beside.is_none()) {
            Some(check) => task.health_check(check),
            None => task,
        }
    }

    fn health_check(&self) -> Option<Check> {
        let args = &self.args;
        let command = args.health_cmd.as_ref().map(Check::shell);
        let tcp = args.health_tcp.map(Check::tcp);
        args.health_http.clone().or(command).or(tcp)
    }

    fn want(&self) -> Resources {
        let amounts = [
            (ResourceName::CPUS, self.args.cpus),
            (ResourceName::MEM, self.args.mem),
            (ResourceName::DISK, self.args.disk),
        ];
        let amounts = amounts.into_iter().filter(|(_, amount)| !amount.is_zero());
        let mut want = Resources::new();
        for (name, amount) in amounts {
            let one = Resource::new(name, amount).expect("cpus, mem and disk are scalars");
            want = want
                .checked_add(&one.into())
                .expect("one entry for each name cannot overflow");
        }
        want
    }

    fn on_update(&mut self, status: &TaskStatus, handle: &Handle) {
        let of = self.beside.get(&status.task_id).map(|(of, _)| of);
        let of = of.and_then(|of| self.instances.get(of));
        // What ran beside it was ended then, and has said all that counts.
        let is_left = matches!(of, Some(Instance::Ended(_)));
        if status.state.is_terminal() {
            for other in self.those_beside(&status.task_id) {
                if matches!(self.instances[other], Instance::Launched(_)) {
                    let _ = handle.kill(other.clone(), None);
                }
            }
        }
        let Some(instance) = self.instances.get_mut(&status.task_id) else {
            return;
        };
        match instance {
            Instance::Launched(place) if status.state.is_terminal() => {
                if matches!(
                    status.state,
                    TaskState::Dropped | TaskState::Gone | TaskState::Lost
                ) {
                    let message = printable(&status.message);
                    eprintln!("meros: {} was lost: {message}", status.task_id);
                }
                if status.source != meros_proto::status::Source::Master {
                    self.outputs.follow(&status.task_id, place);
                }
                let code = if is_left { 0 } else { code_of(status) };
                if code != 0 && !self.stopping {
                    let message = printable(&status.message);
                    eprintln!(
                        "meros: {} ended: {} {message}",
                        status.task_id, status.state
                    );
                }
                *instance = Instance::Ended(code);
            }
            Instance::Launched(place) if status.state == TaskState::Running => {
                self.outputs.follow(&status.task_id, place);
                if status.healthy == Some(false) {
                    let message = printable(&status.message);
                    eprintln!("meros: {} is unhealthy: {message}", status.task_id);
                }
                if self.stopping {
                    // It was on its way when everything was told to end.
                    let _ = handle.kill(status.task_id.clone(), None);
                }
            }
            _ => {}
        }
    }

    fn on_stop(&mut self, handle: &Handle) {
        if self.stopping {
            eprintln!("meros: still waiting for tasks to end");
        }
        self.stopping = true;
        for (id, instance) in &self.instances {
            if matches!(instance, Instance::Launched(_)) && handle.kill(id.clone(), None).is_err() {
                eprintln!("meros: {id} could not be told to end; press Ctrl-C again");
            }
        }
    }

    fn explain_waiting(&mut self) {
        let waiting = self
            .instances
            .values()
            .filter(|one| matches!(one, Instance::Waiting))
            .count();
        if waiting > 0 {
            if self.framework_id.is_none() {
                eprintln!("meros: no master has answered yet: check --master and MEROS_MASTER");
                return;
            }
            let id = self
                .framework_id
                .map_or_else(String::new, |id| id.to_string());
            let why = self.best_shortfall.take().unwrap_or_else(|| {
                format!("no offer has come: `meros why framework {id}` tells why")
            });
            eprintln!(
                "meros: {waiting} of {} wait for room: {why}",
                self.instances.len()
            );
        }
    }
}

/// The code that a task's end gives us: its own, or 128 and the signal's number.
pub(crate) fn code_of(status: &TaskStatus) -> u8 {
    match (status.state, status.exit) {
        (TaskState::Finished, _) => 0,
        (_, Some(TaskExit::Code(code))) if code != 0 => u8::try_from(code).unwrap_or(1),
        (_, Some(TaskExit::Signal(signal))) => u8::try_from(128 + signal).unwrap_or(1),
        _ => 1,
    }
}

/// The file name of the command or of the image, as far as it can stand in a task id.
fn default_name(command: &[String], image: Option<&Image>) -> String {
    let program = command.first().map_or("", String::as_str);
    let image = image.map_or("", |image| image.reference.as_str());
    let named = if program.is_empty() {
        image.split('@').next().unwrap_or_default()
    } else {
        program
    };
    let file = named.rsplit('/').next().unwrap_or_default();
    let file = match program.is_empty() {
        true => file.split(':').next().unwrap_or_default(),
        false => file,
    };
    let good = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let name: String = file.chars().filter(|c| good(*c)).take(64).collect();
    if name.trim_matches('.').is_empty() {
        "task".to_owned()
    } else {
        name
    }
}

fn ended(reason: EndReason) -> CliError {
    CliError::unreachable(match reason {
        EndReason::Left | EndReason::TornDown { .. } => {
            "the framework was ended by somebody else".to_owned()
        }
        EndReason::Refused(refusal) => format!("the master refused: {refusal}"),
        EndReason::Untrusted { why } => format!(
            "the cluster and this identity do not trust each other: {why}.\nUse a certificate of \
             the cluster's own authority, of the role framework or operator."
        ),
        EndReason::Failed { why } => why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use meros_proto::status::Source;
    use meros_proto::time::Timestamp;

    #[test]
    fn task_names_come_from_the_command() {
        let name = |command: &str| default_name(&[command.to_owned()], None);
        assert_eq!(name("/usr/bin/env"), "env");
        assert_eq!(name("a b"), "ab");
        assert_eq!(name(".."), "task");
        assert_eq!(name("/"), "task");
    }

    #[test]
    fn negative_amounts_are_refused_as_amounts_not_as_unknown_flags() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        use clap::Parser;
        for flag in ["--cpus", "--cpus-limit", "--mem", "--disk"] {
            let error = Line::try_parse_from(["run", flag, "-1", "--", "true"])
                .expect_err("less than nothing");
            assert_eq!(error.kind(), clap::error::ErrorKind::ValueValidation);
        }
    }

    #[test]
    fn what_is_fetched_to_see_health_has_a_port_and_a_path() {
        assert_eq!(parse_health_http("80/a/b?c"), Ok(Check::http(80, "/a/b?c")));
        assert_eq!(parse_health_http("0/"), Ok(Check::http(0, "/")));
        for text in ["", "80", "/a", "x/a", "70000/a"] {
            assert!(parse_health_http(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_are_checked() {
        assert_eq!(parse_env("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(parse_env("A").is_err());
        assert!(parse_env("=x").is_err());
        assert!(parse_env("A\nB=x").is_err());
    }

    #[test]
    fn files_are_named_with_what_becomes_of_them() {
        let digest = "ab".repeat(32);
        let text = format!("http://h/a,b.tgz?c,d,extract,cache,sha256={digest},name=e/f.tgz");
        let expected = FetchUri::new("http://h/a,b.tgz?c,d").extract().cache();
        let expected = expected
            .digest(digest.parse().unwrap())
            .output_file("e/f.tgz");
        assert_eq!(parse_fetch(&text), Ok(expected));
        assert!(parse_fetch("/srv/run,executable").is_ok_and(|uri| uri.executable));
        for bad in ["", "a", "ftp://h/a", "http://h/a,sha256=1", "/a,name=../b"] {
            assert!(parse_fetch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_code_is_the_tasks_own() {
        let status = |state, exit| {
            let id = TaskId::new("t").expect("a good id");
            let mut status = TaskStatus::new(id, state, Source::Slave, Timestamp(0));
            status.exit = exit;
            code_of(&status)
        };
        assert_eq!(status(TaskState::Finished, Some(TaskExit::Code(0))), 0);
        assert_eq!(status(TaskState::Failed, Some(TaskExit::Code(7))), 7);
        assert_eq!(status(TaskState::Killed, Some(TaskExit::Signal(15))), 143);
        assert_eq!(status(TaskState::Failed, None), 1);
        assert_eq!(status(TaskState::Killed, Some(TaskExit::Code(0))), 1);
    }
}
