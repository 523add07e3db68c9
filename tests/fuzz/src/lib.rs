//! What each fuzz target does with the bytes that libFuzzer makes up. `cargo xtask test fuzz` runs them.
//!
//! The bpf suite includes this file, too: it puts the odd packets through every target, and breaks when a parser changes.
//!
//! A new one is a function here and a line in [`TARGETS`], a file of one line in `fuzz_targets`, and its `[[bin]]` in `Cargo.toml`. They fail by
//! a panic: each parser must take any bytes, and what it takes it must give back.

#[path = "../../src/model/headers.rs"]
mod model;

use model::Kind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::frame::{HEADER_BYTES_MAX, header_bytes};
use weft_common::key::VLAN_PRESENT;
use weft_common::{DropReason, FlowKey, Fragment, Frame, Headers, Network, extract as extraction};
use weft_wire::undelivered::{ERROR_BYTES_MAX_V4, ERROR_BYTES_MAX_V6, report};
use weft_wire::{Arp, Nd, Undelivered, fragment, icmp as wire_icmp, icmpv6 as wire_icmpv6, tcp};

/// What a target does with an input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("extract", extract),
    ("arp", arp),
    ("nd", nd),
    ("icmp", icmp),
    ("icmpv6", icmpv6),
    ("undelivered", undelivered),
    ("tcp", tcp),
    ("fragment", fragment),
];

type Extracted = Result<(FlowKey, Headers), DropReason>;

fn extracted<F: Frame + ?Sized>(frame: &F, tag: Option<u16>) -> Extracted {
    let mut key = FlowKey::default();
    extraction(frame, 7, tag, &mut key).map(|headers| (key, headers))
}

/// A frame of which only the first bytes are readable, as the kernel's linear part.
struct Linear<'a> {
    readable: &'a [u8],
    length: usize,
}

impl Frame for Linear<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.readable.bytes(offset)
    }

    fn length(&self) -> usize {
        self.length
    }
}

/// The extraction agrees with the model, needs no byte more than it says, and sees one tag in bytes and in metadata.
/// The first byte says whether there is a tag in metadata.
pub fn extract(bytes: &[u8]) {
    let Some((&first, frame)) = bytes.split_first() else {
        return;
    };
    let tag = (first & 1 == 1).then_some(u16::from(first) << 4);
    let found = extracted(frame, tag);
    let modelled = model::read(frame, tag.map(|tci| tci & 0x0fff));
    match (&found, &modelled) {
        (Err(reason), Err(name)) => assert_eq!(reason.name(), *name),
        (Ok((key, headers)), Ok(model)) => agree(key, headers, model),
        _ => panic!("{found:?} but {modelled:?}"),
    }
    let needed = header_bytes(frame);
    assert!(needed <= HEADER_BYTES_MAX);
    let linear = Linear {
        readable: &frame[..needed.min(frame.len())],
        length: frame.len(),
    };
    assert_eq!(extracted(&linear, tag), found, "of {needed} readable bytes");
    if let (Some(tci), Some((addresses, rest))) = (tag, frame.split_first_chunk::<12>()) {
        let tci = tci.to_be_bytes();
        let tagged = [&addresses[..], &[0x81, 0], &tci, rest].concat();
        let in_bytes = extracted(tagged.as_slice(), None).map(|(key, _)| key);
        if frame.len() >= 14 {
            assert_eq!(in_bytes, found.map(|(key, _)| key), "a tag in bytes");
        }
    }
}

fn agree(key: &FlowKey, headers: &Headers, model: &model::Headers) {
    let head = &key.head;
    assert_eq!((head.port, head.mask_id, head.stage()), (7, 0, 0));
    assert_eq!((head.dst_mac, head.src_mac), (model.dst_mac, model.src_mac));
    assert_eq!(head.vlan, model.vlan.map_or(0, |id| id | VLAN_PRESENT));
    assert_eq!(usize::from(headers.l3_offset), model.network);
    match &model.kind {
        Kind::Other(ethertype) => {
            assert_eq!((head.network(), head.l4_src), (Network::Other, *ethertype));
            assert_eq!((key.src, key.dst), ([0; 16], [0; 16]));
        }
        Kind::Arp(operation, sender, target) => {
            assert_eq!((head.network(), head.protocol), (Network::Arp, *operation));
            assert_eq!((key.src_v4(), key.dst_v4()), (*sender, *target));
        }
        Kind::Ip(ip) => {
            if ip.src.len() == 4 {
                assert_eq!(head.network(), Network::Ipv4);
                assert_eq!(
                    (&key.src_v4()[..], &key.dst_v4()[..]),
                    (&ip.src[..], &ip.dst[..])
                );
            } else {
                assert_eq!(head.network(), Network::Ipv6);
                assert_eq!((&key.src[..], &key.dst[..]), (&ip.src[..], &ip.dst[..]));
            }
            let fragment = [Fragment::Whole, Fragment::First, Fragment::Later];
            assert_eq!(head.fragment(), fragment[usize::from(ip.fragment)]);
            assert_eq!((head.protocol, head.tos), (ip.protocol, ip.tos));
            assert_eq!((head.l4_src, head.l4_dst), ip.ports);
            assert_eq!((headers.ttl, headers.fragment_id), (ip.ttl, ip.id));
            assert_eq!(usize::from(headers.l4_offset), ip.upper);
        }
    }
}

