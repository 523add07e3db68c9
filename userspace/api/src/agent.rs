//! What the agent's half of the API answers: its flows, ports, drops and state, and traces.
//! Texts for people (`match`, `actions`, `problems`) are made by the agent, so that every client
//! shows the same words; beside them stand the same things for machines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_vnet::policy::Connection;

use crate::port_policy::PolicyStatus;

/// Query of `GET /v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsQuery {
    /// `?masks`: the masks in use instead of the flows; any value but `false` and `0` means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<String>,
}

impl FlowsQuery {
    /// Whether masks are asked for.
    pub fn wants_masks(&self) -> bool {
        self.masks
            .as_deref()
            .is_some_and(|value| value != "false" && value != "0")
    }
}

/// One installed flow: an element of `GET /v1/flows`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// Short and stable while the flow lives.
    pub id: String,
    /// Ingress port, "web/web-1".
    pub port: String,
    /// Its tenant.
    pub tenant: String,
    /// "in=web/web-1,ip,ip_dst=10.0.2.11/32".
    #[serde(rename = "match")]
    pub matches: String,
    /// How many bits of each header field the flow looks at; fields of no bits are left out.
    #[serde(default)]
    pub mask_bits: BTreeMap<String, u32>,
    /// "set_macs(..),dec_ttl(1),tunnel(host=h2,key=3.1)".
    pub actions: String,
    /// Packets that took it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since its last packet.
    pub idle_secs: u64,
    /// Slot of its actions.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
    /// What the decision depended on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One mask in use: an element of `GET /v1/flows?masks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MaskInfo {
    /// "in,ip,ip_dst/24".
    pub mask: String,
    /// How many bits of each header field it looks at.
    #[serde(default)]
    pub mask_bits: BTreeMap<String, u32>,
    /// Flows under it.
    pub flows: u64,
    /// Packets that those flows took.
    pub packets: u64,
}

/// What a port is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Bound on this host, and packets pass.
    Active,
    /// Bound on this host, but its interface doesn't exist yet.
    Waiting,
    /// Joined with another device's port.
    Interior,
    /// Bound nowhere.
    #[default]
    Unbound,
    /// Set down by its administrator; or its interface is down, or nobody is at that one's other end: `problem` says so.
    Down,
    /// Bound on another host.
    Remote,
}

impl PortState {
    /// The word that the API and people use.
    pub fn word(self) -> &'static str {
        match self {
            PortState::Active => "active",
            PortState::Waiting => "waiting",
            PortState::Interior => "interior",
            PortState::Unbound => "unbound",
            PortState::Down => "down",
            PortState::Remote => "remote",
        }
    }
}

/// A port as the answering host sees it: an element of `GET /v1/ports/activity`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its id.
    pub id: String,
    /// Its tenant's name.
    pub tenant: String,
    /// "web/web-1".
    pub name: String,
    /// Host that it is bound on.
    pub host: Option<String>,
    /// Interface there.
    pub interface: Option<String>,
    /// What it is doing.
    pub state: PortState,
    /// Its tunnel key as "INDEX.GENERATION", while it is live somewhere.
    pub key: Option<String>,
    /// The same as a GRE key.
    pub tunnel_key: Option<u32>,
    /// Its MAC address.
    pub mac: String,
    /// Its addresses, a router port's with their prefix lengths.
    pub addresses: Vec<String>,
    /// Packets that its workload sent; counters are zero for ports of other hosts.
    pub ingress_packets: u64,
    /// Their bytes.
    pub ingress_bytes: u64,
    /// Packets that its workload received.
    pub egress_packets: u64,
    /// Their bytes.
    pub egress_bytes: u64,
    /// Packets dropped at it, for any reason.
    pub drops: u64,
    /// MTU of its interface, if that is on the answering host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What keeps it from being active, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Packets dropped for one reason: an element of `GET /v1/drops`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInfo {
    /// Port they were dropped at, if they had reached one.
    pub port: Option<String>,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Name of the reason.
    pub reason: String,
    /// What it means.
    pub explanation: String,
    /// How many.
    pub packets: u64,
}

