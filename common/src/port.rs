//! Port and flood-set records: what a tunnel key's index, or an interface, stands for on this host.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PortKind {
    /// Nothing is bound.
    Free = 0,
    /// A port that is bound to an interface.
    Port = 1,
    /// A flood set: [`PortRecord::flood_list`].
    FloodSet = 2,
}

/// How a frame reaches the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Delivery {
    /// `bpf_redirect`: tap and all else.
    Plain = 0,
    /// `bpf_redirect_peer`: veth. Into a tap it would lose every frame.
    Peer = 1,
}

/// Flag of [`PortRecord::flags`]: the interface takes frames that XDP redirects to it, and the far end receives them.
pub const PORT_XDP: u8 = 1 << 0;
/// Flag of [`PortRecord::flags`]: also those of more than one buffer.
pub const PORT_XDP_FRAGS: u8 = 1 << 1;

/// One record of the port array. Written by the agent, in place: each field is read at once by itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct PortRecord {
    /// A [`PortKind`].
    pub kind: u8,
    /// Generation of the tunnel key.
    pub generation: u8,
    /// A [`Delivery`].
    pub delivery: u8,
    /// [`PORT_XDP`], [`PORT_XDP_FRAGS`].
    pub flags: u8,
    /// Interface of a port; 0 while it is waiting for one.
    pub ifindex: u32,
    /// Masks that flows of this ingress port use in the IPv4 family, a bit for each.
    pub masks_v4: u64,
    /// Masks that flows of this ingress port use in IPv6.
    pub masks_v6: u64,
    /// Version of the port's policy: cache entries of another one aren't used.
    pub epoch: u32,
    /// Flood list of a flood set.
    pub flood_list: u32,
}

/// Which port an interface belongs to: entry `ifindex % INTERFACES_MAX`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct InterfaceRecord {
    /// Full interface index; another one's entry is none.
    pub ifindex: u32,
    /// Index of the port.
    pub port: u32,
}

/// Packets and bytes of one port on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct PortCounters {
    /// Packets that the workload sent.
    pub ingress_packets: u64,
    /// Bytes that the workload sent.
    pub ingress_bytes: u64,
    /// Packets delivered to the workload.
    pub egress_packets: u64,
    /// Bytes delivered to the workload.
    pub egress_bytes: u64,
}

/// Token bucket of a port's misses.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct TokenBucket {
    /// `bpf_ktime_get_ns` at which the bucket was last filled.
    pub filled_ns: u64,
    /// Tokens left, in nanoseconds of the rate.
    pub credit_ns: u64,
}

const _: () = assert!(size_of::<PortRecord>() == 32);
const _: () = assert!(size_of::<InterfaceRecord>() == 8);
