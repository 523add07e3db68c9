//! Answers for the API about chains of ports and tracked connections. Made on the packet thread.

use super::Engine;
use super::acls::HookTable;
use super::rule_counts::{Counts, HOOKS, PassingRules, add, opener};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;
use weft_api::export;
use weft_api::{
    CONNECTIONS_LIMIT, ConnectionInfo, ConnectionState, Connections, ConnectionsQuery, Enforcement,
    Enforcer, Flushed, HookRules, PolicyStatus, PortRules, QuotaInfo, RuleInfo,
};
use weft_common::connection::{Connection, FIN, Phase, RST, SEEN_SHIFT, seen_at, timeout_secs};
use weft_common::frame::protocol;
use weft_common::limits::{CONNECTIONS_PER_TENANT_MAX, CONNECTIONS_V4_MAX, POLICY_HOPS_MAX};
use weft_common::policy::Hook as KernelHook;
use weft_datapath::{Datapath, Family, Tracked, monotonic_ns};
use weft_vnet::policy::{Action, Hook, RuleRef};
use weft_vnet::{ChainId, Port, PortId};

/// Entries of each of the kernel's tables that are looked at.
const ENTRIES_MAX: usize = CONNECTIONS_V4_MAX as usize;

/// Why something was asked that can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The id is no port's.
    #[error("there is no port with the id {0}")]
    NoPort(String),
    /// The kernel's tables can't be read.
    #[error("connections can't be read: {0}")]
    Unreadable(String),
}

