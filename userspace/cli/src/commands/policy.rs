//! What chains of ports do: `rules` with what they counted, and `connections`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use weft_api::{ConnectionInfo, Connections, ConnectionsQuery, Enforcer, PortRules, RuleInfo};

use super::observe::clock;
use super::{Session, plural};
use crate::Done;
use crate::args::{ConnectionsCommand, Format};
use crate::output::duration;

/// How often `connections --follow` asks.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Connections that `--follow` compares.
const FOLLOWED_MAX: usize = 20_000;

/// Shows the rules of a port.
pub async fn rules(session: &Session, path: &str) -> Result<Done> {
    let model = session.model().await?;
    let id = model.find_port(session.tenant.as_deref(), path)?;
    let rules = session.client.port_rules(id.0).await?;
    if !rules.is_here {
        match &rules.host {
            Some(host) => bail!(
                "{} is bound on {host}: its weftd counts for its rules",
                rules.port
            ),
            None => bail!("{} isn't bound: nobody asks its chains", rules.port),
        }
    }
    session
        .output
        .show(&rules, || rules_table(session, &rules))?;
    Ok(Done::Well)
}

/// The rules of both hooks as a table, and what to know of its numbers.
pub fn rules_table(session: &Session, rules: &PortRules) -> String {
    let mut rows = Vec::new();
    let mut notes = String::new();
    for hook in &rules.hooks {
        let row = |rule: &RuleInfo| {
            vec![
                hook.hook.clone(),
                rule.chain.clone(),
                rule.rule.to_string(),
                rule.packets.to_string(),
                rule.bytes.to_string(),
                rule.text.clone(),
            ]
        };
        rows.extend(hook.rules.iter().map(row));
        match hook.enforcement.by {
            Enforcer::Kernel if hook.enforcement.ports > 1 => {
                notes += &format!(
                    "{}: shared by {} ports with equal chains, packets that were looked up are of all of them\n",
                    hook.hook, hook.enforcement.ports
                );
            }
            Enforcer::NotCompiled => {
                let why = hook.enforcement.why.as_deref().unwrap_or("unknown");
                notes += &format!(
                    "{}: not compiled, and all packets are dropped: {why}\n",
                    hook.hook
                );
            }
            _ => {}
        }
    }
    if rows.is_empty() {
        return format!("{} has no rules\n", rules.port);
    }
    let columns = ["HOOK", "CHAIN", "RULE", "PACKETS", "BYTES", "SAYS"];
    let right = ["RULE", "PACKETS", "BYTES"];
    session.output.table(&columns, &right, rows) + &notes
}

/// What was asked of connections.
async fn query(session: &Session, port: Option<&str>) -> Result<ConnectionsQuery> {
    let mut query = ConnectionsQuery::default();
    if port.is_none() && session.tenant.is_none() {
        return Ok(query);
    }
    let model = session.model().await?;
    if let Some(tenant) = &session.tenant {
        query.tenant = Some(model.find_tenant(tenant)?.to_string());
    }
    if let Some(path) = port {
        let id = model.find_port(session.tenant.as_deref(), path)?;
        query.port = Some(id.to_string());
    }
    Ok(query)
}

/// Shows connections, those with the latest packets first.
pub async fn connections(session: &Session, port: Option<&str>, limit: usize) -> Result<Done> {
    let mut query = query(session, port).await?;
    query.limit = Some(limit);
    let shown = session.client.connections(&query).await?;
    session.output.show(&shown.connections, || {
        connections_table(session, &shown.connections)
    })?;
    let left_out = shown.total.saturating_sub(shown.connections.len() as u64);
    if left_out > 0 {
        // JSON stays whole.
        eprintln!("{left_out} more of {} aren't shown: --limit", shown.total);
    }
    Ok(Done::Well)
}

fn connections_table(session: &Session, connections: &[ConnectionInfo]) -> String {
    if connections.is_empty() {
        return "no connections\n".into();
    }
    let columns = [
        "PORT",
        "HOST",
        "PROTOCOL",
        "LOCAL",
        "REMOTE",
        "STATE",
        "OPENED BY",
        "IDLE",
        "INGRESS",
        "INGRESS BYTES",
        "EGRESS",
        "EGRESS BYTES",
    ];
    let row = |it: &ConnectionInfo| {
        vec![
            it.port.clone(),
            it.host.clone(),
            it.protocol.clone(),
            local(it),
            remote(it),
            it.state.word().to_owned(),
            it.opened_by.clone(),
            duration(it.idle_secs),
            it.ingress_packets.to_string(),
            it.ingress_bytes.to_string(),
            it.egress_packets.to_string(),
            it.egress_bytes.to_string(),
        ]
    };
    let rows = connections.iter().map(row).collect();
    session.output.table(&columns, &columns[7..], rows)
}

fn local(it: &ConnectionInfo) -> String {
    endpoint(&it.local, it.local_port, it.remote_port.is_some())
}

fn remote(it: &ConnectionInfo) -> String {
    endpoint(&it.remote, it.remote_port, true)
}

/// "10.0.1.11:80", "[fd00:1::b]:80", "10.0.1.11 id 7", "10.0.1.11".
fn endpoint(address: &str, number: Option<u16>, is_port: bool) -> String {
    match number {
        None => address.to_owned(),
        Some(number) if !is_port => format!("{address} id {number}"),
        Some(number) if address.contains(':') => format!("[{address}]:{number}"),
        Some(number) => format!("{address}:{number}"),
    }
}

