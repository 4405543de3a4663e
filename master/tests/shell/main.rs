//! A whole master in this process, and raw slaves and frameworks over the real transport.

mod bad_input;
mod life;
mod masters;
mod restart;
mod restore;
mod site;
mod storm;
mod v1;
