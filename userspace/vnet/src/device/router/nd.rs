//! Neighbour discovery of a router (RFC 4861): it asks for next hops, answers for its own addresses, hears who says
//! where it is, and advertises itself.
//!
//! No state. Called by the router device, by the bridge in the name of the routers behind it, and for the agent.
//! What such packets say isn't in the key: every one of them is decided by itself.

use super::{At, learn, origin};
use crate::mac::Mac;
use crate::model::Port;
use crate::simulate::{Cause, Emission, Origin};
use crate::snapshot::{FloodDomain, Snapshot};
use crate::tag::Tag;
use crate::trace::TraceSink;
use crate::walk::Next;
use std::net::{IpAddr, Ipv6Addr};
use weft_common::DropReason;
use weft_wire::Nd;
use weft_wire::icmp::ROUTER_TTL;
use weft_wire::ndp::{
    ALL_NODES, Message, PrefixInformation, RouterAdvertisement, icmp_type, solicited_node,
};

/// Seconds for which hosts use a router (RFC 4861, 6.2.1: AdvDefaultLifetime). Several times the pause between
/// advertisements, so that hosts may miss some.
const ROUTER_LIFETIME_SECS: u16 = 1800;
/// Seconds for which an address of an advertised prefix is valid, and for which it is used for new connections. A
/// prefix that leaves the topology is forgotten within a day.
const PREFIX_VALID_SECS: u32 = 86_400;
const PREFIX_PREFERRED_SECS: u32 = 14_400;
/// Length of prefixes from which hosts on Ethernet make themselves addresses (RFC 2464, 4).
const AUTONOMOUS_PREFIX: u8 = 64;

/// Whether packets of this ICMPv6 type are neighbour discovery that bridges and routers take part in.
pub(crate) const fn is_discovery(kind: u8) -> bool {
    matches!(
        kind,
        icmp_type::ROUTER_SOLICITATION
            | icmp_type::NEIGHBOUR_SOLICITATION
            | icmp_type::NEIGHBOUR_ADVERTISEMENT
    )
}

/// The question who has `address`, out of this port; none when the port has no IPv6 address.
pub(super) fn solicitation(port: &Port, address: Ipv6Addr) -> Option<Emission> {
    let inside = port
        .networks()
        .find(|network| network.contains(&IpAddr::V6(address)));
    let sender = match inside.map(|network| network.addr()) {
        Some(IpAddr::V6(own)) => own,
        _ => port.link_local()?,
    };
    let group = Mac::of_group(solicited_node(address));
    let frame = Nd::solicitation(sender, port.mac.0, address).frame(group.0, port.mac.0);
    Some(Emission {
        origin: origin(port),
        frame,
    })
}

/// What a router's port says of itself and its link to the workload on `to`; none when the port has no IPv6 address.
pub(crate) fn advertisement(port: &Port, mtu: Option<u16>, to: Origin) -> Option<Emission> {
    let source = port.link_local()?;
    let prefix = |network: ipnet::IpNet| match network.trunc() {
        ipnet::IpNet::V6(net) => Some(PrefixInformation {
            prefix_length: net.prefix_len(),
            on_link: true,
            autonomous_address_configuration: net.prefix_len() == AUTONOMOUS_PREFIX,
            valid_lifetime: PREFIX_VALID_SECS,
            preferred_lifetime: PREFIX_PREFERRED_SECS,
            prefix: net.addr().octets(),
        }),
        ipnet::IpNet::V4(_) => None,
    };
    let message = Message::RouterAdvertisement(RouterAdvertisement {
        hop_limit: ROUTER_TTL,
        lifetime_secs: ROUTER_LIFETIME_SECS,
        source_mac: Some(port.mac.0),
        mtu: mtu.map(u32::from),
        prefixes: port.networks().filter_map(prefix).collect(),
    });
    let nd = Nd {
        source,
        destination: ALL_NODES,
        message,
    };
    Some(Emission {
        origin: to,
        frame: nd.frame(Mac::of_group(ALL_NODES).0, port.mac.0),
    })
}

