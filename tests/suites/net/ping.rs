//! `weft ping`: a real packet beside what `trace` says of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::harness::{Network, Run, Topology, wait};
use weft_tests::scenario;

const LIMIT: Duration = Duration::from_secs(20);
/// As classic BPF: drops (2) tunnel packets whose key has an index, and leaves probes and all else alone (-1).
const DROP_TUNNEL: &str = "9,40 0 0 12,21 0 5 2048,48 0 0 23,21 0 3 47,32 0 0 38,53 0 1 256,6 0 0 2,\
                           6 0 0 4294967295,6 0 0 4294967295,";

/// What a ping puts on the wire is declared as traffic between the two.
pub fn expect_ping(net: &Network, from: &str, to: &str) -> Result<()> {
    let pair = [net.workload(from)?.address()?, net.workload(to)?.address()?];
    for name in [from, to] {
        let what = format!("weft ping between {from} and {to}");
        net.workload(name)?
            .judge()
            .expect(what, u64::MAX, move |frame| {
                frame.ipv4().is_some_and(|(source, destination, _)| {
                    pair.contains(&source) && pair.contains(&destination)
                })
            });
    }
    Ok(())
}

#[scenario]
fn a_packet_does_what_trace_says_and_is_answered(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("web/web-2", "h1", "10.0.1.12/24")
            .port("db/db-1", "h2", "10.0.2.11/24")
            .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")]),
    )?;
    let weft = net.weft("h1")?;
    expect_ping(net, "web-1", "db-1")?;
    expect_ping(net, "web-1", "web-2")?;
    // The first packet makes the flow, the second goes by it.
    for _ in 0..2 {
        let ping: Value = weft.json(&["ping", "web/web-1", "db/db-1"])?;
        ensure!(ping["agrees"] == true, "{ping:#}");
        ensure!(ping["answer"]["what"] == "echo reply", "{ping:#}");
        ensure!(
            ping["answer"]["rtt_us"].as_u64().unwrap_or(0) > 0,
            "{ping:#}"
        );
        ensure!(ping["tunnel"]["address"] == "172.30.2.1", "{ping:#}");
        ensure!(ping["repeated"] == false, "{ping:#}");
        let arrival = &ping["arrival"];
        ensure!(
            arrival["host"] == "h2" && arrival["port"] == "db/db-1",
            "{ping:#}"
        );
        ensure!(
            arrival["seen"] == true && arrival["answered"] == true,
            "{ping:#}"
        );
        let key = weft.port("acme", "db/db-1")?.key.unwrap_or_default();
        ensure!(ping["tunnel"]["key"] == key.as_str(), "{key}: {ping:#}");
    }
    // Nothing listens there: the workload's own stack refuses, which is an answer.
    let done = weft.run(&["ping", "web/web-1", "db/db-1", "tcp/80"])?;
    ensure!(done.status.success(), "{}", done.describe());
    for text in [
        "reset: the port is closed",
        "h2        it arrived at db/db-1, which answered",
        "the packet did what trace says",
    ] {
        ensure!(done.stdout.contains(text), "{}", done.describe());
    }
    let here: Value = weft.json(&["ping", "web/web-1", "web/web-2"])?;
    ensure!(
        here["agrees"] == true && here["tunnel"].is_null(),
        "{here:#}"
    );
    ensure!(here["arrival"]["seen"] == true, "{here:#}");
    let elsewhere = weft.run(&["ping", "db/db-1", "web/web-1"])?;
    ensure!(
        elsewhere.status.code() == Some(1),
        "{}",
        elsewhere.describe()
    );
    ensure!(
        elsewhere.stderr.contains("is on host h2"),
        "{}",
        elsewhere.describe()
    );
    Ok(())
}

/// The host that refuses says so, by which route, and what the sender was told; nobody else is asked.
#[scenario]
fn a_packet_that_a_route_refuses_is_said_to_be_refused(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("db/db-1", "h2", "10.0.2.11/24")
            .port("db/db-2", "h2", "10.0.2.12/24")
            .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
            .route_action("core", "10.0.2.11/32", "reject")
            .route_action("core", "10.0.2.12/32", "blackhole"),
    )?;
    let weft = net.weft("h1")?;
    let judge = net.workload("web-1")?.judge();
    judge.expect("prohibited", u64::MAX, |frame| {
        frame.to_string().contains("ICMP")
    });
    // The first packet makes the flow, the second goes by it.
    for _ in 0..2 {
        let done = weft.run(&["ping", "web/web-1", "db/db-1"])?;
        ensure!(done.status.code() == Some(1), "{}", done.describe());
        for text in [
            "h1        refused it: route 10.0.2.11/32 of router core (reject_route); told the sender: \
             administratively prohibited (ICMP type 3, code 13) by 10.0.1.1",
            "answer    none: h1 refused the packet",
            "the packet did what trace says",
        ] {
            ensure!(done.stdout.contains(text), "{}", done.describe());
        }
        ensure!(!done.stdout.contains("arrived"), "{}", done.describe());
    }
    let done = weft.run(&["ping", "web/web-1", "db/db-2"])?;
    for text in [
        "dropped packets meanwhile: blackhole_route",
        "the packet did what trace says",
    ] {
        ensure!(done.stdout.contains(text), "{}", done.describe());
    }
    ensure!(!done.stdout.contains("arrived"), "{}", done.describe());
    Ok(())
}

fn two_workloads(net: &mut Network) -> Result<()> {
    net.apply(
        &Topology::tenant("acme")
            .port("web/web-1", "h1", "10.0.1.11/24")
            .port("web/web-2", "h2", "10.0.1.12/24"),
    )?;
    expect_ping(net, "web-1", "web-2")
}

