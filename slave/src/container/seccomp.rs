//! The default filter of system calls, compiled once and handed to every shim as sealed memory.
//!
//! A list is allowed. What is dangerous is "not permitted", so that a person sees why; all others are "no
//! such call", so that a program which tries a new call does without, as it does on an older kernel.
//! `clone3` is one of these, because what it asks for cannot be looked into; libraries then use `clone`. A
//! 32-bit program is killed: its calls have other numbers.
//!
//! Compiled here and not by a library: that of `seccompiler` compares with one number after the other, and
//! the kernel tries a new filter on every call that there is. The search by halves takes a tenth of the
//! time to put in force, which is most of what isolation costs a task at its start.

use std::collections::BTreeMap;

use nix::libc;

use super::calls::{ALLOWED, ALLOWED_OLD, REFUSED, REFUSED_OLD};

/// Flags of `clone` that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];
/// What `personality` may be asked for: the usual one, 32-bit words of `uname`, no random addresses (both
/// alone or together), and which it is.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Where `struct seccomp_data` has the call, the processor's kind, and the lower half of the first argument.
const CALL: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Instructions of the kernel's filters (bpf(4)), each with a constant.
const LOAD: u16 = 0x20;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const NOT_PERMITTED: u32 = 0x0005_0000 | libc::EPERM.cast_unsigned();
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS.cast_unsigned();

/// The kinds of processors whose numbers of calls are those that we were compiled for.
#[cfg(target_arch = "x86_64")]
const OUR_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const OUR_ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OUR_ARCH: Option<u32> = None;

/// One instruction as the kernel has it: what, steps to go if so, steps to go if not, and the constant.
type Instruction = (u16, u8, u8, u32);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Always(u32),
    /// Allowed unless it makes a namespace.
    Clone,
    /// Allowed for some.
    Personality,
}

/// The bytes for `meros-shim`. None on a processor whose numbers are not known.
pub(crate) fn default_filter() -> Option<Vec<u8>> {
    let program = program(OUR_ARCH?);
    let bytes = program.into_iter().flat_map(|(what, yes, no, constant)| {
        let [w0, w1] = what.to_ne_bytes();
        let [c0, c1, c2, c3] = constant.to_ne_bytes();
        [w0, w1, yes, no, c0, c1, c2, c3]
    });
    Some(bytes.collect())
}

fn program(arch: u32) -> Vec<Instruction> {
    let mut program = vec![
        (LOAD, 0, 0, ARCH),
        (IF_EQUAL, 1, 0, arch),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, CALL),
    ];
    program.extend(search(&ranges()));
    program
}

/// From which number on which answer holds; the first is 0.
fn ranges() -> Vec<(u32, Answer)> {
    let mut answers = BTreeMap::new();
    let lists = [
        (ALLOWED, ALLOW),
        (ALLOWED_OLD, ALLOW),
        (REFUSED, NOT_PERMITTED),
        (REFUSED_OLD, NOT_PERMITTED),
    ];
    for (calls, answer) in lists {
        answers.extend(
            calls
                .iter()
                .map(|call| (number(*call), Answer::Always(answer))),
        );
    }
    answers.insert(number(libc::SYS_clone), Answer::Clone);
    answers.insert(number(libc::SYS_personality), Answer::Personality);
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    let mut change = |from, answer| {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((from, answer));
        }
    };
    let mut next = 0;
    for (call, answer) in answers {
        if call > next {
            change(next, Answer::Always(NO_SUCH_CALL));
        }
        change(call, answer);
        next = call + 1;
    }
    change(next, Answer::Always(NO_SUCH_CALL));
    ranges
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("numbers of calls are small")
}

/// Halves the ranges until one is left.
fn search(ranges: &[(u32, Answer)]) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((from, answer)) = upper.first() else {
        return Vec::new();
    };
    if lower.is_empty() {
        return answer_with(*answer);
    }
    let lower = search(lower);
    let length = u32::try_from(lower.len()).expect("a filter has a few hundred");
    let mut found = vec![(IF_NOT_LESS, 0, 1, *from), (JUMP, 0, 0, length)];
    found.extend(lower);
    found.extend(search(upper));
    found
}

fn answer_with(answer: Answer) -> Vec<Instruction> {
    let mut all = vec![(LOAD, 0, 0, FIRST_ARGUMENT)];
    match answer {
        Answer::Always(answer) => return vec![(RETURN, 0, 0, answer)],
        Answer::Clone => {
            let flags = NAMESPACES.iter().fold(0, |all, flag| all | flag);
            all.push((IF_ANY_BIT, 0, 1, flags.cast_unsigned()));
            all.push((RETURN, 0, 0, NOT_PERMITTED));
            all.push((RETURN, 0, 0, ALLOW));
        }
        Answer::Personality => {
            for wanted in PERSONALITIES {
                all.push((IF_EQUAL, 0, 1, wanted));
                all.push((RETURN, 0, 0, ALLOW));
            }
            all.push((RETURN, 0, 0, NOT_PERMITTED));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's machine, as far as it is used here.
    fn run(program: &[Instruction], arch: u32, call: u32, first: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let (what, yes, no, constant) = program[at];
            let is_so = match what {
                RETURN => return constant,
                LOAD => {
                    value = match constant {
                        CALL => call,
                        ARCH => arch,
                        FIRST_ARGUMENT => first,
                        other => panic!("nothing of ours is at {other}"),
                    };
                    at += 1;
                    continue;
                }
                JUMP => {
                    at += 1 + constant as usize;
                    continue;
                }
                IF_EQUAL => value == constant,
                IF_NOT_LESS => value >= constant,
                IF_ANY_BIT => value & constant != 0,
                other => panic!("no such instruction: {other}"),
            };
            at += 1 + usize::from(if is_so { yes } else { no });
        }
    }

    #[test]
    fn every_number_has_the_answer_of_its_list() {
        let program = program(7);
        println!("{} instructions", program.len());
        // What the kernel takes.
        assert!(program.len() <= 4_096);
        let has = |lists: [&[libc::c_long]; 2], call: u32| {
            let call = libc::c_long::from(call);
            lists.iter().any(|list| list.contains(&call))
        };
        for call in (0..2_000).chain([u32::MAX, 1 << 30]) {
            let allowed = has([ALLOWED, ALLOWED_OLD], call);
            let refused = has([REFUSED, REFUSED_OLD], call);
            assert!(!(allowed && refused), "{call} is in both");
            if [libc::SYS_clone, libc::SYS_personality].contains(&libc::c_long::from(call)) {
                continue;
            }
            let expected = match (allowed, refused) {
                (true, _) => ALLOW,
                (_, true) => NOT_PERMITTED,
                _ => NO_SUCH_CALL,
            };
            assert_eq!(run(&program, 7, call, 0), expected, "{call}");
            assert_eq!(run(&program, 8, call, 0), KILL);
        }
    }

    #[test]
    fn what_is_asked_for_counts() {
        let program = program(7);
        let clone =
            |flags: libc::c_int| run(&program, 7, number(libc::SYS_clone), flags.cast_unsigned());
        assert_eq!(clone(libc::CLONE_VM | libc::SIGCHLD), ALLOW);
        for flag in NAMESPACES {
            assert_eq!(clone(flag | libc::CLONE_VM), NOT_PERMITTED);
        }
        let personality = |wanted| run(&program, 7, number(libc::SYS_personality), wanted);
        assert_eq!(
            (personality(8), personality(0x40_0000)),
            (ALLOW, NOT_PERMITTED)
        );
    }
}
