//! openraft's way to the other members, through [`Peer`]s that are kept connected.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meros_proto::transport::{Client, Protocol};
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::leadership::Leadership;
use super::peer::{Peer, connect};
use super::types::{MasterId, Member, Types};
use super::upgrade::Formats;
use super::wire::{Answer, Call, Request, Response};
use crate::exit::chain;

type RpcError<E = openraft::error::Infallible> = RPCError<MasterId, Member, RaftError<MasterId, E>>;

/// How long one that cannot be reached is left alone.
const BACKOFF: Duration = Duration::from_millis(100);

/// How long one that wants to be a member may take to answer, once there is a connection.
const VISIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a question for a vote waits for a connection; openraft gives it `Pace::election` in all.
/// Of the default lease.
const VOTE_PATIENCE: Duration = Duration::from_millis(120);

/// All members that openraft talks to.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    client: Client,
    leadership: Arc<Leadership>,
    formats: Arc<Formats>,
    peers: Arc<Mutex<BTreeMap<MasterId, Arc<Peer>>>>,
}

impl Network {
    pub(crate) fn new(client: Client, leadership: Arc<Leadership>, formats: Arc<Formats>) -> Self {
        Self {
            client,
            leadership,
            formats,
            peers: Arc::default(),
        }
    }

    /// Keeps connections to these members and to no others: an election has no time for a handshake.
    pub(crate) fn keep(&self, members: &BTreeMap<MasterId, Member>) {
        self.peers.lock().retain(|id, _| members.contains_key(id));
        for (id, member) in members {
            self.peer(*id, member);
        }
    }

    /// A member has dialled this one: see [`Peer::doubt`].
    pub(super) fn dialled_by(&self, member: MasterId) {
        if let Some(peer) = self.peers.lock().get(&member) {
            peer.doubt();
        }
    }

    /// Looks whether a master is where it says that it is.
    ///
    /// # Errors
    /// What it is to be answered.
    pub(super) async fn visit(&self, master_id: MasterId, member: &Member) -> Result<(), Answer> {
        let Member { name, address } = member;
        let lost = |why: String| {
            Answer::Failed(format!(
                "the leader does not reach {name} at {address}: {why}"
            ))
        };
        let wrong = |found: String| {
            Answer::Refused(format!(
                "at {address} the leader finds {found}, not {name} (wrong_address): say with --advertise where this master is reached"
            ))
        };
        let connection = connect(&self.client, Protocol::Raft, address).await;
        let connection = connection.map_err(|error| lost(chain(&error)))?;
        if connection.peer().name() != name {
            return Err(wrong(connection.peer().name().to_owned()));
        }
        let (sender, mut receiver) = connection.split::<Request, Response>(1);
        let question = Request {
            number: 0,
            to: Some(master_id),
            call: Call::Formats(self.formats.said()),
        };
        let answered = async {
            sender.send(question).await.ok()?;
            receiver.recv().await.ok()
        };
        match timeout(VISIT_TIMEOUT, answered).await.ok().flatten() {
            Some(Response {
                answer: Answer::Formats { .. },
                ..
            }) => Ok(()),
            // Of this name, and another number.
            Some(Response {
                answer: Answer::Refused(found),
                ..
            }) => Err(wrong(found)),
            _ => Err(lost("it does not answer".to_owned())),
        }
    }

    /// The way to a member.
    pub(super) fn peer(&self, target: MasterId, member: &Member) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        match peers.get(&target) {
            Some(peer) if peer.member == *member => Arc::clone(peer),
            _ => {
                // At another address it may be another release.
                self.formats.lost(target);
                let (client, formats) = (self.client.clone(), Arc::clone(&self.formats));
                let peer = Arc::new(Peer::new(client, formats, target, member.clone()));
                peers.insert(target, Arc::clone(&peer));
                peer
            }
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Target;

    async fn new_client(&mut self, target: MasterId, member: &Member) -> Target {
        Target {
            target,
            peer: self.peer(target, member),
            leadership: Arc::clone(&self.leadership),
            formats: Arc::clone(&self.formats),
        }
    }
}

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    target: MasterId,
    peer: Arc<Peer>,
    leadership: Arc<Leadership>,
    formats: Arc<Formats>,
}

impl Target {
    async fn append(
        self,
        request: AppendEntriesRequest<Types>,
    ) -> Result<AppendEntriesResponse<MasterId>, RpcError> {
        let vote = request.vote;
        let sent_at = Instant::now();
        match self.ask(Call::Append(request)).await? {
            Answer::Append(answer) => {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    let pace = self.formats.pace_of(self.target);
                    self.leadership
                        .acknowledged(self.target, vote, sent_at, pace);
                }
                Ok(answer)
            }
            _ => Err(unexpected()),
        }
    }

    async fn ask<E: std::error::Error>(&self, call: Call) -> Result<Answer, RpcError<E>> {
        match self.peer.ask(call).await {
            Ok(Answer::Failed(why) | Answer::Refused(why)) => {
                Err(NetworkError::new(&io::Error::other(why)).into())
            }
            Ok(answer) => Ok(answer),
            Err(error) => Err(Unreachable::new(&error).into()),
        }
    }
}

fn unexpected<E: std::error::Error>() -> RpcError<E> {
    NetworkError::new(&io::Error::other("the answer is not to what was asked")).into()
}

impl RaftNetwork<Types> for Target {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<MasterId>, RpcError> {
        // A task of its own: openraft gives it up after the time of a heartbeat, but an answer that a
        // slow disk delayed still renews the lease.
        let asked = tokio::spawn(self.clone().append(request)).await;
        asked.expect("asking does not panic")
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<MasterId>, RpcError<InstallSnapshotError>> {
        match self.ask(Call::Snapshot(request)).await? {
            Answer::Snapshot(answer) => Ok(answer),
            Answer::SnapshotMismatch(error) => {
                let error = RaftError::APIError(InstallSnapshotError::from(error));
                Err(RemoteError::new(self.target, error).into())
            }
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<MasterId>,
        _: RPCOption,
    ) -> Result<VoteResponse<MasterId>, RpcError> {
        // It may be that the connection is just being made, and there is no other chance to ask.
        let patience = self.formats.ours().pace.scaled(VOTE_PATIENCE);
        self.peer.connected(patience).await;
        match self.ask(Call::Vote(request)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
