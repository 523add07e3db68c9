//! Connections of a port with chains: made, promoted, judged again, forgotten.

use crate::bench::{OTHER, PORT, with_bench};
use crate::zone::{
    ACK, IN, Network, OUT, SYN, SYN_ACK, Workload, Zone, echo, echo_v6, error_about, piece,
    replies, rule, stateful, tcp, tcp_v6, udp, udp_v6, udp_v6_behind_options,
};
use weft_common::DropReason;
use weft_common::connection::{BY_NETWORK, FIN, Phase, Quota, RST, TCP_FIN, TCP_RST};
use weft_vnet::policy::{Action, Connection as State};

const OPENING: u8 = Phase::Opening as u8;
const ANSWERED: u8 = Phase::Answered as u8;
const ESTABLISHED: u8 = Phase::Established as u8;

#[test]
fn tcp_is_established_by_the_third_packet() {
    for v6 in [false, true] {
        with_bench(move |bench| {
            let mut zone = Zone::new(bench, stateful(Some(80)), replies());
            let make = if v6 { tcp_v6 } else { tcp };
            // Nobody asked.
            assert!(!zone.passes(Network, &make(Network, SYN_ACK, 0)));
            assert!(!zone.passes(Network, &make(Network, SYN, 0)));
            assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 2);
            assert_eq!(zone.counts(), (0, 0));
            assert!(zone.passes(Workload, &make(Workload, SYN, 0)));
            assert_eq!((zone.counts(), zone.phase()), ((1, 0), OPENING));
            assert!(zone.passes(Network, &make(Network, SYN_ACK, 0)));
            assert!(zone.passes(Network, &make(Network, ACK, 0)));
            assert_eq!((zone.counts(), zone.phase()), ((1, 0), ANSWERED));
            assert!(zone.passes(Workload, &make(Workload, ACK, 0)));
            assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
            for _ in 0..2 {
                assert!(zone.passes(Workload, &make(Workload, ACK, 10)));
                assert!(zone.passes(Network, &make(Network, ACK, 10)));
            }
            let [sent, received] = zone.only().traffic;
            assert_eq!((sent.packets, received.packets), (4, 4));
            let frame = make(Workload, SYN, 0).len() as u64;
            assert_eq!(sent.bytes, 4 * frame + 20);
            assert_eq!(zone.only().flags, 0);
        });
    }
}

#[test]
fn the_network_may_open_what_egress_chains_accept() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, replies(), stateful(Some(40_000)));
        assert!(zone.passes(Network, &tcp(Network, SYN, 0)));
        assert_eq!(zone.only().flags, BY_NETWORK);
        assert!(zone.passes(Workload, &tcp(Workload, SYN_ACK, 0)));
        assert!(zone.passes(Network, &tcp(Network, ACK, 0)));
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
        // Its own chains let the workload answer, not ask.
        assert!(!zone.passes(Workload, &udp(Workload)));
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyIngress), 1);
    });
}

#[test]
fn all_but_tcp_is_established_by_the_answer() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let pairs = [
            (udp(Workload), udp(Network)),
            (echo(Workload, true), echo(Network, false)),
            (udp_v6(Workload), udp_v6(Network)),
            (echo_v6(Workload, true), echo_v6(Network, false)),
        ];
        for (number, (ask, answer)) in pairs.into_iter().enumerate() {
            assert!(!zone.passes(Network, &answer), "{number}");
            assert!(zone.passes(Workload, &ask));
            assert!(zone.passes(Workload, &ask));
            assert_eq!(zone.counts(), (1, number), "{number}");
            assert!(zone.passes(Network, &answer), "{number}");
            assert_eq!(zone.counts(), (0, number + 1), "{number}");
            assert!(zone.passes(Workload, &ask));
        }
    });
}

