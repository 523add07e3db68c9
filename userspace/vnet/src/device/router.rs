//! The router: longest prefix match, the next hop's MAC, TTL; ARP, neighbour discovery and pings for itself.
//!
//! No state: routing tables and declared MACs are in the snapshot, learned neighbours in the flow state.

mod local;
mod nd;

use crate::flow_state::StateEntry;
use crate::id::{PortId, RouterId};
use crate::mac::Mac;
use crate::model::{DeviceId, Model, Port};
use crate::route::{Inactive, Lookup, RoutingTable, Target, not_in_subnet};
use crate::simulate::{Cause, Emission, Origin};
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use weft_common::DropReason;
use weft_common::key::Network;
use weft_wire::Arp;

pub(crate) use nd::{advertisement, advertisements, answer, is_discovery};

/// A frame came in at `ingress`, a port of `router`.
pub(crate) fn receive<T: TraceSink>(
    walk: &mut Walk<'_, T>,
    router: RouterId,
    ingress: PortId,
) -> Next {
    walk.depends_on(Tag::Router(router));
    let snapshot = walk.snapshot;
    let (Some(table), Some(port)) = (snapshot.routing_table(router), snapshot.port(ingress)) else {
        return walk.drop(DropReason::PortDown, Some(Cause::Port(ingress)));
    };
    let destination = walk.dst_mac();
    let network = walk.network();
    let for_all = network == Network::Arp && destination == Mac::BROADCAST;
    let for_group = network == Network::Ipv6 && destination.is_group();
    if destination != port.mac && !for_all && !for_group {
        return walk.drop(DropReason::NotForRouter, Some(Cause::Port(ingress)));
    }
    if walk.is_tagged() {
        return walk.drop(DropReason::NotCarried, Some(Cause::Router(router)));
    }
    let mut at = At {
        router,
        table,
        port,
        walk,
    };
    match network {
        Network::Arp => at.arp(),
        Network::Ipv6 if for_group => at.group(),
        Network::Ipv4 | Network::Ipv6 => at.route(),
        Network::Other => at
            .walk
            .drop(DropReason::NotCarried, Some(Cause::Router(router))),
    }
}

/// The question who has `address`, out of this port.
pub(crate) fn ask(port: &Port, address: IpAddr) -> Option<Emission> {
    match address {
        IpAddr::V4(address) => arp_request(port, address),
        IpAddr::V6(address) => nd::solicitation(port, address),
    }
}

fn arp_request(port: &Port, address: Ipv4Addr) -> Option<Emission> {
    let inside = port
        .ipv4_networks()
        .find(|network| network.contains(&address));
    let sender = inside
        .map(|network| network.addr())
        .or_else(|| port.ipv4_addresses().next())?;
    let frame = Arp::request(port.mac.0, sender, address).frame(Mac::BROADCAST.0);
    Some(Emission {
        origin: origin(port),
        frame,
    })
}

/// Remembers a next hop of a router's port, unless the topology knows better.
pub(crate) fn learn<T: TraceSink>(walk: &mut Walk<'_, T>, port: &Port, address: IpAddr, mac: Mac) {
    walk.depends_on(Tag::Neighbour(port.id, address));
    let inside = port.networks().any(|network| {
        let is_neighbour =
            address != network.addr() && !not_in_subnet(network).contains(&Some(address));
        network.contains(&address) && is_neighbour
    });
    let declared = walk.snapshot.attached_domain(port).is_some_and(|domain| {
        walk.depends_on(Tag::Address(domain.id, address));
        domain.addresses.contains_key(&address)
    });
    let known = walk.state.neighbour(port.id, address);
    let room = known.is_some() || !walk.state.is_full(port.id);
    if !inside || declared || mac.is_group() || mac == Mac::default() || known == Some(mac) || !room
    {
        return;
    }
    let model = walk.snapshot.model();
    walk.step(|| Step {
        device: format!("port {}", model.port_path(port.id)),
        text: format!("learned that {address} is at {mac}"),
    });
    walk.write(StateEntry::Neighbour {
        router_port: port.id,
        address,
        mac,
    });
}

/// Where a packet that a router sends out of this port starts.
fn origin(port: &Port) -> Origin {
    if port.is_interior() {
        Origin::Device(port.id)
    } else {
        Origin::ToPort(port.id)
    }
}

/// A packet in a router.
struct At<'w, 'a, T> {
    router: RouterId,
    table: &'a RoutingTable,
    /// By which it came in.
    port: &'a Port,
    walk: &'w mut Walk<'a, T>,
}

/// What is known about a next hop.
enum Hop<'a> {
    Known {
        port: &'a Port,
        mac: Mac,
    },
    Unknown {
        port: &'a Port,
        address: IpAddr,
    },
    /// It can't be reached, whatever is learned.
    Never {
        reason: DropReason,
        port: PortId,
    },
}

