//! What frameworks and tasks do of their own will.

pub(crate) mod nonsense;
pub(crate) mod probe;
pub(crate) mod script;
pub(crate) mod workload;