/// What `weft ping` between the two says, and the first point where the packet did something else than trace says.
fn differs(net: &Network) -> Result<(Value, String)> {
    let arguments = ["-o", "json", "ping", "web/web-1", "web/web-2"];
    let done = net.weft("h1")?.run(&arguments)?;
    let ping: Value = serde_json::from_str(&done.stdout).with_context(|| done.describe())?;
    let is_fine = ping["agrees"] == true && !ping["answer"].is_null();
    ensure!(done.status.success() == is_fine, "{}", done.describe());
    let point = ping["differs"].as_str().unwrap_or_default().to_owned();
    Ok((ping, point))
}

/// Packets that left by the host's end of a workload's veth: none while they are delivered to the other end at once.
fn sent_by_host_end(net: &Network, workload: &str) -> Result<u64> {
    let workload = net.workload(workload)?;
    let host = net.host(workload.host())?.namespace();
    let shown = host.run(
        "ip",
        &["-s", "-j", "link", "show", workload.interface()],
        LIMIT,
    )?;
    let shown: Value = serde_json::from_str(&shown.success()?)?;
    let packets = &shown[0]["stats64"]["tx"]["packets"];
    packets.as_u64().context("no count of packets")
}

#[scenario]
fn a_packet_that_is_lost_on_the_way_is_missed_where_it_should_arrive(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    net.ping("web-1", "web-2")?;
    let middle = net.middle().clone();
    let filter = "filter add dev h2 egress bpf da bytecode";
    let add: Vec<&str> = filter.split(' ').chain([DROP_TUNNEL]).collect();
    middle
        .run("tc", &["qdisc", "add", "dev", "h2", "clsact"], LIMIT)?
        .success()?;
    middle.run("tc", &add, LIMIT)?.success()?;
    let (ping, point) = differs(net)?;
    ensure!(
        ping["agrees"] == false && ping["answer"].is_null(),
        "{ping:#}"
    );
    ensure!(ping["tunnel"]["address"] == "172.30.2.1", "{ping:#}");
    ensure!(ping["arrival"]["seen"] == false, "{ping:#}");
    ensure!(
        point == "left h1, never arrived at web/web-2 on h2",
        "{ping:#}"
    );
    middle
        .run("tc", &["qdisc", "del", "dev", "h2", "clsact"], LIMIT)?
        .success()?;
    let (ping, _) = differs(net)?;
    ensure!(
        ping["agrees"] == true && ping["repeated"] == false,
        "{ping:#}"
    );
    // What was made visible is so no more.
    let before = sent_by_host_end(net, "web-2")?;
    net.ping("web-1", "web-2")?;
    let after = sent_by_host_end(net, "web-2")?;
    ensure!(before == after, "{before} packets, {after} after a ping");
    Ok(())
}

#[scenario]
fn a_packet_for_an_interface_that_is_down_is_said_to_end_there(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    net.ping("web-1", "web-2")?;
    net.workload("web-2")?
        .namespace()?
        .ip(&["link set net0 down"])?;
    let (ping, point) = differs(net)?;
    ensure!(
        ping["agrees"] == false && ping["answer"].is_null(),
        "{ping:#}"
    );
    ensure!(
        point
            == "left h1, never arrived at web/web-2 on h2: its interface is down, or nobody is at its other end",
        "{ping:#}"
    );
    Ok(())
}

#[scenario]
fn a_workload_that_does_not_answer_is_told_from_a_lost_packet(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    net.ping("web-1", "web-2")?;
    let silent = net.workload("web-2")?.namespace()?;
    silent.sysctl("net/ipv4/icmp_echo_ignore_all", "1")?;
    let done = net.weft("h1")?.run(&["ping", "web/web-1", "web/web-2"])?;
    ensure!(done.status.code() == Some(1), "{}", done.describe());
    for text in [
        "h2        it arrived at web/web-2, which didn't answer",
        "answer    none within 1 s",
        "the packet did what trace says",
    ] {
        ensure!(done.stdout.contains(text), "{}", done.describe());
    }
    Ok(())
}

#[scenario]
fn an_agent_that_is_dead_makes_arrival_unknown_and_nothing_else(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    two_workloads(net)?;
    net.ping("web-1", "web-2")?;
    net.host_mut("h2")?.kill_agent()?;
    let (ping, _) = differs(net)?;
    ensure!(ping["answer"]["what"] == "echo reply", "{ping:#}");
    ensure!(ping["agrees"] == true, "{ping:#}");
    ensure!(ping["arrival"]["seen"].is_null(), "{ping:#}");
    ensure!(
        ping["arrival"]["why"] == "the weftd of h2 doesn't answer",
        "{ping:#}"
    );
    net.workload("web-2")?
        .namespace()?
        .sysctl("net/ipv4/icmp_echo_ignore_all", "1")?;
    let done = net.weft("h1")?.run(&["ping", "web/web-1", "web/web-2"])?;
    for text in [
        "whether it arrived at web/web-2 isn't known: the weftd of h2 doesn't answer",
        "whether the packet did what trace says can't be told",
    ] {
        ensure!(done.stdout.contains(text), "{}", done.describe());
    }
    // A new one is asked again.
    net.workload("web-2")?
        .namespace()?
        .sysctl("net/ipv4/icmp_echo_ignore_all", "0")?;
    net.host_mut("h2")?.start_agent()?;
    wait::until_ok("h2's weftd answers", LIMIT, || {
        let (ping, _) = differs(net)?;
        ensure!(ping["arrival"]["seen"] == true, "{ping:#}");
        Ok(())
    })
}
