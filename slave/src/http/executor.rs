//! `POST /api/v1/executor`: executors that speak v1 (semantics M1 to M3, A1 to A4, A7).
//!
//! A subscription is a connection of an executor like those that come through the socket in its sandbox, and
//! each call is a message on it: the core knows nothing of HTTP.
//!
//! The core counts the updates of an executor, v1 names them by a `uuid`: which is which is remembered as
//! long as the stream lives. After that an executor says again what was not acknowledged to it, and the core
//! finds out what of that it knows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body::Frame;
use meros_daemon::http::{ApiError, Endless};
use meros_proto::executor::{EXECUTOR_MESSAGE_BYTES_MAX, TASKS_PER_EXECUTOR_MAX};
use meros_proto::ids::{ClusterId, TaskId};
use meros_proto::message::executor::{ExecutorToSlave, ExecutorUpdate, SlaveToExecutor};
use meros_slave_core::{ContainerId, Event, ExecutorKey, SessionId};
use meros_v1::encoding::{Media, decode, encode};
use meros_v1::executor::{self as v1, ExecutorTeller, Update};
use meros_v1::ids::Ids;
use meros_v1::pb;
use meros_v1::pb::executor::Call;
use meros_v1::pb::executor::call::Type;
use meros_v1::recordio;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::{debug, info};

use super::call::{negotiated, not_a_call};
use super::{Api, CORE_PATIENCE, EXECUTOR_STREAMS_MAX, error};
use crate::executor::{Queue, Sessions, Tokens};
use crate::shell::inbox::{ExecutorFound, Inbox, Input};

/// The largest call: the subscription of an executor with thousands of tasks and updates that are not
/// acknowledged.
pub(super) const CALL_BYTES_MAX: usize = 16 << 20;
/// Calls beyond this share the room for large ones; most updates have less than a kilobyte.
const SMALL_CALL_BYTES: usize = 64 << 10;
/// Bytes of large calls that are being read, together.
const LARGE_CALLS_BYTES_MAX: usize = 2 * CALL_BYTES_MAX;
/// semantics: A7
const HEARTBEAT: Duration = Duration::from_secs(30 * 60);
/// Updates of one executor that are not acknowledged; beyond it the answer is 429.
const PENDING_MAX: usize = 4 * TASKS_PER_EXECUTOR_MAX;
/// Tasks that a subscription names: those that live, and as many that have ended.
const NAMED_MAX: usize = 2 * TASKS_PER_EXECUTOR_MAX;
/// Acknowledged updates that are remembered: one that is sent twice is not told twice.
const RECENT_MAX: usize = 256;
/// How long an executor that is quicker than the news of its start waits for that.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether an executor has started.
const START_GLANCE: Duration = Duration::from_millis(20);

/// What calls of executors need.
#[derive(Debug)]
pub(crate) struct Executors {
    sessions: Sessions,
    tokens: Arc<Tokens>,
    /// Whether a call without a token is refused.
    authenticate: bool,
    agent: pb::AgentInfo,
    /// Of which cluster this slave is: that never changes.
    cluster: OnceLock<ClusterId>,
    /// At most one entry for each executor that is here.
    subscribed: Mutex<BTreeMap<ExecutorKey, Arc<Stream>>>,
    large_calls: Arc<Semaphore>,
    /// Places for streams.
    streams: Arc<Semaphore>,
}

impl Executors {
    /// `agent` is this slave as executors are told of it.
    pub(crate) fn new(
        sessions: Sessions,
        tokens: Arc<Tokens>,
        authenticate: bool,
        agent: pb::AgentInfo,
    ) -> Self {
        Self {
            sessions,
            tokens,
            authenticate,
            agent,
            cluster: OnceLock::new(),
            subscribed: Mutex::default(),
            large_calls: Arc::new(Semaphore::new(LARGE_CALLS_BYTES_MAX)),
            streams: Arc::new(Semaphore::new(EXECUTOR_STREAMS_MAX)),
        }
    }

    /// Whether callers prove who they are, as far as callers can.
    pub(super) fn authenticate(&self) -> bool {
        self.authenticate
    }

    fn stream(&self, key: &ExecutorKey) -> Option<Arc<Stream>> {
        self.subscribed.lock().get(key).cloned()
    }

