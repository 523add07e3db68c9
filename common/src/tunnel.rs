//! The tunnel key: 24 bits that name the egress port, or a flood set, on the egress host.

use crate::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, protocol};
use crate::peer::AddressBytes;
use core::fmt;

/// Highest index a key can hold.
pub const INDEX_MAX: u16 = 0x7fff;
/// Bit 23: a state record precedes the frame.
pub const STATE_RECORD: u32 = 1 << 23;
/// Keys above this are none of ours.
pub const KEY_MAX: u32 = 0x00ff_ffff;
/// Bytes of a GRE header with a key (RFC 2784, RFC 2890).
pub const GRE_LEN: usize = 8;
/// Bytes in front of the inner frame on an IPv4 underlay: Ethernet, IPv4 and GRE with a key.
pub const ENCAP_LEN_V4: usize = 14 + 20 + GRE_LEN;
/// Bytes in front of the inner frame on an IPv6 underlay: Ethernet, IPv6 and GRE with a key.
pub const ENCAP_LEN_V6: usize = 14 + 40 + GRE_LEN;
/// GRE flags and version with only the key bit set (RFC 2890).
pub const GRE_FLAGS_KEY: u16 = 0x2000;
/// GRE protocol type of transparent Ethernet bridging.
pub const GRE_PROTOCOL_ETHERNET: u16 = 0x6558;

/// An index with its generation. `Display` is `INDEX.GENERATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelKey {
    /// Index into the egress host's array of port and flood-set records; 0 is control and probes.
    pub index: u16,
    /// Raised at each bind.
    pub generation: u8,
}

impl TunnelKey {
    /// The key's 24 bits, without a state record.
    pub const fn bits(self) -> u32 {
        (((self.index & INDEX_MAX) as u32) << 8) | self.generation as u32
    }

    /// The key in 24 bits; the state bit is ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> TunnelKey {
        TunnelKey {
            index: ((bits >> 8) & INDEX_MAX as u32) as u16,
            generation: (bits & 0xff) as u8,
        }
    }
}

impl fmt::Display for TunnelKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.index, self.generation)
    }
}

/// The outer headers of a packet that could be a tunnel packet: keyed GRE of Ethernet frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Underlay address of the sender.
    pub src: AddressBytes,
    /// Underlay address that it is for.
    pub dst: AddressBytes,
    /// TOS or traffic class.
    pub tos: u8,
    /// All 32 bits of the GRE key.
    pub key: u32,
    /// Bytes in front of the inner frame: [`ENCAP_LEN_V4`] or [`ENCAP_LEN_V6`].
    pub inner_offset: usize,
}

impl Outer {
    /// The outer headers of a frame; none for what can't be a tunnel packet of ours: other protocols, fragments, IPv4
    /// with options, IPv6 with extension headers, GRE of other kinds.
    #[inline(always)]
    pub fn parse<F: Frame + ?Sized>(frame: &F) -> Option<Outer> {
        let ethertype = frame.number(12)?;
        if ethertype == ETHERTYPE_IPV4 {
            Outer::over_ipv4(frame)
        } else if ethertype == ETHERTYPE_IPV6 {
            Outer::over_ipv6(frame)
        } else {
            None
        }
    }

    #[inline(always)]
    fn over_ipv4<F: Frame + ?Sized>(frame: &F) -> Option<Outer> {
        let [version, tos, _, _, _, _, f0, f1, _, number, ..] = frame.bytes::<12>(ETHERNET_LEN)?;
        let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
        if number != protocol::GRE || version != 0x45 || is_fragment {
            return None;
        }
        let key = gre_key(frame, ENCAP_LEN_V4 - GRE_LEN)?;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = frame.bytes::<8>(ETHERNET_LEN + 12)?;
        Some(Outer {
            src: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, s0, s1, s2, s3],
            dst: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, d0, d1, d2, d3],
            tos,
            key,
            inner_offset: ENCAP_LEN_V4,
        })
    }

    #[inline(always)]
    fn over_ipv6<F: Frame + ?Sized>(frame: &F) -> Option<Outer> {
        let [first, second, _, _, _, _, number, _] = frame.bytes::<8>(ETHERNET_LEN)?;
        if number != protocol::GRE || first >> 4 != 6 {
            return None;
        }
        Some(Outer {
            key: gre_key(frame, ENCAP_LEN_V6 - GRE_LEN)?,
            src: frame.bytes::<16>(ETHERNET_LEN + 8)?,
            dst: frame.bytes::<16>(ETHERNET_LEN + 24)?,
            tos: (first << 4) | (second >> 4),
            inner_offset: ENCAP_LEN_V6,
        })
    }
}

/// The key of a GRE header that has nothing else and carries Ethernet frames.
#[inline(always)]
fn gre_key<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u32> {
    let [g0, g1, p0, p1, k0, k1, k2, k3] = frame.bytes::<8>(offset)?;
    let is_ours = u16::from_be_bytes([g0, g1]) == GRE_FLAGS_KEY
        && u16::from_be_bytes([p0, p1]) == GRE_PROTOCOL_ETHERNET;
    is_ours.then(|| u32::from_be_bytes([k0, k1, k2, k3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_bits() {
        let key = TunnelKey {
            index: 0x1234,
            generation: 0x56,
        };
        assert_eq!(key.bits(), 0x0012_3456);
        assert_eq!(TunnelKey::from_bits(key.bits() | STATE_RECORD), key);
    }
}
