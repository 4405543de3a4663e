//! A whole slave in this process, against a master made of a few lines over the real transport.
//!
//! Its own `main`, because each test wants a runtime that ends with it.

mod bad_input;
mod checks;
mod exec;
mod fetch;
mod groups;
mod hostile;
mod images;
mod life;
mod operator;
#[path = "../common/sweep.rs"]
mod sweep;
mod v1;
mod world;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if let Some(port) = std::env::var_os(checks::SERVE) {
        return checks::serve_in_task(&port);
    }
    let arguments = Arguments::from_args();
    let case = |name: &str, body: fn(&mut world::World)| {
        Trial::test(name, move || {
            world::run(body);
            Ok(())
        })
    };
    let trials = vec![
        case(
            "a_task_runs_writes_into_its_sandbox_and_its_updates_arrive_in_order",
            life::whole_life,
        ),
        case(
            "a_task_that_an_oom_kill_ended_says_which_limit_it_was",
            life::memory_hog,
        ),
        case("a_task_sees_its_own_environment_only", life::environment),
        case(
            "a_group_ends_with_the_first_of_its_tasks_that_fails",
            groups::ends_with_the_first_that_fails,
        ),
        case(
            "of_a_group_all_tasks_start_or_none",
            groups::starts_all_or_none,
        ),
        case("a_killed_task_ends_and_says_so", life::kill),
        case(
            "a_command_that_does_not_exist_fails_its_task_and_is_named",
            life::no_such_command,
        ),
        case("output_can_be_followed_while_it_is_written", life::follow),
        case(
            "files_are_fetched_before_a_task_starts_and_its_sandbox_can_be_read",
            fetch::in_and_out,
        ),
        case(
            "what_cannot_be_fetched_fails_its_task_and_a_kill_ends_a_fetch",
            fetch::failed_and_killed,
        ),
        case(
            "what_is_fetched_belongs_to_the_user_of_the_task",
            fetch::of_another_user,
        ),
        case(
            "an_image_of_a_layout_or_a_tarball_runs_as_it_says_and_what_is_wrong_with_one_is_told",
            images::from_a_layout,
        ),
        case(
            "an_image_of_a_registry_is_pulled_by_digest_or_tag_with_a_token_and_a_kill_ends_the_wait",
            images::from_a_registry,
        ),
        case(
            "a_damaged_layer_of_a_registry_is_refused_and_nothing_is_left_of_it",
            images::damaged_in_a_registry,
        ),
        case(
            "fifty_containers_share_one_copy_of_an_image_that_stays_as_long_as_one_runs",
            images::shared_by_many,
        ),
        case(
            "an_image_that_was_damaged_on_disk_comes_anew",
            images::damaged_on_disk,
        ),
        case(
            "a_slave_without_images_refuses_tasks_that_want_one",
            images::off,
        ),
        case(
            "a_restarted_slave_has_its_id_and_its_unacknowledged_updates",
            life::restart,
        ),
        case("a_stopped_slave_delivers_the_end_of_its_tasks", life::stop),
        case(
            "tasks_outlive_the_slave_and_are_taken_up_with_the_same_pids",
            life::outlive,
        ),
        case(
            "a_slave_that_leaves_unregisters_and_comes_back_as_a_new_one",
            life::leave,
        ),
        case(
            "a_slave_that_was_given_one_master_goes_to_those_that_it_is_told_of",
            life::other_masters,
        ),
        case("hundreds_of_tasks_each_end_exactly_once", life::many),
        case(
            "a_task_that_fails_its_health_check_of_any_kind_is_killed_with_a_reason",
            checks::each_kind,
        ),
        case(
            "servers_that_hang_or_flood_fail_a_check_in_time_and_within_bounds",
            checks::bad_servers,
        ),
        case(
            "failures_within_the_grace_period_kill_nothing",
            checks::grace_period,
        ),
        case(
            "a_check_by_command_runs_in_the_container_of_its_task_and_has_its_time",
            checks::commands,
        ),
        case(
            "a_task_with_a_network_of_its_own_is_checked_there",
            checks::own_network,
        ),
        case(
            "a_restarted_slave_goes_on_checking_and_kills_once",
            checks::restart,
        ),
        case(
            "a_command_in_a_container_is_where_its_task_is_and_its_streams_and_end_are_passed_on",
            exec::in_and_out,
        ),
        case(
            "a_command_in_a_container_has_a_real_terminal",
            exec::terminal,
        ),
        case(
            "of_a_command_in_a_container_nothing_is_left_when_anybody_ends",
            exec::nothing_left,
        ),
        case(
            "who_may_not_come_into_a_container_is_told_why",
            exec::refused,
        ),
        case(
            "into_a_container_of_an_earlier_release_nobody_comes_and_its_task_goes_on",
            exec::older_shim,
        ),
        case("a_slave_can_let_nobody_into_containers", exec::off),
        case(
            "garbage_from_a_master_ends_the_connection_and_the_slave_returns",
            bad_input::garbage,
        ),
        case(
            "a_refusal_for_good_ends_the_slave_with_its_reason",
            bad_input::refused,
        ),
        case(
            "a_data_directory_in_use_and_a_port_in_use_are_named",
            bad_input::in_use,
        ),
        case("nonsense_over_http_is_refused_with_a_code", bad_input::http),
        case(
            "an_operator_is_answered_in_json_and_in_protobuf_alike",
            operator::calls,
        ),
        case(
            "tools_of_mesos_read_containers_flags_and_metrics",
            operator::reads,
        ),
        case(
            "an_operator_changes_what_is_logged_for_a_while",
            operator::logging,
        ),
        case(
            "a_container_is_waited_for_and_killed_by_an_operator",
            operator::containers,
        ),
        case(
            "calls_that_cannot_be_are_refused_with_a_code_and_leave_nothing",
            operator::bad_calls,
        ),
        case(
            "hostile_tasks_are_contained_and_their_neighbour_is_not_harmed",
            hostile::catalogue_of_tasks,
        ),
        case(
            "an_executor_that_speaks_v1_proves_who_it_is_and_is_heard_once",
            v1::tokens,
        ),
        case(
            "nonsense_and_slow_readers_of_the_v1_api_are_bounded",
            v1::nonsense_and_slow_readers,
        ),
        case(
            "isolation_that_is_asked_for_by_name_and_not_to_be_had_ends_the_start",
            hostile::not_to_be_had,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}
