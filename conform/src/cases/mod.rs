//! The cases, by what they are about.

mod calls;
mod clients;
mod events;
mod executor;
mod operator;
mod subscription;
mod transport;

use crate::Case;

/// Those that need no agent first.
pub(crate) static ALL: &[&[Case]] = &[
    transport::CASES,
    subscription::CASES,
    operator::CASES,
    clients::CASES,
    calls::CASES,
    events::CASES,
    executor::CASES,
];
