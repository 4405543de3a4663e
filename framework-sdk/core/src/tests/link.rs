//! The subscription: connecting, coming back, being refused, ending.

use meros_proto::constraint::OfferWishes;

use super::*;

#[test]
fn it_connects_at_once_and_subscribes_before_anything_else() {
    let mut script = Script::new();
    assert_eq!(script.driver.next_deadline(), Some(script.now));
    assert_eq!(script.on(Event::Tick), [Effect::Connect { hint: None }]);
    let effects = script.on(Event::Connected);
    let [
        Effect::Send(FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles,
            ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!((framework.framework_id, suppressed_roles.len()), (None, 0));
    let news = News::Subscribed {
        framework_id: FRAMEWORK,
        cluster_id: CLUSTER,
        again: false,
    };
    assert_eq!(script.on_message(welcome()), [Effect::Deliver(news)]);
    assert_eq!(script.driver.framework_id(), Some(FRAMEWORK));
}

#[test]
fn a_leader_that_is_found_ends_the_wait_for_the_next_attempt() {
    let mut script = Script::new();
    script.connect();
    assert_eq!(script.on(Event::LeaderFound), [], "it is on its way there");
    script.on_message(welcome());
    assert_eq!(script.on(Event::LeaderFound), [], "it is subscribed");
    script.break_off();
    assert!(script.driver.next_deadline() > Some(script.now));
    let connect = Effect::Connect { hint: None };
    assert_eq!(script.on(Event::LeaderFound), [connect]);
    assert_eq!(script.on(Event::LeaderFound), [], "once");
}

#[test]
fn a_resubscription_bears_the_id_and_the_roles_that_are_suppressed_now() {
    // semantics: N2, N6
    let roles: Vec<RoleName> = ["a", "b"]
        .map(|role| role.parse().expect("a role"))
        .to_vec();
    let mut script = Script::with(|config| config.framework.roles = roles.clone());
    script.connect();
    script.on_message(welcome());
    let suppress = |script: &mut Script, roles: &[RoleName]| {
        script.call(Call::Suppress {
            roles: roles.to_vec(),
        })
    };
    assert_eq!(suppress(&mut script, &[]).len(), 1);
    assert_eq!(
        suppress(&mut script, &roles[..1]),
        [],
        "it is suppressed already"
    );
    script.break_off();
    assert_eq!(
        script.call(Call::Revive {
            roles: roles[1..].to_vec()
        }),
        []
    );
    let effects = script.connect();
    let [
        Effect::Send(FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles,
            ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(framework.framework_id, Some(FRAMEWORK));
    assert_eq!(suppressed_roles[..], roles[..1]);
    let foreign: RoleName = "c".parse().expect("a role");
    assert_eq!(
        suppress(&mut script, &[foreign]),
        [],
        "it would make the subscription invalid"
    );
}

#[test]
fn a_redirection_is_followed_at_once_but_not_for_ever() {
    let elsewhere = |n: u32| {
        error(Refusal::NotLeading {
            leader: Some(format!("10.0.0.{n}:5050")),
        })
    };
    let mut script = Script::new();
    script.connect();
    for n in 0..REDIRECTS_MAX {
        let hint = Some(format!("10.0.0.{n}:5050"));
        let effects = script.on_message(elsewhere(n));
        assert_eq!(effects, [Effect::Disconnect, Effect::Connect { hint }]);
        let _ = script.on(Event::Connected);
    }
    let effects = script.on_message(elsewhere(9));
    assert!(
        matches!(
            effects[..],
            [
                Effect::Disconnect,
                Effect::Deliver(News::ConnectFailed { .. })
            ]
        ),
        "{effects:?}"
    );
    assert_eq!(
        script.tick(),
        [Effect::Connect {
            hint: Some("10.0.0.9:5050".to_owned())
        }]
    );
}

#[test]
fn a_leader_that_steps_down_interrupts_and_is_replaced() {
    let mut script = Script::subscribed();
    let refusal = Refusal::NotLeading {
        leader: Some("10.0.0.2:5050".to_owned()),
    };
    let effects = script.on_message(error(refusal));
    assert!(
        matches!(
            &effects[..],
            [
                Effect::Disconnect,
                Effect::Deliver(News::Disconnected { .. }),
                Effect::Connect { hint: Some(_) }
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn attempts_that_fail_back_off_and_say_why() {
    let mut script = Script::new();
    let mut delays = Vec::new();
    for attempt in 1..=12 {
        assert!(matches!(script.tick()[..], [Effect::Connect { .. }]));
        let why = "nobody there".to_owned();
        let effects = script.on(Event::ConnectFailed {
            why: why.clone(),
            hopeless: false,
        });
        let [
            Effect::Deliver(News::ConnectFailed {
                why: said,
                attempts,
                retry_in,
            }),
        ] = &effects[..]
        else {
            panic!("{effects:?}");
        };
        assert_eq!((said, *attempts), (&why, attempt));
        assert_eq!(
            script.driver.next_deadline(),
            Some(script.now.after(*retry_in))
        );
        delays.push(*retry_in);
    }
    assert!(delays[0] <= RETRY_MIN && delays[11] >= RETRY_MAX / 2 && delays[11] <= RETRY_MAX);
}

#[test]
fn a_master_that_does_not_answer_the_subscription_is_left() {
    let mut script = Script::new();
    script.connect();
    assert_eq!(script.wait(SUBSCRIBE_TIMEOUT / 2), []);
    let effects = script.wait(SUBSCRIBE_TIMEOUT / 2);
    assert!(
        matches!(
            effects[..],
            [
                Effect::Disconnect,
                Effect::Deliver(News::ConnectFailed { .. })
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_refusal_that_would_come_again_ends_the_session_and_any_other_does_not() {
    let superseded = Refusal::Superseded {
        what: "framework".to_owned(),
    };
    let fatal = [
        Refusal::FrameworkRemoved {
            framework_id: FRAMEWORK,
        },
        Refusal::FrameworkUnknown {
            framework_id: FRAMEWORK,
        },
        Refusal::NotYours {
            what: "F3".to_owned(),
        },
        Refusal::Invalid {
            field: "name".to_owned(),
            why: "it is empty".to_owned(),
        },
        superseded,
    ];
    for refusal in fatal {
        for mut script in [Script::subscribed(), {
            let mut script = Script::new();
            script.connect();
            script
        }] {
            let effects = script.on_message(error(refusal.clone()));
            let ended = News::Ended(EndReason::Refused(refusal.clone()));
            assert_eq!(effects, [Effect::Disconnect, Effect::Deliver(ended)]);
            // D7
            assert_eq!(script.driver.next_deadline(), None);
            assert_eq!(script.call(accept(&["late"])), []);
            assert_eq!(script.on_message(welcome()), []);
            assert_eq!(script.on(Event::Tick), []);
        }
    }
    for refusal in [Refusal::Recovering, Refusal::Stopping, Refusal::TooSlow] {
        let mut script = Script::subscribed();
        let _ = script.on_message(error(refusal));
        assert!(matches!(script.tick()[..], [Effect::Connect { .. }]));
    }
}

#[test]
fn a_certificate_that_is_not_trusted_ends_the_session() {
    let mut script = Script::new();
    let _ = script.tick();
    let why = "the certificate is of another cluster".to_owned();
    let effects = script.on(Event::ConnectFailed {
        why: why.clone(),
        hopeless: true,
    });
    let ended = Effect::Deliver(News::Ended(EndReason::Untrusted { why }));
    assert_eq!(effects, [Effect::Disconnect, ended]);
}

#[test]
fn an_id_is_not_used_in_another_cluster() {
    let mut script = Script::with(|config| {
        config.framework.framework_id = Some(FRAMEWORK);
        config.cluster_id = Some(ClusterId(1));
    });
    script.connect();
    let effects = script.on_message(welcome());
    assert!(
        matches!(
            &effects[..],
            [
                Effect::Disconnect,
                Effect::Deliver(News::Ended(EndReason::Refused(_)))
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_teardown_is_repeated_until_a_master_confirms_it() {
    let mut script = Script::subscribed();
    let teardown = Effect::Send(FrameworkToMaster::Teardown);
    assert_eq!(script.call(Call::Teardown), std::slice::from_ref(&teardown));
    assert_eq!(script.call(Call::Teardown), []);
    script.break_off();
    script.connect();
    assert_eq!(script.on_message(welcome()), [teardown]);
    script.break_off();
    script.connect();
    let removed = Refusal::FrameworkRemoved {
        framework_id: FRAMEWORK,
    };
    let effects = script.on_message(error(removed));
    let ended = News::Ended(EndReason::TornDown { confirmed: true });
    assert_eq!(effects, [Effect::Disconnect, Effect::Deliver(ended)]);
}

#[test]
fn a_teardown_that_nobody_hears_ends_in_time() {
    let mut script = Script::subscribed();
    let _ = script.call(Call::Teardown);
    let effects = script.wait(TEARDOWN_TIMEOUT);
    let ended = News::Ended(EndReason::TornDown { confirmed: false });
    assert_eq!(effects, [Effect::Disconnect, Effect::Deliver(ended)]);
    let mut unknown = Script::new();
    let ended = News::Ended(EndReason::TornDown { confirmed: true });
    assert_eq!(unknown.call(Call::Teardown), [Effect::Deliver(ended)]);
}

#[test]
fn messages_that_do_not_belong_where_they_come_change_nothing() {
    let mut script = Script::new();
    let status = update("a", TaskState::Running, 1);
    assert_eq!(script.on_message(MasterToFramework::Update(status)), []);
    script.connect();
    assert_eq!(script.on_message(MasterToFramework::Offers(Vec::new())), []);
    script.on_message(welcome());
    assert_eq!(script.on_message(welcome()), []);
    assert_eq!(script.on(Event::Connected), []);
    assert_eq!(script.driver.counters().out_of_place, 3);
}

#[test]
fn a_master_that_was_deposed_is_not_followed() {
    // D8: it would answer GONE about all that was launched through its successor.
    let mut script = Script::subscribed();
    let welcome_of = |term| MasterToFramework::Subscribed {
        framework_id: FRAMEWORK,
        cluster_id: CLUSTER,
        epoch: Epoch(term),
    };
    script.break_off();
    script.connect();
    assert!(matches!(
        script.on_message(welcome_of(3))[..],
        [Effect::Deliver(News::Subscribed { again: true, .. })]
    ));
    script.break_off();
    script.connect();
    let effects = script.on_message(welcome_of(2));
    assert!(
        matches!(
            effects[..],
            [
                Effect::Disconnect,
                Effect::Deliver(News::ConnectFailed { .. })
            ]
        ),
        "{effects:?}"
    );
    script.connect();
    assert!(matches!(
        script.on_message(welcome_of(3))[..],
        [Effect::Deliver(News::Subscribed { .. })]
    ));
}

#[test]
fn wishes_are_stated_with_each_subscription_and_bad_ones_taken_back() {
    // semantics: B17
    let wishes = |text: &str| {
        let role = "*".parse().expect("a role");
        vec![OfferWishes::for_role(role).least(text.parse().expect("resources"))]
    };
    let wish = |text: &str| {
        Effect::Send(FrameworkToMaster::Wish {
            wishes: wishes(text),
        })
    };
    let mut script = Script::with(|config| config.wishes = wishes("cpus:1"));
    let stated = |effects: &[Effect]| match effects {
        [Effect::Send(FrameworkToMaster::Subscribe { wishes, .. })] => wishes.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stated(&script.connect()), wishes("cpus:1"));
    // Too late for the subscription that is on its way: it follows the answer.
    let call = |text: &str| Call::Wish {
        wishes: wishes(text),
    };
    assert_eq!(script.call(call("cpus:2")), []);
    let effects = script.on_message(welcome());
    assert!(effects.contains(&wish("cpus:2")), "{effects:?}");
    assert_eq!(script.call(call("cpus:3")), [wish("cpus:3")]);
    let refusal = Refusal::Invalid {
        field: "wishes".to_owned(),
        why: "no".to_owned(),
    };
    let refused = MasterToFramework::Refused {
        call: "Wish".to_owned(),
        refusal,
    };
    let effects = script.on_message(refused.clone());
    assert_eq!(effects[0], wish("cpus:1"), "what a master took before");
    // Even if that is refused, it does not go round in circles.
    assert_eq!(script.on_message(refused).len(), 1);
}

#[test]
fn a_master_that_was_deposed_ends_no_session() {
    // D8: it has not heard of what was admitted through its successor.
    let unknown = || Refusal::FrameworkUnknown {
        framework_id: FRAMEWORK,
    };
    let another_life = || {
        let mut script = Script::with(|config| {
            config.framework.framework_id = Some(FRAMEWORK);
            config.cluster_id = Some(CLUSTER);
            config.epoch = Epoch(2);
        });
        script.connect();
        script
    };
    let says_nothing = MasterToFramework::Error {
        refusal: unknown(),
        by: None,
    };
    for message in [error_of(1, unknown()), says_nothing] {
        let mut script = another_life();
        let effects = script.on_message(message);
        assert!(
            matches!(
                effects[..],
                [
                    Effect::Disconnect,
                    Effect::Deliver(News::ConnectFailed { .. })
                ]
            ),
            "{effects:?}"
        );
        script.connect();
    }
    let ended = [
        Effect::Disconnect,
        Effect::Deliver(News::Ended(EndReason::Refused(unknown()))),
    ];
    let mut script = another_life();
    assert_eq!(script.on_message(error_of(2, unknown())), ended);
    // The terms of another cluster are nothing to us: there it is not known indeed.
    let by = Some(Leadership {
        cluster_id: ClusterId(1),
        epoch: Epoch(1),
    });
    let refusal = unknown();
    let mut script = another_life();
    let effects = script.on_message(MasterToFramework::Error { refusal, by });
    assert_eq!(effects, ended);
}