/// Either side may ask with the same identifier, and an answer belongs to who asked.
#[test]
fn pings_both_ways_are_two_connections() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        assert!(zone.passes(Workload, &echo(Workload, true)));
        assert!(!zone.passes(Network, &echo(Network, true)));
        zone.acl(OUT, stateful(None));
        // Nobody asks by an answer.
        let mut other = echo(Network, false);
        other[38] ^= 1;
        assert!(!zone.passes(Network, &other));
        assert!(zone.passes(Network, &echo(Network, true)));
        assert_eq!(zone.counts(), (2, 0));
        assert!(zone.passes(Network, &echo(Network, false)));
        assert_eq!(zone.counts(), (1, 1));
        assert!(zone.passes(Workload, &echo(Workload, false)));
        assert_eq!(zone.counts(), (0, 2));
    });
}

/// The second of two packets that are alike has its slot from the connection, not from the flow table: without the flow
/// it still goes.
#[test]
fn an_established_packet_needs_its_connection_only() {
    for v6 in [false, true] {
        with_bench(move |bench| {
            let mut zone = Zone::new(bench, stateful(None), replies());
            let make = if v6 { udp_v6 } else { udp };
            assert!(zone.passes(Workload, &make(Workload)));
            assert!(zone.passes(Network, &make(Network)));
            assert!(zone.passes(Workload, &make(Workload)));
            let slot = zone.only().target;
            assert_ne!(slot.slot, 0);
            zone.forget_flows();
            assert!(zone.passes(Workload, &make(Workload)));
            // Another TOS is another packet to the flows.
            let mut other = make(Workload);
            other[15] ^= 0x10;
            assert!(!zone.passes(Workload, &other));
            assert_eq!(zone.bench.misses().len(), 1);
            assert!(zone.passes(Workload, &make(Workload)));
            // A slot that was given to another decision is none.
            let (table, kernel) = (&mut zone.bench.table, &mut zone.bench.kernel);
            table.retire(kernel, slot, 0);
            assert!(!zone.passes(Workload, &make(Workload)));
        });
    }
}

#[test]
fn a_new_epoch_judges_the_first_packet_again() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(Some(80)), replies());
        zone.handshake();
        // The same chains: nothing but the stamps changes.
        zone.set_policy(PORT, IN, OUT, 2);
        assert!(zone.passes(Network, &tcp(Network, ACK, 1)));
        assert_eq!((zone.only().opened, zone.only().passed), (2, [1, 2]));
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 1)));
        assert_eq!((zone.only().opened, zone.only().passed), (2, [2, 2]));
        // Now port 80 isn't accepted any more, but what is established is: by a reply, and by the opener's own.
        for from in [Network, Workload] {
            zone.acl(IN, stateful(Some(81)));
            zone.set_policy(PORT, IN, OUT, 3);
            assert_eq!(zone.counts(), (0, 1));
            // Cut for both sides: the other one's packets don't open it again from there.
            for other in [from, Network, Workload] {
                assert!(!zone.passes(other, &tcp(other, ACK, 1)));
                assert_eq!(zone.counts(), (0, 1));
            }
            zone.acl(IN, stateful(Some(80)));
            zone.set_policy(PORT, IN, OUT, 4);
            assert!(zone.passes(from, &tcp(from, ACK, 1)), "allowed again");
        }
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyIngress), 6);
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 0);
    });
}

/// Mirrored: the network opened it, and the workload's packet makes the egress chain judge again.
#[test]
fn a_new_epoch_judges_at_the_hook_that_admitted() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, replies(), stateful(Some(40_000)));
        for (ask, answer) in [
            (udp(Network), udp(Workload)),
            (udp_v6(Network), udp_v6(Workload)),
            (tcp(Network, SYN, 0), tcp(Workload, SYN_ACK, 0)),
        ] {
            zone.acl(OUT, stateful(Some(40_000)));
            assert!(zone.passes(Network, &ask));
            assert!(zone.passes(Workload, &answer));
            zone.set_policy(PORT, IN, OUT, 2);
            assert!(zone.passes(Workload, &answer));
            zone.acl(OUT, stateful(Some(41_000)));
            zone.set_policy(PORT, IN, OUT, 3);
            assert!(!zone.passes(Workload, &answer));
            assert!(!zone.passes(Network, &ask));
        }
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 6);
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyIngress), 0);
        zone.acl(OUT, stateful(None));
        zone.set_policy(PORT, IN, OUT, 4);
        assert!(zone.passes(Network, &echo(Network, true)));
        zone.set_policy(PORT, IN, OUT, 5);
        assert!(zone.passes(Workload, &echo(Workload, false)));
    });
}

