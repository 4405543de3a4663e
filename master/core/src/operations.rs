//! Operations on resources: reservations and volumes (semantics D3, D6, D7, O1, O2).
//!
//! An operation is checked against what the slave has as this leader knows it, takes effect here at
//! once, and is sent to the slave, which has the last word: when it is durable there, it is done; a
//! slave that cannot do it comes back and reports what it has. So a leader learns reservations and
//! volumes from slaves only, and a new one knows them as soon as its slaves are back.
//!
//! Invariants: M15 what a slave has claimed is what the allocator counts of it, and the operations that
//! it has not answered are bounded, and each is found at the framework that ordered it.

use std::sync::Arc;

use meros_proto::ids::{FrameworkId, OperationId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::ReconcileOperation;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::operation::{
    Change, ChangeKind, DecidedOperation, OPERATIONS_PENDING_MAX, OperationNumber, OperationState,
    OperationStatus, Parts, ResourceOperation,
};
use meros_proto::refusal::Refusal;
use meros_proto::resources::{ClaimsError, ConvertError, Reservation, Resource, Resources};
use meros_proto::slave::{SlaveDescription, SlaveState};
use meros_proto::view::OfferEnd;
use tracing::{debug, info, warn};

use crate::MasterCore;
use crate::connections::Stage;
use crate::event::ConnectionId;
use crate::offering::check_items;
use crate::offers::Outstanding;
use crate::turn::Turn;

/// An operation that its slave has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOperation {
    pub(crate) number: u64,
    /// Who waits to hear of it, and as what.
    pub(crate) origin: Option<(FrameworkId, OperationId)>,
}

/// What a slave has said of its claims before it registers.
#[derive(Debug, Default)]
pub(crate) struct ReportedClaims {
    pub(crate) claims: Resources,
    pub(crate) decided: Vec<DecidedOperation>,
}

/// An operation that can be ordered.
struct Checked {
    parts: Parts,
    /// What the slave has claimed afterwards.
    claims: Resources,
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::Invalid {
        field: "resources".to_owned(),
        why: why.into(),
    }
}

impl MasterCore {
    pub(crate) fn on_report_claims(
        &mut self,
        connection: ConnectionId,
        reported: ReportedClaims,
        turn: &mut Turn<'_>,
    ) {
        let Some(Stage::SlaveFresh { claims, .. }) = self.connections.stage_mut(connection) else {
            return;
        };
        if reported.decided.len() > OPERATIONS_PENDING_MAX || claims.is_some() {
            let refusal = Refusal::OverLimit {
                what: "the number of reported operations".to_owned(),
                limit: OPERATIONS_PENDING_MAX as u64,
                advice: "report the latest, once".to_owned(),
            };
            return self.refuse_slave(connection, refusal, turn);
        }
        *claims = Some(Box::new(reported));
    }

