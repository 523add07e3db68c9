//! The decision: where a packet goes, and which packets go the same way.
//!
//! A packet walks through these stages, again and again until one of them ends its way:
//!
//! | stage | where | what it decides | what it may look at |
//! |---|---|---|---|
//! | enter | `device/port.rs` | the workload's port exists and is up | ingress port |
//! | learn | `device/bridge.rs` | the source MAC, on a port without addresses | source MAC |
//! | ARP | `device/bridge.rs` | requests for declared addresses are answered | operation, target, sender |
//! | ND | `device/bridge.rs` | likewise; routers advertise themselves | of packets to groups protocol, ICMP type |
//! | switch | `device/bridge.rs` | the egress port, or a flood | destination MAC |
//! | accept | `device/router.rs` | the frame is for the router's port | destination MAC, VLAN tag or not |
//! | serve | `device/router.rs` | ARP, ND and pings for the router itself; what else is for it is refused | operation; protocol, ICMP type, fragment |
//! | route | `device/router.rs` | the egress port and next hops; TTL | bits of the destination address; of the source where a route asks for it, else 5 bits, of IPv6 10 |
//! | choose | `walk.rs` | one of several next hops: each is followed, the packet's hash says which is its own | nothing of the packet |
//! | resolve | `device/router.rs` | the next hop's MAC | nothing of the packet |
//! | leave | `device/port.rs` | the port is up; the workload, or the peer's device | nothing of the packet |
//!
//! A port's own chains (`device/chains.rs`) are decided on its own host and put no bits into flows: [`simulate`] leaves
//! them out, [`simulate_judged`] interprets them behind `enter` and before the workload of `leave`.
//!
//! What a router refuses it tells the sender (`device/router/refuse.rs`), by a packet of its own.
//!
//! No state of its own. The agent calls [`simulate`] for misses, for flows that a change concerns, and for
//! packets that the network makes; `weft trace` and the tests call it, too. There is no other decision.

use crate::device::{self, router};
use crate::flow_state::{FlowState, StateEntry};
use crate::id::{BridgeId, PortId, RouterId};
use crate::mac::Mac;
use crate::model::DeviceId;
use crate::packet::{Entry, Packet};
use crate::policy::{Connection, RuleRef};
use crate::route::{Inactive, NextHop};
use crate::snapshot::Snapshot;
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use weft_common::{DropReason, FlowKey, select};

/// Devices that a packet may cross.
pub const DEVICES_MAX: usize = 32;

/// A decision, as data: whoever asked applies it, prints it or throws it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where the packet goes.
    pub verdict: Verdict,
    /// Bits looked at: a packet that agrees on them goes the same way. Ingress port and network always.
    pub mask: FlowKey,
    /// New source and destination, where a router rewrote them.
    pub macs: Option<(Mac, Mac)>,
    /// Routers crossed: guard, and amount to subtract.
    pub ttl_decrement: u8,
    /// What the decision depended on.
    pub tags: BTreeSet<Tag>,
    /// What the network learned from this packet.
    pub writes: Vec<StateEntry>,
    /// Packets that the network makes because of this one.
    pub emit: Vec<Emission>,
    /// Whether the decision may become a flow. Answers, waiting packets and ended TTLs are for one packet only.
    pub install: bool,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To this exterior port, wherever it is live.
    Deliver(PortId),
    /// To every port of the domain but the ingress port.
    Flood {
        /// Id of the flood domain.
        domain: BridgeId,
    },
    /// Nowhere.
    Drop {
        /// Why.
        reason: DropReason,
        /// What in the topology said so, where something did.
        cause: Option<Cause>,
    },
    /// To one of several next hops, at least two, by the packet's hash: see [`Outcome::taken`].
    Select(Vec<Member>),
    /// Nowhere, and [`Outcome::emit`] tells the sender, if anything can: an error or a reset, which whoever sends it
    /// limits in rate. A flow with this verdict hands every packet to the agent, so what is emitted is no part of it.
    Refuse {
        /// Why.
        reason: DropReason,
        /// What in the topology said so.
        cause: Option<Cause>,
    },
    /// Nowhere: the network itself took it, and perhaps answered.
    Answered,
    /// It has to be simulated again when this next hop is known, for which [`Outcome::emit`] asks.
    Wait {
        /// The router's port to which the next hop is connected.
        router_port: PortId,
        /// The next hop.
        address: IpAddr,
    },
}

/// One of the next hops that packets are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The next hop.
    pub next_hop: NextHop,
    /// What happens to its packets, from the ingress port on: MACs, TTL and verdict, which may be the next choice.
    /// One that may not be installed is decided packet by packet. The rest is that of the whole.
    pub outcome: Outcome,
}

