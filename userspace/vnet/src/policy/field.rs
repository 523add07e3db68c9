//! The fields of a packet that are numbers: the key that a packet has in each, and the keys that a test allows.
//!
//! No state. `acl.rs` looks keys up in the kernel's way; `compile.rs` asks what a test allows.

use super::chain::{FragmentPolicy, IcmpMatch, MacMatch, PortRange, VlanMatch};
use super::flatten::{Primitive, Test};
use crate::mac::Mac;
use weft_common::acl::{FieldKind, Keys, Service, Upper, mac_number, upper_key};
use weft_common::key::VLAN_PRESENT;

/// A field whose values are classes by ranges of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    /// Number of a [`Service`], or 0.
    Service,
    Ethertype,
    /// In the bits of a mask.
    SrcMac(Mac),
    DstMac(Mac),
    /// As in the flow key.
    Vlan,
    /// [`NOT_IP`] for what isn't IP.
    Tos,
    /// [`NOT_IP`] for what isn't IP.
    Protocol,
    /// What the number is (an [`Upper`]) in bits 16 and 17, and the key's `l4_src`.
    UpperSrc,
    /// The same with `l4_dst`.
    UpperDst,
    /// As in the flow key.
    Fragment,
    /// Number of a [`super::Connection`].
    State,
}

/// First and last key.
pub(super) type Range = (u64, u64);

impl Field {
    /// The packet's key.
    pub(super) fn key(self, keys: &Keys) -> u64 {
        keys.fields[self.kind() as usize] & self.mask()
    }

    /// Which of the packet's fields.
    pub(super) fn kind(self) -> FieldKind {
        match self {
            Field::Service => FieldKind::Service,
            Field::Ethertype => FieldKind::Ethertype,
            Field::SrcMac(_) => FieldKind::SrcMac,
            Field::DstMac(_) => FieldKind::DstMac,
            Field::Vlan => FieldKind::Vlan,
            Field::Tos => FieldKind::Tos,
            Field::Protocol => FieldKind::Protocol,
            Field::UpperSrc => FieldKind::UpperSrc,
            Field::UpperDst => FieldKind::UpperDst,
            Field::Fragment => FieldKind::Fragment,
            Field::State => FieldKind::State,
        }
    }

    /// The bits of it that count, of 48.
    pub(super) fn mask(self) -> u64 {
        match self {
            Field::SrcMac(mask) | Field::DstMac(mask) => mac_number(mask.0),
            _ => u64::MAX >> 16,
        }
    }
}

/// The keys that a test allows, of which field; none for a test of addresses.
pub(super) fn ranges(test: &Test) -> Option<(Field, Vec<Range>)> {
    let one = |key: u64| (key, key);
    let found = match test {
        Test::Ethertype(list) => (
            Field::Ethertype,
            list.iter().map(|it| one(u64::from(*it))).collect(),
        ),
        Test::SrcMac(it) => (
            Field::SrcMac(it.mask),
            vec![one(MacMatch::bits(it.value, it.mask))],
        ),
        Test::DstMac(it) => (
            Field::DstMac(it.mask),
            vec![one(MacMatch::bits(it.value, it.mask))],
        ),
        Test::Vlan(VlanMatch::None) => (Field::Vlan, vec![one(0)]),
        Test::Vlan(VlanMatch::Id(id)) => (Field::Vlan, vec![one(u64::from(*id | VLAN_PRESENT))]),
        Test::Tos(list) => (
            Field::Tos,
            list.iter().map(|it| one(u64::from(*it))).collect(),
        ),
        Test::Protocol(list) => (
            Field::Protocol,
            list.iter().map(|it| one(u64::from(*it))).collect(),
        ),
        Test::Address(..) => return None,
        Test::SrcPort(list) => (Field::UpperSrc, list.iter().map(port_range).collect()),
        Test::DstPort(list) => (Field::UpperDst, list.iter().map(port_range).collect()),
        Test::Icmp(list) => (Field::UpperSrc, list.iter().flat_map(icmp_ranges).collect()),
        Test::Fragment(policy) => (
            Field::Fragment,
            vec![match policy {
                FragmentPolicy::Any => (0, u64::MAX),
                FragmentPolicy::Unfragmented => one(0),
                FragmentPolicy::First => one(1),
                FragmentPolicy::Later => one(2),
            }],
        ),
        Test::State(list) => (
            Field::State,
            list.iter().map(|it| one(*it as u64)).collect(),
        ),
    };
    Some(found)
}

/// The services whose packets a primitive rule may match.
pub(super) fn service_ranges(primitive: &Primitive) -> Vec<Range> {
    let named = Service::ALL
        .into_iter()
        .filter(|it| primitive.services & 1 << *it as u8 != 0);
    std::iter::once((0, 0))
        .chain(named.map(|it| (it as u64, it as u64)))
        .collect()
}

fn port_range(range: &PortRange) -> Range {
    (
        upper_key(Upper::Ports as u8, range.first),
        upper_key(Upper::Ports as u8, range.last),
    )
}

fn icmp_ranges(it: &IcmpMatch) -> [Range; 2] {
    let first = u16::from_be_bytes([it.kind, it.code.unwrap_or(0)]);
    let last = u16::from_be_bytes([it.kind, it.code.unwrap_or(0xff)]);
    [Upper::Icmp, Upper::Icmpv6]
        .map(|kind| (upper_key(kind as u8, first), upper_key(kind as u8, last)))
}
