//! ICMP for IPv4 as a router speaks it (RFC 792, RFC 1812 section 4.3): echo replies. Errors are in
//! [`crate::undelivered`].
//!
//! No state. Called where a router answers a ping.

use etherparse::{IcmpEchoHeader, IpNumber, Ipv4Header, checksum::Sum16BitWords, icmpv4};

/// TTL of packets that a router makes.
pub const ROUTER_TTL: u8 = 64;

/// Why there is no ICMP packet for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IcmpError {
    /// It isn't a whole IP packet.
    #[error("the packet is cut short or isn't IP of the right version")]
    Malformed,
    /// It isn't a whole echo request.
    #[error("the packet isn't a whole ICMP echo request")]
    NotEcho,
    /// Errors are never answered by errors (RFC 1812, 4.3.2.7).
    #[error("the packet is an ICMP error itself")]
    AboutError,
    /// Only a packet's first fragment is answered.
    #[error("the packet is a later fragment")]
    LaterFragment,
    /// The packet may be fragmented on its way.
    #[error("the packet may be fragmented")]
    MayBeFragmented,
    /// The packet must not be fragmented on its way.
    #[error("the packet must not be fragmented")]
    MustNotBeFragmented,
    /// The packet wasn't for one receiver, or not from one sender.
    #[error("the packet's source or destination doesn't name a single machine")]
    NotUnicast,
}

/// The IPv4 packet that answers this IPv4 packet, an echo request: same data, addresses swapped.
///
/// The ICMP checksum is updated and not computed again (RFC 1624), so that damaged data stays recognizable.
///
/// # Errors
/// [`IcmpError::Malformed`], [`IcmpError::NotEcho`], [`IcmpError::NotUnicast`].
pub fn echo_reply(request: &[u8]) -> Result<Vec<u8>, IcmpError> {
    let (header, payload) = parse(request)?;
    let is_icmp = header.protocol == IpNumber::ICMP && !header.is_fragmenting_payload();
    let &[icmpv4::TYPE_ECHO_REQUEST, 0, c0, c1, ref rest @ ..] = payload else {
        return Err(IcmpError::NotEcho);
    };
    if !is_icmp || rest.len() < IcmpEchoHeader::LEN {
        return Err(IcmpError::NotEcho);
    }
    if !is_single(header.source) || !is_single(header.destination) {
        return Err(IcmpError::NotUnicast);
    }
    let mut reply = Ipv4Header {
        dscp: header.dscp,
        ecn: header.ecn,
        identification: header.identification,
        ..packet_header(header.destination, header.source, payload.len())?
    };
    reply.header_checksum = reply.calc_header_checksum();
    let mut packet = reply.to_bytes().to_vec();
    packet.extend_from_slice(&[icmpv4::TYPE_ECHO_REPLY, 0]);
    packet.extend_from_slice(&updated_checksum(u16::from_be_bytes([c0, c1])).to_be_bytes());
    packet.extend_from_slice(rest);
    Ok(packet)
}

/// Header and payload of exactly the packet that the header describes, without padding.
fn parse(packet: &[u8]) -> Result<(Ipv4Header, &[u8]), IcmpError> {
    let (header, _) = Ipv4Header::from_slice(packet).map_err(|_| IcmpError::Malformed)?;
    let end = usize::from(header.total_len);
    let payload = packet
        .get(header.header_len()..end)
        .ok_or(IcmpError::Malformed)?;
    Ok((header, payload))
}

pub(crate) fn packet_header(
    source: [u8; 4],
    destination: [u8; 4],
    payload_length: usize,
) -> Result<Ipv4Header, IcmpError> {
    let length = u16::try_from(payload_length).map_err(|_| IcmpError::Malformed)?;
    Ipv4Header::new(length, ROUTER_TTL, IpNumber::ICMP, source, destination)
        .map_err(|_| IcmpError::Malformed)
}

/// The checksum after the type went from 8 to 0: one word lost 0x0800 (RFC 1624, equation 3).
fn updated_checksum(checksum: u16) -> u16 {
    let request = [icmpv4::TYPE_ECHO_REQUEST, 0];
    let gone = !u16::from_be_bytes(request);
    let sum = Sum16BitWords::new()
        .add_2bytes((!checksum).to_be_bytes())
        .add_2bytes(gone.to_be_bytes())
        .ones_complement();
    // The sum works in memory order on every machine.
    u16::from_be(sum)
}

/// Types that ask and answer; any other is an error, or unknown and treated like one (RFC 1812, 4.3.2.1).
pub(crate) const fn is_query(icmp_type: u8) -> bool {
    matches!(
        icmp_type,
        icmpv4::TYPE_ECHO_REQUEST
            | icmpv4::TYPE_ECHO_REPLY
            | icmpv4::TYPE_TIMESTAMP
            | icmpv4::TYPE_TIMESTAMP_REPLY
    )
}

pub(crate) fn is_single(address: [u8; 4]) -> bool {
    let [first, ..] = address;
    first != 0 && first != 127 && first < 224
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 32] = [
        0x45, 0x00, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0x12, 0x9e, // IPv4, ICMP
        0x0a, 0x00, 0x01, 0x0b, 0x0a, 0x00, 0x01, 0x01, // 10.0.1.11 > 10.0.1.1
        0x08, 0x00, 0xab, 0x5a, 0x00, 0x07, 0x00, 0x01, 0xde, 0xad, 0x6d, 0xef, // echo 7, 1
    ];
    const PONG: [u8; 32] = [
        0x45, 0x00, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0x12, 0x9e, //
        0x0a, 0x00, 0x01, 0x01, 0x0a, 0x00, 0x01, 0x0b, //
        0x00, 0x00, 0xb3, 0x5a, 0x00, 0x07, 0x00, 0x01, 0xde, 0xad, 0x6d, 0xef,
    ];
    #[test]
    fn a_ping_is_answered_with_its_own_data() {
        assert_eq!(echo_reply(&PING).unwrap(), PONG);
        let padded = [&PING[..], &[0; 20][..]].concat();
        assert_eq!(echo_reply(&padded).unwrap(), PONG);
    }

    #[test]
    fn the_updated_checksum_is_the_computed_one() {
        for data in 0..=u16::MAX {
            let mut icmp = PING[20..].to_vec();
            icmp[8..10].copy_from_slice(&data.to_be_bytes());
            icmp[2..4].fill(0);
            let before = Sum16BitWords::new()
                .add_slice(&icmp)
                .ones_complement()
                .to_be();
            icmp[0] = 0;
            let after = Sum16BitWords::new()
                .add_slice(&icmp)
                .ones_complement()
                .to_be();
            assert_eq!(updated_checksum(before), after, "{data:#06x}");
        }
    }

    #[test]
    fn only_whole_echo_requests_are_answered() {
        for length in 0..PING.len() {
            assert_eq!(
                echo_reply(&PING[..length]),
                Err(IcmpError::Malformed),
                "{length}"
            );
        }
        assert_eq!(echo_reply(&PONG), Err(IcmpError::NotEcho));
        let mut fragment = PING;
        fragment[6] = 0x20;
        assert_eq!(echo_reply(&fragment), Err(IcmpError::NotEcho));
        let mut to_a_group = PING;
        to_a_group[16] = 0xe0;
        assert_eq!(echo_reply(&to_a_group), Err(IcmpError::NotUnicast));
    }
}
