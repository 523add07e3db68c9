//! `/metrics` in Prometheus' text format 0.0.4: what the API tells, as numbers over time.
//!
//! Written by hand: `prometheus-client` writes OpenMetrics only, whose counters `promtool check metrics` refuses
//! (their help stands under another name than their samples).

use std::fmt::{Display, Write as _};
use weft_api::{
    DropInfo, HostInfo, HostState, MaskInfo, PolicyStatus, PortInfo, PortState, QuotaInfo, Status,
};

/// `Content-Type` of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an agent tells of itself at one instant.
pub struct Figures {
    /// `GET /v1/status`
    pub status: Status,
    /// `GET /v1/ports/activity`
    pub ports: Vec<PortInfo>,
    /// `GET /v1/drops`
    pub drops: Vec<DropInfo>,
    /// `GET /v1/hosts/activity`
    pub hosts: Vec<HostInfo>,
    /// `GET /v1/flows?masks`
    pub masks: Vec<MaskInfo>,
}

/// The figures as Prometheus reads them.
pub fn text(figures: &Figures) -> String {
    let mut text = Text(String::new());
    agent(&mut text, figures);
    policy(&mut text, &figures.status.policy);
    ports(&mut text, &figures.status.host, &figures.ports);
    drops(&mut text, &figures.drops);
    let peers: Vec<&HostInfo> = figures
        .hosts
        .iter()
        .filter(|host| !matches!(host.state, HostState::Local | HostState::Unmanaged))
        .collect();
    peer_states(&mut text, &peers);
    peer_figures(&mut text, &peers);
    text.0
}

