//! What must come of a frame in the network of the differential test, said without Weft's code, from the RFCs and from
//! what the documentation promises. Where that leaves room (learning, neighbour discovery, what a router does for
//! itself) it has no opinion.
//!
//! The network: bridge `web` with `web-1` (which sends), `web-2` (here) and `web-3` (remote); bridge `db` with `db-1`
//! (here) and `db-2` (remote); a router between them with blackhole routes.

use super::headers::{Headers, Ip, Kind, Refusal, read};

/// MAC address of the workload or router port with this number.
pub const fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, number]
}

/// Number of the sender.
pub const WEB_1: u8 = 11;
/// Number of its neighbour here.
pub const WEB_2: u8 = 12;
/// Number of its remote neighbour.
pub const WEB_3: u8 = 13;
/// Number of the workload behind the router that is here.
pub const DB_1: u8 = 21;
/// Number of the one that is remote.
pub const DB_2: u8 = 22;
/// Number of the router's port to `web`.
pub const ROUTER_WEB: u8 = 1;
/// Number of the router's port to `db`.
pub const ROUTER_DB: u8 = 2;

/// What must come of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Dropped under this name.
    Drop(Refusal),
    /// Delivered, or sent, to the workload with this number, as these bytes (but for the IPv4 header's checksum).
    To(u8, Vec<u8>),
    /// A copy to each other port of `web`.
    Flood,
    /// The agent's: it answers, or asks.
    Agent,
    /// No opinion.
    Anything,
}

/// Judges a frame that `web-1` sends.
pub fn judge(frame: &[u8]) -> Expected {
    let headers = match read(frame, None) {
        Ok(headers) => headers,
        Err(refusal) => return Expected::Drop(refusal),
    };
    let is_group = headers.dst_mac[0] % 2 == 1;
    let is_tagged = headers.vlan.is_some();
    match &headers.kind {
        Kind::Arp(..) if !is_tagged => return arp(&headers),
        // Neighbour discovery to a group.
        Kind::Ip(ip) if is_group && ip.src.len() == 16 && ip.protocol == 58 => {
            return Expected::Anything;
        }
        _ => {}
    }
    // IEEE 802.1D, table 7-10.
    if headers.dst_mac[..5] == [1, 0x80, 0xc2, 0, 0] && headers.dst_mac[5] < 16 {
        return Expected::Drop("reserved_group");
    }
    let to = |number: u8| headers.dst_mac == mac(number);
    if to(ROUTER_WEB) {
        return match &headers.kind {
            _ if is_tagged => Expected::Drop("not_carried"),
            Kind::Ip(ip) => route(frame, &headers, ip),
            Kind::Other(_) => Expected::Drop("not_carried"),
            Kind::Arp(..) => Expected::Anything,
        };
    }
    if to(WEB_1) {
        return Expected::Drop("same_port");
    }
    match [WEB_2, WEB_3].into_iter().find(|&number| to(number)) {
        Some(number) => Expected::To(number, frame.to_vec()),
        None => Expected::Flood,
    }
}

/// The bridge answers for declared addresses; the rest is for whom it is addressed to.
fn arp(headers: &Headers) -> Expected {
    let Kind::Arp(operation, sender, target) = headers.kind else {
        return Expected::Anything;
    };
    let is_declared =
        [[10, 0, 1, WEB_2], [10, 0, 1, WEB_3], [10, 0, 1, ROUTER_WEB]].contains(&target);
    if operation == 1 && is_declared && sender != target {
        return Expected::Agent;
    }
    let is_unknown = target == [10, 0, 1, 99] && headers.dst_mac == [0xff; 6];
    if operation == 1 && is_unknown {
        return Expected::Flood;
    }
    Expected::Anything
}

/// Who is at an address, by the number of its workload.
fn workload(address: &[u8]) -> Option<u8> {
    [WEB_1, WEB_2, WEB_3, DB_1, DB_2]
        .into_iter()
        .find(|&number| address == v4(number) || address == v6(number))
}

/// The workload's or router port's IPv4 address.
pub const fn v4(number: u8) -> [u8; 4] {
    [10, 0, net(number), number]
}

/// The workload's or router port's IPv6 address.
pub const fn v6(number: u8) -> [u8; 16] {
    [
        0xfd,
        0,
        0,
        0,
        0,
        0,
        0,
        net(number),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        number,
    ]
}

const fn net(number: u8) -> u8 {
    match number {
        ROUTER_WEB | WEB_1 | WEB_2 | WEB_3 => 1,
        _ => 2,
    }
}

/// RFC 1812, 5.2.1, and RFC 8200: next hop, TTL, rewrite.
fn route(frame: &[u8], headers: &Headers, ip: &Ip) -> Expected {
    if ip.src != v4(WEB_1) && ip.src != v6(WEB_1) {
        return Expected::Anything;
    }
    let is_black = ip.dst.starts_with(&[203, 0, 113]) || ip.dst.starts_with(&[0x20, 1, 0x0d, 0xb8]);
    if is_black {
        return Expected::Drop("blackhole_route");
    }
    let Some(number) = workload(&ip.dst) else {
        let is_free = ip.dst == [10, 0, 2, 99];
        return if is_free {
            Expected::Agent
        } else {
            Expected::Anything
        };
    };
    if ip.ttl <= 1 {
        return Expected::Agent;
    }
    let out = if net(number) == 1 {
        ROUTER_WEB
    } else {
        ROUTER_DB
    };
    let mut sent = frame.to_vec();
    sent[..6].copy_from_slice(&mac(number));
    sent[6..12].copy_from_slice(&mac(out));
    let ttl_at = headers.network + if ip.src.len() == 4 { 8 } else { 7 };
    sent[ttl_at] -= 1;
    Expected::To(number, sent)
}

/// Whether a frame is what was expected: equal but for the IPv4 checksum, which is right exactly where the one of the
/// frame before was (RFC 1624).
pub fn is_sent_as(expected: &[u8], sent: &[u8], before: &[u8]) -> bool {
    let Ok(Headers {
        network,
        kind: Kind::Ip(ip),
        ..
    }) = read(before, None)
    else {
        return expected == sent;
    };
    if ip.src.len() != 4 || expected.len() != sent.len() {
        return expected == sent;
    }
    let at = network + 10;
    let mut patched = sent.to_vec();
    patched[at..at + 2].copy_from_slice(&expected[at..at + 2]);
    patched == expected && excess(before, network) == excess(sent, network)
}

/// Whether the checksum of an IPv4 header in the frame is wrong. A router must drop such a packet (RFC 1812, 5.2.2);
/// Weft's do where the agent decides.
pub fn is_damaged(frame: &[u8]) -> bool {
    match read(frame, None) {
        Ok(Headers {
            network,
            kind: Kind::Ip(ip),
            ..
        }) => ip.src.len() == 4 && excess(frame, network) != 0,
        _ => false,
    }
}

/// The header's sum with its checksum, modulo 65,535: 0 where it is right (RFC 1071).
fn excess(frame: &[u8], network: usize) -> u32 {
    let header = &frame[network..network + usize::from(frame[network] % 16) * 4];
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) * 256 + u32::from(word[1]));
    words.sum::<u32>() % 65_535
}
