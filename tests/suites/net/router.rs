//! Routers: between bridges, on one host or over several.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::ecmp::router_mac;
use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use weft_tests::harness::packet::Transport;
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Iperf, Load, Network, Ping, Run, Topology, Underlay, wait};
use weft_tests::scenario;

const WEB_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const DB_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
/// ICMP time exceeded, in transit (RFC 792).
const TIME_EXCEEDED: (u8, u8) = (11, 0);

/// A bridge on each side of a router; the database is on the given host.
fn web_and_db(db_host: &str) -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("db/db-1", db_host, "10.0.2.11/24")
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
}

#[scenario]
fn ping_on_one_host(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&web_and_db("h1"))?;
    net.ping("web-1", "db-1")?;
    net.ping("db-1", "web-1")
}

#[scenario]
fn ping_between_two_hosts(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    net.ping("web-1", "db-1")?;
    net.ping("db-1", "web-1")
}

#[scenario]
fn large_pings_go_in_fragments(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for size in [4000, 9000] {
        net.ping_with(
            "web-1",
            "db-1",
            Ping {
                size,
                ..Ping::default()
            },
        )?
        .all_answered()?;
    }
    Ok(())
}

#[scenario]
fn the_router_answers_ping_on_each_of_its_addresses(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for (from, router) in [
        ("web-1", WEB_GATEWAY),
        ("web-1", DB_GATEWAY),
        ("db-1", DB_GATEWAY),
    ] {
        net.ping_router(from, router, Ping::default())?
            .all_answered()?;
    }
    Ok(())
}

#[scenario]
fn a_packet_whose_time_ends_at_the_router_is_reported(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    // With a flow in place the guard must find it, too.
    net.ping("web-1", "db-1")?;
    let ping = Ping {
        ttl: 1,
        ..Ping::default()
    };
    let errors = net
        .workload("web-1")?
        .judge()
        .expect("time exceeded", 3, |frame| {
            frame.ipv4().is_some_and(|(source, _, transport)| {
                let Transport::Icmp { kind, code, .. } = transport else {
                    return false;
                };
                source == WEB_GATEWAY && (*kind, *code) == TIME_EXCEEDED
            })
        });
    let result = net.ping_address("web-1", net.workload("db-1")?.address()?, ping)?;
    ensure!(
        result.received == 0,
        "answered although its time was over:\n{}",
        result.text
    );
    ensure!(
        result.text.contains("From 10.0.1.1"),
        "the router didn't say so:\n{}",
        result.text
    );
    wait::until_ok("one error for each request", Duration::from_secs(5), || {
        ensure!(errors.seen() == 3, "{errors:?}");
        Ok(())
    })?;
    net.ping_with("web-1", "db-1", Ping { ttl: 2, ..ping })?
        .all_answered()
        .map(drop)
}

#[scenario]
fn pings_share_flows_that_hold_no_more_than_prefixes(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    // Each ping has an ICMP id of its own.
    for _ in 0..4 {
        net.ping("web-1", "db-1")?;
    }
    for (host, port) in [("h1", "web/web-1"), ("h2", "db/db-1")] {
        let flows = routed_flows(net, host)?;
        ensure!(
            flows.len() == 1,
            "not one flow for all pings from {port}: {flows:#?}"
        );
        let flow = &flows[0];
        ensure!(flow.port == port, "{flow:?}");
        for (field, bits) in &flow.mask_bits {
            let longest = match field.as_str() {
                "in_port" | "class" | "vlan" | "dst_mac" => u32::MAX,
                "ip_src" => 24,
                "ip_dst" => 32,
                _ => 0,
            };
            ensure!(*bits <= longest, "{field} has {bits} bits: {flow:?}");
        }
    }
    Ok(())
}

/// A router drops by name what nobody can have sent, and what was damaged on its way to it.
#[scenario]
fn martians_and_damaged_packets_are_dropped_by_name(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    let workload = net.workload("web-1")?;
    let (to, router) = (net.workload("db-1")?.address()?, router_mac(net)?);
    let socket = net.open_socket("web-1")?;
    let packet = |from: &str| -> Result<Vec<u8>> {
        let from: Ipv4Addr = from.parse()?;
        let builder = PacketBuilder::ethernet2(workload.mac().0, router.0);
        let builder = builder.ipv4(from.octets(), to.octets(), 64).udp(4000, 9);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"hello")?;
        Ok(frame)
    };
    // Before a good packet makes the flow that damaged ones would take, too.
    let mut damaged = packet("10.0.1.11")?;
    damaged[25] ^= 1;
    socket.send(&damaged)?;
    let sources = [
        "0.0.0.1",
        "127.0.0.1",
        "224.0.0.5",
        "240.0.0.1",
        "255.255.255.255",
    ];
    for from in sources {
        // The first goes up, the second meets its flow.
        socket.send(&packet(from)?)?;
        socket.send(&packet(from)?)?;
    }
    let weft = net.weft("h1")?;
    let martians = 2 * sources.len() as u64;
    wait::until_ok("all are counted", Duration::from_secs(20), || {
        let counted = (weft.drops("bad_checksum")?, weft.drops("martian_source")?);
        ensure!(
            counted == (1, martians),
            "{counted:?} of {:?}",
            (1, martians)
        );
        Ok(())
    })?;
    // None arrived: the judge would say so.
    net.ping("web-1", "db-1")
}

/// The flows that took ICMP from one subnet to the other: more than ARP's.
fn routed_flows(net: &Network, host: &str) -> Result<Vec<FlowLine>> {
    let mut flows = net.weft(host)?.flows()?;
    flows.retain(|flow| flow.actions.contains("ttl"));
    Ok(flows)
}

#[scenario]
fn iperf3_goes_through_the_router_both_ways(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 128 << 20;
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for reverse in [false, true] {
        let load = Load::TcpBytes(BYTES);
        net.iperf("web-1", "db-1", Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    Ok(())
}
