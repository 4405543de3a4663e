//! The read model follows the events, and forgets what it must.

use meros_proto::attribute::Attributes;
use meros_proto::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::labels::Labels;
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ClusterChange, ExecutorView, FrameworkState, FrameworkView, MasterView, OfferEnd, OfferView,
    SlaveView, TaskView,
};

use super::*;

const F0: FrameworkId = FrameworkId(0);
const S0: SlaveId = SlaveId(0);
const S1: SlaveId = SlaveId(1);
const ALL: usize = usize::MAX;

fn resources(text: &str) -> Resources {
    text.parse().expect("resources")
}

fn elected(epoch: u64) -> ClusterChange {
    ClusterChange::Elected(MasterView {
        cluster_id: ClusterId(1),
        epoch: Epoch(epoch),
        elected_at: Timestamp(1),
        version: "0.1.0".to_owned(),
    })
}

fn slave(id: SlaveId) -> ClusterChange {
    ClusterChange::Slave(SlaveView {
        slave_id: id,
        hostname: format!("host{}", id.0),
        http_address: String::new(),
        state: SlaveState::Registered,
        state_since: Timestamp(1),
        mode: Default::default(),
        mode_since: Default::default(),
        is_drained: false,
        unavailability: None,
        resources: resources("cpus:8;mem:1024;ports:[1-100]"),
        attributes: Attributes::default(),
        version: "0.1.0".to_owned(),
    })
}

fn framework(id: FrameworkId, state: FrameworkState) -> ClusterChange {
    ClusterChange::Framework(FrameworkView {
        framework_id: id,
        name: format!("framework{}", id.0),
        principal: "p".to_owned(),
        roles: Vec::new(),
        suppressed_roles: Vec::new(),
        state,
        state_since: Timestamp(1),
        failover_timeout: Duration::ZERO,
        webui_url: String::new(),
        offers_max: None,
    })
}

fn id(text: &str) -> TaskId {
    TaskId::new(text).expect("an id")
}

fn task(name: &str, slave_id: SlaveId, takes: &str) -> ClusterChange {
    ClusterChange::TaskAdded(TaskView {
        task_id: id(name),
        name: name.to_owned(),
        framework_id: F0,
        slave_id,
        role: "*".parse().expect("a role"),
        resources: resources(takes),
        state: TaskState::Staging,
        status: None,
        launched_at: Timestamp(2),
        labels: Labels::default(),
        executor_id: None,
    })
}

fn becomes(name: &str, state: TaskState) -> ClusterChange {
    ClusterChange::TaskChanged {
        framework_id: F0,
        task_id: id(name),
        state,
        status: None,
    }
}

fn leaves(name: &str) -> ClusterChange {
    ClusterChange::TaskRemoved {
        framework_id: F0,
        task_id: id(name),
    }
}

fn offer(number: u64, takes: &str) -> ClusterChange {
    ClusterChange::OfferMade(OfferView {
        offer_id: OfferId {
            epoch: Epoch(1),
            number,
        },
        framework_id: F0,
        slave_id: S0,
        role: "*".parse().expect("a role"),
        resources: resources(takes),
        made_at: Timestamp(3),
    })
}

fn executor(slave_id: SlaveId, takes: &str) -> ClusterChange {
    ClusterChange::ExecutorAdded(Arc::new(ExecutorView {
        executor_id: ExecutorId::new("e").expect("an id"),
        name: "e".to_owned(),
        framework_id: F0,
        slave_id,
        role: "*".parse().expect("a role"),
        resources: resources(takes),
        labels: Labels::default(),
    }))
}

fn executor_leaves(slave_id: SlaveId) -> ClusterChange {
    ClusterChange::ExecutorRemoved {
        slave_id,
        framework_id: F0,
        executor_id: ExecutorId::new("e").expect("an id"),
    }
}

