//! Offers are made, declined, taken back and time out (semantics E3 to E7, B5, B7, B8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::ids::{FrameworkId, OfferId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::CALL_ITEMS_MAX;
use meros_proto::mutant::Mutant;
use meros_proto::offer::{Filters, Offer, REFUSE_MAX};
use meros_proto::refusal::Refusal;
use meros_proto::resources::{Resources, Value};
use meros_proto::role::RoleName;
use meros_proto::view::{ClusterChange, OfferEnd};
use tracing::{debug, info};

use crate::MasterCore;
use crate::allocator::Grant;
use crate::event::ConnectionId;
use crate::offers::Outstanding;
use crate::publish::offer_view;
use crate::timers::Timer;
use crate::turn::Turn;
use crate::validate::check_roles;

/// The most offers in one message.
const OFFERS_PER_MESSAGE_MAX: usize = 256;
/// Messages are filled up to about this, far below the largest frame.
const OFFERS_BYTES_MAX: usize = 1 << 20;

impl MasterCore {
    /// Sees to it that a round follows if something may be offered: soon, or now if there is to be
    /// no delay. While nothing changes there is neither a round nor a deadline.
    pub(crate) fn schedule_offers(&mut self, turn: &mut Turn<'_>) {
        if !self.allocator.is_dirty() || self.is_waiting_for_slaves() {
            return;
        }
        if self.config.allocation_delay.is_zero() {
            self.make_offers(turn);
        } else if !self.timers.is_armed(&Timer::Allocate) {
            self.timers.arm(
                Timer::Allocate,
                turn.now.after(self.config.allocation_delay),
            );
        }
    }

    /// One round: what is free becomes offers, told to each framework at once.
    pub(crate) fn make_offers(&mut self, turn: &mut Turn<'_>) {
        let mut by_framework: BTreeMap<FrameworkId, Vec<Offer>> = BTreeMap::new();
        let mut grants = std::mem::take(&mut self.grants);
        self.allocator.plan(&mut grants);
        for grant in grants.drain(..) {
            let framework = grant.framework;
            if let Some(offer) = self.make_offer(grant, turn) {
                by_framework.entry(framework).or_default().push(offer);
            }
        }
        self.grants = grants;
        for (framework, offers) in by_framework {
            for offers in into_messages(offers) {
                self.tell_framework(framework, MasterToFramework::Offers(offers), turn);
            }
        }
    }

    fn make_offer(&mut self, grant: Grant, turn: &mut Turn<'_>) -> Option<Offer> {
        let Grant {
            framework,
            role,
            slave,
            resources,
        } = grant;
        let (Some(record), Some(epoch)) = (self.registry.slave(slave), self.epoch) else {
            self.allocator.release(framework, &role, slave, resources);
            self.allocator.offer_ended(framework);
            return None;
        };
        self.counters.offers_made += 1;
        let outstanding = Outstanding {
            framework,
            slave,
            role,
            resources,
            made_at: turn.now,
        };
        let number = self.offers.insert(outstanding.clone());
        debug!(number, framework_id = %framework, slave_id = %slave, "offer made");
        self.timers.arm(
            Timer::OfferExpiry(number),
            turn.now.after(self.config.offer_timeout),
        );
        let view = offer_view(epoch, number, &outstanding, turn.now);
        self.publisher.publish(ClusterChange::OfferMade(view), turn);
        Some(Offer {
            offer_id: OfferId { epoch, number },
            framework_id: framework,
            slave_id: slave,
            hostname: record.slave.hostname.clone(),
            http_address: record.slave.http_address.clone(),
            role: outstanding.role,
            resources: Arc::unwrap_or_clone(outstanding.resources),
            attributes: record.slave.attributes.clone(),
            unavailability: self.unavailability(slave, turn.now),
        })
    }

    /// The number of an offer of this leader.
    pub(crate) fn offer_number(&self, id: OfferId) -> Option<u64> {
        (Some(id.epoch) == self.epoch).then_some(id.number)
    }

