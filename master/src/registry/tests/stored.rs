//! What is on disk outlives the release that wrote it: of each form the bytes are kept in `stored.txt`, a
//! line each, and read again. Lines are added there, never changed or taken away.
//!
//! A form that changes must stay readable, and shows here as a line that is missing. The old line gets a
//! name that begins with `old.`: it need only be readable then.

use std::collections::BTreeSet;
use std::fmt::Debug;

use meros_master_core::ClusterSetting;
use meros_proto::codec::{DecodeError, decode_record, encode_record};
use meros_proto::maintenance::Unavailability;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::slave::SlaveMode;
use meros_proto::state::{
    Condition, Numbered, SessionId, SpaceId, StateChange, StateKey, StateOperation,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::types::{EntryId, Members, Record, StateCheck};
use super::*;

const STORED: &str = include_str!("stored.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// What is stored under a name, and under the names that it had.
fn lines(name: &str) -> impl Iterator<Item = (bool, &'static str)> {
    let old = format!("old.{name}");
    STORED.lines().filter_map(move |line| {
        let (found, value) = line.split_once(' ')?;
        let is_old = found == old;
        (is_old || found == name).then_some((is_old, value))
    })
}

/// Collects what does not fit, so that one run tells all of it.
#[derive(Default)]
struct Missing(Vec<String>);

impl Missing {
    /// A value in the compact form.
    fn record<T: Serialize + DeserializeOwned + Debug + PartialEq>(
        &mut self,
        name: &str,
        value: &T,
    ) {
        let now = hex(&encode_record(value).expect("small"));
        self.check(name, &now, value, |text| {
            decode_record(&bytes(text)).map_err(|error| error.to_string())
        });
    }

    /// A value in JSON.
    fn json<T: Debug + PartialEq>(
        &mut self,
        name: &str,
        now: &str,
        value: &T,
        read: impl Fn(&str) -> Result<T, String>,
    ) {
        self.check(name, now, value, read);
    }

    fn check<T: Debug + PartialEq>(
        &mut self,
        name: &str,
        now: &str,
        value: &T,
        read: impl Fn(&str) -> Result<T, String>,
    ) {
        if !lines(name).any(|(is_old, text)| !is_old && text == now) {
            self.0.push(format!("{name} {now}"));
        }
        for (is_old, text) in lines(name) {
            let found = read(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            assert!(is_old || found == *value, "{name} is read as {found:?}");
        }
    }

    fn assert_none(self) {
        assert!(
            self.0.is_empty(),
            "not in stored.txt:\n{}",
            self.0.join("\n")
        );
    }
}

/// A life in which each command has its place, with something in each of its fields.
fn full_life() -> Vec<Command> {
    let mut life = vec![Command::FormCluster {
        cluster_id: CLUSTER,
    }];
    life.extend(some_life());
    let role: RoleName = "ads/web".parse().unwrap();
    let amounts = |amount: u32| {
        let amount: Scalar = amount.to_string().parse().unwrap();
        BTreeMap::from([(ResourceName::CPUS, amount), (ResourceName::MEM, amount)])
    };
    let mut framework = FrameworkDescription::new("storm", role.clone());
    framework.failover_timeout = Duration::from_secs(300);
    let slave_id = SlaveId(1);
    life.extend([
        Command::MarkSlaveReachable { slave_id },
        rename(1, 8),
        Command::AdmitFramework {
            framework_id: FrameworkId(1),
            principal: "storm".to_owned(),
            framework: framework.clone(),
            suppressed_roles: Vec::new(),
            at: Timestamp(80),
        },
        Command::UpdateFramework {
            framework_id: FrameworkId(1),
            framework,
            suppressed_roles: vec![role.clone()],
        },
        Command::RemoveFramework {
            framework_id: FrameworkId(0),
            at: Timestamp(81),
        },
        Command::SetQuotas {
            quotas: vec![(
                role.clone(),
                Quota {
                    guarantees: amounts(1),
                    limits: amounts(2),
                },
            )],
        },
        Command::SetWeights {
            weights: vec![(role, "2.5".parse().unwrap())],
        },
        Command::SetSlaveMode {
            slave_id,
            mode: SlaveMode::Draining {
                grace: Some(Duration::from_secs(9)),
                mark_gone: true,
            },
            at: Timestamp(82),
        },
        Command::SetMaintenance {
            windows: vec![(
                slave_id,
                Some(Unavailability {
                    start: Timestamp(83),
                    duration: Some(Duration::from_secs(60)),
                }),
            )],
        },
        admit(3),
        Command::MarkSlaveGone {
            slave_id: SlaveId(3),
            at: Timestamp(84),
        },
    ]);
    life.extend(life_of_state());
    life.extend([
        Command::RaiseFormat {
            format: Format::NEWEST,
        },
        Command::SetSettings {
            settings: vec![
                (ClusterSetting::OfferTimeout, Some(60_000)),
                (ClusterSetting::HoardingOffers, Some(7)),
                (ClusterSetting::HoardingAfter, None),
            ],
        },
    ]);
    life.push(Command::SetMinimums {
        minimums: vec![
            ("ads".parse().unwrap(), "cpus:0.5|mem:64".parse().ok()),
            ("web".parse().unwrap(), None),
        ],
    });
    life
}

/// Two sessions, one of them with a key and a lease, the other ended.
fn life_of_state() -> [Command; 5] {
    let space = SpaceId {
        principal: "storm".to_owned(),
        name: "main".parse().unwrap(),
    };
    let change = |number: Option<u64>, change| Command::ChangeState {
        space: space.clone(),
        by: number.map(|number| Numbered {
            session: SessionId(1),
            number,
        }),
        change,
    };
    let open = StateChange::Open {
        holder: "h".to_owned(),
        ttl: Duration::from_secs(15),
    };
    let key: StateKey = "k".parse().unwrap();
    let commit = StateChange::Commit {
        conditions: vec![Condition::Absent(key.clone())],
        operations: vec![
            StateOperation::Set {
                key,
                value: "v".into(),
            },
            StateOperation::Delete("j".parse().unwrap()),
        ],
    };
    let acquire = StateChange::Acquire {
        lease: "l".parse().unwrap(),
        permits: 1,
        wait: true,
    };
    [
        change(None, open.clone()),
        change(Some(1), commit),
        change(Some(2), acquire),
        change(None, open),
        Command::EndStateSession {
            space: space.clone(),
            session: SessionId(4),
        },
    ]
}

#[test]
fn what_earlier_releases_stored_can_be_read() {
    let mut missing = Missing::default();
    for (number, command) in full_life().iter().enumerate() {
        missing.record(&format!("command.{number}"), command);
    }
    let id = entry_id(3, ME, 70_000);
    let membership = Membership::new(
        vec![[ME].into(), [ME, MasterId(9)].into()],
        BTreeMap::from([(ME, member()), (MasterId(9), member())]),
    );
    let reign = Reign {
        master: ME,
        number: u64::MAX,
    };
    let check = Some(StateCheck {
        index: 256,
        release: 5,
        hash: u64::MAX - 1,
    });
    let payloads = [
        ("blank", EntryPayload::Blank),
        ("members", EntryPayload::Membership(membership.clone())),
        (
            "lead",
            EntryPayload::Normal(Batch {
                reign,
                body: Body::Lead,
                check: None,
            }),
        ),
        (
            "commands",
            EntryPayload::Normal(Batch {
                reign,
                body: Body::Commands(vec![(1, admit(0)), (300, rename(0, 1))]),
                check,
            }),
        ),
    ];
    for (name, payload) in payloads {
        let entry = Entry {
            log_id: id,
            payload,
        };
        missing.record(&format!("entry.{name}"), &Record::from(entry));
    }
    missing.record("vote", &Vote::new_committed(7, ME));
    missing.record::<EntryId>("purged", &id);
    missing.record::<Option<EntryId>>("committed", &Some(id));
    missing.record(
        "snapshot_meta",
        &snapshot::Meta {
            applied: Some(id),
            members_at: Some(id),
            members: Members::from(&membership),
            id: "s1".to_owned(),
        },
    );
    missing.record("snapshot_piece", &vec![1_u8, 2, 255]);

    let mut registry = Registry::default();
    for command in full_life() {
        let _ = registry.apply(&command);
    }
    let json = |value: Vec<u8>| String::from_utf8(value).unwrap();
    let now = json(snapshot::encode(&registry).unwrap());
    missing.json("snapshot", &now, &registry, |text| {
        snapshot::decode(text.as_bytes()).map_err(|error| error.to_string())
    });
    let backup = Backup::sample(registry);
    let now = json(serde_json::to_vec(&backup).unwrap());
    missing.json("backup", &now, &backup, |text| {
        Backup::parse(text.as_bytes()).map_err(|error| error.to_string())
    });
    missing.assert_none();
}

#[test]
fn each_kind_of_command_is_among_them() {
    let number = |command: &Command| encode_record(command).expect("small")[1];
    let found: BTreeSet<u8> = full_life().iter().map(number).collect();
    let is_known = |number: &u8| {
        let nothing_else = decode_record::<Command>(&[1, *number]);
        !matches!(nothing_else, Err(DecodeError::Malformed { .. }))
    };
    let known: BTreeSet<u8> = (0..=250).filter(is_known).collect();
    assert_eq!(found, known);
}