/// A cluster of two slaves and a framework.
fn model() -> ReadModel {
    let mut model = ReadModel::default();
    apply(
        &mut model,
        [
            elected(1),
            slave(S0),
            slave(S1),
            framework(F0, FrameworkState::Subscribed),
        ],
    );
    model
}

fn apply(model: &mut ReadModel, changes: impl IntoIterator<Item = ClusterChange>) {
    for change in changes {
        let first = matches!(change, ClusterChange::Elected(_));
        let sequence = if first { 1 } else { model.sequence() + 1 };
        model.apply(ClusterEvent {
            sequence,
            at: Timestamp(9),
            change,
        });
    }
}

fn used(model: &ReadModel, at: usize) -> (String, u64) {
    let row = &model.slaves(None, ALL).rows[at];
    (row.used.to_string(), row.tasks)
}

fn count_of(model: &ReadModel, state: TaskState) -> u64 {
    model
        .task_totals()
        .iter()
        .find(|(one, _)| *one == state)
        .expect("every state")
        .1
}

fn names(model: &ReadModel, filter: &TaskFilter) -> Vec<String> {
    model
        .tasks(filter, None, ALL)
        .rows
        .iter()
        .map(|row| row.task.name.clone())
        .collect()
}

#[test]
fn resources_count_as_used_until_a_task_ends_or_its_slave_is_cut_off() {
    let mut model = model();
    apply(
        &mut model,
        [task("a", S0, "cpus:2;ports:[1-2]"), task("b", S0, "cpus:1")],
    );
    assert_eq!(used(&model, 0), ("cpus:3;ports:[1-2]".to_owned(), 2));

    apply(
        &mut model,
        [
            becomes("a", TaskState::Running),
            becomes("b", TaskState::Unreachable),
        ],
    );
    assert_eq!(
        used(&model, 0),
        ("cpus:2;ports:[1-2]".to_owned(), 2),
        "semantics: F4"
    );

    apply(
        &mut model,
        [
            becomes("a", TaskState::Finished),
            becomes("b", TaskState::Running),
        ],
    );
    assert_eq!(used(&model, 0), ("cpus:1".to_owned(), 1), "semantics: F8");

    apply(
        &mut model,
        [leaves("a"), becomes("b", TaskState::Failed), leaves("b")],
    );
    assert_eq!(used(&model, 0), (String::new(), 0));
    assert_eq!(
        count_of(&model, TaskState::Finished),
        0,
        "totals are of the master's tables"
    );
}

#[test]
fn what_an_executor_takes_counts_as_used_and_is_no_task() {
    let mut model = model();
    let tasks = [
        executor(S0, "cpus:0.5;ports:[7-7]"),
        executor(S1, "cpus:0.25"),
        task("a", S0, "cpus:2"),
    ];
    apply(&mut model, tasks);
    assert_eq!(used(&model, 0), ("cpus:2.5;ports:[7-7]".to_owned(), 1));
    assert_eq!(used(&model, 1), ("cpus:0.25".to_owned(), 0));
    let of_framework = &model.frameworks(None, ALL).rows[0];
    assert_eq!(of_framework.used, resources("cpus:2.75"));
    let of_role = &model.roles(RoleFilter::Any, None, ALL).rows[0];
    let cpus = of_role.used.iter().next().map(|(_, amount)| *amount);
    assert_eq!((cpus, of_role.tasks), ("2.75".parse().ok(), 1));
    assert_eq!(model.executors().count(), 2);

    // Told twice is there once; ended twice is gone once.
    let again = [
        executor(S0, "cpus:1"),
        executor_leaves(S1),
        executor_leaves(S1),
    ];
    apply(&mut model, again);
    assert_eq!(used(&model, 0), ("cpus:3".to_owned(), 1));
    assert_eq!(used(&model, 1), (String::new(), 0));
    apply(&mut model, [executor_leaves(S0)]);
    assert_eq!(used(&model, 0), ("cpus:2".to_owned(), 1));
    assert_eq!(model.executors().count(), 0);
}

