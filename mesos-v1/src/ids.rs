//! Ids as v1 has them: the cluster's, then a number (semantics A9).
//!
//! | | v1 | Meros |
//! |---|---|---|
//! | framework | `<cluster>-0003` | `F3` |
//! | agent | `<cluster>-S17` | `S17` |
//! | offer | `<cluster>-O2-45` | `O2-45` |

use meros_proto::ids::{ClusterId, Epoch, FrameworkId, OfferId, SlaveId};

use crate::pb;

/// What a client calls a slave that this cluster cannot have: the answer is the same as for one that
/// is not known. Numbers are given from 0 upwards, and there are never so many.
pub const NO_SLAVE: SlaveId = SlaveId(u32::MAX);

/// The same for an offer: terms are counted from 1.
pub const NO_OFFER: OfferId = OfferId {
    epoch: Epoch(0),
    number: 0,
};

/// Writes and reads the ids of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    cluster: ClusterId,
}

impl Ids {
    /// Those of this cluster.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        Self { cluster }
    }

    /// Of a framework.
    #[must_use]
    pub fn framework(self, id: FrameworkId) -> pb::FrameworkId {
        pb::FrameworkId {
            value: format!("{}-{:04}", self.cluster, id.0),
        }
    }

    /// Of a slave.
    #[must_use]
    pub fn slave(self, id: SlaveId) -> pb::AgentId {
        pb::AgentId {
            value: format!("{}-{id}", self.cluster),
        }
    }

    /// Of an offer.
    #[must_use]
    pub fn offer(self, id: OfferId) -> pb::OfferId {
        pb::OfferId {
            value: format!("{}-{id}", self.cluster),
        }
    }

    /// The framework of this id; none if it is of another cluster or no id.
    #[must_use]
    pub fn read_framework(self, id: &pb::FrameworkId) -> Option<FrameworkId> {
        let digits = self.own(&id.value)?;
        let number = digits.parse().ok().map(FrameworkId)?;
        // One text for one number.
        (self.framework(number).value == id.value).then_some(number)
    }

    /// The slave of this id; [`NO_SLAVE`] if it is of another cluster or no id.
    #[must_use]
    pub fn read_slave(self, id: &pb::AgentId) -> SlaveId {
        let own = self.own(&id.value).and_then(|text| text.parse().ok());
        own.unwrap_or(NO_SLAVE)
    }

    /// The offer of this id; [`NO_OFFER`] if it is of another cluster or no id.
    #[must_use]
    pub fn read_offer(self, id: &pb::OfferId) -> OfferId {
        let own = self.own(&id.value).and_then(|text| text.parse().ok());
        own.unwrap_or(NO_OFFER)
    }

    /// What follows the cluster's id and a dash.
    fn own(self, text: &str) -> Option<&str> {
        let (cluster, rest) = text.split_at_checked(36)?;
        let is_ours = cluster.parse() == Ok(self.cluster);
        rest.strip_prefix('-').filter(|_| is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_forms_of_a9_and_come_back() {
        // semantics: A9
        let ids = Ids::new(ClusterId(7));
        let framework = ids.framework(FrameworkId(3));
        assert_eq!(framework.value, "00000000-0000-0000-0000-000000000007-0003");
        assert_eq!(ids.read_framework(&framework), Some(FrameworkId(3)));
        let big = ids.framework(FrameworkId(12_345));
        assert_eq!(ids.read_framework(&big), Some(FrameworkId(12_345)));
        assert!(ids.slave(SlaveId(17)).value.ends_with("07-S17"));
        assert_eq!(ids.read_slave(&ids.slave(SlaveId(17))), SlaveId(17));
        let offer = OfferId {
            epoch: Epoch(2),
            number: 45,
        };
        assert!(ids.offer(offer).value.ends_with("07-O2-45"));
        assert_eq!(ids.read_offer(&ids.offer(offer)), offer);
    }

    #[test]
    fn what_is_no_id_of_this_cluster_is_nobody() {
        let ids = Ids::new(ClusterId(7));
        let other = Ids::new(ClusterId(8));
        assert_eq!(ids.read_framework(&other.framework(FrameworkId(3))), None);
        assert_eq!(ids.read_slave(&other.slave(SlaveId(1))), NO_SLAVE);
        for value in ["", "x", "F3", "00000000-0000-0000-0000-000000000007-3", "é"] {
            let value = value.to_owned();
            assert_eq!(ids.read_framework(&pb::FrameworkId { value }), None);
        }
        let value = "00000000-0000-0000-0000-000000000007-S017".to_owned();
        assert_eq!(ids.read_slave(&pb::AgentId { value }), NO_SLAVE);
    }
}
