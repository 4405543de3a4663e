//! `POST /api/v1/scheduler`: subscriptions and calls of frameworks (semantics A4, A5, B).

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::{ApiError, Endless};
use meros_master_core::event::{ConnectionId, Event, OperatorCall};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::FrameworkId;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::refusal::Refusal;
use meros_proto::view::FrameworkState;
use meros_v1::calls::{self, Request as Asked};
use meros_v1::encoding::Media;
use meros_v1::events::Teller;
use meros_v1::framework::{Subscription, subscription};
use meros_v1::ids::Ids;
use meros_v1::pb::scheduler::Call;
use meros_v1::pb::scheduler::call::Type;
use tracing::{info, warn};

use super::operator::refused;
use super::sessions::Session;
use super::stream::{self, FrameworkStream};
use super::{Posted, not_a_call, posted};
use crate::http::Api;
use crate::http::orders::ordered;
use crate::running::draw;
use crate::shell::inbox::Input;
use crate::shell::link::{FrameworkLink, Outgoing};

/// Names the stream of a subscription, in the answer to it and in each call (semantics A4).
static STREAM_ID: HeaderName = HeaderName::from_static("mesos-stream-id");

/// The longest that is looked at (semantics A4).
const STREAM_ID_BYTES_MAX: usize = 128;

pub(super) async fn call(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_a_call();
    }
    answered(api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answered(api: Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let posted = posted(request).await?;
    let (call, ids) = posted.call::<Call>(&api)?;
    match call.r#type() {
        Type::Subscribe => subscribe(api, ids, &posted, &call).await,
        _ => ask(&api, ids, &posted, &call).await,
    }
}

