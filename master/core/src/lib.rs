//! MasterCore: slaves, frameworks, offers, tasks, roles; no clock, socket, file or thread.
