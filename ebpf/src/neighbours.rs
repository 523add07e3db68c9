//! ARP requests and neighbour solicitations for addresses whose owner the topology names: answered here, so that
//! workloads find each other while no agent runs.
//!
//! Maps: `neighbours` and `askers`, filled by the agent from what the simulation would answer. The answer is the
//! agent's, byte for byte. What isn't like nearly all questions are (a probe, a tag, other options, a wrong checksum), or
//! would teach the network something, goes the way that it would go without this stage.

use crate::maps::{ASKERS, NEIGHBOURS};
use crate::packet::Packet;
use crate::{count, execute};
use aya_ebpf::helpers::bpf_skb_change_tail;
use weft_common::DropReason;
use weft_common::checksum::{fold, sum, sum_words};
use weft_common::frame::{ETHERNET_LEN, IPV6_LEN, protocol};
use weft_common::key::{Fragment, Network, class};
use weft_common::neighbour::{Asker, HEARS, NeighbourKey, ROUTER};

/// Classes of what may be a question. IPv4 has not the bit that both have.
const ARP: u8 = class(0, Network::Arp, Fragment::Whole);
const IPV6: u8 = class(0, Network::Ipv6, Fragment::Whole);
const QUESTIONS: u8 = ARP & IPV6;
const _: () = assert!(class(0, Network::Ipv4, Fragment::Whole) & QUESTIONS == 0);

/// Operations of RFC 826.
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
/// Bytes of a frame with an ARP packet, and where its operation, its sender and its target stand.
const ARP_FRAME_LEN: u32 = 42;
const ARP_OPERATION: usize = ETHERNET_LEN + 6;
const ARP_SENDER: usize = ETHERNET_LEN + 8;
/// Types of RFC 4861, 4.3 and 4.4, and of their options with a MAC (4.6.1).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
/// Flags of an advertisement.
const FROM_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const REPLACES: u8 = 0x20;
const HOP_LIMIT: u8 = 255;
/// Bytes of a solicitation, or an advertisement, with its one option.
const ND_LEN: u16 = 32;
const IPV6_ADDRESSES: usize = ETHERNET_LEN + 8;
const ND: usize = ETHERNET_LEN + IPV6_LEN;
const ND_FRAME_LEN: u32 = ND as u32 + ND_LEN as u32;

/// No action that a program returns for an answer.
const NOT_ANSWERED: i32 = 0;

/// Answers what may be answered here, back to its port. None for everything else, which is as it was.
#[inline(always)]
pub fn answer(packet: &mut Packet) -> Option<i32> {
    let head = &packet.key.head;
    if head.class & QUESTIONS == 0 {
        return None;
    }
    let action = if head.class == ARP && head.protocol == ARP_REQUEST {
        arp(packet)
    } else if head.class == IPV6
        && head.protocol == protocol::ICMPV6
        && head.l4_src == u16::from_be_bytes([SOLICITATION, 0])
    {
        solicitation(packet)
    } else {
        return None;
    };
    (action != NOT_ANSWERED).then_some(action)
}

/// The request becomes the reply (RFC 826).
#[inline(never)]
fn arp(packet: &mut Packet) -> i32 {
    let port = u32::from(packet.key.head.port);
    let Some(asker) = asker(packet, port) else {
        return NOT_ANSWERED;
    };
    let Some(sender_and_target) = packet.read::<20>(ARP_SENDER) else {
        return NOT_ANSWERED;
    };
    let [
        h0,
        h1,
        h2,
        h3,
        h4,
        h5,
        s0,
        s1,
        s2,
        s3,
        _,
        _,
        _,
        _,
        _,
        _,
        t0,
        t1,
        t2,
        t3,
    ] = sender_and_target;
    let key = NeighbourKey {
        domain: asker.domain,
        address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, t0, t1, t2, t3],
    };
    let Some(found) = known(&key) else {
        return NOT_ANSWERED;
    };
    // An announcement, or the owner's own question, is for the others (RFC 5227, 2.3).
    let is_own = u32::from_ne_bytes([s0, s1, s2, s3]) == u32::from_ne_bytes([t0, t1, t2, t3]);
    if is_own || found.owner == port {
        return NOT_ANSWERED;
    }
    let [m0, m1, m2, m3, m4, m5] = found.mac;
    let reply = [
        0, ARP_REPLY, m0, m1, m2, m3, m4, m5, t0, t1, t2, t3, h0, h1, h2, h3, h4, h5, s0, s1, s2,
        s3,
    ];
    // What pads the frame isn't the answer's.
    // SAFETY: plain numbers; the helper checks the packet.
    let is_short = packet.length() == ARP_FRAME_LEN
        || unsafe { bpf_skb_change_tail(packet.skb(), ARP_FRAME_LEN, 0) } == 0;
    if !is_short || !packet.store(ARP_OPERATION, reply) {
        return count::dropped(port, DropReason::OutputFailed);
    }
    send_back(packet, port, found.mac)
}

