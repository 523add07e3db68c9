//! The flow key: what a packet is matched by.
//!
//! One layout serves both families: the first 32 bytes of a [`FlowKey`] are the [`FlowKeyV4`] of an IPv4, ARP
//! or non-IP packet; IPv6 uses all 64. A mask has the key's type: a bit that is set is matched.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Present bit of [`FlowHead::vlan`]; the low 12 bits are the VLAN id.
pub const VLAN_PRESENT: u16 = 0x1000;

/// The network protocol that a key's address fields belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Network {
    /// Neither of the others: `l4_src` holds the Ethernet type.
    Other = 0,
    /// IPv4.
    Ipv4 = 1,
    /// ARP for IPv4 over Ethernet (RFC 826): `protocol` is the operation, the addresses are SPA and TPA.
    Arp = 2,
    /// IPv6.
    Ipv6 = 3,
}

/// Which piece of an IP packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet.
    Whole = 0,
    /// The first fragment, which has the L4 header.
    First = 1,
    /// A later fragment, which has none: its L4 ports are 0.
    Later = 2,
}

/// Mask of the network bits in [`FlowHead::class`].
pub const CLASS_NETWORK: u8 = 0x0c;
/// Mask of the fragment bits in [`FlowHead::class`].
pub const CLASS_FRAGMENT: u8 = 0x03;
/// Mask of the stage bits in [`FlowHead::class`].
pub const CLASS_STAGE: u8 = 0xf0;

/// The class byte of a packet: stage in bits 7-4, network in 3-2, fragment in 1-0.
pub const fn class(stage: u8, network: Network, fragment: Fragment) -> u8 {
    (stage << 4) | ((network as u8) << 2) | fragment as u8
}

/// What both families share. All multi-byte numbers are in the host's byte order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowHead {
    /// Index of the ingress port on this host.
    pub port: u16,
    /// Stage, network and fragment: see [`class`].
    pub class: u8,
    /// 0 in a packet's key and in a mask; in the megaflow table the number of the mask.
    pub mask_id: u8,
    /// VLAN id and [`VLAN_PRESENT`]; 0 without a tag.
    pub vlan: u16,
    /// IP protocol, or ARP operation.
    pub protocol: u8,
    /// IPv4 TOS or IPv6 traffic class.
    pub tos: u8,
    /// Ethernet source.
    pub src_mac: [u8; 6],
    /// Ethernet destination.
    pub dst_mac: [u8; 6],
    /// TCP, UDP or SCTP source port; ICMP type (high byte) and code; Ethernet type for [`Network::Other`].
    pub l4_src: u16,
    /// TCP, UDP or SCTP destination port; ICMP echo identifier.
    pub l4_dst: u16,
}

/// Exact key of IPv4, ARP and non-IP packets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowKeyV4 {
    /// What both families share.
    pub head: FlowHead,
    /// IPv4 source, or ARP sender address.
    pub src: [u8; 4],
    /// IPv4 destination, or ARP target address.
    pub dst: [u8; 4],
}

/// Exact key of any packet. See the module's text for how IPv4 addresses lie in it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// What both families share.
    pub head: FlowHead,
    /// IPv6 source; in the IPv4 family source (0..4) and destination (4..8).
    pub src: [u8; 16],
    /// IPv6 destination; zero in the IPv4 family.
    pub dst: [u8; 16],
    /// Zero.
    pub spare: [u8; 8],
}

const _: () = assert!(size_of::<FlowHead>() == 24);
const _: () = assert!(size_of::<FlowKeyV4>() == 32 && align_of::<FlowKeyV4>() == 8);
const _: () = assert!(size_of::<FlowKey>() == 64 && align_of::<FlowKey>() == 8);

impl FlowHead {
    /// The network protocol.
    #[inline(always)]
    pub const fn network(&self) -> Network {
        match (self.class & CLASS_NETWORK) >> 2 {
            1 => Network::Ipv4,
            2 => Network::Arp,
            3 => Network::Ipv6,
            _ => Network::Other,
        }
    }

    /// Which fragment.
    pub const fn fragment(&self) -> Fragment {
        match self.class & CLASS_FRAGMENT {
            1 => Fragment::First,
            2 => Fragment::Later,
            _ => Fragment::Whole,
        }
    }

    /// The stage of the pipeline that this key is looked up in; 0 is the first.
    pub const fn stage(&self) -> u8 {
        self.class >> 4
    }
}

impl FlowKey {
    /// The first 32 bytes: the key of the IPv4 family.
    #[inline(always)]
    pub fn v4(&self) -> FlowKeyV4 {
        let [a, b, c, d, e, f, g, h, ..] = self.src;
        FlowKeyV4 {
            head: self.head,
            src: [a, b, c, d],
            dst: [e, f, g, h],
        }
    }

    /// IPv4 source or ARP sender address.
    pub fn src_v4(&self) -> [u8; 4] {
        self.v4().src
    }

    /// IPv4 destination or ARP target address.
    pub fn dst_v4(&self) -> [u8; 4] {
        self.v4().dst
    }

    /// Sets the IPv4 source or ARP sender address (or their mask).
    #[inline(always)]
    pub fn set_src_v4(&mut self, address: [u8; 4]) {
        let [a, b, c, d] = address;
        (self.src[0], self.src[1], self.src[2], self.src[3]) = (a, b, c, d);
    }

    /// Sets the IPv4 destination or ARP target address (or their mask).
    #[inline(always)]
    pub fn set_dst_v4(&mut self, address: [u8; 4]) {
        let [a, b, c, d] = address;
        (self.src[4], self.src[5], self.src[6], self.src[7]) = (a, b, c, d);
    }

    /// The bits of `self` that are set in `mask`; `mask_id` becomes that of neither.
    pub fn masked(&self, mask: &FlowKey) -> FlowKey {
        let mut masked = *self;
        for (byte, bits) in masked.as_mut_bytes().iter_mut().zip(mask.as_bytes()) {
            *byte &= *bits;
        }
        masked
    }

    /// Whether `packet` agrees with `self` on every bit of `mask`.
    pub fn matches(&self, mask: &FlowKey, packet: &FlowKey) -> bool {
        self.masked(mask) == packet.masked(mask)
    }
}