    /// Carries out one step of an accept on the rest of its offers.
    pub(crate) fn change_offered(
        &mut self,
        pool: &Outstanding,
        rest: &mut Resources,
        operation: ResourceOperation,
        turn: &mut Turn<'_>,
    ) {
        let ResourceOperation {
            operation_id,
            change,
        } = operation;
        let checked = self.check_offered_change(pool, &change, rest);
        let Checked { parts, claims } = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                debug!(framework_id = %pool.framework, kind = %change.kind, error = %refusal, "operation refused");
                return self.fail_operation(
                    pool.framework,
                    Some(pool.slave),
                    operation_id,
                    refusal,
                    turn,
                );
            }
        };
        rest.replace_in_place(&parts.from, &parts.to)
            .expect("checked to be there, and as much afterwards");
        self.allocator
            .convert(
                pool.framework,
                &pool.role,
                pool.slave,
                &parts.from,
                &parts.to,
            )
            .expect("offers are parts of what one slave has (M1)");
        let origin = operation_id.map(|id| (pool.framework, id));
        self.order_change(pool.slave, change, claims, origin, turn);
    }

    fn check_offered_change(
        &self,
        pool: &Outstanding,
        change: &Change,
        rest: &Resources,
    ) -> Result<Checked, Refusal> {
        let parts = change.parts().map_err(|why| invalid(why.to_string()))?;
        if let Some(role) = change.roles().find(|role| **role != pool.role) {
            let why = format!(
                "it is reserved for `{role}`, but the offers are for `{}`; a framework changes what is reserved for the role of its offers",
                pool.role
            );
            return Err(invalid(why));
        }
        if change.kind == ChangeKind::Reserve {
            let own = self.registry.framework(pool.framework);
            let own = own.map(|record| record.principal.as_str());
            let tops = change
                .resources
                .iter()
                .filter_map(|it| it.reservations().top());
            let mut principals = tops.filter_map(Reservation::principal);
            if let Some(other) = principals.find(|principal| Some(*principal) != own) {
                let why = format!(
                    "`{other}` is not the name in the framework's certificate; leave the principal out"
                );
                return Err(invalid(why));
            }
        }
        rest.checked_sub(&parts.from)
            .map_err(|missing| invalid(format!("more than the offers have: {missing}")))?;
        self.check_claims_after(pool.slave, parts)
    }

    /// Checks what a slave would have after a change of something that is there.
    fn check_claims_after(&self, slave_id: SlaveId, parts: Parts) -> Result<Checked, Refusal> {
        let row = self.slaves.get(slave_id);
        let pending = row.map_or(0, |row| row.operations.len());
        if pending >= OPERATIONS_PENDING_MAX {
            return Err(Refusal::OverLimit {
                what: format!("the number of operations that slave {slave_id} has not answered"),
                limit: OPERATIONS_PENDING_MAX as u64,
                advice: "order fewer at a time, or try again in a moment".to_owned(),
            });
        }
        let total = self.allocator.total(slave_id);
        let total = total.ok_or(Refusal::SlaveAway { slave_id })?;
        let after = total.replace(&parts.from, &parts.to);
        let after = after.map_err(|error| match error {
            ConvertError::Insufficient { source } => Refusal::NotEnough {
                slave_id,
                why: source.to_string(),
            },
            other => invalid(other.to_string()),
        })?;
        after.check_claims().map_err(|error| match error {
            ClaimsError::TooMany { limit } => Refusal::OverLimit {
                what: format!("the number of reservations and volumes of slave {slave_id}"),
                limit: limit as u64,
                advice: "give back some, or reserve on another slave".to_owned(),
            },
            ClaimsError::TooLong => Refusal::OverLimit {
                what: format!("the text of the reservations of slave {slave_id}, in bytes,"),
                limit: Resources::CLAIMS_BYTES_MAX as u64,
                advice: "use fewer or shorter labels".to_owned(),
            },
            ClaimsError::Together(why) => invalid(why.to_string()),
        })?;
        let claims = after.claims();
        Ok(Checked { parts, claims })
    }

    /// An operator changes what is free on a slave; offers that hold it are taken back (semantics E5,
    /// O1).
    pub(crate) fn on_change_resources(
        &mut self,
        slave_id: SlaveId,
        change: Change,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_member(slave_id)?;
        if self.slaves.connection(slave_id).is_none() {
            return Err(Refusal::SlaveAway { slave_id });
        }
        let parts = change.parts().map_err(|why| invalid(why.to_string()))?;
        let Checked { parts, claims } = self.check_claims_after(slave_id, parts)?;
        self.take_back(slave_id, &parts.from, turn)?;
        self.allocator
            .convert_free(slave_id, &parts.from, &parts.to)
            .expect("it has just been seen to be free");
        info!(%slave_id, kind = %change.kind, resources = %change.resources, "an operator changes resources");
        self.order_change(slave_id, change, claims, None, turn);
        Ok(())
    }

    /// Takes offers of a slave back until this is free there; none if it cannot be.
    fn take_back(
        &mut self,
        slave_id: SlaveId,
        wanted: &Resources,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let free = self.allocator.free(slave_id);
        let mut free = free.ok_or(Refusal::SlaveAway { slave_id })?.clone();
        let mut missing = free.checked_sub(wanted).err();
        let mut offers = Vec::new();
        for number in self.offers.of_slave(slave_id) {
            let (Some(before), Some(offer)) = (&missing, self.offers.get(number)) else {
                continue;
            };
            let more = free.checked_add(&offer.resources);
            let more = more.expect("parts of what one slave has (M1)");
            let after = more.checked_sub(wanted).err();
            // Others hold nothing of it.
            if after.as_ref() != Some(before) {
                offers.push(number);
                (free, missing) = (more, after);
            }
        }
        if let Some(missing) = missing {
            let why = missing.to_string();
            return Err(Refusal::NotEnough { slave_id, why });
        }
        for number in offers {
            self.rescind(number, OfferEnd::Rescinded, turn);
        }
        Ok(())
    }

    /// The change is made here; now the slave is to make it.
    fn order_change(
        &mut self,
        slave_id: SlaveId,
        change: Change,
        claims: Resources,
        origin: Option<(FrameworkId, OperationId)>,
        turn: &mut Turn<'_>,
    ) {
        let (Some(row), Some(epoch)) = (self.slaves.get_mut(slave_id), self.epoch) else {
            return;
        };
        self.operations_made += 1;
        self.counters.operations_ordered += 1;
        let number = self.operations_made;
        row.claims = kept(claims);
        let connection = row.connection;
        let framework = origin.as_ref().map(|(framework, _)| *framework);
        if let (Some(framework), Some((_, id))) = (
            framework.and_then(|id| self.frameworks.get_mut(id)),
            &origin,
        ) {
            framework.operations.insert((id.clone(), number), slave_id);
        }
        row.operations
            .push_back(PendingOperation { number, origin });
        if let Some(connection) = connection {
            let number = OperationNumber { epoch, number };
            turn.send_slave(
                connection,
                MasterToSlave::ChangeResources {
                    number,
                    change: Box::new(change),
                },
            );
        }
        self.publish_slave(slave_id, turn);
    }

    pub(crate) fn on_change_applied(
        &mut self,
        slave_id: SlaveId,
        number: OperationNumber,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.slaves.get_mut(slave_id) else {
            return;
        };
        let place = row
            .operations
            .iter()
            .position(|it| it.number == number.number);
        let known = place.filter(|_| Some(number.epoch) == self.epoch);
        let Some(operation) = known.and_then(|place| row.operations.remove(place)) else {
            self.counters.stale_operation_answers += 1;
            return;
        };
        self.end_operation(slave_id, operation, OperationState::Finished, "", turn);
        self.note_drained(slave_id, turn);
    }

    /// A slave has come back and said what became of the operations that it knows of; the others have
    /// not reached it.
    pub(crate) fn settle_operations(
        &mut self,
        slave_id: SlaveId,
        decided: &[DecidedOperation],
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.slaves.get_mut(slave_id) else {
            return;
        };
        for operation in std::mem::take(&mut row.operations) {
            let number = operation.number;
            let answer = decided
                .iter()
                .find(|it| it.number.number == number && Some(it.number.epoch) == self.epoch);
            let (state, why) = match answer.map(|it| it.refused.as_deref()) {
                Some(None) => (OperationState::Finished, ""),
                Some(Some(why)) => (OperationState::Failed, why),
                None => (
                    OperationState::Dropped,
                    "the connection to the slave broke before it arrived",
                ),
            };
            self.end_operation(slave_id, operation, state, why, turn);
        }
    }

    /// The slave is no member any more: nobody will ever know.
    pub(crate) fn drop_operations(
        &mut self,
        slave_id: SlaveId,
        operations: impl IntoIterator<Item = PendingOperation>,
        turn: &mut Turn<'_>,
    ) {
        for operation in operations {
            let why = "the slave is no member of the cluster any more";
            self.end_operation(slave_id, operation, OperationState::Dropped, why, turn);
        }
    }

    fn end_operation(
        &mut self,
        slave_id: SlaveId,
        operation: PendingOperation,
        state: OperationState,
        why: &str,
        turn: &mut Turn<'_>,
    ) {
        *match state {
            OperationState::Finished => &mut self.counters.operations_finished,
            OperationState::Failed | OperationState::Error => &mut self.counters.operations_failed,
            _ => &mut self.counters.operations_dropped,
        } += 1;
        if state != OperationState::Finished {
            warn!(%slave_id, number = operation.number, %state, why, "an operation was not done");
        }
        if let Some((framework_id, operation_id)) = operation.origin {
            let key = (operation_id, operation.number);
            if let Some(framework) = self.frameworks.get_mut(framework_id) {
                framework.operations.remove(&key);
            }
            let (operation_id, _) = key;
            let status = OperationStatus {
                operation_id,
                slave_id: Some(slave_id),
                state,
                message: why.to_owned(),
            };
            self.tell_framework(framework_id, MasterToFramework::Operation(status), turn);
        }
    }

    /// An operation that is not ordered at all: its framework hears why, with or without an id.
    pub(crate) fn fail_operation(
        &mut self,
        framework_id: FrameworkId,
        slave_id: Option<SlaveId>,
        operation_id: Option<OperationId>,
        refusal: Refusal,
        turn: &mut Turn<'_>,
    ) {
        self.counters.operations_invalid += 1;
        match (operation_id, self.frameworks.connection(framework_id)) {
            (Some(operation_id), _) => {
                let status = OperationStatus {
                    operation_id,
                    slave_id,
                    state: OperationState::Error,
                    message: refusal.to_string(),
                };
                self.tell_framework(framework_id, MasterToFramework::Operation(status), turn);
            }
            (None, Some(connection)) => self.refuse_call(connection, "Accept", refusal, turn),
            (None, None) => {}
        }
    }
}

