//! A framework as it subscribes (semantics B1, B2, R8, R9).

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::constraint::{Constraint, OfferWishes, Predicate, Subject};
use meros_proto::framework::{FAILOVER_TIMEOUT_MAX, FrameworkCapability, FrameworkDescription};
use meros_proto::resources::{Reservation, Resource, ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;

use crate::ids::Ids;
use crate::pb;
use crate::pb::framework_info::capability::Type as Capability;
use crate::pb::scheduler::attribute_constraint as constraint;
use crate::refused::Refused;
use crate::resources::{Form, labels_from_v1};

/// What a SUBSCRIBE says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The framework; its principal is not set.
    pub framework: FrameworkDescription,
    /// Who it says that it is; empty if it does not.
    pub principal: String,
    /// The roles it wants no offers for.
    pub suppressed_roles: Vec<RoleName>,
    /// What it wishes of its offers.
    pub wishes: Vec<OfferWishes>,
    /// How it reads resources.
    pub form: Form,
}

/// Reads a SUBSCRIBE.
///
/// # Errors
/// What breaks a rule. An id of another cluster is one of them: there is nothing to take up.
pub fn subscription(
    call: &pb::scheduler::call::Subscribe,
    ids: Ids,
) -> Result<Subscription, Refused> {
    let info = &call.framework_info;
    let can = |wanted: Capability| {
        let mut all = info.capabilities.iter();
        all.any(|it| it.r#type.is_some() && it.r#type() == wanted)
    };
    let form = Form {
        multi_role: can(Capability::MultiRole),
        refined: can(Capability::ReservationRefinement),
    };
    let roles = roles(info, form.multi_role)?;
    let framework = FrameworkDescription {
        // People are to see something; the protocol allows an empty name.
        name: match info.name.as_str() {
            "" => "unnamed".to_owned(),
            name => name.to_owned(),
        },
        framework_id: match info.id.as_ref().filter(|id| !id.value.is_empty()) {
            None => None,
            Some(id) => Some(ids.read_framework(id).ok_or_else(|| {
                let why =
                    "it is of no framework of this cluster: leave it out to subscribe as a new one";
                Refused::invalid("framework_info.id", why)
            })?),
        },
        principal: None,
        user: Some(info.user.clone()).filter(|user| !user.is_empty()),
        failover_timeout: failover_timeout(info.failover_timeout())?,
        checkpoint: info.checkpoint(),
        capabilities: [
            (
                Capability::PartitionAware,
                FrameworkCapability::PartitionAware,
            ),
            (
                Capability::TaskKillingState,
                FrameworkCapability::TaskKillingState,
            ),
            (
                Capability::RevocableResources,
                FrameworkCapability::RevocableResources,
            ),
            (
                Capability::SharedResources,
                FrameworkCapability::SharedResources,
            ),
            (Capability::GpuResources, FrameworkCapability::GpuResources),
            (
                Capability::ReservationRefinement,
                FrameworkCapability::ReservationRefinement,
            ),
        ]
        .into_iter()
        .filter_map(|(theirs, ours)| can(theirs).then_some(ours))
        .collect(),
        webui_url: info.webui_url().to_owned(),
        labels: labels_from_v1("framework_info.labels", info.labels.as_ref())?,
        roles,
    };
    Ok(Subscription {
        framework,
        principal: principal(info.principal())?,
        suppressed_roles: read_roles("suppressed_roles", &call.suppressed_roles)?,
        wishes: wishes(&info.offer_filters, call.offer_constraints.as_ref())?,
        form,
    })
}

/// Reads an UPDATE_FRAMEWORK (semantics B17): it says all that a SUBSCRIBE says.
///
/// # Errors
/// What breaks a rule.
pub fn update(
    call: &pb::scheduler::call::UpdateFramework,
    ids: Ids,
) -> Result<Subscription, Refused> {
    let subscribe = pb::scheduler::call::Subscribe {
        framework_info: call.framework_info.clone(),
        suppressed_roles: call.suppressed_roles.clone(),
        offer_constraints: call.offer_constraints.clone(),
    };
    subscription(&subscribe, ids)
}

/// It is kept with the framework, and may stand in reservations.
fn principal(name: &str) -> Result<String, Refused> {
    let max = Reservation::PRINCIPAL_BYTES_MAX;
    if name.len() > max || name.chars().any(char::is_control) {
        let why = format!("at most {max} bytes without control characters are allowed");
        return Err(Refused::invalid("framework_info.principal", why));
    }
    Ok(name.to_owned())
}

fn roles(info: &pb::FrameworkInfo, is_multi_role: bool) -> Result<Vec<RoleName>, Refused> {
    match (is_multi_role, &info.role) {
        (true, Some(_)) => Err(Refused::invalid(
            "framework_info.role",
            "with MULTI_ROLE it is `roles` that are set",
        )),
        (true, None) => read_roles("framework_info.roles", &info.roles),
        (false, _) if !info.roles.is_empty() => Err(Refused::invalid(
            "framework_info.roles",
            "without the capability MULTI_ROLE it is `role` that is set",
        )),
        (false, _) => read_roles("framework_info.role", &[info.role().to_owned()]),
    }
}

/// Reads names of roles.
///
/// # Errors
/// The first that is none.
pub fn read_roles(field: &str, names: &[String]) -> Result<Vec<RoleName>, Refused> {
    let read = |name: &String| RoleName::new(name).map_err(|error| Refused::invalid(field, error));
    names.iter().map(read).collect()
}

/// Longer than we keep a framework is as long as we do.
fn failover_timeout(seconds: f64) -> Result<Duration, Refused> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(Refused::invalid(
            "framework_info.failover_timeout",
            "it must not be negative",
        ));
    }
    let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Ok(timeout.min(FAILOVER_TIMEOUT_MAX))
}