async fn subscribe(
    api: Arc<Api>,
    ids: Ids,
    posted: &Posted,
    call: &Call,
) -> Result<Response, ApiError> {
    if posted.headers.contains_key(&STREAM_ID) {
        let why = "SUBSCRIBE opens a stream: leave Mesos-Stream-Id out";
        return Err(ApiError::invalid(why));
    }
    let missing = || ApiError::invalid("subscribe is missing");
    let subscribe = call.subscribe.as_ref().ok_or_else(missing)?;
    // Both name the framework, if it has an id, and some clients set both (semantics R9).
    if let Some(outer) = &call.framework_id
        && subscribe.framework_info.id.as_ref() != Some(outer)
    {
        let why = "framework_id differs from subscribe.framework_info.id: set both alike";
        return Err(ApiError::invalid(why));
    }
    let stream_id = new_stream_id()
        .map_err(|error| ApiError::internal(format!("no random numbers: {error}")))?;
    let body = match subscription(subscribe, ids) {
        // What is wrong with a framework is an event: clients look for it there (semantics B2).
        Err(refused) => {
            info!(code = refused.code(), %refused, "v1 subscription refused");
            stream::refused(posted.answer, &refused.to_string())
        }
        Ok(subscription) => {
            let session = stream::session(&api, stream_id.clone());
            open(api, ids, posted.answer, session, subscription).await?
        }
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    let media = HeaderValue::from_static(posted.answer.name());
    headers.insert(header::CONTENT_TYPE, media);
    let stream_id = HeaderValue::from_str(&stream_id).expect("letters, digits and dashes");
    headers.insert(STREAM_ID.clone(), stream_id);
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

/// Introduces the framework to the core; the stream tells what becomes of it.
async fn open(
    api: Arc<Api>,
    ids: Ids,
    media: Media,
    session: Session,
    subscription: Subscription,
) -> Result<Body, ApiError> {
    let connection = session.connection;
    info!(connection = connection.0, name = %subscription.framework.name, "v1 framework subscribes");
    let teller = Teller {
        ids,
        form: subscription.form,
    };
    let link = FrameworkLink::V1(session.link.clone());
    api.metrics.connected("framework");
    // From here on its end is reported, whatever comes between.
    let stream = FrameworkStream::new(Arc::clone(&api), session, teller, media);
    let message = FrameworkToMaster::Subscribe {
        framework: subscription.framework,
        suppressed_roles: subscription.suppressed_roles,
        wishes: subscription.wishes,
    };
    let inputs = [
        Input::FrameworkConnected(connection, subscription.principal, link),
        message_of(connection, message),
    ];
    let sent = api.inbox.send(inputs, 0).await;
    sent.map_err(|_| Refusal::Stopping)?;
    Ok(Body::new(stream))
}

/// A call on a stream that is open already.
async fn ask(api: &Api, ids: Ids, posted: &Posted, call: &Call) -> Result<Response, ApiError> {
    let (framework, session) = whose(api, ids, &posted.headers, call)?;
    if !session.rate.take(Instant::now()) {
        let why = "the framework calls too often: wait a moment";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(ApiError::new(status, "over_limit", why));
    }
    if call.r#type() == Type::UpdateFramework {
        return update(api, ids, framework, &session, call).await;
    }
    let asked = calls::request(call, ids).map_err(refused)?;
    if let Asked::Ask {
        message,
        told,
        dropped,
    } = asked
    {
        for refused in dropped {
            warn!(%framework, code = refused.code(), %refused, "v1 operation without an id dropped");
        }
        for event in told {
            // One that does not read is cut off by the core's next message.
            let _ = session.link.send(Outgoing::Event(Box::new(event)));
        }
        let bytes = posted.body.len() as u64;
        let input = message_of(session.connection, message);
        let sent = api.inbox.send([input], bytes).await;
        sent.map_err(|_| Refusal::Stopping)?;
        api.metrics.received("framework", 1);
    }
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The only call that is answered when it is done: 200 (semantics A5, B17).
async fn update(
    api: &Api,
    ids: Ids,
    framework: FrameworkId,
    session: &Session,
    call: &Call,
) -> Result<Response, ApiError> {
    let missing = || ApiError::invalid("update_framework is missing");
    let update = call.update_framework.as_ref().ok_or_else(missing)?;
    let read = meros_v1::framework::update(update, ids).map_err(refused)?;
    if read.framework.framework_id != Some(framework) {
        let why = "update_framework.framework_info.id differs from framework_id";
        return Err(ApiError::invalid(why));
    }
    let description = FrameworkDescription {
        principal: Some(read.principal),
        ..read.framework
    };
    let order = OperatorCall::UpdateFramework {
        framework_id: framework,
        framework: Box::new(description),
        suppressed_roles: read.suppressed_roles,
        wishes: read.wishes,
    };
    ordered(api, order).await?;
    // One that does not read is cut off by the core's next message.
    let _ = session.link.send(Outgoing::Form(read.form));
    Ok(StatusCode::OK.into_response())
}

fn message_of(connection: ConnectionId, message: FrameworkToMaster) -> Input {
    Input::Event(Box::new(Event::Framework {
        connection,
        message,
    }))
}

/// The subscription that a call belongs to (semantics A5). The first that applies: not known, not
/// subscribed, not this stream.
fn whose(
    api: &Api,
    ids: Ids,
    headers: &HeaderMap,
    call: &Call,
) -> Result<(FrameworkId, Session), ApiError> {
    let id = call.framework_id.as_ref();
    let id = id.ok_or_else(|| ApiError::invalid("framework_id is missing"))?;
    let unknown = || ApiError::invalid("Framework cannot be found");
    let framework = ids.read_framework(id).ok_or_else(unknown)?;
    let Some(session) = api.sessions.get(framework) else {
        let model = api.projection.read();
        let state = model.framework_view(framework).map(|view| view.state);
        return Err(match state {
            None | Some(FrameworkState::Completed) => unknown(),
            Some(_) => {
                let why = "Framework is not subscribed";
                ApiError::new(StatusCode::FORBIDDEN, "not_subscribed", why)
            }
        });
    };
    let given = headers.get(&STREAM_ID).map(HeaderValue::as_bytes);
    match given {
        None => Err(ApiError::invalid(
            "all calls but SUBSCRIBE need the header Mesos-Stream-Id",
        )),
        Some(given)
            if given.len() > STREAM_ID_BYTES_MAX || given != session.stream_id.as_bytes() =>
        {
            Err(ApiError::invalid(
                "Mesos-Stream-Id is not that of the framework's present subscription",
            ))
        }
        Some(_) => Ok((framework, session)),
    }
}

/// A random UUID, so that nobody guesses another's.
fn new_stream_id() -> std::io::Result<String> {
    let mut bytes = draw()?;
    // The marks of version 4.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(meros_proto::ids::UpdateId(u128::from_be_bytes(bytes)).to_string())
}
