//! Resources, with reservations in both forms of the protocol, and labels (semantics D6 to D8, R8).

use meros_proto::labels::{Label, Labels};
use meros_proto::resources::{
    Interval, Ranges, Reservation, ReservationKind, Reservations, Resource, ResourceName,
    Resources, Scalar, Set, Value, Volume,
};
use meros_proto::role::RoleName;

use crate::pb;
use crate::pb::resource::reservation_info::Type as ReservationType;
use crate::pb::value::Type;
use crate::refused::{Refused, absent};

/// The most entries of one list of resources: each is looked up among those before it.
pub const RESOURCES_MAX: usize = 1_024;

/// How much of the later protocol a framework understands (semantics R8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Form {
    /// MULTI_ROLE: what is offered says for which role.
    pub multi_role: bool,
    /// RESERVATION_REFINEMENT: reservations are a list, not a role and a maker.
    pub refined: bool,
}

/// As a framework of this form reads it, when it is allocated to `role`.
#[must_use]
pub fn to_v1(resources: &Resources, role: Option<&RoleName>, form: Form) -> Vec<pb::Resource> {
    let one = |resource| resource_to_v1(resource, role, form);
    resources.iter().map(one).collect()
}

fn resource_to_v1(resource: &Resource, role: Option<&RoleName>, form: Form) -> pb::Resource {
    let mut out = pb::Resource {
        name: resource.name().as_str().to_owned(),
        allocation_info: allocated_to(role, form),
        revocable: resource.is_revocable().then(Default::default),
        shared: resource.is_shared().then(Default::default),
        ..Default::default()
    };
    match resource.value() {
        Value::Scalar(amount) => {
            out.set_type(Type::Scalar);
            out.scalar = Some(scalar_to_v1(*amount));
        }
        Value::Ranges(ranges) => {
            out.set_type(Type::Ranges);
            let range = ranges.iter().map(|it| pb::value::Range {
                begin: it.begin(),
                end: it.end(),
            });
            out.ranges = Some(pb::value::Ranges {
                range: range.collect(),
            });
        }
        Value::Set(set) => {
            out.set_type(Type::Set);
            out.set = Some(pb::value::Set {
                item: set.iter().map(str::to_owned).collect(),
            });
        }
    }
    let stack = resource.reservations();
    if form.refined {
        out.reservations = stack.as_slice().iter().map(reservation_to_v1).collect();
    } else {
        let top = stack.top();
        out.role = Some(top.map_or("*", |top| top.role().as_str()).to_owned());
        out.reservation = top
            .filter(|top| top.kind() == ReservationKind::Dynamic)
            .map(|top| pb::resource::ReservationInfo {
                principal: top.principal().map(str::to_owned),
                labels: labels_to_v1(top.labels()),
                ..Default::default()
            });
    }
    if let Some(volume) = resource.volume() {
        out.disk = Some(pb::resource::DiskInfo {
            persistence: Some(pb::resource::disk_info::Persistence {
                id: volume.id().to_owned(),
                principal: stack
                    .top()
                    .and_then(|top| top.principal())
                    .map(str::to_owned),
            }),
            volume: Some(pb::Volume {
                container_path: volume.container_path().to_owned(),
                mode: pb::volume::Mode::Rw.into(),
                ..Default::default()
            }),
            source: None,
        });
    }
    out
}

/// The role of an allocation, for those who have several (semantics R8).
#[must_use]
pub fn allocated_to(role: Option<&RoleName>, form: Form) -> Option<pb::resource::AllocationInfo> {
    role.filter(|_| form.multi_role)
        .map(|role| pb::resource::AllocationInfo {
            role: Some(role.as_str().to_owned()),
        })
}

/// A scalar.
#[must_use]
pub fn scalar_to_v1(amount: Scalar) -> pb::value::Scalar {
    pb::value::Scalar {
        value: amount.as_f64(),
    }
}

fn reservation_to_v1(reservation: &Reservation) -> pb::resource::ReservationInfo {
    let kind = match reservation.kind() {
        ReservationKind::Static => ReservationType::Static,
        ReservationKind::Dynamic => ReservationType::Dynamic,
    };
    pb::resource::ReservationInfo {
        r#type: Some(kind.into()),
        role: Some(reservation.role().as_str().to_owned()),
        principal: reservation.principal().map(str::to_owned),
        labels: labels_to_v1(reservation.labels()),
    }
}