    /// Who a token says that the caller is; none without one, where none is asked for.
    fn caller(&self, headers: &HeaderMap) -> Result<Option<ContainerId>, ApiError> {
        let bearer = text(headers, header::AUTHORIZATION)
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match bearer {
            Some((_, token)) => {
                let container = self.tokens.check(token.trim());
                container.map(Some).ok_or_else(unauthorized)
            }
            None if self.authenticate => Err(unauthorized()),
            None => Ok(None),
        }
    }
}

/// How ids are written here; none while no master has admitted this slave.
async fn ids(api: &Api) -> Result<Option<Ids>, ApiError> {
    if let Some(cluster) = api.executors.cluster.get() {
        return Ok(Some(Ids::new(*cluster)));
    }
    let snapshot = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let identity = snapshot.map_err(|_| error::stopping())?.identity;
    let cluster = identity.map(|it| it.cluster_id);
    Ok(cluster.map(|cluster| Ids::new(*api.executors.cluster.get_or_init(|| cluster))))
}

/// One subscription.
#[derive(Debug)]
struct Stream {
    session: SessionId,
    container: ContainerId,
    inbox: Inbox,
    /// The number of the next update; none before the core has taken the executor, and after another
    /// subscription has taken the place of this one. Held while an update is handed over: so they arrive in
    /// order, and none on a connection that does not count any more.
    next: Arc<tokio::sync::Mutex<Option<u64>>>,
    pending: Mutex<Pending>,
}

/// Updates whose acknowledgement is to be told.
#[derive(Debug, Default)]
struct Pending {
    /// In order.
    waiting: VecDeque<(u64, TaskId, u128)>,
    /// Of those, and the latest that were acknowledged.
    uuids: BTreeSet<u128>,
    recent: VecDeque<u128>,
}

impl Pending {
    /// False if it is on its way already, or was a moment ago.
    fn add(&mut self, number: u64, update: &Update) -> Result<bool, ApiError> {
        if self.uuids.contains(&update.uuid) {
            return Ok(false);
        }
        if self.waiting.len() >= PENDING_MAX {
            let why = "too many updates wait for their acknowledgement: wait for some";
            let status = StatusCode::TOO_MANY_REQUESTS;
            return Err(ApiError::new(status, "over_limit", why));
        }
        self.uuids.insert(update.uuid);
        let task_id = update.status.task_id.clone();
        self.waiting.push_back((number, task_id, update.uuid));
        Ok(true)
    }

    /// All up to a number are acknowledged: which.
    fn acknowledge(&mut self, number: u64) -> Vec<(TaskId, u128)> {
        let count = self.waiting.iter().take_while(|it| it.0 <= number).count();
        let all: Vec<(TaskId, u128)> = self
            .waiting
            .drain(..count)
            .map(|(_, task, uuid)| (task, uuid))
            .collect();
        self.recent.extend(all.iter().map(|(_, uuid)| *uuid));
        while self.recent.len() > RECENT_MAX {
            if let Some(uuid) = self.recent.pop_front() {
                self.uuids.remove(&uuid);
            }
        }
        all
    }
}

impl Stream {
    async fn say(&self, message: ExecutorToSlave) -> Result<(), ApiError> {
        let event = Event::Executor {
            session: self.session,
            container: self.container,
            message: Box::new(message),
        };
        let sent = self.inbox.send(Input::Event(event)).await;
        sent.map_err(|_| error::stopping())
    }

    /// Says an update, unless it is on its way already.
    async fn update(&self, next: &mut u64, update: Update) -> Result<(), ApiError> {
        match self.numbered(next, update)? {
            Some(update) => self.say(ExecutorToSlave::Update(update)).await,
            None => Ok(()),
        }
    }

    /// What was said on an earlier stream and not acknowledged there, in order.
    async fn resend(&self, next: &mut u64, updates: Vec<Update>) -> Result<(), ApiError> {
        let mut resent = Vec::with_capacity(updates.len());
        for update in updates {
            resent.extend(self.numbered(next, update)?);
        }
        let event = Event::ExecutorResent {
            session: self.session,
            updates: resent,
        };
        let sent = self.inbox.send(Input::Event(event)).await;
        sent.map_err(|_| error::stopping())
    }

    fn numbered(&self, next: &mut u64, update: Update) -> Result<Option<ExecutorUpdate>, ApiError> {
        let number = *next;
        if !self.pending.lock().add(number, &update)? {
            return Ok(None);
        }
        // An executor that counted for itself, on its socket, may have come to the end of the numbers.
        *next = next.saturating_add(1);
        let status = update.status;
        Ok(Some(ExecutorUpdate { number, status }))
    }
}

pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in ["", "/slave(1)"] {
        for end in ["", "/"] {
            router = router.route(&format!("{prefix}/api/v1/executor{end}"), any(call));
        }
    }
    router.layer(DefaultBodyLimit::max(CALL_BYTES_MAX))
}

async fn call(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_a_call();
    }
    let answer = answered(&api, request).await;
    let answer = answer.unwrap_or_else(IntoResponse::into_response);
    match answer.status() {
        StatusCode::UNAUTHORIZED => with(answer, header::WWW_AUTHENTICATE, "Bearer"),
        _ => answer,
    }
}

fn with(mut answer: Response, name: HeaderName, value: &'static str) -> Response {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(name, value);
    answer
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn unauthorized() -> ApiError {
    let why = "this is not the token of that executor: send `Authorization: Bearer` and what \
               MESOS_EXECUTOR_AUTHENTICATION_TOKEN says in its environment";
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", why)
}

fn unknown() -> ApiError {
    ApiError::invalid("Executor cannot be found: it has ended, or was never started here")
}

fn not_subscribed() -> ApiError {
    let why = "Executor is not subscribed: SUBSCRIBE comes first";
    ApiError::new(StatusCode::FORBIDDEN, "not_subscribed", why)
}

fn refused(refused: meros_v1::Refused) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, refused.code(), refused.to_string())
}

/// The body, and its part of the room for large ones while it is needed.
async fn body(
    api: &Api,
    request: Request,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
    let length = text(request.headers(), header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.parse().ok());
    let length = length.unwrap_or(CALL_BYTES_MAX).min(CALL_BYTES_MAX);
    let room = match u32::try_from(length) {
        Ok(bytes) if length > SMALL_CALL_BYTES => {
            let room = Arc::clone(&api.executors.large_calls);
            room.acquire_many_owned(bytes).await.ok()
        }
        _ => None,
    };
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error| ApiError::new(error.status(), "invalid", error.body_text()))?;
    Ok((body, room))
}

async fn answered(api: &Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let media = negotiated(request.headers())?;
    let caller = api.executors.caller(request.headers())?;
    let (body, _room) = body(api, request).await?;
    let call: Call = decode(media.call, &body)
        .map_err(|error| ApiError::invalid(format!("the call cannot be read: {error}")))?;
    drop(body);
    let ids = ids(api).await?.ok_or_else(unknown)?;
    let key = v1::executor_of(&call, ids).ok_or_else(unknown)?;
    if call.r#type() == Type::Subscribe {
        return subscribe(api, key, caller, &call, ids, media.answer).await;
    }
    let stream = match api.executors.stream(&key) {
        Some(stream) => stream,
        None => {
            look(api, &key).await?.ok_or_else(unknown)?;
            return Err(not_subscribed());
        }
    };
    if caller.is_some_and(|caller| caller != stream.container) {
        return Err(unauthorized());
    }
    ask(api, key, &stream, call).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn ask(
    api: &Arc<Api>,
    key: ExecutorKey,
    stream: &Stream,
    call: Call,
) -> Result<(), ApiError> {
    match call.r#type() {
        Type::Update => {
            let missing = || ApiError::invalid("update is missing");
            let update = call.update.as_ref().ok_or_else(missing)?;
            let update = v1::update(&update.status).map_err(refused)?;
            let api = Arc::clone(api);
            // A caller that goes away must not leave a number behind without its update.
            let told = tokio::spawn(async move { hand_over(&api, &key, update).await });
            told.await.map_err(|_| error::stopping())?
        }
        Type::Message => {
            let missing = || ApiError::invalid("message is missing");
            let data = call.message.ok_or_else(missing)?.data;
            if data.len() > EXECUTOR_MESSAGE_BYTES_MAX {
                let why = format!("a message has at most {EXECUTOR_MESSAGE_BYTES_MAX} bytes");
                return Err(ApiError::invalid(why));
            }
            stream.say(ExecutorToSlave::Message(data)).await
        }
        Type::Heartbeat => Ok(()),
        Type::Subscribe | Type::Unknown => Err(ApiError::invalid("type is missing or not known")),
    }
}