fn wishes(
    filters: &BTreeMap<String, pb::OfferFilters>,
    constraints: Option<&pb::scheduler::OfferConstraints>,
) -> Result<Vec<OfferWishes>, Refused> {
    let mut by_role: BTreeMap<RoleName, OfferWishes> = BTreeMap::new();
    let of = |field: &str, name: &str| {
        let role = RoleName::new(name).map_err(|error| Refused::invalid(field, error))?;
        Ok::<_, Refused>((role.clone(), OfferWishes::for_role(role)))
    };
    for (name, filter) in filters {
        if let Some(minimum) = &filter.min_allocatable_resources {
            let field = "framework_info.offer_filters";
            let (role, wishes) = of(field, name)?;
            let any_of: Result<Vec<_>, _> = minimum.quantities.iter().map(least).collect();
            by_role.insert(role, wishes.minimum(any_of?));
        }
    }
    let roles = constraints.map(|it| &it.role_constraints);
    for (name, constraints) in roles.into_iter().flatten() {
        let (role, wishes) = of("offer_constraints", name)?;
        let wishes = by_role.entry(role).or_insert(wishes);
        for group in &constraints.groups {
            let group: Result<Vec<_>, _> = group
                .attribute_constraints
                .iter()
                .map(read_constraint)
                .collect();
            wishes.constraints.groups.push(group?);
        }
    }
    Ok(by_role.into_values().collect())
}

fn least(quantities: &pb::offer_filters::ResourceQuantities) -> Result<Resources, Refused> {
    let invalid =
        |error: &dyn std::fmt::Display| Refused::invalid("framework_info.offer_filters", error);
    let mut sum = Resources::new();
    for (name, amount) in &quantities.quantities {
        let name = ResourceName::new(name).map_err(|error| invalid(&error))?;
        let amount = Scalar::from_f64(amount.value).map_err(|error| invalid(&error))?;
        let resource = Resource::new(name, amount).map_err(|error| invalid(&error))?;
        sum.checked_add_assign(&resource.into())
            .map_err(|error| invalid(&error))?;
    }
    Ok(sum)
}

fn read_constraint(from: &pb::scheduler::AttributeConstraint) -> Result<Constraint, Refused> {
    let missing = |what: &str| Refused::invalid(format!("offer_constraints.{what}"), "not known");
    let subject = match from.selector.selector.as_ref() {
        Some(constraint::selector::Selector::AttributeName(name)) => Subject::attribute(name),
        Some(constraint::selector::Selector::PseudoattributeType(number)) => {
            use constraint::selector::PseudoattributeType as Pseudo;
            match Pseudo::try_from(*number) {
                Ok(Pseudo::Hostname) => Subject::Hostname,
                Ok(Pseudo::Region) => Subject::Region,
                Ok(Pseudo::Zone) => Subject::Zone,
                Ok(Pseudo::Unknown) | Err(_) => return Err(missing("selector")),
            }
        }
        None => return Err(missing("selector")),
    };
    use constraint::predicate::Predicate as Theirs;
    let predicate = match from.predicate.predicate.as_ref() {
        Some(Theirs::Exists(_)) => Predicate::Exists,
        Some(Theirs::NotExists(_)) => Predicate::NotExists,
        Some(Theirs::TextEquals(it)) => Predicate::Equals(it.value.clone()),
        Some(Theirs::TextNotEquals(it)) => Predicate::NotEquals(it.value.clone()),
        Some(Theirs::TextMatches(it)) => Predicate::Matches(it.regex.clone()),
        Some(Theirs::TextNotMatches(it)) => Predicate::NotMatches(it.regex.clone()),
        None => return Err(missing("predicate")),
    };
    Ok(Constraint { subject, predicate })
}
