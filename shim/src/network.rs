//! The loopback device of a network namespace: it is down when it is made.
//!
//! One message to the kernel (rtnetlink(7)) and its answer; a library for it would be larger than the shim.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `RTM_NEWLINK`, `NLM_F_REQUEST | NLM_F_ACK`, `NLMSG_ERROR`, `IFF_UP`.
const NEW_LINK: u16 = 16;
const REQUEST_AND_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;
const UP: u32 = 1;
/// Always, in every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// A header and what a link is described by.
const MESSAGE_BYTES: u32 = 32;

/// Starts the loopback device of our network namespace.
pub(crate) fn start_loopback() -> io::Result<()> {
    let mut message = Vec::with_capacity(MESSAGE_BYTES as usize);
    message.extend(MESSAGE_BYTES.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    // Number of the message, and of the sender: the kernel fills it in.
    message.extend([0; 8]);
    // Family and kind: any.
    message.extend([0; 4]);
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    // What is to be set, and which of it is meant.
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let to = NetlinkAddr::new(0, 0);
    sendto(kernel.as_raw_fd(), &message, &to, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let read = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match result_of(&answer[..read]) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// 0, or a negative error number.
fn result_of(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let result = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == ERROR).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_is_no_success() {
        assert_eq!(result_of(&[0; 8]), None);
        assert_eq!(result_of(&[0; 36]), None);
        let mut refused = [0; 36];
        refused[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert_eq!(result_of(&refused), Some(0));
        refused[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(result_of(&refused), Some(-1));
    }
}
