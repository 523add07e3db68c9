//! What of a packet a port's rule can ask for.
//!
//! No state. The same in the kernel: the flow key, whether the upper layer is known, the connection.

use super::chain::{Conditions, Connection};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::acl::{Service, State, Upper};
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

    /// The service of the network that it belongs to, if any.
    pub(super) fn service(&self) -> Option<Service> {
        let head = &self.key.head;
        let port = head.l4_dst;
        match (head.network(), self.upper()) {
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
}

impl Conditions {
    /// Whether they name a service. They must hold as well for a packet to match, so it is enough that they ask.
    pub(super) fn name(&self, service: Service) -> bool {
        match service {
            Service::Arp => self.ethertype.is_some(),
            Service::NeighbourDiscovery => self.icmp.is_some(),
            Service::Dhcp => self.src_port.is_some() || self.dst_port.is_some(),
        }
    }
}

// The kernel has the number only.
const _: () = assert!(
    Connection::New as u8 == State::New as u8
        && Connection::Established as u8 == State::Established as u8
        && Connection::Related as u8 == State::Related as u8
        && Connection::Invalid as u8 == State::Invalid as u8
);
