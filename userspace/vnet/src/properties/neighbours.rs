//! The table that the kernel answers by, held against what is answered.

use super::{CASES, addresses, addresses_v6, decide, dice, topology};
use crate::neighbours::{Neighbour, answered_under, asks_unheard, neighbours};
use crate::snapshot::Snapshot;
use crate::{Emission, Entry, FlowState, Mac, Origin, Outcome, Packet, Port, Verdict};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use weft_wire::{Arp, Nd};

/// A question of a port's workload, asked out of `sender`, and the frame that answers it.
fn question(port: &Port, sender: IpAddr, target: IpAddr, to: Option<Mac>) -> Option<Vec<u8>> {
    let own = port.mac.0;
    match (sender, target) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            let to = to.unwrap_or(Mac::BROADCAST);
            Some(Arp::request(own, sender, target).frame(to.0))
        }
        (IpAddr::V6(sender), IpAddr::V6(target)) => {
            let mut nd = Nd::solicitation(sender, own, target);
            let group = Mac::of_group(nd.destination);
            if to.is_some() {
                nd.destination = target;
            }
            Some(nd.frame(to.unwrap_or(group).0, own))
        }
        _ => None,
    }
}

fn answer(port: &Port, sender: IpAddr, target: IpAddr, by: &Neighbour) -> Option<Vec<u8>> {
    match (sender, target) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            let request = Arp::request(port.mac.0, sender, target);
            Some(request.answered_by(by.mac.0).frame(port.mac.0))
        }
        (IpAddr::V6(sender), IpAddr::V6(target)) => {
            let nd = Nd::advertisement(target, by.mac.0, by.is_router, sender);
            Some(nd.frame(port.mac.0, by.mac.0))
        }
        _ => None,
    }
}

/// What comes back to the port, if the network answers and learns nothing.
fn heard(snapshot: &Snapshot, port: &Port, outcome: &Outcome) -> Option<Vec<u8>> {
    if outcome.verdict != Verdict::Answered || !outcome.writes.is_empty() {
        return None;
    }
    let [Emission { origin, frame }] = &outcome.emit[..] else {
        return None;
    };
    match *origin {
        Origin::ToPort(to) => (to == port.id).then(|| frame.clone()),
        Origin::Device(from) => {
            let packet = Packet::parse(Entry::Device(from), 0, frame, None).ok()?;
            let sent = decide(snapshot, &FlowState::default(), &packet);
            let is_whole = sent.macs.is_none() && sent.writes.is_empty();
            (sent.verdict == Verdict::Deliver(port.id) && is_whole).then(|| frame.clone())
        }
        Origin::Workload(_) | Origin::Router(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// What the table has is answered like that, and what it doesn't have isn't answered.
    #[test]
    fn the_table_is_what_is_answered(mut dice in dice()) {
        let topology = topology(&mut dice);
        let snapshot = topology.snapshot();
        for port in topology.model.ports.values() {
            let Some(domain) = asks_unheard(&snapshot, port) else { continue };
            let table: BTreeMap<IpAddr, Neighbour> = neighbours(&snapshot, domain).collect();
            let on_link: [IpAddr; 1] = [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99).into()];
            let own = port.addresses.iter().map(|it| it.address).chain(on_link);
            let strangers = ["10.0.0.250", "fd00::250"].map(|it| it.parse::<IpAddr>().unwrap());
            let senders: Vec<IpAddr> = own.chain(strangers).collect();
            let pool = addresses().into_iter().map(IpAddr::V4);
            let pool = pool.chain(addresses_v6().into_iter().map(IpAddr::V6));
            let targets: Vec<IpAddr> = pool.chain(table.keys().copied()).collect();
            for (sender, target) in senders.iter().flat_map(|sender| targets.iter().map(|it| (*sender, *it))) {
                if sender == target {
                    continue;
                }
                let simulated = |to| {
                    let frame = question(port, sender, target, to)?;
                    let packet = Packet::parse(Entry::Workload(port.id), 1, &frame, None).ok()?;
                    Some(decide(&snapshot, &topology.state, &packet))
                };
                let Some(outcome) = simulated(None) else { continue };
                let by = table.get(&target).filter(|it| it.owner != port.id);
                let expected = by.and_then(|by| answer(port, sender, target, by));
                prop_assert_eq!(heard(&snapshot, port, &outcome), expected.clone(), "{} > {}", sender, target);
                let Some(by) = by else { continue };
                let is_known = matches!(sender, IpAddr::V6(it) if it.is_unicast_link_local())
                    || table.contains_key(&sender);
                let is_heard = by.hears && is_known && answered_under(domain, port).is_some();
                if sender.is_ipv4() || is_heard {
                    let outcome = simulated(Some(by.mac)).unwrap();
                    prop_assert_eq!(heard(&snapshot, port, &outcome), expected, "{} > {} at its MAC", sender, target);
                }
            }
        }
    }
}
