//! The first bytes of a connection: the client opens the one control stream, both say which version
//! they speak.
//!
//! The server's answer also tells the client that it is welcome. In TLS 1.3 a client finishes its
//! handshake before the server has looked at its certificate; without this answer a refused client
//! would believe itself connected. A client may say that it would rather wait than be turned away by a
//! master that does not lead: then the answer comes when that master does.

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

/// The opening of a client that waits: one byte longer than [`OPENING`], and [`WAITS`] is that byte.
const LENGTH_OF_WAITING: u8 = 2;
const WAITS: u8 = 1;

/// The client's part. With `waits` it may take for ever.
pub(super) async fn begin(quic: &quinn::Connection, waits: bool) -> Result<Streams, OpeningError> {
    let (mut send, mut recv) = quic.open_bi().await.map_err(|error| closed(error.into()))?;
    if waits {
        let [a, b, c, _, version] = OPENING;
        write(
            quic,
            &mut send,
            &[a, b, c, LENGTH_OF_WAITING, version, WAITS],
        )
        .await?;
    } else {
        write(quic, &mut send, &OPENING).await?;
    }
    let mut answer = [0; OPENING.len()];
    read(quic, &mut recv, &mut answer).await?;
    check_opening(&answer).map_err(OpeningError::Opening)?;
    Ok((send, recv))
}

/// The server's part, up to its answer; tells whether the client would rather wait for it.
pub(super) async fn hear(quic: &quinn::Connection) -> Result<(Streams, bool), OpeningError> {
    let (send, mut recv) = quic
        .accept_bi()
        .await
        .map_err(|error| closed(error.into()))?;
    let mut opening = [0; OPENING.len()];
    read(quic, &mut recv, &mut opening).await?;
    let waits = opening[3] == LENGTH_OF_WAITING;
    if waits {
        opening[3] = OPENING[3];
        let mut flag = [0];
        read(quic, &mut recv, &mut flag).await?;
        if flag != [WAITS] {
            let detail = "opening with an unknown flag".into();
            return Err(OpeningError::Opening(DecodeError::Malformed { detail }));
        }
    }
    check_opening(&opening).map_err(OpeningError::Opening)?;
    Ok(((send, recv), waits))
}

/// The server's answer.
pub(super) async fn welcome(
    quic: &quinn::Connection,
    send: &mut quinn::SendStream,
) -> Result<(), OpeningError> {
    write(quic, send, &OPENING).await
}

const fn closed(why: Disconnect) -> OpeningError {
    OpeningError::Closed(why)
}

async fn write(
    quic: &quinn::Connection,
    send: &mut quinn::SendStream,
    bytes: &[u8],
) -> Result<(), OpeningError> {
    let written = send.write_all(bytes).await;
    written.map_err(|error| closed(why(quic, &error)))
}

async fn read(
    quic: &quinn::Connection,
    recv: &mut quinn::RecvStream,
    bytes: &mut [u8],
) -> Result<(), OpeningError> {
    recv.read_exact(bytes).await.map_err(|error| match error {
        quinn::ReadExactError::FinishedEarly(_) => OpeningError::Opening(DecodeError::Truncated),
        quinn::ReadExactError::ReadError(error) => closed(why(quic, &error)),
    })
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
