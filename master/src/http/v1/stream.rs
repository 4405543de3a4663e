//! The answer to a SUBSCRIBE: events as long as it lives (semantics A3, A4, A7, R1, R4).
//!
//! It is read as fast as its framework reads; what waits meanwhile is in its queue, which is bounded.
//! When the framework or the core ends it, the other hears of that.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http_body::{Body, Frame};
use meros_master_core::event::{ConnectionId, Event};
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Refusal;
use meros_v1::encoding::{Media, encode};
use meros_v1::events::{self, Teller};
use meros_v1::pb;
use meros_v1::recordio;
use meros_v1::state::VERSION;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{info, warn};

use super::sessions::Session;
use crate::http::Api;
use crate::shell::inbox::Input;
use crate::shell::link::{Outgoing, V1Link};

/// The stream of one framework.
pub(super) struct FrameworkStream {
    api: Arc<Api>,
    session: Session,
    teller: Teller,
    media: Media,
    /// Records that are to be handed over next.
    pending: VecDeque<Bytes>,
    /// Set while it is subscribed.
    subscribed: Option<(FrameworkId, Interval)>,
    is_over: bool,
}

impl FrameworkStream {
    /// The stream of a framework that is about to subscribe.
    pub(super) fn new(api: Arc<Api>, session: Session, teller: Teller, media: Media) -> Self {
        Self {
            api,
            session,
            teller,
            media,
            pending: VecDeque::new(),
            subscribed: None,
            is_over: false,
        }
    }

    fn tell(&mut self, event: &pb::scheduler::Event) {
        let record = recordio::frame(&encode(self.media, event));
        self.pending.push_back(record);
    }

    fn take(&mut self, message: MasterToFramework) {
        match &message {
            MasterToFramework::Subscribed { framework_id, .. } => {
                return self.subscribe(*framework_id);
            }
            MasterToFramework::Refused { call, refusal } => {
                // v1 has no word for it (semantics B): the call was answered long ago.
                let connection = self.session.connection.0;
                info!(connection, call, code = refusal.code(), %refusal, "v1 call refused");
            }
            // A teardown closes the stream, and says no more (semantics R15).
            MasterToFramework::Error {
                refusal: Refusal::FrameworkRemoved { .. },
                ..
            } if self.subscribed.is_some() => return,
            MasterToFramework::Update(status) => {
                if let Some(update_id) = status.update_id.filter(|id| id.is_by_master()) {
                    // v1 frameworks acknowledge no updates of masters (semantics I2, Q2).
                    self.report(FrameworkToMaster::Acknowledge {
                        slave_id: status.slave_id,
                        task_id: status.task_id.clone(),
                        update_id,
                    });
                }
            }
            _ => {}
        }
        let api = Arc::clone(&self.api);
        if let Some(event) = self.teller.event(&message, |slave| address_of(&api, slave)) {
            self.tell(&event);
        }
    }

    fn subscribe(&mut self, framework: FrameworkId) {
        // Calls may follow as soon as the framework has read this.
        self.api.sessions.insert(framework, self.session.clone());
        self.subscribed = Some((framework, heartbeats(&self.api)));
        let master = master_info(&self.api);
        let seconds = self.api.heartbeat.as_secs_f64();
        self.tell(&self.teller.subscribed(framework, seconds, master));
        self.tell(&events::heartbeat());
    }

    /// Needs no room in the queue: each answers something that the core has sent.
    fn report(&self, message: FrameworkToMaster) {
        let connection = self.session.connection;
        let event = Event::Framework {
            connection,
            message,
        };
        // A core that has ended needs no reports.
        let _ = self.api.inbox.report(Input::Event(Box::new(event)));
    }
}

/// When heartbeats are due (semantics A7); the first has been sent already (semantics R4).
pub(super) fn heartbeats(api: &Api) -> Interval {
    let mut due = tokio::time::interval_at(Instant::now() + api.heartbeat, api.heartbeat);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    due
}

/// Where a slave is reached, as far as its description has an address.
fn address_of(api: &Api, slave: SlaveId) -> Option<IpAddr> {
    let address = api
        .projection
        .read()
        .slave_view(slave)?
        .http_address
        .parse::<SocketAddr>();
    address.ok().map(|address| address.ip())
}

/// This master, as v1 clients know masters (semantics C1).
pub(super) fn master_info(api: &Api) -> pb::MasterInfo {
    let address = api.address;
    let id = api
        .projection
        .read()
        .master()
        .map(|it| it.cluster_id.to_string());
    let ip = match address.ip() {
        // As the bytes stand on the network.
        IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
        IpAddr::V6(_) => 0,
    };
    use pb::master_info::Capability;
    use pb::master_info::capability::Type;
    let can = |kind: Type| Capability {
        r#type: Some(kind.into()),
    };
    pb::MasterInfo {
        id: id.unwrap_or_default(),
        ip,
        port: address.port().into(),
        pid: Some(format!("master@{address}")),
        hostname: Some(address.ip().to_string()),
        version: Some(VERSION.to_owned()),
        address: Some(pb::Address {
            hostname: Some(address.ip().to_string()),
            ip: Some(address.ip().to_string()),
            port: address.port().into(),
        }),
        domain: None,
        capabilities: vec![can(Type::AgentDraining), can(Type::QuotaV2)],
    }
}

impl Body for FrameworkStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            if let Some(record) = this.pending.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(record))));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
            match this.session.link.poll_next(cx) {
                Poll::Ready(Ok(Outgoing::Message(message))) => this.take(message),
                Poll::Ready(Ok(Outgoing::Event(event))) => this.tell(&event),
                Poll::Ready(Ok(Outgoing::Form(form))) => this.teller.form = form,
                Poll::Ready(Err(why)) => {
                    if why == Refusal::TooSlow {
                        warn!(
                            connection = this.session.connection.0,
                            "v1 framework reads too slowly"
                        );
                        this.tell(&events::error_of(&why));
                    }
                    this.is_over = true;
                }
                Poll::Pending => {
                    let is_due = this
                        .subscribed
                        .as_mut()
                        .is_some_and(|(_, heartbeat)| heartbeat.poll_tick(cx).is_ready());
                    if !is_due {
                        return Poll::Pending;
                    }
                    this.tell(&events::heartbeat());
                }
            }
        }
    }
}

impl Drop for FrameworkStream {
    fn drop(&mut self) {
        let connection: ConnectionId = self.session.connection;
        self.session.link.deafen();
        if let Some((framework, _)) = &self.subscribed {
            self.api.sessions.remove(*framework, connection);
        }
        self.api.metrics.disconnected("framework", "http");
        let gone = Event::Disconnected { connection };
        // A core that has ended needs no reports.
        let _ = self.api.inbox.report(Input::Event(Box::new(gone)));
    }
}

/// A stream that says why there is none, and ends. In a chunk like any other, so its length is not told.
pub(super) fn refused(media: Media, why: &str) -> axum::body::Body {
    let record = recordio::frame(&encode(media, &events::error(why)));
    axum::body::Body::new(LastWord(Some(record)))
}

struct LastWord(Option<Bytes>);

impl Body for LastWord {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|record| Ok(Frame::data(record))))
    }
}

/// The queue of a new subscription.
pub(super) fn session(api: &Api, stream_id: String) -> Session {
    Session {
        connection: api.inbox.connection(),
        stream_id,
        link: V1Link::new(&api.pool),
        rate: Arc::default(),
    }
}
