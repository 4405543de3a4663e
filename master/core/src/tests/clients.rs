//! Clients of framework state: calls before and without a subscription, watches, sessions and their
//! ends.

use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Refusal;
use meros_proto::state::{
    Condition, LeaseName, Numbered, Revision, SessionId, SpaceId, SpaceName, StateCall,
    StateChange, StateKey, StateOperation, Token,
};

use super::world::{World, check, framework, secs};
use crate::{
    CHANGES_PER_PRINCIPAL_MAX, ConnectionId, OperatorCall, WATCH_TIMEOUT, WATCHES_PER_PRINCIPAL_MAX,
};

fn name() -> SpaceName {
    SpaceName::new("main").expect("a name")
}

fn key(name: &str) -> StateKey {
    StateKey::new(name).expect("a key")
}

fn lease() -> LeaseName {
    LeaseName::new("leader").expect("a name")
}

fn set(name: &str, value: &str) -> StateChange {
    StateChange::Commit {
        conditions: Vec::new(),
        operations: vec![StateOperation::Set {
            key: key(name),
            value: value.into(),
        }],
    }
}

fn read(name: &str) -> StateCall {
    StateCall::Read {
        keys: vec![key(name)],
    }
}

fn change(by: Option<(u64, u64)>, change: StateChange) -> StateCall {
    let by = by.map(|(session, number)| Numbered {
        session: SessionId(session),
        number,
    });
    StateCall::Change { by, change }
}

fn open(seconds: u64) -> StateCall {
    let open = StateChange::Open {
        holder: "h".to_owned(),
        ttl: secs(seconds),
    };
    change(None, open)
}

fn acquire() -> StateChange {
    StateChange::Acquire {
        lease: lease(),
        permits: 1,
        wait: true,
    }
}

fn keep_alive(session: u64) -> StateCall {
    StateCall::KeepAlive {
        session: SessionId(session),
    }
}

fn watch(after: u64) -> StateCall {
    StateCall::Watch {
        prefix: String::new(),
        after: Revision(after),
    }
}

impl World {
    fn call(&mut self, connection: ConnectionId, request: u64, call: StateCall) -> Vec<String> {
        let space = name();
        let message = FrameworkToMaster::State {
            request,
            space,
            call,
        };
        self.framework_says(connection, message)
    }
}

#[test]
fn a_standby_reaches_what_the_subscribed_one_has_written_and_another_principal_does_not() {
    let mut world = World::new();
    let active = world.framework(framework());
    check(
        world.call(active, 7, change(None, set("a", "1"))),
        &["f1 state 7 done 1"],
    );
    let standby = world.connect_framework("framework");
    check(
        world.call(standby, 1, read("a")),
        &["f2 state 1 entries a=1@1"],
    );
    let stranger = world.connect_framework("stranger");
    check(world.call(stranger, 1, read("a")), &["f3 state 1 entries "]);
    let space = SpaceId {
        principal: "framework".to_owned(),
        name: name(),
    };
    let call = OperatorCall::State {
        space,
        call: read("a"),
    };
    check(world.operator(4, call), &["reply 4 entries a=1@1"]);
    check(
        world.operator(5, OperatorCall::Spaces),
        &["reply 5 1 spaces"],
    );
    // It outlives its framework: the next instance wants to know.
    world.framework_says(active, FrameworkToMaster::Teardown);
    check(
        world.call(standby, 2, read("a")),
        &["f2 state 2 entries a=1@1"],
    );
}

#[test]
fn an_answer_waits_until_the_change_is_committed_and_a_reader_sees_it_only_then() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    world.commits = false;
    check(
        world.call(f, 1, change(None, set("a", "1"))),
        &["propose ChangeState"],
    );
    check(world.call(f, 2, read("a")), &["f1 state 2 entries "]);
    check(world.commit_next(), &["f1 state 1 done 1"]);
    check(world.call(f, 3, read("a")), &["f1 state 3 entries a=1@1"]);
    // One that has gone is not answered, but what it wanted is done.
    world.call(f, 4, change(None, set("a", "2")));
    world.disconnect(f);
    check(world.commit_next(), &[]);
    let f = world.connect_framework("framework");
    check(world.call(f, 1, read("a")), &["f2 state 1 entries a=2@2"]);
}

#[test]
fn a_change_sent_again_to_the_next_leader_is_carried_out_once() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    check(world.call(f, 1, open(5)), &["f1 state 1 opened 1"]);
    let absent = || {
        let StateChange::Commit { operations, .. } = set("a", "1") else {
            unreachable!("it is one")
        };
        let conditions = vec![Condition::Absent(key("a"))];
        change(
            Some((1, 1)),
            StateChange::Commit {
                conditions,
                operations,
            },
        )
    };
    check(world.call(f, 2, absent()), &["f1 state 2 done 2"]);
    let mut world = world.after_failover();
    let f = world.connect_framework("framework");
    check(world.call(f, 2, absent()), &["f1 state 2 done 2"]);
    let late = change(Some((1, 0)), set("a", "2"));
    check(world.call(f, 3, late), &["f1 state 3 outdated"]);
    let unknown = change(Some((9, 1)), set("a", "2"));
    check(world.call(f, 4, unknown), &["f1 state 4 session_ended"]);
}

