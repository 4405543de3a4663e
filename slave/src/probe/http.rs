//! `GET` of a path. The head of the answer is read, in bounds; nothing of the body.

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Answer;
use http_body_util::Empty;

/// The longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The code of the answer.
pub(super) async fn get<S>(stream: S, port: u16, path: &str) -> Answer<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| format!("no answer by HTTP: {}", chain(&error));
    let request = Request::get(path)
        .header(HOST, format!("localhost:{port}"))
        .header(USER_AGENT, "meros-check/1")
        .header(CONNECTION, "close")
        .body(Empty::<&[u8]>::new())
        .map_err(|error| format!("not a request: {error}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Who closes right after the answer ends the connection in the step that brings the answer.
        ended = connection => match (answer.await, ended) {
            (Err(canceled), Err(error)) if canceled.is_canceled() => Err(error),
            (answer, _) => answer,
        },
    };
    match answer {
        Ok(answer) => Ok(answer.status().as_u16()),
        Err(error) if error.is_canceled() => {
            Err("the connection was closed without an answer".to_owned())
        }
        Err(error) => Err(failed(error)),
    }
}

/// An error and its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