/// Reads a list of resources. Amounts of zero are nothing (semantics R9); the role that they are
/// allocated to is not looked at, since their offer says it.
///
/// # Errors
/// [`Refused`], with `field` in front.
pub fn from_v1(field: &str, list: &[pb::Resource]) -> Result<Resources, Refused> {
    if list.len() > RESOURCES_MAX {
        let why = format!(
            "{} entries; at most {RESOURCES_MAX} are allowed",
            list.len()
        );
        return Err(Refused::invalid(field, why));
    }
    let mut sum = Resources::new();
    for resource in list {
        let resource = resource_from_v1(field, resource)?;
        sum.checked_add_assign(&resource.into())
            .map_err(|error| Refused::invalid(field, error))?;
    }
    Ok(sum)
}

fn resource_from_v1(field: &str, from: &pb::Resource) -> Result<Resource, Refused> {
    let invalid = |why: &dyn std::fmt::Display| {
        Refused::invalid(field, format!("`{}`: {why}", shortened(&from.name)))
    };
    let local = "only disks that the slave offers by itself";
    absent(
        from.provider_id.is_some(),
        &format!("{field}.provider_id"),
        local,
    )?;
    let name = ResourceName::new(&from.name).map_err(|error| invalid(&error))?;
    let value = value_from_v1(from).map_err(|why| invalid(&why))?;
    let mut resource = Resource::new(name, value).map_err(|error| invalid(&error))?;
    let reservations = reservations_from_v1(field, from)?;
    if !reservations.is_empty() {
        resource = resource
            .with_reservations(reservations)
            .map_err(|error| invalid(&error))?;
    }
    if let Some(disk) = &from.disk {
        absent(
            disk.source.is_some(),
            &format!("{field}.disk.source"),
            local,
        )?;
        if let Some(volume) = volume_from_v1(field, disk)? {
            resource = resource
                .with_volume(volume)
                .map_err(|error| invalid(&error))?;
        }
    }
    if from.revocable.is_some() {
        resource = resource.into_revocable().map_err(|error| invalid(&error))?;
    }
    if from.shared.is_some() {
        resource = resource.into_shared().map_err(|error| invalid(&error))?;
    }
    Ok(resource)
}

