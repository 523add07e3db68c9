//! One packet's way through the topology: what the devices may ask about it, and what they leave behind.
//!
//! Owned by [`crate::simulate()`]; the devices get it in turn. Reading a header field records its bits in the
//! mask, unless the field was rewritten on the way: then its value comes from the decision and not the packet.

use crate::flow_state::{FlowState, StateEntry};
use crate::id::PortId;
use crate::mac::Mac;
use crate::mask::{Mask, prefix_bits};
use crate::packet::{Entry, Packet};
use crate::policy::Connection;
use crate::route::NextHop;
use crate::simulate::{Cause, Emission, Member, Outcome, Verdict};
use crate::snapshot::Snapshot;
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::frame::protocol;
use weft_common::key::{Fragment, Network, VLAN_PRESENT};
use weft_common::limits::{SELECT_DEPTH_MAX, WAYS_MAX};
use weft_common::{DropReason, FlowKey, select};
use weft_wire::{Arp, Nd, NdError, ipv4};

/// Where the packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Into the device of this port, by it.
    Receive(PortId),
    /// Out of the device of this port, by it.
    Send(PortId),
    /// By one of these ways, which the packet's hash decides; at least two.
    Choose(Vec<Way>),
    /// The way is over.
    Done(Verdict),
}

/// A next hop that can be reached, or may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) next_hop: NextHop,
    /// Its MAC; none while it has to be asked for.
    pub(crate) mac: Option<Mac>,
}

/// What a way has left behind so far. Each way that a choice leads to goes on from what was before it.
#[derive(Clone, Copy, Debug)]
struct Branch {
    macs: Option<(Mac, Mac)>,
    routers_crossed: u8,
    install: bool,
    /// Choices on the way.
    choices: u32,
    /// Whether this packet goes here. Else nothing is sent, learned or told: another packet's way.
    is_taken: bool,
}

/// See the module's text.
pub(crate) struct Walk<'a, T> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) state: &'a FlowState,
    pub(crate) packet: &'a Packet<'a>,
    /// State of the packet's connection, where the chains of its ports are judged along; none where they aren't.
    pub(crate) judged: Option<Connection>,
    trace: &'a mut T,
    mask: Mask,
    branch: Branch,
    /// Ways that the choices so far lead to.
    ways: usize,
    /// Whether the packet's TTL ended: what was decided is for that TTL.
    ttl_ended: bool,
    tags: BTreeSet<Tag>,
    writes: Vec<StateEntry>,
    emit: Vec<Emission>,
}

