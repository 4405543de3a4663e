//! The one binary: meros master, meros slave, meros dev and the operator's commands.

fn main() {}
