//! The gRPC health checking protocol (`grpc.health.v1.Health/Check`): one call over HTTP/2 without TLS, a
//! message of one field each way.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use super::Answer;
use super::http::chain;

/// The longest answer, which has 7 bytes if all is well.
const ANSWER_BYTES_MAX: usize = 1 << 10;
/// The longest headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What the server may send before we have read; the least that the protocol lets us ask for is no less.
const WINDOW_BYTES: u32 = 64 << 10;
/// Of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// Codes of gRPC.
const OK: &str = "0";
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    /// `SERVING` is 1.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Whether the service is serving.
pub(super) async fn check(stream: TcpStream, port: u16, service: &str) -> Answer<bool> {
    let failed = |error: hyper::Error| format!("no answer by gRPC: {}", chain(&error));
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    let request = Request::post(format!(
        "http://localhost:{port}/grpc.health.v1.Health/Check"
    ))
    .header(CONTENT_TYPE, "application/grpc")
    .header(TE, "trailers")
    .header(USER_AGENT, "meros-check/1")
    .body(Full::new(framed(&message)))
    .map_err(|error| format!("not a request: {error}"))?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        read(response).await
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What has come before the end of the connection is still to be read.
        ended = connection => match (exchange.await, ended) {
            (Err(_), Err(error)) => Err(failed(error)),
            (answer, _) => answer,
        },
    }
}

fn framed(message: &HealthCheckRequest) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    // A name has at most some thousand bytes.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

async fn read(response: Response<hyper::body::Incoming>) -> Answer<bool> {
    let code = response.status();
    if code != StatusCode::OK {
        return Err(format!("no answer by gRPC: HTTP {}", code.as_u16()));
    }
    // An error may come with the headers already.
    if let Some(answer) = judged(response.headers()) {
        return answer;
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await;
    let body = body.map_err(|error| format!("no answer by gRPC: {error}"))?;
    if let Some(answer) = body.trailers().and_then(judged) {
        return answer;
    }
    let bytes = body.to_bytes();
    let message = bytes.get(PREFIX_BYTES..).unwrap_or_default();
    match (bytes.first(), HealthCheckResponse::decode(message)) {
        (Some(0), Ok(answer)) => Ok(answer.status == 1),
        _ => Err("no answer by gRPC: not a HealthCheckResponse".to_owned()),
    }
}

/// What follows from the code of gRPC; none if all is well up to here.
fn judged(headers: &HeaderMap) -> Option<Answer<bool>> {
    match headers.get("grpc-status")?.to_str().unwrap_or("?") {
        OK => None,
        // It does not know the service, so it does not serve it.
        NOT_FOUND => Some(Ok(false)),
        UNIMPLEMENTED => Some(Err(
            "the server does not speak the gRPC health checking protocol".to_owned(),
        )),
        code => Some(Err(format!("the server answered with gRPC code {code}"))),
    }
}
