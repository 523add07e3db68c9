//! Word to a sender whose packet is larger than its way (RFC 1191): from the router that the packet came to, or on
//! a bridge in the name of the receiver, as there is nobody else whom the sender knows.
//!
//! No state. Called by the agent for packets that fail a flow's size guard.

use crate::packet::{Entry, Packet};
use crate::simulate::{Emission, Origin, Outcome};
use crate::snapshot::Snapshot;
use crate::{DeviceId, Mac, PortId};
use std::net::Ipv4Addr;
use weft_common::Network;
use weft_common::frame::ETHERTYPE_IPV4;
use weft_wire::{ethernet, icmp};

/// The answer to a workload whose IPv4 packet must not be fragmented and is larger than the `mtu` bytes that fit.
/// None for all that isn't answered: other protocols, packets that may be fragmented, errors, later fragments.
pub fn too_big(
    snapshot: &Snapshot,
    packet: &Packet<'_>,
    outcome: &Outcome,
    mtu: u16,
) -> Option<Emission> {
    let Entry::Workload(port) = packet.entry else {
        return None;
    };
    if packet.key.head.network() != Network::Ipv4 || packet.key.head.vlan != 0 {
        return None;
    }
    let from = if outcome.ttl_decrement > 0 {
        first_router(snapshot, port, Mac(packet.key.head.dst_mac))?
    } else {
        Ipv4Addr::from(packet.key.dst_v4())
    };
    let error = icmp::fragmentation_needed(from, packet.network_bytes(), mtu).ok()?;
    let (to, source) = (packet.key.head.src_mac, packet.key.head.dst_mac);
    Some(Emission {
        origin: Origin::ToPort(port),
        frame: ethernet::frame(to, source, ETHERTYPE_IPV4, &error),
    })
}

/// Address of the router port that a workload's packet came to.
fn first_router(snapshot: &Snapshot, ingress: PortId, mac: Mac) -> Option<Ipv4Addr> {
    let DeviceId::Bridge(bridge) = snapshot.port(ingress)?.device else {
        return snapshot.port(ingress)?.ipv4_addresses().next();
    };
    let seed = snapshot.flood_domain_of(bridge)?.seeds.get(&mac)?;
    snapshot.port(seed.owner)?.ipv4_addresses().next()
}