/// What a chain reads besides the tuple is asked for each packet; nothing of it is noted.
#[test]
fn a_chain_that_reads_more_is_asked_for_each_packet() {
    with_bench(|bench| {
        let mut gold = rule(&[State::Established], None, Action::Accept);
        gold.matches.tos = Some(vec![0xb8]);
        let rules = vec![gold, rule(&[State::New], None, Action::Accept)];
        let rules = [rules, vec![rule(&[], None, Action::Drop)]].concat();
        let mut zone = Zone::new(bench, rules, replies());
        assert!(zone.passes(Workload, &udp(Workload)));
        assert!(zone.passes(Network, &udp(Network)));
        let mut marked = udp(Workload);
        marked[15] = 0xb8;
        for _ in 0..2 {
            assert!(!zone.passes(Workload, &udp(Workload)));
            assert!(zone.passes(Workload, &marked));
        }
        assert_eq!(zone.only().passed[0], 0);
    });
}

/// Nothing is implicit: without a rule for it, a reply is refused, and so is the opener's next packet.
#[test]
fn established_is_a_condition() {
    with_bench(|bench| {
        let new_only = || {
            vec![
                rule(&[State::New], None, Action::Accept),
                rule(&[], None, Action::Drop),
            ]
        };
        let mut zone = Zone::new(bench, new_only(), new_only());
        assert!(zone.passes(Workload, &udp(Workload)));
        assert!(!zone.passes(Workload, &udp(Workload)));
        assert!(!zone.passes(Network, &udp(Network)));
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyIngress), 1);
        assert_eq!(zone.bench.drops(PORT, DropReason::PolicyEgress), 1);
        assert_eq!(zone.counts(), (1, 0));
    });
}

/// A hook without chains lets all pass, and the port is tracked all the same.
#[test]
fn a_port_with_one_chain_is_tracked_in_both_directions() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, vec![], replies());
        zone.set_policy(PORT, 0, OUT, 1);
        assert!(!zone.passes(Network, &udp(Network)));
        assert!(zone.passes(Workload, &udp(Workload)));
        assert!(zone.passes(Network, &udp(Network)));
        zone.set_policy(PORT, 0, 0, 0);
        assert!(zone.passes(Network, &tcp(Network, SYN, 0)));
        assert!(zone.passes(Workload, &tcp(Workload, SYN, 0)));
        assert_eq!(zone.counts(), (0, 1));
    });
}

#[test]
fn a_reset_is_undone_by_the_other_side() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        zone.handshake();
        assert!(zone.passes(Network, &tcp(Network, TCP_RST, 0)));
        assert_eq!(zone.only().flags, RST << 1);
        assert!(zone.passes(Network, &tcp(Network, ACK, 10)));
        assert_eq!(zone.only().flags, RST << 1);
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 10)));
        assert_eq!(zone.only().flags, 0);
    });
}

/// Linux's TIME_WAIT: the opener's SYN begins anew, as a new connection, and nothing else does.
#[test]
fn a_closed_connection_is_opened_again_by_a_syn() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(Some(80)), replies());
        zone.handshake();
        let fin = TCP_FIN | ACK;
        assert!(zone.passes(Workload, &tcp(Workload, fin, 0)));
        assert_eq!((zone.phase(), zone.only().flags), (ESTABLISHED, FIN));
        assert!(zone.passes(Network, &tcp(Network, ACK, 100)));
        assert!(zone.passes(Network, &tcp(Network, fin, 0)));
        assert_eq!(zone.phase(), Phase::Closing as u8);
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 0)));
        assert!(zone.passes(Network, &tcp(Network, SYN, 0)));
        assert_eq!(
            (zone.counts(), zone.phase()),
            ((0, 1), Phase::Closing as u8)
        );
        assert!(zone.passes(Workload, &tcp(Workload, SYN, 0)));
        assert_eq!((zone.counts(), zone.phase()), ((1, 0), OPENING));
        assert_eq!(zone.only().flags, 0);
        assert!(zone.passes(Network, &tcp(Network, SYN_ACK, 0)));
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 0)));
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
        // A SYN in the middle is only a packet.
        assert!(zone.passes(Workload, &tcp(Workload, SYN, 0)));
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
    });
}

