//! The bridge: switches by destination MAC, floods what nobody knows, answers ARP and neighbour solicitations for
//! declared addresses, and solicitations for the routers behind it.
//!
//! Bridges that are joined by peerings (a flood domain) switch like one: what one of them knows, all know. VLAN
//! tags are carried as they are. No state: MACs are in the snapshot (declared) and in the flow state (learned).

use crate::device::router::{self, is_router_port};
use crate::flow_state::StateEntry;
use crate::id::{BridgeId, PortId};
use crate::mac::Mac;
use crate::model::{DeviceId, Model, Port};
use crate::simulate::{Cause, Emission, Origin, Verdict};
use crate::snapshot::{FloodDomain, Seed};
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk};
use std::net::{IpAddr, Ipv6Addr};
use weft_common::DropReason;
use weft_common::key::Network;
use weft_wire::ndp::Message;
use weft_wire::{Nd, Operation};

/// A frame came in at `ingress`, a port of `bridge`.
pub(crate) fn receive<T: TraceSink>(
    walk: &mut Walk<'_, T>,
    bridge: BridgeId,
    ingress: PortId,
) -> Next {
    walk.depends_on(Tag::Bridge(bridge));
    let snapshot = walk.snapshot;
    let (Some(domain), Some(port)) = (snapshot.flood_domain_of(bridge), snapshot.port(ingress))
    else {
        return walk.drop(DropReason::PortDown, Some(Cause::Port(ingress)));
    };
    let mut at = At {
        bridge,
        domain,
        ingress,
        walk,
    };
    // Only frames of workloads teach: what comes over a peering was made, or already seen, by the network.
    let outsider = at.walk.entered_at(ingress);
    if outsider
        && port.learns()
        && let Some(end) = at.learn()
    {
        return end;
    }
    if outsider
        && at.walk.network() == Network::Arp
        && !at.walk.is_tagged()
        && let Some(end) = at.arp(port)
    {
        return end;
    }
    // What is for one machine is answered by that machine.
    if outsider
        && at.walk.network() == Network::Ipv6
        && at.walk.dst_mac().is_group()
        && !at.walk.is_tagged()
        && let Some(end) = at.nd(port)
    {
        return end;
    }
    at.switch()
}

/// A frame in a bridge.
struct At<'w, 'a, T> {
    bridge: BridgeId,
    domain: &'a FloodDomain,
    ingress: PortId,
    walk: &'w mut Walk<'a, T>,
}

impl<T: TraceSink> At<'_, '_, T> {
    /// Remembers where the source is, on a port where nothing says who may speak.
    fn learn(&mut self) -> Option<Next> {
        let source = self.walk.src_mac();
        if source.is_group() {
            let cause = Some(Cause::Port(self.ingress));
            return Some(self.walk.drop(DropReason::GroupSource, cause));
        }
        let (domain, port) = (self.domain.id, self.ingress);
        self.walk.depends_on(Tag::Mac(domain, source));
        if let Some(seed) = self.domain.seeds.get(&source) {
            if seed.owner != port {
                self.tell(|model| {
                    format!(
                        "{source} is not learned: it is {}",
                        model.port_path(seed.owner)
                    )
                });
            }
            return None;
        }
        if self.walk.state.mac(domain, source) == Some(port) {
            return None;
        }
        if self.walk.state.is_full(port) {
            self.tell(|_| format!("{source} is not learned: the port has as many as it may"));
            return None;
        }
        self.tell(|model| format!("learned {source} on {}", model.port_path(port)));
        self.walk.write(StateEntry::Mac {
            bridge: domain,
            mac: source,
            port,
        });
        None
    }

