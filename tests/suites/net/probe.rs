//! Tunnel probes between hosts: up, down, dead agents, ways that carry less than they say.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::harness::packet::Transport;
use weft_tests::harness::weft::HostLine;
use weft_tests::harness::{Network, Ping, Run, Topology, wait};
use weft_tests::scenario;

use crate::errors::says;

/// A host is up after 2 s and down after 5 s.
const STATE_LIMIT: Duration = Duration::from_secs(60);
/// A search takes 40 s.
const SEARCH_LIMIT: Duration = Duration::from_secs(300);

fn two_workloads(net: &mut Network) -> Result<()> {
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("web/web-2", "h2", "10.0.1.12/24"),
    )
}

/// Waits until `from` says of `to` what is wanted.
fn wait_for(
    net: &Network,
    (from, to): (&str, &str),
    limit: Duration,
    is_wanted: impl Fn(&HostLine) -> bool,
) -> Result<HostLine> {
    let weft = net.weft(from)?;
    let mut last = None;
    wait::until_ok(&format!("{from} about {to}"), limit, || {
        let line = last.insert(weft.host(to)?);
        ensure!(is_wanted(line), "{line:?}");
        Ok(())
    })?;
    Ok(last.expect("was waited for"))
}

#[scenario]
fn hosts_see_each_other_up_with_round_trip_mtu_and_version(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    for pair in [("h1", "h2"), ("h2", "h1")] {
        let line = wait_for(net, pair, STATE_LIMIT, |line| {
            line.state == "up" && line.mtu_carried == Some(1600) && line.agent.is_some()
        })?;
        ensure!(
            line.mtu == Some(1600) && line.mtu_limit.is_none(),
            "{line:?}"
        );
        ensure!(line.rtt_avg_us.is_some_and(|rtt| rtt > 0), "{line:?}");
        let agent = line.agent.as_ref().expect("waited for");
        ensure!(agent.version == env!("CARGO_PKG_VERSION"), "{line:?}");
        ensure!(agent.clock_offset_ms.abs() < 1000, "{line:?}");
        let own = net.weft(pair.0)?.host(pair.0)?;
        ensure!(own.state == "local", "{own:?}");
        let drops = net.weft(pair.0)?.drops("bad_probe")?;
        ensure!(drops == 0, "{drops} bad probes");
    }
    let text = net.weft("h1")?.text(&["hosts"])?;
    ensure!(text.contains("up") && text.contains(" ms"), "{text}");
    Ok(())
}

#[scenario]
fn a_host_whose_agent_is_dead_still_answers(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| {
        line.state == "up" && line.agent.is_some()
    })?;
    net.host_mut("h2")?.kill_agent()?;
    let before = net.weft("h1")?.host("h2")?;
    let line = wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| {
        line.agent
            .as_ref()
            .is_some_and(|agent| agent.heard_secs_ago >= 8)
    })?;
    ensure!(line.state == "up", "{line:?}");
    ensure!(
        line.probes > before.probes && line.lost == before.lost,
        "{before:?} {line:?}"
    );
    let text = net.weft("h1")?.text(&["hosts"])?;
    ensure!(text.contains("up"), "{text}");
    Ok(())
}

#[scenario]
fn a_host_out_of_reach_is_down_by_name_and_comes_back(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| line.state == "up")?;
    let weft = net.weft("h1")?;
    // A filter on the way: routes and neighbours stay as they are, no tunnel packet comes back.
    net.middle().ip(&["link set h2 down"])?;
    net.underlay_judge("h1")?
        .expect("ICMP errors of the way", u64::MAX, |frame| {
            frame
                .ipv4()
                .is_some_and(|(source, ..)| source.octets() == [172, 30, 1, 254])
        });
    let line = wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| line.state == "down")?;
    let problem = line.problem.unwrap_or_default();
    ensure!(
        problem.starts_with("host h2 (172.30.2.1) is down since 20"),
        "{problem}"
    );
    let status = weft.run(&["status"])?;
    ensure!(status.status.code() == Some(3), "{}", status.describe());
    ensure!(status.stdout.contains(&problem), "{}", status.describe());
    let packet = "icmp 10.0.1.11 > 10.0.1.12 echo";
    let trace: Value = weft.json(&["trace", "--from", "web/web-1", packet])?;
    ensure!(trace["problems"][0] == problem.as_str(), "{trace:#}");
    net.middle().ip(&["link set h2 up"])?;
    let line = wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| line.state == "up")?;
    ensure!(line.lost == 0 && line.problem.is_none(), "{line:?}");
    net.ping("web-1", "web-2")
}

#[scenario]
fn a_way_that_swallows_large_packets_is_found_and_flows_keep_to_it(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    wait_for(net, ("h1", "h2"), STATE_LIMIT, |line| {
        line.mtu_carried == Some(1600)
    })?;
    net.underlay_judge("h1")?
        .expect("ICMP errors of the way", u64::MAX, |frame| {
            frame
                .ipv4()
                .is_some_and(|(source, ..)| source.octets() == [172, 30, 1, 254])
        });
    // A flow that is there before.
    net.ping("web-1", "web-2")?;
    net.middle().ip(&["link set h2 mtu 1400"])?;
    for pair in [("h1", "h2"), ("h2", "h1")] {
        let line = wait_for(net, pair, SEARCH_LIMIT, |line| line.mtu_limit.is_some())?;
        ensure!(
            line.mtu_limit == Some(1400) && line.state == "degraded",
            "{line:?}"
        );
        let problem = line.problem.unwrap_or_default();
        ensure!(problem.contains("only those up to 1400"), "{problem}");
    }
    // 1400 less the outer headers is what a workload may send; of more it is told.
    let fits = Ping {
        size: 1400 - 42 - 28,
        ..Ping::default()
    };
    net.ping_with("web-1", "web-2", fits)?.all_answered()?;
    for workload in ["web-1", "web-2"] {
        let judge = net.workload(workload)?.judge();
        judge.expect("pings and what is told of them", u64::MAX, |frame| {
            matches!(frame.ipv4(), Some((_, _, Transport::Icmp { .. })))
        });
    }
    let line = "ping -n -c 1 -W 2 -M do -s 1331 10.0.1.12";
    let said = says(net, "web-1", line)?;
    ensure!(
        said.contains("Frag needed and DF set (mtu = 1358)"),
        "{line}:\n{said}"
    );
    net.middle().ip(&["link set h2 mtu 1600"])?;
    // Both: a host that still thinks it narrow sends the answer in fragments.
    for pair in [("h1", "h2"), ("h2", "h1")] {
        wait_for(net, pair, SEARCH_LIMIT, |line| {
            line.state == "up" && line.mtu_carried == Some(1600)
        })?;
    }
    // What the workload learned of the narrow way, it forgets.
    says(net, "web-1", "ip route flush cache")?;
    let line = "ping -n -c 1 -W 2 -M do -s 1472 10.0.1.12";
    let said = says(net, "web-1", line)?;
    ensure!(said.contains(" 1 received"), "{line}:\n{said}");
    Ok(())
}
