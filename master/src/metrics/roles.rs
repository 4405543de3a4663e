//! Metrics of each role: what it is due, and what it has.

use std::collections::BTreeMap;
use std::fmt;

use meros_daemon::metrics::Out;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::view::RoleRow;

use crate::projection::Page;

/// Some amounts of a role.
type AmountsOf = fn(&RoleRow) -> &BTreeMap<ResourceName, Scalar>;

/// Writes the metrics of these roles, and how many there are.
pub(super) fn encode(out: &mut Out<'_, '_>, roles: &Page<RoleRow>) -> fmt::Result {
    out.gauge(
        "roles",
        "Roles that are configured, have frameworks or hold something; the first 1000 have metrics of their own",
        roles.total as u64,
    )?;
    let rows = roles.rows.as_slice();
    let label = |row: &RoleRow| [("role", row.role.to_string())];
    out.gauges(
        "role_weight",
        "Weight of a role among its siblings",
        rows.iter().map(|row| (label(row), row.weight.as_f64())),
    )?;
    let minimums = rows.iter().flat_map(|row| {
        let any_of = row.minimum.iter().flat_map(|minimum| &minimum.any_of);
        let alternatives = any_of.enumerate();
        alternatives.flat_map(move |(number, least)| {
            least.iter().map(move |it| {
                let labels = [
                    ("role", row.role.to_string()),
                    ("alternative", number.to_string()),
                    ("resource", it.name().to_string()),
                ];
                (labels, least.scalar(it.name()).as_f64())
            })
        })
    });
    out.gauges(
        "role_minimum",
        "What is worth an offer in a role: all amounts of one of the alternatives",
        minimums,
    )?;
    out.gauges(
        "role_frameworks",
        "Frameworks in a role",
        rows.iter().map(|row| (label(row), row.frameworks)),
    )?;
    let families: [(_, _, AmountsOf); 6] = [
        ("role_guarantee", "So much is kept for a role", |row| {
            &row.guarantees
        }),
        (
            "role_limit",
            "More than this is not offered to a role",
            |row| &row.limits,
        ),
        (
            "role_counted",
            "What counts against the quota of a role",
            |row| &row.counted,
        ),
        ("role_used", "What tasks of a role take", |row| &row.used),
        ("role_offered", "What offers of a role hold", |row| {
            &row.offered
        }),
        ("role_reserved", "What is reserved for a role", |row| {
            &row.reserved
        }),
    ];
    for (name, help, amounts) in families {
        let of_role = |row| {
            let each = amounts(row).iter();
            each.map(move |(resource, amount)| {
                let labels = [
                    ("role", row.role.to_string()),
                    ("resource", resource.to_string()),
                ];
                (labels, amount.as_f64())
            })
        };
        out.gauges(name, help, rows.iter().flat_map(of_role))?;
    }
    Ok(())
}
