//! Tasks: updates, ends, kills, accepts, reconciliation.

use super::*;

#[test]
fn an_update_is_delivered_once_and_acknowledged_once_handled() {
    // semantics: I3; D3
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let status = update("a", TaskState::Running, 1);
    let message = MasterToFramework::Update(status.clone());
    assert_eq!(the_status(&script.on_message(message.clone())), &status);
    assert_eq!(
        script.on_message(message.clone()),
        [],
        "delivered, but not handled yet"
    );
    let update_id = status.update_id.expect("set");
    assert_eq!(
        script.call(acknowledge(&status)),
        [acknowledged(&status, update_id)]
    );
    assert_eq!(
        script.call(acknowledge(&status)),
        [],
        "acknowledged already"
    );
    assert_eq!(
        script.on_message(message),
        [acknowledged(&status, update_id)]
    );
    assert_eq!(script.driver.counters().duplicates, 2);
}

#[test]
fn an_acknowledgement_while_disconnected_is_made_when_the_update_comes_again() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let status = update("a", TaskState::Finished, 1);
    let _ = script.on_message(MasterToFramework::Update(status.clone()));
    script.break_off();
    assert_eq!(script.call(acknowledge(&status)), []);
    assert_eq!(script.resubscribe(), []);
    let update_id = status.update_id.expect("set");
    let effects = script.on_message(MasterToFramework::Update(status.clone()));
    assert_eq!(effects, [acknowledged(&status, update_id)]);
}

#[test]
fn an_earlier_update_that_comes_again_after_a_later_one_is_only_acknowledged() {
    // W3: a slave that died before its record of an acknowledgement was durable repeats the update.
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let running = update("a", TaskState::Running, 1);
    script.settle(running.clone());
    script.settle(update("a", TaskState::Killing, 2));
    let update_id = running.update_id.expect("set");
    let effects = script.on_message(MasterToFramework::Update(running.clone()));
    assert_eq!(effects, [acknowledged(&running, update_id)]);
    // The next life of the slave numbers from 1 again, but comes later.
    let mut gone = update("a", TaskState::Gone, 1);
    gone.update_id = Some(UpdateId::by_slave(SlaveId(5), 2, 1));
    script.settle(gone);
}

#[test]
fn updates_of_another_slave_are_no_news_of_a_task_that_was_launched_on_this_one() {
    // The id was used on S4 before, and its last update has lost its way.
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let mut old = update("a", TaskState::Finished, 9);
    old.slave_id = Some(SlaveId(4));
    old.update_id = Some(UpdateId::by_slave(SlaveId(4), 1, 9));
    let update_id = old.update_id.expect("set");
    let effects = script.on_message(MasterToFramework::Update(old.clone()));
    assert_eq!(effects, [acknowledged(&old, update_id)]);
    // An id that is used again on a slave with a lower number than before.
    script.settle(update("a", TaskState::Failed, 1));
    let mut elsewhere = task("a");
    elsewhere.slave_id = SlaveId(3);
    script.call(Call::Accept {
        offer_ids: vec![offer_id(2)],
        operations: vec![Operation::Launch(vec![elsewhere])],
        filters: Filters::default(),
    });
    let mut running = update("a", TaskState::Running, 1);
    running.slave_id = Some(SlaveId(3));
    running.update_id = Some(UpdateId::by_slave(SlaveId(3), 1, 1));
    script.settle(running);
}

#[test]
fn an_end_without_an_id_is_handled_once_the_framework_says_so() {
    // D3, W4: the slave's own end must not be acknowledged before.
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    script.break_off();
    assert_eq!(script.resubscribe().len(), 1);
    let told = answer("a", TaskState::Gone);
    let effects = script.on_message(MasterToFramework::Update(told.clone()));
    assert_eq!(the_status(&effects), &told);
    let own = update("a", TaskState::Killed, 3);
    let message = MasterToFramework::Update(own.clone());
    assert_eq!(script.on_message(message.clone()), []);
    let update_id = own.update_id.expect("set");
    assert_eq!(
        script.call(acknowledge(&told)),
        [acknowledged(&own, update_id)],
        "now, because it may not come again"
    );
    assert_eq!(script.on_message(message), [acknowledged(&own, update_id)]);
}

