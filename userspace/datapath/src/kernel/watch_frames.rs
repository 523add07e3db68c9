//! A look at the host's own wires: frames as they enter and leave interfaces, before and behind the kernel programs.

use crate::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes of each frame that are looked at.
const LOOK_BYTES: usize = 512;
/// Frames of a busy host must wait somewhere until they are looked at.
const BUFFER_BYTES: usize = 4 << 20;
/// `PACKET_OUTGOING` of linux/if_packet.h.
pub(super) const PACKET_OUTGOING: u8 = 4;

/// A packet socket on all interfaces of the calling thread's network namespace.
pub struct FrameWatch {
    socket: OwnedFd,
}

/// A frame that was seen.
pub struct SeenFrame<'a> {
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Interface.
    pub ifindex: u32,
    /// Whether it left; else it came in.
    pub is_outgoing: bool,
}

impl FrameWatch {
    /// Begins to collect frames.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<FrameWatch, Error> {
        let what = |error: nix::errno::Errno| Error::io("watching frames", error);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .map_err(what)?;
        // A smaller buffer only loses more.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        Ok(FrameWatch { socket })
    }

    /// Hands frames over until `handle` says that it has seen enough, or the time is up.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn watch(
        &self,
        limit: Duration,
        mut handle: impl FnMut(SeenFrame<'_>) -> bool,
    ) -> Result<(), Error> {
        let what = |error: nix::errno::Errno| Error::io("watching frames", error);
        let end = Instant::now() + limit;
        let mut bytes = [0; LOOK_BYTES];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let mut files = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut files, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(what(error)),
            }
            while Instant::now() < end {
                let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes)
                {
                    Ok(received) => received,
                    Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => break,
                    Err(error) => return Err(what(error)),
                };
                let Some(from) = from else { continue };
                let frame = SeenFrame {
                    bytes: &bytes[..length.min(LOOK_BYTES)],
                    ifindex: from.ifindex() as u32,
                    is_outgoing: from.pkttype() == PACKET_OUTGOING,
                };
                if handle(frame) {
                    return Ok(());
                }
            }
        }
    }
}
