//! Scripts: what is sent to a core, and all that it does about it, as text.

mod broken;
mod clients;
mod drain;
mod executors;
mod explain;
mod framework_update;
mod frameworks;
mod groups;
mod launches;
mod life;
mod maintenance;
mod offers;
mod operations;
mod quota;
mod random;
mod reconcile;
mod remembered;
mod settings;
mod slaves;
mod stored;
mod updates;
mod wishes;
mod world;
