//! The project's own commands: test, fix, demo, setup, tidy.

fn main() {}
