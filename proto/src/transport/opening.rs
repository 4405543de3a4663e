//! The first bytes of a connection: the client opens the one control stream, both say which version
//! they speak.
//!
//! The server's answer also tells the client that it is welcome. In TLS 1.3 a client finishes its
//! handshake before the server has looked at its certificate; without this answer a refused client
//! would believe itself connected.

use super::{CloseCode, Disconnect};
use crate::codec::{DecodeError, OPENING, check_opening};

/// Why a control stream did not come to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpeningError {
    /// The connection ended first.
    #[error(transparent)]
    Closed(Disconnect),
    /// The peer speaks something else.
    #[error("{}: {_0}", _0.code())]
    Opening(DecodeError),
}

impl OpeningError {
    pub(super) const fn close_code(&self) -> CloseCode {
        match self {
            Self::Closed(_) => CloseCode::NoControlStream,
            Self::Opening(_) => CloseCode::BadFrame,
        }
    }
}

type Streams = (quinn::SendStream, quinn::RecvStream);

/// The client's part.
pub(super) async fn begin(quic: &quinn::Connection) -> Result<Streams, OpeningError> {
    let (mut send, mut recv) = quic.open_bi().await.map_err(|error| closed(error.into()))?;
    write_opening(quic, &mut send).await?;
    read_opening(quic, &mut recv).await?;
    Ok((send, recv))
}

/// The server's part.
pub(super) async fn answer(quic: &quinn::Connection) -> Result<Streams, OpeningError> {
    let (mut send, mut recv) = quic
        .accept_bi()
        .await
        .map_err(|error| closed(error.into()))?;
    read_opening(quic, &mut recv).await?;
    write_opening(quic, &mut send).await?;
    Ok((send, recv))
}

const fn closed(why: Disconnect) -> OpeningError {
    OpeningError::Closed(why)
}

async fn write_opening(
    quic: &quinn::Connection,
    send: &mut quinn::SendStream,
) -> Result<(), OpeningError> {
    let written = send.write_all(&OPENING).await;
    written.map_err(|error| closed(why(quic, &error)))
}

async fn read_opening(
    quic: &quinn::Connection,
    recv: &mut quinn::RecvStream,
) -> Result<(), OpeningError> {
    let mut bytes = [0; OPENING.len()];
    match recv.read_exact(&mut bytes).await {
        Ok(()) => check_opening(&bytes).map_err(OpeningError::Opening),
        Err(quinn::ReadExactError::FinishedEarly(_)) => {
            Err(OpeningError::Opening(DecodeError::Truncated))
        }
        Err(quinn::ReadExactError::ReadError(error)) => Err(closed(why(quic, &error))),
    }
}

/// The connection's own end says more than the stream's.
fn why(quic: &quinn::Connection, error: &dyn std::error::Error) -> Disconnect {
    match quic.close_reason() {
        Some(reason) => reason.into(),
        None => Disconnect::Transport {
            detail: error.to_string(),
        },
    }
}
