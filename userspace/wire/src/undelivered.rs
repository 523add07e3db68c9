//! Word to the sender of a packet that goes no further: the ICMP errors of both families (RFC 792, RFC 1812 section
//! 4.3, RFC 4443 section 3), and when there must be none.
//!
//! No state. Called where a router refuses a packet, and where one is too large for its way.

use crate::icmp::{IcmpError, ROUTER_TTL, is_query, is_single, packet_header};
use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::icmpv6::{self, DestUnreachableCode, ParameterProblemCode, ParameterProblemHeader};
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpNumber, Ipv4Header, Ipv6Header,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest IPv4 packet that carries an error (RFC 1812, 4.3.2.3).
pub const ERROR_BYTES_MAX_V4: usize = 576;
/// Largest IPv6 packet that carries an error: the least MTU (RFC 4443, 2.4(c)).
pub const ERROR_BYTES_MAX_V6: usize = 1280;
/// Precedence "internetwork control", which errors should have (RFC 1812, 4.3.2.5), as a DSCP.
const ERROR_DSCP: u8 = 0x30;
/// Extension headers that are looked through for what a packet carries.
const EXTENSIONS_MAX: usize = 8;

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Its TTL or hop limit ended on the way: v4 11/0, v6 3/0.
    TimeExceeded,
    /// No route leads to its destination: v4 3/0 (net unreachable), v6 1/0.
    NoRoute,
    /// A route refuses its destination: v4 3/13, v6 1/1, as `ip route add prohibit` says it.
    Prohibited,
    /// Its next hop can't be reached: v4 3/1 (host unreachable), v6 1/3 (address unreachable).
    HostUnreachable,
    /// Its destination has no such protocol: v4 3/2, v6 4/1 (parameter problem: unknown next header).
    ProtocolUnreachable,
    /// Nothing listens there: v4 3/3, v6 1/4.
    PortUnreachable,
    /// It is larger than what its way carries: v4 3/4 (RFC 1191, section 4), v6 2/0.
    TooBig {
        /// Bytes of the largest L3 packet that fits.
        mtu: u16,
    },
}

/// The packet from `from` that tells the sender of the IP packet `about` why it goes no further. It quotes as much as
/// fits into [`ERROR_BYTES_MAX_V4`] or [`ERROR_BYTES_MAX_V6`] bytes.
///
/// # Errors
/// All but [`IcmpError::NotEcho`]: RFC 1812, 4.3.2.7, and RFC 4443, 2.4(e), say what is never answered. The caller
/// knows whether the frame was for a group. [`IcmpError::Malformed`] when `from` is of the other family.
pub fn report(from: IpAddr, about: &[u8], why: Undelivered) -> Result<Vec<u8>, IcmpError> {
    match from {
        IpAddr::V4(from) => report_v4(from, about, why),
        IpAddr::V6(from) => report_v6(from, about, why),
    }
}

fn report_v4(from: Ipv4Addr, about: &[u8], why: Undelivered) -> Result<Vec<u8>, IcmpError> {
    let (header, _) = Ipv4Header::from_slice(about).map_err(|_| IcmpError::Malformed)?;
    // Segments that the kernel will cut are longer than what came up: a quote needs their beginning only.
    let packet = &about[..about.len().min(usize::from(header.total_len))];
    let payload = packet
        .get(header.header_len()..)
        .ok_or(IcmpError::Malformed)?;
    if header.fragment_offset.value() != 0 {
        return Err(IcmpError::LaterFragment);
    }
    if !is_single(header.source) || !is_single(header.destination) {
        return Err(IcmpError::NotUnicast);
    }
    if header.protocol == IpNumber::ICMP && !payload.first().is_some_and(|&it| is_query(it)) {
        return Err(IcmpError::AboutError);
    }
    if matches!(why, Undelivered::TooBig { .. }) && !header.dont_fragment {
        return Err(IcmpError::MayBeFragmented);
    }
    let room = ERROR_BYTES_MAX_V4 - Ipv4Header::MIN_LEN - Icmpv4Header::MIN_LEN;
    let quote = &packet[..packet.len().min(room)];
    let icmp = Icmpv4Header::with_checksum(type_v4(why), quote);
    let length = Icmpv4Header::MIN_LEN + quote.len();
    let mut outer = packet_header(from.octets(), header.source, length)?;
    outer.dscp = IpDscp::try_new(ERROR_DSCP).map_err(|_| IcmpError::Malformed)?;
    outer.header_checksum = outer.calc_header_checksum();
    Ok([&outer.to_bytes()[..], &icmp.to_bytes()[..], quote].concat())
}

fn type_v4(why: Undelivered) -> Icmpv4Type {
    use DestUnreachableHeader as Code;
    let code = match why {
        Undelivered::TimeExceeded => {
            return Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit);
        }
        Undelivered::NoRoute => Code::Network,
        Undelivered::Prohibited => Code::FilterProhibited,
        Undelivered::HostUnreachable => Code::Host,
        Undelivered::ProtocolUnreachable => Code::Protocol,
        Undelivered::PortUnreachable => Code::Port,
        Undelivered::TooBig { mtu } => Code::FragmentationNeeded { next_hop_mtu: mtu },
    };
    Icmpv4Type::DestinationUnreachable(code)
}

