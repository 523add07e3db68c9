//! Bridges: one Ethernet segment, on one host or over several.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::packet::ETHER_TYPE_PROBE;
use weft_tests::harness::{
    Builder, Direction, Iperf, Load, Mac, Network, Ping, Run, Topology, Underlay, wait,
};
use weft_tests::scenario;

/// A MAC that no port has.
const UNKNOWN: Mac = Mac([2, 0xff, 0, 0, 0, 0x99]);
/// UDP datagrams that may be lost: a socket's buffer holds 50 ms of them, while other scenarios use the machine.
const UDP_LOSS_PERCENT_MAX: f64 = 2.0;
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

fn one_host() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h1", "10.0.1.12/24")
}

fn two_hosts() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

#[scenario]
fn ping_on_one_host(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&one_host())?;
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-1")
}

#[scenario]
fn ping_between_two_hosts(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&two_hosts())?;
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-1")
}

#[scenario]
fn ping_between_two_hosts_in_one_subnet(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Switched, 2)?;
    net.apply(&two_hosts())?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn large_pings_go_in_fragments(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&two_hosts().port("web/web-3", "h1", "10.0.1.13/24"))?;
    for to in ["web-2", "web-3"] {
        for size in [4000, 9000] {
            net.ping_with(
                "web-1",
                to,
                Ping {
                    size,
                    ..Ping::default()
                },
            )?
            .all_answered()?;
        }
    }
    Ok(())
}

#[scenario]
fn a_tap_workload_is_a_workload_like_others(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&two_hosts().tap("web/tap-1", "h1", "10.0.1.21/24").tap(
        "web/tap-2",
        "h2",
        "10.0.1.22/24",
    ))?;
    net.ping("web-1", "tap-1")?;
    net.ping("tap-1", "web-1")?;
    net.ping("web-1", "tap-2")?;
    net.ping("tap-2", "web-1")?;
    net.ping("tap-1", "tap-2")
}

#[scenario]
fn an_unknown_unicast_is_flooded_once_to_each_host_and_port(run: &mut Run) -> Result<()> {
    const FRAMES: u64 = 10;
    let net = run.hosts(Underlay::Routed, 3)?;
    net.apply(
        &Topology::tenant("acme")
            .silent_port("web/a-1", "h1")
            .silent_port("web/a-2", "h1")
            .silent_port("web/b-1", "h2")
            .silent_port("web/b-2", "h2")
            .silent_port("web/c-1", "h3"),
    )?;
    let copies_sent = |host| {
        Ok::<_, anyhow::Error>(net.underlay_judge(host)?.tally(
            Direction::Sent,
            "copies",
            |frame| {
                frame
                    .tunnelled()
                    .and_then(|(_, inner)| inner)
                    .is_some_and(|inner| inner.is_probe("lost"))
            },
        ))
    };
    let (from_h1, from_h2, from_h3) = (copies_sent("h1")?, copies_sent("h2")?, copies_sent("h3")?);
    let others = ["a-2", "b-1", "b-2", "c-1"].map(|at| net.expect_probe(at, "lost", FRAMES));
    let others = others.into_iter().collect::<Result<Vec<_>>>()?;
    for _ in 0..FRAMES {
        net.send_probe("a-1", UNKNOWN, "lost")?;
    }
    wait::until_ok("every port's copies", ARRIVAL_LIMIT, || {
        ensure!(
            others.iter().all(|port| port.seen() == FRAMES),
            "{others:?}"
        );
        ensure!(from_h1.seen() >= 2 * FRAMES, "{from_h1:?}");
        Ok(())
    })?;
    // What comes too much comes now, if at all.
    thread::sleep(Duration::from_millis(200));
    ensure!(
        from_h1.seen() == 2 * FRAMES,
        "one copy per remote host and frame: {from_h1:?}"
    );
    ensure!(
        from_h2.seen() + from_h3.seen() == 0,
        "sent back: {from_h2:?}, {from_h3:?}"
    );
    Ok(())
}

