//! A compiled ACL as it lies in a map of its own, and the keys that a packet is looked up by in it.
//!
//! The map is an array of [`Cell`]s; the maps of all ACLs are in `acls`, by the number of the ACL. A swap is one update of
//! that map. Cell numbers are absolute, word numbers count words of 8 bytes from the start:
//!
//! | cells | what |
//! |---|---|
//! | [`HEAD`] | [`Head`] |
//! | [`SIDES`], two each | source, destination: [`Side`] |
//! | [`FIELDS`], [`FIELDS_MAX`] of them | kind ([`FieldKind`]) and mask; first cell and number of its bounds |
//! | bounds | first key, vector; those of a field in order |
//! | prefixes, two each | address; length, entries back to the next wider one (0: none), classes |
//! | sets | number, vectors that it adds and takes; those of a side in order |
//! | vectors | summary (a bit for each block that isn't zero), number of the first block's word |
//! | words | blocks of 64 rules |
//! | rules | [`rule_cell`] |
//! | statistics | packets, bytes; one a rule, the only cells that the kernel writes |

use crate::frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use crate::key::{FlowKey, Network};
use crate::limits::{GROUPS_PER_ADDRESS_MAX, POLICY_MAC_MASKS_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// 16 bytes of an ACL.
pub type Cell = [u64; 2];

/// Cell of the [`Head`].
pub const HEAD: u32 = 0;
/// Cells of the source's [`Side`]; the destination's are behind.
pub const SIDES: u32 = 1;
/// Cells of a [`Side`].
pub const SIDE_CELLS: u32 = 2;
/// First cell of the fields.
pub const FIELDS: u32 = SIDES + 2 * SIDE_CELLS;
/// Fields of one ACL: nine without MACs, and those of MACs.
pub const FIELDS_MAX: usize = 9 + POLICY_MAC_MASKS_MAX;
/// First cell of what is of no fixed size.
pub const BODY: u32 = FIELDS + FIELDS_MAX as u32;
/// Cells of a prefix.
pub const PREFIX_CELLS: u32 = 2;

/// Flag of [`Head::flags`]: packets of connections that are established are accepted, whatever else they are.
pub const ESTABLISHED_PASSES: u16 = 1 << 0;
/// Flag of [`Head::flags`]: asks for more than what all packets of a connection in one direction have in common.
pub const READS_MORE: u16 = 1 << 1;

/// Verdict: the packet passes.
pub const ACCEPT: u8 = 0;
/// Verdict: it is dropped in silence.
pub const DROP: u8 = 1;
/// Verdict: it is dropped and its sender told.
pub const REJECT: u8 = 2;
/// Verdict: the lookup would take more steps than the kernel makes, or the tables are damaged: the agent decides.
pub const UNBOUNDED: u8 = 3;
/// What a rule does besides the verdicts: on at a later rule.
pub const STEP: u8 = 3;
/// Number of an ACL that nobody has: what compiles to no tables is the agent's to decide.
pub const NOT_COMPILED: u16 = u16::MAX;
/// No rule decided.
pub const NO_RULE: u16 = u16::MAX;

/// A field whose values are classes by ranges of keys: index into [`Keys::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FieldKind {
    /// A [`Service`], or 0.
    Service = 0,
    /// Ethernet type.
    Ethertype = 1,
    /// Ethernet source, as a number.
    SrcMac = 2,
    /// Ethernet destination, as a number.
    DstMac = 3,
    /// As in the flow key.
    Vlan = 4,
    /// [`NOT_IP`] for what isn't IP.
    Tos = 5,
    /// [`NOT_IP`] for what isn't IP.
    Protocol = 6,
    /// What the number is (an [`Upper`]) in bits 16 and 17, and the key's `l4_src`.
    UpperSrc = 7,
    /// The same with `l4_dst`.
    UpperDst = 8,
    /// As in the flow key.
    Fragment = 9,
    /// A [`State`].
    State = 10,
}

/// Key of [`FieldKind::Tos`] and [`FieldKind::Protocol`] for what isn't IP.
pub const NOT_IP: u64 = 256;

/// State of a packet's connection, as a port's chain sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The packet opens one.
    New = 0,
    /// The packet belongs to one that this chain, or the opposite chain of the port, admitted.
    Established = 1,
    /// The packet is an error about one.
    Related = 2,
    /// The packet belongs to none and can't open one.
    Invalid = 3,
}

