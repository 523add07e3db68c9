//! What is told of the chains of ports: rules with their counters, connections, how chains are enforced.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use weft_tests::harness::{Network, Run, Topology, wait};
use weft_tests::scenario;

use super::policy::{
    CONNECT_LIMIT, DEFAULT_DENY, Server, connect, connects, expect_tcp, is_silent, talk, web,
};

/// The parts of `weft rules -o json` that are read.
#[derive(Clone, Debug, Deserialize)]
struct Rules {
    hooks: Vec<HookRules>,
}

#[derive(Clone, Debug, Deserialize)]
struct HookRules {
    hook: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
struct Rule {
    chain: String,
    rule: u32,
    text: String,
    packets: u64,
    bytes: u64,
}

/// A line of `weft connections -o json`.
#[derive(Clone, Debug, Deserialize)]
struct Connection {
    port: String,
    protocol: String,
    local: String,
    local_port: Option<u16>,
    remote: String,
    state: String,
    opened_by: String,
    ingress_packets: u64,
    ingress_bytes: u64,
    egress_packets: u64,
    egress_bytes: u64,
    rule: Option<String>,
}

/// Rules of what goes to `web-1`.
fn rules(net: &Network) -> Result<Vec<Rule>> {
    let all: Rules = net.weft("h1")?.json(&["rules", "web/web-1"])?;
    let [ingress, egress] = all.hooks.as_slice() else {
        anyhow::bail!("not two hooks: {all:?}");
    };
    ensure!(ingress.hook == "ingress" && egress.hook == "egress");
    ensure!(ingress.rules.is_empty(), "{ingress:?}");
    for (number, rule) in (1..).zip(&egress.rules) {
        ensure!((rule.chain.as_str(), rule.rule) == ("to-web", number));
        ensure!((rule.packets == 0) == (rule.bytes == 0), "{rule:?}");
    }
    Ok(egress.rules.clone())
}

fn packets(net: &Network) -> Result<Vec<u64>> {
    Ok(rules(net)?.iter().map(|it| it.packets).collect())
}

fn connections(net: &Network) -> Result<Vec<Connection>> {
    let arguments = ["connections", "--port", "web/web-1"];
    let all: Vec<Connection> = net.weft("h1")?.json(&arguments)?;
    ensure!(all.iter().all(|it| it.port == "web/web-1"), "{all:?}");
    Ok(all)
}

#[scenario]
fn rules_count_the_packets_that_they_decide(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    let texts: Vec<String> = rules(net)?.into_iter().map(|it| it.text).collect();
    let last = "{ action: drop }";
    ensure!(texts.last().is_some_and(|it| it == last), "{texts:?}");
    ensure!(packets(net)?[..2] == [0, 0]);
    let server = Server::start(net, "web-1", 8080)?;
    expect_tcp(net, "near-1", 8080)?;
    expect_tcp(net, "web-1", 8080)?;
    let mut stream = connects(net, "near-1", server.address)?;
    for _ in 0..20 {
        talk(&mut stream, "and again")?;
    }
    // A rule that admitted a connection counts its packets, whether they were looked up or not.
    wait::until("counts that agree", CONNECT_LIMIT, || {
        let [established, admits, _] = packets(net)?[..] else {
            anyhow::bail!("not three rules");
        };
        ensure!(established == 0);
        let open = connections(net)?;
        ensure!(open.len() == 1, "{open:?}");
        Ok((admits > 20 && admits == open[0].egress_packets).then_some(()))
    })?;
    let before = packets(net)?;
    is_silent(net, "near-1", SocketAddr::new(server.address.ip(), 9090))?;
    let counted = packets(net)?;
    // A late acknowledgement may have come besides.
    let is_late = counted[1] - before[1];
    ensure!(
        counted[0] == 0 && is_late <= 1,
        "{counted:?} after {before:?}"
    );
    ensure!(counted[2] > before[2], "{counted:?} after {before:?}");
    // Answers to what the workload asked are let in by the first rule.
    let other = Server::start(net, "far-1", 7070)?;
    expect_tcp(net, "far-1", 7070)?;
    expect_tcp(net, "web-1", 7070)?;
    connects(net, "web-1", other.address)?;
    let answered = packets(net)?;
    ensure!(
        answered[0] >= 2 && answered[1] == counted[1],
        "{answered:?}"
    );
    // Another rule in front: the others go on under their new numbers.
    let more = DEFAULT_DENY.replacen(
        "    - {",
        "    - { proto: udp, dst_port: 9, action: drop }\n    - {",
        1,
    );
    net.apply(&web(&more))?;
    talk(&mut stream, "still there")?;
    let moved = packets(net)?;
    ensure!(moved.len() == 4 && moved[0] == 0, "{moved:?}");
    ensure!(moved[2] > counted[1], "{moved:?} after {counted:?}");
    ensure!(moved[3] >= counted[2], "{moved:?} after {counted:?}");
    Ok(())
}

#[scenario]
fn connections_are_shown_and_flushed(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    ensure!(connections(net)?.is_empty());
    for workload in ["far-1", "web-1"] {
        expect_tcp(net, workload, 7070)?;
    }
    let far = net.workload("far-1")?;
    let listener = far
        .namespace()?
        .enter(|| Ok(TcpListener::bind(("0.0.0.0", 7070))?))?;
    let address = SocketAddr::new(far.address()?.into(), 7070);
    let mut asks = connect(net, "web-1", address, CONNECT_LIMIT)??;
    let (mut answers, _) = listener.accept()?;
    answers.set_read_timeout(Some(CONNECT_LIMIT))?;
    let mut bytes = [0; 5];
    asks.write_all(b"hello")?;
    answers.read_exact(&mut bytes)?;
    answers.write_all(b"HELLO")?;
    asks.read_exact(&mut bytes)?;

    let open = connections(net)?;
    ensure!(open.len() == 1, "{open:?}");
    let it = &open[0];
    ensure!(it.protocol == "tcp" && it.state == "established", "{it:?}");
    ensure!(it.opened_by == "workload" && it.rule.is_none(), "{it:?}");
    let own = net.workload("web-1")?.address()?.to_string();
    ensure!(it.local == own && it.remote == address.ip().to_string());
    ensure!(it.local_port == Some(asks.local_addr()?.port()), "{it:?}");
    ensure!(it.ingress_packets >= 3 && it.egress_packets >= 2, "{it:?}");
    // Ethernet, IP and TCP headers are counted.
    ensure!(it.ingress_bytes >= 3 * 54 + 5 && it.egress_bytes >= 2 * 54 + 5);
    let weft = net.weft("h1")?;
    let text = weft.text(&["connections"])?;
    ensure!(text.contains(" established "), "{text}");

    let text = weft.text(&["connections", "flush", "--port", "web/near-1"])?;
    ensure!(text == "0 connections removed\n", "{text}");
    ensure!(connections(net)?.len() == 1);
    let text = weft.text(&["connections", "flush", "--port", "web/web-1"])?;
    ensure!(text == "1 connection removed\n", "{text}");
    ensure!(connections(net)?.is_empty());
    // What comes in belongs to no connection any more.
    answers.write_all(b"more!")?;
    wait::until("a refused answer", CONNECT_LIMIT, || {
        let drops = net.weft("h1")?.all_drops()?;
        Ok(drops.get("policy_egress").copied().filter(|it| *it > 0))
    })?;
    ensure!(connections(net)?.is_empty());
    // What goes out begins one again.
    asks.write_all(b"again")?;
    answers.read_exact(&mut bytes)?;
    asks.read_exact(&mut bytes)
        .context("the answer stays away")?;
    ensure!(&bytes == b"more!");
    ensure!(connections(net)?.len() == 1);
    Ok(())
}

/// A chain with more masks of MAC addresses than the kernel tries.
fn many_masks() -> String {
    let mut chain = "  masks:\n".to_owned();
    for bits in 1..=9_u64 {
        let mask = !(u64::MAX << bits);
        let [_, _, a, b, c, d, e, f] = mask.to_be_bytes();
        let _ = writeln!(
            chain,
            "    - {{ src_mac: \"02:ff:ff:ff:ff:ff/{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\", action: accept }}"
        );
    }
    chain
}

#[scenario]
fn describe_tells_how_chains_are_enforced(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    let chains = format!("{DEFAULT_DENY}{}", many_masks());
    let topology = Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_chains(&[], &["to-web"])
        .port("web/web-2", "h1", "10.0.1.12/24")
        .and_chains(&[], &["to-web"])
        .port("web/odd", "h1", "10.0.1.13/24")
        .and_chains(&["masks"], &[])
        .port("web/far-1", "h2", "10.0.1.22/24")
        .and_chains(&[], &["to-web"])
        .policy(&chains);
    net.apply(&topology)?;
    let weft = net.weft("h1")?;
    let text = weft.text(&["describe", "port", "web/web-1"])?;
    for part in [
        "addresses     10.0.1.11\n",
        "state         active\n",
        "ingress       no chains: all packets pass\n",
        "egress        chains to-web\n",
        "compiled: 3 flat rules in ",
        ", shared by 2 ports\n",
        "packets of known connections pass without a lookup\n",
        "egress  to-web     2        0      0  { proto: tcp, dst_port: 8080, action: accept }\n",
    ] {
        ensure!(text.contains(part), "`{part}` isn't in\n{text}");
    }
    let text = weft.text(&["describe", "port", "web/odd"])?;
    let why = "not compiled, and all packets are dropped: 9 different masks of MAC addresses";
    ensure!(text.contains(why), "{text}");
    let text = weft.text(&["describe", "port", "web/far-1"])?;
    ensure!(
        text.contains("enforced by the host that it is bound on"),
        "{text}"
    );
    let refused = weft.run(&["rules", "web/far-1"])?;
    ensure!(
        refused.stderr.contains("is bound on h2"),
        "{}",
        refused.describe()
    );
    // Degraded, as those packets are dropped.
    let text = weft.run(&["status"])?.stdout;
    let line =
        "policy    0 established connections, 1 compiled table for 2 hooks, 1 more not compiled\n";
    ensure!(text.contains(line), "{text}");
    Ok(())
}
