//! Making what a container needs and starting its shim, on a thread of its own: making cgroups and
//! starting processes blocks for milliseconds, and one after the other they disturb each other least.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;

use meros_shim::{Account, CheckCommand, Confinement, Failure, Part, Request};
use nix::unistd::{Gid, Uid, User, chown, getgrouplist};

use super::error::StartError;
use super::group::Group;
use super::isolation::Isolation;
use super::report::{ExitStatus, OomReport};
use super::shim::{Folder, Shim, ShimProgram};
use super::spec::{ContainerSpec, DEFAULT_PATH, TaskCommand};
use super::tree::CONTAINER_VARIABLE;

/// A shim at work, soon with a task.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) shim: Shim,
    pub(crate) folder: Folder,
    pub(crate) group: Group,
}

/// Prepares everything and starts the shim. Blocks; needs a tokio runtime to be entered. On error
/// nothing but the sandbox is left.
pub(crate) fn launch(
    program: &ShimProgram,
    isolation: &Isolation,
    confinement: &Confinement,
    folder: Folder,
    boot_id: &str,
    spec: &ContainerSpec,
) -> Result<Launched, StartError> {
    let account = match &spec.image {
        Some(image) => Some(image.account.clone()),
        None => spec.user.as_deref().map(find_account).transpose()?,
    };
    let at = |path: &Path| {
        let path = path.to_owned();
        |source| StartError::Sandbox { path, source }
    };
    fs::create_dir_all(&spec.sandbox).map_err(at(&spec.sandbox))?;
    if let Some(account) = &account {
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        chown(&spec.sandbox, Some(uid), Some(gid))
            .map_err(io::Error::from)
            .map_err(at(&spec.sandbox))?;
    }
    let group = Group::create(isolation, &spec.id, &spec.limits)?;
    let confinement = confinement_of(spec, confinement);
    let request = request(isolation, &group, confinement, account, boot_id, spec);
    match folder
        .create(&request)
        .and_then(|()| Shim::spawn(program, &folder))
    {
        Ok(shim) => Ok(Launched {
            shim,
            folder,
            group,
        }),
        Err(source) => {
            // Nothing ever ran in it. What cannot be removed is found by the next start.
            let _ = group.remove();
            if source.kind() == io::ErrorKind::AlreadyExists {
                // One that has ended and is not forgotten.
                let id = spec.id.clone();
                return Err(StartError::IdInUse { id });
            }
            let _ = folder.remove();
            Err(StartError::Spawn { source })
        }
    }
}

/// What all tasks are confined by, for this one. Landlock is for a tree that is the host's: what a task with
/// an image writes is in its sandbox anyway.
fn confinement_of(spec: &ContainerSpec, all: &Confinement) -> Confinement {
    let mut own = Confinement {
        shown: spec.shown.clone(),
        ..all.clone()
    };
    if let Some(image) = &spec.image {
        own.rootfs = Some(image.rootfs.clone());
        own.parts.insert(Part::Image);
        own.parts.remove(&Part::Files);
        own.hidden.clear();
    }
    own
}

fn request(
    isolation: &Isolation,
    group: &Group,
    confinement: Confinement,
    account: Option<Account>,
    boot_id: &str,
    spec: &ContainerSpec,
) -> Request {
    let mut env = spec.env.clone();
    env.entry("PATH".into())
        .or_insert_with(|| DEFAULT_PATH.into());
    env.insert(CONTAINER_VARIABLE.into(), full_name(isolation, &spec.id));
    let checks = spec.checks.iter().map(|(name, check)| {
        let (argv, env) = (check.command.argv(), check.env.clone());
        (name.clone(), CheckCommand { argv, env })
    });
    Request {
        owner: spec.owner.clone(),
        boot_id: boot_id.to_owned(),
        command: spec.command.name().to_owned(),
        groups: group.procs_files(),
        argv: spec.command.argv(),
        env,
        sandbox: spec.sandbox.clone(),
        account,
        stdout_bytes_max: spec.stdout_bytes_max,
        stderr_bytes_max: spec.stderr_bytes_max,
        disk_bytes: spec.limits.disk_bytes,
        ends_with_slave: spec.ends_with_slave,
        checks: checks.collect(),
        confinement,
    }
}

/// What every process of a container carries in its environment.
pub(crate) fn full_name(isolation: &Isolation, id: &str) -> String {
    format!("{}/{id}", isolation.root().label())
}

/// Why the shim could not start the task, in our words.
pub(crate) fn explain(failure: Failure, spec: &ContainerSpec, group: &Group) -> StartError {
    if failure.step == Failure::DIED {
        let status = ExitStatus::Signaled(failure.errno);
        let oom = OomReport::judge(status, false, &group.usage());
        let ended = oom.map_or_else(|| status.to_string(), |oom| oom.message);
        return StartError::Died { ended };
    }
    let source = io::Error::from_raw_os_error(failure.errno);
    if failure.step != Failure::EXEC {
        return StartError::Setup {
            step: failure.step,
            source,
        };
    }
    let command = match &spec.command {
        TaskCommand::Shell(_) => "/bin/sh".to_owned(),
        TaskCommand::Argv(_) => spec.command.name().to_owned(),
    };
    // ENOENT of a script that does exist means its interpreter.
    let is_missing =
        spec.image.is_some() || !command.contains('/') || !spec.sandbox.join(&command).exists();
    if source.kind() == io::ErrorKind::NotFound && is_missing {
        StartError::CommandNotFound { command }
    } else {
        StartError::CommandNotExecutable { command, source }
    }
}

/// As numbers: the shim has no library that could ask for names.
fn find_account(name: &str) -> Result<Account, StartError> {
    let unknown = || StartError::UserUnknown { user: name.into() };
    let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
    let c_name = CString::new(name).map_err(|_| unknown())?;
    let groups = getgrouplist(&c_name, user.gid).map_err(|_| unknown())?;
    Ok(Account {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}