impl<'a, T: TraceSink> Walk<'a, T> {
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        state: &'a FlowState,
        packet: &'a Packet<'a>,
        trace: &'a mut T,
    ) -> Self {
        Self {
            snapshot,
            state,
            packet,
            judged: None,
            trace,
            mask: Mask::default(),
            branch: Branch {
                macs: None,
                routers_crossed: 0,
                // A packet of the network's own has no ingress port that a flow could match.
                install: matches!(packet.entry, Entry::Workload(_)),
                choices: 0,
                is_taken: true,
            },
            ways: 1,
            ttl_ended: false,
            tags: BTreeSet::new(),
            writes: Vec::new(),
            emit: Vec::new(),
        }
    }

    pub(crate) fn finish(mut self, verdict: Verdict) -> Outcome {
        Outcome {
            mask: self.mask.key(),
            install: self.branch.install && !self.ttl_ended,
            tags: std::mem::take(&mut self.tags),
            writes: std::mem::take(&mut self.writes),
            emit: std::mem::take(&mut self.emit),
            ..self.member(verdict)
        }
    }

    // Choices.

    /// Whether a choice among `count` ways is still allowed: a packet may meet only so many.
    pub(crate) fn may_choose(&self, count: usize) -> bool {
        self.branch.choices < SELECT_DEPTH_MAX && self.ways + count - 1 <= WAYS_MAX
    }

    /// The packet's own of these ways, as a position. Its L4 ports put no bit into the mask: the kernel looks at them
    /// for each packet, by the same function.
    pub(crate) fn own_way(&self, ways: &[Way]) -> Option<usize> {
        let bucket = select::bucket(&self.packet.key);
        select::owner(bucket, ways.iter().map(|way| way.next_hop.identity()))
    }

    /// Goes each of these ways to its end, as `follow` does; what they look at and depend on adds up.
    pub(crate) fn choose(
        &mut self,
        ways: &[Way],
        mut follow: impl FnMut(&mut Self, &Way) -> Verdict,
    ) -> Verdict {
        let before = self.branch;
        let own = self.own_way(ways);
        self.ways += ways.len().saturating_sub(1);
        let mut members = Vec::with_capacity(ways.len());
        for (position, way) in ways.iter().enumerate() {
            self.branch = Branch {
                choices: before.choices + 1,
                is_taken: before.is_taken && own == Some(position),
                ..before
            };
            let verdict = follow(self, way);
            members.push(Member {
                next_hop: way.next_hop,
                outcome: self.member(verdict),
            });
        }
        self.branch = before;
        Verdict::Select(members)
    }

    /// How the way in hand ended. Mask, tags, writes and emissions are those of the whole walk.
    fn member(&self, verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            mask: FlowKey::default(),
            macs: self.branch.macs,
            ttl_decrement: self.branch.routers_crossed,
            tags: BTreeSet::new(),
            writes: Vec::new(),
            emit: Vec::new(),
            install: self.branch.install,
        }
    }

    // What a device may ask.

    /// Always in the mask.
    pub(crate) fn network(&self) -> Network {
        self.packet.key.head.network()
    }

    pub(crate) fn src_mac(&mut self) -> Mac {
        if let Some((source, _)) = self.branch.macs {
            return source;
        }
        self.mask.src_mac();
        Mac(self.packet.key.head.src_mac)
    }

    pub(crate) fn dst_mac(&mut self) -> Mac {
        if let Some((_, destination)) = self.branch.macs {
            return destination;
        }
        self.mask.dst_mac();
        Mac(self.packet.key.head.dst_mac)
    }

    /// The MACs that a router gave it, to be told and not to decide by.
    pub(crate) fn macs(&self) -> Option<(Mac, Mac)> {
        self.branch.macs
    }

    pub(crate) fn is_tagged(&mut self) -> bool {
        self.mask.tagged();
        self.packet.key.head.vlan & VLAN_PRESENT != 0
    }

    /// IP protocol or ARP operation.
    pub(crate) fn protocol(&mut self) -> u8 {
        self.mask.protocol();
        self.packet.key.head.protocol
    }

    pub(crate) fn fragment(&mut self) -> Fragment {
        self.mask.fragment();
        self.packet.key.head.fragment()
    }

    /// ICMP type and code; none for other packets and later fragments.
    pub(crate) fn icmp_type(&mut self) -> Option<(u8, u8)> {
        let number = match self.network() {
            Network::Ipv6 => protocol::ICMPV6,
            _ => protocol::ICMP,
        };
        if self.protocol() != number || self.fragment() == Fragment::Later {
            return None;
        }
        self.mask.l4_src();
        let [icmp_type, code] = self.packet.key.head.l4_src.to_be_bytes();
        Some((icmp_type, code))
    }

    /// Whole IPv4 source, or ARP sender address.
    pub(crate) fn src_v4(&mut self) -> Ipv4Addr {
        self.mask.src_v4();
        self.packet.key.src_v4().into()
    }

    /// Whole IPv4 destination, or ARP target address.
    pub(crate) fn dst_v4(&mut self) -> Ipv4Addr {
        self.mask.dst_v4(u32::MAX);
        self.packet.key.dst_v4().into()
    }

    /// Whole source of an IP packet.
    pub(crate) fn src_ip(&mut self) -> IpAddr {
        if self.network() == Network::Ipv6 {
            self.mask.src_v6(128);
            return Ipv6Addr::from_octets(self.packet.key.src).into();
        }
        self.src_v4().into()
    }

    /// Whole destination of an IP packet.
    pub(crate) fn dst_ip(&mut self) -> IpAddr {
        self.dst_by(|address| (address, 128))
    }

    /// That many leading bits of the source of an IP packet decided.
    pub(crate) fn src_bits(&mut self, bits: u8) {
        match self.network() {
            Network::Ipv6 => self.mask.src_v6(bits),
            _ => self.mask.src_v4_bits(prefix_bits(bits)),
        }
    }

    /// Something about the IP destination, for which `decide` needed that many leading bits.
    pub(crate) fn dst_by<R>(&mut self, decide: impl FnOnce(IpAddr) -> (R, u8)) -> R {
        let (result, bits) = decide(self.shown_dst());
        match self.network() {
            Network::Ipv6 => self.mask.dst_v6(bits),
            _ => self.mask.dst_v4(prefix_bits(bits)),
        }
        result
    }

    /// The destination of an IP packet, to be told and not to decide by.
    pub(crate) fn shown_dst(&self) -> IpAddr {
        match self.network() {
            Network::Ipv6 => Ipv6Addr::from_octets(self.packet.key.dst).into(),
            _ => Ipv4Addr::from(self.packet.key.dst_v4()).into(),
        }
    }

    /// The source of an IP packet, likewise; who decides by it says by how many bits in [`Walk::src_bits`].
    pub(crate) fn shown_src(&self) -> IpAddr {
        match self.network() {
            Network::Ipv6 => Ipv6Addr::from_octets(self.packet.key.src).into(),
            _ => Ipv4Addr::from(self.packet.key.src_v4()).into(),
        }
    }

    /// Whether an IPv4 packet's header was damaged on its way here. That is true of this packet only, and puts no bit
    /// into the mask; what follows where it wasn't is true of each like it.
    pub(crate) fn is_damaged(&self) -> bool {
        self.network() == Network::Ipv4 && ipv4::has_wrong_checksum(self.packet.network_bytes())
    }

    /// Whether an ARP packet speaks of its sender's own address (RFC 5227, 3). One differing bit would show that
    /// it doesn't, but then each pair of addresses would have its own mask, and masks are few.
    pub(crate) fn is_gratuitous(&mut self) -> bool {
        self.src_v4() == self.dst_v4()
    }

    /// The ARP packet itself. What it says beyond the key is for this packet only: no flow comes of it.
    pub(crate) fn arp(&mut self) -> Option<Arp> {
        self.branch.install = false;
        Arp::parse(self.packet.network_bytes()).ok()
    }

    /// The packet of neighbour discovery itself; likewise.
    pub(crate) fn nd(&mut self) -> Result<Nd, NdError> {
        self.branch.install = false;
        Nd::parse(self.packet.network_bytes())
    }

    /// The IP packet itself, for an answer: no flow comes of it.
    pub(crate) fn ip_bytes(&mut self) -> &'a [u8] {
        self.branch.install = false;
        self.packet.network_bytes()
    }

    /// Whether the TTL ends at the next router. Flows have a guard for it.
    pub(crate) fn ttl_ends(&mut self) -> bool {
        // Another packet's way is looked at without its end, which is a guard of the flow.
        let is_last = self.packet.headers.ttl <= self.branch.routers_crossed.saturating_add(1);
        self.ttl_ended |= is_last && self.branch.is_taken;
        is_last && self.branch.is_taken
    }

    /// Whether the packet came from the workload of this port, and has been nowhere else.
    pub(crate) fn entered_at(&self, port: PortId) -> bool {
        self.packet.entry == Entry::Workload(port)
    }

    // What a device may leave behind.

    pub(crate) fn cross_router(&mut self, source: Mac, destination: Mac) {
        self.branch.macs = Some((source, destination));
        self.branch.routers_crossed += 1;
    }

    /// A router sends a packet of its own: it crosses none.
    pub(crate) fn leave_router(&mut self, source: Mac, destination: Mac) {
        self.branch.macs = Some((source, destination));
    }

    pub(crate) fn depends_on(&mut self, tag: Tag) {
        self.tags.insert(tag);
    }

    pub(crate) fn write(&mut self, entry: StateEntry) {
        if self.branch.is_taken {
            self.writes.push(entry);
        }
    }

    pub(crate) fn emit(&mut self, emission: Emission) {
        if self.branch.is_taken {
            self.emit.push(emission);
        }
    }

    pub(crate) fn step(&mut self, step: impl FnOnce() -> Step) {
        if self.branch.is_taken {
            self.trace.step(step);
        }
    }

    // How a way ends.

    /// The network answered; the packet itself goes nowhere.
    pub(crate) fn answered(&mut self) -> Next {
        self.branch.install = false;
        Next::Done(Verdict::Answered)
    }

    /// The packet has to wait until a next hop is known.
    pub(crate) fn wait(&mut self, router_port: PortId, address: IpAddr) -> Next {
        self.branch.install = false;
        Next::Done(Verdict::Wait {
            router_port,
            address,
        })
    }

    /// The packet goes nowhere, and its sender is told.
    pub(crate) fn refuse(&mut self, reason: DropReason, cause: Option<Cause>) -> Next {
        Next::Done(Verdict::Refuse { reason, cause })
    }

    /// Whether a workload sent it, and not the network itself.
    pub(crate) fn is_from_workload(&self) -> bool {
        matches!(self.packet.entry, Entry::Workload(_))
    }

    /// What follows is true of this packet only.
    pub(crate) fn only_this_packet(&mut self) {
        self.branch.install = false;
    }

    pub(crate) fn drop(&mut self, reason: DropReason, cause: Option<Cause>) -> Next {
        Next::Done(Verdict::Drop { reason, cause })
    }

    /// A drop that is true of this packet only.
    pub(crate) fn drop_once(&mut self, reason: DropReason, cause: Option<Cause>) -> Next {
        self.branch.install = false;
        self.drop(reason, cause)
    }
}
