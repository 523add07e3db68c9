//! `weft ping`: a real packet on the way that a workload's takes, beside what `trace` says of it.
//!
//! The packet goes through the same code as one that came up without a flow: by its flow if it has one, else by a new
//! decision. It is told from others by its mark: ICMP identifier and sequence number, or TCP sequence number. The
//! receiver's host is asked for it, too.

use super::Engine;
use super::tracing_packets::TraceError;
use super::watches::Question;
use std::net::{IpAddr, SocketAddr};
use weft_api::{PingRequest, TraceRequest, TraceResponse};
use weft_common::event::MissReason;
use weft_common::probe::WATCH_VISIBLY;
use weft_common::{DropReason, FlowKey, TunnelKey, extract};
use weft_datapath::{Datapath, HeldPacket, Miss};
use weft_vnet::policy::Connection;
use weft_vnet::{Entry, HostId, NoTrace, Packet, Port, PortId, Verdict, frame_for};

/// A packet to send, and how to know it again.
pub struct PingPlan {
    /// What `trace` says of it.
    pub trace: TraceResponse,
    /// The packet in words.
    pub text: String,
    /// How to know it.
    pub mark: Mark,
    /// Name of this host.
    pub host: String,
    /// Where it should arrive; none while its receiver isn't live.
    pub target: Option<Target>,
    /// The sender's port.
    own: (HostId, TunnelKey),
    miss: Miss,
}

/// A packet that this host didn't forward, and told its sender so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// What in the topology said so.
    pub cause: Option<String>,
    /// The frame that told the sender; none when nothing did.
    pub answer: Option<Vec<u8>>,
}

/// A live port of some host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its host.
    pub host: HostId,
    /// Name of the host.
    pub host_name: String,
    /// Whether no weftd runs there.
    pub is_unmanaged: bool,
    /// "db/db-1".
    pub port: String,
    /// Its key there.
    pub key: TunnelKey,
}

impl PingPlan {
    /// The questions to ask before the packet goes: of its receiver's host, and of this one, where its answer comes.
    pub fn questions(&self, is_visible: bool) -> (Option<Question>, Option<Question>) {
        let flags = if is_visible { WATCH_VISIBLY } else { 0 };
        let about = |host, key| Question {
            host,
            key,
            token: self.mark.token,
            flags,
            number: 0,
        };
        let target = self.target.as_ref().filter(|it| !it.is_unmanaged);
        let there = target.map(|it| about(it.host, it.key));
        let here = is_visible.then(|| about(self.own.0, self.own.1));
        (there, here)
    }
}

/// What tells a ping and its answer from other packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// The TCP port that is asked; none for an echo.
    pub tcp_port: Option<u16>,
    /// ICMP identifier and sequence number, or TCP sequence number.
    pub token: u32,
}

impl Mark {
    /// Port that a TCP packet comes from: one that no workload of this moment is likely to use.
    pub fn source_port(&self) -> u16 {
        source_port(self.token)
    }
}

fn source_port(token: u32) -> u16 {
    0x8000 | token as u16
}

impl<D: Datapath> Engine<D> {
    /// Makes the packet. `token` should differ from ping to ping.
    ///
    /// # Errors
    /// [`TraceError`] when a port can't be found, isn't live here, or the two have no addresses of one family.
    pub fn plan_ping(&self, request: &PingRequest, token: u32) -> Result<PingPlan, TraceError> {
        let model = self.snapshot.model();
        let find = |name: &str| {
            let found = model.find_port(request.tenant.as_deref(), name);
            found.map_err(|error| TraceError::Port(error.to_string()))
        };
        let (from, to) = (find(&request.from)?, find(&request.to)?);
        let Some(bound) = self
            .ports
            .bound
            .get(&from)
            .filter(|it| it.attachment.is_some())
        else {
            let host = self
                .snapshot
                .activity(from)
                .map(|(host, _)| self.host_name_of(host));
            return Err(TraceError::Port(match host {
                Some(host) => format!("{} is on host {host}: ask the weftd there", request.from),
                None => format!("{} isn't live on any host", request.from),
            }));
        };
        // What this host would send in its workload's place says nothing of what that can send.
        if let Some(trouble) = self.trouble_at(from) {
            return Err(TraceError::Port(trouble));
        }
        let (source, destination) = addresses(model.ports.get(&from), model.ports.get(&to))
            .ok_or_else(|| {
                TraceError::Port("the two have no addresses of one family".to_owned())
            })?;
        let text = in_words(request.tcp_port, source, destination, token);
        let mut frame = frame_for(&self.snapshot, &self.state, from, &text)
            .map_err(|error| TraceError::Packet(error.to_string()))?;
        set_mark(&mut frame, request.tcp_port.is_some(), token);
        let trace = self.trace(&TraceRequest {
            tenant: request.tenant.clone(),
            from: request.from.clone(),
            packet: Some(text.clone()),
            hex: None,
            state: Connection::New,
        })?;
        Ok(PingPlan {
            trace,
            text,
            mark: Mark {
                source,
                destination,
                tcp_port: request.tcp_port,
                token,
            },
            host: self.host_name.clone(),
            target: self.target_of_ping(to),
            own: (self.host, bound.key),
            miss: Miss {
                port: bound.key.index,
                generation: bound.key.generation,
                reason: MissReason::NoFlow as u8,
                packet: HeldPacket::made(frame),
            },
        })
    }