/// Says an update on the stream that counts.
async fn hand_over(api: &Api, key: &ExecutorKey, update: Update) -> Result<(), ApiError> {
    let mut last = None;
    loop {
        let stream = api.executors.stream(key).ok_or_else(not_subscribed)?;
        if last.replace(stream.session) == Some(stream.session) {
            // Its subscription has failed.
            return Err(not_subscribed());
        }
        let mut next = stream.next.lock().await;
        if let Some(next) = &mut *next {
            return stream.update(next, update).await;
        }
    }
}

/// What is known here of an executor.
async fn look(api: &Api, key: &ExecutorKey) -> Result<Option<ExecutorFound>, ApiError> {
    let ask = |reply| Input::Executor(key.clone(), reply);
    let found = api.inbox.ask(ask, CORE_PATIENCE).await;
    found.map_err(|_| error::stopping())
}

/// The executor, once it is known to run: it may be quicker than the news.
async fn running(
    api: &Api,
    key: &ExecutorKey,
    caller: Option<ContainerId>,
) -> Result<ExecutorFound, ApiError> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let found = look(api, key).await?.ok_or_else(unknown)?;
        if caller.is_some_and(|caller| caller != found.container) {
            return Err(unauthorized());
        }
        if found.is_running {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(error::stopping());
        }
        sleep(START_GLANCE).await;
    }
}

async fn subscribe(
    api: &Arc<Api>,
    key: ExecutorKey,
    caller: Option<ContainerId>,
    call: &Call,
    ids: Ids,
    media: Media,
) -> Result<Response, ApiError> {
    let missing = || ApiError::invalid("subscribe is missing");
    let subscribe = call.subscribe.as_ref().ok_or_else(missing)?;
    let tasks = v1::unacknowledged_tasks(&subscribe.unacknowledged_tasks).map_err(refused)?;
    let updates = subscribe.unacknowledged_updates.iter();
    let updates = updates.map(|update| v1::update(&update.status));
    let updates: Vec<Update> = updates.collect::<Result<_, _>>().map_err(refused)?;
    // What it has news of it was given. Its updates have no numbers yet: they get higher ones than any heard.
    let ended = updates.iter().filter(|it| it.status.state.is_terminal());
    let ended: BTreeSet<&TaskId> = ended.map(|it| &it.status.task_id).collect();
    let named: BTreeSet<&TaskId> = updates
        .iter()
        .map(|it| &it.status.task_id)
        .chain(&tasks)
        .collect();
    if named.len() > NAMED_MAX {
        let why = format!("more than {NAMED_MAX} tasks are named");
        return Err(ApiError::invalid(why));
    }
    let last = |id: &TaskId| ended.contains(id).then_some(u64::MAX);
    let tasks = named.into_iter().map(|id| (id.clone(), last(id))).collect();
    let found = running(api, &key, caller).await?;
    let container = found.container;
    let place = Arc::clone(&api.executors.streams).try_acquire_owned();
    let place = place.map_err(|_| error::busy(EXECUTOR_STREAMS_MAX, "streams of executors"))?;
    let (session, sender, mut queue) = api.executors.sessions.open();
    // From here on its end is reported, whatever comes between.
    let mut presence = Presence {
        api: Arc::clone(api),
        key: key.clone(),
        session,
        replaces: None,
        _place: place,
    };
    let stream = Arc::new(Stream {
        session,
        container,
        inbox: api.inbox.clone(),
        next: Arc::default(),
        pending: Mutex::default(),
    });
    let mut next = Arc::clone(&stream.next).lock_owned().await;
    let old = {
        let mut subscribed = api.executors.subscribed.lock();
        subscribed.insert(key.clone(), Arc::clone(&stream))
    };
    if let Some(old) = old {
        presence.replaces = Some(old.session);
        // What is being handed over there still counts.
        *old.next.lock().await = None;
    }
    let sent = api.inbox.send(Input::ExecutorConnected(session, sender));
    sent.await.map_err(|_| error::stopping())?;
    let (framework_id, executor_id) = key.clone();
    let message = ExecutorToSlave::Subscribe {
        framework_id,
        executor_id,
        // v1 does not tell one process of an executor from the next.
        made: u64::MAX,
        tasks,
    };
    stream.say(message).await?;
    let first = timeout(CORE_PATIENCE, queue.recv()).await;
    let first = first.ok().flatten().ok_or_else(error::stopping)?;
    let SlaveToExecutor::Subscribed { heard, .. } = &first else {
        return Err(unknown());
    };
    let mut number = heard.saturating_add(1);
    stream.resend(&mut number, updates).await?;
    *next = Some(number);
    drop(next);
    info!(framework_id = %key.0, executor_id = %key.1, "v1 executor subscribed");
    let mut events = Events {
        stream,
        teller: ExecutorTeller {
            ids,
            agent: api.executors.agent.clone(),
            run: found.run,
            container: container.to_string(),
        },
        media,
        queue,
        pending: VecDeque::new(),
        heartbeat: heartbeats(),
        _presence: presence,
    };
    events.take(&first);
    let mut answer = Response::new(Body::new(events));
    let kind = HeaderValue::from_static(media.name());
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

fn heartbeats() -> Interval {
    let mut due = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    due
}

/// That an executor is connected; the core hears when it ends.
struct Presence {
    api: Arc<Api>,
    key: ExecutorKey,
    session: SessionId,
    /// The subscription whose place this one took. It counts no more, so it ends with this one at the
    /// latest: if this one fails before the core hears of it, nobody else ends it.
    replaces: Option<SessionId>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut subscribed = self.api.executors.subscribed.lock();
        if subscribed
            .get(&self.key)
            .is_some_and(|it| it.session == self.session)
        {
            subscribed.remove(&self.key);
        }
        let (inbox, session) = (self.api.inbox.clone(), self.session);
        let ended = [self.replaces, Some(session)].into_iter().flatten();
        debug!(session = session.0, "the stream of a v1 executor has ended");
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for session in ended {
                    let gone = Event::ExecutorDisconnected { session };
                    // Nobody is left to be told only when the slave goes.
                    let _ = inbox.send(Input::Event(gone)).await;
                }
            });
        }
    }
}

