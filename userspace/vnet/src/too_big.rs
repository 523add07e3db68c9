//! What becomes of a packet that is larger than its way: its sender is told (RFC 1191, RFC 8201), by the router that
//! the packet came to, or on a bridge in the name of the receiver, as there is nobody else whom the sender knows; or
//! it is divided, if it is IPv4 and may be (RFC 791).
//!
//! No state. Called by the agent for packets that fail a flow's size guard.

use crate::device::router::known_as;
use crate::packet::{Entry, Packet};
use crate::simulate::{Emission, Origin, Outcome};
use crate::snapshot::Snapshot;
use crate::{DeviceId, Mac, PortId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::Network;
use weft_common::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weft_wire::{Undelivered, ethernet, fragment, undelivered};

/// What is done with a packet that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TooBig {
    /// Its sender is told.
    Tell(Emission),
    /// These frames go its way instead of it.
    Divide(Vec<Vec<u8>>),
    /// Nothing: it is no IP packet, or one about which nobody is told.
    Drop,
}

/// What becomes of a workload's packet that is larger than the `mtu` bytes that fit.
pub fn too_big(snapshot: &Snapshot, packet: &Packet<'_>, outcome: &Outcome, mtu: u16) -> TooBig {
    let bytes = packet.network_bytes();
    let head = &packet.key.head;
    let (source, destination, ethertype) = match head.network() {
        Network::Ipv4 => (
            IpAddr::from(Ipv4Addr::from(packet.key.src_v4())),
            IpAddr::from(Ipv4Addr::from(packet.key.dst_v4())),
            ETHERTYPE_IPV4,
        ),
        Network::Ipv6 => (
            Ipv6Addr::from_octets(packet.key.src).into(),
            Ipv6Addr::from_octets(packet.key.dst).into(),
            ETHERTYPE_IPV6,
        ),
        Network::Arp | Network::Other => return TooBig::Drop,
    };
    let Entry::Workload(port) = packet.entry else {
        return divide(packet, mtu);
    };
    // What came as a group's frame is answered to nobody (RFC 1122, 3.2.2), and a tag isn't kept in answers.
    let is_answered = head.vlan == 0 && !Mac(head.dst_mac).is_group();
    let from = if outcome.ttl_decrement == 0 {
        Some(destination)
    } else {
        first_router(snapshot, port, Mac(head.dst_mac), source)
    };
    let told = from.map(|from| undelivered::report(from, bytes, Undelivered::TooBig { mtu }));
    match told {
        Some(Ok(error)) if is_answered => TooBig::Tell(Emission {
            origin: Origin::ToPort(port),
            frame: ethernet::frame(head.src_mac, head.dst_mac, ethertype, &error),
        }),
        _ => divide(packet, mtu),
    }
}

/// The frames with the pieces of an IPv4 packet, each behind the packet's own Ethernet header.
fn divide(packet: &Packet<'_>, mtu: u16) -> TooBig {
    let l3 = usize::from(packet.headers.l3_offset);
    let (Network::Ipv4, Some(ethernet)) = (packet.key.head.network(), packet.frame.get(..l3))
    else {
        return TooBig::Drop;
    };
    match fragment::fragments(packet.network_bytes(), usize::from(mtu)) {
        Ok(pieces) => {
            let framed = pieces.iter().map(|piece| [ethernet, piece].concat());
            TooBig::Divide(framed.collect())
        }
        Err(_) => TooBig::Drop,
    }
}

/// The address by which the sender knows the router to whose port its packet came.
fn first_router(snapshot: &Snapshot, ingress: PortId, mac: Mac, sender: IpAddr) -> Option<IpAddr> {
    let port = snapshot.port(ingress)?;
    let DeviceId::Bridge(bridge) = port.device else {
        return known_as(port, sender);
    };
    let seed = snapshot.flood_domain_of(bridge)?.seeds.get(&mac)?;
    known_as(snapshot.port(seed.owner)?, sender)
}
