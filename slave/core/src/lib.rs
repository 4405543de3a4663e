//! SlaveCore: task life cycle, status updates, recovery decisions; no clock, socket, file or thread.
