//! What senders are told: routers that can't forward, ways that carry less than a packet, and the tools that ask.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::packet::Transport;
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Network, Run, Topology, wait};
use weft_tests::scenario;

/// A ping for which a next hop is asked takes 4 s, traceroute 2 s, mtr 5 s.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The smaller way is known within 1 s.
const NETWORK_LIMIT: Duration = Duration::from_secs(20);
/// Outer Ethernet, IPv4 and GRE with its key, without the inner Ethernet header that the MTU doesn't count.
pub const TUNNEL_BYTES: u32 = 42;

/// `web` - r1 - r2 - r3 - `db`, and another workload on `web`.
fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
        .port("db/db-1", "h2", "10.0.2.11/24")
        .row(
            &["r1", "r2", "r3"],
            ("web", "10.0.1.1/24"),
            ("db", "10.0.2.1/24"),
        )
}

/// Allows all ICMP, and what the tools send: it is their words that count here.
pub fn expect_probes(net: &Network) -> Result<()> {
    for workload in ["web-1", "web-2", "db-1"] {
        let judge = net.workload(workload)?.judge();
        judge.expect("probes and their answers", u64::MAX, |frame| {
            frame.ip().is_some_and(|(_, _, transport)| {
                matches!(
                    transport,
                    Transport::Icmp { .. }
                        | Transport::Udp { .. }
                        | Transport::Tcp { .. }
                        | Transport::LaterFragment { .. }
                )
            })
        });
    }
    Ok(())
}

/// What a program prints, on both streams; it may fail.
pub fn says(net: &Network, from: &str, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let done = net
        .workload(from)?
        .namespace()?
        .run(words[0], &words[1..], LIMIT)?;
    Ok(format!("{}{}", done.stdout, done.stderr))
}

#[scenario]
fn routers_say_why_they_do_not_forward(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    let topology = topology()
        .route_action("r1", "198.51.100.0/24", "reject")
        .route_action("r1", "203.0.113.0/24", "blackhole");
    net.apply(&topology)?;
    expect_probes(net)?;
    // Nobody is asked for, twice: by the packets that wait, and by those that meet the flow.
    let asked = net.workload("db-1")?.judge();
    asked.expect("ARP for nobody", u64::MAX, |frame| {
        frame.to_string().contains("10.0.2.99")
    });
    for (to, who, what) in [
        ("192.0.2.9", "10.0.1.1", "Destination Net Unreachable"),
        ("10.0.2.99", "10.255.2.2", "Destination Host Unreachable"),
        ("198.51.100.9", "10.0.1.1", "Packet filtered"),
    ] {
        for _ in 0..2 {
            let said = says(net, "web-1", &format!("ping -n -c 2 -i 0.2 -W 6 {to}"))?;
            let errors = said.matches(what).count();
            ensure!(
                errors == 2 && said.contains(&format!("From {who} ")),
                "{to}: {errors} times {what}:\n{said}"
            );
        }
    }
    let silent = says(net, "web-1", "ping -n -c 2 -i 0.2 -W 1 203.0.113.9")?;
    ensure!(
        silent.contains("100% packet loss") && !silent.contains("From "),
        "a blackhole spoke:\n{silent}"
    );
    for address in ["10.0.1.1", "10.255.1.2"] {
        refuses_services(net, address, (3, 3))?;
    }
    Ok(())
}

/// A router's own address refuses UDP by this ICMP type and code, and TCP by a reset.
pub fn refuses_services(net: &Network, address: &'static str, told: (u8, u8)) -> Result<()> {
    let workload = net.workload("web-1")?;
    let unreachable = workload
        .judge()
        .expect("port unreachable", 1, move |frame| {
            frame.ip().is_some_and(|(source, _, transport)| {
                let Transport::Icmp { kind, code, .. } = transport else {
                    return false;
                };
                source.to_string() == address && (*kind, *code) == told
            })
        });
    let script = format!("echo x >/dev/udp/{address}/9; exec 3<>/dev/tcp/{address}/80");
    let refused = workload.namespace()?.run("bash", &["-c", &script], LIMIT)?;
    ensure!(
        refused.stderr.contains("Connection refused"),
        "TCP to {address}:\n{}",
        refused.describe()
    );
    wait::until_ok("port unreachable", LIMIT, || {
        ensure!(unreachable.seen() == 1, "{address}: {unreachable:?}");
        Ok(())
    })
}

