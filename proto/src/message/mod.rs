//! Messages of the native wire, by receiver. One ordered stream each way per peer; within it
//! nothing is lost or swapped while the connection lives (semantics A8).
//!
//! The wire is positional: variants and fields are appended, never reordered.

pub mod exec;
pub mod executor;
pub mod framework;
pub mod master;
pub mod slave;

/// The most masters that are told in one message: more than a cluster has. A longer list is ignored.
pub const MASTERS_TOLD_MAX: usize = 16;
/// The longest address of a master in such a list, in bytes: a host name and a port.
pub const MASTER_ADDRESS_BYTES_MAX: usize = 300;

/// Whether a list of masters can be meant: what comes from outside is not dialled blindly.
#[must_use]
pub fn is_list_of_masters(addresses: &[String]) -> bool {
    let is_address = |text: &String| {
        text.len() <= MASTER_ADDRESS_BYTES_MAX
            && text
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    (1..=MASTERS_TOLD_MAX).contains(&addresses.len()) && addresses.iter().all(is_address)
}
