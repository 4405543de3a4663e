//! The fetcher against servers on loopback that behave in many ways.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use meros_proto::fetch::Sha256;

use super::*;

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Answers each connection by what its path asks for, and counts them.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, is_over) = (Arc::clone(&asked), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    // The client may have left.
                    let _ = serve(stream, &count);
                });
            }
        });
        Self {
            address,
            asked,
            stop,
        }
    }

    fn uri(&self, path: &str) -> FetchUri {
        FetchUri::new(format!("http://{}{path}", self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, asked: &AtomicU64) -> io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?).lines();
    let line = head.next().unwrap_or_else(|| Ok(String::new()))?;
    while head
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    asked.fetch_add(1, Ordering::Relaxed);
    let path = line.split(' ').nth(1).unwrap_or("/");
    let path = path.split('?').next().unwrap_or(path);
    let ok = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let to = |place: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n")
    };
    match path {
        "/abc" | "/a/abc" => stream.write_all(ok("abc").as_bytes()),
        "/slow" => {
            // Long enough for others to ask for it, too.
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(ok("slow").as_bytes())
        }
        "/there" => stream.write_all(to("/a/here").as_bytes()),
        "/a/here" => stream.write_all(to("abc").as_bytes()),
        "/round" => stream.write_all(to("/round").as_bytes()),
        "/nowhere" => stream.write_all(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"),
        "/ftp" => stream.write_all(to("ftp://h/a").as_bytes()),
        "/large" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
        "/short" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
        "/garbage" => stream.write_all(b"what do you want?\r\n\r\n"),
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"400\r\n")?;
                stream.write_all(&[b'x'; 1024])?;
                stream.write_all(b"\r\n")?;
            }
        }
        "/silent" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")?;
            // Until the client leaves.
            while head.next().transpose()?.is_some() {}
            Ok(())
        }
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    }
}

