//! Tests of connection states and timeouts.

use super::*;

const TCP: u8 = protocol::TCP;
const UDP: u8 = protocol::UDP;
const ACK: u8 = TCP_ACK;
/// The workload's hook, and the network's.
const IN: u8 = 0;
const OUT: u8 = 1;

/// Phase and flags after packets by (hook, flags, payload), from a connection that was just opened.
fn after(flags: u8, packets: &[(u8, u8, usize)]) -> (u8, u8) {
    let start = (Phase::Opening as u8, flags);
    packets.iter().fold(start, |(phase, flags), packet| {
        let (hook, bits, payload) = *packet;
        let next = step(TCP, phase, flags, hook, Segment::new(bits, payload));
        (next.phase, next.flags)
    })
}

const SYN_ACK: (u8, u8, usize) = (OUT, TCP_SYN | ACK, 0);
const THIRD: (u8, u8, usize) = (IN, ACK, 0);

#[test]
fn the_third_packet_establishes() {
    assert_eq!(after(0, &[]), (Phase::Opening as u8, 0));
    // SYN again.
    assert_eq!(after(0, &[(IN, TCP_SYN, 0)]), (Phase::Opening as u8, 0));
    assert_eq!(after(0, &[SYN_ACK]), (Phase::Answered as u8, 0));
    assert_eq!(after(0, &[SYN_ACK, SYN_ACK]), (Phase::Answered as u8, 0));
    let again = [SYN_ACK, (IN, TCP_SYN, 0)];
    assert_eq!(after(0, &again), (Phase::Answered as u8, 0));
    assert_eq!(after(0, &[SYN_ACK, THIRD]), (Phase::Established as u8, 0));
    // Opened by the network: the same, mirrored.
    let mirrored = [(IN, TCP_SYN | ACK, 0), (OUT, ACK, 0)];
    assert_eq!(
        after(BY_NETWORK, &mirrored),
        (Phase::Established as u8, BY_NETWORK)
    );
}

#[test]
fn a_refused_syn_is_no_answer() {
    let (phase, flags) = after(0, &[(OUT, TCP_RST | ACK, 0)]);
    assert_eq!((phase, flags), (Phase::Opening as u8, RST << OUT));
    assert_eq!(timeout_secs(TCP, phase, flags), 10);
    assert!(reopens(phase, flags, false, Segment::new(TCP_SYN, 0)));
}

#[test]
fn a_reset_holds_until_the_other_side_goes_on() {
    let reset = [SYN_ACK, THIRD, (OUT, TCP_RST, 0)];
    let (phase, flags) = after(0, &reset);
    assert_eq!((phase, flags), (Phase::Established as u8, RST << OUT));
    assert_eq!(timeout_secs(TCP, phase, flags), 10);
    // More of the same side changes nothing, the other side's packet does.
    let own = [SYN_ACK, THIRD, (OUT, TCP_RST, 0), (OUT, ACK, 10)];
    assert_eq!(after(0, &own).1, RST << OUT);
    let other = [SYN_ACK, THIRD, (OUT, TCP_RST, 0), (IN, ACK, 10)];
    assert_eq!(after(0, &other), (Phase::Established as u8, 0));
    assert_eq!(timeout_secs(TCP, Phase::Established as u8, 0), 432_000);
}

#[test]
fn fin_of_both_sides_closes() {
    let fin = TCP_FIN | ACK;
    let one = [SYN_ACK, THIRD, (IN, fin, 0), (OUT, ACK, 100)];
    let (phase, flags) = after(0, &one);
    assert_eq!((phase, flags), (Phase::Established as u8, FIN));
    assert_eq!(timeout_secs(TCP, phase, flags), 120);
    assert!(!reopens(phase, flags, false, Segment::new(TCP_SYN, 0)));
    let both = [SYN_ACK, THIRD, (IN, fin, 0), (OUT, fin, 100), (IN, ACK, 0)];
    let (phase, flags) = after(0, &both);
    assert_eq!((phase, flags), (Phase::Closing as u8, FIN | FIN << OUT));
    assert_eq!(timeout_secs(TCP, phase, flags), 120);
    assert!(reopens(phase, flags, false, Segment::new(TCP_SYN, 0)));
    assert!(!reopens(phase, flags, true, Segment::new(TCP_SYN, 0)));
    assert!(!reopens(
        phase,
        flags,
        false,
        Segment::new(TCP_SYN | ACK, 0)
    ));
    let payload = [
        SYN_ACK,
        THIRD,
        (IN, fin, 0),
        (OUT, fin, 0),
        (OUT, ACK, 1),
        (IN, ACK, 1),
    ];
    assert_eq!(after(0, &payload), (Phase::Established as u8, 0));
}

#[test]
fn all_but_tcp_is_established_by_the_answer() {
    for number in [
        UDP,
        protocol::ICMP,
        protocol::ICMPV6,
        protocol::SCTP,
        protocol::GRE,
    ] {
        for opener in [IN, OUT] {
            let again = step(
                number,
                Phase::Opening as u8,
                opener,
                opener,
                Segment::default(),
            );
            assert_eq!((again.phase, again.flags), (Phase::Opening as u8, opener));
            let reply = step(
                number,
                Phase::Opening as u8,
                opener,
                1 - opener,
                Segment::default(),
            );
            assert_eq!(
                (reply.phase, reply.flags),
                (Phase::Established as u8, opener)
            );
            let more = step(number, reply.phase, opener, opener, Segment::default());
            assert_eq!(more.phase, Phase::Established as u8);
        }
    }
}

#[test]
fn what_may_open() {
    let opens = |flags| Segment::new(flags, 0).may_open();
    assert!(opens(TCP_SYN));
    // ECN's two bits (RFC 3168).
    assert!(opens(TCP_SYN | 0xc0));
    assert!(opens(ACK));
    for flags in [
        0,
        TCP_RST,
        TCP_RST | ACK,
        TCP_SYN | ACK,
        TCP_FIN | ACK,
        TCP_SYN | TCP_FIN,
    ] {
        assert!(!opens(flags), "{flags:#x}");
    }
}

#[test]
fn timeouts_are_linuxs() {
    let opening = Phase::Opening as u8;
    let established = Phase::Established as u8;
    assert_eq!(timeout_secs(TCP, opening, 0), 120);
    assert_eq!(timeout_secs(TCP, Phase::Answered as u8, 0), 60);
    assert_eq!(timeout_secs(UDP, opening, 0), 30);
    assert_eq!(timeout_secs(UDP, established, 0), 120);
    assert_eq!(timeout_secs(protocol::ICMP, established, 0), 30);
    assert_eq!(timeout_secs(protocol::ICMPV6, opening, 0), 30);
    assert_eq!(timeout_secs(protocol::SCTP, established, 0), 600);
    // Never earlier than it says.
    for secs in [10_u64, 30, 120, 432_000] {
        let units = [
            timeout_units(TCP, opening, RST),
            timeout_units(UDP, opening, 0),
            timeout_units(UDP, established, 0),
            timeout_units(TCP, established, 0),
        ];
        let found = units.iter().any(|units| {
            let least = (u64::from(*units) << SEEN_SHIFT) / 1_000_000_000;
            (secs..=secs + 2).contains(&least)
        });
        assert!(found, "{secs}");
    }
}