    /// Takes an offer out of the table; its resources stay charged, for the caller to use.
    pub(crate) fn take_offer(
        &mut self,
        number: u64,
        end: OfferEnd,
        turn: &mut Turn<'_>,
    ) -> Option<Outstanding> {
        let offer = self.offers.take(number)?;
        self.timers.cancel(&Timer::OfferExpiry(number));
        self.allocator.offer_ended(offer.framework);
        self.note_holding(&offer, end, turn);
        *match end {
            OfferEnd::Accepted => &mut self.counters.offers_accepted,
            OfferEnd::Declined => &mut self.counters.offers_declined,
            OfferEnd::Rescinded => &mut self.counters.offers_rescinded,
            OfferEnd::TimedOut => &mut self.counters.offers_timed_out,
        } += 1;
        if let Some(epoch) = self.epoch {
            let offer_id = OfferId { epoch, number };
            self.publisher
                .publish(ClusterChange::OfferEnded { offer_id, end }, turn);
        }
        Some(offer)
    }

    /// Measures how a framework treats its offers, and lets it have fewer at a time if it hoards.
    fn note_holding(&mut self, offer: &Outstanding, end: OfferEnd, turn: &mut Turn<'_>) {
        let Some(row) = self.frameworks.get_mut(offer.framework) else {
            return;
        };
        let held = turn.now.since(offer.made_at);
        row.holding.ended(held, end == OfferEnd::Accepted);
        let (after, least) = (self.config.hoarding_after, self.config.hoarding_offers);
        let most = row.holding.outstanding_max(after, least, self.slaves.len());
        let before = row.offers_max;
        row.offers_max = Some(most).filter(|most| *most < u32::MAX);
        let has_changed = row.offers_max.is_some() != before.is_some();
        self.allocator.set_outstanding_max(offer.framework, most);
        if has_changed {
            info!(framework_id = %offer.framework, offers_max = most, "hoarding noticed, or over");
            self.publish_framework(offer.framework, turn);
        }
    }

    /// Takes an offer out and gives its resources back.
    pub(crate) fn end_offer(&mut self, number: u64, end: OfferEnd, turn: &mut Turn<'_>) {
        if let Some(offer) = self.take_offer(number, end, turn) {
            self.allocator
                .release(offer.framework, &offer.role, offer.slave, offer.resources);
        }
    }

    /// Takes an offer back from the framework that holds it (semantics C4, E5).
    pub(crate) fn rescind(&mut self, number: u64, end: OfferEnd, turn: &mut Turn<'_>) {
        let (Some(offer), Some(epoch)) = (self.offers.get(number), self.epoch) else {
            return;
        };
        let framework = offer.framework;
        // Out of the table first: an accept that is on its way must find it gone.
        if Mutant::LaunchOnRescinded.is_on() {
            let offer = offer.clone();
            self.allocator
                .release(framework, &offer.role, offer.slave, offer.resources);
        } else {
            self.end_offer(number, end, turn);
        }
        let offer_id = OfferId { epoch, number };
        self.tell_framework(framework, MasterToFramework::Rescind { offer_id }, turn);
    }

    pub(crate) fn end_offers_of_slave(
        &mut self,
        slave: SlaveId,
        end: OfferEnd,
        turn: &mut Turn<'_>,
    ) {
        for number in self.offers.of_slave(slave) {
            self.rescind(number, end, turn);
        }
    }

    /// Without a word: the framework is away, or knows that a subscription voids its offers
    /// (semantics E7).
    pub(crate) fn end_offers_of_framework(&mut self, framework: FrameworkId, turn: &mut Turn<'_>) {
        if Mutant::KeepOffersOfAbsent.is_on() {
            return;
        }
        for number in self.offers.of_framework(framework) {
            self.end_offer(number, OfferEnd::Rescinded, turn);
        }
    }

    pub(crate) fn on_offer_expired(&mut self, number: u64, turn: &mut Turn<'_>) {
        self.rescind(number, OfferEnd::TimedOut, turn);
    }

    pub(crate) fn on_decline(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        offer_ids: &[OfferId],
        filters: Filters,
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = check_items("offer_ids", offer_ids.len()) {
            return self.refuse_call(connection, "Decline", refusal, turn);
        }
        let filters = self.declined(filters, turn.now);
        for id in offer_ids {
            // Unknown ones are ignored (semantics E6).
            let Some(number) = self.offer_number(*id) else {
                continue;
            };
            if self
                .offers
                .get(number)
                .is_some_and(|offer| offer.framework == framework)
                && let Some(offer) = self.take_offer(number, OfferEnd::Declined, turn)
            {
                let rest = offer.resources.clone();
                self.give_back(&offer, rest, filters, turn);
            }
        }
    }

