//! How connections end: the code we give, and what is known when the other side ends one.

use std::fmt;

use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// Characters of a peer's reason that are kept: it is shown to people and written to logs.
const REASON_CHARS_MAX: usize = 256;

/// Why a connection was closed, as sent to the other side. Numbers are stable on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 0: nothing more to say.
    Done,
    /// 1: the process is stopping; dial another master or come back later.
    ShuttingDown,
    /// 2: bytes that are not a frame of this release; the reason names the decoder's code.
    BadFrame,
    /// 3: the certificate's role may not speak this protocol, or says no role at all.
    NotAllowed,
    /// 4: the peer did not read, and our queue for it is full.
    SlowReader,
    /// 5: no control stream was opened in time.
    NoControlStream,
    /// 6: a newer connection of the same peer took over.
    Superseded,
    /// 7: a message before this close says why.
    Refused,
    /// 8: a bug on the closing side.
    Internal,
    /// A code of a newer release.
    Unknown(u64),
}

impl CloseCode {
    const NAMED: [(Self, u32, &'static str); 9] = [
        (Self::Done, 0, "done"),
        (Self::ShuttingDown, 1, "shutting_down"),
        (Self::BadFrame, 2, "bad_frame"),
        (Self::NotAllowed, 3, "not_allowed"),
        (Self::SlowReader, 4, "slow_reader"),
        (Self::NoControlStream, 5, "no_control_stream"),
        (Self::Superseded, 6, "superseded"),
        (Self::Refused, 7, "refused"),
        (Self::Internal, 8, "internal"),
    ];

    /// The stable name, for metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let named = Self::NAMED.into_iter().find(|(code, ..)| *code == self);
        named.map_or("unknown", |(_, _, name)| name)
    }

    pub(super) fn to_wire(self) -> VarInt {
        match (
            self,
            Self::NAMED.into_iter().find(|(code, ..)| *code == self),
        ) {
            (_, Some((_, number, _))) => VarInt::from_u32(number),
            (Self::Unknown(number), None) => VarInt::from_u64(number).unwrap_or(VarInt::MAX),
            (_, None) => VarInt::MAX,
        }
    }

    fn from_wire(number: VarInt) -> Self {
        let number = number.into_inner();
        let named = Self::NAMED
            .into_iter()
            .find(|(_, known, _)| u64::from(*known) == number);
        named.map_or(Self::Unknown(number), |(code, ..)| code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(number) => write!(f, "code {number}"),
            named => f.write_str(named.as_str()),
        }
    }
}

/// How a connection ended, or why it never began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    /// The peer closed it and said why.
    #[error("closed by peer ({code}): {reason}")]
    ByPeer {
        /// Its code.
        code: CloseCode,
        /// Its words, cut to 256 characters.
        reason: String,
    },
    /// This process closed it.
    #[error("closed by this side")]
    ByUs,
    /// Nothing was heard for [`IDLE_TIMEOUT`](super::IDLE_TIMEOUT).
    #[error("peer fell silent")]
    TimedOut,
    /// The peer does not know the connection any more.
    #[error("peer was restarted")]
    Reset,
    /// The peer did not accept our certificate.
    #[error("our certificate was refused: {why}")]
    CertificateRefused {
        /// What its TLS alert means.
        why: &'static str,
    },
    /// We did not accept the peer's certificate.
    #[error("peer's certificate is not trusted: {why}")]
    CertificateUntrusted {
        /// What is wrong with it.
        why: String,
    },
    /// The peer answers, but does not serve this protocol.
    #[error("peer does not speak this protocol")]
    ProtocolUnknown,
    /// The peer is at its limit of connections or handshakes.
    #[error("peer has no room for another connection")]
    Busy,
    /// Anything else that went wrong below us.
    #[error("connection failed: {detail}")]
    Transport {
        /// What QUIC or TLS said.
        detail: String,
    },
}

impl Disconnect {
    /// Whether trying again may help without anyone changing certificates or permissions.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(
            self,
            Self::CertificateRefused { .. }
                | Self::CertificateUntrusted { .. }
                | Self::ProtocolUnknown
                | Self::ByPeer {
                    code: CloseCode::NotAllowed | CloseCode::BadFrame,
                    ..
                }
        )
    }
}

/// TLS alerts are sent as QUIC error codes from here on.
const CRYPTO_ERROR_BASE: u64 = 0x100;
const ALERT_NO_APPLICATION_PROTOCOL: u64 = 120;

impl From<ConnectionError> for Disconnect {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: CloseCode::from_wire(close.error_code),
                reason: shown(&String::from_utf8_lossy(&close.reason)),
            },
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                _ if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Busy,
                Some(ALERT_NO_APPLICATION_PROTOCOL) => Self::ProtocolUnknown,
                Some(number) if let Some(why) = certificate_alert(number) => {
                    Self::CertificateRefused { why }
                }
                _ => Self::Transport {
                    detail: shown(&close.to_string()),
                },
            },
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(number) if certificate_alert(number).is_some() => Self::CertificateUntrusted {
                    why: shown(&error.reason),
                },
                _ => Self::Transport {
                    detail: shown(&error.to_string()),
                },
            },
            other => Self::Transport {
                detail: shown(&other.to_string()),
            },
        }
    }
}

fn alert(code: TransportErrorCode) -> Option<u64> {
    u64::from(code)
        .checked_sub(CRYPTO_ERROR_BASE)
        .filter(|alert| *alert < 0x100)
}

/// The alerts that are about certificates, in words for people.
const fn certificate_alert(alert: u64) -> Option<&'static str> {
    Some(match alert {
        42 => "it is damaged",
        43 => "it is of an unsupported kind or for another purpose",
        44 => "it was revoked",
        45 => "it has expired or is not yet valid",
        46 => "it is not acceptable",
        48 => "it was issued by another cluster's certificate authority",
        49 => "access was denied",
        51 => "its signature does not match, it belongs to another cluster's certificate authority",
        116 => "none was presented",
        _ => return None,
    })
}

/// Text from the other side, fit for a terminal and a log line.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(REASON_CHARS_MAX).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_keep_their_numbers() {
        for (code, number, name) in CloseCode::NAMED {
            assert_eq!(code.to_wire(), VarInt::from_u32(number));
            assert_eq!(CloseCode::from_wire(code.to_wire()), code);
            assert_eq!(code.to_string(), name);
        }
        assert_eq!(
            CloseCode::from_wire(VarInt::from_u32(77)),
            CloseCode::Unknown(77)
        );
        assert_eq!(CloseCode::Unknown(77).to_wire(), VarInt::from_u32(77));
        assert_eq!(CloseCode::Unknown(u64::MAX).to_wire(), VarInt::MAX);
    }

    #[test]
    fn a_hostile_reason_is_cut_and_cleaned() {
        let close = quinn::ApplicationClose {
            error_code: VarInt::from_u32(7),
            reason: [b"\x1b[2J\xff".as_slice(), &[b'x'; 1_000]].concat().into(),
        };
        let Disconnect::ByPeer { code, reason } = ConnectionError::ApplicationClosed(close).into()
        else {
            panic!("a close by the peer");
        };
        assert_eq!(code, CloseCode::Refused);
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX);
        assert!(!reason.contains('\x1b'));
    }
}
