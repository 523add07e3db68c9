//! What of a packet a port's rule can ask for.
//!
//! No state. The same in the kernel: the flow key, whether the upper layer is known, the connection.

use super::chain::{Conditions, Connection};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::frame::protocol;
use weft_common::{FlowKey, Network};

/// A packet as its port's chains see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its headers; a later fragment's with the ports of the first one, where that is known.
    pub key: FlowKey,
    /// Whether the key's L4 fields are the packet's: false for a later fragment whose first one is unknown.
    pub upper_known: bool,
    /// State of its connection.
    pub state: Connection,
}

/// Packets without which a workload has no network: only a rule that names them matches them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Service {
    /// ARP; named by an Ethernet type.
    Arp = 1,
    /// Neighbour discovery and router advertisements (RFC 4861); named by an ICMP type.
    NeighbourDiscovery = 2,
    /// DHCP of either family; named by a port.
    Dhcp = 3,
}

/// What the L4 fields of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upper {
    /// Nothing that a rule asks for, or not known.
    Other,
    /// Ports of TCP, UDP or SCTP.
    Ports,
    /// Type and code of ICMP.
    Icmp,
    /// Type and code of ICMPv6.
    Icmpv6,
}

impl View {
    /// Whether it is IPv4 or IPv6.
    pub(super) fn is_ip(&self) -> bool {
        matches!(self.key.head.network(), Network::Ipv4 | Network::Ipv6)
    }

    /// What its L4 fields are.
    pub(super) fn upper(&self) -> Upper {
        if !self.is_ip() || !self.upper_known {
            return Upper::Other;
        }
        match self.key.head.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => Upper::Ports,
            protocol::ICMP => Upper::Icmp,
            protocol::ICMPV6 => Upper::Icmpv6,
            _ => Upper::Other,
        }
    }

    /// Its Ethernet type.
    pub(super) fn ethertype(&self) -> u16 {
        match self.key.head.network() {
            Network::Ipv4 => weft_common::frame::ETHERTYPE_IPV4,
            Network::Arp => weft_common::frame::ETHERTYPE_ARP,
            Network::Ipv6 => weft_common::frame::ETHERTYPE_IPV6,
            Network::Other => self.key.head.l4_src,
        }
    }

    /// Source and destination of IP, sender and target of ARP.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self.key.head.network() {
            Network::Ipv4 | Network::Arp => Some((
                Ipv4Addr::from(self.key.src_v4()).into(),
                Ipv4Addr::from(self.key.dst_v4()).into(),
            )),
            Network::Ipv6 => Some((
                Ipv6Addr::from(self.key.src).into(),
                Ipv6Addr::from(self.key.dst).into(),
            )),
            Network::Other => None,
        }
    }
}

impl Service {
    /// All of them.
    pub(super) const ALL: [Service; 3] = [Service::Arp, Service::NeighbourDiscovery, Service::Dhcp];

    /// Which one a packet is of.
    pub fn of(view: &View) -> Option<Service> {
        let head = &view.key.head;
        let port = head.l4_dst;
        match (head.network(), view.upper()) {
            (Network::Arp, _) => Some(Service::Arp),
            (Network::Ipv6, Upper::Icmpv6) => {
                let is_discovery = (133..=137).contains(&(head.l4_src >> 8));
                is_discovery.then_some(Service::NeighbourDiscovery)
            }
            (Network::Ipv4, Upper::Ports) if head.protocol == protocol::UDP => {
                matches!(port, 67 | 68).then_some(Service::Dhcp)
            }
            (Network::Ipv6, Upper::Ports) if head.protocol == protocol::UDP => {
                matches!(port, 546 | 547).then_some(Service::Dhcp)
            }
            _ => None,
        }
    }

    /// Whether these conditions name it. They must hold as well for a packet to match, so it is enough that they ask.
    pub fn is_named_by(self, conditions: &Conditions) -> bool {
        match self {
            Service::Arp => conditions.ethertype.is_some(),
            Service::NeighbourDiscovery => conditions.icmp.is_some(),
            Service::Dhcp => conditions.src_port.is_some() || conditions.dst_port.is_some(),
        }
    }
}