#[test]
fn a_framework_s_use_adds_up_over_slaves_where_the_same_port_is_not_the_same() {
    let mut model = model();
    apply(
        &mut model,
        [
            task("a", S0, "cpus:2;ports:[7-7]"),
            task("b", S1, "cpus:2;ports:[7-7]"),
        ],
    );
    let row = |model: &ReadModel| model.frameworks(None, ALL).rows[0].clone();
    assert_eq!(row(&model).used, resources("cpus:4"));
    assert_eq!(row(&model).tasks, 2);
    apply(&mut model, [becomes("a", TaskState::Killed), leaves("a")]);
    assert_eq!(row(&model).used, resources("cpus:2"));
    assert_eq!(used(&model, 1), ("cpus:2;ports:[7-7]".to_owned(), 1));
}

#[test]
fn offers_are_held_by_a_slave_and_a_framework_until_they_end() {
    let mut model = model();
    apply(&mut model, [offer(1, "cpus:3"), offer(2, "cpus:1;mem:5")]);
    assert_eq!(
        model.slaves(None, ALL).rows[0].offered,
        resources("cpus:4;mem:5")
    );
    assert_eq!(model.frameworks(None, ALL).rows[0].offers, 2);
    let offer_id = OfferId {
        epoch: Epoch(1),
        number: 1,
    };
    apply(
        &mut model,
        [ClusterChange::OfferEnded {
            offer_id,
            end: OfferEnd::Declined,
        }],
    );
    assert_eq!(
        model.slaves(None, ALL).rows[0].offered,
        resources("cpus:1;mem:5")
    );
    assert_eq!(model.offers(Some(F0), None, ALL).total, 1);
    assert_eq!(model.offers(Some(FrameworkId(7)), None, ALL).total, 0);
}

