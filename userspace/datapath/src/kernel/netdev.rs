//! What interfaces do with XDP, as the kernel says since Linux 6.3: generic netlink family `netdev`
//! (Documentation/netlink/specs/netdev.yaml).
//!
//! For a veth on the host this says whether the workload's end receives frames that are redirected to it: the flag
//! comes and goes with NAPI there (`veth_set_xdp_features` of Linux). Asked by `network`, on the agent's runtime: each
//! question is one message and its answer.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Flags of `enum netdev_xdp_act` (linux/netdev.h): native XDP.
pub const XDP_BASIC: u64 = 1 << 0;
/// Native XDP may redirect.
pub const XDP_REDIRECT: u64 = 1 << 1;
/// Takes frames that are redirected to it.
pub const XDP_TAKES: u64 = 1 << 2;
/// Takes frames of several buffers.
pub const XDP_TAKES_FRAGS: u64 = 1 << 6;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes (linux/genetlink.h).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;
/// `NETDEV_CMD_DEV_GET` and its attributes (linux/netdev.h).
const DEVICE_GET: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;
/// Bytes of `struct nlmsghdr` and of `struct genlmsghdr`.
const HEADER_LEN: usize = 16;
const GENERIC_LEN: usize = 4;
/// More than one message of an answer; the kernel asks for no more than 32 KiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024;

/// A conversation with the family.
pub struct Netdev {
    socket: OwnedFd,
    family: u16,
    /// What tells of changes.
    events: AsyncFd<OwnedFd>,
}

impl Netdev {
    /// Finds the family in the calling thread's network namespace, and listens to its changes.
    ///
    /// # Errors
    /// `ENOENT` where the kernel has no such family; outside of a runtime.
    pub fn open() -> io::Result<Netdev> {
        let socket = open_socket(SockFlag::empty())?;
        let (mut family, mut group) = (None, None);
        let request = message(CONTROL, 0, GET_FAMILY, FAMILY_NAME, b"netdev\0");
        ask(&socket, &request, |attributes| {
            family = find(attributes, FAMILY_ID).and_then(number);
            let groups = find(attributes, FAMILY_GROUPS).unwrap_or_default();
            group = Attributes(groups)
                .find(|(_, group)| find(group, GROUP_NAME) == Some(b"mgmt\0"))
                .and_then(|(_, group)| number(find(group, GROUP_ID)?));
        })?;
        let (Some(family), Some(group)) = (family, group) else {
            return Err(Errno::ENOENT.into());
        };
        let events = open_socket(SockFlag::SOCK_NONBLOCK)?;
        join(&events, group as libc::c_int)?;
        Ok(Netdev {
            socket,
            family: family as u16,
            // SAFETY: an `OwnedFd` stays the same open descriptor for as long as it lives.
            events: unsafe { AsyncFd::register_with_interest(events, Interest::READABLE)? },
        })
    }

    /// XDP flags of every interface, by index.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn features(&self) -> io::Result<HashMap<u32, u64>> {
        let mut found = HashMap::new();
        let request = message(self.family, libc::NLM_F_DUMP, DEVICE_GET, 0, &[]);
        ask(&self.socket, &request, |attributes| {
            let ifindex = find(attributes, DEVICE_IFINDEX).and_then(number);
            let features = find(attributes, DEVICE_XDP_FEATURES).and_then(number);
            if let (Some(ifindex), Some(features)) = (ifindex, features) {
                found.insert(ifindex as u32, features);
            }
        })?;
        Ok(found)
    }

    /// Waits until something changed. What changed isn't read: all of it is asked for again.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.events.readable().await?;
        let mut buffer = [0; 4096];
        loop {
            match recv(self.events.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // A full buffer is a change, too.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

/// XDP flags of one interface; none where the kernel can't say.
pub fn features_of(ifindex: u32) -> Option<u64> {
    let socket = open_socket(SockFlag::empty()).ok()?;
    let mut family = None;
    let request = message(CONTROL, 0, GET_FAMILY, FAMILY_NAME, b"netdev\0");
    ask(&socket, &request, |attributes| {
        family = find(attributes, FAMILY_ID).and_then(number);
    })
    .ok()?;
    let mut features = None;
    let value = ifindex.to_ne_bytes();
    let request = message(family? as u16, 0, DEVICE_GET, DEVICE_IFINDEX, &value);
    ask(&socket, &request, |attributes| {
        features = find(attributes, DEVICE_XDP_FEATURES).and_then(number);
    })
    .ok()?;
    features
}

fn open_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | flags,
        SockProtocol::NetlinkGeneric,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// Makes a socket hear of what is told to a group.
fn join(socket: &OwnedFd, group: libc::c_int) -> io::Result<()> {
    // SAFETY: the option is a `c_int`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const group).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// A request with one attribute, or none (0).
fn message(family: u16, flags: i32, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let mut body = vec![command, 1, 0, 0];
    if attribute != 0 {
        body.extend(((4 + value.len()) as u16).to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    // An answer ends with an acknowledgement, or with the end of the dump.
    let flags = (libc::NLM_F_REQUEST | flags | libc::NLM_F_ACK) as u16;
    let mut message = Vec::with_capacity(HEADER_LEN + body.len());
    message.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Sends a request and hands the attributes of each object in its answer to `take`.
fn ask(socket: &OwnedFd, request: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let mut buffer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let received = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let mut rest = buffer.get(..received).unwrap_or_default();
        while let Some((length, kind)) = header(rest) {
            let body = rest.get(HEADER_LEN..length).unwrap_or_default();
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(0, |code| i32::from_ne_bytes(*code));
                    return match code {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => take(body.get(GENERIC_LEN..).unwrap_or_default()),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Length and type of the message that these bytes begin with.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (length >= HEADER_LEN && length <= bytes.len()).then_some((length, kind))
}

/// Type and value of each attribute (`struct nlattr`) of a message.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        // The two upper bits are flags.
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(attributes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// A number of 2, 4 or 8 bytes.
fn number(value: &[u8]) -> Option<u64> {
    match value.len() {
        2 => Some(u16::from_ne_bytes(*value.first_chunk()?).into()),
        4 => Some(u32::from_ne_bytes(*value.first_chunk()?).into()),
        8 => Some(u64::from_ne_bytes(*value.first_chunk()?)),
        _ => None,
    }
}