impl MasterCore {
    /// Operations are told of when they end, once; who has missed that learns here that nothing is on
    /// its way any more (semantics B14). What is reserved, the next offers tell.
    pub(crate) fn on_reconcile_operations(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        questions: &[ReconcileOperation],
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = check_items("operations", questions.len()) {
            return self.refuse_call(connection, "ReconcileOperations", refusal, turn);
        }
        let Some(row) = self.frameworks.get(framework) else {
            return;
        };
        let pending = |id: &OperationId, slave| standing(id, Some(slave), OperationState::Pending);
        let mut answers: Vec<OperationStatus> = Vec::new();
        if questions.is_empty() {
            let all = row.operations.iter();
            answers.extend(all.map(|((id, _), slave)| pending(id, *slave)));
        }
        answers.extend(questions.iter().map(|question| {
            let ReconcileOperation {
                operation_id,
                slave_id,
            } = question;
            match row.pending(operation_id) {
                Some(slave) => pending(operation_id, slave),
                None => standing(operation_id, *slave_id, self.state_of_unknown(*slave_id)),
            }
        }));
        for status in answers {
            self.tell_framework(framework, MasterToFramework::Operation(status), turn);
        }
    }

    fn state_of_unknown(&self, slave_id: Option<SlaveId>) -> OperationState {
        let Some(slave_id) = slave_id else {
            return OperationState::Unknown;
        };
        match self.slaves.get(slave_id) {
            Some(slave) if slave.state() == SlaveState::Unreachable => OperationState::Unreachable,
            Some(slave) if slave.is_known() => OperationState::Unknown,
            // Not back yet, or a deposed leader may still order something of it.
            Some(_) => OperationState::Recovering,
            None if self.registry.is_gone_slave(slave_id) => OperationState::GoneByOperator,
            None => OperationState::Unknown,
        }
    }
}

