//! How long those who want something wait, among others who decline everything, ask for what is
//! rare, or never answer. The master's core runs in virtual time, so that each run gives the same
//! figures: `cargo nextest run -p meros-benches --test waits --no-capture` prints them.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_benches::cluster::parsed;
use meros_benches::leader::Leader;
use meros_master_core::{Config, ConnectionId, Effect, Event, OperatorCall, RequestId};
use meros_proto::constraint::{Constraint, OfferWishes, Predicate, Subject};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::{Filters, Offer, Operation};
use meros_proto::quota::Quota;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::task::{Command as TaskCommand, TaskDescription};
use meros_proto::time::Timestamp;

/// From an offer to its answer: a framework that decides at once, over a network.
const THINKING: Duration = Duration::from_millis(10);
const SLAVE: &str = "cpus:4;mem:4096";

/// How a framework treats its offers.
#[derive(Clone)]
enum Manner {
    /// With the usual filter of five seconds.
    Declines,
    /// Never answers.
    Keeps,
    /// Always wants so many tasks of one cpu to run, each for so long.
    Works { tasks: usize, length: Duration },
}

struct Framework {
    manner: Manner,
    role: RoleName,
    wishes: Vec<OfferWishes>,
    id: Option<FrameworkId>,
    /// Since when each place is empty.
    empty: Vec<Timestamp>,
    /// From when a place was empty until a task was launched for it.
    waits: Vec<(Timestamp, Duration)>,
    launched: u32,
}

enum Due {
    Connect(usize),
    Answer(usize, Box<Offer>),
    End(usize, FrameworkId, TaskId),
}

/// A leading master with slaves and frameworks that answer in virtual time.
struct Site {
    leader: Leader,
    now: Timestamp,
    due: BTreeMap<(Timestamp, u64), Due>,
    sequence: u64,
    slaves: Vec<SlaveId>,
    frameworks: Vec<Framework>,
}

/// Slaves have the connections from this one, frameworks those from 0.
const FIRST_SLAVE: u64 = 1 << 32;

impl Site {
    /// Slaves with 4 cpus each, the first of them in the zone `rare`.
    fn new(slaves: usize) -> Self {
        let now = Timestamp(1);
        let mut site = Self {
            leader: Leader::new(Config::default(), now),
            now,
            due: BTreeMap::new(),
            sequence: 0,
            slaves: Vec::new(),
            frameworks: Vec::new(),
        };
        for number in 0..slaves {
            let connection = ConnectionId(FIRST_SLAVE + number as u64);
            let attributes = if number == 0 {
                "zone:rare"
            } else {
                "zone:common"
            };
            let place = (connection, number);
            let heard = site.leader.add_slave(place, parsed(SLAVE), attributes, now);
            site.hear(heard);
        }
        site
    }

    /// A framework that comes at a time.
    fn add(&mut self, at: Duration, manner: Manner, role: &str) -> usize {
        let framework = Framework {
            manner,
            role: RoleName::new(role).expect("a good role"),
            wishes: Vec::new(),
            id: None,
            empty: Vec::new(),
            waits: Vec::new(),
            launched: 0,
        };
        self.frameworks.push(framework);
        let number = self.frameworks.len() - 1;
        self.later(Timestamp(1).after(at), Due::Connect(number));
        number
    }