/// ARP that is taken is given back.
pub fn arp(bytes: &[u8]) {
    if let Ok(arp) = Arp::parse(bytes) {
        assert_eq!(arp.emit(), bytes[..28]);
        let _ = arp.to_string();
        assert!(Arp::parse(&arp.answered_by([2, 0, 0, 0, 0, 1]).emit()).is_ok());
    }
}

/// The bytes with an IPv6 header that says ICMPv6, hop limit 255 and the right length, and the right checksum: libFuzzer
/// doesn't find that by itself.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    if packet.len() < 48 {
        return packet;
    }
    let length = packet.len() - 40;
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    (packet[6], packet[7]) = (58, 255);
    packet[42..44].fill(0);
    // RFC 4443, 2.3: addresses, length and next header are summed, too.
    let words = packet[8..].chunks(2);
    let sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum();
    let mut sum = sum + length as u64 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[42..44].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

/// Neighbour discovery that is taken is the same when it is made and read again.
pub fn nd(bytes: &[u8]) {
    for packet in [bytes, &repaired(bytes)] {
        if let Ok(nd) = Nd::parse(packet) {
            let _ = nd.to_string();
            assert_eq!(Nd::parse(&nd.emit()).as_ref(), Ok(&nd));
        }
    }
}

/// Any bytes may be asked for an echo; an answer is never answered.
pub fn icmp(bytes: &[u8]) {
    if let Ok(reply) = wire_icmp::echo_reply(bytes) {
        assert!(wire_icmp::echo_reply(&reply).is_err());
    }
}

/// As [`icmp`], for ICMPv6.
pub fn icmpv6(bytes: &[u8]) {
    for packet in [bytes, &repaired(bytes)] {
        if let Ok(reply) = wire_icmpv6::echo_reply(packet) {
            assert!(wire_icmpv6::echo_reply(&reply).is_err());
        }
    }
}

/// Errors are no longer than they may be, quote their packet from its start, and there is none about an error or a
/// later fragment.
pub fn undelivered(bytes: &[u8]) {
    let (from, ethertype, headers, longest) = match bytes.first() {
        Some(first) if first >> 4 == 4 => {
            let router = Ipv4Addr::new(192, 0, 2, 1);
            (IpAddr::from(router), [8, 0], 28, ERROR_BYTES_MAX_V4)
        }
        _ => {
            let router = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            (IpAddr::from(router), [0x86, 0xdd], 48, ERROR_BYTES_MAX_V6)
        }
    };
    let frame = [&[2; 12][..], &ethertype, bytes].concat();
    let is_later = matches!(
        model::read(&frame, None),
        Ok(model::Headers { kind: Kind::Ip(ip), .. }) if ip.fragment == 2
    );
    for why in [
        Undelivered::TimeExceeded,
        Undelivered::NoRoute,
        Undelivered::Prohibited,
        Undelivered::HostUnreachable,
        Undelivered::ProtocolUnreachable,
        Undelivered::PortUnreachable,
        Undelivered::TooBig { mtu: 1400 },
    ] {
        let Ok(error) = report(from, bytes, why) else {
            continue;
        };
        assert!(error.len() <= longest, "{why:?}: {} bytes", error.len());
        assert!(bytes.starts_with(&error[headers..]), "{why:?}: the quote");
        assert!(report(from, &error, why).is_err(), "{why:?} about an error");
        assert!(
            from.is_ipv6() || !is_later,
            "{why:?} about a later fragment"
        );
    }
}

/// A reset is never answered by one.
pub fn tcp(bytes: &[u8]) {
    if let Some(reset) = tcp::reset(bytes) {
        assert_eq!(tcp::reset(&reset), None);
    }
}

/// Pieces are no longer than asked, and together they are the packet. The first two bytes say how long.
pub fn fragment(bytes: &[u8]) {
    let Some((&[high, low], packet)) = bytes.split_first_chunk() else {
        return;
    };
    let mtu = usize::from(u16::from_be_bytes([high, low]) % 1600);
    let Ok(pieces) = fragment::fragments(packet, mtu) else {
        return;
    };
    let header = |piece: &[u8]| usize::from(piece[0] & 0x0f) * 4;
    let word = |piece: &[u8], at: usize| u16::from_be_bytes([piece[at], piece[at + 1]]);
    let mut offset = word(packet, 6) & 0x1fff;
    let mut payload = Vec::new();
    for piece in &pieces {
        assert!(piece.len() <= mtu && piece.len() == usize::from(word(piece, 2)));
        assert_eq!(word(piece, 6) & 0x1fff, offset);
        let data = &piece[header(piece)..];
        payload.extend_from_slice(data);
        offset += (data.len() / 8) as u16;
    }
    let end = usize::from(word(packet, 2));
    assert_eq!(payload, packet[header(packet)..end]);
}