fn value_from_v1(from: &pb::Resource) -> Result<Value, String> {
    let kind = Type::try_from(from.r#type).map_err(|_| "its type is not known")?;
    match (kind, &from.scalar, &from.ranges, &from.set) {
        (Type::Scalar, Some(amount), ..) => Scalar::from_f64(amount.value)
            .map(Value::Scalar)
            .map_err(|error| error.to_string()),
        (Type::Ranges, _, Some(ranges), _) => {
            if ranges.range.len() > Ranges::INTERVALS_MAX {
                return Err(format!("at most {} ranges", Ranges::INTERVALS_MAX));
            }
            let intervals = ranges
                .range
                .iter()
                .map(|it| Interval::new(it.begin, it.end));
            let intervals: Result<Vec<_>, _> = intervals.collect();
            let intervals = intervals.map_err(|error| error.to_string())?;
            Ok(Value::Ranges(Ranges::from_intervals(intervals)))
        }
        (Type::Set, _, _, Some(set)) => Set::from_items(&set.item)
            .map(Value::Set)
            .map_err(|error| error.to_string()),
        (Type::Text, ..) => Err("text is no resource".to_owned()),
        _ => Err("the value that its type names is missing".to_owned()),
    }
}

/// In either form: a list, or a role with or without a maker.
fn reservations_from_v1(field: &str, from: &pb::Resource) -> Result<Reservations, Refused> {
    let invalid =
        |error: &dyn std::fmt::Display| Refused::invalid(format!("{field}.reservations"), error);
    let mut stack = Vec::new();
    if !from.reservations.is_empty() {
        if from.reservation.is_some() || from.role.as_deref().is_some_and(|role| role != "*") {
            return Err(invalid(
                &"`role` and `reservation` are the older form of the same",
            ));
        }
        if from.reservations.len() > Reservations::DEPTH_MAX {
            return Err(invalid(&format!("at most {}", Reservations::DEPTH_MAX)));
        }
        for reservation in &from.reservations {
            let role = reservation.role.as_deref().unwrap_or("*");
            let is_static = reservation.r#type() == ReservationType::Static;
            stack.push(reservation_from_v1(role, Some(reservation), is_static)?);
        }
    } else {
        let info = from.reservation.as_ref();
        let role = from.role.as_deref().filter(|role| *role != "*");
        let role = role.or_else(|| info.and_then(|info| info.role.as_deref()));
        match (role, info) {
            (None, None) => {}
            (role, info) => {
                let role = role.unwrap_or("*");
                stack.push(reservation_from_v1(role, info, info.is_none())?);
            }
        }
    }
    Reservations::from_stack(stack).map_err(|error| invalid(&error))
}

fn reservation_from_v1(
    role: &str,
    info: Option<&pb::resource::ReservationInfo>,
    is_static: bool,
) -> Result<Reservation, Refused> {
    let invalid = |error: &dyn std::fmt::Display| Refused::invalid("reservation", error);
    let role = RoleName::new(role).map_err(|error| invalid(&error))?;
    let reservation = match (is_static, info) {
        (true, _) | (_, None) => Reservation::fixed(role),
        (false, Some(info)) => {
            // An empty principal is how some clients write none.
            let principal = info.principal.clone().filter(|name| !name.is_empty());
            let labels = labels_from_v1("reservation.labels", info.labels.as_ref())?;
            Reservation::dynamic(role, principal, labels)
        }
    };
    reservation.map_err(|error| invalid(&error))
}

fn volume_from_v1(field: &str, disk: &pb::resource::DiskInfo) -> Result<Option<Volume>, Refused> {
    let path = |name: &str| format!("{field}.disk.{name}");
    match (&disk.persistence, &disk.volume) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Refused::unsupported(
            path("volume"),
            "give `persistence` as well: volumes are persistent",
        )),
        (Some(_), None) => Err(Refused::invalid(path("volume"), "it is missing")),
        (Some(persistence), Some(volume)) => {
            if volume.mode() != pb::volume::Mode::Rw {
                return Err(Refused::invalid(path("volume.mode"), "it must be RW"));
            }
            absent(
                volume.host_path.is_some() || volume.image.is_some() || volume.source.is_some(),
                &path("volume"),
                "a persistent volume has a relative `container_path` and nothing else",
            )?;
            Volume::new(&persistence.id, &volume.container_path)
                .map(Some)
                .map_err(|error| Refused::invalid(path("persistence"), error))
        }
    }
}

/// Labels; none if there are none.
#[must_use]
pub fn labels_to_v1(labels: &Labels) -> Option<pb::Labels> {
    let one = |label: &Label| pb::Label {
        key: label.key().to_owned(),
        value: label.value().map(str::to_owned),
    };
    (!labels.is_empty()).then(|| pb::Labels {
        labels: labels.iter().map(one).collect(),
    })
}

/// Reads labels.
///
/// # Errors
/// Too many or too long.
pub fn labels_from_v1(field: &str, from: Option<&pb::Labels>) -> Result<Labels, Refused> {
    let list = from.map_or(&[][..], |labels| labels.labels.as_slice());
    if list.len() > Labels::COUNT_MAX {
        let why = format!("at most {} labels are allowed", Labels::COUNT_MAX);
        return Err(Refused::invalid(field, why));
    }
    let labels: Result<Vec<Label>, _> = list
        .iter()
        .map(|label| Label::new(label.key.clone(), label.value.clone()))
        .collect();
    labels
        .and_then(Labels::from_list)
        .map_err(|error| Refused::invalid(field, error))
}

