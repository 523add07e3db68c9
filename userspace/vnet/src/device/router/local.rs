//! What a router does for itself: ARP and pings; neighbour discovery is in `nd`, and what it refuses in `refuse`.
//!
//! No state. Called by the router device. What the router answers is routed like any packet of its own.

use super::{At, Hop, is_discovery, learn, origin};
use crate::mac::Mac;
use crate::route::Target;
use crate::simulate::{Cause, Emission};
use crate::tag::Tag;
use crate::trace::TraceSink;
use crate::walk::Next;
use std::net::{IpAddr, Ipv4Addr};
use weft_common::DropReason;
use weft_common::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use weft_common::key::{Fragment, Network};
use weft_wire::{Operation, ethernet, icmp, icmpv6};

/// Type and code of an echo request (RFC 792).
const ECHO_REQUEST: (u8, u8) = (8, 0);
/// Type and code of an ICMPv6 echo request (RFC 4443, 4.1).
const ECHO_REQUEST_V6: (u8, u8) = (128, 0);

impl<'a, T: TraceSink> At<'_, 'a, T> {
    /// ARP that reached the router itself: replies to its questions, and questions on ports without a bridge.
    pub(super) fn arp(&mut self) -> Next {
        let operation = Operation::from_number(self.walk.protocol().into());
        let own = |address: Ipv4Addr| self.port.ipv4_addresses().any(|it| it == address);
        match operation {
            Operation::Request if own(self.walk.dst_v4()) => self.answer_arp(),
            Operation::Request if self.walk.is_gratuitous() => self.hear(true),
            Operation::Reply => self.hear(false),
            Operation::Request | Operation::Other(_) => self.not_served(),
        }
    }

    /// A packet for one of the router's own addresses.
    pub(super) fn serve(&mut self) -> Next {
        let is_v6 = self.walk.network() == Network::Ipv6;
        let echo_request = if is_v6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST };
        let asked = self.walk.icmp_type();
        if is_v6 && asked.is_some_and(|(kind, _)| is_discovery(kind)) {
            return self.discovery();
        }
        // A fragmented packet would have to be put together first.
        if self.walk.fragment() != Fragment::Whole {
            return self.not_served();
        }
        if asked != Some(echo_request) {
            return self.refuse_service();
        }
        self.tell(|_| "a ping for the router itself".to_owned());
        let sender = self.walk.src_ip();
        let request = self.walk.ip_bytes();
        let reply = if is_v6 {
            icmpv6::echo_reply(request)
        } else {
            icmp::echo_reply(request)
        };
        match reply {
            Ok(reply) => self.send_back(sender, &reply, DropReason::RouterLocal),
            Err(error) => self.no_answer(error, DropReason::RouterLocal),
        }
    }

    fn answer_arp(&mut self) -> Next {
        if let Some(request) = self.walk.arp() {
            self.tell(|_| format!("answers: {request}"));
            let frame = request
                .answered_by(self.port.mac.0)
                .frame(request.sender_mac);
            self.walk.emit(Emission {
                origin: origin(self.port),
                frame,
            });
            learn(
                self.walk,
                self.port,
                request.sender.into(),
                Mac(request.sender_mac),
            );
        }
        self.walk.answered()
    }

    /// Someone says where it is. An announcement that nobody asked for changes only what is known already.
    fn hear(&mut self, announcement: bool) -> Next {
        let Some(arp) = self.walk.arp() else {
            return self.walk.answered();
        };
        self.tell(|_| format!("hears: {arp}"));
        let sender = IpAddr::V4(arp.sender);
        self.walk.depends_on(Tag::Neighbour(self.port.id, sender));
        let known = self.walk.state.neighbour(self.port.id, sender).is_some();
        if known || !announcement {
            learn(self.walk, self.port, sender, Mac(arp.sender_mac));
        }
        self.walk.answered()
    }

    /// Sends a packet of the router's own. Without a way back the packet that caused it is dropped as `reason`.
    fn send_back(&mut self, to: IpAddr, packet: &[u8], reason: DropReason) -> Next {
        let hop = if is_link_local(to) {
            // It is on the link by which it came, and has just said its MAC: nobody has to ask.
            Some(Hop::Known {
                port: self.port,
                mac: self.walk.src_mac(),
            })
        } else {
            self.way_back(source_of(packet), to)
        };
        let Some(hop) = hop else {
            self.tell(|_| format!("no way back to {to}"));
            let cause = Some(Cause::Router(self.router));
            return self.walk.drop_once(reason, cause);
        };
        match hop {
            Hop::Known { port, mac } => {
                self.tell(|model| format!("answers {to} by {}", model.port_path(port.id)));
                let ethertype = if to.is_ipv6() {
                    ETHERTYPE_IPV6
                } else {
                    ETHERTYPE_IPV4
                };
                let frame = ethernet::frame(mac.0, port.mac.0, ethertype, packet);
                self.walk.emit(Emission {
                    origin: origin(port),
                    frame,
                });
                self.walk.answered()
            }
            Hop::Unknown { port, address } => self.ask(port, address),
            Hop::Never { reason, port } => self.walk.drop_once(reason, Some(Cause::Port(port))),
        }
    }

    /// The next hop for a packet of the router's own: of several the first that isn't known to be dead.
    pub(super) fn way_back(&mut self, from: IpAddr, to: IpAddr) -> Option<Hop<'a>> {
        let table = self.table;
        let mut dead_end = None;
        for found in table.lookup(from, to).routes {
            match found.target {
                &Target::Connected { port } => return Some(self.resolve(port, to)),
                Target::Via(hops) => {
                    for hop in hops {
                        match self.resolve(hop.port, hop.address) {
                            never @ Hop::Never { .. } => _ = dead_end.get_or_insert(never),
                            hop => return Some(hop),
                        }
                    }
                }
                _ => return dead_end,
            }
        }
        dead_end
    }

    /// There is no answer to this very packet.
    fn no_answer(&mut self, error: icmp::IcmpError, reason: DropReason) -> Next {
        self.tell(|_| format!("no answer: {error}"));
        self.walk
            .drop_once(reason, Some(Cause::Router(self.router)))
    }

    pub(super) fn not_served(&mut self) -> Next {
        self.walk
            .drop(DropReason::RouterLocal, Some(Cause::Router(self.router)))
    }
}

/// The source of an IP packet that the router made.
fn source_of(packet: &[u8]) -> IpAddr {
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => packet
            .get(8..24)
            .and_then(|source| <[u8; 16]>::try_from(source).ok())
            .unwrap_or_default()
            .into(),
        _ => packet
            .get(12..16)
            .and_then(|source| <[u8; 4]>::try_from(source).ok())
            .unwrap_or_default()
            .into(),
    }
}

/// Whether an address is known on its own link only (RFC 4291, 2.5.6).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(it) if it.is_unicast_link_local())
}
