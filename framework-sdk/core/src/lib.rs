//! The framework driver as a state machine: subscribe, acknowledge, reconcile, back off.