/// Whether an agent is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is as it should be.
    #[default]
    Ok,
    /// It forwards, but `problems` says what isn't right.
    Degraded,
}

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the host that answers.
    pub host: String,
    /// Version of its weftd.
    pub version: String,
    /// Version of what its kernel programs and weftd share.
    pub abi: u32,
    /// Whether all is well.
    pub state: Health,
    /// What is not, in words.
    pub problems: Vec<String>,
    /// Revision of the topology that it decides by.
    pub revision: u64,
    /// Its store.
    pub store: StoreStatus,
    /// Installed flows.
    pub flows: u64,
    /// How many there may be.
    pub flows_max: u64,
    /// Packets that came up without a flow, since it started.
    pub misses: u64,
    /// Flows that were decided again because something that they depended on changed, since it started.
    #[serde(default)]
    pub redecided: u64,
    /// Flows that had to make room for others, since it started.
    #[serde(default)]
    pub evicted: u64,
    /// What the comparison of flows with what they should be has found.
    #[serde(default)]
    pub audit: AuditStatus,
    /// What became of the flows that it found when it started.
    #[serde(default)]
    pub adopted: AdoptedStatus,
    /// Chains in the kernel, and connections.
    #[serde(default)]
    pub policy: PolicyStatus,
    /// Largest IP packet in bytes that a workload can send to every other host; none while no way is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u16>,
    /// Underlay interfaces on which XDP receives tunnel packets, before TC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub underlay_xdp: Vec<String>,
    /// Bound ports that packets pass.
    pub ports_active: u64,
    /// Bound ports whose interface doesn't exist yet.
    pub ports_waiting: u64,
    /// Other hosts that it has tunnels to.
    pub peers: Vec<PeerInfo>,
    /// Seconds since it started.
    pub uptime_secs: u64,
}

/// The flows of an earlier agent that go on under this one, since it started. All are zero where there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedStatus {
    /// Those that were decided again and are as they were; of another ABI, those that were rebuilt.
    pub kept: u64,
    /// Those that were decided again and go elsewhere now.
    pub replaced: u64,
    /// Those that were removed: their next packet is decided on anew.
    pub removed: u64,
    /// Those that go on as they were and have yet to be decided again.
    pub undecided: u64,
}

/// The background comparison of installed flows and the kernel's maps with what the agent would decide and believes
/// to be there. All of it is gone through again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// How often all was gone through.
    pub rounds: u64,
    /// Things that differed in the last whole round and in this one so far; 0 when all is as it should be.
    pub drift: u64,
    /// Things that differed and were mended, since the agent started.
    pub repaired: u64,
}

/// An agent's store, as it sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Where it is.
    pub url: String,
    /// Whether changes arrive.
    pub connected: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Another host, as an agent's underlay reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its name.
    pub host: String,
    /// Its underlay address.
    pub address: String,
    /// "resolved", "resolving", "unreachable": what the route and neighbour to it are like.
    pub state: String,
    /// Underlay interface towards it.
    pub interface: Option<String>,
    /// MAC address of the next hop.
    pub gateway_mac: Option<String>,
    /// MTU of the way there.
    pub mtu: Option<u32>,
    /// What tunnel probes say of it.
    #[serde(default)]
    pub reach: HostState,
}

/// What tunnel probes say of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It is the host that answers.
    Local,
    /// Nothing, and nobody asks: its ports have declared tunnel keys, as no weftd runs there.
    Unmanaged,
    /// Its kernel answers.
    Up,
    /// It answers, but probes get lost, or large ones don't come through.
    Degraded,
    /// It doesn't answer.
    Down,
}

impl HostState {
    /// The word that the API and people use.
    pub fn word(self) -> &'static str {
        match self {
            HostState::Unknown => "unknown",
            HostState::Local => "local",
            HostState::Unmanaged => "unmanaged",
            HostState::Up => "up",
            HostState::Degraded => "degraded",
            HostState::Down => "down",
        }
    }
}

/// A host as the answering one reaches it through tunnels: an element of `GET /v1/hosts/activity`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its name.
    pub host: String,
    /// Its underlay address, if it has one.
    pub address: Option<String>,
    /// What the last probes say.
    pub state: HostState,
    /// Since when that is so, as Unix time in seconds.
    pub since_unix_secs: Option<u64>,
    /// Probes of the last minute that were answered or lost.
    pub probes: u32,
    /// Those that were lost.
    pub lost: u32,
    /// The same in percent of all, rounded down.
    pub loss_percent: u32,
    /// Smallest round trip of the last minute, in microseconds, from kernel to kernel.
    pub rtt_min_us: Option<u64>,
    /// Mean round trip.
    pub rtt_avg_us: Option<u64>,
    /// Last round trip.
    pub rtt_last_us: Option<u64>,
    /// Bytes of outer IP that the way should carry, by routes and interfaces.
    pub mtu: Option<u32>,
    /// Largest outer IP packet that was seen to come through.
    pub mtu_carried: Option<u32>,
    /// What the way really carries, where that was found to be less than `mtu`. Flows keep to it.
    pub mtu_limit: Option<u32>,
    /// What its agent says of itself; none while nothing was heard of it.
    pub agent: Option<AgentHeard>,
    /// What is wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What another host's weftd said with its tunnel probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHeard {
    /// Its version.
    pub version: String,
    /// Version of what it shares with its kernel programs.
    pub abi: u32,
    /// Seconds since its last probe. The kernel answers without it, so this tells whether the agent lives.
    pub heard_secs_ago: u64,
    /// Its clock less the answering host's, in milliseconds, to within half a round trip.
    pub clock_offset_ms: i64,
}

