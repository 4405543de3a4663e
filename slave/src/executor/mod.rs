//! Executors of frameworks, as the shell sees them: a container with a door in its sandbox, through which
//! the executor speaks with the core.

mod door;
mod pace;
mod session;

pub(crate) use door::{Callers, Door, SOCKET};
pub(crate) use session::Sessions;
