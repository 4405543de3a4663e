//! The program of one container; see the library. Built by `slave/build.rs` and carried inside of
//! `meros`, so there is nothing more to install.

fn main() {
    meros_shim::run();
}
