//! Real Meros processes on loopback.