/// Packets without which a workload has no network: only a rule that names them matches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    /// ARP; named by an Ethernet type.
    Arp = 1,
    /// Neighbour discovery and router advertisements (RFC 4861); named by an ICMP type.
    NeighbourDiscovery = 2,
    /// DHCP of either family; named by a port.
    Dhcp = 3,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Arp, Service::NeighbourDiscovery, Service::Dhcp];
}

/// What the L4 fields of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Upper {
    /// Nothing that a rule asks for, or not known.
    Other = 0,
    /// Ports of TCP, UDP or SCTP.
    Ports = 1,
    /// Type and code of ICMP.
    Icmp = 2,
    /// Type and code of ICMPv6.
    Icmpv6 = 3,
}

/// The first cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Fields that are asked for, the first ones of [`FIELDS`].
    pub fields: u8,
    /// Sides that are asked for: bit 0 the source, bit 1 the destination.
    pub sides: u8,
    /// [`ESTABLISHED_PASSES`], [`READS_MORE`].
    pub flags: u16,
    /// Number of the tenant, whose groups are meant.
    pub tenant: u32,
    /// Cell of the first rule.
    pub rules: u32,
    /// Rules; their statistics lie behind them.
    pub rule_count: u32,
}

/// Two numbers in a word.
#[inline(always)]
pub const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Head {
    /// As a cell.
    pub const fn cell(&self) -> Cell {
        let low = self.fields as u32 | (self.sides as u32) << 8 | (self.flags as u32) << 16;
        [pair(low, self.tenant), pair(self.rules, self.rule_count)]
    }

    /// From a cell.
    #[inline(always)]
    pub const fn of(cell: &Cell) -> Head {
        Head {
            fields: cell[0] as u8,
            sides: (cell[0] >> 8) as u8,
            flags: (cell[0] >> 16) as u16,
            tenant: (cell[0] >> 32) as u32,
            rules: cell[1] as u32,
            rule_count: (cell[1] >> 32) as u32,
        }
    }
}

/// An address that rules ask for: `prefixes` for IPv4 and IPv6, `sets`, each by first cell and number of entries; the
/// classes of addresses in no prefix, and of packets without addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// By family: first cell, entries.
    pub prefixes: [(u32, u32); 2],
    /// First cell, entries.
    pub sets: (u32, u32),
    /// Vectors of [`Class`].
    pub outside: Class,
}

/// What is known of an address: rules match by (`alone` OR (`plain` AND what its sets add)) without what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Cell of the vector of rules whose tests by prefix hold.
    pub plain: u32,
    /// Cell of the vector of those that match without a set.
    pub alone: u32,
}

impl Class {
    /// As a word.
    pub const fn word(&self) -> u64 {
        pair(self.plain, self.alone)
    }
}

/// A rule: what it does ([`ACCEPT`], [`DROP`], [`REJECT`] or [`STEP`] to rule `target`), and whether it is logged.
pub const fn rule_cell(act: u8, target: u16, is_logged: bool) -> Cell {
    [
        act as u64 | (is_logged as u64) << 8 | (target as u64) << 16,
        0,
    ]
}

/// A packet as an ACL sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Keys {
    /// By [`FieldKind`].
    pub fields: [u64; 16],
    /// Source and destination of IP, or sender and target of ARP, on the left: IPv4 in the upper half of the first
    /// word.
    pub addresses: [[u64; 2]; 2],
    /// 0: IPv4 or ARP. 1: IPv6. [`NO_ADDRESS`]: neither.
    pub family: u32,
    /// Zero.
    pub spare: u32,
}

/// [`Keys::family`] of a packet without addresses.
pub const NO_ADDRESS: u32 = 2;