/// However many packets come, there are as many errors as the limit says; the others are counted, every packet as what
/// it was refused for, and another port doesn't notice.
#[scenario]
fn errors_are_limited_and_counted(run: &mut Run) -> Result<()> {
    const PACKETS: u64 = 4000;
    /// The agent refuses 500 of them or more, the kernel the others; a few may find the agent's queue full.
    const COUNTED_MIN: u64 = PACKETS - 100;
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    let workload = net.workload("web-1")?;
    let errors = workload
        .judge()
        .expect("net unreachable", u64::MAX, |frame| {
            let icmp = frame.ipv4().map(|(_, _, transport)| transport);
            matches!(
                icmp,
                Some(Transport::Icmp {
                    kind: 3,
                    code: 0,
                    ..
                })
            )
        });
    // "Net unreachable" is no error of a UDP socket: all are sent.
    let script =
        format!("exec 3>/dev/udp/192.0.2.9/9; for i in $(seq {PACKETS}); do echo x >&3; done");
    workload.namespace()?.run("bash", &["-c", &script], LIMIT)?;
    let weft = net.weft("h1")?;
    wait::until_ok("all are counted", NETWORK_LIMIT, || {
        let (told, dropped, untold) = (
            errors.seen(),
            weft.drops("no_route")?,
            weft.drops("answer_rate")?,
        );
        ensure!(
            told > 0 && told < PACKETS / 2 && dropped >= COUNTED_MIN && untold > 0,
            "{told} told, {dropped} dropped, {untold} not told"
        );
        Ok(())
    })?;
    net.ping("web-2", "db-1")
}

/// Both underlay interfaces and what is between them carry this much.
pub fn set_underlay_mtu(net: &Network, mtu: u32) -> Result<()> {
    for host in ["h1", "h2"] {
        let command = format!("link set {UNDERLAY_INTERFACE} mtu {mtu}");
        net.host(host)?.namespace().ip(&[command])?;
        net.middle().ip(&[format!("link set {host} mtu {mtu}")])?;
    }
    wait::until_ok("the new MTU", NETWORK_LIMIT, || {
        for host in ["h1", "h2"] {
            let status = net.weft(host)?.text(&["status", "-o", "json"])?;
            ensure!(status.contains(&format!("\"mtu\": {mtu}")), "{status}");
        }
        Ok(())
    })
}

/// `weft status` shows what workloads can send.
fn expect_overlay_mtu(net: &Network, mtu: u32) -> Result<()> {
    let weft = net.weft("h1")?;
    wait::until_ok("the MTU of workloads", NETWORK_LIMIT, || {
        let status: serde_json::Value = weft.json(&["status"])?;
        ensure!(status["overlay_mtu"] == mtu, "{status:#}");
        Ok(())
    })?;
    let text = weft.text(&["status"])?;
    let line = format!("mtu       {mtu} for workloads, to every host\n");
    ensure!(text.contains(&line), "{text}");
    Ok(())
}