fn report_v6(from: Ipv6Addr, about: &[u8], why: Undelivered) -> Result<Vec<u8>, IcmpError> {
    let (header, rest) = Ipv6Header::from_slice(about).map_err(|_| IcmpError::Malformed)?;
    let length = rest.len().min(usize::from(header.payload_length));
    let packet = &about[..Ipv6Header::LEN + length];
    let (source, destination) = (
        Ipv6Addr::from_octets(header.source),
        Ipv6Addr::from_octets(header.destination),
    );
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return Err(IcmpError::NotUnicast);
    }
    // RFC 4443, 2.4(e.3): the way to a group has an MTU, too.
    if destination.is_multicast() && !matches!(why, Undelivered::TooBig { .. }) {
        return Err(IcmpError::NotUnicast);
    }
    let carried = Carried::find(packet, header.next_header.0)?;
    if carried.protocol == IpNumber::IPV6_ICMP.0 {
        let icmp_type = packet.get(carried.offset).ok_or(IcmpError::Malformed)?;
        if is_error_v6(*icmp_type) {
            return Err(IcmpError::AboutError);
        }
    }
    let room = ERROR_BYTES_MAX_V6 - Ipv6Header::LEN - Icmpv6Header::MIN_LEN;
    let quote = &packet[..packet.len().min(room)];
    let kind = type_v6(why, carried.named_at);
    let icmp = Icmpv6Header::with_checksum(kind, from.octets(), header.source, quote)
        .map_err(|_| IcmpError::Malformed)?;
    let outer = Ipv6Header {
        payload_length: (Icmpv6Header::MIN_LEN + quote.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: ROUTER_TTL,
        source: from.octets(),
        destination: header.source,
        ..Ipv6Header::default()
    };
    Ok([&outer.to_bytes()[..], &icmp.to_bytes()[..], quote].concat())
}

fn type_v6(why: Undelivered, named_at: u32) -> Icmpv6Type {
    use DestUnreachableCode as Code;
    let code = match why {
        Undelivered::TimeExceeded => {
            return Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded);
        }
        Undelivered::TooBig { mtu } => return Icmpv6Type::PacketTooBig { mtu: mtu.into() },
        Undelivered::ProtocolUnreachable => {
            return Icmpv6Type::ParameterProblem(ParameterProblemHeader {
                code: ParameterProblemCode::UnrecognizedNextHeader,
                pointer: named_at,
            });
        }
        Undelivered::NoRoute => Code::NoRoute,
        Undelivered::Prohibited => Code::Prohibited,
        Undelivered::HostUnreachable => Code::Address,
        Undelivered::PortUnreachable => Code::Port,
    };
    Icmpv6Type::DestinationUnreachable(code)
}

/// What an IPv6 packet carries behind its extension headers (RFC 8200, 4).
struct Carried {
    protocol: u8,
    /// Where it begins.
    offset: usize,
    /// Where the byte is that names it.
    named_at: u32,
}

impl Carried {
    fn find(packet: &[u8], first: u8) -> Result<Carried, IcmpError> {
        let mut carried = Carried {
            protocol: first,
            offset: Ipv6Header::LEN,
            named_at: 6,
        };
        for _ in 0..EXTENSIONS_MAX {
            let Some(extension) = packet.get(carried.offset..) else {
                return Err(IcmpError::Malformed);
            };
            let length = match (IpNumber(carried.protocol), extension) {
                (IpNumber::IPV6_FRAGMENTATION_HEADER, &[_, _, high, low, ..]) => {
                    if u16::from_be_bytes([high, low]) >> 3 != 0 {
                        return Err(IcmpError::LaterFragment);
                    }
                    8
                }
                (IpNumber::AUTHENTICATION_HEADER, &[_, words, ..]) => (usize::from(words) + 2) * 4,
                (
                    IpNumber::IPV6_HEADER_HOP_BY_HOP
                    | IpNumber::IPV6_ROUTE_HEADER
                    | IpNumber::IPV6_DESTINATION_OPTIONS,
                    &[_, words, ..],
                ) => (usize::from(words) + 1) * 8,
                _ => return Ok(carried),
            };
            carried.protocol = extension[0];
            carried.named_at = carried.offset as u32;
            carried.offset += length;
        }
        Err(IcmpError::Malformed)
    }
}

/// Errors, of kinds that aren't known, too; and redirects (RFC 4443, 2.1 and 2.4(e.2)).
const fn is_error_v6(icmp_type: u8) -> bool {
    const REDIRECT: u8 = 137;
    icmp_type < 128 || icmp_type == REDIRECT
}

#[cfg(test)]
mod tests;
