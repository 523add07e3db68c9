//! Underlay records: how to reach a remote host. Kept by the agent from the kernel's routes and neighbours.
//!
//! A record is never changed under its readers: each index has [`PEER_COPIES`] records and a version that says
//! which of them holds (see [`place`]). A change is written into the next one, then the version is raised. A
//! reader would have to be overtaken by so many changes of one record, while it handles one packet, to see half a
//! header.

use core::net::IpAddr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flag of [`PeerRecord::flags`]: the record is in use.
pub const PEER_VALID: u16 = 1 << 0;
/// Flag of [`PeerRecord::flags`]: the Ethernet addresses of the outer header are current; without it the
/// kernel resolves them packet by packet (`bpf_redirect_neigh`).
pub const PEER_RESOLVED: u16 = 1 << 1;
/// Flag of [`PeerRecord::flags`]: the outer header is IPv6. All records of a host agree on it.
pub const PEER_IPV6: u16 = 1 << 2;

/// Records for each index.
pub const PEER_COPIES: u32 = 4;

/// Position of the record that holds, in the array of records.
#[inline(always)]
pub const fn place(index: u32, version: u32) -> u32 {
    index * PEER_COPIES + version % PEER_COPIES
}

/// An underlay address as records and maps hold it: IPv6 in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291,
/// 2.5.5.2).
pub type AddressBytes = [u8; 16];

/// [`AddressBytes`] of an address.
pub const fn address_bytes(address: IpAddr) -> AddressBytes {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The outer header towards one remote host, complete but for length, checksum, key and what is copied from the
/// inner header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct PeerRecord {
    /// Underlay interface.
    pub ifindex: u32,
    /// MTU of the way to the host, in bytes of outer IP.
    pub mtu: u16,
    /// [`PEER_VALID`], [`PEER_RESOLVED`], [`PEER_IPV6`].
    pub flags: u16,
    /// Sum of the outer IPv4 header's words with TOS, length and checksum 0, folded to 16 bits; 0 for IPv6.
    pub checksum_base: u32,
    /// Inner MTU to which the MSS of TCP is lowered, in bytes of IP; 0 leaves it alone.
    pub clamp_mtu: u16,
    /// Bits of the inner TOS or traffic class that are copied: ECN always (RFC 6040), DSCP on request.
    pub tos_mask: u8,
    /// Zero.
    pub spare: u8,
    /// Own underlay address.
    pub src: AddressBytes,
    /// The host's underlay address.
    pub dst: AddressBytes,
    /// Outer Ethernet destination: the host's, or the gateway's.
    pub dst_mac: [u8; 6],
    /// Outer Ethernet source.
    pub src_mac: [u8; 6],
    /// Zero.
    pub spare_end: [u8; 4],
}

// One cache line.
const _: () = assert!(size_of::<PeerRecord>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_round_within_the_index() {
        let places = [0, 1, 3, 4, u32::MAX].map(|version| place(5, version));
        assert_eq!(places, [20, 21, 23, 20, 23]);
    }

    #[test]
    fn ipv4_lies_at_the_end() {
        let bytes = address_bytes(IpAddr::from([172, 30, 1, 2]));
        assert_eq!(bytes[10..], [0xff, 0xff, 172, 30, 1, 2]);
        assert_eq!(bytes[..10], [0; 10]);
    }
}