/// On a bridge and over three routers: what fits arrives, what doesn't is answered with the size that does, and the
/// flow is one. Packets that may be divided arrive whatever their size.
#[scenario]
fn every_size_gets_its_answer_with_one_flow(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    net.ping("web-1", "web-2")?;
    for underlay in [1500, 1300] {
        set_underlay_mtu(net, underlay)?;
        expect_overlay_mtu(net, underlay - 42)?;
        let overlay = underlay - TUNNEL_BYTES;
        for (to, teller) in [("10.0.1.12", "10.0.1.12"), ("10.0.2.11", "10.0.1.1")] {
            for size in overlay - 5..=overlay + 5 {
                let payload = size - 28;
                // What the workload learned of the way before, it forgets.
                let namespace = net.workload("web-1")?.namespace()?;
                namespace.ip(&["route flush cache"])?;
                let line = format!("ping -n -c 1 -W 2 -M do -s {payload} {to}");
                let said = says(net, "web-1", &line)?;
                let told =
                    format!("From {teller} icmp_seq=1 Frag needed and DF set (mtu = {overlay})");
                let is_right = match size <= overlay {
                    true => said.contains(" 1 received") && !said.contains("Frag needed"),
                    false => said.contains(" 0 received") && said.contains(&told),
                };
                ensure!(is_right, "{size} bytes to {to} over {underlay}:\n{said}");
            }
            for payload in [overlay - 27, 1472, 4000] {
                let line = format!("ping -n -c 1 -W 2 -M dont -s {payload} {to}");
                let said = says(net, "web-1", &line)?;
                ensure!(said.contains(" 1 received"), "{line}:\n{said}");
            }
        }
    }
    let mut flows: Vec<FlowLine> = net.weft("h1")?.flows()?;
    flows.retain(|flow| flow.port == "web/web-1" && flow.actions.contains("dec_ttl"));
    ensure!(flows.len() == 1, "not one flow: {flows:#?}");
    Ok(())
}

/// A workload's 1500 bytes go as they are where the underlay has room for the tunnel.
#[scenario]
fn a_wide_underlay_carries_whole_packets(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    for underlay in [1542, 9000] {
        set_underlay_mtu(net, underlay)?;
        for to in ["10.0.1.12", "10.0.2.11"] {
            let line = format!("ping -n -c 1 -W 2 -M do -s 1472 {to}");
            let said = says(net, "web-1", &line)?;
            ensure!(
                said.contains(" 1 received"),
                "over {underlay}, {line}:\n{said}"
            );
        }
    }
    Ok(())
}

/// Each router's address on the side from which the packets come, then the workload.
const HOPS: [&str; 4] = ["10.0.1.1", "10.255.1.2", "10.255.2.2", "10.0.2.11"];

#[scenario]
fn traceroute_and_mtr_show_every_hop(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    // With one limit, traceroute waits for it, not for three times what the answer before took.
    for tool in [
        "traceroute -n -w 5 -I 10.0.2.11",
        "traceroute -n -w 5 -U 10.0.2.11",
        "traceroute -n -w 5 -T -p 80 10.0.2.11",
        "mtr -n --report -c 3 10.0.2.11",
        "mtr -n --report -c 3 -u 10.0.2.11",
    ] {
        shows_hops(net, tool, &HOPS)?;
    }
    Ok(())
}

/// The command's lines name these hops, each in its place and nothing lost.
pub fn shows_hops(net: &Network, tool: &str, hops: &[&str]) -> Result<()> {
    let said = says(net, "web-1", tool)?;
    let is_hop = |line: &&str| {
        let line = line.trim_start();
        line.starts_with(|first: char| first.is_ascii_digit())
    };
    let lines: Vec<&str> = said.lines().filter(is_hop).collect();
    let names = |line: &str, hop: &str| line.split_whitespace().any(|word| word == hop);
    let shown = lines.iter().zip(hops);
    let shown = shown.filter(|(line, hop)| names(line, hop) && !line.contains('*'));
    let is_whole = shown.count() == hops.len();
    let is_lost = tool.starts_with("mtr") && said.matches(" 0.0% ").count() != hops.len();
    ensure!(
        lines.len() == hops.len() && is_whole && !is_lost,
        "{tool}:\n{said}"
    );
    Ok(())
}
