//! Keys of the checkpoint.
//!
//! `m/…` the slave itself; `t` framework task: the order; `s` framework task: it was seen running, and, if
//! the value is not empty, being killed;
//! `e` framework executor: the order for an executor that has not ended; `h` framework executor: the number of
//! its newest update that was taken; `u` framework task NUL update: an unacknowledged update. Framework and update are big endian, so
//! that keys sort by framework, task and the order in which updates were made (their ids grow). A
//! task id has no control character, so NUL ends it.

use meros_proto::ids::{ExecutorId, FrameworkId, TaskId, UpdateId};
use meros_slave_core::{ExecutorKey, TaskKey};

pub(super) const FORMAT: &[u8] = b"m/format";
pub(super) const IDENTITY: &[u8] = b"m/identity";
pub(super) const INCARNATION: &[u8] = b"m/incarnation";
pub(super) const TERM: &[u8] = b"m/term";
pub(super) const CLAIMS: &[u8] = b"m/claims";

const META: u8 = b'm';
const TASK: u8 = b't';
const STARTED: u8 = b's';
const UPDATE: u8 = b'u';
const EXECUTOR: u8 = b'e';
const HEARD: u8 = b'h';
/// Everything that belongs to a framework.
const OF_FRAMEWORKS: [u8; 5] = [TASK, STARTED, UPDATE, EXECUTOR, HEARD];
const END: u8 = 0;

/// What a key is of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Meta,
    Task(TaskKey),
    Started,
    Update(TaskKey),
    /// The order for an executor.
    Executor(ExecutorKey),
    /// How far an executor was heard.
    Heard,
}

pub(super) fn task(task: &TaskKey) -> Vec<u8> {
    of_task(TASK, task)
}

pub(super) fn started(task: &TaskKey) -> Vec<u8> {
    of_task(STARTED, task)
}

pub(super) fn update(task: &TaskKey, id: UpdateId) -> Vec<u8> {
    let mut key = of_task(UPDATE, task);
    key.push(END);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Where the order for an executor is.
pub(super) fn executor(executor: &ExecutorKey) -> Vec<u8> {
    of_executor(EXECUTOR, executor)
}

/// Where it says how far the executor was heard.
pub(super) fn heard(executor: &ExecutorKey) -> Vec<u8> {
    of_executor(HEARD, executor)
}

/// From and up to, the latter not included.
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

pub(super) fn updates_of(task: &TaskKey) -> KeyRange {
    let mut from = of_task(UPDATE, task);
    from.push(END);
    let mut to = of_task(UPDATE, task);
    to.push(END + 1);
    (from, to)
}

pub(super) fn all_of(framework: FrameworkId) -> [KeyRange; OF_FRAMEWORKS.len()] {
    OF_FRAMEWORKS.map(|kind| {
        let from = of_framework(kind, framework);
        let to = match framework.0.checked_add(1) {
            Some(next) => of_framework(kind, FrameworkId(next)),
            None => vec![kind + 1],
        };
        (from, to)
    })
}

pub(super) fn all_tasks() -> [KeyRange; OF_FRAMEWORKS.len()] {
    OF_FRAMEWORKS.map(|kind| (vec![kind], vec![kind + 1]))
}

pub(super) fn parse(key: &[u8]) -> Option<Parsed> {
    let (kind, rest) = key.split_first()?;
    match *kind {
        META => Some(Parsed::Meta),
        TASK => parse_task(rest).map(Parsed::Task),
        STARTED => parse_task(rest).map(|_| Parsed::Started),
        EXECUTOR => parse_executor(rest).map(Parsed::Executor),
        HEARD => parse_executor(rest).map(|_| Parsed::Heard),
        UPDATE => {
            let end = rest.len().checked_sub(size_of::<u128>() + 1)?;
            let (task, id) = rest.split_at(end);
            (id[0] == END).then(|| parse_task(task).map(Parsed::Update))?
        }
        _ => None,
    }
}

fn parse_task(bytes: &[u8]) -> Option<TaskKey> {
    let (framework, task) = bytes.split_first_chunk()?;
    let task = TaskId::new(std::str::from_utf8(task).ok()?).ok()?;
    Some((FrameworkId(u32::from_be_bytes(*framework)), task))
}

fn parse_executor(bytes: &[u8]) -> Option<ExecutorKey> {
    let (framework, executor) = bytes.split_first_chunk()?;
    let executor = ExecutorId::new(std::str::from_utf8(executor).ok()?).ok()?;
    Some((FrameworkId(u32::from_be_bytes(*framework)), executor))
}

fn of_executor(kind: u8, executor: &ExecutorKey) -> Vec<u8> {
    let mut key = of_framework(kind, executor.0);
    key.extend_from_slice(executor.1.as_str().as_bytes());
    key
}

fn of_framework(kind: u8, framework: FrameworkId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&framework.0.to_be_bytes());
    key
}

fn of_task(kind: u8, task: &TaskKey) -> Vec<u8> {
    let mut key = of_framework(kind, task.0);
    key.extend_from_slice(task.1.as_str().as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(framework: u32, task: &str) -> TaskKey {
        (FrameworkId(framework), TaskId::new(task).unwrap())
    }

    #[test]
    fn keys_are_read_back_and_others_are_not() {
        let it = key(3, "web.1");
        assert_eq!(parse(&task(&it)), Some(Parsed::Task(it.clone())));
        assert_eq!(parse(&started(&it)), Some(Parsed::Started));
        assert_eq!(parse(&update(&it, UpdateId(7))), Some(Parsed::Update(it)));
        let ours = (FrameworkId(3), ExecutorId::new("web").unwrap());
        assert_eq!(parse(&heard(&ours)), Some(Parsed::Heard));
        assert_eq!(parse(&executor(&ours)), Some(Parsed::Executor(ours)));
        assert_eq!(parse(FORMAT), Some(Parsed::Meta));
        for bad in [
            &b""[..],
            b"x",
            b"t",
            b"t\0\0\0\x01",
            b"t\0\0\0\x01a/b",
            b"u\0\0\0\x01a",
            b"u\0",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ranges_hold_what_they_say_and_nothing_else() {
        let inside =
            |range: &KeyRange, key: &[u8]| range.0.as_slice() <= key && key < range.1.as_slice();
        let it = key(3, "a");
        let range = updates_of(&it);
        for id in [0, 1, u128::MAX] {
            assert!(inside(&range, &update(&it, UpdateId(id))));
            assert!(!inside(&range, &update(&key(3, "aa"), UpdateId(id))));
            assert!(!inside(&range, &update(&key(4, "a"), UpdateId(id))));
        }
        for framework in [0, 3, u32::MAX] {
            let [tasks, _, updates, ..] = all_of(FrameworkId(framework));
            assert!(inside(&tasks, &task(&key(framework, "…"))));
            assert!(inside(
                &updates,
                &update(&key(framework, "z"), UpdateId(u128::MAX))
            ));
            assert!(!inside(&tasks, &task(&key(framework ^ 1, "z"))));
        }
    }
}
