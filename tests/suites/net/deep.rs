//! Three routers between two workloads: every TTL and every size gets its answer, with one flow.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::packet::Transport;
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Network, Ping, Run, Topology, wait};
use weft_tests::scenario;

/// Each router's address on the side from which `web-1`'s packets come.
const HOPS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 0, 1, 1),
    Ipv4Addr::new(10, 255, 1, 2),
    Ipv4Addr::new(10, 255, 2, 2),
];
/// ICMP time exceeded, in transit (RFC 792).
const TIME_EXCEEDED: (u8, u8) = (11, 0);
/// Answers come within 5 ms.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("db/db-1", "h2", "10.0.2.11/24")
        .row(
            &["r1", "r2", "r3"],
            ("web", "10.0.1.1/24"),
            ("db", "10.0.2.1/24"),
        )
}

#[scenario]
fn every_ttl_gets_its_answer_with_one_flow(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    // No flow comes of packets whose time ends; then they come beside one.
    time_ends(net)?;
    net.ping("web-1", "db-1")?;
    only_one_flow(net)?;
    time_ends(net)?;
    for ttl in [4, 5] {
        let ping = Ping {
            ttl,
            ..Ping::default()
        };
        net.ping_with("web-1", "db-1", ping)?
            .all_answered()
            .with_context(|| format!("TTL {ttl}"))?;
    }
    only_one_flow(net)
}

/// Each router tells of each packet whose time ends at it.
fn time_ends(net: &Network) -> Result<()> {
    for (ttl, hop) in (1..).zip(HOPS) {
        let errors = net
            .workload("web-1")?
            .judge()
            .expect("time exceeded", 3, move |frame| {
                frame.ipv4().is_some_and(|(source, _, transport)| {
                    let Transport::Icmp { kind, code, .. } = transport else {
                        return false;
                    };
                    source == hop && (*kind, *code) == TIME_EXCEEDED
                })
            });
        let ping = Ping {
            ttl,
            ..Ping::default()
        };
        let result = net.ping_address("web-1", net.workload("db-1")?.address()?, ping)?;
        ensure!(result.received == 0, "TTL {ttl}:\n{}", result.text);
        wait::until_ok("an error for each request", ANSWER_LIMIT, || {
            ensure!(errors.seen() == 3, "TTL {ttl}: {errors:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// All of them crossed the same three routers by the same flow.
fn only_one_flow(net: &Network) -> Result<()> {
    let mut flows: Vec<FlowLine> = net.weft("h1")?.flows()?;
    flows.retain(|flow| flow.port == "web/web-1" && flow.actions.contains("ttl"));
    ensure!(flows.len() == 1, "not one flow: {flows:#?}");
    ensure!(flows[0].actions.contains("dec_ttl(3)"), "{flows:#?}");
    Ok(())
}
