//! Known bugs are put back one at a time, and each must be found within so many seeds. A bug that is
//! not found says that the simulator looks at less than we think.
//!
//! Needs the feature `mutants` (docs/decisions/0009-mutants.md):
//! `cargo nextest run -p meros-sim --features mutants --test mutants`.

use meros_proto::mutant::Mutant;
use meros_sim::{Bounds, replay};

/// The first seed that finds it.
fn first_found(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let outcome = mutant.during(|| replay(seed, &Bounds::default(), 0));
        outcome.broken.map(|broken| (seed, broken.to_string()))
    })
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident within $seeds:literal,)+) => {
        $(#[test]
        fn $name() {
            let found = first_found(Mutant::$mutant, $seeds);
            let (seed, what) = found.expect("it is found within so many seeds");
            println!("seed {seed}: {what}");
        })+

        #[test]
        fn every_mutant_is_tried() {
            let tried = [$(Mutant::$mutant),+];
            let missing = Mutant::ALL.iter().filter(|it| !tried.contains(it));
            assert_eq!(missing.collect::<Vec<_>>(), [&Mutant::ALL[0]; 0]);
        }
    };
}

mutants! {
    an_update_sent_before_it_is_durable_is_found: SendBeforePersist within 100,
    an_update_repeated_under_a_new_id_is_found: ResendWithNewId within 100,
    a_task_forgotten_before_its_acknowledgement_is_found: ForgetUnacknowledged within 20,
    lost_tasks_that_nobody_is_told_of_are_found: LeaveLostTasks within 50,
    a_kill_lost_while_its_task_starts_is_found: LoseKillWhileStarting within 200,
    a_welcome_before_the_commit_is_found: WelcomeBeforeCommit within 20,
    a_launch_on_a_rescinded_offer_is_found: LaunchOnRescinded within 50,
    resources_freed_twice_are_found: FreeTwice within 50,
    an_answer_before_the_slaves_are_back_is_found: AnswerWhileRecovering within 200,
    an_acknowledgement_for_an_absent_framework_is_found: AcknowledgeForAbsent within 50,
    offers_kept_for_an_absent_framework_are_found: KeepOffersOfAbsent within 50,
    declined_offers_that_come_again_at_once_are_found: ForgetFilters within 20,
    an_acknowledgement_before_the_framework_is_done_is_found: AcknowledgeOnDelivery within 20,
    a_second_end_of_a_task_is_found: ForgetEnds within 50,
    an_end_without_an_id_taken_for_handled_is_found: TakeEndForHandled within 600,
    a_kill_that_is_sent_once_is_found: ForgetKills within 300,
    a_slave_that_obeys_a_deposed_master_is_found: ObeyDeposed within 50,
    a_framework_that_follows_a_deposed_master_is_found: FollowDeposed within 50,
    an_id_that_is_given_to_two_tasks_is_found: ReuseTaskIds within 300,
    an_older_update_told_as_news_is_found: TellOlder within 900,
    a_driver_that_asks_for_nothing_is_found: NeverReconcile within 50,
    an_operation_confirmed_before_it_is_durable_is_found: ConfirmBeforePersist within 50,
    a_volume_that_leaves_its_data_behind_is_found: MoveResized within 50,
    a_group_that_goes_on_without_one_of_its_tasks_is_found: LeaveGroups within 100,
    quotas_that_a_new_leader_forgets_are_found: ForgetQuotas within 50,
    offers_kept_from_a_guarantee_are_found: KeepGuaranteed within 100,
}
