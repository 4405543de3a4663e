//! Who watches or follows what happens.

use super::*;

/// A reader of `/api/v1/events`.
struct Events(std::io::Lines<std::io::BufReader<std::net::TcpStream>>);

impl Events {
    fn open(site: &Site, query: &str) -> Self {
        use std::io::{BufRead, Write};
        let mut stream = std::net::TcpStream::connect(site.address).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let asked =
            format!("GET /api/v1/events{query} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).unwrap();
        Self(std::io::BufReader::new(stream).lines())
    }

    /// The value of the next field of this name; none at the end.
    fn field(&mut self, name: &str) -> Option<String> {
        self.0.by_ref().map_while(Result::ok).find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix(": ")?;
            Some(value.to_owned())
        })
    }

    /// The next event: its id and type.
    fn next(&mut self) -> Option<(String, String)> {
        let event: Value = serde_json::from_str(&self.field("data")?).expect("one line of JSON");
        let text = |name: &str| event[name].as_str().expect("text").to_owned();
        Some((text("id"), text("type")))
    }

    fn sees(&mut self, id: &str, kind: &str) {
        assert_eq!(self.next(), Some((id.to_owned(), kind.to_owned())));
    }
}

#[test]
fn every_event_is_told_once_and_in_order_or_a_gap_is() {
    // semantics: Q4
    let mut site = Site::leading();
    let mut first = Events::open(&site, "");
    assert_eq!(
        first.field("content-type").as_deref(),
        Some("text/event-stream")
    );
    assert_eq!(
        first.field("id").as_deref(),
        Some("3-5"),
        "its place, before any event"
    );
    let one = || TaskId::new("one").unwrap();
    site.publish(ClusterChange::TaskChanged {
        framework_id: FrameworkId(0),
        task_id: one(),
        state: TaskState::Finished,
        status: None,
    });
    site.publish(ClusterChange::TaskRemoved {
        framework_id: FrameworkId(0),
        task_id: one(),
    });
    first.sees("3-6", "meros.task_changed");
    first.sees("3-7", "meros.task_removed");
    Events::open(&site, "?after=3-6").sees("3-7", "meros.task_removed");
    let mut lost = Events::open(&site, "?after=2-9");
    lost.sees("3-5", "meros.gap");
    lost.sees("3-6", "meros.task_changed");
    let (_, _, headers) = site.ask("GET", "/api/v1/slaves");
    assert_eq!(headers["x-meros-place"], "3-7");
    site.refused("GET", "/api/v1/events?after=x", 400, "invalid");
    site.refused("GET", "/api/v1/events?afer=3-6", 400, "invalid");
    // Another term: its numbers begin again.
    site.sequence = 0;
    site.publish(ClusterChange::Elected(MasterView {
        cluster_id: ClusterId(7),
        epoch: Epoch(4),
        elected_at: Timestamp(1),
        version: "0.1.0".to_owned(),
    }));
    first.sees("4-0", "meros.gap");
    first.sees("4-1", "meros.elected");
    site.publisher.as_ref().unwrap().rest().unwrap();
    assert_eq!(first.next(), None, "it leads no more");
}

/// Says the place of each event, and counts how often it is made to.
struct Counting(Arc<std::sync::atomic::AtomicUsize>);

impl feed::Voice for Counting {
    fn form(&self) -> crate::projection::Form {
        crate::projection::Form::Sse
    }

    fn event(&self, batch: &crate::projection::Batch, at: usize) -> Option<axum::body::Bytes> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(batch.place(at).to_string().into())
    }

    fn gap(
        &self,
        _: crate::projection::Place,
        _: crate::projection::Place,
    ) -> Option<axum::body::Bytes> {
        None
    }

    fn heartbeat(&self) -> axum::body::Bytes {
        panic!("none is due for an hour")
    }
}

#[test]
fn two_thousand_watchers_are_told_everything_and_it_is_written_out_once() {
    use http_body::Body;
    const WATCHERS: usize = 2_000;
    // Fewer than wait for one reader: all get on while one after the other is looked at.
    const EVENTS: u64 = 12;
    let mut site = Site::leading();
    let made = Arc::<std::sync::atomic::AtomicUsize>::default();
    let pool = Pool::default();
    let hour = Duration::from_secs(3_600);
    let watch = |_| {
        let (_, watcher) = site.projection.watch(None, |_| ()).expect("it leads");
        let voice = Counting(Arc::clone(&made));
        let feed = feed::Feed::start(&pool, watcher, Vec::new(), hour, voice);
        feed.expect("there is memory")
    };
    let feeds: Vec<feed::Feed> = site
        ._runtime
        .block_on(async { (0..WATCHERS).map(watch).collect() });
    for _ in 0..EVENTS {
        site.publish(ClusterChange::SlaveRemoved(SlaveId(9)));
    }
    let told = site._runtime.block_on(async {
        let mut told = 0;
        for mut feed in feeds {
            for number in 6..6 + EVENTS {
                let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut feed).poll_frame(cx));
                let next = tokio::time::timeout(Duration::from_secs(60), next).await;
                let frame = next.expect("it comes").expect("more").expect("never fails");
                assert_eq!(frame.into_data().unwrap(), format!("3-{number}"));
                told += 1;
            }
        }
        told
    });
    assert_eq!(told, WATCHERS as u64 * EVENTS);
    let made = made.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(made as u64, EVENTS, "once for all of them");
}

#[test]
fn a_master_that_follows_answers_with_its_lag() {
    let site = Site::leading();
    let publisher = site.publisher.as_ref().unwrap();
    let (_, _, headers) = site.ask("GET", "/api/v1/tasks");
    assert!(headers.get("x-meros-lag-ms").is_none(), "it leads");
    publisher.rest().unwrap();
    // Waits until that is done.
    publisher.lead().unwrap();
    let (status, _, headers) = site.ask("GET", "/api/v1/tasks");
    let lag: u64 = headers["x-meros-lag-ms"].to_str().unwrap().parse().unwrap();
    assert!(status == 200 && lag < 10_000, "{status} {lag}");
    let of_leader = |agent: &ureq::Agent, url: &str| {
        let asked = agent.get(url).header("x-meros-read", "leader");
        asked.call()
    };
    let (status, text, _) = site.send("/api/v1/tasks", of_leader);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("recovering"), "{text}");
}
