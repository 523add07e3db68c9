//! Tracked connections: keys, entries, states and timeouts. Pure: tables and clocks are the kernel programs' and the
//! agent's.
//!
//! Each port is a zone of its own. A key is written from its workload's side, so that both directions have the same one.
//! There is no window tracking: RST and FIN never end an entry, they shorten its timeout.

use crate::frame::protocol;
use crate::key::FlowHead;
use crate::slot::SlotRef;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Part of a key that both families share.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct KeyTail {
    /// The workload's TCP, UDP or SCTP port; the identifier of an ICMP echo; 0 for other protocols.
    pub local_l4: u16,
    /// The other side's.
    pub remote_l4: u16,
    /// Index of the port that the workload is behind.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 1 for an ICMP echo that the other side asked: both may ask with the same identifier. Else 0.
    pub role: u8,
}

/// Key of a connection over IPv4.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct ConnectionKeyV4 {
    /// The workload's address.
    pub local: [u8; 4],
    /// The other side's.
    pub remote: [u8; 4],
    /// The rest.
    pub tail: KeyTail,
}

/// Key of a connection over IPv6. Its last 16 bytes are the key of one over IPv4.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct ConnectionKeyV6 {
    /// The workload's address.
    pub local: [u8; 16],
    /// The other side's.
    pub remote: [u8; 16],
    /// The rest.
    pub tail: KeyTail,
}

/// Packets and bytes of one direction. Not atomic: a direction is mostly one CPU's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Traffic {
    /// Packets that passed.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What is known of a connection, but its key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Connection {
    /// Decision for the workload's packets that are exactly like `head`; slot 0 for none.
    pub target: SlotRef,
    /// Of the flow key of those packets: with the connection's own key it is all of the flow key.
    pub head: FlowHead,
    /// Time of the last packet: see [`SEEN_SHIFT`].
    pub seen: u32,
    /// Policy epoch under which the opener's hook admitted the connection as new; 0 for none.
    pub opened: u32,
    /// By [`crate::policy::Hook`]: epoch under which that hook let established packets pass; 0 for none.
    pub passed: [u32; 2],
    /// A [`Phase`].
    pub phase: u8,
    /// Flags from [`BY_NETWORK`] on.
    pub flags: u8,
    /// Rule of the opener's hook that admitted the connection, or `acl::NO_RULE`.
    pub rule: u16,
    /// Zero.
    pub spare: u32,
    /// By [`crate::policy::Hook`].
    pub traffic: [Traffic; 2],
}

/// Entry of all tables.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Entry {
    /// What is known.
    pub connection: Connection,
    /// The key again (IPv4: its last 16 bytes): an element that is given to another connection while it is read is
    /// found by it.
    pub key: ConnectionKeyV6,
}

/// Connections of one tenant: entry of the map `quotas`, by the number of the tenant. Number 0 is no tenant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Quota {
    /// Connections that were established since the map was made. Only the kernel writes it.
    pub opened: u64,
    /// Where `opened` must stop. Only the agent writes it: what was opened when it last looked, and the quota less
    /// what lived then.
    pub limit: u64,
}

const _: () = assert!(size_of::<ConnectionKeyV4>() == 16);
const _: () = assert!(size_of::<ConnectionKeyV6>() == 40);
const _: () = assert!(size_of::<Entry>() == 128);
// The kernel puts 48 bytes in front of an element's key and value.
const _: () = assert!(48 + size_of::<ConnectionKeyV4>() + size_of::<Entry>() < 200);

/// The kernel's coarse monotonic clock in nanoseconds, shifted by this, is a [`Connection::seen`]: a unit is 1.07 s, so
/// that a busy entry is written once in that time.
pub const SEEN_SHIFT: u32 = 30;

/// A [`Connection::seen`] at this time of the kernel's monotonic clock, in nanoseconds.
#[inline(always)]
pub const fn seen_at(monotonic_ns: u64) -> u32 {
    (monotonic_ns >> SEEN_SHIFT) as u32
}

impl ConnectionKeyV6 {
    /// The key of a connection over IPv4, which is its last 16 bytes.
    pub const fn v4(&self) -> ConnectionKeyV4 {
        let [.., a, b, c, d, e, f, g, h] = self.remote;
        ConnectionKeyV4 {
            local: [a, b, c, d],
            remote: [e, f, g, h],
            tail: self.tail,
        }
    }
}

