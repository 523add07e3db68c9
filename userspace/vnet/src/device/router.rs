//! The router: longest prefix match, the next hop's MAC, TTL; ARP, neighbour discovery and pings for itself.
//!
//! No state: routing tables and declared MACs are in the snapshot, learned neighbours in the flow state.

mod local;
mod nd;
mod refuse;
mod source;

use crate::flow_state::StateEntry;
use crate::id::{PortId, RouterId};
use crate::mac::Mac;
use crate::model::{DeviceId, Model, Port};
use crate::route::{Found, Inactive, NextHop, RoutingTable, Target, not_in_subnet};
use crate::simulate::{Cause, Emission, Origin};
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk, Way};
use std::net::{IpAddr, Ipv4Addr};
use weft_common::key::Network;
use weft_common::limits::SELECT_BUCKETS;
use weft_common::{DropReason, select};
use weft_wire::{Arp, Undelivered};

pub(crate) use nd::{advertisement, advertisements, answer, is_discovery};
pub(crate) use refuse::known_as;

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

/// A packet of a router's own begins its way.
pub(crate) fn originate<T: TraceSink>(walk: &mut Walk<'_, T>, router: RouterId) -> Next {
    walk.depends_on(Tag::Router(router));
    let Some(table) = walk.snapshot.routing_table(router) else {
        return walk.drop(DropReason::NoRoute, Some(Cause::Router(router)));
    };
    refuse::send_own(walk, router, table)
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

/// Sends the packet to a next hop, or lets it wait for that.
pub(crate) fn take<T: TraceSink>(walk: &mut Walk<'_, T>, way: &Way) -> Next {
    let NextHop { port, address } = way.next_hop;
    let Some(port) = walk.snapshot.port(port) else {
        return walk.drop(DropReason::OutputGone, Some(Cause::Port(port)));
    };
    let Some(mac) = way.mac else {
        return wait_for(walk, port, address);
    };
    let model = walk.snapshot.model();
    walk.step(|| Step {
        device: device_name(port, model),
        text: format!("TTL less one; {} > {mac}", port.mac),
    });
    walk.cross_router(port.mac, mac);
    Next::Send(port.id)
}

/// Whether it is a router's.
pub(crate) fn is_router_port(port: &Port) -> bool {
    matches!(port.device, DeviceId::Router(_))
}

/// The router of a port, for the trace.
fn device_name(port: &Port, model: &Model) -> String {
    let name = model.device(port.device).map(|(name, _)| name.to_owned());
    format!("router {}", name.unwrap_or_default())
}

fn wait_for<T: TraceSink>(walk: &mut Walk<'_, T>, port: &Port, address: IpAddr) -> Next {
    let model = walk.snapshot.model();
    walk.step(|| Step {
        device: device_name(port, model),
        text: format!("asks on {} who has {address}", model.port_path(port.id)),
    });
    if let Some(request) = ask(port, address) {
        walk.emit(request);
    }
    walk.wait(port.id, address)
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
        if self.walk.is_damaged() {
            let cause = Some(Cause::Router(self.router));
            return self.walk.drop_once(DropReason::BadChecksum, cause);
        }
        let (table, source) = (self.table, self.walk.shown_src());
        let lookup = self.walk.dst_by(|destination| {
            let lookup = table.lookup(source, destination);
            let bits = lookup.bits;
            (lookup, bits)
        });
        // Why the first next hops that count can't be reached.
        let mut dead_end = None;
        for found in &lookup.routes {
            self.walk.src_bits(found.source_bits);
            let cause = Some(Cause::Route {
                router: self.router,
                to: found.to,
                from: found.from,
            });
            let hops = match found.target {
                Target::Local => return self.serve(),
                Target::NotUnicast => {
                    let cause = Some(Cause::Router(self.router));
                    return self.walk.drop(DropReason::RouterLocal, cause);
                }
                Target::Inactive { address, why } => return self.no_route(found, *address, *why),
                Target::Blackhole => return self.walk.drop(DropReason::BlackholeRoute, cause),
                Target::Reject => {
                    return self.refuse(Undelivered::Prohibited, DropReason::RejectRoute, cause);
                }
                // The destination itself is the next hop, so all of it decides.
                &Target::Connected { port } => &[NextHop {
                    port,
                    address: self.walk.dst_ip(),
                }],
                Target::Via(hops) => hops.as_slice(),
            };
            match self.reachable(hops) {
                Ok(ways) => return self.forward(found, &ways),
                Err(reason) => _ = dead_end.get_or_insert(reason),
            }
        }
        self.walk.src_bits(lookup.source_bits);
        if let Some((reason, port)) = dead_end {
            return self.refuse(
                Undelivered::HostUnreachable,
                reason,
                Some(Cause::Port(port)),
            );
        }
        // For the trace only: the bits that decided are in the mask already.
        let destination = self.walk.shown_dst();
        self.tell(|_| format!("no route to {destination}"));
        let cause = Some(Cause::Router(self.router));
        self.refuse(Undelivered::NoRoute, DropReason::NoRoute, cause)
    }

    /// The next hops that can be reached, or may be; if none, why the first can't.
    fn reachable(&mut self, hops: &[NextHop]) -> Result<Vec<Way>, (DropReason, PortId)> {
        let mut ways = Vec::with_capacity(hops.len());
        let mut dead_end = None;
        for &next_hop in hops {
            let mac = match self.resolve(next_hop.port, next_hop.address) {
                Hop::Known { mac, .. } => Some(mac),
                Hop::Unknown { .. } => None,
                Hop::Never { reason, port } => {
                    let path = self.walk.snapshot.model().port_path(port);
                    self.tell(|_| {
                        format!("not via {}: {} ({path})", next_hop.address, reason.name())
                    });
                    dead_end.get_or_insert((reason, port));
                    continue;
                }
            };
            ways.push(Way { next_hop, mac });
        }
        match dead_end {
            Some(dead_end) if ways.is_empty() => Err(dead_end),
            _ => Ok(ways),
        }
    }

    /// On to a next hop, of which there is at least one.
    fn forward(&mut self, found: &Found<'_>, ways: &[Way]) -> Next {
        let is_connected = matches!(found.target, Target::Connected { .. });
        let shown = match found.from {
            Some(from) => format!("{} from {from}", found.to),
            None => found.to.to_string(),
        };
        let (refused, source_bits) = source::judge(self.walk.shown_src());
        self.walk.src_bits(source_bits);
        if let Some(reason) = refused {
            let cause = Some(Cause::Router(self.router));
            return self.walk.drop(reason, cause);
        }
        let may_choose = ways.len() > 1 && self.walk.may_choose(ways.len());
        // Beyond the bounds all packets go the way of those in the first bucket.
        let fixed = || select::owner(0, ways.iter().map(|way| way.next_hop.identity()));
        let own = if may_choose {
            self.walk.own_way(ways)
        } else {
            fixed()
        };
        let Some((position, way)) = own.and_then(|own| Some((own, *ways.get(own)?))) else {
            return self
                .walk
                .drop(DropReason::NoRoute, Some(Cause::Router(self.router)));
        };
        let bucket = select::bucket(&self.walk.packet.key);
        self.tell(|model| {
            let NextHop { port, address } = way.next_hop;
            let port = model.port_path(port);
            match (is_connected, ways.len()) {
                (true, _) => format!("{shown} is connected to {port}"),
                (false, 1) => format!("{shown} is via {address} on {port}"),
                (false, count) if may_choose => format!(
                    "{shown} is via {address} on {port}: bucket {bucket} of {SELECT_BUCKETS} is that of next hop {} of {count}",
                    position + 1
                ),
                (false, count) => format!(
                    "{shown} is via {address} on {port}, the first of {count} next hops: there were too many choices already"
                ),
            }
        });
        // Behind what is refused here: a flow's guard counts the routers that were crossed.
        if self.walk.ttl_ends() {
            return self.time_exceeded();
        }
        if may_choose {
            return Next::Choose(ways.to_vec());
        }
        take(self.walk, &way)
    }

    /// There is no route but one that isn't used.
    fn no_route(&mut self, found: &Found<'_>, via: IpAddr, why: Inactive) -> Next {
        let to = found.to;
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
        self.refuse(Undelivered::NoRoute, DropReason::NoRoute, Some(cause))
    }

    /// Asks for a next hop; the packet waits.
    fn ask(&mut self, port: &Port, address: IpAddr) -> Next {
        wait_for(self.walk, port, address)
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
            None if self.walk.state.is_unreachable(port.id, address) => Hop::Never {
                reason: DropReason::NextHopUnresolved,
                port: port.id,
            },
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

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod tests;
