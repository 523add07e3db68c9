//! A look-out for one marked packet at one interface: a packet socket whose filter lets nothing else in, so that it
//! costs nothing however busy the interface is, and loses nothing.

use super::ifindex_of;
use super::inject::is_running;
use super::watch_frames::PACKET_OUTGOING;
use crate::{Error, MarkWatch, Sighting};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, recvfrom, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_LEN};

/// Frames that one look takes at most: more than these can only be copies.
const FRAMES_PER_LOOK_MAX: usize = 64;
/// Instruction codes of linux/filter.h.
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_WORD_BEHIND_X: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
/// `X = 4 * (byte & 15)`: the length of an IPv4 header.
const LOAD_X_IPV4_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// See the module's text.
pub struct InterfaceWatch {
    interface: String,
    socket: OwnedFd,
    seen: Sighting,
}

impl InterfaceWatch {
    /// Begins to look out for `mark`: the four bytes behind the first four of an ICMP or TCP header.
    ///
    /// # Errors
    /// When there is no such interface; without CAP_NET_RAW.
    pub fn open(interface: &str, mark: u32) -> Result<InterfaceWatch, Error> {
        let what = |error: Errno| Error::io(format!("watching {interface}"), error);
        let ifindex = ifindex_of(interface)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Of no protocol it receives nothing yet: the filter comes first.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(what)?;
        let mut program = filter(mark);
        let program = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the option's value is a sock_fprog that points to as many instructions as it says; the kernel copies
        // them.
        let attached = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                std::ptr::from_ref(&program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        };
        Errno::result(attached).map_err(what)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: a sockaddr_ll of the length that is said.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        Errno::result(bound).map_err(what)?;
        Ok(InterfaceWatch {
            interface: interface.to_owned(),
            socket,
            seen: Sighting::default(),
        })
    }
}

impl MarkWatch for InterfaceWatch {
    fn look(&mut self) -> Result<Sighting, Error> {
        let what = |error: Errno| Error::io(format!("watching {}", self.interface), error);
        let mut bytes = [0; 1];
        for _ in 0..FRAMES_PER_LOOK_MAX {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes) {
                Ok((_, Some(from))) if from.pkttype() == PACKET_OUTGOING => {
                    self.seen.went_out = true;
                }
                Ok(_) => self.seen.was_answered = true,
                Err(Errno::EAGAIN) => break,
                // The interface went down, or away; what was seen was seen.
                Err(Errno::ENETDOWN | Errno::EINTR) => {}
                Err(error) => return Err(what(error)),
            }
        }
        self.seen.is_up = is_running(&self.interface);
        Ok(self.seen)
    }
}

/// Lets in IP packets with the mark, or with a TCP acknowledgement of it.
fn filter(mark: u32) -> [libc::sock_filter; 14] {
    const REJECT: u8 = 12;
    const ACCEPT: u8 = 13;
    let step = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // Jumps are counted from the next instruction.
    let branch = |at: u8, k: u32, equal: u8, other: u8| libc::sock_filter {
        code: IF_EQUAL as u16,
        jt: equal - at - 1,
        jf: other - at - 1,
        k,
    };
    let next = mark.wrapping_add(1);
    let l3 = ETHERNET_LEN as u32;
    let l4_v6 = l3 + IPV6_LEN as u32;
    [
        step(LOAD_HALF, 12),
        branch(1, ETHERTYPE_IPV4.into(), 2, 7),
        step(LOAD_X_IPV4_LENGTH, l3),
        step(LOAD_WORD_BEHIND_X, l3 + 4),
        branch(4, mark, ACCEPT, 5),
        step(LOAD_WORD_BEHIND_X, l3 + 8),
        branch(6, next, ACCEPT, REJECT),
        branch(7, ETHERTYPE_IPV6.into(), 8, REJECT),
        step(LOAD_WORD, l4_v6 + 4),
        branch(9, mark, ACCEPT, 10),
        step(LOAD_WORD, l4_v6 + 8),
        branch(11, next, ACCEPT, REJECT),
        step(RETURN, 0),
        step(RETURN, u32::from(u16::MAX)),
    ]
}
