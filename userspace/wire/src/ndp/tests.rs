//! Neighbour discovery, byte for byte as RFC 4861, section 4, lays it out.

use super::*;

const ASKER: [u8; 6] = [2, 0, 0, 0, 1, 0x0b];
const OWNER: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// fd00:1::b asks ff02::1:ff00:1 who has fd00:1::1.
const SOLICITATION: [u8; 72] = [
    0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6, 32 bytes of ICMPv6, hop limit 255
    0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b, //
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1, //
    135, 0, 0x7c, 0x83, 0, 0, 0, 0, //
    0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
    1, 1, 2, 0, 0, 0, 1, 0x0b, // source link-layer address
];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The packet after a change, with a checksum that is right again.
fn changed(packet: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = packet.to_vec();
    change(&mut packet);
    packet[42..44].fill(0);
    let length = ((packet.len() - 40) as u32).to_be_bytes();
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&packet[8..40])
        .add_4bytes(length)
        .add_2bytes([0, 58])
        .add_slice(&packet[40..])
        .ones_complement();
    packet[42..44].copy_from_slice(&sum.to_ne_bytes());
    packet
}

#[test]
fn a_solicitation_has_these_bytes() {
    let question = Nd::solicitation(ip("fd00:1::b"), ASKER, ip("fd00:1::1"));
    assert_eq!(question.emit(), SOLICITATION);
    assert_eq!(Nd::parse(&SOLICITATION), Ok(question.clone()));
    assert_eq!(question.to_string(), "fd00:1::b who-has fd00:1::1");
    let frame = question.frame([0x33, 0x33, 0xff, 0, 0, 1], ASKER);
    let header = [0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 1, 0x0b, 0x86, 0xdd];
    assert_eq!(frame, [&header[..], &SOLICITATION[..]].concat());
    let padded = [&SOLICITATION[..], &[0; 4]].concat();
    assert_eq!(Nd::parse(&padded), Ok(question));
}

#[test]
fn the_answer_is_to_the_asker_and_that_of_a_probe_to_all() {
    let answer = Nd::advertisement(ip("fd00:1::1"), OWNER, true, ip("fd00:1::b"));
    let bytes = answer.emit();
    let expected = [
        0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // target
        2, 1, 2, 0, 0, 0, 1, 1, // target link-layer address
    ];
    // Router, solicited, override.
    assert_eq!((bytes[40], bytes[44]), (136, 0xe0));
    assert_eq!(bytes[48..], expected);
    assert_eq!(Nd::parse(&bytes), Ok(answer.clone()));
    assert_eq!(answer.to_string(), "fd00:1::1 is-at 02:00:00:00:01:01");
    let to_all = Nd::advertisement(ip("fd00:1::c"), OWNER, false, Ipv6Addr::UNSPECIFIED);
    assert_eq!(to_all.destination, ALL_NODES);
    let bytes = to_all.emit();
    assert_eq!(bytes[44], 0x20);
    assert_eq!(Nd::parse(&bytes), Ok(to_all));
}