    /// Gives back what is left of an offer, not to be offered again for a while (semantics E3).
    pub(crate) fn give_back(
        &mut self,
        offer: &Outstanding,
        rest: Arc<Resources>,
        filters: Filters,
        turn: &mut Turn<'_>,
    ) {
        if rest.is_empty() {
            return;
        }
        let refuse = filters.refuse.min(REFUSE_MAX);
        if refuse > Duration::ZERO && !Mutant::ForgetFilters.is_on() {
            let until = turn.now.after(refuse);
            let (framework, slave) = (offer.framework, offer.slave);
            if !self
                .allocator
                .filter(framework, &offer.role, slave, rest.clone(), until)
            {
                self.counters.filters_dropped += 1;
            }
            self.counters.filters_replaced = self.allocator.filters_replaced();
        }
        self.allocator
            .release(offer.framework, &offer.role, offer.slave, rest);
    }

    pub(crate) fn on_revive(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        roles: &[RoleName],
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = self.check_own_roles(framework, roles) {
            return self.refuse_call(connection, "Revive", refusal, turn);
        }
        let Some(row) = self.frameworks.get_mut(framework) else {
            return;
        };
        let before = row.suppressed.len();
        if roles.is_empty() {
            row.suppressed.clear();
            self.allocator.clear_filters(framework, None);
        }
        for role in roles {
            row.suppressed.remove(role);
            self.allocator.clear_filters(framework, Some(role));
        }
        if row.suppressed.len() != before {
            self.sync_roles(framework);
            self.publish_framework(framework, turn);
        }
    }

    pub(crate) fn on_suppress(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        roles: &[RoleName],
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = self.check_own_roles(framework, roles) {
            return self.refuse_call(connection, "Suppress", refusal, turn);
        }
        let all = self
            .description(framework)
            .map(|it| it.roles.clone())
            .unwrap_or_default();
        let Some(row) = self.frameworks.get_mut(framework) else {
            return;
        };
        let before = row.suppressed.len();
        let roles = if roles.is_empty() { &all } else { roles };
        row.suppressed.extend(roles.iter().cloned());
        if row.suppressed.len() != before {
            self.sync_roles(framework);
            self.publish_framework(framework, turn);
        }
    }

    fn check_own_roles(&self, framework: FrameworkId, roles: &[RoleName]) -> Result<(), Refusal> {
        self.description(framework)
            .map_or(Ok(()), |it| check_roles("roles", roles, it))
    }
}

/// Checks the length of a list in a call.
pub(crate) fn check_items(what: &str, len: usize) -> Result<(), Refusal> {
    if len > CALL_ITEMS_MAX {
        return Err(Refusal::OverLimit {
            what: format!("the number of {what} in one call"),
            limit: CALL_ITEMS_MAX as u64,
            advice: "send several calls".to_owned(),
        });
    }
    Ok(())
}

/// Splits offers so that each message fits its frame by far.
fn into_messages(offers: Vec<Offer>) -> Vec<Vec<Offer>> {
    let mut messages: Vec<Vec<Offer>> = Vec::new();
    let mut room = 0;
    for offer in offers {
        let bytes = bytes_of(&offer);
        match messages.last_mut() {
            Some(last) if last.len() < OFFERS_PER_MESSAGE_MAX && bytes <= room => {
                room -= bytes;
                last.push(offer);
            }
            _ => {
                room = OFFERS_BYTES_MAX.saturating_sub(bytes);
                messages.push(vec![offer]);
            }
        }
    }
    messages
}

/// About what an offer takes in a frame.
fn bytes_of(offer: &Offer) -> usize {
    let attributes: usize = offer
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    let resources: usize = offer
        .resources
        .iter()
        .map(|resource| {
            // A reservation has a role, a principal and labels; most resources have none.
            let reservations = resource.reservations().as_slice().len() * 1_024;
            let value = match resource.value() {
                Value::Scalar(_) => 9,
                Value::Ranges(ranges) => ranges.iter().len() * 18,
                Value::Set(set) => set.iter().map(|item| item.len() + 3).sum(),
            };
            resource.name().as_str().len() + 16 + reservations + value
        })
        .sum();
    attributes + resources + offer.hostname.len() + offer.http_address.len() + 64
}
