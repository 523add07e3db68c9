//! ICMPv6 as a router speaks it (RFC 4443): echo replies.
//!
//! No state. Called where a router answers a ping.

use crate::icmp::{IcmpError, ROUTER_TTL};
use etherparse::{IcmpEchoHeader, IpNumber, Ipv6Header, checksum::Sum16BitWords, icmpv6};
use std::net::Ipv6Addr;

/// The IPv6 packet that answers this IPv6 packet, an echo request: same data, addresses swapped.
///
/// The checksum is updated and not computed again (RFC 1624), so that damaged data stays recognizable.
///
/// # Errors
/// [`IcmpError::Malformed`], [`IcmpError::NotEcho`], [`IcmpError::NotUnicast`].
pub fn echo_reply(request: &[u8]) -> Result<Vec<u8>, IcmpError> {
    let (header, rest) = Ipv6Header::from_slice(request).map_err(|_| IcmpError::Malformed)?;
    let payload = rest
        .get(..usize::from(header.payload_length))
        .ok_or(IcmpError::Malformed)?;
    let &[icmpv6::TYPE_ECHO_REQUEST, 0, c0, c1, ref data @ ..] = payload else {
        return Err(IcmpError::NotEcho);
    };
    if header.next_header != IpNumber::IPV6_ICMP || data.len() < IcmpEchoHeader::LEN {
        return Err(IcmpError::NotEcho);
    }
    if !is_single(header.source) || !is_single(header.destination) {
        return Err(IcmpError::NotUnicast);
    }
    let reply = Ipv6Header {
        hop_limit: ROUTER_TTL,
        source: header.destination,
        destination: header.source,
        ..header
    };
    let mut packet = reply.to_bytes().to_vec();
    packet.extend_from_slice(&[icmpv6::TYPE_ECHO_REPLY, 0]);
    packet.extend_from_slice(&updated_checksum(u16::from_be_bytes([c0, c1])).to_be_bytes());
    packet.extend_from_slice(data);
    Ok(packet)
}

/// The checksum after the type went from 128 to 129: one word gained 0x0100 (RFC 1624, equation 3).
fn updated_checksum(checksum: u16) -> u16 {
    let gone = !u16::from_be_bytes([icmpv6::TYPE_ECHO_REQUEST, 0]);
    let sum = Sum16BitWords::new()
        .add_2bytes((!checksum).to_be_bytes())
        .add_2bytes(gone.to_be_bytes())
        .add_2bytes([icmpv6::TYPE_ECHO_REPLY, 0])
        .ones_complement();
    // The sum works in memory order on every machine.
    u16::from_be(sum)
}

fn is_single(address: [u8; 16]) -> bool {
    let address = Ipv6Addr::from_octets(address);
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// fd00:1::b > fd00:1::1, echo request 7, sequence 1.
    fn ping() -> Vec<u8> {
        let mut packet = vec![0x60, 0x02, 0x00, 0x00, 0x00, 0x0c, 58, 64];
        packet.extend("fd00:1::b".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00:1::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([128, 0, 0, 0, 0, 7, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
        let sum = sum(&packet).to_be_bytes();
        packet[42..44].copy_from_slice(&sum);
        packet
    }

    /// The checksum of RFC 8200, 8.1 over all that is there; 0 when there is a right one in it.
    fn sum(packet: &[u8]) -> u16 {
        let length = (packet.len() - 40) as u32;
        Sum16BitWords::new()
            .add_slice(&packet[8..40])
            .add_4bytes(length.to_be_bytes())
            .add_2bytes([0, 58])
            .add_slice(&packet[40..])
            .ones_complement()
            .to_be()
    }

    #[test]
    fn a_ping_is_answered_with_its_own_data() {
        let request = ping();
        let reply = echo_reply(&request).unwrap();
        assert_eq!(sum(&reply), 0);
        assert_eq!((reply[7], reply[40], reply[41]), (64, 129, 0));
        assert_eq!(reply[8..24], request[24..40]);
        assert_eq!(reply[24..40], request[8..24]);
        assert_eq!(reply[44..], request[44..]);
        let padded = [&request[..], &[0; 20][..]].concat();
        assert_eq!(echo_reply(&padded).unwrap(), reply);
    }

    #[test]
    fn only_whole_echo_requests_are_answered() {
        let request = ping();
        for length in 0..request.len() {
            let refused = echo_reply(&request[..length]);
            assert_eq!(refused, Err(IcmpError::Malformed), "{length}");
        }
        let reply = echo_reply(&request).unwrap();
        assert_eq!(echo_reply(&reply), Err(IcmpError::NotEcho));
        let mut to_a_group = request;
        to_a_group[24] = 0xff;
        assert_eq!(echo_reply(&to_a_group), Err(IcmpError::NotUnicast));
    }
}