/// Body of `POST /v1/trace`: what would happen to a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Tenant of the port; needed only where its name is not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Port whose workload sends the packet, "web/web-1".
    pub from: String,
    /// The packet in words: "icmp 10.0.1.11 > 10.0.2.11 echo".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<String>,
    /// Or the whole frame in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// State of its connection, for the chains of the ports that it passes.
    #[serde(default)]
    pub state: Connection,
}

/// Answer of `POST /v1/trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceResponse {
    /// The frame that was traced, in words.
    pub frame: String,
    /// What happened to it, in order.
    pub steps: Vec<TraceStep>,
    /// How it ended: one sentence.
    pub verdict: String,
    /// Name of the drop reason, if it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule, route or port that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Match of the flow that it would install.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// Actions of that flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<String>,
    /// Port that it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<TraceEgress>,
    /// Whether such a flow is installed already.
    #[serde(default)]
    pub installed: bool,
    /// What stands in the way of a real packet that the simulation doesn't see.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// One step of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// "router core".
    pub device: String,
    /// What it did.
    pub text: String,
}

/// Where a traced packet leaves the virtual network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEgress {
    /// "db/db-1".
    pub port: String,
    /// Host that the port is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its tunnel key there, "INDEX.GENERATION".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Body of `POST /v1/ping`: send a packet, and say what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Tenant of the ports; needed only where their names are not unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Port whose workload seems to send it; it must be live on the answering host.
    pub from: String,
    /// Port of the workload that it is for.
    pub to: String,
    /// A SYN to this port instead of an ICMP echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_port: Option<u16>,
}

/// Answer of `POST /v1/ping`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingResponse {
    /// Host that sent it.
    #[serde(default)]
    pub host: String,
    /// The packet in words.
    pub packet: String,
    /// What tells it from all other packets: its ICMP identifier and sequence number, or its TCP sequence number, in hex.
    #[serde(default)]
    pub mark: String,
    /// The first packet was lost, or its arrival and answer couldn't be seen: this is of a second one, for which XDP
    /// and delivery past the host's end of a veth were left out at both ports.
    #[serde(default)]
    pub repeated: bool,
    /// What `trace` says of it, asked just before it was sent.
    pub trace: TraceResponse,
    /// The tunnel by which it was seen to leave the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<PingTunnel>,
    /// Reasons for which packets were dropped at the port of its sender meanwhile.
    #[serde(default)]
    pub dropped: Vec<String>,
    /// That this host refused it, and what it told the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<PingRefusal>,
    /// What the receiver's host saw of it; none when the receiver isn't live on any host, or the packet never left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<PingArrival>,
    /// The workload's answer, as it came back to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PingAnswer>,
    /// Whether it did what `trace` says; none when that can't be told.
    #[serde(default)]
    pub agrees: Option<bool>,
    /// The first point at which it did something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
}

/// A ping that its sender's host refused to forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingRefusal {
    /// Name of the drop reason.
    pub reason: String,
    /// What in the topology said so: "route 10.0.2.0/24 of router core".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What the sender was told: "administratively prohibited (ICMP type 3, code 13) by 10.0.1.1"; none when nothing can
    /// be told, or too much was told lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
}

/// What the host of a ping's receiver saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingArrival {
    /// The host.
    pub host: String,
    /// "db/db-1".
    pub port: String,
    /// Whether the packet arrived at the workload's interface; none when that isn't known.
    pub seen: Option<bool>,
    /// Whether the workload was seen to answer it there.
    #[serde(default)]
    pub answered: bool,
    /// Why it didn't arrive, or why that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A tunnel packet that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingTunnel {
    /// Outer destination.
    pub address: String,
    /// Its key, "INDEX.GENERATION".
    pub key: String,
}

/// An answer to a ping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingAnswer {
    /// What it was: "echo reply", "SYN-ACK: the port is open", "reset: the port is closed".
    pub what: String,
    /// Microseconds from sending to seeing it.
    pub rtt_us: u64,
}

/// Body of `POST /v1/release`: everything that this weftd put into its kernel goes, and then weftd ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Name of the host that is meant; another one's weftd refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Answer of `POST /v1/release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Name of the host.
    pub host: String,
    /// What could not be done besides, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
}
