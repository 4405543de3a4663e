//! The protocols that share a master's one UDP port, and who may speak which.

use std::fmt;

use super::PeerRole;

/// What a connection is for. Named in the TLS handshake (ALPN), so one port serves all of them.
///
/// The number at the end of the name is the protocol's generation; it changes when messages change
/// their meaning, while the frame's version byte changes with their encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A slave to a master: registration, launches, status updates.
    Slave,
    /// A framework (or an operator's tool acting as one) to a master: offers and operations.
    Framework,
    /// A master to a master: replication of the registry.
    Raft,
    /// A master to the leading master: the event stream that keeps a standby warm.
    Events,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Slave, Self::Framework, Self::Raft, Self::Events];

    /// The place in [`Protocol::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The name on the wire.
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Slave => "meros-slave/1",
            Self::Framework => "meros-framework/1",
            Self::Raft => "meros-raft/1",
            Self::Events => "meros-events/1",
        }
    }

    /// The protocol of a name on the wire.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.alpn().as_bytes() == name)
    }

    /// Whether a certificate of this role may speak this protocol to a master. Least privilege: a
    /// stolen slave key cannot register a framework, nor the other way round.
    #[must_use]
    pub const fn allows(self, role: PeerRole) -> bool {
        match self {
            Self::Slave => matches!(role, PeerRole::Slave),
            Self::Framework => matches!(role, PeerRole::Framework | PeerRole::Operator),
            Self::Raft | Self::Events => matches!(role, PeerRole::Master),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alpn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_found_by_its_own_name_only() {
        for (index, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol.index(), index);
            assert_eq!(
                Protocol::from_alpn(protocol.alpn().as_bytes()),
                Some(protocol)
            );
        }
        assert_eq!(Protocol::from_alpn(b"meros-slave/2"), None);
        assert_eq!(Protocol::from_alpn(b""), None);
    }

    #[test]
    fn each_role_may_speak_its_own_protocols_and_no_other() {
        let allowed = |role| -> Vec<Protocol> {
            Protocol::ALL
                .into_iter()
                .filter(|protocol| protocol.allows(role))
                .collect()
        };
        assert_eq!(allowed(PeerRole::Slave), [Protocol::Slave]);
        assert_eq!(allowed(PeerRole::Framework), [Protocol::Framework]);
        assert_eq!(allowed(PeerRole::Operator), [Protocol::Framework]);
        assert_eq!(
            allowed(PeerRole::Master),
            [Protocol::Raft, Protocol::Events]
        );
    }
}
