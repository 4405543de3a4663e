//! The master: network, registry, projections and HTTP around MasterCore.