struct World {
    dir: tempfile::TempDir,
    fetcher: Arc<Fetcher>,
    server: Server,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut FetchSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = FetchSettings {
            folders: vec![dir.path().join("allowed")],
            file_bytes_max: 1 << 20,
            task_bytes_max: 1 << 21,
            cache_bytes_max: 1 << 20,
            stall: Duration::from_secs(30),
            ca: None,
        };
        change(&mut settings);
        for name in ["allowed", "sandbox"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let fetcher = Fetcher::open(settings, dir.path().join("fetch")).unwrap();
        Self {
            dir,
            fetcher: Arc::new(fetcher),
            server: Server::start(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn fetch(&self, uris: &[FetchUri]) -> Result<(), FetchError> {
        let (_canceller, cancel) = cancel();
        self.fetch_until(uris, &cancel).await
    }

    async fn fetch_until(&self, uris: &[FetchUri], cancel: &Cancel) -> Result<(), FetchError> {
        let destination = Destination {
            sandbox: self.path("sandbox"),
            owner: None,
        };
        let tell = |message: String| assert!(!message.is_empty());
        self.fetcher.fetch(uris, &destination, cancel, &tell).await
    }

    async fn fails(&self, uri: FetchUri, code: &str) {
        let value = uri.value.clone();
        let error = self.fetch(&[uri]).await.expect_err(code).to_string();
        assert!(error.starts_with(&format!("{code}: {value}: ")), "{error}");
        let left = fs::read_dir(self.path("fetch")).unwrap().count();
        assert_eq!(left, 0, "{code} leaves something");
    }
}

#[tokio::test]
async fn files_come_with_their_digest_name_and_permissions() {
    let world = World::new();
    let digest: Sha256 = ABC.parse().unwrap();
    let uris = [
        world.server.uri("/abc?x=1").digest(digest),
        world
            .server
            .uri("/there")
            .output_file("bin/program")
            .executable(),
    ];
    world.fetch(&uris).await.unwrap();
    let mode = |name: &str| {
        let path = world.path("sandbox").join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!((mode("abc"), mode("bin/program")), (0o644, 0o755));
    assert_eq!(fs::read_dir(world.path("fetch")).unwrap().count(), 0);
    let counters = &world.fetcher.counters;
    assert_eq!(counters.files.load(Ordering::Relaxed), 2);
    assert_eq!(counters.bytes.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn what_goes_wrong_has_a_code_names_the_file_and_leaves_nothing() {
    let world = World::with(|settings| settings.stall = Duration::from_secs(1));
    let uri = |path: &str| world.server.uri(path);
    world
        .fails(uri("/abc").digest(Sha256([1; 32])), "fetch_digest")
        .await;
    world.fails(uri("/missing"), "fetch_refused").await;
    world.fails(uri("/large"), "fetch_too_large").await;
    world.fails(uri("/endless"), "fetch_too_large").await;
    world.fails(uri("/short"), "fetch_broken").await;
    world.fails(uri("/garbage"), "fetch_broken").await;
    world.fails(uri("/round"), "fetch_redirect").await;
    world.fails(uri("/nowhere"), "fetch_redirect").await;
    world.fails(uri("/ftp"), "fetch_redirect").await;
    world.fails(uri("/silent"), "fetch_stalled").await;
    // Nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = FetchUri::new(format!("http://{closed}/a"));
    world.fails(nobody, "fetch_unreachable").await;
    assert_eq!(fs::read_dir(world.path("sandbox")).unwrap().count(), 0);
    assert_eq!(world.fetcher.counters.failures.load(Ordering::Relaxed), 11);
}

#[tokio::test]
async fn a_task_gets_no_more_than_its_bytes() {
    let world = World::with(|settings| settings.task_bytes_max = 5);
    let uris = [
        world.server.uri("/abc"),
        world.server.uri("/a/abc").output_file("b"),
    ];
    let error = world.fetch(&uris).await.unwrap_err().to_string();
    assert!(error.contains("--fetch-task-bytes-max"), "{error}");
}

#[tokio::test]
async fn what_is_cached_comes_once_however_many_want_it() {
    let world = World::new();
    let uri = || world.server.uri("/slow").cache();
    let names: Vec<[FetchUri; 1]> = (0..8)
        .map(|n| [uri().output_file(format!("f{n}"))])
        .collect();
    let all = names.iter().map(|uris| world.fetch(uris));
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Ready(done) => {
                done.unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        match all.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    assert_eq!(world.server.asked.load(Ordering::Relaxed), 1);
    assert_eq!(world.fetcher.counters.cache_hits.load(Ordering::Relaxed), 7);
    assert_eq!(world.fetcher.cached(), (4, 1));
    assert_eq!(fs::read_dir(world.path("sandbox")).unwrap().count(), 8);
    // What nobody wants to be kept is not taken from there.
    world.fetch(&[world.server.uri("/slow")]).await.unwrap();
    assert_eq!(world.server.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_fetch_that_is_given_up_ends_at_once_and_leaves_nothing() {
    let world = World::new();
    let (canceller, cancel) = cancel();
    let uris = [world.server.uri("/silent")];
    let fetch = world.fetch_until(&uris, &cancel);
    let give_up = async {
        while world.server.asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        drop(canceller);
        began
    };
    let (result, began) = tokio::join!(fetch, give_up);
    assert!(matches!(result.unwrap_err().why, Failure::Cancelled));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(fs::read_dir(world.path("fetch")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path("sandbox")).unwrap().count(), 0);
}

#[tokio::test]
async fn files_of_the_machine_come_from_allowed_folders_only() {
    let world = World::new();
    fs::write(world.path("allowed/with blank"), "abc").unwrap();
    fs::write(world.path("secret"), "secret").unwrap();
    symlink(world.path("secret"), world.path("allowed/out")).unwrap();
    symlink("../secret", world.path("allowed/up")).unwrap();
    symlink("with blank", world.path("allowed/link")).unwrap();
    let pipe = world.path("allowed/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let at = |name: &str| FetchUri::new(format!("file://{}", world.path(name).display()));
    let good = [
        at("allowed/with%20blank").output_file("a"),
        at("allowed/link").digest(ABC.parse().unwrap()),
    ];
    world.fetch(&good).await.unwrap();
    assert_eq!(fs::read_to_string(world.path("sandbox/a")).unwrap(), "abc");
    for name in [
        "secret",
        "allowed/../secret",
        "allowed/out",
        "allowed/up",
        "allowed/%2e%2e/secret",
    ] {
        world.fails(at(name), "fetch_not_allowed").await;
    }
    world.fails(at("allowed/pipe"), "fetch_invalid").await;
    world.fails(at("allowed/missing"), "fetch_local").await;
    world
        .fails(FetchUri::new("/etc/hostname"), "fetch_not_allowed")
        .await;
}

#[tokio::test]
async fn https_is_trusted_by_the_authorities_that_were_named() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust it leaves in the middle.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
            let _ = stream.write_all(answer).await;
            let _ = stream.flush().await;
        }
    });
    let uri = FetchUri::new(format!("https://localhost:{port}/abc"));
    World::new().fails(uri.clone(), "fetch_unreachable").await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    fs::write(ca.path(), made.cert.pem()).unwrap();
    let world = World::with(|settings| settings.ca = Some(ca.path().to_owned()));
    world
        .fetch(&[uri.digest(ABC.parse().unwrap())])
        .await
        .unwrap();
    let other_name = FetchUri::new(format!("https://127.0.0.1:{port}/abc"));
    world.fails(other_name, "fetch_unreachable").await;
}

#[test]
fn authorities_that_are_none_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    for text in [None, Some("nothing")] {
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let error = trust(Some(&path)).unwrap_err().to_string();
        assert!(
            error.contains("ca.pem") && error.contains("--fetch-ca"),
            "{error}"
        );
    }
}
