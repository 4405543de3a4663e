//! The slave: containers, checkpoint, network and HTTP around SlaveCore.
