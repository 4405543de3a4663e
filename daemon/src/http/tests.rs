//! Hostile and slow clients against a real server on loopback.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::server::HEAD_BYTES_MAX;
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LARGE: usize = 32 << 20;
/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits {
        head: NEVER,
        head_under_pressure: NEVER,
        answer: NEVER,
        idle: NEVER,
        ..Limits::default()
    }
}

/// Never ends, and always has more.
async fn endless() -> axum::response::Response {
    struct Flood;
    impl http_body::Body for Flood {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            let piece = Bytes::from_static(&[b'x'; 1_024]);
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
        }
    }
    let mut response = axum::response::Response::new(axum::body::Body::new(Flood));
    response.extensions_mut().insert(Endless);
    response
}

struct Site {
    address: SocketAddr,
    stats: Arc<HttpStats>,
    /// Requests of `/slow` that were begun; none is answered before `release`.
    begun: Arc<AtomicUsize>,
    release: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl Site {
    async fn start(limits: Limits) -> Self {
        let begun = Arc::<AtomicUsize>::default();
        let (release, released) = watch::channel(false);
        let slow = {
            let begun = Arc::clone(&begun);
            move || {
                let (begun, mut released) = (Arc::clone(&begun), released.clone());
                async move {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let _ = released.wait_for(|released| *released).await;
                    "done"
                }
            }
        };
        let router = Router::new()
            .route("/health", get(async || "well"))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/slow", get(slow))
            .route("/endless", get(endless))
            .route("/body", post(async |body: Bytes| body.len().to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stats = Arc::<HttpStats>::default();
        let (stop, stopping) = watch::channel(false);
        let server = tokio::spawn(serve(
            listener,
            router,
            limits,
            Arc::clone(&stats),
            stopping,
        ));
        Self {
            address,
            stats,
            begun,
            release,
            stop,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A new connection that has sent this.
    async fn said(&self, bytes: impl AsRef<[u8]>) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream
    }

    fn cut(&self, wanted: Cut) -> u64 {
        let (_, count) = self.stats.cut().find(|(cut, _)| *cut == wanted).unwrap();
        count
    }

    /// Waits until a request of `/slow` is at work.
    async fn slow_is_at_work(&self) {
        self.eventually("it is at work", |_| self.begun.load(Ordering::Relaxed) > 0)
            .await;
    }

    async fn eventually(&self, what: &str, mut is_so: impl FnMut(&HttpStats) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.stats) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.stats);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// Reads until `end` has come or the connection has ended.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        let mut byte = [0];
        while !text.ends_with(end.as_bytes()) && stream.read(&mut byte).await.is_ok_and(|n| n > 0) {
            text.push(byte[0]);
        }
    };
    if tokio::time::timeout(PATIENCE, read).await.is_err() {
        panic!(
            "{end:?} does not come after {}",
            String::from_utf8_lossy(&text)
        );
    }
    String::from_utf8(text).unwrap()
}

async fn is_ended(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte));
    matches!(read.await, Ok(Ok(0) | Err(_)))
}

/// Asks on a connection and leaves it open.
async fn ask_health(stream: &mut TcpStream) {
    stream
        .write_all(request("/health").as_bytes())
        .await
        .unwrap();
    let text = read_until(stream, "well").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text:?}");
}

