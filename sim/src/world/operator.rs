//! What operators order: quotas, weights and minimums while things go wrong, and order afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_master_core::{Answer, Event, OperatorCall, RequestId};
use meros_proto::ids::FrameworkId;
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::quota::Quota;
use meros_proto::refusal::Refusal;
use meros_proto::resources::{ResourceName, Resources, Scalar};

use super::framework::{FrameworkNode, Mind};
use super::slave::SlaveNode;
use super::{Happening, World};
use crate::behaviour::claiming::ordered;
use crate::fault::RoleOrder;
use crate::invariants::{Broken, durable};

/// Who has not launched everything so long after the faults may lack what is reserved for others.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(600);

impl World {
    /// An operator orders something of a master.
    pub(super) fn order(&mut self, at: usize, call: OperatorCall) -> Result<(), Broken> {
        if self.masters[at].core.is_none() {
            return Ok(());
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        self.orders.insert(request, call.clone());
        self.feed_master(at, Event::Operator { request, call })
    }

    /// The same of the one that leads, if there is one.
    pub(super) fn order_leader(&mut self, call: OperatorCall) -> Result<(), Broken> {
        match self.log.leader() {
            Some(leader) => self.order(leader, call),
            None => Ok(()),
        }
    }

    /// A master answers.
    pub(super) fn on_reply(
        &mut self,
        at: usize,
        request: RequestId,
        reply: &Result<Answer, Refusal>,
    ) -> Result<(), Broken> {
        let Some(call) = self.orders.remove(&request) else {
            return Ok(());
        };
        match reply {
            Ok(_) => {
                self.meet("an order that is carried out");
                durable::check_ordered(&self.masters[at].disk, &call)
            }
            Err(_) => {
                self.meet("an order that is refused");
                Ok(())
            }
        }
    }

    /// What is ordered about roles while things go wrong.
    pub(super) fn order_role(&mut self, order: &RoleOrder) -> Result<(), Broken> {
        let role = |name: &str| name.parse().expect("a role");
        self.order_leader(match order {
            RoleOrder::Quota {
                role: name,
                guarantee,
                limit,
                force,
            } => OperatorCall::SetQuotas {
                quotas: vec![(
                    role(name),
                    Quota {
                        guarantees: amounts(guarantee),
                        limits: amounts(limit),
                    },
                )],
                force: *force,
            },
            RoleOrder::Weight { role: name, weight } => OperatorCall::SetWeights {
                weights: vec![(role(name), Scalar::whole(*weight))],
            },
            RoleOrder::Minimum {
                role: name,
                minimum,
            } => OperatorCall::SetMinimums {
                minimums: vec![(
                    role(name),
                    minimum.map(|text| text.parse().expect("well formed")),
                )],
            },
        })
    }

    /// What is reserved and given back on a slave while things go wrong.
    pub(super) fn order_change(
        &mut self,
        slave: usize,
        kind: ChangeKind,
        role: &str,
    ) -> Result<(), Broken> {
        let Some(identity) = self.slaves[slave].identity() else {
            return Ok(());
        };
        self.order_leader(OperatorCall::ChangeResources {
            slave_id: identity.slave_id,
            change: Box::new(ordered(kind, &role.parse().expect("a role"))),
        })
    }

    /// Gives back what is reserved: somebody of another role may need it to come to an end. What tasks
    /// use is refused, and tried again.
    fn give_back(&mut self) -> Result<(), Broken> {
        let claims_of = |node: &SlaveNode| {
            let claims = node.resources().claims();
            node.identity().map(|identity| (identity.slave_id, claims))
        };
        let claims: Vec<_> = self.slaves.iter().filter_map(claims_of).collect();
        for (slave_id, claims) in claims {
            for claim in &claims {
                let kind = match claim.volume() {
                    Some(_) => ChangeKind::Destroy,
                    None => ChangeKind::Unreserve,
                };
                let change = Box::new(Change::new(kind, claim.clone().into()));
                self.order_leader(OperatorCall::ChangeResources { slave_id, change })?;
            }
        }
        Ok(())
    }

    /// After the faults: frameworks that nobody has been for a while are removed, and no role has a
    /// quota or a minimum any more, so that everybody can come to an end. If that takes long, nothing is reserved
    /// for a role any more.
    pub(super) fn operate(&mut self) -> Result<(), Broken> {
        let owned: BTreeSet<FrameworkId> = self
            .frameworks
            .iter()
            .filter(|node| !matches!(node.mind, Mind::Nonsense(_)))
            .filter_map(|node| node.framework_id)
            .collect();
        let log = self.log.registry().frameworks();
        let now: Vec<FrameworkId> = log
            .map(|(id, _)| id)
            .filter(|id| !owned.contains(id))
            .collect();
        let before = std::mem::replace(&mut self.orphans, now.clone());
        for framework_id in now.into_iter().filter(|id| before.contains(id)) {
            self.order_leader(OperatorCall::Teardown { framework_id })?;
        }
        let quotas = self.log.registry().quotas().keys().cloned();
        let quotas: Vec<_> = quotas.map(|role| (role, Quota::default())).collect();
        if !quotas.is_empty() && self.promised.is_none() {
            let force = true;
            self.order_leader(OperatorCall::SetQuotas { quotas, force })?;
        }
        let minimums = self.log.registry().minimums().keys().cloned();
        let minimums: Vec<_> = minimums.map(|role| (role, None)).collect();
        if !minimums.is_empty() {
            self.order_leader(OperatorCall::SetMinimums { minimums })?;
        }
        let is_starved = |node: &FrameworkNode| match &node.mind {
            Mind::Workload(worker) => !node.is_over && !worker.app.has_launched_all(),
            _ => false,
        };
        let waits = self
            .healed_at
            .map_or(Duration::ZERO, |at| self.now.since(at));
        if waits > GIVE_BACK_AFTER && self.frameworks.iter().any(is_starved) {
            self.give_back()?;
        }
        self.after(super::finish::OPERATE_EVERY, Happening::Operate);
        Ok(())
    }

    /// Promises half of what all these slaves have to the role of the creditor, and no more.
    pub(super) fn promise_half(&mut self, has: &Resources) -> Result<(), Broken> {
        let all = has.unreserved();
        let half = [ResourceName::CPUS, ResourceName::MEM].map(|name| {
            let half = all.scalar(&name).thousandths() / 2;
            (name, Scalar::from_thousandths(half).expect("a half"))
        });
        let half: BTreeMap<ResourceName, Scalar> =
            half.into_iter().filter(|(_, it)| !it.is_zero()).collect();
        let quota = Quota {
            guarantees: half.clone(),
            limits: half,
        };
        self.promised = Some(quota.clone());
        let role = crate::behaviour::probe::CREDITORS_ROLE
            .parse()
            .expect("a role");
        let quotas = vec![(role, quota)];
        let force = false;
        self.order_leader(OperatorCall::SetQuotas { quotas, force })
    }
}

fn amounts(text: &str) -> BTreeMap<ResourceName, Scalar> {
    let resources: Resources = text.parse().expect("well formed");
    let amount =
        |it: &meros_proto::resources::Resource| (it.name().clone(), resources.scalar(it.name()));
    resources.iter().map(amount).collect()
}