/// As Linux with `nf_conntrack_tcp_loose`: a connection that was there before the chains goes on.
#[test]
fn a_connection_is_picked_up_in_its_middle() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(Some(80)), replies());
        for flags in [TCP_RST, TCP_RST | ACK, TCP_FIN | ACK, SYN_ACK, 0] {
            assert!(!zone.passes(Workload, &tcp(Workload, flags, 0)), "{flags}");
        }
        assert_eq!(zone.counts(), (0, 0));
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 10)));
        assert_eq!((zone.counts(), zone.phase()), ((1, 0), OPENING));
        assert!(zone.passes(Network, &tcp(Network, ACK, 10)));
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 10)));
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
    });
}

#[test]
fn an_expired_connection_is_none() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let ask = |zone: &mut Zone| assert!(zone.passes(Workload, &udp(Workload)));
        ask(&mut zone);
        zone.age(20);
        assert!(zone.passes(Network, &udp(Network)));
        // 120 seconds are 112 units.
        zone.age(105);
        assert!(zone.passes(Network, &udp(Network)));
        zone.age(120);
        assert!(!zone.passes(Network, &udp(Network)));
        assert_eq!(zone.counts(), (0, 0));
        ask(&mut zone);
        zone.age(40);
        ask(&mut zone);
        assert_eq!(zone.only().traffic[0].packets, 1);
    });
}

#[test]
fn an_icmp_error_belongs_to_the_connection_that_it_is_about() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let asked = [
            udp(Workload),
            tcp(Workload, SYN, 0),
            echo(Workload, true),
            udp_v6(Workload),
            tcp_v6(Workload, SYN, 0),
            echo_v6(Workload, true),
        ];
        for (number, frame) in asked.iter().enumerate() {
            let error = error_about(Network, frame);
            assert!(!zone.passes(Network, &error), "{number}");
            assert!(zone.passes(Workload, frame), "{number}");
            assert!(zone.passes(Network, &error), "{number}");
            // About another packet, and to somebody else than its sender.
            let mut other = error.clone();
            let at = if error[12] == 8 { 33 } else { 53 };
            other[at] ^= 0x40;
            assert!(!zone.passes(Network, &other), "{number}");
            let mut other = error.clone();
            let upper = if error[12] == 8 { 62 } else { 102 };
            other[upper + 1] ^= 1;
            other[upper + 5] ^= 1;
            assert!(!zone.passes(Network, &other), "{number}");
        }
        assert_eq!(zone.counts(), (asked.len(), 0));
        // The workload tells of a reply that it didn't want.
        let error = error_about(Workload, &udp(Network));
        assert!(zone.passes(Workload, &error));
        let error = error_about(Workload, &echo_v6(Network, false));
        assert!(zone.passes(Workload, &error));
        assert!(!zone.passes(Workload, &error_about(Workload, &echo_v6(Network, true))));
    });
}

#[test]
fn a_later_fragment_is_of_its_first_ones_connection() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), stateful(None));
        // Its first one isn't known: it is invalid, not new.
        assert!(!zone.passes(Workload, &piece(Workload, false)));
        assert!(!zone.passes(Network, &piece(Network, false)));
        assert_eq!(zone.counts(), (0, 0));
        zone.acl(IN, stateful(Some(53)));
        zone.acl(OUT, replies());
        assert!(zone.passes(Workload, &piece(Workload, true)));
        assert!(zone.passes(Workload, &piece(Workload, false)));
        assert_eq!(zone.only().traffic[0].packets, 2);
        assert!(zone.passes(Network, &piece(Network, true)));
        assert!(zone.passes(Network, &piece(Network, false)));
        assert_eq!(zone.only().traffic[1].packets, 2);
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
    });
}