fn standing(
    operation_id: &OperationId,
    slave_id: Option<SlaveId>,
    state: OperationState,
) -> OperationStatus {
    OperationStatus {
        operation_id: operation_id.clone(),
        slave_id,
        state,
        message: String::new(),
    }
}

/// What is kept of the claims of a slave; nothing of those that have none.
pub(crate) fn kept(claims: Resources) -> Option<Arc<Resources>> {
    (!claims.is_empty()).then(|| Arc::new(claims))
}

/// What a slave has: what it declares, with its claims.
pub(crate) fn total_of(slave: &SlaveDescription, claims: Option<&Resources>) -> Resources {
    let total = claims.and_then(|claims| slave.resources.with_claims(claims).ok());
    // They fit what it declared when it reported them.
    total.unwrap_or_else(|| slave.resources.clone())
}

/// Checks what a slave reports against what it declares.
pub(crate) fn check_reported(slave: &SlaveDescription, claims: &Resources) -> Result<(), Refusal> {
    let refused = |why: String| Refusal::Invalid {
        field: "claims".to_owned(),
        why,
    };
    if let Some(plain) = claims.iter().find(|it| !it.is_claim() || it.is_shared()) {
        let why = format!("`{}` is not reserved dynamically", Resource::name(plain));
        return Err(refused(why));
    }
    let total = slave.resources.with_claims(claims);
    let total = total.map_err(|_| refused("more than the slave declares".to_owned()))?;
    total
        .check_claims()
        .map_err(|error| refused(error.to_string()))
}