#[test]
fn an_end_without_an_id_is_not_handled_with_what_was_told_before_it() {
    // D3, W4; seed 2656 of the simulator
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    script.break_off();
    assert_eq!(script.resubscribe().len(), 1);
    let [running, gone] = [TaskState::Running, TaskState::Gone].map(|state| answer("a", state));
    for told in [&running, &gone] {
        let effects = script.on_message(MasterToFramework::Update(told.clone()));
        assert_eq!(the_status(&effects), told);
    }
    assert_eq!(script.call(acknowledge(&running)), []);
    let own = update("a", TaskState::Killed, 3);
    let message = MasterToFramework::Update(own.clone());
    assert_eq!(script.on_message(message), [], "its end is not handled yet");
    let of_own = acknowledged(&own, own.update_id.expect("set"));
    assert_eq!(script.call(acknowledge(&gone)), [of_own]);
}

#[test]
fn a_second_terminal_update_of_a_task_is_acknowledged_and_not_delivered() {
    // semantics: R12; D2
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let first = update("a", TaskState::Failed, 1);
    let second = update("a", TaskState::Finished, 2);
    let _ = script.on_message(MasterToFramework::Update(first.clone()));
    let again = MasterToFramework::Update(second.clone());
    assert_eq!(
        script.on_message(again.clone()),
        [],
        "the first is not handled yet: D3"
    );
    let [of_first, of_second] =
        [&first, &second].map(|it| acknowledged(it, it.update_id.expect("set")));
    assert_eq!(
        script.call(acknowledge(&first)),
        [of_first, of_second.clone()]
    );
    assert_eq!(script.on_message(again), [of_second]);
    assert_eq!(
        script.on_message(MasterToFramework::Update(answer("a", TaskState::Gone))),
        []
    );
}

#[test]
fn an_id_can_be_used_again_after_its_end_and_late_duplicates_do_not_end_it() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let first = update("a", TaskState::Finished, 1);
    script.settle(first.clone());
    script.launch(&["a"]);
    let update_id = first.update_id.expect("set");
    let effects = script.on_message(MasterToFramework::Update(first.clone()));
    assert_eq!(effects, [acknowledged(&first, update_id)]);
    script.settle(update("a", TaskState::Failed, 2));
}

#[test]
fn a_task_that_lives_after_its_end_was_told_is_killed() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let mut lost = update("a", TaskState::GoneByOperator, 1);
    lost.update_id = Some(UpdateId::by_master(Epoch(1), 1));
    script.settle(lost);
    let back = update("a", TaskState::Running, 1);
    let update_id = back.update_id.expect("set");
    let effects = script.on_message(MasterToFramework::Update(back.clone()));
    assert_eq!(
        effects,
        [
            acknowledged(&back, update_id),
            kill("a", Some(SlaveId(5)), None)
        ]
    );
    assert_eq!(script.driver.counters().resurrected, 1);
}

#[test]
fn a_task_that_cannot_be_reached_after_its_end_was_told_is_killed_once() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let mut lost = update("a", TaskState::GoneByOperator, 1);
    lost.update_id = Some(UpdateId::by_master(Epoch(1), 1));
    script.settle(lost);
    let mut away = update("a", TaskState::Unreachable, 1);
    away.update_id = None;
    let effects = script.on_message(MasterToFramework::Update(away.clone()));
    assert_eq!(effects, [kill("a", Some(SlaveId(5)), None)]);
    // What the master answers to that.
    away.reason = Some(Reason::Reconciliation);
    assert_eq!(script.on_message(MasterToFramework::Update(away)), []);
}

#[test]
fn tasks_accepted_while_disconnected_are_dropped_at_once() {
    let mut script = Script::subscribed();
    script.break_off();
    let effects = script.call(accept(&["a", "b"]));
    let states: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Deliver(News::Update(s)) => (s.task_id.as_str(), s.state, s.reason),
            other => panic!("{other:?}"),
        })
        .collect();
    let why = Some(Reason::MasterDisconnected);
    assert_eq!(
        states,
        [
            ("a", TaskState::Dropped, why),
            ("b", TaskState::Dropped, why)
        ]
    );
    assert_eq!(script.driver.live_tasks(), 0);
    let declined = Call::Decline {
        offer_ids: vec![offer_id(1)],
        filters: Filters::default(),
    };
    assert_eq!(script.call(declined), []);
    let effects = script.call(accept(&[]));
    let refusal = Refusal::OfferInvalid {
        offer_id: offer_id(1),
    };
    let refused = News::Refused {
        call: "Accept".to_owned(),
        refusal,
    };
    assert_eq!(effects, [Effect::Deliver(refused)]);
    assert_eq!(script.resubscribe(), [], "there is nothing to ask about");
}

