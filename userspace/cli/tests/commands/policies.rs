//! Rules and connections of ports, and what `describe` makes of them.

use super::{example, ok, weft};
use axum::extract::{Path, Query};
use axum::routing::get;
use axum::{Json, Router};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weft_api::{
    ConnectionInfo, ConnectionState, Connections, ConnectionsQuery, Enforcement, Enforcer, Flushed,
    HookRules, PortRules, RuleInfo,
};

/// The agent's answers about them.
pub fn routes() -> Router {
    let asked = Arc::new(AtomicU64::new(0));
    let connections = get(move |query| connections(query, Arc::clone(&asked)));
    Router::new()
        .route("/v1/ports/{id}/rules", get(rules))
        .route("/v1/connections", connections.delete(flush))
}

async fn rules(Path(_): Path<String>) -> Json<PortRules> {
    let rule = |rule, text: &str, packets| RuleInfo {
        chain: "to-web".into(),
        rule,
        text: text.into(),
        packets,
        bytes: packets * 100,
    };
    let hook = |hook: &str, enforcement, chains: &[&str], rules| HookRules {
        hook: hook.into(),
        chains: chains.iter().map(|it| (*it).to_owned()).collect(),
        enforcement,
        rules,
    };
    let compiled = Enforcement {
        by: Enforcer::Kernel,
        flat_rules: 2,
        bytes: 1024,
        steps_max: 1,
        ports: 3,
        established_passes: true,
        ..Enforcement::default()
    };
    let rules = vec![
        rule(1, "{ proto: tcp, action: accept }", 12),
        rule(2, "{ action: drop }", 0),
    ];
    Json(PortRules {
        port: "web/web-1".into(),
        tenant: "acme".into(),
        host: Some("h1".into()),
        is_here: true,
        hooks: vec![
            hook("ingress", Enforcement::default(), &[], Vec::new()),
            hook("egress", compiled, &["to-web"], rules),
        ],
    })
}

/// Each time that they are asked for, another one is open.
async fn connections(
    Query(query): Query<ConnectionsQuery>,
    asked: Arc<AtomicU64>,
) -> Json<Connections> {
    let number = 40_000 + asked.fetch_add(1, Ordering::Relaxed) as u16;
    let connection = ConnectionInfo {
        port: "web/web-1".into(),
        tenant: "acme".into(),
        host: "h1".into(),
        protocol: "tcp".into(),
        local: "10.0.1.11".into(),
        local_port: Some(80),
        remote: "fd00::1".into(),
        remote_port: Some(number),
        state: ConnectionState::Established,
        opened_by: "network".into(),
        idle_secs: 3,
        ingress_packets: 7,
        ingress_bytes: 700,
        egress_packets: 9,
        egress_bytes: 900,
        ..ConnectionInfo::default()
    };
    let limit = query.limit.unwrap_or(1000);
    // What isn't whole has more of them.
    let total = if limit < 1000 { 5 } else { 1 };
    Json(Connections {
        total,
        connections: vec![connection; limit.min(1)],
    })
}

async fn flush(Query(query): Query<ConnectionsQuery>) -> Json<Flushed> {
    let removed = if query.port.is_some() { 2 } else { 5 };
    Json(Flushed { removed })
}

const RULES: &str = "\
HOOK    CHAIN   RULE  PACKETS  BYTES  SAYS
egress  to-web     1       12   1200  { proto: tcp, action: accept }
egress  to-web     2        0      0  { action: drop }
egress: shared by 3 ports with equal chains, packets that were looked up are of all of them
";

#[test]
fn rules_are_shown_with_what_they_counted() {
    let server = example();
    assert_eq!(ok(&server, &["rules", "web/web-1"]), RULES);
    let json = ok(&server, &["rules", "web/web-1", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["hooks"][1]["rules"][0]["packets"], 12);
    assert_eq!(json["hooks"][1]["enforcement"]["by"], "kernel");
    let ran = weft(&server, &["rules", "web/nobody"]);
    let why = "error: `web` has no port `nobody`\n";
    assert_eq!((ran.status, ran.err.as_str()), (1, why));
}

#[test]
fn connections_are_shown_followed_and_flushed() {
    let server = example();
    let shown = ok(&server, &["connections", "--port", "web/web-1"]);
    let expected = "\
PORT       HOST  PROTOCOL  LOCAL         REMOTE           STATE        OPENED BY  IDLE  INGRESS  INGRESS BYTES  EGRESS  EGRESS BYTES
web/web-1  h1    tcp       10.0.1.11:80  [fd00::1]:40000  established  network     3 s        7            700       9           900
";
    assert_eq!(shown, expected);
    let ran = weft(&server, &["connections", "--limit", "1", "-o", "json"]);
    assert_eq!(ran.err, "4 more of 5 aren't shown: --limit\n");
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json[0]["state"], "established");
    let flush = ["connections", "flush", "--port", "web/web-1"];
    assert_eq!(ok(&server, &flush), "2 connections removed\n");
    let all = ok(&server, &["connections", "flush"]);
    assert_eq!(all, "5 connections removed\n");
    let ran = weft(&server, &["connections", "flush", "--follow"]);
    assert_eq!(ran.status, 2);

    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["--endpoint", &server.endpoint, "connections", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let rest = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    let told = |sign, number| {
        format!("{sign} web/web-1 tcp 10.0.1.11:80 < [fd00::1]:{number} established, 7 + 9 packets")
    };
    assert_eq!(rest(&lines[0]), told("+", 40_003));
    assert_eq!(rest(&lines[1]), told("-", 40_002));
}

#[test]
fn a_port_is_described_with_its_chains() {
    let server = example();
    let text = ok(&server, &["describe", "port", "web/web-1"]);
    for part in [
        "port          web/web-1\n",
        "tenant        acme\n",
        "bound to      h1:web1\n",
        "state         waiting\n",
        "problem       interface web1 doesn't exist yet\n",
        "sent          7 packets, 0 bytes\n",
        "connections   5\n",
        "drops         4 no_route: no route leads to the destination\n",
        "ingress       no chains: all packets pass\n",
        "egress        chains to-web\n              compiled: 2 flat rules in 1024 bytes, \
         at most 1 step of a lookup, shared by 3 ports\n              \
         packets of known connections pass without a lookup\n",
    ] {
        assert!(text.contains(part), "`{part}` isn't in\n{text}");
    }
    assert!(text.ends_with(RULES), "{text}");
    let json = ok(&server, &["describe", "port", "web/web-1", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["connections"], 5);
    // Of all else, what `get` shows.
    let chosen = ["bridge", "web"];
    let described = ok(&server, &[&["describe"], &chosen[..]].concat());
    assert_eq!(described, ok(&server, &[&["get"], &chosen[..]].concat()));
}
