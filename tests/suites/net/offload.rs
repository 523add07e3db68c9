//! What the kernel keeps outside of a frame's bytes: segments still to be cut, tags taken out. And sizes.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::packet::Transport;
use weft_tests::harness::packet::{Echo, Frame, GRE_ETHERNET, Gre};
use weft_tests::harness::socket::PacketSocket;
use weft_tests::harness::{Builder, Capture, Iperf, Load, Network, Run, Topology, Underlay, wait};
use weft_tests::scenario;

/// Frames arrive within 1 ms, and 50 ms on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);
/// Large probes are seconds apart.
const PROBES_MAX: u64 = 3;

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
    let capture = Capture::start(net.middle(), "h2", "ip proto 47", (&net.folder(), "gso"))?;
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
        // A probe of the wide way may be under way while it is narrowed.
        let judge = net.underlay_judge(host)?;
        judge.expect(
            "a large probe is refused",
            PROBES_MAX,
            is_fragmentation_needed,
        );
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
        told.push(judge.expect("fragmentation needed", u64::MAX, is_fragmentation_needed));
    }
    for server in ["web-2", "db-2"] {
        let (load, reverse) = (Load::TcpBytes(BYTES), false);
        net.iperf("web-1", server, Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    ensure!(told[0].seen() >= 2, "nobody told web-1: {:?}", told[0]);
    Ok(())
}

/// RFC 1191, 4.
fn is_fragmentation_needed(frame: &Frame) -> bool {
    let icmp = frame.ipv4().map(|(_, _, transport)| transport);
    matches!(
        icmp,
        Some(Transport::Icmp {
            kind: 3,
            code: 4,
            ..
        })
    )
}

/// With `mss_clamp = true` both ends of a connection learn what the tunnel carries from each other's SYN.
#[scenario]
fn a_clamped_mss_fits_the_tunnel_both_ways(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    for name in ["h1", "h2"] {
        let host = net.host(name)?;
        let config = std::fs::read_to_string(host.config_path())?;
        let line = "[underlay]\n";
        host.write_config(&config.replace(line, &format!("{line}mss_clamp = true\n")))?;
        let narrow = format!("link set {UNDERLAY_INTERFACE} mtu 1500");
        host.namespace().ip(&[narrow])?;
        net.middle().ip(&[format!("link set {name} mtu 1500")])?;
    }
    net.start_agents()?;
    net.apply(&topology())?;
    let mut captures = Vec::new();
    for name in ["web-1", "web-2"] {
        let workload = net.workload(name)?;
        let filter = format!("dst host {} and tcp[13] & 2 != 0", workload.address()?);
        let place = (&*net.folder(), &*format!("syn-{name}"));
        let capture = Capture::start(workload.namespace()?, WORKLOAD_INTERFACE, &filter, place)?;
        captures.push(capture);
    }
    let (load, reverse) = (Load::TcpBytes(BYTES), false);
    net.iperf("web-1", "web-2", Iperf { load, reverse })?
        .carried(BYTES)?;
    for capture in captures {
        // A SYN (or SYN and ACK) for control and one for data, of 74 bytes.
        let captured = capture.stop_after_bytes(2 * (16 + 74), ARRIVAL_LIMIT)?;
        let seen = captured.fields("tcp.flags.syn == 1", &["tcp.options.mss_val"])?;
        // 1500 less 42 of tunnel, 20 of IPv4 and 20 of TCP.
        ensure!(
            seen.len() >= 2 && seen.iter().all(|fields| *fields == ["1418"]),
            "{seen:?}"
        );
    }
    Ok(())
}

/// A packet that a router of the underlay marked: its workload sees the mark where the sender takes part in ECN, and
/// else the packet ends, under its name.
#[scenario]
fn a_congestion_mark_reaches_the_workload(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let server = net.workload("web-2")?;
    let mut pings = Vec::new();
    for name in ["web-1", "web-2"] {
        let judge = net.workload(name)?.judge();
        pings.push(judge.expect("the forged ping and its answer", 1, |frame| {
            matches!(frame.ipv4(), Some((_, _, Transport::Icmp { .. })))
        }));
    }
    let place = (&*net.folder(), "marked");
    let interface = server.namespace()?;
    let capture = Capture::start(interface, WORKLOAD_INTERFACE, "icmp[0] == 8", place)?;
    let weft = net.weft("h2")?;
    let before = weft.drops("ecn_not_capable")?;
    for (ecn, payload) in [(0, "lost"), (2, "marked")] {
        send_marked(net, ecn, payload)?;
    }
    let captured = capture.stop_after_bytes(16 + 48, ARRIVAL_LIMIT)?;
    let seen = captured.fields("icmp", &["ip.dsfield.ecn", "data.data"])?;
    ensure!(seen == [["3", "6d61726b6564"]], "{seen:?}");
    wait::until_ok("the drop to be counted", ARRIVAL_LIMIT, || {
        ensure!(weft.drops("ecn_not_capable")? == before + 1, "not counted");
        Ok(())
    })?;
    // The workload's kernel answers packets with a right checksum only.
    wait::until_ok("the answer", ARRIVAL_LIMIT, || {
        ensure!(pings[0].seen() == 1, "{pings:?}");
        Ok(())
    })
}

/// Sends a ping of web-1 to h2, with these ECN bits, in a tunnel packet that says "congestion experienced".
fn send_marked(net: &Network, ecn: u8, payload: &str) -> Result<()> {
    let (from, to) = (net.workload("web-1")?, net.workload("web-2")?);
    let inner = Builder {
        source: from.mac(),
        destination: to.mac(),
    };
    let echo = Echo::Request { id: 7, seq: 1 };
    let mut inner = inner.echo(from.address()?, to.address()?, echo, payload.as_bytes())?;
    set_tos(&mut inner, ecn);
    let host = net.host("h2")?;
    let outer = Builder {
        source: net.middle().interface_mac("h2")?,
        destination: host.namespace().interface_mac(UNDERLAY_INTERFACE)?,
    };
    let gre = Gre {
        key: net.weft("h1")?.port("acme", "web/web-2")?.tunnel_key,
        protocol: GRE_ETHERNET,
    };
    let mut frame = outer.gre(net.host("h1")?.address(), host.address(), gre, &inner)?;
    set_tos(&mut frame, 3);
    PacketSocket::open(net.middle(), "h2")?.send(&frame)
}

/// Writes the TOS of an IPv4 frame, which was 0, and mends the checksum (RFC 1624).
fn set_tos(frame: &mut [u8], tos: u8) {
    frame[15] = tos;
    let sum = u32::from(!u16::from_be_bytes([frame[24], frame[25]])) + u32::from(tos);
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
