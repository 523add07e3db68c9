//! What an agent tells of the chains of ports and of tracked connections: rules with what they counted, how each hook is
//! enforced, connections.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/ports/{id}/rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRules {
    /// "web/web-1".
    pub port: String,
    /// Its tenant.
    pub tenant: String,
    /// Host that it is bound on.
    pub host: Option<String>,
    /// Whether the answering host has it: nothing is counted for ports of other hosts.
    pub is_here: bool,
    /// Ingress, then egress; those without chains, too.
    pub hooks: Vec<HookRules>,
}

/// One hook of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRules {
    /// "ingress" or "egress".
    pub hook: String,
    /// Names of its chains, in order.
    pub chains: Vec<String>,
    /// How the chains are enforced.
    pub enforcement: Enforcement,
    /// Rules of its chains and of those that they jump to, each chain once.
    pub rules: Vec<RuleInfo>,
}

/// A rule, and what it decided. A packet that needs no lookup, as its connection is known, counts for the rule that
/// admitted the connection; an answer to the opposite hook's connection, for the rule that lets it pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Name of its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub rule: u32,
    /// As a topology file says it.
    pub text: String,
    /// Packets at this hook that it accepted, dropped or rejected.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Who asks the chains of a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcer {
    /// Nobody: there are no rules.
    #[default]
    Nobody,
    /// The kernel, by compiled tables.
    Kernel,
    /// Nobody can: they aren't compiled, and all packets are dropped.
    NotCompiled,
    /// Another host.
    Elsewhere,
}

impl Enforcer {
    /// The word that the API and people use.
    pub fn word(self) -> &'static str {
        match self {
            Enforcer::Nobody => "nobody",
            Enforcer::Kernel => "kernel",
            Enforcer::NotCompiled => "not_compiled",
            Enforcer::Elsewhere => "elsewhere",
        }
    }
}

/// How a hook's chains are enforced. Figures are zero where the kernel has no tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcement {
    /// Who asks the chains.
    pub by: Enforcer,
    /// Why they aren't compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Rules once jumps are copied in.
    #[serde(default)]
    pub flat_rules: u64,
    /// Bytes of the tables in the kernel.
    #[serde(default)]
    pub bytes: u64,
    /// Steps behind rules that don't end a lookup, at most.
    #[serde(default)]
    pub steps_max: u64,
    /// Packets may need more steps than the kernel makes: those it can't decide.
    #[serde(default)]
    pub may_exceed: bool,
    /// Ports whose chains are equal and share the tables, this one among them. What they count is of all of them.
    #[serde(default)]
    pub ports: u64,
    /// Whether packets of known connections pass without a lookup.
    #[serde(default)]
    pub established_passes: bool,
    /// Whether each packet is looked up, as rules ask for what differs between the packets of a connection.
    #[serde(default)]
    pub asks_each_packet: bool,
}

/// Query of `GET` and `DELETE /v1/connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsQuery {
    /// Only those of this port, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only those of this tenant's ports, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// At most so many in the answer; 1000 if it isn't said. `DELETE` takes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl ConnectionsQuery {
    /// As the query of a URL, with its question mark; empty when nothing is said. Ids and numbers need no escapes.
    pub fn url(&self) -> String {
        let ConnectionsQuery {
            port,
            tenant,
            limit,
        } = self;
        let said = [
            port.as_ref().map(|id| format!("port={id}")),
            tenant.as_ref().map(|id| format!("tenant={id}")),
            limit.map(|limit| format!("limit={limit}")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        match said.as_slice() {
            [] => String::new(),
            said => format!("?{}", said.join("&")),
        }
    }
}

/// Connections in an answer where nobody says how many.
pub const CONNECTIONS_LIMIT: usize = 1000;

/// Answer of `GET /v1/connections`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// How many were asked for; `connections` may be fewer.
    pub total: u64,
    /// Those with the latest packets first.
    pub connections: Vec<ConnectionInfo>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Nobody has answered its first packets.
    #[default]
    HalfOpen,
    /// TCP: an answer was seen, and nothing of the opener since.
    Answered,
    /// Both sides take part.
    Established,
    /// TCP: one side, or both, said that it is done.
    Closing,
    /// TCP: one side reset it, and the other said nothing since.
    Reset,
}

impl ConnectionState {
    /// The word that the API and people use.
    pub fn word(self) -> &'static str {
        match self {
            ConnectionState::HalfOpen => "half_open",
            ConnectionState::Answered => "answered",
            ConnectionState::Established => "established",
            ConnectionState::Closing => "closing",
            ConnectionState::Reset => "reset",
        }
    }
}

/// A tracked connection of a port: an element of `GET /v1/connections`. One between two ports of a host is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Port whose chains judge it, "web/web-1".
    pub port: String,
    /// Its tenant.
    pub tenant: String,
    /// The answering host.
    pub host: String,
    /// "tcp", "udp", "icmp", ..., or a number.
    pub protocol: String,
    /// Address of the port's workload.
    pub local: String,
    /// Its TCP, UDP or SCTP port, or the identifier of an ICMP echo; none for other protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// Address of the other side.
    pub remote: String,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// How far it is.
    pub state: ConnectionState,
    /// "workload" or "network": who sent the first packet.
    pub opened_by: String,
    /// Seconds since its last packet, to within one.
    pub idle_secs: u64,
    /// Seconds without a packet after which it is forgotten.
    pub timeout_secs: u64,
    /// Packets that the workload sent.
    pub ingress_packets: u64,
    /// Their bytes.
    pub ingress_bytes: u64,
    /// Packets that the workload received.
    pub egress_packets: u64,
    /// Their bytes.
    pub egress_bytes: u64,
    /// The rule that admitted it, "chain to-web, rule 2"; none where no rule did, or chains changed since its last packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Answer of `DELETE /v1/connections`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Connections that were forgotten.
    pub removed: u64,
}

/// Chains of this host's ports in the kernel, and its connections: part of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Compiled tables in the kernel; ports with equal chains share them.
    pub tables: u64,
    /// Hooks of ports that the kernel asks tables for.
    pub hooks: u64,
    /// Hooks of ports whose chains aren't compiled: `weft describe port` says why.
    pub hooks_not_compiled: u64,
    /// Tracked connections that both sides take part in, at the last count (each second a part is counted).
    pub connections: u64,
    /// Those of each tenant with chains here.
    pub quotas: Vec<QuotaInfo>,
}

/// Connections of one tenant on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaInfo {
    /// The tenant.
    pub tenant: String,
    /// Its established connections at the last count.
    pub connections: u64,
    /// How many it may have; others are refused (`connection_quota`).
    pub connections_max: u64,
}

impl QuotaInfo {
    /// Whether four fifths or more are used.
    pub fn is_near(&self) -> bool {
        self.connections_max > 0
            && self.connections.saturating_mul(5) >= self.connections_max.saturating_mul(4)
    }
}