impl Keys {
    /// Fills it. `upper_known`: the key's L4 fields are the packet's; false for a later fragment whose first one isn't
    /// known.
    #[inline(always)]
    pub fn fill(&mut self, key: &FlowKey, upper_known: bool, state: u8) {
        let head = &key.head;
        let network = head.network() as u8;
        let is_v6 = network == Network::Ipv6 as u8;
        let is_ip = is_v6 || network == Network::Ipv4 as u8;
        let upper = upper(is_ip && upper_known, head.protocol);
        let fields = &mut self.fields;
        fields[FieldKind::Service as usize] = service(key, upper) as u64;
        fields[FieldKind::Ethertype as usize] = if is_v6 {
            ETHERTYPE_IPV6
        } else if is_ip {
            ETHERTYPE_IPV4
        } else if network == Network::Arp as u8 {
            ETHERTYPE_ARP
        } else {
            head.l4_src
        } as u64;
        fields[FieldKind::SrcMac as usize] = mac_number(head.src_mac);
        fields[FieldKind::DstMac as usize] = mac_number(head.dst_mac);
        fields[FieldKind::Vlan as usize] = head.vlan as u64;
        fields[FieldKind::Tos as usize] = if is_ip { head.tos as u64 } else { NOT_IP };
        fields[FieldKind::Protocol as usize] = if is_ip { head.protocol as u64 } else { NOT_IP };
        let number = |number: u16| {
            if upper == Upper::Other as u8 {
                0
            } else {
                upper_key(upper, number)
            }
        };
        fields[FieldKind::UpperSrc as usize] = number(head.l4_src);
        fields[FieldKind::UpperDst as usize] = number(head.l4_dst);
        fields[FieldKind::Fragment as usize] = (head.class & crate::key::CLASS_FRAGMENT) as u64;
        fields[FieldKind::State as usize] = state as u64;
        self.family = if is_v6 {
            1
        } else if network == Network::Other as u8 {
            NO_ADDRESS
        } else {
            0
        };
        self.addresses = if is_v6 {
            [words(&key.src), words(&key.dst)]
        } else {
            // IPv4: source and destination are the first eight bytes.
            let [both, _] = words(&key.src);
            [[both & !0xffff_ffff, 0], [both << 32, 0]]
        };
    }
}

/// Key of [`FieldKind::UpperSrc`] and [`FieldKind::UpperDst`].
#[inline(always)]
pub const fn upper_key(upper: u8, number: u16) -> u64 {
    (upper as u64) << 16 | number as u64
}

/// A MAC as a number.
#[inline(always)]
pub const fn mac_number(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// What the L4 fields are ([`Upper`]) of a packet that has such; 0 for others.
#[inline(always)]
const fn upper(is_known: bool, number: u8) -> u8 {
    if !is_known {
        return Upper::Other as u8;
    }
    if number == protocol::TCP || number == protocol::UDP || number == protocol::SCTP {
        Upper::Ports as u8
    } else if number == protocol::ICMP {
        Upper::Icmp as u8
    } else if number == protocol::ICMPV6 {
        Upper::Icmpv6 as u8
    } else {
        Upper::Other as u8
    }
}

/// Which [`Service`] a packet is of, or 0.
#[inline(always)]
const fn service(key: &FlowKey, upper: u8) -> u8 {
    let head = &key.head;
    let network = head.network() as u8;
    if network == Network::Arp as u8 {
        return Service::Arp as u8;
    }
    let is_v6 = network == Network::Ipv6 as u8;
    let kind = head.l4_src >> 8;
    if is_v6 && upper == Upper::Icmpv6 as u8 && kind >= 133 && kind <= 137 {
        return Service::NeighbourDiscovery as u8;
    }
    let first = if is_v6 { 546 } else { 67 };
    let is_udp = upper == Upper::Ports as u8 && head.protocol == protocol::UDP;
    if is_udp && (head.l4_dst == first || head.l4_dst == first + 1) {
        return Service::Dhcp as u8;
    }
    0
}

#[inline(always)]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
    [
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// Key of the table of sets: a prefix of one tenant's addresses. Matched are the 64 bits of `tenant` and `family`, and
/// the prefix's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetKey {
    /// As in [`Head::tenant`].
    pub tenant: u32,
    /// As in [`Keys::family`].
    pub family: u32,
    /// The address in network order, IPv4 in the first four bytes.
    pub address: [u8; 16],
}

/// Bits of [`SetKey`] before the address.
pub const SET_KEY_HEAD_BITS: u32 = 64;

/// The sets that the addresses of a prefix are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetList {
    /// How many.
    pub count: u32,
    /// Their numbers.
    pub sets: [u32; GROUPS_PER_ADDRESS_MAX],
}

const _: () = assert!(size_of::<SetKey>() == 24);