/// The solicitation becomes the advertisement. Two functions, one after the other: together they would take more of the
/// stack than there is.
#[inline(always)]
fn solicitation(packet: &mut Packet) -> i32 {
    let found = asked_for(packet);
    if found == 0 {
        return NOT_ANSWERED;
    }
    advertise(packet, found)
}

/// Who is to be answered for, as [`Found::pack`] makes it; 0 where nothing is to be answered here.
#[inline(never)]
fn asked_for(packet: &mut Packet) -> u64 {
    let port = u32::from(packet.key.head.port);
    let Some(asker) = asker(packet, port) else {
        return 0;
    };
    if packet.length() != ND_FRAME_LEN || usize::from(packet.headers.l4_offset) != ND {
        return 0;
    }
    packet.pull_headers(ND_FRAME_LEN);
    if !is_plain(packet) {
        return 0;
    }
    let Some(target) = packet.read::<16>(ND + 8) else {
        return 0;
    };
    let mut key = NeighbourKey {
        domain: asker.domain,
        address: target,
    };
    let Some(found) = known(&key) else {
        return 0;
    };
    let [first, second, ..] = packet.key.src;
    // A probe (RFC 4862, 5.4.3) comes from nobody; nobody is a group. `::1` and the like are the agent's to judge, too.
    if found.owner == port || first == 0 || first == 0xff {
        return 0;
    }
    let is_for_group = packet.key.head.dst_mac[0] & 1 != 0;
    if !is_for_group {
        if !is_heard(packet, &asker, &found) || halves(&packet.key.dst) != halves(&target) {
            return 0;
        }
        // Routers learn who speaks to them, if they don't know already; addresses of the link alone they don't keep.
        key.address = packet.key.src;
        let is_on_link = first == 0xfe && second & 0xc0 == 0x80;
        if !is_on_link && known(&key).is_none() {
            return 0;
        }
    }
    found.pack()
}

/// Whether it is a valid solicitation (RFC 4861, 7.1.1) with its sender's MAC and nothing else.
#[inline(always)]
fn is_plain(packet: &Packet) -> bool {
    let Some(body) = packet.read::<{ ND_LEN as usize }>(ND) else {
        return false;
    };
    let addresses = sum(&packet.key.src) + sum(&packet.key.dst);
    let is_right = fold(pseudo_header() + addresses + sum(&body)) == u16::MAX;
    let [_, _, c0, c1, .., option, units, _, _, _, _, _, _] = body;
    // All ones is zero, too, but nobody writes it.
    is_right
        && u16::from_ne_bytes([c0, c1]) != u16::MAX
        && (option, units) == (SOURCE_MAC, 1)
        && packet.headers.ttl == HOP_LIMIT
        && packet.headers.l3_length == ND_LEN + IPV6_LEN as u16
}

/// Whether a solicitation that isn't for a group is for the network itself, and its answer for who asked.
#[inline(always)]
fn is_heard(packet: &Packet, asker: &Asker, found: &Found) -> bool {
    let head = &packet.key.head;
    found.flags & HEARS != 0
        && word(head.dst_mac) == word(found.mac)
        && word(head.src_mac) == word(asker.mac)
        && word(asker.mac) != 0
}

