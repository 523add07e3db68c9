//! What goes up to the agent, and what comes back with a held packet.

use crate::fragment::FragmentPorts;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Why a packet went up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MissReason {
    /// No flow matched.
    NoFlow = 0,
    /// A flow matched, but the TTL would end on the way.
    Ttl = 1,
    /// A flow matched, but the packet is too large for its way.
    Mtu = 2,
    /// A flow said [`crate::slot::Output::Agent`].
    Action = 3,
    /// The port's ingress chains said to refuse it and to tell its sender, the workload.
    Reject = 4,
    /// The egress chains of the port, to whose workload it was to go, said to refuse it and to tell its sender. The frame
    /// is as it would have been delivered.
    RejectEgress = 5,
    /// A tunnel probe, with its outer headers; its port is 0 and its generation the kind (see [`crate::probe`]).
    Probe = 8,
}

/// Precedes the whole packet in the perf event array. The packet's headers are extracted again by the agent
/// with the same function, so the key itself isn't sent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct MissHeader {
    /// Index of the ingress port.
    pub port: u16,
    /// A [`MissReason`].
    pub reason: u8,
    /// Generation of the ingress port's tunnel key.
    pub generation: u8,
    /// Bytes of the frame.
    pub frame_length: u32,
    /// Bytes of the frame that follow (samples are padded to 8, so the length is carried here).
    pub captured_length: u32,
    /// `skb->gso_size`; 0 for a packet that isn't a GSO packet.
    pub gso_size: u16,
    /// Tag that the kernel took out of the frame, with bit 12 for "present" (see `FlowHead::vlan`).
    pub vlan: u16,
    /// What the kernel knew of a later fragment's packet: it isn't in the bytes.
    pub fragment: FragmentPorts,
}

/// Flag of [`InjectPrefix::flags`]: the network made the packet itself, and no chain of its egress port judges it. So
/// does port 0.
pub const INJECT_MADE: u8 = 1 << 0;

/// First bytes of a frame written to the inject TAP. It takes the place of an Ethernet header, so that the
/// kernel takes the frame for IPv4; the real frame follows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct InjectPrefix {
    /// Slot to execute, host order.
    pub slot: [u8; 4],
    /// Generation that the slot must have, host order.
    pub generation: [u8; 4],
    /// Index of the ingress port, host order; 0 for packets that the network makes itself.
    pub port: [u8; 2],
    /// [`INJECT_MADE`] in the first byte; the second is zero.
    pub flags: [u8; 2],
    /// [`crate::frame::ETHERTYPE_IPV4`], network order.
    pub ethertype: [u8; 2],
}

const _: () = assert!(size_of::<MissHeader>() == 24);
const _: () = assert!(size_of::<InjectPrefix>() == crate::frame::ETHERNET_LEN);
