//! Chains while things change: agents that come and go, members that come and go.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::harness::{Host, Network, Run, Topology, Underlay, wait};
use weft_tests::scenario;

use crate::policy::{DEFAULT_DENY, Server, connects, expect_tcp, is_silent, talk, web};

/// Without agents.
const AWAY: Duration = Duration::from_secs(3);
/// Datagrams of a member in a second.
const RATE: u32 = 1_000;
/// More of a removed member's datagrams may not arrive.
const LATE_MAX: u64 = 100;

/// Packets to the web server, of all connections that are known.
fn packets_of_connections(net: &Network) -> Result<u64> {
    let arguments = ["connections", "--port", "web/web-1"];
    let lines: Vec<Value> = net.weft("h1")?.json(&arguments)?;
    let packets = lines.iter().map(|it| it["egress_packets"].as_u64());
    packets.sum::<Option<u64>>().context("no number")
}

#[scenario]
fn connections_and_chains_outlive_their_agents(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web(DEFAULT_DENY))?;
    let server = Server::start(net, "web-1", 8080)?;
    let _other = Server::start(net, "web-1", 9090)?;
    for workload in ["web-1", "near-1", "far-1"] {
        expect_tcp(net, workload, 8080)?;
    }
    let mut streams = Vec::new();
    for client in ["near-1", "far-1"] {
        streams.push(connects(net, client, server.address)?);
    }
    let closed = (server.address.ip(), 9090).into();
    let before = packets_of_connections(net)?;
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    thread::sleep(AWAY);
    for stream in &mut streams {
        talk(stream, "without agents")?;
    }
    // What is new goes on by the chains that are there.
    drop(connects(net, "far-1", server.address)?);
    is_silent(net, "far-1", closed)?;
    net.start_agents()?;
    net.wait_until_active(&web(DEFAULT_DENY))?;
    for stream in &mut streams {
        talk(stream, "with agents again")?;
    }
    // The same connections, not new ones that were picked up: each had two words more.
    let after = packets_of_connections(net)?;
    ensure!(after >= before + 4, "{before} packets before, {after} now");
    is_silent(net, "near-1", closed)
}

/// A member of the group may send; others' datagrams are dropped.
fn by_membership() -> Topology {
    Topology::tenant("acme")
        .port("web/sink-1", "h1", "10.0.1.11/24")
        .and_chains(&[], &["to-sink"])
        .port("web/far-1", "h2", "10.0.1.22/24")
        .policy(
            "chains:
  to-sink:
    - { src: { group: senders }, proto: udp, dst_port: 4000, action: accept }
    - { action: drop }
address_groups: { senders: [10.0.1.22] }
",
        )
}

#[scenario]
fn a_removed_member_is_cut_before_100_more_of_its_packets(run: &mut Run) -> Result<()> {
    let net = run.unwatched_hosts(Underlay::Routed, 2)?;
    net.apply(&by_membership())?;
    let sink = net.workload("sink-1")?.namespace()?;
    let sink = sink.enter(|| Ok(UdpSocket::bind("0.0.0.0:4000")?))?;
    sink.set_read_timeout(Some(Duration::from_millis(500)))?;
    let sender = net.workload("far-1")?.namespace()?;
    let sender = sender.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    let to = (net.workload("sink-1")?.address()?, 4000);
    let (stop, sent, last) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let weft = net.weft("h1")?;
    let at_removal = thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(60) {
                let number = sent.fetch_add(1, Ordering::Relaxed) + 1;
                let _ = sender.send_to(&number.to_be_bytes(), to);
                let due = Duration::from_secs(1) / RATE * number as u32;
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
        });
        scope.spawn(|| {
            let mut bytes = [0; 8];
            while !stop.load(Ordering::Relaxed) {
                if sink.recv(&mut bytes).is_ok() {
                    last.store(u64::from_be_bytes(bytes), Ordering::Relaxed);
                }
            }
        });
        let removed = (|| {
            wait::until("datagrams of the member", Duration::from_secs(30), || {
                Ok((last.load(Ordering::Relaxed) > 1_000).then_some(()))
            })?;
            weft.text(&["group", "remove", "senders", "10.0.1.22"])?;
            let at_removal = sent.load(Ordering::Relaxed);
            thread::sleep(Duration::from_secs(2));
            Ok::<u64, anyhow::Error>(at_removal)
        })();
        stop.store(true, Ordering::Relaxed);
        removed
    })?;
    let (sent, last) = (sent.into_inner(), last.into_inner());
    println!("removed at {at_removal}, the last that arrived was {last}, of {sent} sent");
    ensure!(
        sent > at_removal + 5 * LATE_MAX,
        "{sent} sent, {at_removal}"
    );
    ensure!(last < at_removal + LATE_MAX, "{last} arrived, {at_removal}");
    Ok(())
}

#[scenario]
fn a_thousand_members_a_second_come_and_go_beside_iperf3(run: &mut Run) -> Result<()> {
    let net = run.unwatched_hosts(Underlay::Routed, 2)?;
    let topology = Topology::tenant("acme")
        .port("web/sink-1", "h1", "10.0.1.11/24")
        .and_chains(&[], &["to-sink"])
        .port("web/far-1", "h2", "10.0.1.22/24")
        .policy(
            "chains:
  to-sink:
    - { src: { group: senders }, action: accept }
    - { action: drop }
address_groups: { senders: [10.0.1.22] }
",
        );
    net.apply(&topology)?;
    let weft = net.weft("h1")?;
    let load = net.iperf_in_background("far-1", "sink-1", Duration::from_secs(12))?;
    thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    let mut changes = 0;
    // A hundred in a request, ten requests in a second: half of them come, half go.
    for round in 0..100_u32 {
        let verb = if round % 2 == 0 { "add" } else { "remove" };
        let members = (0..100).map(|it| format!("10.77.{}.{it}", round / 2 % 50));
        let members: Vec<String> = members.collect();
        let mut args = vec!["group", verb, "senders"];
        args.extend(members.iter().map(String::as_str));
        weft.text(&args)?;
        changes += members.len();
        thread::sleep((Duration::from_millis(100) * (round + 1)).saturating_sub(start.elapsed()));
    }
    let took = start.elapsed();
    let seen = load.join().expect("iperf3's thread doesn't panic")?;
    let port = weft.port("acme", "web/sink-1")?;
    println!(
        "{changes} changes in {took:?}, {seen:?}, {} drops",
        port.drops
    );
    ensure!(port.drops == 0, "{port:?}");
    ensure!(seen.received_bytes > 0, "iperf3 got nothing through");
    Ok(())
}