    /// Answers requests for declared addresses, so that nobody else has to see them.
    fn arp(&mut self, port: &Port) -> Option<Next> {
        let operation = Operation::from_number(self.walk.protocol().into());
        let is_request = operation == Operation::Request;
        if !is_request && (operation != Operation::Reply || !self.walk.dst_mac().is_group()) {
            return None;
        }
        let target = self.walk.dst_v4();
        let owner = self.owner(target.into());
        // An announcement, or the owner's own question, is for the others (RFC 5227, 2.3).
        if self.walk.is_gratuitous() {
            self.announced(port);
            return None;
        }
        match owner {
            Some(seed) if is_request && seed.owner != self.ingress => self.answer(port, seed),
            _ => None,
        }
    }

    /// Whose an address is by declaration.
    fn owner(&mut self, address: IpAddr) -> Option<Seed> {
        let domain = self.domain;
        self.walk.depends_on(Tag::Address(domain.id, address));
        domain.addresses.get(&address).copied()
    }

    fn answer(&mut self, port: &Port, seed: Seed) -> Option<Next> {
        self.tell_answer("ARP", seed);
        if let Some(request) = self.walk.arp() {
            let asker = Mac(self.walk.packet.key.head.src_mac);
            let frame = request.answered_by(seed.mac.0).frame(asker.0);
            self.walk.emit(Emission {
                origin: Origin::ToPort(self.ingress),
                frame,
            });
            let sender = (request.sender.into(), Mac(request.sender_mac));
            self.introduce(port, seed, sender);
        }
        Some(self.walk.answered())
    }

    /// A router that is asked for is about to be spoken to, so it will have to speak back.
    fn introduce(&mut self, port: &Port, asked: Seed, (address, mac): (IpAddr, Mac)) {
        let asked = self.walk.snapshot.port(asked.owner);
        if let Some(asked) = asked.filter(|it| is_router_port(it) && port.learns()) {
            router::learn(self.walk, asked, address, mac);
        }
    }

    fn tell_answer(&mut self, protocol: &str, seed: Seed) {
        self.tell(|model| {
            let owner = model.port_path(seed.owner);
            format!("{protocol} answered: {owner} has it, {}", seed.mac)
        });
    }

    /// Routers hear that an address they know moved to another MAC; they learn nothing new from it.
    fn announced(&mut self, port: &Port) {
        if !port.learns() || self.domain.router_ports.is_empty() {
            return;
        }
        if let Some(arp) = self.walk.arp() {
            self.moved(arp.sender.into(), Mac(arp.sender_mac));
        }
    }

    fn moved(&mut self, address: IpAddr, mac: Mac) {
        for id in &self.domain.router_ports {
            let known = self.walk.state.neighbour(*id, address).is_some();
            self.walk.depends_on(Tag::Neighbour(*id, address));
            if let Some(router_port) = self.walk.snapshot.port(*id).filter(|_| known) {
                router::learn(self.walk, router_port, address, mac);
            }
        }
    }

    /// Neighbour discovery to a group: what the network knows is answered by it, what it doesn't is for all.
    fn nd(&mut self, port: &Port) -> Option<Next> {
        let (kind, _) = self.walk.icmp_type()?;
        if !router::is_discovery(kind) {
            return None;
        }
        let nd = match self.walk.nd() {
            Ok(nd) => nd,
            Err(error) => {
                self.tell(|_| format!("bad neighbour discovery: {error}"));
                let cause = Some(Cause::Port(self.ingress));
                return Some(self.walk.drop_once(DropReason::BadNd, cause));
            }
        };
        match nd.message {
            Message::NeighbourSolicitation { target, source_mac } => {
                // The owner's own probe is for the others: one of them may have the address, too.
                let seed = self.owner(target.into())?;
                (seed.owner != self.ingress)
                    .then(|| self.answer_nd(port, seed, target, &nd, source_mac))
            }
            Message::NeighbourAdvertisement {
                replaces: true,
                target,
                target_mac: Some(mac),
                ..
            } => {
                if port.learns() {
                    self.moved(target.into(), Mac(mac));
                }
                None
            }
            Message::RouterSolicitation { .. } => self.advertise(),
            Message::NeighbourAdvertisement { .. } | Message::RouterAdvertisement(_) => None,
        }
    }

