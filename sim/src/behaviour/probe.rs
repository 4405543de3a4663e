//! Frameworks that come at the very end. One when all others have left, which wants everything: what is
//! not offered to it has leaked. Then another one, to which a part of that is owed.

use std::collections::BTreeMap;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{OfferId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::Offer;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;

/// The role of the one that is owed a part at the very end.
pub(crate) const CREDITORS_ROLE: &str = "creditor";

/// What it has been offered.
#[derive(Debug)]
pub(crate) struct Probe {
    roles: &'static [&'static str],
    offers: BTreeMap<OfferId, Offer>,
}

impl Probe {
    /// One that can have everything, also what is reserved.
    pub(crate) fn of_everything() -> Self {
        Self {
            roles: &["*", "web", "web/ads", "batch"],
            offers: BTreeMap::new(),
        }
    }

    /// One in the role to which a part is owed.
    pub(crate) fn creditor() -> Self {
        Self {
            roles: &[CREDITORS_ROLE],
            offers: BTreeMap::new(),
        }
    }

    pub(crate) fn subscribe(&self) -> FrameworkToMaster {
        let roles = self.roles.iter();
        let roles: Vec<RoleName> = roles.map(|it| it.parse().expect("a role")).collect();
        let mut framework = FrameworkDescription::new("probe", roles[0].clone());
        // However little it is: what others leave of a slave, a small volume for one, may be less than
        // the master's minimum.
        let everything = |role: &RoleName| OfferWishes::for_role(role.clone()).minimum([]);
        let wishes = roles.iter().map(everything).collect();
        framework.roles = roles;
        FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles: Vec::new(),
            wishes,
        }
    }

    pub(crate) fn on_message(&mut self, message: MasterToFramework) {
        match message {
            // Offers do not outlive a subscription (semantics E7).
            MasterToFramework::Subscribed { .. } => self.offers.clear(),
            MasterToFramework::Offers(offers) => {
                for offer in offers {
                    self.offers.insert(offer.offer_id, offer);
                }
            }
            MasterToFramework::Rescind { offer_id } => {
                self.offers.remove(&offer_id);
            }
            _ => {}
        }
    }

    /// By slave, what it holds offers of.
    pub(crate) fn offered(&self) -> BTreeMap<SlaveId, Resources> {
        let mut by_slave: BTreeMap<SlaveId, Resources> = BTreeMap::new();
        for offer in self.offers.values() {
            let sum = by_slave.entry(offer.slave_id).or_default();
            sum.checked_add_assign(&offer.resources)
                .expect("parts of one slave");
        }
        by_slave
    }
}
