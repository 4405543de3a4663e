//! What is on disk outlives the version that wrote it: commands keep their numbers, and a snapshot
//! without what came later can be read.

use meros_proto::codec::{decode_record, encode_record};
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId};
use meros_proto::slave::SlaveMode;
use meros_proto::state::{
    Condition, LeaseName, Numbered, Revision, SessionId, SpaceId, SpaceName, StateChange, StateKey,
    StateOperation, Token,
};
use meros_proto::time::Timestamp;

use super::world::{framework, secs, slave};
use crate::{ClusterSetting, Command, Format, NotApplied, Registry};

#[test]
fn commands_keep_their_numbers_and_their_bytes() {
    let (slave_id, framework_id, at) = (SlaveId(3), FrameworkId(4), Timestamp(5));
    let space = SpaceId {
        principal: "f".to_owned(),
        name: SpaceName::new("s").expect("a name"),
    };
    let commands = [
        Command::FormCluster {
            cluster_id: ClusterId(7),
        },
        Command::AdmitSlave {
            slave_id,
            principal: "s".to_owned(),
            slave: slave("cpus:1"),
            at,
        },
        Command::UpdateSlave {
            slave_id,
            slave: slave("cpus:1"),
        },
        Command::MarkSlaveUnreachable { slave_id, at },
        Command::MarkSlaveReachable { slave_id },
        Command::RemoveSlave { slave_id, at },
        Command::AdmitFramework {
            framework_id,
            principal: "f".to_owned(),
            framework: framework(),
            suppressed_roles: Vec::new(),
            at,
        },
        Command::UpdateFramework {
            framework_id,
            framework: framework(),
            suppressed_roles: Vec::new(),
        },
        Command::RemoveFramework { framework_id, at },
        Command::SetQuotas { quotas: Vec::new() },
        Command::SetWeights {
            weights: Vec::new(),
        },
        Command::SetSlaveMode {
            slave_id,
            mode: SlaveMode::Draining {
                grace: Some(secs(9)),
                mark_gone: true,
            },
            at,
        },
        Command::MarkSlaveGone { slave_id, at },
        Command::SetMaintenance {
            windows: Vec::new(),
        },
        Command::ChangeState {
            space: space.clone(),
            by: Some(Numbered {
                session: SessionId(8),
                number: 2,
            }),
            change: StateChange::Commit {
                conditions: vec![Condition::Holds {
                    lease: LeaseName::new("l").expect("a name"),
                    token: Token(9),
                }],
                operations: vec![StateOperation::Set {
                    key: StateKey::new("k").expect("a key"),
                    value: "v".into(),
                }],
            },
        },
        Command::EndStateSession {
            space,
            session: SessionId(8),
        },
        Command::RaiseFormat { format: Format(3) },
        Command::SetSettings {
            settings: vec![(ClusterSetting::HoardingOffers, Some(7))],
        },
        Command::SetMinimums {
            minimums: Vec::new(),
        },
    ];
    for (number, command) in commands.iter().enumerate() {
        let bytes = encode_record(command).expect("small");
        assert_eq!(usize::from(bytes[1]), number, "{command:?}");
        assert_eq!(decode_record::<Command>(&bytes).as_ref(), Ok(command));
    }
    let bytes = |command: &Command| encode_record(command).expect("small");
    assert_eq!(bytes(&commands[3]), [1, 3, 3, 5]);
    assert_eq!(bytes(&commands[11]), [1, 11, 3, 2, 1, 9, 0, 1, 5]);
    assert_eq!(bytes(&commands[12]), [1, 12, 3, 5]);
    let change = b"\x01\x0e\x01f\x01s\x01\x08\x02\x02\x01\x03\x01l\x09\x01\x00\x01k\x01v";
    assert_eq!(bytes(&commands[14]), change);
    assert_eq!(bytes(&commands[15]), b"\x01\x0f\x01f\x01s\x08");
    assert_eq!(bytes(&commands[16]), [1, 16, 3]);
    assert_eq!(bytes(&commands[17]), [1, 17, 1, 4, 1, 7]);
    // A slave and a framework as the first release wrote them.
    let slave = "\x01\x01\x03\x01s\x04host\x00";
    assert!(bytes(&commands[1]).starts_with(slave.as_bytes()));
}

#[test]
fn a_snapshot_of_before_quotas_and_drains_can_be_read() {
    let old = r#"{
        "cluster_id": "00000000-0000-0000-0000-000000000007",
        "slave_next": 1,
        "framework_next": 0,
        "slaves": {"S0": {
            "principal": "s",
            "slave": {"hostname": "host", "http_address": "", "resources": [],
                "attributes": [], "capabilities": [], "version": "1"},
            "admitted_at": 5,
            "unreachable_since": null
        }},
        "frameworks": {}
    }"#;
    let registry: Registry = serde_json::from_str(old).expect("it was a snapshot once");
    let record = registry.slave(SlaveId(0)).expect("it is a member");
    assert_eq!(record.mode, SlaveMode::Active);
    assert!(!registry.is_gone_slave(SlaveId(0)) && registry.quotas().is_empty());
    assert_eq!(registry.state().revision(), Revision(0));
    assert_eq!(registry.format(), Format::FIRST);
}

#[test]
fn a_format_is_raised_and_never_lowered() {
    let mut registry = Registry::default();
    assert_eq!(registry.format(), Format::FIRST);
    let raise = |format| Command::RaiseFormat {
        format: Format(format),
    };
    assert_eq!(registry.apply(&raise(5)), Ok(()));
    for format in [5, 4, 0] {
        assert_eq!(registry.apply(&raise(format)), Err(NotApplied::SoAlready));
    }
    let json = serde_json::to_string(&registry).expect("it has a form");
    let read: Registry = serde_json::from_str(&json).expect("just written");
    assert_eq!(read.format(), Format(5));
}