    fn answer_nd(
        &mut self,
        port: &Port,
        seed: Seed,
        target: Ipv6Addr,
        question: &Nd,
        source_mac: Option<[u8; 6]>,
    ) -> Next {
        self.tell_answer("solicitation", seed);
        let owner = self.walk.snapshot.port(seed.owner);
        let asker = (question.source, Mac(self.walk.packet.key.head.src_mac));
        let frame = router::answer(target, seed.mac, owner.is_some_and(is_router_port), asker);
        self.walk.emit(Emission {
            origin: Origin::ToPort(self.ingress),
            frame,
        });
        if let Some(mac) = source_mac {
            self.introduce(port, seed, (question.source.into(), Mac(mac)));
        }
        self.walk.answered()
    }

    /// Advertises the routers of the domain to who asks. Where there are none the question is for all.
    fn advertise(&mut self) -> Option<Next> {
        let (snapshot, to) = (self.walk.snapshot, Origin::ToPort(self.ingress));
        for port in &self.domain.router_ports {
            self.walk.depends_on(Tag::Port(*port));
        }
        let made = router::advertisements(snapshot, self.domain, to);
        if made.is_empty() {
            return None;
        }
        self.tell(|_| format!("{} routers advertised", made.len()));
        made.into_iter().for_each(|it| self.walk.emit(it));
        Some(self.walk.answered())
    }

    fn switch(&mut self) -> Next {
        let destination = self.walk.dst_mac();
        if destination.is_reserved_group() {
            let cause = Some(Cause::Bridge(self.bridge));
            return self.walk.drop(DropReason::ReservedGroup, cause);
        }
        if destination.is_group() {
            return self.flood(|| format!("{destination} is a group"));
        }
        self.walk.depends_on(Tag::Mac(self.domain.id, destination));
        if let Some(seed) = self.domain.seeds.get(&destination).copied() {
            return self.forward(seed.exit, || format!("{destination} is declared"));
        }
        match self.learned(destination) {
            Some(port) => self.forward(port, || format!("{destination} is learned")),
            None => self.flood(|| format!("nobody knows {destination}")),
        }
    }

    /// The port behind which a MAC was seen, if it is still one of this domain.
    fn learned(&mut self, mac: Mac) -> Option<PortId> {
        let id = self.walk.state.mac(self.domain.id, mac)?;
        self.walk.depends_on(Tag::Port(id));
        let port = self.walk.snapshot.port(id)?;
        let here = matches!(port.device, DeviceId::Bridge(bridge) if self.domain.bridges.contains(&bridge));
        (here && port.peer.is_none()).then_some(id)
    }

    fn forward(&mut self, exit: PortId, why: impl FnOnce() -> String) -> Next {
        self.tell(|model| format!("{} on {}", why(), model.port_path(exit)));
        if exit == self.ingress {
            return self
                .walk
                .drop(DropReason::SamePort, Some(Cause::Port(exit)));
        }
        Next::Send(exit)
    }

    fn flood(&mut self, why: impl FnOnce() -> String) -> Next {
        let domain = self.domain.id;
        self.walk.depends_on(Tag::Flood(domain));
        for (host, _) in self.walk.snapshot.flood_hosts(domain) {
            self.walk.depends_on(Tag::Host(host));
        }
        let ports = self.domain.ports.len();
        self.tell(|_| format!("{}: flooded, the domain has {ports} ports", why()));
        Next::Done(Verdict::Flood { domain })
    }

    fn tell(&mut self, text: impl FnOnce(&Model) -> String) {
        let (model, bridge) = (self.walk.snapshot.model(), self.bridge);
        self.walk.step(|| Step {
            device: format!("bridge {}", model.bridge_name(bridge)),
            text: text(model),
        });
    }
}
#[cfg(test)]
mod tests;