impl<D: Datapath> Engine<D> {
    /// The rules of a port's chains, by the text of its id, with what they counted.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn report_rules(&self, id: &str) -> Result<PortRules, ReportError> {
        let port = self.port_of(id)?;
        let here = self.ports.bound.get(&port.id);
        let mut counts: [Counts; 2] = HOOKS.map(|hook| self.settled_counts(port.id, hook));
        if let Some(bound) = here {
            let mut passing = PassingRules::new();
            let index = bound.key.index;
            for tracked in &self.tracked(|it| it.entry.key.tail.port == index)? {
                for (hook, counts) in HOOKS.into_iter().zip(&mut counts) {
                    let counted = self.connection_count(port.id, hook, tracked, &mut passing);
                    if let Some((rule, traffic)) = counted {
                        add(counts.entry(rule).or_default(), traffic);
                    }
                }
            }
        }
        let hooks = HOOKS.into_iter().zip(&counts);
        Ok(PortRules {
            port: self.path(port.id),
            tenant: self.tenant_of(port.id),
            host: port.binding.as_ref().map(|it| self.host_name_of(it.host)),
            is_here: here.is_some(),
            hooks: hooks
                .map(|(hook, counts)| self.report_hook(port, hook, counts))
                .collect(),
        })
    }

    fn report_hook(&self, port: &Port, hook: Hook, counts: &Counts) -> HookRules {
        let model = self.snapshot.model();
        let rules = self.rules_of(port.chains(hook)).into_iter();
        let rule = |(place, text)| {
            let RuleRef { chain, rule } = place;
            let traffic = counts.get(&place).copied().unwrap_or_default();
            RuleInfo {
                chain: model.policy.chain_name(chain),
                rule: rule + 1,
                text,
                packets: traffic.packets,
                bytes: traffic.bytes,
            }
        };
        let chains = port.chains(hook).iter();
        HookRules {
            hook: hook.to_string(),
            chains: chains.map(|id| model.policy.chain_name(*id)).collect(),
            enforcement: self.enforcement(port, hook),
            rules: rules.map(rule).collect(),
        }
    }

    /// Rules of chains and of those that they jump to, each chain once, where it is first met.
    fn rules_of(&self, chains: &[ChainId]) -> Vec<(RuleRef, String)> {
        let model = self.snapshot.model();
        let mut order: Vec<ChainId> = Vec::new();
        let mut next: Vec<ChainId> = chains.iter().rev().copied().collect();
        let mut rules = Vec::new();
        while let Some(id) = next.pop() {
            if order.contains(&id) {
                continue;
            }
            order.push(id);
            let Some(chain) = model.policy.chains.get(&id) else {
                continue;
            };
            for (rule, declared) in (0..).zip(&chain.rules) {
                let place = RuleRef { chain: id, rule };
                rules.push((place, export::rule(model, declared)));
            }
            let jumps = chain.rules.iter().rev().filter_map(|it| match it.action {
                Action::Jump(target) => Some(target),
                _ => None,
            });
            next.extend(jumps);
        }
        rules
    }

    fn enforcement(&self, port: &Port, hook: Hook) -> Enforcement {
        if !self.ports.bound.contains_key(&port.id) {
            let by = match port.chains(hook) {
                [] => Enforcer::Nobody,
                _ => Enforcer::Elsewhere,
            };
            return Enforcement {
                by,
                ..Enforcement::default()
            };
        }
        if let HookTable::NotCompiled(why) = self.acls.table(port.id, hook) {
            return Enforcement {
                by: Enforcer::NotCompiled,
                why: Some(why.to_string()),
                ..Enforcement::default()
            };
        }
        let Some(table) = self.acls.compiled_table(port.id, hook) else {
            return Enforcement::default();
        };
        let acl = table.acl;
        let steps = acl.steps_max();
        Enforcement {
            by: Enforcer::Kernel,
            why: None,
            flat_rules: acl.rule_count() as u64,
            bytes: acl.bytes() as u64,
            steps_max: steps as u64,
            may_exceed: steps > POLICY_HOPS_MAX,
            ports: self.acls.users_of(table.number) as u64,
            established_passes: acl.established_passes(),
            asks_each_packet: acl.reads_more() && !acl.established_passes(),
        }
    }

    /// Tracked connections.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn report_connections(&self, query: &ConnectionsQuery) -> Result<Connections, ReportError> {
        let now = seen_at(monotonic_ns());
        let is_asked = self.asked(query)?;
        let is_alive = |it: &Tracked| {
            let entry = &it.entry;
            !entry.connection.is_expired(entry.key.tail.protocol, now)
        };
        let mut all = self.tracked(|it| is_alive(it) && is_asked(it))?;
        let total = all.len() as u64;
        all.sort_unstable_by_key(|it| {
            let key = it.entry.key;
            let idle = idle_secs(&it.entry.connection, now);
            (
                idle,
                key.tail.port,
                key.local,
                key.remote,
                Reverse(key.tail.remote_l4),
            )
        });
        all.truncate(query.limit.unwrap_or(CONNECTIONS_LIMIT));
        let connections = all.iter().map(|it| self.report_connection(it, now));
        Ok(Connections {
            total,
            connections: connections.collect(),
        })
    }

    /// Takes connections out: their next packets are judged as if they were new.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn flush_connections(&mut self, query: &ConnectionsQuery) -> Result<Flushed, ReportError> {
        let is_asked = self.asked(query)?;
        let all = self.tracked(is_asked)?;
        let mut removed = 0;
        for tracked in &all {
            self.keep_counts_of(tracked);
            match self.datapath.remove_connection(tracked) {
                Ok(()) => removed += 1,
                Err(error) => tracing::error!(%error, "a connection stays"),
            }
        }
        Ok(Flushed { removed })
    }

    /// Whether a connection is asked for.
    fn asked(
        &self,
        query: &ConnectionsQuery,
    ) -> Result<impl Fn(&Tracked) -> bool + use<D>, ReportError> {
        let port = query.port.as_deref().map(|id| self.port_of(id));
        // Ports of other hosts have none here.
        let index = |port: &Port| self.ports.bound.get(&port.id).map_or(0, |it| it.key.index);
        let index = port.transpose()?.map(index);
        let tenant = query.tenant.clone();
        let mut owners: BTreeMap<u16, String> = BTreeMap::new();
        if tenant.is_some() {
            let model = self.snapshot.model();
            for (id, bound) in &self.ports.bound {
                let device = model.ports.get(id).map(|port| port.device);
                if let Some(owner) = device.and_then(|it| model.tenant_of(it)) {
                    owners.insert(bound.key.index, owner.to_string());
                }
            }
        }
        Ok(move |tracked: &Tracked| {
            let at = tracked.entry.key.tail.port;
            index.is_none_or(|index| index == at)
                && tenant.as_ref().is_none_or(|it| owners.get(&at) == Some(it))
        })
    }

    fn tracked(&self, is_wanted: impl Fn(&Tracked) -> bool) -> Result<Vec<Tracked>, ReportError> {
        let read = self.datapath.connections(ENTRIES_MAX);
        let mut all = read.map_err(|error| ReportError::Unreadable(error.to_string()))?;
        all.retain(is_wanted);
        Ok(all)
    }

    fn report_connection(&self, tracked: &Tracked, now: u32) -> ConnectionInfo {
        let entry = &tracked.entry;
        let (connection, tail) = (&entry.connection, entry.key.tail);
        let port = self.ports.by_index(tail.port);
        let has_ports = matches!(
            tail.protocol,
            protocol::TCP | protocol::UDP | protocol::SCTP
        );
        let is_echo = matches!(tail.protocol, protocol::ICMP | protocol::ICMPV6);
        let number = |number: u16| (has_ports || is_echo).then_some(number);
        let (local, remote) = addresses(tracked);
        let [ingress, egress] = connection.traffic;
        let rule = port.and_then(|id| self.admitting_rule(id, tracked));
        let policy = &self.snapshot.model().policy;
        let timeout = timeout_secs(tail.protocol, connection.phase, connection.flags);
        ConnectionInfo {
            port: port.map(|id| self.path(id)).unwrap_or_default(),
            tenant: port.map(|id| self.tenant_of(id)).unwrap_or_default(),
            host: self.host_name.clone(),
            protocol: export::protocol_word(tail.protocol),
            local: local.to_string(),
            local_port: number(tail.local_l4),
            remote: remote.to_string(),
            remote_port: number(tail.remote_l4).filter(|_| has_ports),
            state: state(tail.protocol, connection),
            opened_by: match opener(connection) {
                Hook::Ingress => "workload".to_owned(),
                Hook::Egress => "network".to_owned(),
            },
            idle_secs: idle_secs(connection, now),
            timeout_secs: u64::from(timeout),
            ingress_packets: ingress.packets,
            ingress_bytes: ingress.bytes,
            egress_packets: egress.packets,
            egress_bytes: egress.bytes,
            rule: rule.map(|RuleRef { chain, rule }| {
                format!("chain {}, rule {}", policy.chain_name(chain), rule + 1)
            }),
        }
    }

    /// For `status`: tables, and connections at the last count.
    pub(super) fn report_policy(&self) -> PolicyStatus {
        let [tables, hooks, hooks_not_compiled] = self.acls.sizes();
        let model = self.snapshot.model();
        let quotas = self.connections.by_tenant().iter();
        let quotas = quotas.map(|(tenant, connections)| QuotaInfo {
            tenant: model.tenant_name(*tenant),
            connections: *connections,
            connections_max: CONNECTIONS_PER_TENANT_MAX,
        });
        PolicyStatus {
            tables,
            hooks,
            hooks_not_compiled,
            connections: self.connections.tracked,
            quotas: quotas.collect(),
        }
    }

    fn port_of(&self, id: &str) -> Result<&Port, ReportError> {
        let parsed = Uuid::parse_str(id).ok().map(PortId);
        let port = parsed.and_then(|id| self.snapshot.model().ports.get(&id));
        port.map(|it| &**it)
            .ok_or_else(|| ReportError::NoPort(id.to_owned()))
    }
}