#[test]
fn extension_headers_change_nothing() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(Some(53)), replies());
        assert!(!zone.passes(Network, &udp_v6_behind_options(Network)));
        assert!(zone.passes(Workload, &udp_v6_behind_options(Workload)));
        assert!(zone.passes(Network, &udp_v6_behind_options(Network)));
        assert!(zone.passes(Network, &udp_v6(Network)));
        assert_eq!((zone.counts(), zone.phase()), ((0, 1), ESTABLISHED));
    });
}

#[test]
fn a_tenant_has_as_many_connections_as_it_may() {
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        let quota = |opened, limit| Quota { opened, limit };
        zone.set_quota(PORT, 7, quota(10, 11));
        assert!(zone.passes(Workload, &udp(Workload)));
        assert!(zone.passes(Network, &udp(Network)));
        assert_eq!(zone.quota(7), quota(11, 11));
        // SYNs that are answered take none; the third packet does.
        assert!(zone.passes(Workload, &tcp(Workload, SYN, 0)));
        assert!(zone.passes(Network, &tcp(Network, SYN_ACK, 0)));
        assert!(!zone.passes(Workload, &tcp(Workload, ACK, 0)));
        assert_eq!(zone.bench.drops(PORT, DropReason::ConnectionQuota), 1);
        assert_eq!((zone.counts(), zone.quota(7)), ((1, 1), quota(11, 11)));
        // What is established goes on.
        assert!(zone.passes(Network, &udp(Network)));
        zone.set_quota(PORT, 7, quota(11, 12));
        assert!(zone.passes(Workload, &tcp(Workload, ACK, 0)));
        assert_eq!((zone.counts(), zone.quota(7)), ((0, 2), quota(12, 12)));
    });
}

#[test]
fn a_flood_of_syns_displaces_none_that_is_established() {
    const SYNS: u32 = 200_000;
    with_bench(|bench| {
        let mut zone = Zone::new(bench, stateful(None), replies());
        zone.handshake();
        let mut frame = tcp(Workload, SYN, 0);
        for number in 0..SYNS {
            frame[26..30].copy_from_slice(&(0x0b00_0000 + number).to_be_bytes());
            zone.bench.run("from_port", &frame);
        }
        let (half_open, established) = zone.counts();
        assert_eq!(established, 1);
        assert!((1000..=1 << 16).contains(&half_open), "{half_open}");
        assert!(zone.passes(Network, &tcp(Network, ACK, 1)));
    });
}

/// Each port is a zone of its own.
#[test]
fn two_ports_on_a_host_are_two_zones() {
    with_bench(|bench| {
        const THIRD: u16 = 3;
        let mut zone = Zone::new(bench, stateful(None), replies());
        zone.add_port(THIRD);
        zone.set_policy(THIRD, IN, OUT, 1);
        assert!(zone.passes(Workload, &udp(Workload)));
        assert!(zone.arrives(PORT, &udp(Network)));
        assert!(!zone.arrives(THIRD, &udp(Network)));
        assert_eq!(zone.bench.drops(THIRD, DropReason::PolicyEgress), 1);
        // The packet of one workload for another on this host is judged by both ports.
        zone.set_policy(OTHER, IN, OUT, 1);
        assert!(!zone.passes(Workload, &udp(Workload)));
        assert_eq!(zone.bench.drops(OTHER, DropReason::PolicyEgress), 1);
        zone.acl(OUT, stateful(None));
        zone.set_policy(OTHER, IN, OUT, 2);
        assert!(zone.passes(Workload, &udp(Workload)));
        assert_eq!(zone.counts(), (1, 1));
    });
}
