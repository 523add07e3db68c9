//! The two questions about qdiscs that aya doesn't ask: has a clsact any filter, and remove it.
//!
//! Called by [`super::filters`], on the packet thread: each is one message and its answer.

use crate::Error;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, send, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `TC_H_CLSACT`, and its parents of ingress and egress filters (linux/pkt_sched.h).
const CLSACT: u32 = 0xffff_fff1;
const FILTER_PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
/// Handle of a clsact qdisc.
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// More than one message of a dump; the kernel asks for no more than 32 KiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// `struct nlmsghdr` of linux/netlink.h.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// A message about a qdisc or filters: the header and `struct tcmsg` of linux/rtnetlink.h.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    header: Header,
    family: u32,
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Request {
    fn new(kind: u16, flags: i32, ifindex: u32, handle: u32, parent: u32) -> Request {
        Request {
            header: Header {
                length: size_of::<Request>() as u32,
                kind,
                flags: (libc::NLM_F_REQUEST | flags) as u16,
                sequence: 1,
                port: 0,
            },
            family: 0,
            ifindex,
            handle,
            parent,
            info: 0,
        }
    }
}

/// Whether an interface's clsact has a filter, whoever's.
pub fn has_filters(ifindex: u32) -> Result<bool, Error> {
    let what =
        |source: io::Error| Error::io(format!("listing filters of interface {ifindex}"), source);
    for parent in FILTER_PARENTS {
        let request = Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, ifindex, 0, parent);
        if ask(&request).map_err(what)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes an interface's clsact; one that isn't there, or whose interface isn't any more, is no error.
pub fn delete_clsact(ifindex: u32) -> Result<(), Error> {
    let request = Request::new(
        libc::RTM_DELQDISC,
        libc::NLM_F_ACK,
        ifindex,
        CLSACT_HANDLE,
        CLSACT,
    );
    match ask(&request) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
            let what = format!("removing the clsact qdisc of interface {ifindex}");
            Err(Error::io(what, error))
        }
        _ => Ok(()),
    }
}

/// Sends a request and reads to the end of its answer; true when an object came before it.
fn ask(request: &Request) -> io::Result<bool> {
    let socket: OwnedFd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
    let mut found = false;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let received = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let mut rest = &buffer[..received];
        while let Ok((header, body)) = Header::read_from_prefix(rest) {
            match i32::from(header.kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => {
                    let code = i32::read_from_prefix(body).map_or(0, |(code, _)| -code);
                    return match code {
                        0 => Ok(found),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
                _ => found = true,
            }
            let aligned = (header.length as usize).next_multiple_of(4);
            rest = rest
                .get(aligned.max(size_of::<Header>())..)
                .unwrap_or_default();
        }
    }
}