impl<'a, T: TraceSink> At<'_, 'a, T> {
    fn route(&mut self) -> Next {
        let table = self.table;
        let route = self.walk.dst_by(|address| {
            let Lookup { route, bits } = table.lookup(address);
            (route, bits)
        });
        let Some((to, target)) = route else {
            // For the trace only: the bits that decided are in the mask already.
            let destination = self.walk.shown_dst();
            self.tell(|_| format!("no route to {destination}"));
            return self
                .walk
                .drop(DropReason::NoRoute, Some(Cause::Router(self.router)));
        };
        let cause = Some(Cause::Route {
            router: self.router,
            to,
        });
        let (egress, next_hop) = match target {
            Target::Local => return self.serve(),
            Target::NotUnicast => {
                let cause = Some(Cause::Router(self.router));
                return self.walk.drop(DropReason::RouterLocal, cause);
            }
            Target::Inactive { address, why } => return self.no_route(to, address, why),
            Target::Blackhole => return self.walk.drop(DropReason::BlackholeRoute, cause),
            Target::Reject => return self.walk.drop(DropReason::RejectRoute, cause),
            // The destination itself is the next hop, so all of it decides.
            Target::Connected { port } => (port, self.walk.dst_ip()),
            Target::Via { port, address } => (port, address),
        };
        self.tell(|model| format!("{to} is {}", describe(model, egress, next_hop, target)));
        if self.walk.network() == Network::Ipv6 && !self.walk.src_v6_is_global() {
            let cause = Some(Cause::Router(self.router));
            return self.walk.drop(DropReason::BeyondScope, cause);
        }
        match self.resolve(egress, next_hop) {
            Hop::Never { reason, port } => self.walk.drop(reason, Some(Cause::Port(port))),
            // After the drops: a flow that drops has no guard for the TTL.
            _ if self.walk.ttl_ends() => self.time_exceeded(),
            Hop::Known { port, mac } => {
                self.tell(|_| format!("TTL less one; {} > {mac}", port.mac));
                self.walk.cross_router(port.mac, mac);
                Next::Send(port.id)
            }
            Hop::Unknown { port, address } => self.ask(port, address),
        }
    }

    /// There is no route but one that isn't used.
    fn no_route(&mut self, to: IpNet, via: IpAddr, why: Inactive) -> Next {
        // For the trace only: the bits that decided are in the mask already.
        let destination = self.walk.shown_dst();
        self.tell(|_| {
            let why = why.describe(via);
            format!("no active route to {destination}; {to} via {via} is inactive: {why}")
        });
        let router = self.router;
        let cause = Cause::InactiveRoute {
            router,
            to,
            via,
            why,
        };
        self.walk.drop(DropReason::NoRoute, Some(cause))
    }

    /// Asks for a next hop; the packet waits.
    fn ask(&mut self, port: &Port, address: IpAddr) -> Next {
        self.tell(|model| format!("asks on {} who has {address}", model.port_path(port.id)));
        if let Some(request) = ask(port, address) {
            self.walk.emit(request);
        }
        self.walk.wait(port.id, address)
    }

    /// The next hop's MAC: declared in the topology, or learned.
    fn resolve(&mut self, egress: PortId, address: IpAddr) -> Hop<'a> {
        self.walk.depends_on(Tag::Port(egress));
        let snapshot = self.walk.snapshot;
        let never = |reason| Hop::Never {
            reason,
            port: egress,
        };
        let Some(port) = snapshot.port(egress) else {
            return never(DropReason::OutputGone);
        };
        if !port.admin_up {
            return never(DropReason::PortDown);
        }
        let Some(peer) = port.peer else {
            // Nobody can answer on a port that is bound to nothing.
            return match self.learned(port, address) {
                Hop::Unknown { .. } if port.binding.is_none() => never(DropReason::PortUnbound),
                hop => hop,
            };
        };
        self.walk.depends_on(Tag::Port(peer));
        let Some(peer) = snapshot.port(peer) else {
            return never(DropReason::NoPeer);
        };
        match peer.device {
            DeviceId::Router(_) if peer.has_address(address) => Hop::Known {
                port,
                mac: peer.mac,
            },
            DeviceId::Router(_) => never(DropReason::NextHopUnresolved),
            DeviceId::Bridge(bridge) => {
                self.walk.depends_on(Tag::Bridge(bridge));
                let Some(domain) = snapshot.flood_domain_of(bridge) else {
                    return never(DropReason::NoPeer);
                };
                self.walk.depends_on(Tag::Address(domain.id, address));
                match domain.addresses.get(&address) {
                    Some(seed) => Hop::Known {
                        port,
                        mac: seed.mac,
                    },
                    None => self.learned(port, address),
                }
            }
        }
    }

    fn learned(&mut self, port: &'a Port, address: IpAddr) -> Hop<'a> {
        self.walk.depends_on(Tag::Neighbour(port.id, address));
        match self.walk.state.neighbour(port.id, address) {
            Some(mac) => Hop::Known { port, mac },
            None => Hop::Unknown { port, address },
        }
    }

    fn tell(&mut self, text: impl FnOnce(&Model) -> String) {
        let (model, router) = (self.walk.snapshot.model(), self.router);
        self.walk.step(|| Step {
            device: format!("router {}", model.router_name(router)),
            text: text(model),
        });
    }
}

fn describe(model: &Model, egress: PortId, next_hop: IpAddr, target: Target) -> String {
    let port = model.port_path(egress);
    match target {
        Target::Connected { .. } => format!("connected to {port}"),
        _ => format!("via {next_hop} on {port}"),
    }
}

#[cfg(test)]
mod tests;
