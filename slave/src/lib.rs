//! The slave: containers, checkpoint, network and HTTP around SlaveCore.

pub mod container;
