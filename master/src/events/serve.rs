//! The leader's side of `meros-events/1`.

use std::sync::Arc;
use std::time::Duration;

use meros_proto::transport::{CloseCode, Connection, Sender};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::wire::{FromFollower, FromLeader};
use crate::metrics::Metrics;
use crate::projection::{News, Projection, Subscription};

/// Messages that may wait to be written.
const SEND_QUEUE: usize = 1_024;
/// A follower that takes in nothing for so long is dropped.
const STALLED_MAX: Duration = Duration::from_secs(10);

/// Why a follower is sent nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is gone.
    Gone,
    /// It does not read, or not as fast as there is news.
    Slow,
    /// This master does not lead any more, or the follower was too slow for its queue.
    NoNews,
}

/// Tells a follower everything until either side has enough.
pub(crate) async fn serve(projection: Projection, metrics: Arc<Metrics>, connection: Connection) {
    let name = connection.peer().name().to_owned();
    let (sender, mut receiver) = connection.split::<FromLeader, FromFollower>(SEND_QUEUE);
    let mut subscription = match projection.subscribe() {
        Ok(subscription) => subscription,
        Err(why) => {
            metrics.refused(why.code());
            return sender.close(CloseCode::Refused, &why.to_string());
        }
    };
    info!(
        master = name,
        rows = subscription.rows.len(),
        "a master follows"
    );
    if let Err(end) = send_rows(&sender, &mut subscription).await {
        return close(&sender, &name, end, &projection);
    }
    loop {
        let sent = tokio::select! {
            news = subscription.next() => match news {
                Some(News::Events(events)) => send_events(&sender, &events).await,
                Some(News::Mark(number)) => send(&sender, FromLeader::Mark { number }).await,
                None => Err(End::NoNews),
            },
            asked = receiver.recv() => match asked {
                Ok(FromFollower::Mark { number }) => {
                    projection.mark(subscription.number, number);
                    Ok(())
                }
                Err(_) => Err(End::Gone),
            },
        };
        if let Err(end) = sent {
            return close(&sender, &name, end, &projection);
        }
    }
}

fn close(sender: &Sender<FromLeader>, name: &str, end: End, projection: &Projection) {
    match end {
        End::Gone => debug!(master = name, "a master follows no more"),
        End::NoNews if !projection.is_leading() => {
            sender.close(CloseCode::Refused, "this master does not lead any more");
        }
        End::Slow | End::NoNews => {
            warn!(
                master = name,
                "a master does not follow as fast as there is news, dropped"
            );
            sender.close(CloseCode::SlowReader, "too far behind: start over");
        }
    }
}

async fn send_rows(sender: &Sender<FromLeader>, to: &mut Subscription) -> Result<(), End> {
    for row in std::mem::take(&mut to.rows) {
        send(sender, FromLeader::Row(row)).await?;
    }
    let sequence = to.sequence;
    send(sender, FromLeader::Complete { sequence }).await
}

async fn send_events(
    sender: &Sender<FromLeader>,
    events: &[meros_proto::view::ClusterEvent],
) -> Result<(), End> {
    for event in events {
        send(sender, FromLeader::Event(event.clone())).await?;
    }
    Ok(())
}

async fn send(sender: &Sender<FromLeader>, message: FromLeader) -> Result<(), End> {
    match timeout(STALLED_MAX, sender.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Slow),
    }
}
