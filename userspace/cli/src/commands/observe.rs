//! What the answering agent is doing: ports, flows, drops, status.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use owo_colors::AnsiColors;
use weft_api::agent::{
    AdoptedStatus, DropInfo, FlowInfo, Health, MaskInfo, PortInfo, PortState, Status,
};
use weft_api::{PolicyStatus, QuotaInfo};

use super::{Session, plural};
use crate::Done;
use crate::args::Format;
use crate::output::{duration, or_dash};

/// How often `drops --follow` asks.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// Shows ports.
pub async fn ports(session: &Session) -> Result<Done> {
    let mut ports = session.client.port_activity().await?;
    ports.retain(|port| session.wants(&port.tenant));
    ports.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
    session
        .output
        .show(&ports, || ports_table(session, &ports))?;
    Ok(Done::Well)
}

fn ports_table(session: &Session, ports: &[PortInfo]) -> String {
    if ports.is_empty() {
        return "no ports\n".into();
    }
    let columns = [
        "TENANT",
        "PORT",
        "HOST",
        "INTERFACE",
        "STATE",
        "KEY",
        "GRE KEY",
        "MAC",
        "ADDRESSES",
        "INGRESS",
        "EGRESS",
        "DROPS",
    ];
    let row = |port: &PortInfo| {
        let gre_key = port.tunnel_key.map(|key| format!("{key:#08x}"));
        vec![
            port.tenant.clone(),
            port.name.clone(),
            or_dash(port.host.clone()),
            or_dash(port.interface.clone()),
            port.state.word().to_owned(),
            or_dash(port.key.clone()),
            or_dash(gre_key),
            port.mac.clone(),
            or_dash(Some(port.addresses.join(","))),
            port.ingress_packets.to_string(),
            port.egress_packets.to_string(),
            port.drops.to_string(),
        ]
    };
    let mut text = session.output.table(
        &columns,
        &["INGRESS", "EGRESS", "DROPS"],
        ports.iter().map(row).collect(),
    );
    for port in ports {
        let is_here = matches!(
            port.state,
            PortState::Active | PortState::Waiting | PortState::Down
        );
        if let Some(problem) = port.problem.as_ref().filter(|_| is_here) {
            text += &format!("{}: {problem}\n", port.name);
        }
    }
    text
}

/// Shows installed flows.
pub async fn flows(session: &Session) -> Result<Done> {
    let mut flows = session.client.flows().await?;
    flows.retain(|flow| session.wants(&flow.tenant));
    flows.sort_by(|a, b| (&a.tenant, &a.port, &a.matches).cmp(&(&b.tenant, &b.port, &b.matches)));
    session
        .output
        .show(&flows, || flows_table(session, &flows))?;
    Ok(Done::Well)
}

fn flows_table(session: &Session, flows: &[FlowInfo]) -> String {
    if flows.is_empty() {
        return "no flows\n".into();
    }
    let row = |flow: &FlowInfo| {
        vec![
            flow.id.clone(),
            flow.matches.clone(),
            flow.actions.clone(),
            flow.packets.to_string(),
            flow.bytes.to_string(),
            duration(flow.idle_secs),
        ]
    };
    session.output.table(
        &["ID", "MATCH", "ACTIONS", "PACKETS", "BYTES", "IDLE"],
        &["PACKETS", "BYTES", "IDLE"],
        flows.iter().map(row).collect(),
    )
}

/// Shows the masks in use.
pub async fn masks(session: &Session) -> Result<Done> {
    let masks = session.client.masks().await?;
    let table = || {
        if masks.is_empty() {
            return "no masks\n".into();
        }
        let row = |mask: &MaskInfo| {
            vec![
                mask.mask.clone(),
                mask.flows.to_string(),
                mask.packets.to_string(),
            ]
        };
        let columns = ["MASK", "FLOWS", "PACKETS"];
        session
            .output
            .table(&columns, &columns[1..], masks.iter().map(row).collect())
    };
    session.output.show(&masks, table)?;
    Ok(Done::Well)
}