#[test]
fn a_router_advertises_itself_its_mtu_and_its_prefixes() {
    let prefix = PrefixInformation {
        prefix_length: 64,
        on_link: true,
        autonomous_address_configuration: true,
        valid_lifetime: 86_400,
        preferred_lifetime: 14_400,
        prefix: ip("fd00:1::").octets(),
    };
    let router = Nd {
        source: ip("fe80::ff:fe00:101"),
        destination: ALL_NODES,
        message: Message::RouterAdvertisement(RouterAdvertisement {
            hop_limit: 64,
            lifetime_secs: 1800,
            source_mac: Some(OWNER),
            mtu: Some(1458),
            prefixes: vec![prefix],
        }),
    };
    let bytes = router.emit();
    let expected = [
        64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, // hop limit, flags, lifetime, timers
        1, 1, 2, 0, 0, 0, 1, 1, // source link-layer address
        5, 1, 0, 0, 0, 0, 0x05, 0xb2, // MTU 1458
        3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0, // on-link, autonomous
        0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!((bytes[40], bytes[41]), (134, 0));
    assert_eq!(bytes[44..], expected);
    assert_eq!(Nd::parse(&bytes), Ok(router.clone()));
    let said = "fe80::ff:fe00:101 is a router for 1800 s, prefix fd00:1::/64";
    assert_eq!(router.to_string(), said);
    let elsewhere = changed(&bytes, |it| it[8] = 0x20);
    let refused = NdError::Addresses("a router that isn't link-local");
    assert_eq!(Nd::parse(&elsewhere), Err(refused));
}

#[test]
fn a_host_asks_for_routers() {
    let question = Nd {
        source: Ipv6Addr::UNSPECIFIED,
        destination: ALL_ROUTERS,
        message: Message::RouterSolicitation { source_mac: None },
    };
    let bytes = question.emit();
    assert_eq!((bytes.len(), bytes[40]), (48, 133));
    assert_eq!(Nd::parse(&bytes), Ok(question));
}

#[test]
fn what_is_cut_is_refused() {
    for length in 0..SOLICITATION.len() {
        assert_eq!(Nd::parse(&SOLICITATION[..length]), Err(NdError::Malformed));
    }
}

#[test]
fn what_the_rfc_refuses_is_refused() {
    let hop_limit = changed(&SOLICITATION, |it| it[7] = 254);
    let refused = Err(NdError::HopLimit { hop_limit: 254 });
    assert_eq!(Nd::parse(&hop_limit), refused);
    let mut checksum = SOLICITATION;
    checksum[43] ^= 1;
    assert_eq!(Nd::parse(&checksum), Err(NdError::Checksum));
    let (icmp_type, code) = (135, 1);
    let with_code = changed(&SOLICITATION, |it| it[41] = code);
    let refused = Err(NdError::Type { icmp_type, code });
    assert_eq!(Nd::parse(&with_code), refused);
    let redirect = changed(&SOLICITATION, |it| it[40] = 137);
    assert!(Nd::parse(&redirect).is_err());
    let ping = changed(&SOLICITATION, |it| it[40] = 128);
    assert!(matches!(Nd::parse(&ping), Err(NdError::Type { .. })));
    let group = changed(&SOLICITATION, |it| it[48] = 0xff);
    assert_eq!(Nd::parse(&group), Err(NdError::GroupTarget));
    let no_length = changed(&SOLICITATION, |it| it[65] = 0);
    assert_eq!(Nd::parse(&no_length), Err(NdError::Option));
    let too_long = changed(&SOLICITATION, |it| it[65] = 2);
    assert_eq!(Nd::parse(&too_long), Err(NdError::Option));
    let fragment = changed(&SOLICITATION, |it| it[6] = 44);
    assert_eq!(Nd::parse(&fragment), Err(NdError::Malformed));
}

#[test]
fn a_probe_comes_from_nobody_and_says_so() {
    let from_nobody = changed(&SOLICITATION, |it| it[8..24].fill(0));
    let refused = NdError::Addresses("a MAC for the unspecified address");
    assert_eq!(Nd::parse(&from_nobody), Err(refused));
    let probe = changed(&from_nobody[..64], |it| it[5] = 24);
    let expected = Nd {
        source: Ipv6Addr::UNSPECIFIED,
        destination: ip("ff02::1:ff00:1"),
        message: Message::NeighbourSolicitation {
            target: ip("fd00:1::1"),
            source_mac: None,
        },
    };
    assert_eq!(Nd::parse(&probe), Ok(expected));
    let elsewhere = changed(&probe, |it| it[39] = 2);
    let refused = NdError::Addresses("a probe outside of the target's group");
    assert_eq!(Nd::parse(&elsewhere), Err(refused));
}

#[test]
fn groups_of_addresses() {
    let group = solicited_node(ip("fd00:1::12:3456"));
    assert_eq!(group, ip("ff02::1:ff12:3456"));
}