/// The workload's address and the other side's.
fn addresses(tracked: &Tracked) -> (IpAddr, IpAddr) {
    let key = &tracked.entry.key;
    match tracked.family {
        Family::V4 => (key.v4().local.into(), key.v4().remote.into()),
        Family::V6 => (key.local.into(), key.remote.into()),
    }
}

/// Whole seconds since the last packet; the kernel notes times in units of 1.07 s.
fn idle_secs(connection: &Connection, now: u32) -> u64 {
    // Another CPU may have written a later time.
    let units = (now.wrapping_sub(connection.seen) as i32).max(0);
    ((units as u64) << SEEN_SHIFT) / 1_000_000_000
}

fn state(number: u8, connection: &Connection) -> ConnectionState {
    let either = |flag: u8| {
        let [ingress, egress] = [KernelHook::Ingress, KernelHook::Egress];
        connection.flags & (flag << ingress as u8 | flag << egress as u8) != 0
    };
    let is_tcp = number == protocol::TCP;
    match connection.phase {
        _ if is_tcp && either(RST) => ConnectionState::Reset,
        phase if phase == Phase::Opening as u8 => ConnectionState::HalfOpen,
        phase if phase == Phase::Answered as u8 => ConnectionState::Answered,
        _ if is_tcp && either(FIN) => ConnectionState::Closing,
        phase if phase == Phase::Closing as u8 => ConnectionState::Closing,
        _ => ConnectionState::Established,
    }
}
