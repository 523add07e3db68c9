//! Tunnel packets received by XDP, beside TC.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::ping::expect_ping;
use anyhow::{Context, Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::network::{Network, WORKLOAD_INTERFACE};
use weft_tests::harness::{Host, Iperf, Load, Namespace, Run, Topology, Underlay, process};
use weft_tests::harness::{kernel, wait};
use weft_tests::scenario;

/// `ip` and `ethtool` take some milliseconds; a change of NAPI is noticed within 20 ms.
const LIMIT: Duration = Duration::from_secs(10);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

fn tool(namespace: &Namespace, program: &str, arguments: &str) -> Result<String> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    namespace.run(program, &arguments, LIMIT)?.success()
}

/// Two hosts with this `datapath`; workloads whose GRO is as given.
fn start<'a>(run: &'a mut Run, datapath: &str, gro: &str) -> Result<&'a mut Network> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    net.hosts()
        .iter()
        .try_for_each(|host| choose(host, datapath))?;
    net.start_agents()?;
    net.apply(&topology())?;
    for workload in ["web-1", "web-2"] {
        set_gro(net, workload, gro)?;
    }
    Ok(net)
}

fn choose(host: &Host, datapath: &str) -> Result<()> {
    let config = fs::read_to_string(host.config_path())?;
    let others: Vec<&str> = config
        .lines()
        .filter(|line| !line.starts_with("datapath"))
        .collect();
    let chosen = format!("[underlay]\ndatapath = \"{datapath}\"");
    host.write_config(&(others.join("\n").replace("[underlay]", &chosen) + "\n"))
}

/// Whether the kernel says who takes XDP's frames (Linux 6.3); where it doesn't, all goes by TC.
fn is_told() -> Result<bool> {
    Ok(kernel::version()? >= (6, 3))
}

/// Sets GRO inside, and waits until the agent goes by it.
fn set_gro(net: &Network, workload: &str, gro: &str) -> Result<()> {
    let inside = net.workload(workload)?.namespace()?;
    tool(
        inside,
        "ethtool",
        &format!("-K {WORKLOAD_INTERFACE} gro {gro}"),
    )?;
    let host = net.host(net.workload(workload)?.host())?;
    let index = net.workload(workload)?.interface().to_owned();
    wait::until_ok("delivery by XDP as the far end has it", LIMIT, || {
        let flags = record_flags(host, &index)?;
        ensure!(
            (flags & 1 != 0) == (gro == "on" && is_told()?),
            "flags {flags}"
        );
        Ok(())
    })
}

