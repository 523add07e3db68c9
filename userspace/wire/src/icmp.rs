//! ICMP for IPv4 as a router speaks it (RFC 792, RFC 1812 section 4.3): echo replies, time exceeded and
//! fragmentation needed.
//!
//! No state. Called where a router answers a ping or can't forward a packet.

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, IpNumber, Ipv4Header, checksum::Sum16BitWords, icmpv4,
};
use std::net::Ipv4Addr;

/// Largest packet that carries an error (RFC 1812, 4.3.2.3).
pub const ERROR_BYTES_MAX: usize = 576;
/// TTL of packets that a router makes.
pub const ROUTER_TTL: u8 = 64;
/// Precedence "internetwork control", which errors should have (RFC 1812, 4.3.2.5), as a DSCP.
const ERROR_DSCP: u8 = 0x30;

/// Why there is no ICMP packet for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IcmpError {
    /// It isn't a whole IPv4 packet.
    #[error("the packet is cut short or isn't IPv4")]
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

/// The IPv4 packet from `router` that tells the sender of `expired` that its TTL ended on the way.
///
/// It quotes as much as fits into [`ERROR_BYTES_MAX`] (RFC 1812, 4.3.2.3).
///
/// # Errors
/// All but [`IcmpError::NotEcho`]: see RFC 1812, 4.3.2.7.
pub fn time_exceeded(router: Ipv4Addr, expired: &[u8]) -> Result<Vec<u8>, IcmpError> {
    let code = icmpv4::TimeExceededCode::TtlExceededInTransit;
    error(router, expired, Icmpv4Type::TimeExceeded(code))
}

/// The IPv4 packet from `from` that tells the sender of `packet`, which must not be fragmented, how many bytes its
/// way carries (RFC 1191, section 4).
///
/// # Errors
/// As [`time_exceeded`], and [`IcmpError::MayBeFragmented`].
pub fn fragmentation_needed(
    from: Ipv4Addr,
    packet: &[u8],
    next_hop_mtu: u16,
) -> Result<Vec<u8>, IcmpError> {
    if !parse(packet)?.0.dont_fragment {
        return Err(IcmpError::MayBeFragmented);
    }
    let why = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
    error(from, packet, Icmpv4Type::DestinationUnreachable(why))
}

/// An error about a packet, which it quotes.
fn error(router: Ipv4Addr, about: &[u8], kind: Icmpv4Type) -> Result<Vec<u8>, IcmpError> {
    let (header, payload) = parse(about)?;
    if header.fragment_offset.value() != 0 {
        return Err(IcmpError::LaterFragment);
    }
    if !is_single(header.source) || !is_single(header.destination) {
        return Err(IcmpError::NotUnicast);
    }
    if header.protocol == IpNumber::ICMP && !payload.first().is_some_and(|&it| is_query(it)) {
        return Err(IcmpError::AboutError);
    }
    let whole = header.header_len() + payload.len();
    let room = ERROR_BYTES_MAX - Ipv4Header::MIN_LEN - Icmpv4Header::MIN_LEN;
    let quote = &about[..whole.min(room)];
    let icmp = Icmpv4Header::with_checksum(kind, quote);
    let length = Icmpv4Header::MIN_LEN + quote.len();
    let mut outer = packet_header(router.octets(), header.source, length)?;
    outer.dscp = etherparse::IpDscp::try_new(ERROR_DSCP).map_err(|_| IcmpError::Malformed)?;
    outer.header_checksum = outer.calc_header_checksum();
    let mut packet = outer.to_bytes().to_vec();
    packet.extend_from_slice(&icmp.to_bytes());
    packet.extend_from_slice(quote);
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

fn packet_header(
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
const fn is_query(icmp_type: u8) -> bool {
    matches!(
        icmp_type,
        icmpv4::TYPE_ECHO_REQUEST
            | icmpv4::TYPE_ECHO_REPLY
            | icmpv4::TYPE_TIMESTAMP
            | icmpv4::TYPE_TIMESTAMP_REPLY
    )
}

fn is_single(address: [u8; 4]) -> bool {
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
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

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

    #[test]
    fn fragmentation_needed_says_how_much_fits() {
        let error = fragmentation_needed(ROUTER, &PING, 1458).unwrap();
        // Type 3, code 4, unused, next-hop MTU (RFC 1191, section 4), then the packet.
        assert_eq!(error[20..22], [3, 4]);
        assert_eq!(error[24..28], [0, 0, 0x05, 0xb2]);
        assert_eq!(error[28..], PING);
        let mut divisible = PING;
        divisible[6] = 0;
        assert_eq!(
            fragmentation_needed(ROUTER, &divisible, 1458),
            Err(IcmpError::MayBeFragmented)
        );
    }

    #[test]
    fn time_exceeded_quotes_the_packet() {
        let error = time_exceeded(ROUTER, &PING).unwrap();
        let expected = [
            0x45, 0xc0, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x23, 0xf6, //
            0x0a, 0x00, 0x01, 0x01, 0x0a, 0x00, 0x01, 0x0b, //
            0x0b, 0x00, 0xf4, 0xff, 0x00, 0x00, 0x00, 0x00,
        ];
        assert_eq!(error, [&expected[..], &PING[..]].concat());
    }

    #[test]
    fn a_quote_ends_at_576_bytes() {
        let mut long = [0_u8; 1500];
        long[..32].copy_from_slice(&PING);
        long[2..4].copy_from_slice(&1500_u16.to_be_bytes());
        let error = time_exceeded(ROUTER, &long).unwrap();
        assert_eq!(error.len(), ERROR_BYTES_MAX);
        assert_eq!(error[28..], long[..548]);
    }

    #[test]
    fn errors_fragments_and_groups_cause_no_errors() {
        let error = time_exceeded(ROUTER, &PING).unwrap();
        assert_eq!(time_exceeded(ROUTER, &error), Err(IcmpError::AboutError));
        let mut later = PING;
        later[7] = 1;
        assert_eq!(time_exceeded(ROUTER, &later), Err(IcmpError::LaterFragment));
        for (index, byte) in [(12, 0xe0), (12, 0), (16, 0xe0), (16, 0xff)] {
            let mut nobody = PING;
            nobody[index] = byte;
            assert_eq!(time_exceeded(ROUTER, &nobody), Err(IcmpError::NotUnicast));
        }
    }
}