/// For messages: what a stranger wrote may be long.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFINED: Form = Form {
        multi_role: true,
        refined: true,
    };

    fn back(text: &str, form: Form) -> Resources {
        let resources: Resources = text.parse().expect("well formed");
        let role = RoleName::any();
        from_v1("resources", &to_v1(&resources, Some(&role), form)).expect("our own")
    }

    proptest! {
        #[test]
        fn plain_resources_come_back_in_either_form(
            cpus in 0..1_000_000_i64,
            ports in prop::collection::btree_set(0..65_536_u64, 0..20),
            words in prop::collection::btree_set("[a-z]{1,8}", 0..5),
        ) {
            let mut resources = Resources::new();
            let cpus = Scalar::from_thousandths(cpus).expect("in range");
            let ports = ports.iter().map(|port| Interval::new(*port, *port).expect("one number"));
            let ports = Ranges::from_intervals(ports);
            let words = Set::from_items(words).expect("words");
            let name = |name: &str| ResourceName::new(name).expect("a name");
            for resource in [
                Resource::new(ResourceName::CPUS, cpus),
                Resource::new(ResourceName::PORTS, ports),
                Resource::new(name("licences"), words),
            ] {
                let resource = resource.expect("of the right kind");
                resources.checked_add_assign(&resource.into()).expect("small");
            }
            for form in [Form::default(), REFINED] {
                let v1 = to_v1(&resources, Some(&RoleName::any()), form);
                prop_assert_eq!(&from_v1("resources", &v1).expect("our own"), &resources);
            }
        }
    }

    #[test]
    fn reservations_and_volumes_come_back() {
        for text in [
            "cpus(web):2;mem(web,alice):64;disk(web,alice,k=v):100",
            "disk(web,alice)[db:data]:64",
        ] {
            let expected: Resources = text.parse().expect("well formed");
            assert_eq!(back(text, REFINED), expected, "{text}");
            assert_eq!(back(text, Form::default()), expected, "{text}");
        }
        let refined = "cpus(web)(web/ads,alice):1";
        assert_eq!(
            back(refined, REFINED),
            refined.parse().expect("well formed")
        );
    }

    #[test]
    fn the_older_form_has_a_role_and_the_later_one_a_list() {
        // semantics: R8
        let resources: Resources = "cpus(web,alice):1;mem:5".parse().expect("well formed");
        let role = RoleName::new("web").expect("a role");
        let old = to_v1(&resources, Some(&role), Form::default());
        assert!(old.iter().all(|it| it.allocation_info.is_none()));
        let cpus = old.iter().find(|it| it.name == "cpus").expect("there");
        assert_eq!(cpus.role.as_deref(), Some("web"));
        let maker = cpus.reservation.as_ref().expect("dynamic");
        assert_eq!(maker.principal.as_deref(), Some("alice"));
        assert_eq!(maker.role, None);
        let new = to_v1(&resources, Some(&role), REFINED);
        let cpus = new.iter().find(|it| it.name == "cpus").expect("there");
        assert_eq!(
            (cpus.role.as_ref(), cpus.reservation.as_ref()),
            (None, None)
        );
        assert_eq!(cpus.reservations[0].role.as_deref(), Some("web"));
        let allocated = cpus.allocation_info.as_ref().expect("multi role");
        assert_eq!(allocated.role.as_deref(), Some("web"));
    }

    #[test]
    fn what_is_no_resource_is_named() {
        let cpus = |value: f64| pb::Resource {
            name: "cpus".to_owned(),
            scalar: Some(pb::value::Scalar { value }),
            ..Default::default()
        };
        let zero = from_v1("resources", &[cpus(0.0)]).expect("tolerated");
        assert!(zero.is_empty(), "semantics: R9");
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let error = from_v1("resources", &[cpus(bad)]).expect_err("no amount");
            assert!(error.to_string().contains("`cpus`"), "{error}");
        }
        let mut raw = cpus(1.0);
        raw.disk = Some(pb::resource::DiskInfo {
            source: Some(Default::default()),
            ..Default::default()
        });
        let error = from_v1("resources", &[raw]).expect_err("no such disks");
        assert_eq!(error.code(), "unsupported");
        assert!(
            error.to_string().contains("resources.disk.source"),
            "{error}"
        );
        let many = vec![cpus(1.0); RESOURCES_MAX + 1];
        assert!(from_v1("resources", &many).is_err());
    }
}
