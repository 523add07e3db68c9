//! `weft ping`: a real packet beside what `trace` says of it.

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::harness::{Network, Run, Topology};
use weft_tests::scenario;

/// What a ping puts on the wire is declared as traffic between the two.
fn expect_ping(net: &Network, from: &str, to: &str) -> Result<()> {
    let pair = [net.workload(from)?.address()?, net.workload(to)?.address()?];
    for name in [from, to] {
        let what = format!("weft ping between {from} and {to}");
        net.workload(name)?
            .judge()
            .expect(what, u64::MAX, move |frame| {
                frame.ipv4().is_some_and(|(source, destination, _)| {
                    pair.contains(&source) && pair.contains(&destination)
                })
            });
    }
    Ok(())
}

#[scenario]
fn a_packet_does_what_trace_says_and_is_answered(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("web/web-2", "h1", "10.0.1.12/24")
            .port("db/db-1", "h2", "10.0.2.11/24")
            .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")]),
    )?;
    let weft = net.weft("h1")?;
    expect_ping(net, "web-1", "db-1")?;
    expect_ping(net, "web-1", "web-2")?;
    // The first packet makes the flow, the second goes by it.
    for _ in 0..2 {
        let ping: Value = weft.json(&["ping", "web/web-1", "db/db-1"])?;
        ensure!(ping["agrees"] == true, "{ping:#}");
        ensure!(ping["answer"]["what"] == "echo reply", "{ping:#}");
        ensure!(
            ping["answer"]["rtt_us"].as_u64().unwrap_or(0) > 0,
            "{ping:#}"
        );
        ensure!(ping["tunnel"]["address"] == "172.30.2.1", "{ping:#}");
        let key = weft.port("acme", "db/db-1")?.key.unwrap_or_default();
        ensure!(ping["tunnel"]["key"] == key.as_str(), "{key}: {ping:#}");
    }
    // Nothing listens there: the workload's own stack refuses, which is an answer.
    let done = weft.run(&["ping", "web/web-1", "db/db-1", "tcp/80"])?;
    ensure!(done.status.success(), "{}", done.describe());
    for text in [
        "reset: the port is closed",
        "the packet did what trace says",
    ] {
        ensure!(done.stdout.contains(text), "{}", done.describe());
    }
    let here: Value = weft.json(&["ping", "web/web-1", "web/web-2"])?;
    ensure!(
        here["agrees"] == true && here["tunnel"].is_null(),
        "{here:#}"
    );
    let elsewhere = weft.run(&["ping", "db/db-1", "web/web-1"])?;
    ensure!(
        elsewhere.status.code() == Some(1),
        "{}",
        elsewhere.describe()
    );
    ensure!(
        elsewhere.stderr.contains("is on host h2"),
        "{}",
        elsewhere.describe()
    );
    Ok(())
}
