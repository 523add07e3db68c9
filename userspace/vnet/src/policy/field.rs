//! The fields of a packet that are numbers: the key that a packet has in each, and the keys that a test allows.
//!
//! No state. `acl.rs` looks keys up in the kernel's way; `compile.rs` asks what a test allows.

use super::chain::{FragmentPolicy, IcmpMatch, MacMatch, PortRange, VlanMatch};
use super::flatten::{Primitive, Test};
use super::view::{Service, Upper, View};
use crate::mac::Mac;
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

/// Key of [`Field::Tos`] and [`Field::Protocol`] for what isn't IP.
const NOT_IP: u64 = 256;

/// First and last key.
pub(super) type Range = (u64, u64);

impl Field {
    /// The packet's key.
    pub(super) fn key(self, view: &View) -> u64 {
        let head = &view.key.head;
        let of_ip = |byte: u8| {
            if view.is_ip() {
                u64::from(byte)
            } else {
                NOT_IP
            }
        };
        let upper = |number: u16| match view.upper() {
            Upper::Other => 0,
            kind => upper_key(kind, number),
        };
        match self {
            Field::Service => Service::of(view).map_or(0, |it| it as u64),
            Field::Ethertype => u64::from(view.ethertype()),
            Field::SrcMac(mask) => MacMatch::bits(Mac(head.src_mac), mask),
            Field::DstMac(mask) => MacMatch::bits(Mac(head.dst_mac), mask),
            Field::Vlan => u64::from(head.vlan),
            Field::Tos => of_ip(head.tos),
            Field::Protocol => of_ip(head.protocol),
            Field::UpperSrc => upper(head.l4_src),
            Field::UpperDst => upper(head.l4_dst),
            Field::Fragment => head.fragment() as u64,
            Field::State => view.state as u64,
        }
    }
}

const fn upper_key(kind: Upper, number: u16) -> u64 {
    (kind as u64) << 16 | number as u64
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
        upper_key(Upper::Ports, range.first),
        upper_key(Upper::Ports, range.last),
    )
}

fn icmp_ranges(it: &IcmpMatch) -> [Range; 2] {
    let first = u16::from_be_bytes([it.kind, it.code.unwrap_or(0)]);
    let last = u16::from_be_bytes([it.kind, it.code.unwrap_or(0xff)]);
    [Upper::Icmp, Upper::Icmpv6].map(|kind| (upper_key(kind, first), upper_key(kind, last)))
}
