//! Errors held against bytes of the RFCs, and against a checksum computed by hand.

use super::*;
use etherparse::checksum::Sum16BitWords;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
/// 10.0.1.11 > 10.0.1.1, don't fragment, echo request 7, sequence 1.
const PING: [u8; 32] = [
    0x45, 0x00, 0x00, 0x20, 0x12, 0x34, 0x40, 0x00, 0x40, 0x01, 0x12, 0x9e, //
    0x0a, 0x00, 0x01, 0x0b, 0x0a, 0x00, 0x01, 0x01, //
    0x08, 0x00, 0xab, 0x5a, 0x00, 0x07, 0x00, 0x01, 0xde, 0xad, 0x6d, 0xef,
];
const ALL: [Undelivered; 7] = [
    Undelivered::TimeExceeded,
    Undelivered::NoRoute,
    Undelivered::Prohibited,
    Undelivered::HostUnreachable,
    Undelivered::ProtocolUnreachable,
    Undelivered::PortUnreachable,
    Undelivered::TooBig { mtu: 1458 },
];

fn v4(about: &[u8], why: Undelivered) -> Result<Vec<u8>, IcmpError> {
    report(ROUTER.into(), about, why)
}

fn v6(about: &[u8], why: Undelivered) -> Result<Vec<u8>, IcmpError> {
    report(ROUTER_V6.into(), about, why)
}

