//! Packet sockets (packet(7)): whole frames of one interface, both ways, for watches and hand-made frames.
//! Raw sockets (raw(7)): the GRE that reaches a host's own stack.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};

use super::judge::Direction;
use super::namespace::Namespace;

/// Bytes of each frame that a socket reads: tunnel headers, and all headers of the frame inside.
pub const SNAP_LEN: usize = 192;
/// Frames that come while nobody reads wait here.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// A frame as it was read: its first bytes.
pub struct Received<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// Its first [`SNAP_LEN`] bytes.
    pub bytes: &'a [u8],
    /// Its length on the wire.
    pub wire_len: usize,
}

impl PacketSocket {
    /// Opens a socket on an interface, which must be there.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<PacketSocket> {
        let index = namespace.interface_index(interface)?;
        namespace
            .enter(|| Ok(open(index)?))
            .with_context(|| format!("packet socket on {interface} in {}", namespace.name()))
    }

    /// How long [`receive`](Self::receive) waits for a frame.
    /// Opens one on an interface of the calling thread's namespace.
    pub fn open_here(interface_index: u32) -> io::Result<PacketSocket> {
        open(interface_index)
    }

    /// How long [`PacketSocket::receive`] waits.
    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        let value = libc::timeval {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_usec: libc::suseconds_t::from(timeout.subsec_micros()),
        };
        Ok(set_option(
            &self.0,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            &value,
        )?)
    }

    /// Sends one whole frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("cannot send a frame");
        }
        Ok(())
    }

    /// Waits for one frame; none when time is up. An error means that the interface went away or down.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; SNAP_LEN]) -> io::Result<Option<Received<'a>>> {
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut from_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: both pointers are to live values of the given sizes; MSG_TRUNC only changes what is returned.
        let length = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_TRUNC,
                (&raw mut from).cast(),
                &raw mut from_len,
            )
        };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        let wire_len = length as usize;
        let sent = from.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Some(Received {
            direction: if sent {
                Direction::Sent
            } else {
                Direction::Received
            },
            bytes: &buffer[..wire_len.min(SNAP_LEN)],
            wire_len,
        }))
    }
}

/// What a host's own stack receives of GRE: packets that no program took before.
#[derive(Debug)]
pub struct GreListener(OwnedFd);

impl GreListener {
    /// Listens in a namespace, on all interfaces.
    pub fn open(namespace: &Namespace) -> Result<GreListener> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        namespace
            .enter(|| Ok(GreListener(socket(libc::AF_INET, kind, libc::IPPROTO_GRE)?)))
            .with_context(|| format!("raw socket in {}", namespace.name()))
    }

    /// Packets that came since the last call, but for tunnel packets: an agent probes hosts whose agent is away.
    pub fn count(&self) -> u64 {
        let mut buffer = [0u8; SNAP_LEN];
        let fd = self.0.as_raw_fd();
        let mut packets = 0;
        // SAFETY: the pointer and length are those of a live array.
        while unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) } >= 0 {
            packets += u64::from(!is_tunnel_packet(&buffer));
        }
        packets
    }
}

/// Whether an IPv4 packet is GRE with a key and an Ethernet frame in it.
fn is_tunnel_packet(packet: &[u8]) -> bool {
    let gre = usize::from(packet[0] & 0xf) * 4;
    packet.get(gre..gre + 4) == Some(&[0x20, 0x00, 0x65, 0x58])
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket() takes no pointers.
    let fd = unsafe { libc::socket(family, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open(interface_index: u32) -> io::Result<PacketSocket> {
    // Protocol 0 receives nothing before bind names protocol and interface.
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)?;
    set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        &RECEIVE_BUFFER_BYTES,
    )?;
    // SAFETY: all zeroes is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface_index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll of that length.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PacketSocket(socket))
}

fn set_option<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live value of that length, of the type that the option takes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