#[scenario]
fn a_mac_that_moves_is_followed(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .silent_port("web/a-1", "h1")
            .silent_port("web/b-1", "h2")
            .silent_port("web/c-1", "h2"),
    )?;
    for (home, elsewhere) in [("a-1", "b-1"), ("b-1", "a-1"), ("a-1", "b-1")] {
        let hello = net.expect_probe("c-1", home, u64::MAX)?;
        let destination = net.workload("c-1")?.mac();
        net.send(
            home,
            &Builder {
                source: UNKNOWN,
                destination,
            }
            .probe(home),
        )?;
        wait::until("the moved station's frame", ARRIVAL_LIMIT, || {
            Ok((hello.seen() > 0).then_some(()))
        })?;
        reaches_only(net, home, elsewhere)?;
    }
    Ok(())
}

/// Waits until a frame for the moving MAC reaches only its new place; five more must do so, too.
fn reaches_only(net: &Network, home: &str, elsewhere: &str) -> Result<()> {
    let send = |label: &str, elsewhere_max| -> Result<u64> {
        let here = net.expect_probe(home, label, 1)?;
        let there = net.expect_probe(elsewhere, label, elsewhere_max)?;
        net.send_probe("c-1", UNKNOWN, label)?;
        wait::until_ok(
            "a frame for the moved MAC",
            Duration::from_millis(300),
            || {
                ensure!(
                    here.seen() == 1,
                    "nothing at {home}, {} at {elsewhere}",
                    there.seen()
                );
                Ok(there.seen())
            },
        )
    };
    let mut sent = 0;
    wait::until_ok("the move to be known", ARRIVAL_LIMIT, || {
        sent += 1;
        let copies = send(&format!("to {home} {sent}"), 1)?;
        ensure!(copies == 0, "also flooded to {elsewhere}");
        Ok(())
    })?;
    for number in 1..=5 {
        send(&format!("only to {home} {number}"), 0)?;
    }
    Ok(())
}

#[scenario]
fn iperf3_tcp_goes_both_ways(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 128 << 20;
    let net = run.two_hosts()?;
    net.apply(&two_hosts())?;
    for reverse in [false, true] {
        let load = Load::TcpBytes(BYTES);
        net.iperf("web-1", "web-2", Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    Ok(())
}

#[scenario]
fn iperf3_udp_goes_both_ways(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let net = run.two_hosts()?;
    net.apply(&two_hosts())?;
    for reverse in [false, true] {
        let load = Load::Udp {
            bytes: BYTES,
            rate: 20_000_000,
        };
        let measured = net.iperf("web-1", "web-2", Iperf { load, reverse })?;
        ensure!(measured.sent_bytes >= BYTES, "{measured:?}");
        ensure!(
            measured.lost_percent <= UDP_LOSS_PERCENT_MAX,
            "{measured:?}"
        );
    }
    Ok(())
}

/// A bare Ethernet header, and little behind it: on one host as it was sent, over a tunnel with zeros up to 34 bytes.
#[scenario]
fn short_frames_reach_both_hosts(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("web/web-2", "h1", "10.0.1.12/24")
            .port("web/web-3", "h2", "10.0.1.13/24"),
    )?;
    let source = net.workload("web-1")?.mac();
    let socket = net.open_socket("web-1")?;
    for to in ["web-2", "web-3"] {
        let destination = net.workload(to)?.mac();
        let builder = Builder {
            source,
            destination,
        };
        let judge = net.workload(to)?.judge();
        let arrived = judge.expect("short frames", u64::MAX, move |frame| {
            frame.source == source && frame.destination == destination
        });
        for length in [0_usize, 1, 19, 20] {
            let before = arrived.seen();
            // The first makes the flow, the second goes by it.
            for _ in 0..2 {
                socket.send(&builder.ethernet(ETHER_TYPE_PROBE, &vec![0x5a; length]))?;
            }
            wait::until_ok("short frames", Duration::from_secs(10), || {
                let seen = arrived.seen() - before;
                ensure!(seen == 2, "{seen} of 2 with {length} bytes at {to}");
                Ok(())
            })?;
        }
    }
    Ok(())
}
