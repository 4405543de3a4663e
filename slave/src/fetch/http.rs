//! Downloads over HTTP and HTTPS: one connection each, redirects followed, no proxies, no credentials.
//!
//! A server is given [`CONNECT_PATIENCE`] to be reached and to answer, and then has to bring at least
//! [`RATE_MIN`] bytes a second on the whole of each [stall time](super::FetchSettings::stall).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::error::Failure;
use super::store::Incoming as Stored;

/// To be connected, and again for the head of the answer.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Below it a transfer stands still.
const RATE_MIN: u64 = 1 << 10;
/// As many as browsers follow, about.
pub(crate) const REDIRECTS_MAX: usize = 10;
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How far a download is.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) bytes: AtomicU64,
    /// 0 if the server has not said.
    pub(crate) expected: AtomicU64,
}

/// What all downloads share.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) stall: Duration,
    pub(crate) file_bytes_max: u64,
}

impl Http {
    /// All of it into `into`.
    pub(crate) async fn download(
        &self,
        uri: &str,
        into: &mut Stored,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let body = self.open(uri).await?.into_body();
        self.receive(body, self.file_bytes_max, into, meter).await
    }

    /// All that comes, up to a bound.
    pub(crate) async fn receive(
        &self,
        mut body: Incoming,
        bytes_max: u64,
        into: &mut Stored,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let expected = hyper::body::Body::size_hint(&body).exact().unwrap_or(0);
        check_size(expected, bytes_max)?;
        meter.expected.store(expected, Ordering::Relaxed);
        let (mut total, mut in_window) = (0, 0);
        let mut window = Instant::now() + self.stall;
        loop {
            let frame = match timeout_at(window, body.frame()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let cause = error.to_string();
                    return Err(Failure::Broken {
                        bytes: total,
                        cause,
                    });
                }
                Err(_) if in_window >= RATE_MIN * self.stall.as_secs().max(1) => {
                    in_window = 0;
                    window = Instant::now() + self.stall;
                    continue;
                }
                Err(_) => return Err(Failure::Stalled { bytes: total }),
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            total += data.len() as u64;
            in_window += data.len() as u64;
            check_size(total, bytes_max)?;
            into.write(data).await?;
            meter.bytes.store(total, Ordering::Relaxed);
            // A quick server never runs into the end of a window.
            if Instant::now() >= window && in_window >= RATE_MIN * self.stall.as_secs().max(1) {
                in_window = 0;
                window = Instant::now() + self.stall;
            }
        }
    }

    /// Until somebody answers 200.
    async fn open(&self, uri: &str) -> Result<Response<Incoming>, Failure> {
        let mut uri = parse(uri)?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.get(&uri, &HeaderMap::new()).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => {
                    let next = response.headers().get(LOCATION).map(HeaderValue::to_str);
                    let next = next
                        .and_then(Result::ok)
                        .ok_or(Failure::Redirect("a redirect leads nowhere"))?;
                    uri = follow(&uri, next)?;
                }
                status => return Err(Failure::Status(status.as_u16())),
            }
        }
        Err(Failure::Redirect("it is redirected more than ten times"))
    }

    /// One answer, whatever it is, to a request with these headers.
    pub(crate) async fn get(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let (host, port) = address(uri)?;
        let connect = async {
            let stream = TcpStream::connect((host, port)).await;
            let stream = stream.map_err(|error| Failure::Connect(error.to_string()))?;
            if uri.scheme_str() != Some("https") {
                return ask(stream, uri, headers).await;
            }
            let name = ServerName::try_from(host.to_owned())
                .map_err(|error| Failure::Invalid(format!("{host:?}: {error}")))?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector.connect(name, stream).await;
            ask(
                stream.map_err(|error| Failure::Connect(error.to_string()))?,
                uri,
                headers,
            )
            .await
        };
        let answered = timeout(CONNECT_PATIENCE, connect).await;
        answered.unwrap_or_else(|_| {
            let seconds = CONNECT_PATIENCE.as_secs();
            Err(Failure::Connect(format!("no answer within {seconds} s")))
        })
    }
}

fn check_size(bytes: u64, max: u64) -> Result<(), Failure> {
    match bytes <= max {
        true => Ok(()),
        false => Err(Failure::TooLarge {
            what: "the file",
            max,
            option: "file",
        }),
    }
}

/// One request on a connection of its own, which ends with the answer.
async fn ask<S>(stream: S, uri: &Uri, headers: &HeaderMap) -> Result<Response<Incoming>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::Broken {
        bytes: 0,
        cause: error.to_string(),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends when the answer has been read or dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of a download broke");
        }
    });
    let authority = uri.authority().map_or("", |it| it.as_str());
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("meros/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| Failure::Invalid(error.to_string()))?;
    request.headers_mut().extend(headers.clone());
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok(response)
}

pub(crate) fn parse(uri: &str) -> Result<Uri, Failure> {
    let without_fragment = uri.split('#').next().unwrap_or_default();
    without_fragment
        .parse()
        .map_err(|error| Failure::Invalid(format!("it is no URI: {error}")))
}

/// Host and port to connect to.
fn address(uri: &Uri) -> Result<(&str, u16), Failure> {
    let authority = uri.authority().map_or("", |it| it.as_str());
    if authority.contains('@') {
        let why = "it has a user or a password, which is never sent: let the command fetch it";
        return Err(Failure::Invalid(why.to_owned()));
    }
    let port = match uri.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => {
            return Err(Failure::Redirect(
                "it leads to what is neither http nor https",
            ));
        }
    };
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').unwrap_or(host);
    let host = host.strip_suffix(']').unwrap_or(host);
    Ok((host, uri.port_u16().unwrap_or(port)))
}

/// Where a redirect leads to.
pub(crate) fn follow(from: &Uri, to: &str) -> Result<Uri, Failure> {
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |it| it.as_str());
    let is_absolute = to
        .find([':', '/', '?', '#'])
        .is_some_and(|at| to[at..].starts_with("://"));
    let text = if is_absolute {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    let next = parse(&text)?;
    match (scheme, next.scheme_str()) {
        ("https", Some("http")) => Err(Failure::Redirect(
            "it is redirected from https to http, where anybody could change it",
        )),
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_as_browsers_do_and_never_to_a_weaker_scheme() {
        let from = parse("https://h:1/a/b?c#d").unwrap();
        for (to, expected) in [
            ("http://g/x", None),
            ("https://g/x", Some("https://g/x")),
            ("//g/x", Some("https://g/x")),
            ("/x?y", Some("https://h:1/x?y")),
            ("x?u=http://g", Some("https://h:1/a/x?u=http://g")),
            ("https://g/x#y", Some("https://g/x")),
            ("\u{1}", None),
        ] {
            let found = follow(&from, to).ok().map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{to}");
        }
    }

    #[test]
    fn hosts_ports_and_what_is_never_sent() {
        let at = |text: &str| address(&parse(text).unwrap()).map(|(h, p)| (h.to_owned(), p));
        assert_eq!(at("http://h/a").unwrap(), ("h".to_owned(), 80));
        assert_eq!(at("https://[::1]/a").unwrap(), ("::1".to_owned(), 443));
        assert_eq!(at("http://h:81").unwrap(), ("h".to_owned(), 81));
        assert!(at("http://u:p@h/a").is_err());
        assert!(at("ftp://h/a").is_err());
    }
}