fn agent(text: &mut Text, figures: &Figures) {
    let status = &figures.status;
    let abi = status.abi.to_string();
    text.gauge("weft_info", "The agent that answers; always 1.");
    let labels = [
        ("host", status.host.as_str()),
        ("version", &status.version),
        ("abi", &abi),
    ];
    text.sample("weft_info", &labels, 1);
    let gauges: [(&str, &str, u64); 8] = [
        (
            "weft_uptime_seconds",
            "Seconds since the agent started.",
            status.uptime_secs,
        ),
        (
            "weft_problems",
            "Things that `weft status` names as wrong.",
            status.problems.len() as u64,
        ),
        (
            "weft_store_connected",
            "Whether changes arrive from the store.",
            u64::from(status.store.connected),
        ),
        (
            "weft_topology_revision",
            "Revision of the topology that the agent decides by.",
            status.revision,
        ),
        ("weft_flows", "Installed flows.", status.flows),
        (
            "weft_flows_limit",
            "Flows that there may be.",
            status.flows_max,
        ),
        (
            "weft_masks",
            "Masks in use by flows.",
            figures.masks.len() as u64,
        ),
        (
            "weft_ports_waiting",
            "Bound ports whose interface doesn't exist yet.",
            status.ports_waiting,
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
    text.counter(
        "weft_misses_total",
        "Packets that came up to the agent without a flow.",
    );
    text.sample("weft_misses_total", &[], status.misses);
}

fn policy(text: &mut Text, policy: &PolicyStatus) {
    let gauges: [(&str, &str, u64); 4] = [
        (
            "weft_policy_tables",
            "Compiled chains in the kernel; hooks with equal chains share them.",
            policy.tables,
        ),
        (
            "weft_policy_hooks",
            "Hooks of ports that the kernel asks compiled chains for.",
            policy.hooks,
        ),
        (
            "weft_policy_hooks_not_compiled",
            "Hooks of ports whose chains the kernel can't ask.",
            policy.hooks_not_compiled,
        ),
        (
            "weft_connections",
            "Tracked connections that both sides take part in.",
            policy.connections,
        ),
    ];
    for (name, help, value) in gauges {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
    type Figure = fn(&QuotaInfo) -> u64;
    let families: [(&str, &str, Figure); 2] = [
        (
            "weft_tenant_connections",
            "Tracked connections of a tenant's ports here.",
            |quota| quota.connections,
        ),
        (
            "weft_tenant_connections_limit",
            "Connections that a tenant's ports here may have.",
            |quota| quota.connections_max,
        ),
    ];
    for (name, help, figure) in families {
        text.gauge(name, help);
        for quota in &policy.quotas {
            text.sample(name, &[("tenant", &quota.tenant)], figure(quota));
        }
    }
}

fn ports(text: &mut Text, host: &str, ports: &[PortInfo]) {
    let here: Vec<&PortInfo> = ports
        .iter()
        .filter(|port| port.host.as_deref() == Some(host))
        .collect();
    text.gauge(
        "weft_port_active",
        "Whether packets pass a port that is bound here.",
    );
    for port in &here {
        let labels = [("tenant", port.tenant.as_str()), ("port", &port.name)];
        let is_active = port.state == PortState::Active;
        text.sample("weft_port_active", &labels, u64::from(is_active));
    }
    port_counters(
        text,
        "weft_port_packets_total",
        "Packets by port; ingress is what its workload sent.",
        &here,
        |port| [port.ingress_packets, port.egress_packets],
    );
    port_counters(
        text,
        "weft_port_bytes_total",
        "Bytes by port; ingress is what its workload sent.",
        &here,
        |port| [port.ingress_bytes, port.egress_bytes],
    );
}

/// A family with both directions of each port.
fn port_counters(
    text: &mut Text,
    name: &str,
    help: &str,
    ports: &[&PortInfo],
    of: impl Fn(&PortInfo) -> [u64; 2],
) {
    text.counter(name, help);
    for port in ports {
        for (direction, value) in ["ingress", "egress"].into_iter().zip(of(port)) {
            let labels = [
                ("tenant", port.tenant.as_str()),
                ("port", &port.name),
                ("direction", direction),
            ];
            text.sample(name, &labels, value);
        }
    }
}

fn drops(text: &mut Text, drops: &[DropInfo]) {
    text.counter(
        "weft_drops_total",
        "Dropped packets by port (empty: none) and reason.",
    );
    for drop in drops {
        let labels = [
            ("tenant", drop.tenant.as_deref().unwrap_or_default()),
            ("port", drop.port.as_deref().unwrap_or_default()),
            ("reason", &drop.reason),
        ];
        text.sample("weft_drops_total", &labels, drop.packets);
    }
}

fn peer_states(text: &mut Text, peers: &[&HostInfo]) {
    text.gauge(
        "weft_peer_up",
        "Whether another host answers tunnel probes (degraded counts as up).",
    );
    for peer in peers {
        let is_up = matches!(peer.state, HostState::Up | HostState::Degraded);
        text.sample("weft_peer_up", &[("peer", &peer.host)], u64::from(is_up));
    }
    text.gauge(
        "weft_peer_degraded",
        "Whether tunnel probes get lost, or large ones don't come through.",
    );
    for peer in peers {
        let is_degraded = peer.state == HostState::Degraded;
        let labels = [("peer", peer.host.as_str())];
        text.sample("weft_peer_degraded", &labels, u64::from(is_degraded));
    }
}

fn peer_figures(text: &mut Text, peers: &[&HostInfo]) {
    type Figure = fn(&HostInfo) -> Option<f64>;
    let seconds_of_us = |us: u64| us as f64 / 1e6;
    let families: [(&str, &str, Figure); 6] = [
        (
            "weft_peer_rtt_seconds",
            "Last round trip of a tunnel probe.",
            |peer| peer.rtt_last_us.map(|us| us as f64 / 1e6),
        ),
        (
            "weft_peer_loss_ratio",
            "Tunnel probes of the last minute that were lost.",
            |peer| (peer.probes > 0).then(|| f64::from(peer.lost) / f64::from(peer.probes)),
        ),
        (
            "weft_peer_mtu_bytes",
            "Outer IP packet that the way should carry.",
            |peer| peer.mtu.map(f64::from),
        ),
        (
            "weft_peer_mtu_carried_bytes",
            "Largest outer IP packet that was seen to come through.",
            |peer| peer.mtu_carried.map(f64::from),
        ),
        (
            "weft_peer_agent_silent_seconds",
            "Seconds since the peer's agent was heard.",
            |peer| peer.agent.as_ref().map(|agent| agent.heard_secs_ago as f64),
        ),
        (
            "weft_peer_clock_offset_seconds",
            "The peer's clock less this host's.",
            |peer| {
                let agent = peer.agent.as_ref();
                agent.map(|agent| agent.clock_offset_ms as f64 / 1e3)
            },
        ),
    ];
    for (name, help, figure) in families {
        text.gauge(name, help);
        for peer in peers {
            if let Some(value) = figure(peer) {
                text.sample(name, &[("peer", &peer.host)], value);
            }
        }
    }
    text.gauge(
        "weft_peer_rtt_average_seconds",
        "Mean round trip of the last minute's tunnel probes.",
    );
    for peer in peers {
        if let Some(us) = peer.rtt_avg_us {
            let labels = [("peer", peer.host.as_str())];
            text.sample("weft_peer_rtt_average_seconds", &labels, seconds_of_us(us));
        }
    }
}

/// Text that grows by families and samples.
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0 += name;
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0 += if index == 0 { "{" } else { "," };
            let _ = write!(self.0, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.0 += "}";
        }
        let _ = writeln!(self.0, " {value}");
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_escaped_labels_under_their_family() {
        let mut text = Text(String::new());
        text.counter("weft_drops_total", "Dropped.");
        let labels = [("port", "a\"b\\c\nd"), ("reason", "no_route")];
        text.sample("weft_drops_total", &labels, 7);
        let expected = "# HELP weft_drops_total Dropped.\n# TYPE weft_drops_total counter\n\
                        weft_drops_total{port=\"a\\\"b\\\\c\\nd\",reason=\"no_route\"} 7\n";
        assert_eq!(text.0, expected);
    }

    #[test]
    fn only_what_is_here_has_counters_and_only_what_is_known_has_figures() {
        let port = |name: &str, host: &str| PortInfo {
            name: name.into(),
            host: Some(host.into()),
            ..PortInfo::default()
        };
        let figures = Figures {
            status: Status {
                host: "h1".into(),
                ..Status::default()
            },
            ports: vec![port("web/here", "h1"), port("web/there", "h2")],
            drops: Vec::new(),
            hosts: vec![
                HostInfo {
                    host: "h1".into(),
                    state: HostState::Local,
                    ..HostInfo::default()
                },
                HostInfo {
                    host: "h2".into(),
                    state: HostState::Up,
                    rtt_last_us: Some(1500),
                    ..HostInfo::default()
                },
            ],
            masks: Vec::new(),
        };
        let text = text(&figures);
        assert!(
            text.contains("port=\"web/here\",direction=\"ingress\"} 0\n"),
            "{text}"
        );
        assert!(!text.contains("web/there"), "{text}");
        assert!(text.contains("weft_peer_up{peer=\"h2\"} 1\n"), "{text}");
        assert!(
            text.contains("weft_peer_rtt_seconds{peer=\"h2\"} 0.0015\n"),
            "{text}"
        );
        assert!(!text.contains("peer=\"h1\""), "{text}");
        assert!(!text.contains("weft_peer_mtu_bytes{"), "{text}");
    }
}
