//! What the network answers for itself, with agents and without.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::{Host, Network, Ping, Run, Topology};
use weft_tests::scenario;

/// How long the agents are away: many times the life of a workload's neighbour entry here, and more than it has by
/// default (some 33 s until pings are lost).
const AWAY: Duration = Duration::from_secs(45);

/// A bridge over two hosts, and a router to another one.
fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_v6("fd00:1::b/64")
        .port("web/web-2", "h2", "10.0.1.12/24")
        .and_v6("fd00:1::c/64")
        .port("db/db-1", "h2", "10.0.2.11/24")
        .and_v6("fd00:2::b/64")
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
        .and_legs_v6(&[("web", "fd00:1::1/64"), ("db", "fd00:2::1/64")])
}

/// Has a workload doubt what it knows of its neighbours after a second or two.
fn forget_soon(net: &Network, workload: &str) -> Result<()> {
    let namespace = net.workload(workload)?.namespace()?;
    for family in ["ipv4", "ipv6"] {
        for (setting, value) in [
            ("base_reachable_time_ms", "1000"),
            ("delay_first_probe_time", "1"),
            ("gc_stale_time", "1"),
        ] {
            let path = format!("net/{family}/neigh/{WORKLOAD_INTERFACE}/{setting}");
            namespace.sysctl(&path, value)?;
        }
    }
    Ok(())
}

/// Pings from web-1 to both of the others, over both families, all at once.
fn ping_all(net: &Network, count: u32) -> Result<()> {
    let ping = Ping {
        count,
        interval: Duration::from_millis(500),
        ..Ping::default()
    };
    thread::scope(|scope| {
        let pings = ["web-2", "db-1"].map(|to| {
            let over_v4 = scope.spawn(move || net.ping_with("web-1", to, ping)?.all_answered());
            let over_v6 = scope.spawn(move || net.ping_v6_with("web-1", to, ping)?.all_answered());
            [(to, "IPv4", over_v4), (to, "IPv6", over_v6)]
        });
        for (to, family, ping) in pings.into_iter().flatten() {
            let result = ping.join().ok().context("a ping panicked")?;
            result.with_context(|| format!("to {to} over {family}"))?;
        }
        Ok(())
    })
}

#[scenario]
fn neighbours_are_found_while_agents_are_away(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    for workload in ["web-1", "web-2", "db-1"] {
        forget_soon(net, workload)?;
    }
    ping_all(net, 4)?;
    let upcalls = |net: &Network| -> Result<u64> {
        let status: serde_json::Value = net.weft("h1")?.json(&["status"])?;
        status["misses"].as_u64().context("misses")
    };
    // All is known: what workloads ask from here on reaches no agent.
    let before = upcalls(net)?;
    ping_all(net, 20)?;
    let after = upcalls(net)?;
    ensure!(
        before == after,
        "{} questions reached an agent",
        after - before
    );
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    ping_all(net, 2 * AWAY.as_secs() as u32)?;
    net.start_agents()?;
    net.wait_until_active(&topology())?;
    ping_all(net, 4)
}
