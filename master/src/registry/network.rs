//! openraft's way to the other members, through [`Peer`]s that are kept connected.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meros_proto::transport::Client;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;

use super::leadership::Leadership;
use super::peer::Peer;
use super::types::{MasterId, Member, Types};
use super::wire::{Answer, Call};

type RpcError<E = openraft::error::Infallible> = RPCError<MasterId, Member, RaftError<MasterId, E>>;

/// How long one that cannot be reached is left alone.
const BACKOFF: Duration = Duration::from_millis(100);

/// How long a question for a vote waits for a connection; openraft gives it `ELECTION_MIN` in all.
const VOTE_PATIENCE: Duration = Duration::from_millis(120);

/// All members that openraft talks to.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    client: Client,
    leadership: Arc<Leadership>,
    peers: Arc<Mutex<BTreeMap<MasterId, Arc<Peer>>>>,
}

impl Network {
    pub(crate) fn new(client: Client, leadership: Arc<Leadership>) -> Self {
        Self {
            client,
            leadership,
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

    /// The way to a member.
    pub(super) fn peer(&self, target: MasterId, member: &Member) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        match peers.get(&target) {
            Some(peer) if peer.address == member.address => Arc::clone(peer),
            _ => {
                let address = member.address.clone();
                let peer = Arc::new(Peer::new(self.client.clone(), target, address));
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
        }
    }
}

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    target: MasterId,
    peer: Arc<Peer>,
    leadership: Arc<Leadership>,
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
                    self.leadership.acknowledged(self.target, vote, sent_at);
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
        self.peer.connected(VOTE_PATIENCE).await;
        match self.ask(Call::Vote(request)).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
