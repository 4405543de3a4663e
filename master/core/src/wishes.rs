//! What frameworks wish of their offers: checked, compiled, and given to the allocator (semantics B1,
//! B17, E2).
//!
//! Bounds: texts, patterns and alternatives of one framework, by the constants of
//! `meros_proto::constraint`; each compiled pattern by the allocator.

use std::collections::BTreeSet;

use meros_proto::constraint::{
    LEAST_NAMES_MAX, MINIMUM_ALTERNATIVES_MAX, OfferWishes, Predicate, Subject, WISHES_BYTES_MAX,
    WISHES_PATTERNS_MAX,
};
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::FrameworkId;
use meros_proto::refusal::Refusal;
use meros_proto::resources::{Resources, Value};
use meros_proto::role::RoleName;

use crate::MasterCore;
use crate::allocator::{Constraints, Minimum, Wishes};
use crate::event::ConnectionId;
use crate::turn::Turn;

/// Wishes that can be fulfilled, or not, without another question.
#[derive(Debug, Default)]
pub(crate) struct CheckedWishes {
    stated: Vec<OfferWishes>,
    compiled: Vec<(RoleName, Wishes)>,
}

fn invalid(why: String) -> Refusal {
    Refusal::Invalid {
        field: "wishes".to_owned(),
        why,
    }
}

/// Checks wishes and compiles them. The first that applies: another's role, one twice, too much of
/// something, a least that is none, a constraint that cannot be compiled.
pub(crate) fn check_wishes(
    wishes: Vec<OfferWishes>,
    framework: &FrameworkDescription,
) -> Result<CheckedWishes, Refusal> {
    let mut seen = BTreeSet::new();
    for role in wishes.iter().map(|it| &it.role) {
        if !framework.roles.contains(role) {
            return Err(invalid(format!(
                "`{role}` is not one of the framework's roles"
            )));
        }
        if !seen.insert(role) {
            return Err(invalid(format!("role `{role}` is named twice")));
        }
    }
    check_size(&wishes)?;
    let mut compiled = Vec::new();
    for it in &wishes {
        let in_role = |why: String| invalid(format!("in role `{}` {why}", it.role));
        check_least(&it.constraints.least).map_err(in_role)?;
        for least in it.minimum.iter().flatten() {
            check_least(least).map_err(in_role)?;
        }
        let constraints = Constraints::compile(&it.constraints);
        let constraints = constraints.map_err(|error| in_role(error.to_string()))?;
        let minimum = it.minimum.clone().map(|any_of| Minimum { any_of });
        let wishes = Wishes {
            minimum,
            constraints: Some(constraints),
        };
        compiled.push((it.role.clone(), wishes));
    }
    Ok(CheckedWishes {
        stated: wishes,
        compiled,
    })
}

fn check_size(wishes: &[OfferWishes]) -> Result<(), Refusal> {
    let (mut bytes, mut patterns) = (0, 0);
    let groups = wishes.iter().flat_map(|it| &it.constraints.groups);
    for constraint in groups.flatten() {
        bytes += match &constraint.subject {
            Subject::Attribute(name) => name.len(),
            Subject::Hostname | Subject::Region | Subject::Zone => 0,
        };
        bytes += match &constraint.predicate {
            Predicate::Exists | Predicate::NotExists => 0,
            Predicate::Equals(text) | Predicate::NotEquals(text) => text.len(),
            Predicate::Matches(text) | Predicate::NotMatches(text) => {
                patterns += 1;
                text.len()
            }
        };
    }
    if bytes > WISHES_BYTES_MAX {
        return Err(invalid(format!(
            "their texts have {bytes} bytes; at most {WISHES_BYTES_MAX} are allowed"
        )));
    }
    if patterns > WISHES_PATTERNS_MAX {
        return Err(invalid(format!(
            "they have {patterns} patterns; at most {WISHES_PATTERNS_MAX} are allowed"
        )));
    }
    let alternatives = |it: &OfferWishes| it.minimum.as_ref().map_or(0, Vec::len);
    if wishes
        .iter()
        .any(|it| alternatives(it) > MINIMUM_ALTERNATIVES_MAX)
    {
        return Err(invalid(format!(
            "a minimum has at most {MINIMUM_ALTERNATIVES_MAX} alternatives"
        )));
    }
    Ok(())
}

/// Only amounts can be asked for, whoever they are reserved for.
fn check_least(least: &Resources) -> Result<(), String> {
    if least.iter().len() > LEAST_NAMES_MAX {
        return Err(format!(
            "at most {LEAST_NAMES_MAX} names can be asked for together"
        ));
    }
    let is_plain = |value: &Value| matches!(value, Value::Scalar(_));
    match least
        .iter()
        .find(|it| !is_plain(it.value()) || !it.is_unreserved() || it.is_revocable())
    {
        Some(it) => Err(format!(
            "`{}` is no plain amount; only such can be asked for",
            it.name()
        )),
        None => Ok(()),
    }
}

impl MasterCore {
    /// From now on these are the wishes of a framework, and no others.
    pub(crate) fn apply_wishes(&mut self, framework: FrameworkId, wishes: CheckedWishes) {
        let Some(row) = self.frameworks.get_mut(framework) else {
            return;
        };
        let before = std::mem::replace(&mut row.wishes, wishes.stated);
        let kept = |role: &RoleName| wishes.compiled.iter().any(|(it, _)| it == role);
        for it in before.iter().filter(|it| !kept(&it.role)) {
            self.allocator.set_wishes(framework, &it.role, None);
        }
        for (role, wishes) in wishes.compiled {
            self.allocator.set_wishes(framework, &role, Some(wishes));
        }
    }

    pub(crate) fn on_wish(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        wishes: Vec<OfferWishes>,
        turn: &mut Turn<'_>,
    ) {
        let Some(description) = self.description(framework) else {
            return;
        };
        match check_wishes(wishes, description) {
            Ok(wishes) => self.apply_wishes(framework, wishes),
            Err(refusal) => self.refuse_call(connection, "Wish", refusal, turn),
        }
    }

    /// The constraint of a framework that keeps it from a slave, as text.
    pub(crate) fn constraint_text(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        (group, place): (usize, usize),
    ) -> Option<String> {
        let row = self.frameworks.get(framework)?;
        let wishes = row.wishes.iter().find(|it| it.role == *role)?;
        let constraint = wishes.constraints.groups.get(group)?.get(place)?;
        Some(constraint.to_string())
    }
}