/// Shows drops.
pub async fn drops(session: &Session) -> Result<Done> {
    let mut drops = fetch_drops(session).await?;
    drops.retain(|drop| drop.packets > 0);
    let table = || {
        if drops.is_empty() {
            return "no drops\n".into();
        }
        let row = |drop: &DropInfo| {
            vec![
                or_dash(drop.port.clone()),
                drop.reason.clone(),
                drop.packets.to_string(),
                drop.explanation.clone(),
            ]
        };
        let columns = ["PORT", "REASON", "PACKETS", "MEANING"];
        session
            .output
            .table(&columns, &["PACKETS"], drops.iter().map(row).collect())
    };
    session.output.show(&drops, table)?;
    Ok(Done::Well)
}

async fn fetch_drops(session: &Session) -> Result<Vec<DropInfo>> {
    let mut drops = session.client.drops().await?;
    drops.retain(|drop| session.wants(drop.tenant.as_deref().unwrap_or_default()));
    drops.sort_by(|a, b| (&a.port, &a.reason).cmp(&(&b.port, &b.reason)));
    Ok(drops)
}

/// Prints what is dropped from now on, until interrupted.
pub async fn follow_drops(session: &Session) -> Result<Done> {
    let mut before = counts(&fetch_drops(session).await?);
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Done::Well),
        }
        let now = fetch_drops(session).await?;
        for drop in newer(&before, &now) {
            let line = match session.output.format {
                Format::Json | Format::Yaml => serde_json::to_string(&drop)? + "\n",
                _ => follow_line(&drop),
            };
            session.output.text(&line)?;
        }
        before = counts(&now);
    }
}

type Counts = HashMap<(Option<String>, Option<String>, String), u64>;

fn counts(drops: &[DropInfo]) -> Counts {
    let key = |drop: &DropInfo| (drop.tenant.clone(), drop.port.clone(), drop.reason.clone());
    drops.iter().map(|drop| (key(drop), drop.packets)).collect()
}

/// What was dropped in between. Counters that fell were started anew, with the agent.
fn newer(before: &Counts, now: &[DropInfo]) -> Vec<DropInfo> {
    let more = |drop: &DropInfo| {
        let key = (drop.tenant.clone(), drop.port.clone(), drop.reason.clone());
        let old = before.get(&key).copied().unwrap_or(0);
        let packets = drop.packets.checked_sub(old).unwrap_or(drop.packets);
        (packets > 0).then(|| DropInfo {
            packets,
            ..drop.clone()
        })
    };
    now.iter().filter_map(more).collect()
}

fn follow_line(drop: &DropInfo) -> String {
    let port = or_dash(drop.port.clone());
    let DropInfo {
        reason,
        packets,
        explanation,
        ..
    } = drop;
    format!("{} {port} +{packets} {reason}: {explanation}\n", clock())
}

/// The time of day in UTC.
pub fn clock() -> String {
    let secs = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let (hours, minutes) = (secs / 3600 % 24, secs / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}Z", secs % 60)
}

/// Shows how the agent is.
pub async fn status(session: &Session) -> Result<Done> {
    let status = session.client.status().await?;
    session
        .output
        .show(&status, || status_text(session, &status))?;
    Ok(if status.state == Health::Ok {
        Done::Well
    } else {
        Done::Differs
    })
}

fn status_text(session: &Session, status: &Status) -> String {
    let paint = |text: &str, colour| session.output.paint(text, colour);
    let state = match status.state {
        Health::Ok => paint("ok", AnsiColors::Green),
        Health::Degraded => paint("degraded", AnsiColors::Yellow),
    };
    let connected = if status.store.connected {
        "connected"
    } else {
        "not connected"
    };
    let waiting = match status.ports_waiting {
        0 => String::new(),
        waiting => format!(", {waiting} waiting for their interfaces"),
    };
    let mut text = format!(
        "host      {}\nstate     {state}\nweftd     {} (abi {}), up {}\nstore     {} ({connected}), \
         revision {}\nports     {} active{waiting}\nflows     {} of at most {}, {} misses so far\n\
         audit     drift {}, {} mended in {} rounds\n",
        status.host,
        status.version,
        status.abi,
        duration(status.uptime_secs),
        status.store.url,
        status.revision,
        status.ports_active,
        status.flows,
        status.flows_max,
        status.misses,
        status.audit.drift,
        status.audit.repaired,
        status.audit.rounds,
    );
    text += &policy_lines(session, &status.policy);
    text += &adopted_line(&status.adopted);
    if let Some(mtu) = status.overlay_mtu {
        text += &format!("mtu       {mtu} for workloads, to every host\n");
    }
    if !status.underlay_xdp.is_empty() {
        text += &format!("xdp       {}\n", status.underlay_xdp.join(", "));
    }
    for problem in &status.problems {
        text += &format!("problem   {}\n", paint(problem, AnsiColors::Yellow));
    }
    if !status.peers.is_empty() {
        text.push('\n');
        let rows = status.peers.iter().map(|peer| {
            vec![
                peer.host.clone(),
                peer.address.clone(),
                peer.state.clone(),
                or_dash(peer.interface.clone()),
                or_dash(peer.gateway_mac.clone()),
                or_dash(peer.mtu.map(|mtu| mtu.to_string())),
            ]
        });
        let columns = ["PEER", "ADDRESS", "STATE", "INTERFACE", "NEXT HOP", "MTU"];
        text += &session.output.table(&columns, &["MTU"], rows.collect());
    }
    text
}

