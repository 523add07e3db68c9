//! Later fragments have no L4 header: what the first one had is kept until its packet must be complete.

use crate::key::{FlowHead, FlowKey, Fragment};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names a packet that was cut into fragments: RFC 791 3.2 for IPv4, RFC 8200 4.5 for IPv6, and the port and tag by
/// which it came.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// As in [`FlowKey::src`].
    pub src: [u8; 16],
    /// As in [`FlowKey::dst`].
    pub dst: [u8; 16],
    /// Identification.
    pub id: u32,
    /// Index of the ingress port.
    pub port: u16,
    /// As in [`FlowHead::vlan`].
    pub vlan: u16,
    /// IPv4's protocol. 0 for IPv6, where only the first fragment's counts.
    pub protocol: u8,
    /// Number of a [`crate::Network`].
    pub network: u8,
    /// Zero.
    pub spare: [u8; 6],
}

/// What the first fragment had.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FragmentPorts {
    /// As in [`FlowHead::l4_src`].
    pub l4_src: u16,
    /// As in [`FlowHead::l4_dst`].
    pub l4_dst: u16,
    /// The upper-layer protocol.
    pub protocol: u8,
    /// 1, or 0 where no first fragment is known.
    pub is_known: u8,
    /// [`FragmentKey::check`].
    pub check: u16,
}

/// An entry of the fragment table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FragmentEntry {
    /// What later fragments take over.
    pub ports: FragmentPorts,
    /// `bpf_ktime_get_ns` when the first fragment came.
    pub seen_ns: u64,
}

const _: () = assert!(size_of::<FragmentKey>() == 48);
const _: () = assert!(size_of::<FragmentEntry>() == 16);

impl FragmentKey {
    /// The packet that a fragment with this key and identification is part of.
    #[inline(always)]
    pub fn of(key: &FlowKey, id: u32) -> FragmentKey {
        let network = key.head.network() as u8;
        let is_v6 = network == crate::Network::Ipv6 as u8;
        FragmentKey {
            src: key.src,
            dst: key.dst,
            id,
            port: key.head.port,
            vlan: key.head.vlan,
            protocol: if is_v6 { 0 } else { key.head.protocol },
            network,
            spare: [0; 6],
        }
    }
}

impl FragmentKey {
    /// A number that tells packets of one time apart: an entry that is read while the kernel gives its memory to another
    /// packet is found by it.
    #[inline(always)]
    pub fn check(&self) -> u16 {
        (self.id ^ (self.id >> 16)) as u16 ^ self.port
    }
}

impl FragmentPorts {
    /// What later fragments take over from a first one.
    #[inline(always)]
    pub fn of(head: &FlowHead, check: u16) -> FragmentPorts {
        FragmentPorts {
            l4_src: head.l4_src,
            l4_dst: head.l4_dst,
            protocol: head.protocol,
            is_known: 1,
            check,
        }
    }

    /// Puts them into a later fragment's key; other keys, and what isn't known, change nothing.
    #[inline(always)]
    pub fn complete(&self, head: &mut FlowHead) {
        if self.is_known != 0 && head.fragment() as u8 == Fragment::Later as u8 {
            head.l4_src = self.l4_src;
            head.l4_dst = self.l4_dst;
            head.protocol = self.protocol;
        }
    }
}
