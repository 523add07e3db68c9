//! What the kernel keeps outside of a frame's bytes: segments still to be cut, tags taken out. And sizes.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::packet::Transport;
use weft_tests::harness::{Builder, Capture, Iperf, Load, Run, Topology, wait};
use weft_tests::scenario;

/// Frames arrive within 1 ms, and 50 ms on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

/// A large TCP packet stays one through encapsulation, the underlay's router and decapsulation.
#[scenario]
fn segments_are_cut_behind_the_tunnel(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 16 << 20;
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let capture = Capture::start(net.middle(), "h2", "proto gre", (&net.folder(), "gso"))?;
    let load = Load::TcpBytes(BYTES);
    let reverse = false;
    net.iperf("web-1", "web-2", Iperf { load, reverse })?
        .carried(BYTES)?;
    let captured = capture.stop()?;
    let large = captured.fields("gre && frame.len > 20000", &["frame.len"])?;
    ensure!(!large.is_empty(), "no frame above 20,000 bytes");
    Ok(())
}

/// A tagged frame arrives with its tag, which travels inside: the underlay sees none.
#[scenario]
fn a_tag_goes_through_the_tunnel_inside(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let capture = Capture::start(net.middle(), "h2", "", (&net.folder(), "tag"))?;
    let builder = Builder {
        source: net.workload("web-1")?.mac(),
        destination: net.workload("web-2")?.mac(),
    };
    let mut frame = builder.probe("tagged");
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let arrived = net.expect_probe("web-2", "tagged", 2)?;
    for copies in 1..=2 {
        net.send("web-1", &frame)?;
        wait::until_ok("the tagged frame", ARRIVAL_LIMIT, || {
            ensure!(arrived.seen() == copies, "{arrived:?}");
            Ok(())
        })?;
    }
    let captured = capture.stop()?;
    let seen = captured.fields("gre && vlan.id == 5", &["eth.type"])?;
    ensure!(
        seen.len() == 2
            && seen
                .iter()
                .all(|types| types[0].starts_with("0x0800,0x8100")),
        "Ethernet types from the outside in: {seen:?}"
    );
    Ok(())
}

/// Workloads that send 1500 bytes over an underlay that carries 1500 with the tunnel's 42 in front: they are told
/// (RFC 1191), on the bridge and by the router, and TCP goes on.
#[scenario]
fn senders_are_told_what_a_narrow_underlay_carries(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let net = run.two_hosts()?;
    let topology = topology()
        .port("db/db-2", "h2", "10.0.2.12/24")
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")]);
    net.apply(&topology)?;
    for host in ["h1", "h2"] {
        let narrow = format!("link set {UNDERLAY_INTERFACE} mtu 1500");
        net.host(host)?.namespace().ip(&[narrow])?;
        net.middle().ip(&[format!("link set {host} mtu 1500")])?;
    }
    wait::until_ok("the smaller way", ARRIVAL_LIMIT, || {
        let status = net.weft("h1")?.text(&["status", "-o", "json"])?;
        ensure!(status.contains("\"mtu\": 1500"), "{status}");
        Ok(())
    })?;
    let mut told = Vec::new();
    for workload in ["web-1", "web-2", "db-2"] {
        let judge = net.workload(workload)?.judge();
        told.push(judge.expect("fragmentation needed", u64::MAX, |frame| {
            let icmp = frame.ipv4().map(|(_, _, transport)| transport);
            matches!(
                icmp,
                Some(Transport::Icmp {
                    kind: 3,
                    code: 4,
                    ..
                })
            )
        }));
    }
    for server in ["web-2", "db-2"] {
        let (load, reverse) = (Load::TcpBytes(BYTES), false);
        net.iperf("web-1", server, Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    ensure!(told[0].seen() >= 2, "nobody told web-1: {:?}", told[0]);
    Ok(())
}