/// Chains in the kernel, if ports have any, and tenants that are near what they may have.
fn policy_lines(session: &Session, policy: &PolicyStatus) -> String {
    let PolicyStatus {
        tables,
        hooks,
        hooks_not_compiled,
        connections,
        quotas,
    } = policy;
    if hooks + hooks_not_compiled == 0 && *connections == 0 {
        return String::new();
    }
    let mut text = format!(
        "policy    {}, {} for {}",
        plural(*connections, "established connection"),
        plural(*tables, "compiled table"),
        plural(*hooks, "hook"),
    );
    if *hooks_not_compiled > 0 {
        text += &format!(", {hooks_not_compiled} more not compiled");
    }
    text.push('\n');
    for quota in quotas.iter().filter(|it| it.is_near()) {
        let QuotaInfo {
            tenant,
            connections,
            connections_max,
        } = quota;
        let line =
            format!("tenant {tenant} has {connections} of at most {connections_max} connections");
        text += &format!(
            "quota     {}\n",
            session.output.paint(&line, AnsiColors::Yellow)
        );
    }
    text
}

/// What became of an earlier weftd's flows, if there were any.
fn adopted_line(adopted: &AdoptedStatus) -> String {
    let AdoptedStatus {
        kept,
        replaced,
        removed,
        undecided,
    } = *adopted;
    if *adopted == AdoptedStatus::default() {
        return String::new();
    }
    let mut line = format!(
        "adopted   {} flows of an earlier weftd",
        kept + replaced + undecided
    );
    for (count, what) in [
        (undecided, "yet to be decided again"),
        (replaced, "decided otherwise"),
        (removed, "more removed"),
    ] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(port: &str, reason: &str, packets: u64) -> DropInfo {
        let (port, reason) = (Some(port.into()), reason.into());
        DropInfo {
            port,
            reason,
            packets,
            ..DropInfo::default()
        }
    }

    #[test]
    fn adopted_flows_are_told_with_what_became_of_them() {
        let adopted = |kept, replaced, removed, undecided| {
            adopted_line(&AdoptedStatus {
                kept,
                replaced,
                removed,
                undecided,
            })
        };
        assert_eq!(adopted(0, 0, 0, 0), "");
        let line = "adopted   7 flows of an earlier weftd\n";
        assert_eq!(adopted(7, 0, 0, 0), line);
        let line = "adopted   9 flows of an earlier weftd, 3 yet to be decided again, \
                    2 decided otherwise, 1 more removed\n";
        assert_eq!(adopted(4, 2, 1, 3), line);
    }

    #[test]
    fn only_what_was_dropped_in_between_is_followed() {
        let before = counts(&[dropped("a/1", "x", 5), dropped("a/2", "x", 7)]);
        let now = [
            dropped("a/1", "x", 8),
            dropped("a/2", "x", 7),
            dropped("a/2", "y", 2),
        ];
        assert_eq!(
            newer(&before, &now),
            [dropped("a/1", "x", 3), dropped("a/2", "y", 2)]
        );
        let restarted = [dropped("a/1", "x", 1), dropped("a/2", "x", 0)];
        assert_eq!(newer(&before, &restarted), [dropped("a/1", "x", 1)]);
    }
}