/// Flags of the port's record in the kernel: byte 3; the interface's index is in bytes 4 to 7.
fn record_flags(host: &Host, interface: &str) -> Result<u8> {
    let ifindex = host.namespace().interface_index(interface)?;
    let mut dump = Command::new("bpftool");
    dump.args(["-j", "map", "dump", "pinned"])
        .arg(host.pins().join("maps/ports"));
    let text = process::run(dump, LIMIT)?.success()?;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let byte = |entry: &serde_json::Value, at: usize| -> Option<u8> {
        let text = entry["value"][at].as_str()?;
        u8::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let found = entries.iter().find(|entry| {
        let bytes: Option<Vec<u8>> = (4..8).map(|at| byte(entry, at)).collect();
        let bytes = bytes.unwrap_or_default();
        byte(entry, 0) == Some(1) && bytes == ifindex.to_le_bytes()
    });
    let flags = found.and_then(|entry| byte(entry, 3));
    flags.with_context(|| format!("no port record of {interface}"))
}

/// Frames that XDP redirected on a host's underlay interface.
fn redirected(net: &Network, host: &str) -> Result<u64> {
    let namespace = net.host(host)?.namespace();
    let text = tool(namespace, "ethtool", &format!("-S {UNDERLAY_INTERFACE}"))?;
    let numbers = text.lines().filter(|line| line.contains("xdp_redirect:"));
    Ok(numbers
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum())
}

/// Nobody on a host sees what XDP delivers: a second packet goes where it is seen.
#[scenario]
fn a_ping_of_weft_and_its_answer_are_seen_where_xdp_delivers(run: &mut Run) -> Result<()> {
    let net = start(run, "xdp", "on")?;
    expect_ping(net, "web-1", "web-2")?;
    net.ping("web-1", "web-2")?;
    let arguments = ["ping", "web/web-1", "web/web-2"];
    let ping: serde_json::Value = net.weft("h1")?.json(&arguments)?;
    ensure!(ping["agrees"] == true, "{ping:#}");
    ensure!(ping["answer"]["what"] == "echo reply", "{ping:#}");
    let before = redirected(net, "h2")?;
    net.ping("web-1", "web-2")?;
    let after = redirected(net, "h2")?;
    ensure!((after > before) == is_told()?, "{before} {after}");
    Ok(())
}

#[scenario]
fn unicast_goes_by_xdp_where_the_far_end_receives(run: &mut Run) -> Result<()> {
    let net = start(run, "xdp", "on")?;
    let status = net.weft("h2")?.text(&["status"])?;
    ensure!(
        status.contains(&format!("xdp       {UNDERLAY_INTERFACE}")),
        "{status}"
    );
    for (from, to) in [("web-1", "web-2"), ("web-2", "web-1")] {
        net.ping(from, to)?;
    }
    let before = (redirected(net, "h1")?, redirected(net, "h2")?);
    net.ping("web-1", "web-2")?;
    let after = (redirected(net, "h1")?, redirected(net, "h2")?);
    let by_xdp = (after.0 > before.0, after.1 > before.1);
    ensure!(by_xdp == (is_told()?, is_told()?), "{before:?} {after:?}");
    // Without GRO nobody would receive: TC delivers, and nothing is lost.
    set_gro(net, "web-2", "off")?;
    let before = redirected(net, "h2")?;
    net.ping("web-1", "web-2")?;
    ensure!(redirected(net, "h2")? == before, "XDP delivered to nobody");
    Ok(())
}

/// Where the sender leaves checksums to a card that isn't there, TC delivers; where it fills them in, XDP.
#[scenario]
fn tcp_goes_on_with_and_without_checksums(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let net = start(run, "xdp", "on")?;
    let (load, reverse) = (Load::TcpBytes(BYTES), false);
    net.iperf("web-1", "web-2", Iperf { load, reverse })?
        .carried(BYTES)?;
    for workload in ["web-1", "web-2"] {
        let inside = net.workload(workload)?.namespace()?;
        tool(
            inside,
            "ethtool",
            &format!("-K {WORKLOAD_INTERFACE} tx off"),
        )?;
    }
    let before = redirected(net, "h2")?;
    let load = Load::TcpBytes(BYTES);
    net.iperf("web-1", "web-2", Iperf { load, reverse })?
        .carried(BYTES)?;
    let by_xdp = redirected(net, "h2")? - before;
    ensure!(
        (by_xdp > 100) == is_told()?,
        "{by_xdp} packets of {BYTES} bytes went by XDP"
    );
    Ok(())
}

#[scenario]
fn xdp_goes_with_the_configuration_and_is_swapped(run: &mut Run) -> Result<()> {
    let net = start(run, "xdp", "on")?;
    let link = |net: &Network| -> Result<bool> {
        let folder = net.host("h2")?.pins().join("links");
        Ok(folder.join(format!("xdp_{UNDERLAY_INTERFACE}")).exists())
    };
    ensure!(link(net)?, "no pinned link");
    let before = net.host("h2")?.attached_programs()?;
    net.host_mut("h2")?.stop_agent()?;
    let check = net.host("h2")?.run_agent(&["--check"])?.success()?;
    ensure!(check.contains("and from_underlay_xdp"), "{check}");
    net.host_mut("h2")?.start_agent()?;
    net.wait_until_active(&topology())?;
    ensure!(link(net)?, "the link is gone");
    let after = net.host("h2")?.attached_programs()?;
    ensure!(
        before.len() == after.len() && before.iter().all(|id| !after.contains(id)),
        "programs {before:?} were to be replaced: {after:?}"
    );
    net.ping("web-1", "web-2")?;
    for choice in ["tc", "auto"] {
        net.host_mut("h2")?.stop_agent()?;
        choose(net.host("h2")?, choice)?;
        net.host_mut("h2")?.start_agent()?;
        net.wait_until_active(&topology())?;
        ensure!(!link(net)?, "XDP stays with {choice}");
        let host = net.host("h2")?.namespace();
        let shown = tool(host, "ip", &format!("link show dev {UNDERLAY_INTERFACE}"))?;
        ensure!(!shown.contains("xdp"), "{shown}");
        net.ping("web-1", "web-2")?;
    }
    Ok(())
}

#[scenario]
fn xdp_is_attached_by_hand_and_off_again(run: &mut Run) -> Result<()> {
    let net = start(run, "tc", "on")?;
    net.ping("web-1", "web-2")?;
    let host = net.host("h2")?;
    let program = host.pins().join("progs/from_underlay_xdp");
    // `ip netns exec` and the like hide bpffs; the harness enters the network namespace alone.
    let on = format!(
        "link set dev {UNDERLAY_INTERFACE} xdp pinned {}",
        program.display()
    );
    tool(host.namespace(), "ip", &on)?;
    let before = redirected(net, "h2")?;
    net.ping("web-1", "web-2")?;
    let by_xdp = redirected(net, "h2")? > before;
    ensure!(by_xdp == is_told()?, "went by XDP: {by_xdp}");
    tool(
        host.namespace(),
        "ip",
        &format!("link set dev {UNDERLAY_INTERFACE} xdp off"),
    )?;
    net.ping("web-1", "web-2")
}

/// From the moment when NAPI goes until the agent has heard of it, frames have no receiver: at 10 ms a request, a few.
#[scenario]
fn gro_goes_while_packets_arrive(run: &mut Run) -> Result<()> {
    const LOST_MAX: u32 = 10;
    let net = start(run, "xdp", "on")?;
    net.ping("web-1", "web-2")?;
    let ping = net.ping_in_background_every("web-1", "web-2", Duration::from_millis(10))?;
    for gro in ["off", "on", "off"] {
        set_gro(net, "web-2", gro)?;
        let before = redirected(net, "h2")?;
        std::thread::sleep(Duration::from_secs(1));
        let by_xdp = redirected(net, "h2")? > before;
        ensure!(
            by_xdp == (gro == "on" && is_told()?),
            "GRO {gro}: by XDP {by_xdp}"
        );
    }
    let result = ping.stop()?;
    println!("{} of {} answered", result.received, result.sent);
    ensure!(result.received + LOST_MAX >= result.sent, "{result:?}");
    Ok(())
}