#[test]
fn watchers_are_told_at_once_and_answered_when_nothing_happens() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    check(world.call(f, 1, watch(0)), &[]);
    let prefixed = StateCall::Watch {
        prefix: "b".to_owned(),
        after: Revision(0),
    };
    check(world.call(f, 2, prefixed), &[]);
    check(
        world.call(f, 3, change(None, set("a", "1"))),
        &["f1 state 3 done 1", "f1 state 1 changes until 1: a=1@1"],
    );
    check(world.pass(WATCH_TIMEOUT), &["f1 state 2 changes until 1: "]);
    check(
        world.call(f, 4, watch(0)),
        &["f1 state 4 changes until 1: a=1@1"],
    );
    check(world.call(f, 5, watch(9)), &["f1 state 5 compacted"]);
    // Whoever has gone is not told, and takes no room.
    check(world.call(f, 6, watch(1)), &[]);
    world.disconnect(f);
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn a_session_without_a_sign_of_life_ends_and_the_next_one_holds_the_lease() {
    let mut world = World::new();
    let (a, b) = (
        world.connect_framework("framework"),
        world.connect_framework("framework"),
    );
    check(world.call(a, 1, open(5)), &["f1 state 1 opened 1"]);
    check(world.call(b, 1, open(60)), &["f2 state 1 opened 2"]);
    let lines = world.call(a, 2, change(Some((1, 1)), acquire()));
    check(lines, &["f1 state 2 queued 3 holds=true"]);
    let lines = world.call(b, 2, change(Some((2, 1)), acquire()));
    check(lines, &["f2 state 2 queued 4 holds=false"]);
    let watch = |revision| StateCall::WatchLease {
        lease: lease(),
        revision: Revision(revision),
    };
    check(
        world.call(b, 3, watch(3)),
        &["f2 state 3 lease leader: 3 (4)"],
    );
    check(world.call(b, 4, watch(4)), &[]);
    world.pass(secs(4));
    check(world.call(a, 3, keep_alive(1)), &["f1 state 3 alive"]);
    check(world.pass(secs(4)), &[]);
    check(world.pass(secs(1)), &["f2 state 4 lease leader: 4"]);
    check(
        world.call(a, 4, keep_alive(1)),
        &["f1 state 4 session_ended"],
    );
    let fenced = StateChange::Commit {
        conditions: vec![Condition::Holds {
            lease: lease(),
            token: Token(3),
        }],
        operations: Vec::new(),
    };
    check(
        world.call(a, 5, change(None, fenced)),
        &["f1 state 5 stale_token"],
    );
    assert_eq!(world.core.counters().state_sessions_expired, 1);
}

#[test]
fn a_session_that_is_being_ended_is_not_saved_by_a_late_sign_of_life() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    world.call(f, 1, open(5));
    world.commits = false;
    check(world.pass(secs(5)), &["propose EndStateSession"]);
    check(
        world.call(f, 2, keep_alive(1)),
        &["f1 state 2 session_ended"],
    );
    check(world.pass(secs(60)), &[]);
    check(world.commit_next(), &[]);
}

#[test]
fn the_next_leader_gives_each_session_its_whole_time() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    world.call(f, 1, open(5));
    world.pass(secs(4));
    let mut world = world.after_failover();
    check(world.pass(secs(4)), &[]);
    let f = world.connect_framework("framework");
    check(world.call(f, 1, keep_alive(1)), &["f1 state 1 alive"]);
    world.pass(secs(5));
    check(
        world.call(f, 2, keep_alive(1)),
        &["f1 state 2 session_ended"],
    );
}

#[test]
fn a_space_that_is_cleared_ends_its_sessions() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    world.call(f, 1, open(5));
    world.call(f, 2, change(Some((1, 1)), acquire()));
    let watch = StateCall::WatchLease {
        lease: lease(),
        revision: Revision(2),
    };
    check(world.call(f, 3, watch), &[]);
    check(
        world.call(f, 4, change(None, StateChange::Clear)),
        &["f1 state 4 done 3", "f1 state 3 lease leader: "],
    );
    check(
        world.call(f, 5, keep_alive(1)),
        &["f1 state 5 session_ended"],
    );
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn one_principal_cannot_take_all_the_room_of_others() {
    let mut world = World::new();
    let f = world.connect_framework("framework");
    for request in 0..WATCHES_PER_PRINCIPAL_MAX as u64 {
        check(world.call(f, request, watch(0)), &[]);
    }
    check(
        world.call(f, 1_000, watch(0)),
        &["f1 state 1000 over_limit"],
    );
    let other = world.connect_framework("other");
    check(world.call(other, 1, watch(0)), &[]);
    world.commits = false;
    for request in 0..CHANGES_PER_PRINCIPAL_MAX as u64 {
        world.call(f, request, change(None, set("a", "1")));
    }
    let lines = world.call(f, 1, change(None, set("a", "1")));
    check(lines, &["f1 state 1 over_limit"]);
    assert!(
        Refusal::OverLimit {
            what: String::new(),
            limit: 0,
            advice: String::new()
        }
        .is_retryable()
    );
    let lines = world.call(other, 2, change(None, set("a", "1")));
    check(lines, &["propose ChangeState"]);
}
