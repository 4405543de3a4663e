//! Containers on this host's real kernel, whose own counters are the witnesses.
//!
//! Its own `main`: the test program is also the misbehaving tasks (`helper …`) and a slave that
//! crashes. Tests that need a facility which the host does not
//! have (mostly: without root) are reported as ignored with the reason.

mod confined;
mod ending;
mod limits;
mod recovery;
mod running;
#[path = "../common/sweep.rs"]
mod sweep;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Arguments;
use meros_slave::container::{
    CgroupRoot, Containerizer, ExitStatus, Facility, Isolation, Limits, OomScope, OpenError,
    StartError, TaskCommand, Wanted,
};
use world::{
    Hierarchies, World, alive, case, confined, eventually, helper, own_children, own_descriptors,
};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    if let ["helper", rest @ ..] = words.as_slice() {
        return helper(rest);
    }
    use Facility::{Cpu, CpuUsage, Kill, Memory, Pids};
    let host = Hierarchies::Host;
    let cases = vec![
        case(
            "memory_hog_is_killed_at_its_limit_and_its_neighbour_is_not",
            &[Memory],
            host,
            limits::memory_hog,
        ),
        case(
            "task_that_survives_the_oom_kill_of_a_child_is_no_failure",
            &[Memory],
            host,
            limits::oom_of_a_child,
        ),
        case(
            "smallest_memory_limit_still_starts_a_task",
            &[Memory],
            host,
            limits::smallest_memory,
        ),
        case(
            "fork_bomb_is_stopped_by_pids",
            &[Pids],
            host,
            limits::fork_bomb,
        ),
        case(
            "fork_bomb_is_killed_by_the_freezer",
            &[Pids, Kill],
            Hierarchies::V1Only,
            limits::fork_bomb,
        ),
        case(
            "cpu_hog_is_throttled_to_its_quota",
            &[Cpu, CpuUsage],
            host,
            limits::cpu_hog,
        ),
        case(
            "cpu_shares_divide_a_busy_cpu",
            &[Cpu, CpuUsage],
            host,
            limits::cpu_shares,
        ),
        case(
            "limits_are_in_force_before_the_command_runs",
            &[Memory, Pids],
            host,
            limits::limits_before_command,
        ),
        case(
            "kill_ends_daemons_and_those_who_ignore_sigterm",
            &[Kill],
            host,
            ending::kill_tree,
        ),
        case(
            "kill_with_the_freezer_ends_the_whole_tree",
            &[Kill],
            Hierarchies::V1Only,
            ending::kill_tree,
        ),
        case(
            "kill_without_cgroups_ends_the_whole_tree",
            &[],
            Hierarchies::None,
            ending::kill_tree,
        ),
        case(
            "task_that_obeys_sigterm_ends_with_its_own_code",
            &[],
            host,
            ending::kill_gracefully,
        ),
        case(
            "second_kill_shortens_the_grace_and_never_lengthens_it",
            &[],
            host,
            ending::kill_twice,
        ),
        case(
            "children_have_the_grace_that_their_shell_did_not_use",
            &[Kill],
            host,
            ending::kill_shell_with_children,
        ),
        case(
            "processes_left_by_a_command_are_killed",
            &[Kill],
            host,
            ending::stragglers,
        ),
        case(
            "processes_left_by_a_command_are_killed_without_cgroups",
            &[],
            Hierarchies::None,
            ending::stragglers,
        ),
        case(
            "command_that_does_not_exist_is_named",
            &[],
            host,
            running::command_not_found,
        ),
        case(
            "task_sees_its_own_directory_environment_and_nothing_of_ours",
            &[],
            host,
            running::surroundings,
        ),
        case(
            "task_runs_as_another_user",
            &[Kill],
            host,
            running::other_user,
        ),
        case(
            "output_is_bounded_and_never_holds_the_task",
            &[],
            host,
            running::log_bound,
        ),
        case(
            "isolation_can_be_absent",
            &[],
            Hierarchies::None,
            running::isolation_absent,
        ),
        case(
            "id_in_use_is_refused_and_free_when_it_is_forgotten",
            &[Kill],
            host,
            running::id_in_use,
        ),
        case(
            "container_that_nobody_holds_is_killed",
            &[Kill],
            host,
            ending::dropped,
        ),
        case(
            "a_cgroup_root_of_somebody_else_is_refused_and_a_given_one_is_not_removed",
            &[Kill],
            host,
            recovery::foreign_root,
        ),
        case(
            "containers_of_a_crashed_slave_are_taken_up_or_end_with_it",
            &[Kill],
            host,
            recovery::crash,
        ),
        case(
            "what_ended_without_a_slave_is_found_with_its_end",
            &[],
            host,
            recovery::ended_meanwhile,
        ),
        case(
            "a_killed_shim_is_noticed_and_nothing_of_its_container_is_left",
            &[Kill],
            host,
            recovery::shim_killed,
        ),
        case(
            "a_killed_shim_is_noticed_without_cgroups",
            &[],
            Hierarchies::None,
            recovery::shim_killed,
        ),
        case("a_shim_is_small", &[], host, recovery::shim_memory),
        case(
            "containers_of_a_crashed_slave_with_the_freezer",
            &[Kill],
            Hierarchies::V1Only,
            recovery::crash,
        ),
        case(
            "two_hundred_quick_containers_leave_nothing",
            &[Kill],
            host,
            running::two_hundred,
        ),
        case(
            "hundred_containers_at_once_keep_apart",
            &[],
            host,
            running::hundred_at_once,
        ),
        confined(
            "a_confined_task_sees_itself_its_sandbox_and_no_switches",
            &[],
            host,
            "",
            confined::view,
        ),
        confined(
            "a_confined_task_ends_as_it_ends_and_takes_all_with_it",
            &[],
            host,
            "",
            confined::ends,
        ),
        confined(
            "a_confined_task_without_cgroups_ends_the_same",
            &[],
            Hierarchies::None,
            "",
            confined::ends,
        ),
        confined(
            "the_shim_of_a_confined_task_takes_it_along",
            &[],
            host,
            "",
            confined::shim_killed,
        ),
        confined(
            "a_frozen_tree_has_the_sandbox_to_write_in",
            &[],
            host,
            "read-only,net",
            confined::frozen,
        ),
        confined(
            "landlock_keeps_writes_in_the_sandbox_and_signals_to_the_task",
            &[],
            host,
            "all=off,landlock-files,landlock-signals",
            confined::landlocked,
        ),
        confined(
            "confined_tasks_run_as_another_user",
            &[],
            host,
            "",
            confined::other_user,
        ),
        confined(
            "two_hundred_confined_containers_leave_nothing",
            &[Kill],
            host,
            "",
            running::two_hundred,
        ),
        confined(
            "hundred_confined_containers_at_once_keep_apart",
            &[],
            host,
            "",
            running::hundred_at_once,
        ),
    ];
    let mut arguments = Arguments::from_args();
    // One at a time within one process: the tests count its children and descriptors.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, cases).exit();
}

/// A task that counts in a file and fails loudly if it is disturbed.
const STEADY: &str = "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.01; done";

/// How far it has got; 0 while it has written nothing.
fn count(sandbox: &Path) -> u64 {
    // The file is empty while the shell is between truncating and writing: for a moment, unless
    // other load takes the processor just then.
    for _ in 0..1_000 {
        match fs::read_to_string(sandbox.join("count")) {
            Ok(text) if text.ends_with('\n') => return text.trim().parse().unwrap(),
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return 0,
        }
    }
    panic!("{} stays empty", sandbox.join("count").display());
}
