//! `weft trace`: what would happen to a packet, without sending one.

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::harness::{Run, Topology};
use weft_tests::scenario;

#[scenario]
fn a_trace_names_the_devices_and_the_way_out(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("db/db-1", "h2", "10.0.2.11/24")
            .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")]),
    )?;
    let weft = net.weft("h1")?;
    for packet in [
        "icmp 10.0.1.11 > 10.0.2.11 echo",
        "tcp 10.0.1.11:40000 > 10.0.2.11:80 [syn]",
    ] {
        let trace: Value = weft.json(&["trace", "--from", "web/web-1", packet])?;
        let steps = trace["steps"].as_array().cloned().unwrap_or_default();
        for device in ["bridge web", "router core", "bridge db"] {
            ensure!(
                steps.iter().any(|step| step["device"] == device),
                "no {device} in {trace:#}"
            );
        }
        ensure!(trace["egress"]["port"] == "db/db-1", "{trace:#}");
        ensure!(trace["egress"]["host"] == "h2", "{trace:#}");
    }
    // The judges at both workloads see that no packet was sent.
    let text = weft.text(&[
        "trace",
        "--from",
        "web/web-1",
        "arp 10.0.1.11 who-has 10.0.1.1",
    ])?;
    ensure!(text.contains("10.0.1.1"), "{text}");
    Ok(())
}

#[scenario]
fn a_trace_says_why_a_packet_is_dropped(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .router("core", &[("web", "10.0.1.1/24")]),
    )?;
    let packet = "udp 10.0.1.11:1000 > 192.0.2.1:53";
    let trace: Value = net
        .weft("h1")?
        .json(&["trace", "--from", "web/web-1", packet])?;
    ensure!(trace["reason"] == "no_route", "{trace:#}");
    let wrong = net
        .weft("h1")?
        .run(&["trace", "--from", "web/web-7", packet])?;
    ensure!(wrong.status.code() == Some(1), "{}", wrong.describe());
    ensure!(wrong.stderr.contains("web-7"), "{}", wrong.describe());
    Ok(())
}