impl Connection {
    /// Whether it is none any more, at this [`seen_at`].
    #[inline(always)]
    pub const fn is_expired(&self, protocol: u8, now: u32) -> bool {
        now.wrapping_sub(self.seen) as i32 > timeout_units(protocol, self.phase, self.flags) as i32
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Its first packet was admitted. In the half-open table.
    Opening = 0,
    /// TCP: an answer was seen. In the half-open table.
    Answered = 1,
    /// Both sides take part. In the established table.
    Established = 2,
    /// TCP: both sides said that they are done. In the established table.
    Closing = 3,
}

/// Flag of [`Connection::flags`]: the network opened the connection, not the workload.
pub const BY_NETWORK: u8 = 1 << 0;
/// Flag, shifted by the sender's [`crate::policy::Hook`]: it sent FIN, and no payload since.
pub const FIN: u8 = 1 << 1;
/// Flag, shifted by the sender's hook: it sent RST, and the other side nothing else since.
pub const RST: u8 = 1 << 3;
const FIN_BOTH: u8 = FIN | FIN << 1;
const RST_ANY: u8 = RST | RST << 1;

/// FIN in the flags byte of a TCP header.
pub const TCP_FIN: u8 = 0x01;
/// SYN in the flags byte of a TCP header.
pub const TCP_SYN: u8 = 0x02;
/// RST in the flags byte of a TCP header.
pub const TCP_RST: u8 = 0x04;
/// ACK in the flags byte of a TCP header.
pub const TCP_ACK: u8 = 0x10;
/// What [`Segment`] has for a packet with payload, in a bit that no header has there.
const PAYLOAD: u16 = 0x100;

/// What a packet says of its connection's state: the flags byte of its TCP header, and whether there is payload.
/// Nothing for other protocols, and for later fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment(pub u16);

impl Segment {
    /// From the flags byte and the number of payload bytes.
    #[inline(always)]
    pub const fn new(flags: u8, payload: usize) -> Segment {
        let payload = if payload > 0 { PAYLOAD } else { 0 };
        Segment(flags as u16 | payload)
    }

    #[inline(always)]
    const fn has(self, flag: u8) -> bool {
        self.0 & flag as u16 != 0
    }

    /// Whether a connection may begin with it: SYN alone, or plain ACK for one that was there before (as Linux with
    /// `nf_conntrack_tcp_loose`).
    #[inline(always)]
    pub const fn may_open(self) -> bool {
        let flags = self.0 as u8 & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
        flags == TCP_SYN || flags == TCP_ACK
    }
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next [`Phase`].
    pub phase: u8,
    /// The next flags.
    pub flags: u8,
}

/// Whether the packet begins the connection anew: the opener's SYN on one that is reset or at its end.
#[inline(always)]
pub const fn reopens(phase: u8, flags: u8, is_reply: bool, segment: Segment) -> bool {
    let is_over = phase == Phase::Closing as u8 || flags & RST_ANY != 0;
    let is_syn = segment.has(TCP_SYN) && !segment.has(TCP_ACK) && !segment.has(TCP_RST);
    is_over && is_syn && !is_reply
}

/// Phase and flags after a packet that passed. `hook`: number of the packet's [`crate::policy::Hook`].
///
/// TCP counts as established with the opener's packet after the answer (the third of a handshake), so that SYNs to an
/// open port fill no quota; all else with the answer.
#[inline(always)]
pub const fn step(number: u8, phase: u8, flags: u8, hook: u8, segment: Segment) -> Step {
    let is_reply = hook != flags & BY_NETWORK;
    if number != protocol::TCP {
        let phase = if is_reply {
            Phase::Established as u8
        } else {
            phase
        };
        return Step { phase, flags };
    }
    let (fin, rst) = (FIN << (hook & 1), RST << (hook & 1));
    let mut flags = flags;
    if segment.has(TCP_RST) {
        flags |= rst;
    } else {
        // The other side's RST didn't end this one.
        flags &= !(RST_ANY & !rst);
        if segment.has(TCP_FIN) {
            flags |= fin;
        } else if segment.0 & PAYLOAD != 0 {
            flags &= !fin;
        }
    }
    let is_plain = !segment.has(TCP_RST) && !segment.has(TCP_SYN);
    let phase = if phase == Phase::Opening as u8 && is_reply && !segment.has(TCP_RST) {
        Phase::Answered as u8
    } else if phase == Phase::Answered as u8 && !is_reply && is_plain {
        Phase::Established as u8
    } else if phase >= Phase::Established as u8 && flags & FIN_BOTH == FIN_BOTH {
        Phase::Closing as u8
    } else if phase == Phase::Closing as u8 {
        Phase::Established as u8
    } else {
        phase
    };
    Step { phase, flags }
}

/// Seconds after its last packet at which a connection is none any more: Linux's numbers. One side's FIN counts as
/// Linux's FIN_WAIT.
#[inline(always)]
pub const fn timeout_secs(number: u8, phase: u8, flags: u8) -> u32 {
    if number == protocol::TCP {
        return if flags & RST_ANY != 0 {
            10
        } else if phase == Phase::Opening as u8 {
            120
        } else if phase == Phase::Answered as u8 {
            60
        } else if flags & FIN_BOTH != 0 {
            120
        } else {
            432_000
        };
    }
    if number == protocol::UDP {
        return if phase < Phase::Established as u8 {
            30
        } else {
            120
        };
    }
    if number == protocol::ICMP || number == protocol::ICMPV6 {
        return 30;
    }
    600
}

/// The same in units of [`Connection::seen`], rounded up.
#[inline(always)]
pub const fn timeout_units(number: u8, phase: u8, flags: u8) -> u32 {
    let nanoseconds = timeout_secs(number, phase, flags) as u64 * 1_000_000_000;
    (nanoseconds >> SEEN_SHIFT) as u32 + 1
}

#[cfg(test)]
mod tests;