/// The answer to a SUBSCRIBE: events as long as it lives (semantics A3, R1).
struct Events {
    stream: Arc<Stream>,
    teller: ExecutorTeller,
    media: Media,
    queue: Queue,
    /// Records that are to be handed over next.
    pending: VecDeque<Bytes>,
    heartbeat: Interval,
    _presence: Presence,
}

impl Events {
    fn tell(&mut self, event: &pb::executor::Event) {
        let record = recordio::frame(&encode(self.media, event));
        self.pending.push_back(record);
    }

    fn take(&mut self, message: &SlaveToExecutor) {
        if let SlaveToExecutor::Acknowledged { number } = message {
            let all = self.stream.pending.lock().acknowledge(*number);
            for (task, uuid) in all {
                self.tell(&v1::acknowledged(&task, uuid));
            }
        } else if let Some(event) = self.teller.event(message) {
            self.tell(&event);
        }
    }
}

impl http_body::Body for Events {
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
            match this.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => this.take(&message),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    if this.heartbeat.poll_tick(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.tell(&v1::heartbeat());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;

    use super::*;

    fn update(uuid: u128) -> Update {
        let task_id = TaskId::new("t").unwrap();
        let status = TaskStatus::new(task_id, TaskState::Running, Source::Executor, Timestamp(1));
        Update { uuid, status }
    }

    #[test]
    fn an_update_is_counted_once_while_it_waits_and_a_while_after() {
        let mut pending = Pending::default();
        assert!(pending.add(1, &update(7)).unwrap());
        assert!(!pending.add(2, &update(7)).unwrap());
        assert!(pending.add(2, &update(8)).unwrap());
        let uuids = |all: Vec<(TaskId, u128)>| all.into_iter().map(|it| it.1).collect::<Vec<_>>();
        assert_eq!(uuids(pending.acknowledge(1)), [7]);
        assert!(!pending.add(3, &update(7)).unwrap(), "a moment ago");
        assert_eq!(uuids(pending.acknowledge(u64::MAX)), [8]);
        for uuid in 100..100 + RECENT_MAX as u128 {
            assert!(pending.add(3, &update(uuid)).unwrap());
        }
        pending.acknowledge(u64::MAX);
        assert!(pending.add(4, &update(7)).unwrap(), "long ago");
        assert_eq!(pending.uuids.len(), RECENT_MAX + 1);
    }

    #[test]
    fn what_waits_for_acknowledgements_is_bounded() {
        let mut pending = Pending::default();
        for number in 0..PENDING_MAX as u64 {
            assert!(pending.add(number, &update(number.into())).unwrap());
        }
        let refused = pending.add(0, &update(u128::MAX)).unwrap_err();
        assert_eq!(refused.code(), "over_limit");
    }
}
