//! Scripts: what is sent to a core, and all that it does about it, as text.

mod life;
mod world;