impl Outcome {
    /// What happens to the packet with this key: the decision itself, or that of the member that is chosen for it.
    pub fn taken(&self, key: &FlowKey) -> &Outcome {
        match &self.verdict {
            Verdict::Select(members) => {
                let identities = members.iter().map(|member| member.next_hop.identity());
                let own = select::owner(select::bucket(key), identities);
                match own.and_then(|position| members.get(position)) {
                    Some(member) => member.outcome.taken(key),
                    None => self,
                }
            }
            _ => self,
        }
    }
}

/// What in the topology caused a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A static route.
    Route {
        /// Its router.
        router: RouterId,
        /// Its prefix.
        to: IpNet,
        /// Its source prefix.
        from: Option<IpNet>,
    },
    /// A static route that isn't used, where no other leads.
    InactiveRoute {
        /// Its router.
        router: RouterId,
        /// Its prefix.
        to: IpNet,
        /// Its next hop.
        via: IpAddr,
        /// Why it isn't used.
        why: Inactive,
    },
    /// A router as a whole.
    Router(RouterId),
    /// A bridge as a whole.
    Bridge(BridgeId),
    /// A port.
    Port(PortId),
    /// A rule of a port's chains.
    Rule(RuleRef),
}

/// A packet that the network makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Where it starts.
    pub origin: Origin,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// Where a packet of the network itself starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It goes straight to this exterior port.
    ToPort(PortId),
    /// It seems to come from the workload behind this exterior port: to be simulated with [`Entry::Workload`].
    Workload(PortId),
    /// It leaves a device by this port: to be simulated with [`Entry::Device`].
    Device(PortId),
    /// It is a router's own, without MACs yet: to be simulated with [`Entry::Router`].
    Router(RouterId),
}

/// Decides on one packet. `now_ms` is for state with time in it, of which there is none yet.
pub fn simulate(
    snapshot: &Snapshot,
    state: &FlowState,
    packet: &Packet<'_>,
    now_ms: u64,
    trace: &mut impl TraceSink,
) -> Outcome {
    let _ = now_ms;
    decide(Walk::new(snapshot, state, packet, trace))
}

/// The same, and what the chains of the ports say where it enters and where it is delivered, to a packet of a connection
/// in this state there. For whoever tells or checks; what they drop is no flow.
pub fn simulate_judged(
    snapshot: &Snapshot,
    state: &FlowState,
    packet: &Packet<'_>,
    connection: Connection,
    trace: &mut impl TraceSink,
) -> Outcome {
    let mut walk = Walk::new(snapshot, state, packet, trace);
    walk.judged = Some(connection);
    decide(walk)
}

fn decide<T: TraceSink>(mut walk: Walk<'_, T>) -> Outcome {
    let (snapshot, packet) = (walk.snapshot, walk.packet);
    let first = match packet.entry {
        Entry::Workload(port) => device::port::enter(&mut walk, port),
        Entry::Device(port) => Next::Send(port),
        Entry::Router(id) => router::originate(&mut walk, id),
    };
    let verdict = follow(&mut walk, first, 0);
    walk.step(|| Step {
        device: "outcome".to_owned(),
        text: crate::text::describe_verdict(&verdict, snapshot),
    });
    walk.finish(verdict)
}

/// Goes on until the way ends, or each of the ways where it forks.
fn follow<T: TraceSink>(walk: &mut Walk<'_, T>, first: Next, mut devices: usize) -> Verdict {
    let mut next = first;
    loop {
        next = match next {
            Next::Done(verdict) => return verdict,
            Next::Send(port) => device::port::leave(walk, port),
            Next::Receive(port) => {
                devices += 1;
                if devices > DEVICES_MAX {
                    walk.drop(DropReason::TooManyDevices, Some(Cause::Port(port)))
                } else {
                    device::receive(walk, port)
                }
            }
            Next::Choose(ways) => {
                return walk.choose(&ways, |walk, way| {
                    let next = router::take(walk, way);
                    follow(walk, next, devices)
                });
            }
        };
    }
}

/// The question who has `address`, asked out of a router's port; for asking again while packets wait.
/// None when the port isn't there, or has no address of that family.
pub fn ask(snapshot: &Snapshot, router_port: PortId, address: IpAddr) -> Option<Emission> {
    router::ask(snapshot.port(router_port)?, address)
}

/// What routers say of themselves, unasked, to the workload on an exterior port (RFC 4861, 6.2.4).
pub fn advertisements(snapshot: &Snapshot, port: PortId) -> Vec<Emission> {
    let to = Origin::ToPort(port);
    let Some(port) = snapshot.port(port).filter(|it| it.admin_up) else {
        return Vec::new();
    };
    match port.device {
        DeviceId::Bridge(bridge) => match snapshot.flood_domain_of(bridge) {
            Some(domain) => router::advertisements(snapshot, domain, to),
            None => Vec::new(),
        },
        DeviceId::Router(_) => {
            let made = router::advertisement(port, snapshot.overlay_mtu(), to);
            made.into_iter().collect()
        }
    }
}
