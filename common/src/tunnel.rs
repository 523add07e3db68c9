//! The tunnel key: 24 bits that name the egress port, or a flood set, on the egress host.

use core::fmt;

/// Highest index a key can hold.
pub const INDEX_MAX: u16 = 0x7fff;
/// Bit 23: a state record precedes the frame.
pub const STATE_RECORD: u32 = 1 << 23;
/// Keys above this are none of ours.
pub const KEY_MAX: u32 = 0x00ff_ffff;
/// Bytes in front of the inner frame: Ethernet, IPv4 and GRE with a key (RFC 2784, RFC 2890).
pub const ENCAP_LEN: usize = 14 + 20 + 8;
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
