//! Encapsulation: GRE on the underlay, and what comes in that isn't ours.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::ArpOperation;
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::network::Workload;
use weft_tests::harness::packet::{GRE_ETHERNET, Gre};
use weft_tests::harness::socket::PacketSocket;
use weft_tests::harness::{Builder, Capture, Iperf, Load, Mac, Network, Ping, Run, Topology, wait};
use weft_tests::scenario;

const H1: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 1);
const H1_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 254);
/// An address of the underlay that is no host of the zone.
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 77);
const FORGED: u64 = 5;
/// Counters are shown within 0.1 s.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

#[scenario]
fn the_key_on_the_wire_is_the_egress_ports(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let capture = Capture::start(net.middle(), "h2", "ip proto 47", (&net.folder(), "gre"))?;
    net.ping("web-1", "web-2")?;
    // 3 requests to h2 and 3 replies from it, of 98 bytes in 42 of tunnel.
    let captured = capture.stop_after_bytes(6 * (16 + 98 + 42), Duration::from_secs(5))?;
    for (message, egress) in [("8", "web/web-2"), ("0", "web/web-1")] {
        let port = net.weft("h1")?.port("acme", egress)?;
        let expected = format!("{:#010x}", port.tunnel_key.context("no key")?);
        let filter = format!("gre && icmp.type == {message}");
        let seen = captured.fields(&filter, &["gre.key", "gre.proto"])?;
        ensure!(seen.len() == 3, "{seen:?}");
        ensure!(
            seen.iter()
                .all(|fields| *fields == [expected.as_str(), "0x6558"]),
            "`weft ports` says {expected} for {egress}, the wire {seen:?}"
        );
    }
    Ok(())
}

#[scenario]
fn gre_from_an_unknown_host_is_dropped(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let key = key_of(net, "web/web-2")?;
    is_dropped(net, STRANGER, key, &["unknown_host"])
}

#[scenario]
fn gre_with_an_unknown_key_is_dropped(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    is_dropped(net, H1, 0x3abc << 8 | 1, &["unknown_tunnel_key"])
}

#[scenario]
fn gre_with_another_generation_is_dropped(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let key = key_of(net, "web/web-2")?;
    is_dropped(
        net,
        H1,
        key & !0xff | key.wrapping_sub(1) & 0xff,
        &["old_generation"],
    )
}

#[scenario]
fn gre_with_a_key_above_24_bits_is_dropped(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let key = key_of(net, "web/web-2")?;
    is_dropped(net, H1, key | 1 << 24, &["wide_tunnel_key"])
}

#[scenario]
fn a_port_that_was_bound_again_has_another_key(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let old = key_of(net, "web/web-2")?;
    let weft = net.weft("h1")?;
    weft.text(&["port", "unbind", "web/web-2"])?;
    wait::until_ok("the port to be unbound", COUNT_LIMIT, || {
        ensure!(
            weft.port("acme", "web/web-2")?.tunnel_key.is_none(),
            "it has a key"
        );
        Ok(())
    })?;
    weft.text(&[
        "port",
        "bind",
        "web/web-2",
        "--host",
        "h2",
        "--interface",
        "web2",
    ])?;
    net.wait_until_active(&topology())?;
    ensure!(
        key_of(net, "web/web-2")? != old,
        "the old key {old:#x} names the port again"
    );
    // The old index is free or has the next generation, as the agent likes.
    is_dropped(net, H1, old, &["unknown_tunnel_key", "old_generation"])?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn a_gateway_that_changes_its_mac_costs_one_ping_at_most(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let ping = Ping {
        count: 30,
        interval: Duration::from_millis(200),
        ..Ping::default()
    };
    let result = thread::scope(|scope| {
        let pinging = scope.spawn(|| net.ping_with("web-1", "web-2", ping));
        thread::sleep(Duration::from_secs(2));
        fail_over(net, Mac([2, 0, 0x5e, 0, 1, 1]))?;
        pinging.join().expect("the ping's thread panicked")
    })?;
    ensure!(
        result.lost() <= 1,
        "{} of {} lost\n{}",
        result.lost(),
        result.sent,
        result.text
    );
    Ok(())
}

#[scenario]
fn a_packet_out_of_a_tunnel_can_go_into_the_next(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology().port("web/web-3", "h1", "10.0.3.11/24"))?;
    // web-2 on the other host routes between web-1's and web-3's subnets, out of the interface by which it came.
    let (one, middle, other) = (
        net.workload("web-1")?,
        net.workload("web-2")?,
        net.workload("web-3")?,
    );
    let pair = (one.address()?, other.address()?);
    middle
        .judge()
        .expect("what web-2 forwards", u64::MAX, move |frame| {
            frame.ipv4().is_some_and(|(source, destination, _)| {
                (source, destination) == pair || (destination, source) == pair
            })
        });
    middle.namespace()?.sysctl("net/ipv4/ip_forward", "1")?;
    middle
        .namespace()?
        .sysctl("net/ipv4/conf/all/send_redirects", "0")?;
    middle
        .namespace()?
        .sysctl("net/ipv4/conf/net0/send_redirects", "0")?;
    middle.namespace()?.ip(&[
        "addr add 10.0.3.1/24 dev net0".to_string(),
        neighbour(other)?,
    ])?;
    let gateway = format!("neigh add 10.0.3.1 lladdr {} dev net0", middle.mac());
    other
        .namespace()?
        .ip(&[gateway, "route add default via 10.0.3.1".into()])?;
    one.namespace()?
        .ip(&["route add 10.0.3.0/24 via 10.0.1.12"])?;
    net.ping("web-1", "web-3")?;
    net.ping("web-3", "web-1")?;
    let load = Load::TcpBytes(64 << 20);
    net.iperf(
        "web-1",
        "web-3",
        Iperf {
            load,
            reverse: false,
        },
    )?
    .carried(64 << 20)
}