    fn later(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), due);
    }

    fn run(&mut self, until: Duration) {
        let until = Timestamp(1).after(until);
        loop {
            let next = self.due.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.leader.core.next_deadline();
            let Some(at) = [next, deadline].into_iter().flatten().min() else {
                return;
            };
            if at > until {
                return;
            }
            self.now = self.now.max(at);
            if next.is_some_and(|next| deadline.is_none_or(|deadline| next <= deadline)) {
                let (_, due) = self.due.pop_first().expect("it has a first");
                self.happen(due);
            } else {
                self.handle(Event::Tick);
            }
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Connect(number) => self.connect(number),
            Due::Answer(number, offer) => self.answer(number, &offer),
            Due::End(slave, framework_id, task_id) => {
                self.sequence += 1;
                let source = Source::Slave;
                let mut status = TaskStatus::new(task_id, TaskState::Finished, source, self.now);
                status.update_id = Some(UpdateId(u128::from(self.sequence)));
                status.slave_id = Some(self.slaves[slave]);
                let update = StatusUpdate {
                    framework_id,
                    latest_state: status.state,
                    status,
                };
                self.handle(Event::Slave {
                    connection: ConnectionId(FIRST_SLAVE + slave as u64),
                    message: SlaveToMaster::Update(update),
                });
            }
        }
    }

    fn connect(&mut self, number: usize) {
        let connection = ConnectionId(number as u64);
        self.handle(Event::FrameworkConnected {
            connection,
            principal: format!("framework-{number}"),
        });
        let it = &mut self.frameworks[number];
        if let Manner::Works { tasks, .. } = it.manner {
            it.empty = vec![self.now; tasks];
        }
        let name = format!("framework-{number}");
        let message = FrameworkToMaster::Subscribe {
            framework: FrameworkDescription::new(&name, it.role.clone()),
            suppressed_roles: Vec::new(),
            wishes: it.wishes.clone(),
        };
        self.say(number, message);
    }

    fn answer(&mut self, number: usize, offer: &Offer) {
        let framework = &mut self.frameworks[number];
        let one = parsed("cpus:1;mem:1");
        let mut tasks = Vec::new();
        if let Manner::Works { .. } = framework.manner {
            let mut rest: Resources = offer.resources.clone();
            while !framework.empty.is_empty() && rest.checked_sub_assign(&one).is_ok() {
                let since = framework.empty.remove(0);
                framework.waits.push((self.now, self.now.since(since)));
                framework.launched += 1;
                let id = TaskId::new(format!("{number}-{}", framework.launched)).expect("short");
                let command = TaskCommand::shell("true");
                let task = TaskDescription::command(id, offer.slave_id, one.clone(), command);
                tasks.push(task);
            }
        }
        let (offer_ids, filters) = (vec![offer.offer_id], Filters::default());
        let message = match tasks.is_empty() {
            true => FrameworkToMaster::Decline { offer_ids, filters },
            false => FrameworkToMaster::Accept {
                offer_ids,
                operations: vec![Operation::Launch(tasks)],
                filters,
            },
        };
        self.say(number, message);
    }

    fn say(&mut self, framework: usize, message: FrameworkToMaster) {
        let connection = ConnectionId(framework as u64);
        self.handle(Event::Framework {
            connection,
            message,
        });
    }

    fn handle(&mut self, event: Event) {
        let heard = self.leader.handle(event, self.now);
        self.hear(heard);
    }

    fn hear(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SendFramework {
                    connection,
                    message,
                } => {
                    let number = usize::try_from(connection.0).expect("a framework's");
                    self.framework_hears(number, message);
                }
                Effect::SendSlave {
                    connection,
                    message,
                } => {
                    let number = usize::try_from(connection.0 - FIRST_SLAVE).expect("a slave's");
                    self.slave_hears(number, message);
                }
                Effect::Close { .. } => panic!("nobody is sent away"),
                Effect::Propose { .. } | Effect::Reply { .. } | Effect::Publish(_) => {}
            }
        }
    }

    fn framework_hears(&mut self, number: usize, message: MasterToFramework) {
        match message {
            MasterToFramework::Subscribed { framework_id, .. } => {
                self.frameworks[number].id = Some(framework_id);
            }
            MasterToFramework::Offers(offers) => {
                if matches!(self.frameworks[number].manner, Manner::Keeps) {
                    return;
                }
                let at = self.now.after(THINKING);
                for offer in offers {
                    self.later(at, Due::Answer(number, Box::new(offer)));
                }
            }
            MasterToFramework::Update(status) => {
                let framework = &mut self.frameworks[number];
                if status.state.is_terminal() {
                    framework.empty.push(self.now);
                }
                let update_id = status.update_id.expect("a slave's");
                let message = FrameworkToMaster::Acknowledge {
                    slave_id: status.slave_id,
                    task_id: status.task_id,
                    update_id,
                };
                self.say(number, message);
            }
            MasterToFramework::Rescind { offer_id } => {
                let is_it =
                    |due: &Due| matches!(due, Due::Answer(_, offer) if offer.offer_id == offer_id);
                self.due.retain(|_, due| !is_it(due));
            }
            MasterToFramework::Failure { .. } => panic!("no slave is lost"),
            MasterToFramework::Operation(_) => panic!("nobody orders operations"),
            MasterToFramework::State { .. } => panic!("nobody keeps state"),
            MasterToFramework::Masters { .. } => panic!("a core tells of no masters"),
            MasterToFramework::ExecutorEnded { .. } | MasterToFramework::ExecutorMessage { .. } => {
                panic!("nobody brings executors")
            }
            MasterToFramework::Refused { refusal, .. }
            | MasterToFramework::Error { refusal, .. } => panic!("{refusal:?}"),
        }
    }

    fn slave_hears(&mut self, number: usize, message: MasterToSlave) {
        let connection = ConnectionId(FIRST_SLAVE + number as u64);
        match message {
            MasterToSlave::Registered { slave_id, .. } => self.slaves.push(slave_id),
            MasterToSlave::Ping { .. } => self.handle(Event::Slave {
                connection,
                message: SlaveToMaster::Pong,
            }),
            MasterToSlave::RunTask(run) => {
                let id = run.task.task_id.clone();
                let framework = run.framework.framework_id;
                let of = |it: &&Framework| it.id == Some(framework);
                let owner = self.frameworks.iter().find(of).expect("it launched it");
                let Manner::Works { length, .. } = owner.manner else {
                    panic!("others launch nothing");
                };
                self.later(self.now.after(length), Due::End(number, framework, id));
            }
            _ => {}
        }
    }

    fn set_quota(&mut self, role: &str, amounts: &str) {
        let amount = |text: &str| {
            let (name, amount) = text.split_once(':').expect("name:amount");
            let name = meros_proto::resources::ResourceName::new(name).expect("a name");
            (name, amount.parse().expect("a number"))
        };
        let amounts: BTreeMap<_, _> = amounts.split(';').map(amount).collect();
        let quota = Quota {
            guarantees: amounts.clone(),
            limits: amounts,
        };
        self.handle(Event::Operator {
            request: RequestId(1),
            call: OperatorCall::SetQuotas {
                quotas: vec![(RoleName::new(role).expect("good"), quota)],
                force: true,
            },
        });
    }

    /// Waits that ended after a time, the shortest first.
    fn waits(&self, numbers: &[usize], after: Duration) -> Vec<Duration> {
        let after = Timestamp(1).after(after);
        let of = |number: &usize| self.frameworks[*number].waits.iter();
        let all = numbers.iter().flat_map(of);
        let mut waits: Vec<_> = all
            .filter(|(at, _)| *at >= after)
            .map(|(_, wait)| *wait)
            .collect();
        waits.sort_unstable();
        waits
    }

    fn launched(&self, numbers: &[usize]) -> Vec<u32> {
        numbers
            .iter()
            .map(|number| self.frameworks[*number].launched)
            .collect()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn report(what: &str, waits: &[Duration]) {
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    println!(
        "{what}: {} waits, p50 {:?}, p99 {:?}, longest {:?}",
        waits.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[test]
fn among_fifteen_hundred_that_decline_everything_ten_get_what_they_want() {
    let mut site = Site::new(20);
    for _ in 0..1_490 {
        site.add(Duration::ZERO, Manner::Declines, "*");
    }
    let manner = Manner::Works {
        tasks: 8,
        length: seconds(30),
    };
    let come = seconds(60);
    let ten: Vec<usize> = (0..10)
        .map(|_| site.add(come, manner.clone(), "*"))
        .collect();
    site.run(seconds(600));
    let waits = site.waits(&ten, Duration::ZERO);
    let launched = site.launched(&ten);
    println!("launched: {launched:?} of 144 without any wait");
    report("of 1,500 frameworks 1,490 decline", &waits);
    assert!(launched.iter().all(|it| *it >= 100), "{launched:?}");
    // That is how long all who decline take to answer, one after the other.
    assert!(waits.last().is_some_and(|longest| *longest <= seconds(18)));
}

#[test]
fn a_picky_framework_near_its_quota_gets_the_one_slave_that_will_do() {
    let mut site = Site::new(20);
    site.set_quota("picky", "cpus:4;mem:4");
    let greedy = Manner::Works {
        tasks: 80,
        length: seconds(30),
    };
    let greedy: Vec<usize> = (0..10)
        .map(|_| site.add(Duration::ZERO, greedy.clone(), "*"))
        .collect();
    // All that it may have, and only where all ten others have tasks as well.
    let picky = Manner::Works {
        tasks: 4,
        length: seconds(20),
    };
    // Ten seconds into the tasks of the others.
    let come = seconds(70);
    let picky = site.add(come, picky, "picky");
    let role = site.frameworks[picky].role.clone();
    let mut wishes = OfferWishes::for_role(role);
    wishes.constraints.groups = vec![vec![Constraint {
        subject: Subject::Zone,
        predicate: Predicate::Equals("rare".to_owned()),
    }]];
    site.frameworks[picky].wishes = vec![wishes];
    site.run(seconds(600));
    let launched = site.launched(&[picky])[0];
    let waits = site.waits(&[picky], Duration::ZERO);
    println!("launched: {launched} of 108 without any wait");
    report("near its quota, on one slave of 20", &waits);
    assert!(launched >= 100, "{launched}");
    // Until a task of somebody else ends there; what it once has it keeps.
    assert!(waits.last().is_some_and(|longest| *longest <= seconds(31)));
    let others = site.launched(&greedy);
    println!("the ten others launched: {others:?}");
    // Nine have two slaves each, one has the last: 20 tasks of 30 s on each place.
    assert!(others.iter().sum::<u32>() >= 1_400, "{others:?}");
}

#[test]
fn who_never_answers_keeps_others_from_offers_for_one_offer_timeout_at_most() {
    let mut site = Site::new(40);
    let keeper = site.add(Duration::ZERO, Manner::Keeps, "*");
    let works = Manner::Works {
        tasks: 32,
        length: seconds(20),
    };
    let come = seconds(10);
    let five: Vec<usize> = (0..5).map(|_| site.add(come, works.clone(), "*")).collect();
    site.run(seconds(1_800));
    let launched = site.launched(&five);
    println!("launched: {launched:?} of 2848 without the keeper and without any wait");
    let all = site.waits(&five, Duration::ZERO);
    report("one never answers", &all);
    let later = site.waits(&five, seconds(600));
    report("from its second timeout on", &later);
    assert_eq!(site.launched(&[keeper]), [0]);
    assert!(launched.iter().all(|it| *it >= 2_000), "{launched:?}");
    // The offers that it got when nobody else was there, and then its share.
    assert!(all.last().is_some_and(|longest| *longest <= seconds(311)));
    assert!(later.last().is_some_and(|longest| *longest <= seconds(20)));
}