    fn target_of_ping(&self, to: PortId) -> Option<Target> {
        let (host, key) = self.snapshot.activity(to)?;
        Some(Target {
            host,
            host_name: self.host_name_of(host),
            is_unmanaged: self.snapshot.is_unmanaged(host),
            port: self.path(to),
            key: TunnelKey::from_bits(key),
        })
    }

    /// Sends it, or refuses to.
    pub fn send_ping(&mut self, plan: &PingPlan) -> Option<Refusal> {
        let port = self.ports.by_key(plan.miss.port, plan.miss.generation);
        let untold = |engine: &Self| engine.drops.get(&(port, DropReason::AnswerRate)).copied();
        let before = untold(self);
        let refusal = port.and_then(|port| self.refusal_of(port, &plan.miss));
        self.handle_misses(vec![plan.miss.clone()]);
        let is_told = untold(self) == before;
        refusal.map(|refusal| Refusal {
            answer: refusal.answer.filter(|_| is_told),
            ..refusal
        })
    }

    /// How the packet is about to be refused, if it is: the decision is the one that is made right after this.
    fn refusal_of(&self, port: PortId, miss: &Miss) -> Option<Refusal> {
        let packet = Packet::parse(Entry::Workload(port), miss.port, &miss.packet.frame, None);
        let packet = packet.ok()?;
        let outcome = self.decide(&packet, &mut NoTrace);
        let Verdict::Refuse { reason, cause } = outcome.taken(&packet.key).verdict else {
            return None;
        };
        Some(Refusal {
            reason,
            cause: cause.map(|cause| cause.describe(&self.snapshot)),
            answer: outcome.emit.first().map(|answer| answer.frame.clone()),
        })
    }

    /// Drops at the ping's port so far, by reason.
    pub fn drops_at(&self, tenant: Option<&str>, port: &str) -> Vec<(String, u64)> {
        let id = self.snapshot.model().find_port(tenant, port);
        let path = id.map(|id| self.path(id)).unwrap_or_default();
        let drops = self.report_drops().into_iter();
        let here = drops.filter(|drop| drop.port.as_deref() == Some(path.as_str()));
        here.map(|drop| (drop.reason, drop.packets)).collect()
    }
}

/// The packet as `weft trace` takes it.
fn in_words(tcp_port: Option<u16>, source: IpAddr, destination: IpAddr, token: u32) -> String {
    let Some(port) = tcp_port else {
        return format!("icmp {source} > {destination} echo");
    };
    let source = SocketAddr::from((source, source_port(token)));
    let destination = SocketAddr::from((destination, port));
    format!("tcp {source} > {destination} [syn]")
}

/// First addresses of the two that are of one family.
fn addresses(
    from: Option<&std::sync::Arc<Port>>,
    to: Option<&std::sync::Arc<Port>>,
) -> Option<(IpAddr, IpAddr)> {
    let (from, to) = (from?, to?);
    from.addresses.iter().find_map(|source| {
        let source = source.address;
        let mut others = to.addresses.iter().map(|it| it.address);
        let destination = others.find(|it| it.is_ipv4() == source.is_ipv4())?;
        Some((source, destination))
    })
}

/// Writes the mark of an echo request or a SYN and mends its checksum (RFC 1624).
fn set_mark(frame: &mut [u8], is_tcp: bool, token: u32) {
    let mut key = FlowKey::default();
    let Ok(headers) = extract(&*frame, 0, None, &mut key) else {
        return;
    };
    let l3 = usize::from(headers.l3_offset);
    let is_v6 = frame.get(l3).is_some_and(|first| first >> 4 == 6);
    let l4 = l3 + if is_v6 { 40 } else { 20 };
    let word = |frame: &[u8], at: usize| {
        let bytes = frame.get(at..at + 2).and_then(|it| it.try_into().ok());
        u32::from(u16::from_be_bytes(bytes.unwrap_or_default()))
    };
    let checksum_at = l4 + if is_tcp { 16 } else { 2 };
    let [high, low] = [token >> 16, token & 0xffff];
    let mut sum = !word(frame, checksum_at) & 0xffff;
    for (at, new) in [(l4 + 4, high), (l4 + 6, low)] {
        sum += (!word(frame, at) & 0xffff) + new;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    for (at, value) in [(checksum_at, checksum), (l4 + 4, high), (l4 + 6, low)] {
        if let Some(bytes) = frame.get_mut(at..at + 2) {
            bytes.copy_from_slice(&(value as u16).to_be_bytes());
        }
    }
}
