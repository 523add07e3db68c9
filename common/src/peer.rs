//! Underlay records: how to reach a remote host. Kept by the agent from the kernel's routes and neighbours.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flag of [`PeerRecord::flags`]: the record is in use.
pub const PEER_VALID: u16 = 1 << 0;
/// Flag of [`PeerRecord::flags`]: the Ethernet addresses of the outer header are current; without it the
/// kernel resolves them packet by packet (`bpf_redirect_neigh`).
pub const PEER_RESOLVED: u16 = 1 << 1;

/// The outer header towards one remote host, complete but for length, checksum and key.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct PeerRecord {
    /// Underlay interface.
    pub ifindex: u32,
    /// MTU of the way to the host, in bytes of outer IP.
    pub mtu: u16,
    /// [`PEER_VALID`], [`PEER_RESOLVED`].
    pub flags: u16,
    /// Sum of the outer IPv4 header's words with length and checksum 0, folded to 16 bits.
    pub checksum_base: u32,
    /// Own underlay address, network order.
    pub src: [u8; 4],
    /// The host's underlay address, network order.
    pub dst: [u8; 4],
    /// Outer Ethernet destination: the host's, or the gateway's.
    pub dst_mac: [u8; 6],
    /// Outer Ethernet source.
    pub src_mac: [u8; 6],
}

const _: () = assert!(size_of::<PeerRecord>() == 32);
