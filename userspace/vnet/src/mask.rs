//! The bits of a packet's key that a decision looked at.
//!
//! Owned by one simulation; becomes [`crate::Outcome::mask`]. Whoever reads a header field for a decision
//! goes through the walk, which records it here: nothing else may read the key.

use weft_common::FlowKey;
use weft_common::key::{CLASS_FRAGMENT, CLASS_NETWORK, CLASS_STAGE, VLAN_PRESENT};

/// A mask under construction.
#[derive(Clone, Copy, Debug)]
pub struct Mask(FlowKey);

impl Default for Mask {
    /// What every flow matches: ingress port, stage and network protocol.
    fn default() -> Self {
        let mut key = FlowKey::default();
        key.head.port = u16::MAX;
        key.head.class = CLASS_STAGE | CLASS_NETWORK;
        Mask(key)
    }
}

impl Mask {
    /// The mask so far.
    pub fn key(&self) -> FlowKey {
        self.0
    }

    /// Whole source MAC.
    pub fn src_mac(&mut self) {
        self.0.head.src_mac = [0xff; 6];
    }

    /// Whole destination MAC.
    pub fn dst_mac(&mut self) {
        self.0.head.dst_mac = [0xff; 6];
    }

    /// Whether there is a VLAN tag, but not which.
    pub fn tagged(&mut self) {
        self.0.head.vlan |= VLAN_PRESENT;
    }

    /// IP protocol or ARP operation.
    pub fn protocol(&mut self) {
        self.0.head.protocol = u8::MAX;
    }

    /// Which fragment.
    pub fn fragment(&mut self) {
        self.0.head.class |= CLASS_FRAGMENT;
    }

    /// L4 source port, or ICMP type and code.
    pub fn l4_src(&mut self) {
        self.0.head.l4_src = u16::MAX;
    }

    /// Whole IPv4 source, or ARP sender address.
    pub fn src_v4(&mut self) {
        self.0.set_src_v4([0xff; 4]);
    }

    /// Bits of the IPv4 source.
    pub fn src_v4_bits(&mut self, bits: u32) {
        let seen = u32::from_be_bytes(self.0.src_v4()) | bits;
        self.0.set_src_v4(seen.to_be_bytes());
    }

    /// Leading bits of the IPv6 source.
    pub fn src_v6(&mut self, length: u8) {
        widen(&mut self.0.src, length);
    }

    /// Leading bits of the IPv6 destination.
    pub fn dst_v6(&mut self, length: u8) {
        widen(&mut self.0.dst, length);
    }

    /// Bits of the IPv4 destination, or ARP target address.
    pub fn dst_v4(&mut self, bits: u32) {
        let seen = u32::from_be_bytes(self.0.dst_v4()) | bits;
        self.0.set_dst_v4(seen.to_be_bytes());
    }
}

/// Adds the leading bits to the mask of an IPv6 address.
fn widen(mask: &mut [u8; 16], length: u8) {
    let bits = u128::MAX
        .checked_shl(128 - u32::from(length.min(128)))
        .unwrap_or(0);
    *mask = (u128::from_be_bytes(*mask) | bits).to_be_bytes();
}

/// The mask of an IPv4 prefix of this length.
pub fn prefix_bits(length: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(length.min(32)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::prefix_bits;

    #[test]
    fn prefixes_have_their_bits() {
        assert_eq!(prefix_bits(0), 0);
        assert_eq!(prefix_bits(1), 0x8000_0000);
        assert_eq!(prefix_bits(24), 0xffff_ff00);
        assert_eq!(prefix_bits(32), u32::MAX);
    }
}