#[test]
fn a_task_id_in_use_is_taken_out_of_an_accept() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let effects = script.call(accept(&["a", "b", "b"]));
    let [
        Effect::Deliver(News::Refused { refusal: first, .. }),
        Effect::Deliver(News::Refused { .. }),
        Effect::Send(FrameworkToMaster::Accept { operations, .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(
        first.to_string().contains("a task a is live already"),
        "{first}"
    );
    assert_eq!(operations[..], [Operation::Launch(vec![task("b")])]);
}

#[test]
fn a_group_with_an_id_that_is_live_is_not_launched() {
    // semantics: D2
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let group = |tasks: &[&str]| {
        let group_id = meros_proto::ids::ExecutorId::new("g").unwrap();
        Operation::LaunchGroup(Box::new(TaskGroup {
            executor: ExecutorDescription::group(group_id, Resources::new()),
            tasks: tasks.iter().map(|name| task(name)).collect(),
        }))
    };
    let launch = |tasks: &[&str]| Call::Accept {
        offer_ids: vec![offer_id(1)],
        operations: vec![group(tasks)],
        filters: Filters::default(),
    };
    let effects = script.call(launch(&["b", "a", "c"]));
    let [
        Effect::Deliver(News::Refused { refusal, .. }),
        Effect::Deliver(News::Update(b)),
        Effect::Deliver(News::Update(c)),
        Effect::Send(FrameworkToMaster::Accept { .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert!(refusal.to_string().contains("a task a is live already"));
    for (status, name) in [(b, "b"), (c, "c")] {
        assert_eq!(status.task_id, id(name));
        assert_eq!(status.state, TaskState::Error);
        assert_eq!(status.reason, Some(Reason::TaskGroupInvalid));
    }
    let effects = script.call(launch(&["d", "e"]));
    let [Effect::Send(FrameworkToMaster::Accept { operations, .. })] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(operations[..], [group(&["d", "e"])]);
}

#[test]
fn an_accept_that_fits_no_frame_ends_its_tasks_and_gives_the_offer_back() {
    let mut script = Script::subscribed();
    let mut big = task("a");
    big.data = vec![0; ACCEPT_BYTES_MAX].into();
    let effects = script.call(Call::Accept {
        offer_ids: vec![offer_id(1)],
        operations: vec![Operation::Launch(vec![big])],
        filters: Filters::default(),
    });
    let [
        Effect::Deliver(News::Update(status)),
        Effect::Send(FrameworkToMaster::Decline { offer_ids, .. }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (status.state, status.reason),
        (TaskState::Error, Some(Reason::TaskInvalid))
    );
    assert_eq!(offer_ids[..], [offer_id(1)]);
}

#[test]
fn a_kill_is_repeated_after_each_resubscription_until_the_task_has_ended() {
    // semantics: B9
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let call = |secs| Call::Kill {
        task_id: id("a"),
        grace: Some(Duration::from_secs(secs)),
    };
    let sent = |secs| kill("a", Some(SlaveId(5)), Some(Duration::from_secs(secs)));
    assert_eq!(script.call(call(5)), [sent(5)]);
    assert_eq!(
        script.call(call(9)),
        [sent(5)],
        "a repeat can only shorten the grace"
    );
    script.break_off();
    assert_eq!(script.call(call(2)), []);
    assert_eq!(
        script.resubscribe(),
        [sent(2), asked(&["a"], Some(SlaveId(5)))]
    );
    script.settle(update("a", TaskState::Killed, 1));
    script.break_off();
    assert_eq!(script.resubscribe(), []);
    assert_eq!(
        script.call(call(1)),
        [],
        "it has ended, and the framework knows"
    );
}

#[test]
fn a_kill_that_a_new_leader_has_dropped_is_sent_again_when_the_task_is_heard_of() {
    // semantics: B9, H2
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    script.settle(update("a", TaskState::Running, 1));
    let sent = kill("a", Some(SlaveId(5)), None);
    let call = Call::Kill {
        task_id: id("a"),
        grace: None,
    };
    assert_eq!(script.call(call), std::slice::from_ref(&sent));
    script.break_off();
    assert_eq!(
        script.resubscribe(),
        [sent, asked(&["a"], Some(SlaveId(5)))]
    );
    // Its slave was not back yet: the kill fell on deaf ears. Now it is.
    let alive = MasterToFramework::Update(answer("a", TaskState::Running));
    let slave_id = answer("a", TaskState::Running).slave_id;
    assert_eq!(script.on_message(alive), [kill("a", slave_id, None)]);
    // What a master answers to a kill of a task that is cut off; another kill would go round.
    let cut_off = MasterToFramework::Update(answer("a", TaskState::Unreachable));
    assert_eq!(
        the_status(&script.on_message(cut_off)).state,
        TaskState::Unreachable
    );
}

#[test]
fn a_kill_of_an_unheard_task_is_answered_even_if_nobody_knows_it() {
    let mut script = Script::subscribed();
    let effects = script.call(Call::Kill {
        task_id: id("x"),
        grace: None,
    });
    assert_eq!(effects, [kill("x", None, None)]);
    let effects = script.on_message(MasterToFramework::Update(answer("x", TaskState::Unknown)));
    assert_eq!(the_status(&effects).state, TaskState::Gone);
}

#[test]
fn every_live_task_is_asked_about_after_a_resubscription_until_there_is_an_answer() {
    // semantics: H2, H8; D6
    let mut script = Script::subscribed();
    script.launch(&["a", "b"]);
    script.settle(update("a", TaskState::Running, 1));
    script.break_off();
    let slave = Some(SlaveId(5));
    assert_eq!(script.resubscribe(), [asked(&["a", "b"], slave)]);
    let same = MasterToFramework::Update(answer("a", TaskState::Running));
    assert_eq!(script.on_message(same), [], "it says nothing new");
    // Its slave is not back yet: no answer.
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = script.now;
        let effects = script.tick();
        if effects == [asked(&["b"], slave)] {
            waits.push(script.now.since(before));
        } else {
            assert_eq!(effects, []);
        }
    }
    assert!(waits.len() >= 5, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= RECONCILE_RETRY_MAX));
    assert!(waits[4] > waits[0] * 2, "it backs off: {waits:?}");
    let effects = script.on_message(MasterToFramework::Update(answer("b", TaskState::Gone)));
    assert_eq!(the_status(&effects).state, TaskState::Gone);
    let quiet = script.now.after(RECONCILE_INTERVAL / 2);
    while script.driver.next_deadline().is_some_and(|at| at < quiet) {
        assert_eq!(script.tick(), []);
    }
    // The next round, a quarter of an hour later.
    assert_eq!(script.tick(), [asked(&[], None), asked(&["a"], slave)]);
}

#[test]
fn a_task_that_was_said_to_be_lost_and_runs_is_found_by_the_next_round() {
    // A master that had been deposed said so when the slave left it (semantics K3).
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let mut lost = update("a", TaskState::Lost, 1);
    lost.update_id = Some(UpdateId::by_master(Epoch(1), 1));
    script.settle(lost);
    let round = (0..9).find_map(|_| Some(script.tick()).filter(|effects| !effects.is_empty()));
    assert_eq!(round, Some(vec![asked(&[], None)]));
    let runs = MasterToFramework::Update(answer("a", TaskState::Running));
    assert_eq!(script.on_message(runs), [kill("a", None, None)]);
}

#[test]
fn an_end_is_told_by_the_update_that_says_how_and_not_by_an_answer() {
    let mut script = Script::subscribed();
    script.launch(&["a", "b"]);
    script.break_off();
    let slave = Some(SlaveId(5));
    assert_eq!(script.resubscribe(), [asked(&["a", "b"], slave)]);
    let announced = |name: &str| MasterToFramework::Update(answer(name, TaskState::Finished));
    assert_eq!(script.on_message(announced("a")), []);
    assert_eq!(script.on_message(announced("b")), []);
    assert_eq!(script.on(Event::Tick), [], "not asked again at once");
    // Two questions may be on their way at once.
    assert_eq!(script.on_message(announced("a")), []);
    script.settle(update("a", TaskState::Finished, 1));
    // The other one does not come: asked again, the answer has to do.
    let again = (0..4).find_map(|_| Some(script.tick()).filter(|effects| !effects.is_empty()));
    assert_eq!(again, Some(vec![asked(&["b"], slave)]));
    let effects = script.on_message(announced("b"));
    assert_eq!(the_status(&effects).state, TaskState::Finished);
}

#[test]
fn an_answer_that_names_an_end_waits_while_the_framework_holds_the_end_up() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let running = update("a", TaskState::Running, 1);
    let update_id = running.update_id.expect("a reliable update");
    the_status(&script.on_message(MasterToFramework::Update(running)));
    // The end waits on the slave for the acknowledgement of RUNNING.
    let announced = MasterToFramework::Update(answer("a", TaskState::Finished));
    for _ in 0..3 {
        assert_eq!(script.on_message(announced.clone()), []);
        script.wait(Duration::from_secs(60));
    }
    let sent = script.call(Call::Acknowledge {
        slave_id: Some(SlaveId(5)),
        task_id: id("a"),
        update_id: Some(update_id),
    });
    assert_eq!(sent.len(), 1);
    assert_eq!(script.on_message(announced), [], "it has a moment from now");
    script.settle(update("a", TaskState::Finished, 2));
}

#[test]
fn a_lost_launch_is_found_out() {
    // semantics: H6
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    script.break_off();
    assert_eq!(script.resubscribe().len(), 1);
    let effects = script.on_message(MasterToFramework::Update(answer("a", TaskState::Unknown)));
    let status = the_status(&effects);
    assert_eq!(status.state, TaskState::Dropped);
    assert_eq!(
        status.message,
        "the master knows neither the task nor its slave"
    );
}

#[test]
fn a_refused_accept_is_followed_by_a_question_about_its_tasks() {
    let mut script = Script::subscribed();
    script.launch(&["a"]);
    let refusal = Refusal::OverLimit {
        what: "tasks".to_owned(),
        limit: 1,
        advice: "wait".to_owned(),
    };
    let refused = MasterToFramework::Refused {
        call: "Accept".to_owned(),
        refusal: refusal.clone(),
    };
    let news = News::Refused {
        call: "Accept".to_owned(),
        refusal,
    };
    let effects = script.on_message(refused);
    assert_eq!(
        effects,
        [Effect::Deliver(news), asked(&["a"], Some(SlaveId(5)))]
    );
}

#[test]
fn a_round_asks_one_bounded_message_at_a_time() {
    // D5
    let mut script = Script::subscribed();
    let names: Vec<String> = (0..RECONCILE_CHUNK + 2)
        .map(|n| format!("t{n:05}"))
        .collect();
    script.launch(&names.iter().map(String::as_str).collect::<Vec<_>>());
    script.break_off();
    let effects = script.resubscribe();
    let [Effect::Send(FrameworkToMaster::Reconcile { tasks })] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(tasks.len(), RECONCILE_CHUNK);
    for name in &names[..RECONCILE_CHUNK - 1] {
        let news = answer(name, TaskState::Staging);
        assert_eq!(script.on_message(MasterToFramework::Update(news)), []);
    }
    let last = answer(&names[RECONCILE_CHUNK - 1], TaskState::Staging);
    let effects = script.on_message(MasterToFramework::Update(last));
    let rest = [
        names[RECONCILE_CHUNK].as_str(),
        names[RECONCILE_CHUNK + 1].as_str(),
    ];
    assert_eq!(effects, [asked(&rest, Some(SlaveId(5)))]);
}

#[test]
fn a_resumed_framework_asks_for_what_only_the_master_knows() {
    let mut script = Script::with(|config| config.framework.framework_id = Some(FRAMEWORK));
    let tasks = vec![ReconcileTask {
        task_id: id("mine"),
        slave_id: None,
    }];
    assert_eq!(script.call(Call::Reconcile { tasks }), []);
    script.connect();
    let effects = script.on_message(welcome());
    assert_eq!(effects[1..], [asked(&[], None), asked(&["mine"], None)]);
    let adopted = answer("orphan", TaskState::Running);
    let effects = script.on_message(MasterToFramework::Update(adopted.clone()));
    assert_eq!(the_status(&effects), &adopted);
    assert_eq!(script.driver.live_tasks(), 2);
}