/// fd00:1::b > fd00:2::b with these extension headers and this behind them.
fn packet_v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next_header, 64];
    packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    packet.extend("fd00:1::b".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend("fd00:2::b".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend_from_slice(rest);
    packet
}

/// UDP 40000 > 33434 without a checksum.
const UDP: [u8; 8] = [0x9c, 0x40, 0x82, 0x9a, 0, 8, 0, 0];

fn sum_v4(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement()
}

/// RFC 8200, 8.1.
fn sum_v6(packet: &[u8]) -> u16 {
    Sum16BitWords::new()
        .add_slice(&packet[8..40])
        .add_4bytes(((packet.len() - 40) as u32).to_be_bytes())
        .add_2bytes([0, 58])
        .add_slice(&packet[40..])
        .ones_complement()
}

#[test]
fn time_exceeded_quotes_the_packet() {
    let error = v4(&PING, Undelivered::TimeExceeded).unwrap();
    let expected = [
        0x45, 0xc0, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x23, 0xf6, //
        0x0a, 0x00, 0x01, 0x01, 0x0a, 0x00, 0x01, 0x0b, //
        0x0b, 0x00, 0xf4, 0xff, 0x00, 0x00, 0x00, 0x00,
    ];
    assert_eq!(error, [&expected[..], &PING[..]].concat());
}

#[test]
fn each_reason_has_its_type_and_code() {
    let codes_v4 = [(11, 0), (3, 0), (3, 13), (3, 1), (3, 2), (3, 3), (3, 4)];
    let codes_v6 = [(3, 0), (1, 0), (1, 1), (1, 3), (4, 1), (1, 4), (2, 0)];
    let udp = packet_v6(17, &UDP);
    for ((why, code_v4), code_v6) in ALL.into_iter().zip(codes_v4).zip(codes_v6) {
        let error = v4(&PING, why).unwrap();
        assert_eq!((error[20], error[21]), code_v4, "{why:?}");
        assert_eq!((sum_v4(&error[..20]), sum_v4(&error[20..])), (0, 0));
        assert_eq!(error[28..], PING);
        let error = v6(&udp, why).unwrap();
        assert_eq!((error[40], error[41]), code_v6, "{why:?}");
        assert_eq!(sum_v6(&error), 0, "{why:?}");
        assert_eq!(error[8..24], ROUTER_V6.octets());
        assert_eq!(error[24..40], udp[8..24]);
        assert_eq!(error[48..], udp);
    }
}

#[test]
fn too_big_says_how_much_fits() {
    let why = Undelivered::TooBig { mtu: 1458 };
    // RFC 1191, section 4: unused, next-hop MTU. RFC 4443, 3.2: 32 bits of MTU.
    assert_eq!(v4(&PING, why).unwrap()[24..28], [0, 0, 0x05, 0xb2]);
    let error = v6(&packet_v6(17, &UDP), why).unwrap();
    assert_eq!(error[44..48], [0, 0, 0x05, 0xb2]);
    let mut divisible = PING;
    divisible[6] = 0;
    assert_eq!(v4(&divisible, why), Err(IcmpError::MayBeFragmented));
}

#[test]
fn a_quote_ends_where_the_largest_error_does() {
    let mut long = [0_u8; 1500];
    long[..32].copy_from_slice(&PING);
    long[2..4].copy_from_slice(&1500_u16.to_be_bytes());
    let error = v4(&long, Undelivered::NoRoute).unwrap();
    assert_eq!(error.len(), ERROR_BYTES_MAX_V4);
    assert_eq!(error[28..], long[..548]);
    let long = packet_v6(17, &[7; 1460]);
    let error = v6(&long, Undelivered::NoRoute).unwrap();
    assert_eq!(error.len(), ERROR_BYTES_MAX_V6);
    assert_eq!(error[48..], long[..1232]);
    assert_eq!(error[4..6], 1240_u16.to_be_bytes());
    assert_eq!(sum_v6(&error), 0);
}

#[test]
fn padding_is_not_quoted() {
    let padded = [&PING[..], &[0; 14]].concat();
    assert_eq!(v4(&padded, ALL[0]), v4(&PING, ALL[0]));
    let udp = packet_v6(17, &UDP);
    let padded = [&udp[..], &[0; 14]].concat();
    assert_eq!(v6(&padded, ALL[0]), v6(&udp, ALL[0]));
}

#[test]
fn errors_fragments_and_groups_cause_no_errors() {
    for why in ALL {
        let error = v4(&PING, why).unwrap();
        assert_eq!(v4(&error, why), Err(IcmpError::AboutError));
        let mut later = PING;
        later[7] = 1;
        assert_eq!(v4(&later, why), Err(IcmpError::LaterFragment));
        for (index, byte) in [(12, 0xe0), (12, 0), (12, 127), (16, 0xe0), (16, 0xff)] {
            let mut nobody = PING;
            nobody[index] = byte;
            assert_eq!(v4(&nobody, why), Err(IcmpError::NotUnicast));
        }
    }
}

#[test]
fn errors_fragments_and_groups_cause_no_errors_v6() {
    for why in ALL {
        let udp = packet_v6(17, &UDP);
        let error = v6(&udp, why).unwrap();
        assert_eq!(v6(&error, why), Err(IcmpError::AboutError));
        let redirect = packet_v6(58, &[137, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(v6(&redirect, why), Err(IcmpError::AboutError));
        let echo = packet_v6(58, &[128, 0, 0, 0, 0, 7, 0, 1]);
        assert!(v6(&echo, why).is_ok());
        let later = packet_v6(44, &[17, 0, 0, 0x10, 0, 0, 0, 1, 9, 9]);
        assert_eq!(v6(&later, why), Err(IcmpError::LaterFragment));
        let first = packet_v6(44, &[&[17, 0, 0, 1, 0, 0, 0, 1], &UDP[..]].concat());
        assert!(v6(&first, why).is_ok());
        for address in ["::", "::1", "ff02::1"] {
            let mut nobody = udp.clone();
            nobody[8..24].copy_from_slice(&address.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(v6(&nobody, why), Err(IcmpError::NotUnicast), "{address}");
        }
        let mut to_a_group = udp;
        to_a_group[24] = 0xff;
        let is_told = matches!(why, Undelivered::TooBig { .. });
        assert_eq!(v6(&to_a_group, why).is_ok(), is_told);
    }
}

/// Hop-by-hop and destination options, then an error: it isn't one for being behind them.
#[test]
fn errors_are_found_behind_extension_headers() {
    let options = [60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0];
    let error = [&options[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let error = packet_v6(0, &error);
    assert_eq!(v6(&error, ALL[0]), Err(IcmpError::AboutError));
    let authenticated = [58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 3, 0, 0, 0];
    let error = packet_v6(51, &authenticated);
    assert_eq!(v6(&error, ALL[0]), Err(IcmpError::AboutError));
    let endless = packet_v6(0, &[0; 8 * 12]);
    assert_eq!(v6(&endless, ALL[0]), Err(IcmpError::Malformed));
    let cut = packet_v6(0, &[58, 4]);
    assert_eq!(v6(&cut, ALL[0]), Err(IcmpError::Malformed));
}

/// RFC 4443, 3.4: the pointer names the byte that isn't understood.
#[test]
fn an_unknown_protocol_is_pointed_at() {
    let plain = v6(&packet_v6(132, &[0; 12]), Undelivered::ProtocolUnreachable).unwrap();
    assert_eq!(plain[44..48], [0, 0, 0, 6]);
    let options = [132, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3, 4];
    let behind = v6(&packet_v6(0, &options), Undelivered::ProtocolUnreachable).unwrap();
    assert_eq!(behind[44..48], [0, 0, 0, 40]);
}

#[test]
fn what_is_not_of_the_routers_family_is_refused() {
    assert_eq!(v6(&PING, ALL[0]), Err(IcmpError::Malformed));
    assert_eq!(v4(&packet_v6(17, &UDP), ALL[0]), Err(IcmpError::Malformed));
    for length in 0..20 {
        assert_eq!(v4(&PING[..length], ALL[0]), Err(IcmpError::Malformed));
    }
}
