//! What a router doesn't forward or serve, and what it tells the sender: ICMP errors and TCP resets.
//!
//! | refused | IPv4 | IPv6 | as in Linux |
//! |---|---|---|---|
//! | no route | net unreachable | no route | `ip route add unreachable` of a whole table |
//! | `action: reject` | administratively prohibited (13) | likewise (1) | `ip route add prohibit` |
//! | next hop doesn't answer, or can't be reached | host unreachable | address unreachable | a failed neighbour |
//! | TTL ends | time exceeded | hop limit exceeded | |
//! | UDP for the router itself | port unreachable | likewise | no socket |
//! | TCP for the router itself | reset | likewise | no socket |
//! | another protocol for it | protocol unreachable | parameter problem, unknown next header | |
//!
//! A blackhole is silent, and so is ICMP for the router that asks nothing, and fragments for it: nothing puts them
//! together. No state; the agent limits how many of these are sent.

use super::local::is_link_local;
use super::{At, Hop, origin, wait_for};
use crate::id::RouterId;
use crate::model::Port;
use crate::route::{RoutingTable, Target};
use crate::simulate::{Cause, Emission, Origin};
use crate::trace::TraceSink;
use crate::walk::{Next, Walk};
use std::fmt::Display;
use std::net::IpAddr;
use weft_common::DropReason;
use weft_common::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, protocol};
use weft_common::key::Network;
use weft_wire::{Undelivered, ethernet, tcp, undelivered};

/// MACs of a packet that has yet to be routed.
const NO_MAC: [u8; 6] = [0; 6];

impl<T: TraceSink> At<'_, '_, T> {
    /// The packet goes no further, and nor does any like it; the sender is told why.
    pub(super) fn refuse(
        &mut self,
        why: Undelivered,
        reason: DropReason,
        cause: Option<Cause>,
    ) -> Next {
        self.refuse_from(self.own_address(), why, reason, cause)
    }

    /// The TTL of this very packet ends here; the sender is told.
    pub(super) fn time_exceeded(&mut self) -> Next {
        self.tell(|_| "the TTL ends here".to_owned());
        self.walk.only_this_packet();
        let cause = Some(Cause::Port(self.port.id));
        self.refuse(Undelivered::TimeExceeded, DropReason::TtlExpired, cause)
    }

    /// A whole packet for the router itself that asks for nothing that it serves.
    pub(super) fn refuse_service(&mut self) -> Next {
        let own = self.walk.shown_dst();
        let cause = Some(Cause::Router(self.router));
        let reason = DropReason::RouterLocal;
        match self.walk.protocol() {
            protocol::ICMP | protocol::ICMPV6 => self.not_served(),
            protocol::TCP => {
                let reset = tcp::reset(self.walk.packet.network_bytes());
                self.refuse_with(reset.ok_or("it takes no reset"), reason, cause)
            }
            protocol::UDP => {
                self.refuse_from(Some(own), Undelivered::PortUnreachable, reason, cause)
            }
            _ => self.refuse_from(Some(own), Undelivered::ProtocolUnreachable, reason, cause),
        }
    }

    fn refuse_from(
        &mut self,
        own: Option<IpAddr>,
        why: Undelivered,
        reason: DropReason,
        cause: Option<Cause>,
    ) -> Next {
        // Of the packet's bytes nothing is decided: each packet of a flow comes up and has its own answer.
        let packet = self.walk.packet.network_bytes();
        match own.map(|own| undelivered::report(own, packet, why)) {
            Some(error) => self.refuse_with(error, reason, cause),
            None => self.refuse_with(Err("the port has no address"), reason, cause),
        }
    }

    fn refuse_with(
        &mut self,
        answer: Result<Vec<u8>, impl Display>,
        reason: DropReason,
        cause: Option<Cause>,
    ) -> Next {
        if !self.walk.is_from_workload() {
            // Nobody waits for word about what the network itself sends.
            return self.walk.drop(reason, cause);
        }
        match answer {
            Ok(packet) => {
                self.tell(|_| "tells the sender".to_owned());
                let emission = self.to_sender(&packet);
                self.walk.emit(emission);
            }
            Err(error) => self.tell(|_| format!("no answer: {error}")),
        }
        self.walk.refuse(reason, cause)
    }

    /// A packet of the router's own, to be routed; or on the link by which the packet came, to a sender that is known
    /// nowhere else and has just said its MAC.
    fn to_sender(&self, packet: &[u8]) -> Emission {
        if is_link_local(self.walk.shown_src()) {
            let mac = self.walk.packet.key.head.src_mac;
            return Emission {
                origin: origin(self.port),
                frame: ethernet::frame(mac, self.port.mac.0, ETHERTYPE_IPV6, packet),
            };
        }
        let ethertype = match self.walk.network() {
            Network::Ipv6 => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        Emission {
            origin: Origin::Router(self.router),
            frame: ethernet::frame(NO_MAC, NO_MAC, ethertype, packet),
        }
    }

    /// The address by which the sender knows this router: of the port by which the packet came (RFC 1812, 4.3.2.4),
    /// in the sender's own subnet if there is one.
    fn own_address(&self) -> Option<IpAddr> {
        known_as(self.port, self.walk.shown_src())
    }
}

/// The address of a router's port by which `sender` knows it: in the sender's own subnet if there is one.
pub(crate) fn known_as(port: &Port, sender: IpAddr) -> Option<IpAddr> {
    if is_link_local(sender) {
        return port.link_local().map(IpAddr::V6);
    }
    let near = port.networks().find(|network| network.contains(&sender));
    let mut all = port.addresses.iter().map(|own| own.address);
    near.map(|network| network.addr())
        .or_else(|| all.find(|own| own.is_ipv4() == sender.is_ipv4()))
}

/// Routes a packet of the router's own; its TTL stays.
pub(super) fn send_own<'a, T: TraceSink>(
    walk: &mut Walk<'a, T>,
    router: RouterId,
    table: &'a RoutingTable,
) -> Next {
    let (from, to) = (walk.shown_src(), walk.dst_ip());
    let nowhere = Some(Cause::Router(router));
    let port = table
        .lookup(from, to)
        .routes
        .iter()
        .find_map(|found| match found.target {
            &Target::Connected { port } => Some(port),
            Target::Via(hops) => hops.first().map(|hop| hop.port),
            _ => None,
        });
    let Some(port) = port.and_then(|port| walk.snapshot.port(port)) else {
        return walk.drop(DropReason::NoRoute, nowhere);
    };
    let mut at = At {
        router,
        table,
        port,
        walk,
    };
    match at.way_back(from, to) {
        Some(Hop::Known { port, mac }) => {
            at.tell(|model| format!("sends {to} its own by {}", model.port_path(port.id)));
            at.walk.leave_router(port.mac, mac);
            Next::Send(port.id)
        }
        Some(Hop::Unknown { port, address }) => wait_for(at.walk, port, address),
        Some(Hop::Never { reason, port }) => at.walk.drop(reason, Some(Cause::Port(port))),
        None => at.walk.drop(DropReason::NoRoute, nowhere),
    }
}

#[cfg(test)]
mod tests;
