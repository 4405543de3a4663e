//! What a task may ask of the kernel: capabilities, files and processes by Landlock, system calls.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use nix::libc;
use seccompiler::{BpfProgram, apply_filter, sock_filter};

use crate::request::Request;

/// The longest program that the kernel takes.
pub const FILTER_BYTES_MAX: u64 = 4096 * INSTRUCTION_BYTES as u64;
/// `struct sock_filter` of the kernel.
const INSTRUCTION_BYTES: usize = 8;
/// Where tasks may write beside their own folders when writes are restricted.
const WRITABLE: [&str; 4] = ["/tmp", "/var/tmp", "/dev", "/proc"];

/// Takes all other capabilities out of the bounding set: nothing executed from now on has them.
pub(crate) fn bound_capabilities(kept: u64) -> io::Result<()> {
    // In the order of their numbers; a kernel knows those up to some number.
    let mut all: Vec<Capability> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(Capability::index);
    for capability in all {
        if kept & capability.bitmask() == 0 {
            match caps::drop(None, CapSet::Bounding, capability).map_err(last_error) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                dropped => dropped?,
            }
        }
    }
    Ok(())
}

/// Gives up all other capabilities that this process has.
pub(crate) fn keep_capabilities(kept: u64) -> io::Result<()> {
    let had = caps::read(None, CapSet::Permitted).map_err(last_error)?;
    let left: CapsHashSet = had
        .into_iter()
        .filter(|capability| kept & capability.bitmask() != 0)
        .collect();
    caps::clear(None, CapSet::Ambient).map_err(last_error)?;
    caps::clear(None, CapSet::Inheritable).map_err(last_error)?;
    caps::set(None, CapSet::Effective, &left).map_err(last_error)?;
    caps::set(None, CapSet::Permitted, &left).map_err(last_error)
}

/// The library tells in words; the number is the kernel's last.
fn last_error(_: caps::errors::CapsError) -> io::Error {
    io::Error::last_os_error()
}

/// Forbids to write outside of the task's own folders.
pub(crate) fn restrict_files(request: &Request) -> io::Result<()> {
    // With less than V2 nothing could be moved from folder to folder, not even within the sandbox.
    let writes = AccessFs::from_write(ABI::V2);
    let all = || -> Result<_, landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(writes)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::Truncate)?
            .create()?;
        let own = [&request.sandbox]
            .into_iter()
            .chain(&request.confinement.shown);
        let shared = WRITABLE.map(Path::new);
        for path in own.map(PathBuf::as_path).chain(shared) {
            // A host without /var/tmp has nothing to write there.
            if let Ok(folder) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(folder, writes | AccessFs::Truncate))?;
            }
        }
        rules.restrict_self()
    };
    all().map(drop).map_err(landlock_error)
}

/// Forbids to signal and trace processes outside of the task.
pub(crate) fn restrict_signals() -> io::Result<()> {
    let all = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .scope(Scope::Signal)?
            .create()?
            .restrict_self()
    };
    all().map(drop).map_err(landlock_error)
}

/// The library hides the number: what a kernel without it says stands for all.
fn landlock_error(_: landlock::RulesetError) -> io::Error {
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(0) => io::Error::from_raw_os_error(libc::EOPNOTSUPP),
        error => error,
    }
}

/// Puts a filter in force, as the slave has compiled it.
pub(crate) fn filter_system_calls(program: &[u8]) -> io::Result<()> {
    apply_filter(&instructions(program)?).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        _ => io::ErrorKind::InvalidData.into(),
    })
}

/// Reads the program that we were started with; empty if there is none.
pub(crate) fn read_filter(from: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // All shims share the file and its position, so nothing is read at that.
    while (bytes.len() as u64) < FILTER_BYTES_MAX {
        let mut chunk = [0; 4096];
        match from.read_at(&mut chunk, bytes.len() as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    bytes
}

fn instructions(bytes: &[u8]) -> io::Result<BpfProgram> {
    match bytes.as_chunks::<INSTRUCTION_BYTES>() {
        ([], _) => Err(io::Error::from_raw_os_error(libc::ENOEXEC)),
        (all, []) => Ok(all.iter().map(instruction).collect()),
        (_, _) => Err(io::Error::from_raw_os_error(libc::ENOEXEC)),
    }
}

fn instruction(bytes: &[u8; INSTRUCTION_BYTES]) -> sock_filter {
    let [c0, c1, jt, jf, k @ ..] = *bytes;
    sock_filter {
        code: u16::from_ne_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_ne_bytes(k),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_instructions_are_a_filter_and_nothing_else_is() {
        let one = [6, 0, 1, 2, 0, 0, 0xff, 0x7f];
        let found = instructions(&[one, one].concat()).unwrap();
        assert_eq!((found.len(), found[1].jt, found[1].jf), (2, 1, 2));
        for garbage in [&b""[..], &[1], &one[..7], &[6; 9]] {
            assert!(instructions(garbage).is_err(), "{garbage:?}");
        }
    }
}
