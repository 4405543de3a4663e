//! Executors of frameworks, as the shell sees them: a container with a door in its sandbox, through which
//! the executor speaks with the core; or it speaks v1 by HTTP, and a token says who it is.

mod door;
mod pace;
mod session;
mod token;

pub(crate) use door::{Callers, Door, SOCKET};
pub(crate) use session::{Outbox, Push, Queue, Sessions};
pub(crate) use token::Tokens;