#[test]
fn tasks_are_found_by_framework_id_and_state_and_pages_tell_the_total() {
    let mut model = model();
    apply(
        &mut model,
        ["a", "b", "c"].map(|name| task(name, S0, "cpus:1")),
    );
    apply(&mut model, [becomes("b", TaskState::Finished), leaves("b")]);
    let with = |change: fn(&mut TaskFilter)| {
        let mut filter = TaskFilter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(
        names(&model, &TaskFilter::default()),
        ["a", "c", "b"],
        "those that left come last"
    );
    assert_eq!(
        names(&model, &with(|f| f.state = Some(StateFilter::Active))),
        ["a", "c"]
    );
    assert_eq!(
        names(&model, &with(|f| f.state = Some(StateFilter::Ended))),
        ["b"]
    );
    assert_eq!(
        names(
            &model,
            &with(|f| f.state = Some(StateFilter::Is(TaskState::Staging)))
        ),
        ["a", "c"]
    );
    assert_eq!(names(&model, &with(|f| f.task = Some(id("c")))), ["c"]);
    assert_eq!(
        names(&model, &with(|f| f.task = Some(id("b")))),
        ["b"],
        "also when it has left"
    );
    assert!(names(&model, &with(|f| f.framework = Some(FrameworkId(1)))).is_empty());
    let page = model.tasks(&TaskFilter::default(), None, 2);
    assert_eq!((page.rows.len(), page.total), (2, 3));
}

#[test]
fn completed_tasks_and_frameworks_are_bounded_f9() {
    let mut model = model();
    for number in 0..COMPLETED_TASKS_MAX + 3 {
        let name = format!("t{number}");
        apply(
            &mut model,
            [
                task(&name, S0, "cpus:1"),
                becomes(&name, TaskState::Finished),
                leaves(&name),
            ],
        );
    }
    let page = model.tasks(&TaskFilter::default(), None, 1);
    assert_eq!(page.total, COMPLETED_TASKS_MAX);
    assert_eq!(
        page.rows[0].task.name,
        format!("t{}", COMPLETED_TASKS_MAX + 2),
        "newest first"
    );

    let completed = u32::try_from(COMPLETED_FRAMEWORKS_MAX).unwrap();
    for number in 0..=completed {
        apply(
            &mut model,
            [framework(FrameworkId(number), FrameworkState::Completed)],
        );
    }
    let rows = model.frameworks(None, ALL).rows;
    assert_eq!(rows.len(), COMPLETED_FRAMEWORKS_MAX);
    assert_eq!(
        rows[0].framework.framework_id,
        FrameworkId(1),
        "the oldest is forgotten"
    );
    assert_eq!(
        model.tasks(&TaskFilter::default(), None, 1).total,
        0,
        "and its tasks"
    );
}

#[test]
fn an_election_makes_what_was_known_void() {
    let mut model = model();
    apply(
        &mut model,
        [task("a", S0, "cpus:2"), offer(1, "cpus:1"), elected(2)],
    );
    assert_eq!(model.master().map(|master| master.epoch), Some(Epoch(2)));
    assert_eq!(
        (model.slaves(None, ALL).total, model.offers_count()),
        (0, 0)
    );
    assert_eq!(count_of(&model, TaskState::Staging), 0);
}

#[test]
fn events_about_the_unknown_change_nothing() {
    let mut model = model();
    let offer_id = OfferId {
        epoch: Epoch(1),
        number: 99,
    };
    apply(
        &mut model,
        [
            becomes("ghost", TaskState::Running),
            leaves("ghost"),
            ClusterChange::OfferEnded {
                offer_id,
                end: OfferEnd::Rescinded,
            },
            ClusterChange::SlaveRemoved(SlaveId(9)),
        ],
    );
    assert_eq!(model.tasks(&TaskFilter::default(), None, ALL).total, 0);
    assert_eq!(model.slaves(None, ALL).total, 2);
}

#[test]
fn a_publisher_waits_for_a_slow_reader_and_nothing_is_lost() {
    let exit = Exit::new();
    let (projection, publisher, thread) = Projection::start(&exit).expect("a thread");
    let reader = projection.read();
    let batches = PENDING_BATCHES_MAX as u64 + 10;
    let sender = std::thread::spawn(move || {
        for sequence in 1..=batches {
            let change = if sequence == 1 {
                elected(1)
            } else {
                slave(SlaveId(u32::try_from(sequence).unwrap()))
            };
            let event = ClusterEvent {
                sequence,
                at: Timestamp(1),
                change,
            };
            publisher.publish(vec![event]).expect("the thread lives");
        }
    });
    // The model's thread holds one batch and waits for the lock; the queue holds its capacity.
    let deadline = Instant::now() + Duration::from_secs(20);
    while projection.waits() == 0 {
        assert!(Instant::now() < deadline, "the publisher never had to wait");
        std::thread::yield_now();
    }
    assert!(!sender.is_finished());
    assert_eq!(reader.sequence(), 0, "a reader sees one moment");
    drop(reader);
    sender.join().unwrap();
    thread.join().unwrap();
    assert_eq!(projection.read().sequence(), batches);
    assert_eq!(
        projection.read().slaves(None, ALL).total as u64,
        batches - 1
    );
}

/// Reads all tasks in pages; before each but the first `meanwhile` may change the model.
fn paged(model: &mut ReadModel, limit: usize, meanwhile: &[ClusterChange]) -> Vec<String> {
    let mut found = Vec::new();
    let mut after: Option<TaskCursor> = None;
    let mut meanwhile = meanwhile.iter().cloned();
    loop {
        let page = model.tasks(&TaskFilter::default(), after.as_ref(), limit);
        assert!(page.rows.len() <= limit);
        found.extend(page.rows.iter().map(|row| row.task.name.clone()));
        let Some(next) = page.next else {
            return found;
        };
        assert_eq!(page.rows.len(), limit, "only a full page has a next one");
        after = Some(next.parse().expect("our own cursor"));
        apply(model, meanwhile.next());
    }
}

#[test]
fn pages_of_any_size_make_up_the_whole_list() {
    let mut model = model();
    for name in ["a", "b", "c", "d", "e", "f"] {
        apply(&mut model, [task(name, S0, "cpus:1")]);
    }
    for name in ["b", "d", "f"] {
        apply(
            &mut model,
            [becomes(name, TaskState::Finished), leaves(name)],
        );
    }
    let whole = ["a", "c", "e", "f", "d", "b"];
    assert_eq!(names(&model, &TaskFilter::default()), whole);
    for limit in 1..8 {
        assert_eq!(paged(&mut model, limit, &[]), whole, "pages of {limit}");
    }
    let total = |after: &str| {
        let after = after.parse().expect("a cursor");
        model.tasks(&TaskFilter::default(), Some(&after), 1).total
    };
    assert_eq!((total("live/F0/c"), total("left/F0/0")), (6, 6));

    let slaves = model.slaves(None, 1);
    assert_eq!((slaves.rows.len(), slaves.total), (1, 2));
    assert_eq!(slaves.next.as_deref(), Some("S0"));
    let rest = model.slaves(Some(S0), 1);
    assert_eq!(rest.rows[0].slave.slave_id, S1);
    assert_eq!((rest.total, rest.next), (2, None));

    for number in 1..=3 {
        apply(&mut model, [offer(number, "cpus:1")]);
    }
    let first = model.offers(Some(F0), None, 2);
    let after = first
        .next
        .expect("there is a third")
        .parse()
        .expect("an id");
    let rest = model.offers(Some(F0), Some(after), 2);
    assert_eq!((rest.rows[0].offer_id.number, rest.rows.len()), (3, 1));
    assert_eq!((rest.total, rest.next), (3, None));
}

#[test]
fn a_task_that_leaves_while_pages_are_read_is_in_the_list_all_the_same() {
    let mut model = model();
    for name in ["a", "b", "c", "d"] {
        apply(&mut model, [task(name, S0, "cpus:1")]);
    }
    apply(&mut model, [leaves("d")]);
    // After the page with a: c, not yet read, leaves; then a, read already, and a new one comes.
    let meanwhile = [leaves("c"), leaves("a"), task("0", S0, "cpus:1")];
    let found = paged(&mut model, 1, &meanwhile);
    for name in ["a", "b", "c", "d"] {
        assert!(
            found.iter().any(|one| one == name),
            "{name} is not in {found:?}"
        );
    }
}

#[test]
fn a_text_that_is_no_cursor_is_refused() {
    for text in [
        "",
        "live",
        "live/F0",
        "live/F0/a/b",
        "left/F0/x",
        "gone/F0/1",
        "live/0/a",
    ] {
        assert_eq!(text.parse::<TaskCursor>(), Err(BadCursor), "{text:?}");
    }
    let cursor = TaskCursor::Live(F0, id("a:ü?"));
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
}

/// Through the rows and back.
fn copied(model: &ReadModel) -> ReadModel {
    let (rows, sequence) = model.rows();
    let mut copy = ReadModel::default();
    rows.into_iter().for_each(|row| copy.put(row));
    copy.complete(sequence);
    copy
}

#[test]
fn a_copy_of_the_model_says_the_same_now_and_after_further_events() {
    let mut model = model();
    let offer_id = OfferId {
        epoch: Epoch(1),
        number: 1,
    };
    apply(
        &mut model,
        [
            ClusterChange::Role(meros_proto::view::RoleView {
                role: "web".parse().expect("a role"),
                weight: "3".parse().expect("a number"),
                quota: Default::default(),
                minimum: None,
            }),
            ClusterChange::Role(meros_proto::view::RoleView {
                role: "volumes".parse().expect("a role"),
                weight: meros_proto::resources::Scalar::ONE,
                quota: Default::default(),
                minimum: "cpus:2|disk:1".parse().ok(),
            }),
            framework(FrameworkId(4), FrameworkState::Completed),
            framework(FrameworkId(3), FrameworkState::Completed),
            task("a", S0, "cpus:2;ports:[1-2]"),
            executor(S0, "cpus:0.5"),
            executor(S1, "cpus:0.5"),
            executor_leaves(S1),
            task("b", S1, "cpus:1"),
            task("c", S1, "cpus:1"),
            remembered("d", S1),
            offer(1, "cpus:1"),
            offer(2, "mem:5"),
            becomes("b", TaskState::Finished),
            leaves("b"),
            becomes("c", TaskState::Failed),
            leaves("c"),
            ClusterChange::OfferEnded {
                offer_id,
                end: OfferEnd::Declined,
            },
        ],
    );
    let mut copy = copied(&model);
    let rows = |model: &ReadModel| {
        (
            model.slaves(None, ALL),
            model.frameworks(None, ALL),
            model.offers(None, None, ALL),
            model.tasks(&TaskFilter::default(), None, ALL),
            model.roles(RoleFilter::Any, None, ALL),
            (
                model.executors().cloned().collect::<Vec<_>>(),
                model.task_totals(),
                model.remembered_count(),
                model.sequence(),
            ),
        )
    };
    assert_eq!(rows(&copy), rows(&model));
    let more = || {
        let last = 9 + u32::try_from(COMPLETED_FRAMEWORKS_MAX).unwrap();
        let others =
            (10..last).map(|number| framework(FrameworkId(number), FrameworkState::Completed));
        let own = [
            becomes("a", TaskState::Finished),
            leaves("a"),
            offer(7, "cpus:1"),
        ];
        own.into_iter().chain(others)
    };
    apply(&mut model, more());
    apply(&mut copy, more());
    assert_eq!(
        rows(&copy),
        rows(&model),
        "also what is forgotten, and cursors"
    );
}

fn remembered(name: &str, slave_id: SlaveId) -> ClusterChange {
    match task(name, slave_id, "cpus:1") {
        ClusterChange::TaskAdded(task) => ClusterChange::TaskRemembered(task.into()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_remembered_is_listed_with_a_mark_and_in_no_sum() {
    let mut model = model();
    apply(&mut model, ["a", "b", "c"].map(|name| remembered(name, S0)));
    assert_eq!(used(&model, 0), (String::new(), 0));
    assert_eq!(count_of(&model, TaskState::Staging), 0);
    assert_eq!(model.remembered_count(), 3);
    let marks = |model: &ReadModel| -> Vec<(String, bool)> {
        let page = model.tasks(&TaskFilter::default(), None, ALL);
        let marks = page.rows.iter();
        marks
            .map(|row| (row.task.name.clone(), row.remembered))
            .collect()
    };
    // One is there, of one nothing more is heard, and one is forgotten.
    let forgotten = ClusterChange::TaskForgotten {
        framework_id: F0,
        task_id: id("c"),
    };
    apply(&mut model, [task("a", S0, "cpus:2"), forgotten]);
    assert_eq!(
        marks(&model),
        [("a".to_owned(), false), ("b".to_owned(), true)]
    );
    assert_eq!(used(&model, 0), ("cpus:2".to_owned(), 1));
    assert_eq!(
        model.tasks_known().len(),
        2,
        "the next leader remembers both"
    );
}

fn stream(sequence: u64, rows: Vec<Row>) -> Vec<Followed> {
    let rows = rows.into_iter().map(Followed::Row);
    let all = std::iter::once(Followed::Begin).chain(rows);
    all.chain([Followed::Complete(sequence)]).collect()
}

fn event(sequence: u64, change: ClusterChange) -> ClusterEvent {
    ClusterEvent {
        sequence,
        at: Timestamp(9),
        change,
    }
}

#[test]
fn a_follower_has_the_leaders_view_until_it_leads_itself() {
    let exit = Exit::new();
    let (projection, publisher, thread) = Projection::start(&exit).expect("a thread");
    assert_eq!(projection.currency(), Currency::Void);
    assert_eq!(
        projection.subscribe().err(),
        Some(SubscribeError::NotLeading)
    );

    let (rows, sequence) = model().rows();
    projection.follow(stream(sequence, rows)).expect("room");
    let as_of = projection.now();
    let news = vec![
        Followed::Event(event(sequence + 1, task("a", S0, "cpus:1"))),
        Followed::AsOf(as_of),
    ];
    projection.follow(news).expect("room");
    // Whoever begins to lead waits until all of it is applied.
    let known = publisher.lead().expect("the thread lives");
    assert_eq!(known.len(), 1);
    assert!(matches!(projection.currency(), Currency::Behind(_)));

    let late = vec![Followed::Event(event(sequence + 2, leaves("a")))];
    projection.follow(late).expect("room");
    let own = vec![event(1, elected(2)), event(2, slave(S0))];
    publisher.publish(own).expect("the thread lives");
    let known = publisher.lead().expect("the thread lives");
    assert_eq!(known.len(), 0, "what the leader before sends is not heard");
    assert!(projection.is_leading());

    publisher.rest().expect("the thread lives");
    publisher.lead().expect("the thread lives");
    assert!(matches!(projection.currency(), Currency::Behind(_)));
    let slaves = projection.read().slaves(None, ALL).total;
    assert_eq!(slaves, 1, "what was known stays, and grows old");
    drop(publisher);
    thread.join().unwrap();
}

#[test]
fn a_stream_that_breaks_off_among_its_rows_leaves_what_was_known() {
    let exit = Exit::new();
    let (projection, publisher, thread) = Projection::start(&exit).expect("a thread");
    let (rows, sequence) = model().rows();
    projection
        .follow(stream(sequence, rows.clone()))
        .expect("room");
    let mut broken = stream(sequence, rows);
    broken.truncate(3);
    broken.push(Followed::Event(event(sequence + 1, leaves("a"))));
    projection.follow(broken).expect("room");
    publisher.lead().expect("the thread lives");
    assert_eq!(projection.read().slaves(None, ALL).total, 2);
    drop(publisher);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_subscriber_gets_all_there_is_and_then_everything_once() {
    let exit = Exit::new();
    let (projection, publisher, thread) = Projection::start(&exit).expect("a thread");
    publisher
        .publish(vec![event(1, elected(1)), event(2, slave(S0))])
        .unwrap();
    publisher.lead().unwrap();
    let mut subscription = projection.subscribe().expect("it leads");
    assert_eq!((subscription.rows.len(), subscription.sequence), (2, 2));
    publisher.publish(vec![event(3, slave(S1))]).unwrap();
    projection.mark(subscription.number, 77);
    let removed = ClusterChange::SlaveRemoved(S1);
    publisher.publish(vec![event(4, removed)]).unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        match subscription.next().await.expect("it leads") {
            News::Events(events) => told.extend(events.iter().map(|event| event.sequence)),
            News::Mark(number) => told.push(number),
        }
    }
    assert_eq!(
        told,
        [3, 77, 4],
        "a mark stands behind what was published before it"
    );
    publisher.rest().unwrap();
    assert!(subscription.next().await.is_none(), "it leads no more");
    drop(publisher);
    thread.join().unwrap();
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_and_counted() {
    let exit = Exit::new();
    let (projection, publisher, thread) = Projection::start(&exit).expect("a thread");
    publisher.publish(vec![event(1, elected(1))]).unwrap();
    publisher.lead().unwrap();
    let _slow = projection.subscribe().expect("it leads");
    let mut sequence = 1;
    while projection.followers().1 == 0 {
        assert!(sequence < 10_000_000, "never dropped");
        let one = |more: u64| event(sequence + more, ClusterChange::SlaveRemoved(S0));
        publisher.publish((1..=1_000).map(one).collect()).unwrap();
        sequence += 1_000;
    }
    assert_eq!(projection.followers(), (0, 1));
    drop(publisher);
    thread.join().unwrap();
}
