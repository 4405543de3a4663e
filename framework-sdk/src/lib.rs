//! Write a Meros framework: the Scheduler trait and the session beneath it.
