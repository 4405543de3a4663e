//! Becoming a member: asking the masters that an admin has named until the leader has said yes.

use std::time::Duration;

use meros_proto::ids::ClusterId;
use meros_proto::transport::{Client, ConnectError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::peer::dial;
use super::types::{MasterId, Member};
use super::upgrade::Knows;
use super::wire::{Answer, Call, Request};
use crate::exit::chain;

/// How long an answer may take: the leader waits until the registry has arrived here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a master may take to say of which cluster it is.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(1);
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
    /// The named masters are another cluster's.
    #[error(
        "{address} is of cluster {theirs}, and the data directory of this master is of cluster {ours} (wrong_cluster): name masters of its own cluster with --join, or give it an empty data directory"
    )]
    OtherCluster {
        /// Who said so.
        address: String,
        /// Its cluster.
        theirs: ClusterId,
        /// This master's.
        ours: ClusterId,
    },
    /// The data directory is another member's.
    #[error(
        "the data directory of this master is of {ours}, and its certificate is for {certificate} (wrong_name): give it the certificate of {ours}, or an empty data directory"
    )]
    OtherName {
        /// Whose data directory it is.
        ours: String,
        /// Who the certificate says it is.
        certificate: String,
    },
    /// None of the named masters and this one trust each other.
    #[error(
        "{address} and this master do not trust each other (untrusted): {why}; make its certificate with the cluster's own authority, `meros ca issue --role master`"
    )]
    Untrusted {
        /// The last that was asked.
        address: String,
        /// What is wrong.
        why: String,
    },
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
    knows: &Knows,
    masters: &[String],
    master_id: MasterId,
    member: &Member,
) -> Result<ClusterId, JoinError> {
    if masters.is_empty() {
        return Err(JoinError::NoMasters);
    }
    let mut round = 0;
    loop {
        let mut untrusted = Vec::new();
        for named in masters {
            let mut address = named.clone();
            for _ in 0..=REDIRECTS_MAX {
                let call = Call::Join {
                    master_id,
                    member: member.clone(),
                };
                let why = match ask(client, knows, &address, call).await {
                    Ok(Answer::Joined { cluster_id }) => {
                        info!(%cluster_id, leader = address, "member of the cluster");
                        return Ok(cluster_id);
                    }
                    Ok(Answer::NotLeading {
                        leader: Some(leader),
                    }) if leader != address => {
                        address = leader;
                        continue;
                    }
                    Ok(Answer::Refused(why)) => return Err(JoinError::Refused { address, why }),
                    Ok(Answer::Failed(why)) => why,
                    Ok(_) => "it does not know who leads".to_owned(),
                    Err(None) => "it does not answer".to_owned(),
                    Err(Some(error)) => {
                        let why = chain(&error);
                        if !error.is_retryable() {
                            let address = address.clone();
                            untrusted.push(JoinError::Untrusted {
                                address,
                                why: why.clone(),
                            });
                        }
                        why
                    }
                };
                if round < ROUNDS_LOGGED || round % 100 == 0 {
                    warn!(master = address, why, "cannot join yet");
                }
                break;
            }
        }
        if untrusted.len() == masters.len()
            && let Some(error) = untrusted.pop()
        {
            return Err(error);
        }
        round += 1;
        sleep(AGAIN).await;
    }
}

/// One question and its answer; no error if there is none in time.
async fn ask(
    client: &Client,
    knows: &Knows,
    address: &str,
    call: Call,
) -> Result<Answer, Option<ConnectError>> {
    let (sender, mut receiver) = dial(client, address).await.map_err(Some)?;
    for (number, call) in [Call::Formats(knows.clone()), call].into_iter().enumerate() {
        let request = Request {
            number: number as u64,
            to: None,
            call,
        };
        sender.send(request).await.map_err(|_| None)?;
    }
    let answered = timeout(ANSWER_TIMEOUT, async {
        loop {
            let response = receiver.recv().await.map_err(|_| None)?;
            if response.number == 1 {
                return Ok(response.answer);
            }
        }
    });
    answered.await.map_err(|_| None)?
}

/// Makes sure that none of these masters is of another cluster, as far as they answer soon.
///
/// # Errors
/// [`JoinError::OtherCluster`].
pub(super) async fn expect_cluster(
    client: &Client,
    knows: &Knows,
    masters: &[String],
    ours: ClusterId,
) -> Result<(), JoinError> {
    let mut asked = JoinSet::new();
    for address in masters {
        let (client, knows, address) = (client.clone(), knows.clone(), address.clone());
        asked.spawn(async move {
            let asked = ask(&client, &knows, &address, Call::Cluster);
            let answer = timeout(CLUSTER_TIMEOUT, asked).await;
            match answer {
                Ok(Ok(Answer::Cluster { cluster_id })) => {
                    cluster_id.map(|theirs| (address, theirs))
                }
                _ => None,
            }
        });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Some((address, theirs))) = answer
            && theirs != ours
        {
            return Err(JoinError::OtherCluster {
                address,
                theirs,
                ours,
            });
        }
    }
    Ok(())
}