/// Six hundred connections are twelve hundred files, since both ends are here.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// Connections that send one byte of an endless head now and then, until aborted.
async fn trickle(site: &Site, count: usize) -> JoinHandle<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(site.said("GET / HTTP/1.1\r\nx: ").await);
    }
    tokio::spawn(async move {
        loop {
            for stream in &mut streams {
                // Those that were cut off cannot be written to.
                let _ = stream.write_all(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

#[tokio::test]
async fn six_hundred_trickling_clients_keep_nobody_out_for_longer_than_a_head_may_take() {
    allow_many_files();
    // Much, since also who is served at once has no longer for its head on a machine that stands still.
    let head = Duration::from_secs(3);
    let site = Site::start(Limits { head, ..limits() }).await;
    let attack = trickle(&site, 600).await;
    // Nothing else than this limit makes room here: without it no answer would come in time.
    ask_health(&mut site.connect().await).await;
    assert!(site.cut(Cut::Head) >= 1);
    attack.abort();
    site.eventually("all have ended", |stats| stats.open() == 0)
        .await;
}

#[tokio::test]
async fn under_pressure_an_unfinished_head_makes_room_early() {
    let site = Site::start(Limits {
        connections: 4,
        head_under_pressure: Duration::from_millis(50),
        ..limits()
    })
    .await;
    let attack = trickle(&site, 4).await;
    ask_health(&mut site.connect().await).await;
    assert_eq!(site.cut(Cut::Room), 1, "one place was needed");
    attack.abort();
}

#[tokio::test]
async fn the_connection_that_idles_longest_makes_room_for_a_new_one() {
    let site = Site::start(Limits {
        connections: 2,
        ..limits()
    })
    .await;
    let (mut first, mut second) = (site.connect().await, site.connect().await);
    ask_health(&mut first).await;
    ask_health(&mut second).await;
    let mut third = site.connect().await;
    ask_health(&mut third).await;
    assert!(is_ended(&mut first).await);
    ask_health(&mut second).await;
    ask_health(&mut third).await;
    assert_eq!((site.cut(Cut::Room), site.stats.open()), (1, 2));
}

#[tokio::test]
async fn a_connection_that_idles_for_long_is_ended() {
    // More than may pass on a busy machine between an answer and the next question.
    let idle = Duration::from_secs(1);
    let site = Site::start(Limits { idle, ..limits() }).await;
    let mut stream = site.connect().await;
    ask_health(&mut stream).await;
    ask_health(&mut stream).await;
    assert!(is_ended(&mut stream).await);
    assert_eq!(site.cut(Cut::Idle), 1);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_and_holds_bounded_memory_until_then() {
    let site = Site::start(Limits {
        // The second client asks within it, and the third one reads all within it.
        answer: Duration::from_secs(5),
        answer_bytes: LARGE + LARGE / 2,
        ..limits()
    })
    .await;
    let deaf = site.said(request("/large")).await;
    site.eventually("the large answer is on its way", |stats| {
        stats.answered().get(&200) == Some(&1)
    })
    .await;
    let mut other = site.said(request("/large")).await;
    let refused = read_until(&mut other, "}").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused:?}");
    assert!(refused.contains("\"busy\""), "{refused:?}");
    ask_health(&mut other).await;
    let mut is_cut = false;
    site.eventually("it is cut", |stats| {
        is_cut |= stats
            .cut()
            .any(|(cut, count)| cut == Cut::Answer && count == 1);
        is_cut
    })
    .await;
    let mut reader = site.said(request("/large")).await;
    let mut bytes = vec![0; LARGE];
    let read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut bytes));
    read.await.unwrap().expect("its room was given back");
    drop(deaf);
}

#[tokio::test]
async fn a_body_that_never_ends_costs_its_request_and_nobody_else() {
    let site = Site::start(Limits {
        request: Duration::from_millis(100),
        ..limits()
    })
    .await;
    let mut stream = site
        .said("POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n123")
        .await;
    let text = read_until(&mut stream, "}").await;
    assert!(text.starts_with("HTTP/1.1 504"), "{text:?}");
    assert!(is_ended(&mut stream).await);
}

#[tokio::test]
async fn a_stop_finishes_requests_at_work_and_waits_for_nobody_else() {
    let site = Site::start(limits()).await;
    let mut idle = site.connect().await;
    ask_health(&mut idle).await;
    let mut dawdling = site.said("GET /hea").await;
    let mut silent = site.connect().await;
    let mut at_work = site.said(request("/slow")).await;
    site.eventually("all are accepted", |stats| stats.open() == 4)
        .await;
    site.slow_is_at_work().await;
    site.stop.send_replace(true);
    site.release.send_replace(true);
    let text = read_until(&mut at_work, "done").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text:?}");
    for stream in [&mut idle, &mut dawdling, &mut silent, &mut at_work] {
        assert!(is_ended(stream).await);
    }
    let ended = tokio::time::timeout(PATIENCE, site.server);
    ended.await.expect("nothing holds it").unwrap();
    assert!(TcpStream::connect(site.address).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_parsed_is_refused_in_json_and_counted() {
    let site = Site::start(limits()).await;
    let long = "x".repeat(HEAD_BYTES_MAX);
    let line = format!("GET /{long} HTTP/1.1\r\n\r\n");
    let field = format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n");
    let body = format!(
        "POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        1 << 20
    );
    for (said, status, code) in [
        ("nonsense\r\n\r\n", 400, "invalid"),
        ("\u{16}\u{3}\u{1}\u{2}", 400, "invalid"),
        (&line, 414, "uri_too_long"),
        (&field, 431, "head_too_large"),
        (&body, 413, "body_too_large"),
    ] {
        let mut stream = site.said(said).await;
        let text = read_until(&mut stream, "}").await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text:?}");
        assert!(text.contains(&format!("{{\"code\":\"{code}\"")), "{text:?}");
        assert!(stream.shutdown().await.is_ok() && is_ended(&mut stream).await);
    }
    let counted = site.stats.answered();
    assert_eq!(
        counted.into_iter().collect::<Vec<_>>(),
        [(400, 2), (413, 1), (414, 1), (431, 1)]
    );
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let site = Site::start(limits()).await;
    site.release.send_replace(true);
    let mut stream = site
        .said(request("/slow") + &request("/health") + &request("/nowhere"))
        .await;
    let text = read_until(&mut stream, "Not Found").await;
    let parts: Vec<_> = text.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{text:?}");
    assert!(
        parts[0].ends_with("done") && parts[1].ends_with("well"),
        "{text:?}"
    );
    assert!(parts[2].starts_with("404"), "{text:?}");
}

#[tokio::test]
async fn more_requests_than_are_taken_are_told_to_come_again() {
    let site = Site::start(Limits {
        requests: 1,
        ..limits()
    })
    .await;
    let mut at_work = site.said(request("/slow")).await;
    site.slow_is_at_work().await;
    let mut other = site.said(request("/health")).await;
    let text = read_until(&mut other, "}").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text:?}");
    site.release.send_replace(true);
    read_until(&mut at_work, "done").await;
    ask_health(&mut other).await;
}

#[tokio::test]
async fn a_stream_has_no_end_but_its_reader_may_not_stand_still() {
    // More than passes between two reads on a busy machine.
    let answer = Duration::from_secs(3);
    let site = Site::start(Limits {
        answer,
        streams: 1,
        ..limits()
    })
    .await;
    let mut stream = site.said(request("/endless")).await;
    let mut piece = vec![0; 64 << 10];
    let begun = Instant::now();
    while begun.elapsed() < answer + answer / 6 {
        assert!(stream.read(&mut piece).await.unwrap() > 0);
    }
    assert_eq!(site.cut(Cut::Answer), 0, "it goes on while it is read");
    let mut second = site.said(request("/endless")).await;
    let refused = read_until(&mut second, "}").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused:?}");
    // Not read any more.
    site.eventually("it is cut off", |_| site.cut(Cut::Answer) == 1)
        .await;
    drop(stream);
}
