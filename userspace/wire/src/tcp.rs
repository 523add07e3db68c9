//! The answer of a machine where nobody listens: TCP resets (RFC 9293, 3.10.7.1).
//!
//! No state. Called where a router gets TCP for an address of its own.

use crate::icmp::{ROUTER_TTL, is_single};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader};
use std::net::Ipv6Addr;

/// The packet that refuses the connection to which this whole IP packet, a TCP segment, belongs.
///
/// None for what isn't answered: resets, fragments, groups, IPv6 with extension headers, and what isn't whole.
pub fn reset(packet: &[u8]) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => reset_v4(packet),
        6 => reset_v6(packet),
        _ => None,
    }
}

fn reset_v4(packet: &[u8]) -> Option<Vec<u8>> {
    let (header, _) = Ipv4Header::from_slice(packet).ok()?;
    let segment = packet.get(header.header_len()..usize::from(header.total_len))?;
    let is_tcp = header.protocol == IpNumber::TCP && !header.is_fragmenting_payload();
    if !is_tcp || !is_single(header.source) || !is_single(header.destination) {
        return None;
    }
    let mut reset = answer(segment)?;
    let length = reset.header_len() as u16;
    let (source, destination) = (header.destination, header.source);
    let mut ip = Ipv4Header::new(length, ROUTER_TTL, IpNumber::TCP, source, destination).ok()?;
    ip.header_checksum = ip.calc_header_checksum();
    reset.checksum = reset.calc_checksum_ipv4(&ip, &[]).ok()?;
    Some([&ip.to_bytes()[..], &reset.to_bytes()[..]].concat())
}

fn reset_v6(packet: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = Ipv6Header::from_slice(packet).ok()?;
    let segment = rest.get(..usize::from(header.payload_length))?;
    let ends = [header.source, header.destination].map(Ipv6Addr::from_octets);
    let is_nobody = |it: &Ipv6Addr| it.is_unspecified() || it.is_multicast() || it.is_loopback();
    if header.next_header != IpNumber::TCP || ends.iter().any(is_nobody) {
        return None;
    }
    let mut reset = answer(segment)?;
    let ip = Ipv6Header {
        payload_length: reset.header_len() as u16,
        next_header: IpNumber::TCP,
        hop_limit: ROUTER_TTL,
        source: header.destination,
        destination: header.source,
        ..Ipv6Header::default()
    };
    reset.checksum = reset.calc_checksum_ipv6(&ip, &[]).ok()?;
    Some([&ip.to_bytes()[..], &reset.to_bytes()[..]].concat())
}

/// The reset without a checksum. What acknowledges is answered at the number that it expects next, what doesn't is
/// acknowledged as a whole: SYN and FIN count as a byte each.
fn answer(segment: &[u8]) -> Option<TcpHeader> {
    let (asked, data) = TcpHeader::from_slice(segment).ok()?;
    if asked.rst {
        return None;
    }
    let mut reset = TcpHeader::new(asked.destination_port, asked.source_port, 0, 0);
    reset.rst = true;
    if asked.ack {
        reset.sequence_number = asked.acknowledgment_number;
    } else {
        let length = data.len() as u32 + u32::from(asked.syn) + u32::from(asked.fin);
        reset.ack = true;
        reset.acknowledgment_number = asked.sequence_number.wrapping_add(length);
    }
    Some(reset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn v4(change: impl FnOnce(&mut TcpHeader), data: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(40000, 80, 1000, 1024);
        change(&mut tcp);
        let builder = PacketBuilder::ipv4([10, 0, 1, 11], [10, 0, 1, 1], 7).tcp_header(tcp);
        let mut packet = Vec::new();
        builder.write(&mut packet, data).unwrap();
        packet
    }

    fn tcp_of(packet: &[u8]) -> TcpHeader {
        let (ip, rest) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!((ip.source, ip.destination), ([10, 0, 1, 1], [10, 0, 1, 11]));
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let (tcp, data) = TcpHeader::from_slice(rest).unwrap();
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
        assert!(data.is_empty() && tcp.rst);
        assert_eq!((tcp.source_port, tcp.destination_port), (80, 40000));
        tcp
    }

    #[test]
    fn a_syn_is_acknowledged_and_reset() {
        let tcp = tcp_of(&reset(&v4(|tcp| tcp.syn = true, &[])).unwrap());
        assert!(tcp.ack);
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (0, 1001));
        let with_data = tcp_of(&reset(&v4(|tcp| tcp.syn = true, b"GET")).unwrap());
        assert_eq!(with_data.acknowledgment_number, 1004);
    }

    #[test]
    fn what_acknowledges_is_reset_where_it_expects() {
        let acknowledge = |tcp: &mut TcpHeader| (tcp.ack, tcp.acknowledgment_number) = (true, 77);
        let tcp = tcp_of(&reset(&v4(acknowledge, b"data")).unwrap());
        assert!(!tcp.ack);
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (77, 0));
    }

    #[test]
    fn resets_fragments_groups_and_damage_are_not_answered() {
        assert_eq!(reset(&v4(|tcp| tcp.rst = true, &[])), None);
        let syn = v4(|tcp| tcp.syn = true, &[]);
        for (index, byte) in [
            (6, 0x20),
            (7, 1),
            (9, 17),
            (12, 0xe0),
            (16, 0xff),
            (0, 0x75),
        ] {
            let mut changed = syn.clone();
            changed[index] = byte;
            assert_eq!(reset(&changed), None, "byte {index}");
        }
        for length in 0..syn.len() {
            assert_eq!(reset(&syn[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_syn_over_ipv6_is_reset_with_a_right_checksum() {
        let (from, to) = ([0xfd; 16], [0xfe; 16]);
        let builder = PacketBuilder::ipv6(from, to, 7).tcp(40000, 80, 5, 9).syn();
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).unwrap();
        let answer = reset(&packet).unwrap();
        let (ip, rest) = Ipv6Header::from_slice(&answer).unwrap();
        assert_eq!((ip.source, ip.destination), (to, from));
        let (tcp, _) = TcpHeader::from_slice(rest).unwrap();
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&ip, &[]).unwrap());
        assert_eq!(
            (tcp.rst, tcp.ack, tcp.acknowledgment_number),
            (true, true, 6)
        );
        packet[24] = 0xff;
        assert_eq!(reset(&packet), None);
    }
}
