//! What the sender of a packet is told that a port's chain rejects: a TCP reset, else ICMP administratively prohibited.
//!
//! No state. It seems to come from where the packet was to go, as a host that nobody listens on, or a filter in front of
//! it, would answer (RFC 9293 3.10.7.1, RFC 792 and RFC 1812 5.2.7.1, RFC 4443 3.1).

use super::validate::Hook;
use crate::id::PortId;
use crate::packet::Packet;
use crate::simulate::{Emission, Origin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::Network;
use weft_common::frame::protocol;
use weft_wire::{Undelivered, tcp, undelivered};

/// The answer to a packet that the port's chains of this hook reject; none for what isn't answered: no IP, errors,
/// later fragments, groups.
pub fn answer_to_rejected(packet: &Packet<'_>, port: PortId, hook: Hook) -> Option<Emission> {
    let key = &packet.key;
    let own = match key.head.network() {
        Network::Ipv4 => IpAddr::from(Ipv4Addr::from(key.dst_v4())),
        Network::Ipv6 => IpAddr::from(Ipv6Addr::from(key.dst)),
        Network::Arp | Network::Other => return None,
    };
    let about = packet.network_bytes();
    let answer = match key.head.protocol {
        protocol::TCP => tcp::reset(about)?,
        _ => undelivered::report(own, about, Undelivered::Prohibited).ok()?,
    };
    let header = packet
        .frame
        .get(12..usize::from(packet.headers.l3_offset))?;
    let (to, from) = (key.head.src_mac, key.head.dst_mac);
    Some(Emission {
        origin: match hook {
            Hook::Ingress => Origin::ToPort(port),
            Hook::Egress => Origin::Workload(port),
        },
        frame: [&to[..], &from[..], header, &answer].concat(),
    })
}
