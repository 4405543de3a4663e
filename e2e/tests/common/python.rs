//! The Python that has what a test needs.

use std::process::{Command, Stdio};

/// The Python that has this module: `MEROS_TEST_PYTHON`, else `python3`.
pub(crate) fn python_with(module: &str) -> Option<String> {
    let python = std::env::var("MEROS_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let tried = Command::new(&python)
        .args(["-c", &format!("import {module}")])
        .stderr(Stdio::null())
        .status();
    let has = tried.is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: {python} has no {module}; docs/mesos.md tells how to install it");
    }
    has.then_some(python)
}