/// Forgets connections.
pub async fn change(session: &Session, command: &ConnectionsCommand) -> Result<Done> {
    let ConnectionsCommand::Flush { port } = command;
    let query = query(session, port.as_deref()).await?;
    let flushed = session.client.flush_connections(&query).await?;
    session.output.show(&flushed, || {
        format!("{} removed\n", plural(flushed.removed, "connection"))
    })?;
    Ok(Done::Well)
}

/// What tells a connection from all others.
type Key = (String, String, String, String, String);

fn key(it: &ConnectionInfo) -> Key {
    let protocol = format!("{} {}", it.protocol, it.opened_by);
    (
        it.tenant.clone(),
        it.port.clone(),
        protocol,
        local(it),
        remote(it),
    )
}

/// Prints connections that come, change their state and go, until interrupted.
pub async fn follow(session: &Session, port: Option<&str>) -> Result<Done> {
    let mut query = query(session, port).await?;
    query.limit = Some(FOLLOWED_MAX);
    let mut before = by_key(session.client.connections(&query).await?).0;
    let mut is_told = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_INTERVAL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Done::Well),
        }
        let (now, is_whole) = by_key(session.client.connections(&query).await?);
        if !is_whole && !is_told {
            is_told = true;
            eprintln!("more than {FOLLOWED_MAX} connections: not all are followed");
        }
        for (sign, connection) in changes(&before, &now, is_whole) {
            let line = match session.output.format {
                Format::Json | Format::Yaml => {
                    let change = serde_json::json!({ "change": sign, "connection": connection });
                    change.to_string() + "\n"
                }
                _ => follow_line(sign, connection),
            };
            session.output.text(&line)?;
        }
        before = now;
    }
}

/// By what tells them apart, and whether these are all.
fn by_key(connections: Connections) -> (BTreeMap<Key, ConnectionInfo>, bool) {
    let Connections { total, connections } = connections;
    let is_whole = total == connections.len() as u64;
    let all = connections.into_iter().map(|it| (key(&it), it));
    (all.collect(), is_whole)
}

/// What came, went, or is in another state. Of a part of all nothing can be said to have gone.
fn changes<'a>(
    before: &'a BTreeMap<Key, ConnectionInfo>,
    now: &'a BTreeMap<Key, ConnectionInfo>,
    is_whole: bool,
) -> Vec<(&'static str, &'a ConnectionInfo)> {
    let came = now.iter().filter_map(|(key, it)| match before.get(key) {
        None => Some(("+", it)),
        Some(old) if old.state != it.state => Some(("~", it)),
        Some(_) => None,
    });
    let is_gone = |(key, _): &(&Key, &ConnectionInfo)| is_whole && !now.contains_key(*key);
    let gone = before.iter().filter(is_gone).map(|(_, it)| ("-", it));
    came.chain(gone).collect()
}

fn follow_line(sign: &str, it: &ConnectionInfo) -> String {
    let arrow = match it.opened_by.as_str() {
        "network" => "<",
        _ => ">",
    };
    format!(
        "{} {sign} {} {} {} {arrow} {} {}, {} + {} packets\n",
        clock(),
        it.port,
        it.protocol,
        local(it),
        remote(it),
        it.state.word(),
        it.ingress_packets,
        it.egress_packets
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_api::ConnectionState;

    fn connection(remote_port: u16, state: ConnectionState) -> ConnectionInfo {
        ConnectionInfo {
            port: "web/web-1".into(),
            protocol: "tcp".into(),
            local: "10.0.1.11".into(),
            local_port: Some(80),
            remote: "fd00::1".into(),
            remote_port: Some(remote_port),
            state,
            ..ConnectionInfo::default()
        }
    }

    fn all(list: &[ConnectionInfo]) -> BTreeMap<Key, ConnectionInfo> {
        list.iter().map(|it| (key(it), it.clone())).collect()
    }

    #[test]
    fn what_comes_changes_and_goes_is_followed() {
        let [open, done] = [ConnectionState::Established, ConnectionState::Closing];
        let before = all(&[
            connection(1, open),
            connection(2, open),
            connection(3, open),
        ]);
        let now = all(&[
            connection(1, open),
            connection(2, done),
            connection(4, open),
        ]);
        let told = |is_whole| {
            let changes = changes(&before, &now, is_whole).into_iter();
            let told = changes.map(|(sign, it)| (sign, it.remote_port.unwrap_or_default()));
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(true), [("~", 2), ("+", 4), ("-", 3)]);
        assert_eq!(told(false), [("~", 2), ("+", 4)]);
    }

    #[test]
    fn endpoints_are_written_as_urls_write_them() {
        let it = connection(40000, ConnectionState::Established);
        assert_eq!(
            (local(&it), remote(&it)),
            ("10.0.1.11:80".into(), "[fd00::1]:40000".into())
        );
        let echo = ConnectionInfo {
            remote_port: None,
            ..it
        };
        assert_eq!(
            (local(&echo), remote(&echo)),
            ("10.0.1.11 id 80".into(), "fd00::1".into())
        );
    }
}
