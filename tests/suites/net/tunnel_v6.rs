//! IPv6 inside tunnels, and tunnels over IPv6.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::{Capture, Iperf, Load, Namespace, Network, Run, Topology};
use weft_tests::scenario;

/// What iperf3 carries in each direction.
const BYTES: u64 = 64 << 20;
/// 3 of 46,000 on a quiet machine, 270 on a busy one. (When each large segment is lost, iperf3 doesn't end in time.)
const RETRANSMITS_MAX: u64 = 3_000;
const IPERF_LIMIT: Duration = Duration::from_secs(10);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

/// Large TCP segments over IPv6 stay whole from one workload to the other (they were lost behind the tunnel, where
/// the kernel took them for IPv4).
#[scenario]
fn segments_over_ipv6_arrive_whole(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    give_ipv6(net, &["web-1", "web-2"])?;
    carries_ipv6(net, "web-1", "web-2")?;
    carries_ipv6(net, "web-2", "web-1")
}

/// Hosts in different subnets of an IPv6 underlay: both families inside, large segments whole on the wire, each
/// port's own key, one flow label per flow; the hosts' own traffic is their own.
#[scenario]
fn an_underlay_of_ipv6_carries_tunnels(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    over_ipv6(net)?;
    let capture = Capture::start(
        net.middle(),
        "h2",
        "ip6 proto 47",
        (&net.folder(), "gre-v6"),
    )?;
    net.ping("web-1", "web-2")?;
    let (load, reverse) = (Load::TcpBytes(BYTES), false);
    for (from, to) in [("web-1", "web-2"), ("web-2", "web-1")] {
        let throughput = net.iperf(from, to, Iperf { load, reverse })?;
        throughput.carried(BYTES)?;
        ensure!(throughput.retransmits <= RETRANSMITS_MAX, "{throughput:?}");
    }
    let captured = capture.stop()?;
    for (message, egress) in [("8", "web/web-2"), ("0", "web/web-1")] {
        let port = net.weft("h1")?.port("acme", egress)?;
        let expected = format!("{:#010x}", port.tunnel_key.context("no key")?);
        let filter = format!("gre && icmp.type == {message}");
        let seen = captured.fields(&filter, &["gre.key", "ipv6.plen"])?;
        // 84 bytes of ping, 14 of Ethernet, 8 of GRE.
        ensure!(
            seen.len() == 3
                && seen
                    .iter()
                    .all(|fields| *fields == [expected.as_str(), "106"]),
            "{egress} has {expected}, the wire {seen:?}"
        );
    }
    let large = captured.fields("gre && frame.len > 20000", &["ipv6.flow"])?;
    ensure!(!large.is_empty(), "no segment above 20,000 bytes");
    give_ipv6(net, &["web-1", "web-2"])?;
    carries_ipv6(net, "web-1", "web-2")?;
    carries_ipv6(net, "web-2", "web-1")?;
    let pinged = net.host("h1")?.namespace().run(
        "ping",
        &["-6", "-n", "-c", "3", "-i", "0.1", "fd30:2::1"],
        IPERF_LIMIT,
    )?;
    pinged.success().map(drop)
}

/// Gives the hosts addresses of IPv6 in the underlay, fd30:N::1, applies the topology with these, and waits until
/// all is live.
fn over_ipv6(net: &mut Network) -> Result<()> {
    net.middle().sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let mut hosts =
        String::from("weft: v1\ntunnel_zones: { default: { encapsulation: gre } }\nhosts:\n");
    for name in ["h1", "h2"] {
        let judge = net.underlay_judge(name)?;
        judge.expect("IPv6", u64::MAX, |frame| frame.ether_type == 0x86dd);
    }
    for number in [1, 2] {
        let name = format!("h{number}");
        let gateway = format!("fd30:{number}::fe");
        with_address(net.middle(), &name, &gateway)?;
        let host = net.host(&name)?.namespace();
        let address = format!("fd30:{number}::1");
        with_address(host, UNDERLAY_INTERFACE, &address)?;
        host.ip(&[format!("route add default via {gateway}")])?;
        hosts += &format!("  {name}: {{ zones: {{ default: \"{address}\" }} }}\n");
    }
    let topology = topology();
    net.plug_workloads(&topology)?;
    net.apply_yaml(&format!("{}---\n{hosts}", topology.yaml()))?
        .success()?;
    net.wait_until_active(&topology)
}

/// An address of a /64, at once: without looking for duplicates.
fn with_address(namespace: &Namespace, interface: &str, address: &str) -> Result<()> {
    namespace.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
    namespace.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
    namespace.ip(&[format!("addr add {address}/64 dev {interface} nodad")])
}

/// TCP over IPv6 from one to the other, in segments larger than any MTU, with next to nothing sent again.
fn carries_ipv6(net: &Network, from: &str, to: &str) -> Result<()> {
    let (client, server) = (net.workload(from)?, net.workload(to)?);
    let capture = Capture::start(
        server.namespace()?,
        WORKLOAD_INTERFACE,
        "ip6 and tcp and greater 20000",
        (&net.folder(), &format!("{to}-v6")),
    )?;
    let iperf = Iperf {
        load: Load::TcpBytes(BYTES),
        reverse: false,
    };
    let namespaces = (client.namespace()?, server.namespace()?);
    let throughput = iperf.run(namespaces, address(net, to)?, &net.folder())?;
    throughput.carried(BYTES)?;
    ensure!(
        throughput.retransmits <= RETRANSMITS_MAX,
        "{from} to {to}: {throughput:?}"
    );
    let captured = capture.stop_after_bytes(20_000, IPERF_LIMIT)?;
    let large = captured.fields("tcp.len > 20000", &["frame.len"])?;
    ensure!(!large.is_empty(), "no segment above 20,000 bytes at {to}");
    Ok(())
}

/// Gives workloads an IPv6 address each, which the others know without asking, and lets IPv6 reach them.
fn give_ipv6(net: &Network, workloads: &[&str]) -> Result<()> {
    for name in workloads {
        let judge = net.workload(name)?.judge();
        judge.expect("IPv6", u64::MAX, |frame| frame.ether_type == 0x86dd);
    }
    for name in workloads {
        let workload = net.workload(name)?;
        let namespace = workload.namespace()?;
        with_address(
            namespace,
            WORKLOAD_INTERFACE,
            &address(net, name)?.to_string(),
        )?;
        let mut commands = Vec::new();
        for other in workloads.iter().filter(|other| *other != name) {
            commands.push(format!(
                "neigh add {} lladdr {} dev {WORKLOAD_INTERFACE}",
                address(net, other)?,
                net.workload(other)?.mac()
            ));
        }
        namespace.ip(&commands)?;
    }
    Ok(())
}

/// The IPv6 address of a workload: fd00:1:: and the last byte of its IPv4 address.
fn address(net: &Network, workload: &str) -> Result<Ipv6Addr> {
    let [.., last] = net.workload(workload)?.address()?.octets();
    Ok(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()))
}