/// The `ip` command that makes a workload known to another one without ARP.
fn neighbour(workload: &Workload) -> Result<String> {
    Ok(format!(
        "neigh add {} lladdr {} dev net0",
        workload.address()?,
        workload.mac()
    ))
}

/// The other router of a pair takes over h1's gateway address: another MAC, and gratuitous ARP of both kinds
/// (RFC 5944, 4.6), as failover daemons send it.
fn fail_over(net: &Network, mac: Mac) -> Result<()> {
    net.middle().ip(&[format!("link set h1 address {mac}")])?;
    let builder = Builder {
        source: mac,
        destination: Mac::BROADCAST,
    };
    let socket = PacketSocket::open(net.middle(), "h1")?;
    for (operation, target) in [
        (ArpOperation::REQUEST, Mac([0; 6])),
        (ArpOperation::REPLY, Mac::BROADCAST),
    ] {
        socket.send(&builder.arp(operation, (mac, H1_GATEWAY), (target, H1_GATEWAY))?)?;
    }
    Ok(())
}

/// Sends forged tunnel packets to h2; they must be counted there under a name, and reach nobody.
fn is_dropped(net: &Network, from: Ipv4Addr, key: u32, reasons: &[&str]) -> Result<()> {
    let weft = net.weft("h2")?;
    let count = || {
        reasons
            .iter()
            .map(|reason| weft.drops(reason))
            .sum::<Result<u64>>()
    };
    let before = count()?;
    send_forged(net, from, key)?;
    wait::until_ok("the drops to be counted", COUNT_LIMIT, || {
        let dropped = count()? - before;
        ensure!(
            dropped == FORGED,
            "{dropped} of {FORGED} are counted as {reasons:?}"
        );
        Ok(())
    })
}

/// Sends frames to web-2's MAC in tunnel packets that h1 didn't make, from the router's place.
fn send_forged(net: &Network, from: Ipv4Addr, key: u32) -> Result<()> {
    let h2 = net.host("h2")?;
    let destination = net.workload("web-2")?.mac();
    let inner = Builder {
        source: net.workload("web-1")?.mac(),
        destination,
    }
    .probe("forged");
    let outer = Builder {
        source: net.middle().interface_mac("h2")?,
        destination: h2.namespace().interface_mac(UNDERLAY_INTERFACE)?,
    };
    let gre = Gre {
        key: Some(key),
        protocol: GRE_ETHERNET,
    };
    let frame = outer.gre(from, h2.address(), gre, &inner)?;
    let socket = PacketSocket::open(net.middle(), "h2")?;
    (0..FORGED).try_for_each(|_| socket.send(&frame))
}

fn key_of(net: &Network, port: &str) -> Result<u32> {
    net.weft("h1")?
        .port("acme", port)?
        .tunnel_key
        .with_context(|| format!("{port} has no key"))
}
