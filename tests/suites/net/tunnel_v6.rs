//! IPv6 inside tunnels, and tunnels over IPv6.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::{Capture, Iperf, Load, Network, Run, Topology};
use weft_tests::scenario;

/// What iperf3 carries in each direction.
const BYTES: u64 = 64 << 20;
/// 3 on a quiet machine (a bridge without any tunnel has some, too); 2,000 when each large segment is lost.
const RETRANSMITS_MAX: u64 = 100;
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
        let workload = net.workload(name)?;
        workload
            .judge()
            .expect("IPv6", u64::MAX, |frame| frame.ether_type == 0x86dd);
        let namespace = workload.namespace()?;
        // No link-local address: it would look for duplicates and routers.
        namespace.sysctl("net/ipv6/conf/net0/addr_gen_mode", "1")?;
        namespace.sysctl("net/ipv6/conf/net0/disable_ipv6", "0")?;
        let mut commands = vec![format!(
            "addr add {}/64 dev {WORKLOAD_INTERFACE} nodad",
            address(net, name)?
        )];
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
