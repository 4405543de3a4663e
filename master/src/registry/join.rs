//! Becoming a member: asking the masters that an admin has named until the leader has said yes.

use std::time::Duration;

use meros_proto::ids::ClusterId;
use meros_proto::transport::Client;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::peer::dial;
use super::types::{MasterId, Member};
use super::wire::{Answer, Call, Request};

/// How long an answer may take: the leader waits until the registry has arrived here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// Between two rounds over all that were named.
const AGAIN: Duration = Duration::from_millis(500);
/// Leaders that are followed from one named master, at most.
const REDIRECTS_MAX: usize = 3;
/// Rounds without success that are each worth a line in the log; of more, each hundredth.
const ROUNDS_LOGGED: u32 = 3;

/// Why a master will not become a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Nobody was named.
    #[error(
        "this master is not a member of a cluster yet, and knows none: name its masters with --join"
    )]
    NoMasters,
    /// The leader refused it for good.
    #[error("{address} does not take this master as a member: {why}")]
    Refused {
        /// Who said so.
        address: String,
        /// Why.
        why: String,
    },
}

/// Asks `masters`, each `host:port`, in turn until this master is a member.
///
/// # Errors
/// [`JoinError`]; everything else is tried again.
pub(super) async fn join(
    client: &Client,
    masters: &[String],
    master_id: MasterId,
    member: &Member,
) -> Result<ClusterId, JoinError> {
    if masters.is_empty() {
        return Err(JoinError::NoMasters);
    }
    let mut round = 0;
    loop {
        for named in masters {
            let mut address = named.clone();
            for _ in 0..=REDIRECTS_MAX {
                let why = match ask(client, &address, master_id, member).await {
                    Some(Answer::Joined { cluster_id }) => {
                        info!(%cluster_id, leader = address, "member of the cluster");
                        return Ok(cluster_id);
                    }
                    Some(Answer::NotLeading {
                        leader: Some(leader),
                    }) if leader != address => {
                        address = leader;
                        continue;
                    }
                    Some(Answer::Refused(why)) => return Err(JoinError::Refused { address, why }),
                    Some(Answer::Failed(why)) => why,
                    Some(_) => "it does not know who leads".to_owned(),
                    None => "it does not answer".to_owned(),
                };
                if round < ROUNDS_LOGGED || round % 100 == 0 {
                    warn!(master = address, why, "cannot join yet");
                }
                break;
            }
        }
        round += 1;
        sleep(AGAIN).await;
    }
}

async fn ask(
    client: &Client,
    address: &str,
    master_id: MasterId,
    member: &Member,
) -> Option<Answer> {
    let (sender, mut receiver) = dial(client, address).await?;
    let request = Request {
        number: 0,
        to: None,
        call: Call::Join {
            master_id,
            member: member.clone(),
        },
    };
    sender.send(request).await.ok()?;
    let response = timeout(ANSWER_TIMEOUT, receiver.recv()).await.ok()?.ok()?;
    Some(response.answer)
}
