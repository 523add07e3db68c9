//! `weft host release`: the kernel is as it was before weftd, whether that still runs or not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::weft::binary;
use weft_tests::harness::{Host, Network, Run, Topology, Underlay};
use weft_tests::scenario;

const CALL_LIMIT: Duration = Duration::from_secs(60);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

/// All that a host's kernel shows of interfaces, addresses, routes, rules, qdiscs, filters and BPF attachments.
fn kernel_of(host: &Host) -> Result<String> {
    let namespace = host.namespace();
    let show = |line: &str| -> Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (program, arguments) = words.split_first().context("an empty line")?;
        let shown = namespace.run(program, arguments, CALL_LIMIT)?.success()?;
        Ok(format!("# {line}\n{shown}"))
    };
    let mut all = [
        "ip -details link show",
        "ip address show",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule show",
        "tc qdisc show",
        "bpftool net show",
    ]
    .into_iter()
    .map(show)
    .collect::<Result<Vec<_>>>()?;
    for interface in ["under0", "web1", "web2"] {
        if namespace.interface_index(interface).is_ok() {
            all.push(show(&format!("tc filter show dev {interface} ingress"))?);
            all.push(show(&format!("tc filter show dev {interface} egress"))?);
        }
    }
    all.push(format!("pins: {}", host.pins().exists()));
    Ok(all.concat())
}

fn start(run: &mut Run) -> Result<(&mut Network, Vec<String>)> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    net.plug_workloads(&topology())?;
    let before = net
        .hosts()
        .iter()
        .map(kernel_of)
        .collect::<Result<Vec<_>>>()?;
    net.start_agents()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    // A host that was released refuses the probes of the one that wasn't yet.
    for sender in ["h1", "h2"] {
        net.expect_refused_gre(sender)?;
    }
    for (host, before) in net.hosts().iter().zip(&before) {
        ensure!(kernel_of(host)? != *before, "nothing to release is seen");
    }
    Ok((net, before))
}

fn is_as_before(net: &Network, before: &[String]) -> Result<()> {
    for (host, before) in net.hosts().iter().zip(before) {
        let after = kernel_of(host)?;
        ensure!(
            after == *before,
            "{}: {before}\nbecame {after}",
            host.name()
        );
    }
    Ok(())
}

#[scenario]
fn a_running_agent_leaves_the_kernel_as_it_was(run: &mut Run) -> Result<()> {
    let (net, before) = start(run)?;
    let refused = net.weft("h1")?.run(&["host", "release", "h2"])?;
    ensure!(
        !refused.status.success() && refused.stderr.contains("host h1"),
        "{}",
        refused.describe()
    );
    net.ping("web-1", "web-2")?;
    net.weft("h2")?.text(&["host", "release", "h2"])?;
    net.host_mut("h2")?.wait_for_end()?;
    let gone = net.weft("h1")?.port("acme", "web/web-2")?;
    ensure!(gone.tunnel_key.is_none(), "{gone:?}");
    net.weft("h1")?.text(&["host", "release"])?;
    net.host_mut("h1")?.wait_for_end()?;
    is_as_before(net, &before)?;
    // And it comes back as if nothing had been.
    net.start_agents()?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn what_a_dead_agent_left_is_released(run: &mut Run) -> Result<()> {
    let (net, before) = start(run)?;
    net.host_mut("h2")?.kill_agent()?;
    release_dead(net, "h2")?;
    let gone = net.weft("h1")?.port("acme", "web/web-2")?;
    ensure!(gone.tunnel_key.is_none(), "{gone:?}");
    net.host_mut("h1")?.kill_agent()?;
    release_dead(net, "h1")?;
    is_as_before(net, &before)?;
    // Again is no error.
    release_dead(net, "h1")
}

fn release_dead(net: &Network, name: &str) -> Result<()> {
    let host = net.host(name)?;
    let socket = host.state_folder().join("weftd.sock");
    let mut command = host.namespace().command(binary("weft", "WEFT_BIN")?)?;
    command
        .arg("--endpoint")
        .arg(format!("unix:{}", socket.display()))
        .args(["host", "release", name, "--config"])
        .arg(host.config_path());
    weft_tests::harness::process::run(command, CALL_LIMIT)?
        .success()
        .map(drop)
}
