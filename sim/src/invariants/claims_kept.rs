//! W22: what is reserved on a slave and which volumes it has changes by the operations that masters
//! have ordered and by nothing else, each carried out once and as a whole. So what was confirmed
//! survives any crash and any change of leader, until it is undone by another operation.

use std::collections::BTreeMap;

use meros_proto::operation::{Change, OperationNumber};
use meros_proto::resources::{ConvertError, Resources};
use meros_slave_core::{Checkpoint, Record};

use super::{Broken, check};

/// What masters have ordered.
#[derive(Debug, Default)]
pub(crate) struct ClaimsKept(BTreeMap<OperationNumber, Change>);

impl ClaimsKept {
    /// A master sends an order to a slave.
    pub(crate) fn on_ordered(&mut self, number: OperationNumber, change: &Change) {
        self.0.insert(number, change.clone());
    }

    /// A record is about to become durable.
    pub(crate) fn check_record(&self, disk: &Checkpoint, record: &Record) -> Result<(), Broken> {
        let Record::ClaimsChanged(after) = record else {
            return Ok(());
        };
        let before = &disk.claims;
        let mut expected = before.resources.clone();
        for decided in &after.decided {
            if decided.refused.is_some() || before.decided.contains(decided) {
                continue;
            }
            let change = self.0.get(&decided.number);
            check("W22", change.is_some(), || {
                format!("{:?} was never ordered", decided.number)
            })?;
            if let Some(change) = change {
                expected = applied(&expected, change).map_err(|error| Broken {
                    id: "W22",
                    what: format!("{change:?} cannot be done on {expected}: {error}"),
                })?;
            }
        }
        check("W22", expected == after.resources, || {
            format!(
                "reserved are {}, and by what was ordered it would be {expected}",
                after.resources
            )
        })
    }
}

/// Claims after a change: of what is not claimed before or afterwards nothing is known here.
fn applied(claims: &Resources, change: &Change) -> Result<Resources, ConvertError> {
    let parts = change.parts().expect("masters order what can be");
    claims.replace(&parts.from.claims(), &parts.to.claims())
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::Epoch;
    use meros_proto::operation::{ChangeKind, DecidedOperation};
    use meros_slave_core::Claims;

    use super::*;

    fn number(number: u64) -> OperationNumber {
        let epoch = Epoch(1);
        OperationNumber { epoch, number }
    }

    fn record(claims: &str, decided: &[u64]) -> Record {
        let decided = decided.iter().map(|it| DecidedOperation {
            number: number(*it),
            refused: None,
        });
        Record::ClaimsChanged(Box::new(Claims {
            resources: claims.parse().expect("well formed"),
            decided: decided.collect(),
            ..Claims::default()
        }))
    }

    #[test]
    fn claims_that_change_without_an_order_are_rejected() {
        let mut checker = ClaimsKept::default();
        for (at, kind, resources) in [
            (1, ChangeKind::Reserve, "disk(web,):8"),
            (2, ChangeKind::Create, "disk(web,)[db:data]:8"),
            (3, ChangeKind::Destroy, "disk(web,)[db:data]:8"),
        ] {
            let resources = resources.parse().expect("well formed");
            checker.on_ordered(number(at), &Change::new(kind, resources));
        }
        let mut disk = Checkpoint::default();
        let reserved = record("disk(web,):8", &[1]);
        assert_eq!(checker.check_record(&disk, &reserved), Ok(()));
        let never = record("disk(web,):8", &[9]);
        let half = record("disk(web,):4", &[1]);
        let twice = record("disk(web,):16", &[1]);
        for bad in [&never, &half, &twice, &record("cpus(web,):1", &[])] {
            assert_eq!(checker.check_record(&disk, bad).expect_err("bad").id, "W22");
        }
        disk.apply(reserved);
        let volume = record("disk(web,)[db:data]:8", &[1, 2]);
        assert_eq!(checker.check_record(&disk, &volume), Ok(()));
        disk.apply(volume);
        let lost = record("", &[1, 2]);
        assert!(checker.check_record(&disk, &lost).is_err(), "it vanished");
        let destroyed = record("disk(web,):8", &[1, 2, 3]);
        assert_eq!(checker.check_record(&disk, &destroyed), Ok(()));
    }
}