/// What the routers of a flood domain say of themselves, in order of their ports' ids.
pub(crate) fn advertisements(
    snapshot: &Snapshot,
    domain: &FloodDomain,
    to: Origin,
) -> Vec<Emission> {
    let ports = domain
        .router_ports
        .iter()
        .filter_map(|id| snapshot.port(*id));
    let up = ports.filter(|port| port.admin_up);
    let mtu = snapshot.overlay_mtu();
    up.filter_map(|port| advertisement(port, mtu, to)).collect()
}

/// The answer to who asked for `target`, in a frame to the MAC that asked; that to a probe is for everyone.
pub(crate) fn answer(target: Ipv6Addr, mac: Mac, router: bool, asker: (Ipv6Addr, Mac)) -> Vec<u8> {
    let nd = Nd::advertisement(target, mac.0, router, asker.0);
    let destination = if nd.destination.is_multicast() {
        Mac::of_group(nd.destination)
    } else {
        asker.1
    };
    nd.frame(destination.0, mac.0)
}

impl<T: TraceSink> At<'_, '_, T> {
    /// An IPv6 packet to a group, on a port without a bridge.
    pub(super) fn group(&mut self) -> Next {
        match self.walk.icmp_type() {
            Some((kind, _)) if is_discovery(kind) => self.discovery(),
            _ => {
                let cause = Some(Cause::Port(self.port.id));
                self.walk.drop(DropReason::NotForRouter, cause)
            }
        }
    }

    /// Neighbour discovery that reached the router itself.
    pub(super) fn discovery(&mut self) -> Next {
        let cause = Some(Cause::Port(self.port.id));
        let nd = match self.walk.nd() {
            Ok(nd) => nd,
            Err(error) => {
                self.tell(|_| format!("bad neighbour discovery: {error}"));
                return self.walk.drop_once(DropReason::BadNd, cause);
            }
        };
        match nd.message {
            Message::NeighbourSolicitation { target, source_mac } => {
                if !self.port.has_address(target.into()) {
                    return self.walk.drop_once(DropReason::RouterLocal, cause);
                }
                self.tell(|_| format!("answers: {nd}"));
                let asker = (nd.source, Mac(self.walk.packet.key.head.src_mac));
                self.walk.emit(Emission {
                    origin: origin(self.port),
                    frame: answer(target, self.port.mac, true, asker),
                });
                if let Some(mac) = source_mac {
                    learn(self.walk, self.port, nd.source.into(), Mac(mac));
                }
            }
            Message::NeighbourAdvertisement {
                router: _,
                solicited,
                replaces,
                target,
                target_mac,
            } => {
                self.tell(|_| format!("hears: {nd}"));
                if let Some(mac) = target_mac {
                    self.heard(target, Mac(mac), solicited, replaces);
                }
            }
            Message::RouterSolicitation { .. } => {
                self.tell(|_| "advertises itself".to_owned());
                let mtu = self.walk.snapshot.overlay_mtu();
                let emission = advertisement(self.port, mtu, origin(self.port));
                emission.into_iter().for_each(|it| self.walk.emit(it));
            }
            // Another router on this link; what it says is for hosts.
            Message::RouterAdvertisement(_) => {
                return self.walk.drop_once(DropReason::RouterLocal, cause);
            }
        }
        self.walk.answered()
    }

    /// Someone says where it is (RFC 4861, 7.2.5). An announcement that nobody asked for changes only what is known
    /// already; what doesn't say that it replaces another MAC doesn't.
    fn heard(&mut self, target: Ipv6Addr, mac: Mac, solicited: bool, replaces: bool) {
        let address = IpAddr::V6(target);
        self.walk.depends_on(Tag::Neighbour(self.port.id, address));
        let is_wanted = match self.walk.state.neighbour(self.port.id, address) {
            Some(_) => replaces,
            None => solicited,
        };
        if is_wanted {
            learn(self.walk, self.port, address, mac);
        }
    }
}