/// Makes the answer (RFC 4861, 7.2.4) and sends it back.
#[inline(never)]
fn advertise(packet: &mut Packet, found: u64) -> i32 {
    let port = u32::from(packet.key.head.port);
    let found = Found::unpack(found);
    let router = if found.flags & ROUTER != 0 {
        FROM_ROUTER
    } else {
        0
    };
    let Some(target) = packet.read::<16>(ND + 8) else {
        return NOT_ANSWERED;
    };
    let (t0, t1) = halves(&target);
    let (a0, a1) = halves(&packet.key.src);
    let flags = router | SOLICITED | REPLACES;
    let head = |[c0, c1]: [u8; 2]| u64::from_ne_bytes([ADVERTISEMENT, 0, c0, c1, flags, 0, 0, 0]);
    let [m0, m1, m2, m3, m4, m5] = found.mac;
    let option = u64::from_ne_bytes([TARGET_MAC, 1, m0, m1, m2, m3, m4, m5]);
    // From the addresses of the IPv6 header on: target and asker, then the advertisement.
    let mut reply = [t0, t1, a0, a1, head([0; 2]), t0, t1, option];
    let checksum = !fold(pseudo_header() + sum_words(&reply));
    reply[4] = head(checksum.to_ne_bytes());
    // SAFETY: plain bytes of the same size.
    let reply: [u8; 64] = unsafe { core::mem::transmute(reply) };
    // Version, and neither traffic class nor flow label; length, protocol and hop limit are those of the question.
    if !packet.store(ETHERNET_LEN, [0x60, 0, 0, 0]) || !packet.store(IPV6_ADDRESSES, reply) {
        return count::dropped(port, DropReason::OutputFailed);
    }
    send_back(packet, port, found.mac)
}

/// What the checksum covers besides the addresses and the packet itself: its length and protocol (RFC 8200, 8.1).
#[inline(always)]
fn pseudo_header() -> u64 {
    u64::from(ND_LEN.to_be()) + u64::from(u16::from(protocol::ICMPV6).to_be())
}

/// To who asked, from who has the address. No chain judges what the network says.
#[inline(always)]
fn send_back(packet: &mut Packet, port: u32, mac: [u8; 6]) -> i32 {
    let [d0, d1, d2, d3, d4, d5] = packet.key.head.src_mac;
    let [s0, s1, s2, s3, s4, s5] = mac;
    let macs = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5];
    if packet.write(0, macs).is_none() {
        return count::dropped(port, DropReason::OutputFailed);
    }
    execute::deliver(packet, port, false)
}

/// Who has an address.
struct Found {
    mac: [u8; 6],
    flags: u8,
    owner: u32,
}

impl Found {
    /// MAC and flags in one number that isn't 0.
    #[inline(always)]
    fn pack(&self) -> u64 {
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        u64::from_ne_bytes([m0, m1, m2, m3, m4, m5, self.flags, 1])
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Found {
        let [m0, m1, m2, m3, m4, m5, flags, _] = packed.to_ne_bytes();
        Found {
            mac: [m0, m1, m2, m3, m4, m5],
            flags,
            owner: 0,
        }
    }
}

/// The port's record, for a frame without a tag.
#[inline(always)]
fn asker(packet: &Packet, port: u32) -> Option<Asker> {
    if packet.key.head.vlan != 0 || usize::from(packet.headers.l3_offset) != ETHERNET_LEN {
        return None;
    }
    ASKERS.get(port).copied()
}

/// Who has an address, if the topology says so. A freed element is used again under its readers: what isn't found twice
/// alike may be another network's.
#[inline(always)]
fn known(key: &NeighbourKey) -> Option<Found> {
    let [a, b, owner] = looked_up(key)?;
    let [c, d, e] = looked_up(key)?;
    if a != c || b != d || owner != e {
        return None;
    }
    let ([m0, m1, m2, m3], [m4, m5, flags, _]) = (a.to_ne_bytes(), b.to_ne_bytes());
    Some(Found {
        mac: [m0, m1, m2, m3, m4, m5],
        flags,
        owner,
    })
}

#[inline(always)]
fn looked_up(key: &NeighbourKey) -> Option<[u32; 3]> {
    let found = NEIGHBOURS.get_ptr(key)?.cast::<u32>();
    // SAFETY: a checked pointer to three words.
    unsafe {
        Some([
            found.read_volatile(),
            found.add(1).read_volatile(),
            found.add(2).read_volatile(),
        ])
    }
}

/// A MAC as one number: LLVM would compare arrays by a function that isn't there.
#[inline(always)]
fn word(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// An address as two.
#[inline(always)]
fn halves(address: &[u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *address;
    (
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes(rest),
    )
}
