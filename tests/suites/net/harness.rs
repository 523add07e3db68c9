//! The harness itself, over plain bridges: what it would miss, every other scenario would miss.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::process::{Background, ProcessId, recorded};
use weft_tests::harness::run_id::RunId;
use weft_tests::harness::{
    Capture, Iperf, Load, Mac, Network, Ping, Run, Topology, Underlay, namespace::Namespace, sweep,
    wait,
};
use weft_tests::scenario;

/// Workloads on one host, joined by a Linux bridge where weft would be.
fn plain_bridge<'a>(run: &'a mut Run, topology: &Topology) -> Result<&'a mut Network> {
    let net = run.hosts_without_agents(Underlay::Routed, 1)?;
    net.plug_workloads(topology)?;
    let mut commands = vec![
        "link add plain type bridge mcast_snooping 0".into(),
        "link set plain up".into(),
    ];
    for port in topology.ports() {
        commands.push(format!("link set {} master plain", port.interface));
    }
    net.host("h1")?.namespace().ip(&commands)?;
    Ok(net)
}

fn two_workloads() -> Topology {
    Topology::tenant("plain")
        .port("a/a-1", "h1", "10.0.1.11/24")
        .port("a/a-2", "h1", "10.0.1.12/24")
}

#[scenario]
fn pings_that_a_helper_makes_are_expected(run: &mut Run) -> Result<()> {
    let net = plain_bridge(run, &two_workloads())?;
    net.ping("a-1", "a-2")?;
    let large = Ping {
        size: 4000,
        ..Ping::default()
    };
    net.ping_with("a-2", "a-1", large)?.all_answered()?;
    ensure!(net.unexpected().is_empty(), "{:?}", net.unexpected());
    Ok(())
}

#[test]
fn an_extra_frame_fails_a_scenario_and_leaves_a_pcap() {
    let text = failure_of(|run| {
        let net = plain_bridge(run, &two_workloads())?;
        net.ping("a-1", "a-2")?;
        net.send_probe("a-1", net.workload("a-2")?.mac(), "extra")
    });
    assert!(
        text.contains("a-2: ") && text.contains("probe \"extra\""),
        "{text}"
    );
    let (_, kept) = text.split_once("logs and captures: ").expect("no evidence");
    let pcap = fs::metadata(format!("{kept}/a-2-1.pcap")).expect("no pcap");
    assert!(pcap.len() > 24, "the pcap holds no frame");
    fs::remove_dir_all(kept).unwrap();
}

#[test]
fn a_flooded_frame_at_a_third_port_fails_a_scenario() {
    let text = failure_of(|run| {
        let topology = two_workloads().port("a/a-3", "h1", "10.0.1.13/24");
        let net = plain_bridge(run, &topology)?;
        let expected = net.expect_probe("a-2", "lost", 1)?;
        net.send_probe("a-1", Mac([2, 0xff, 0, 0, 0, 1]), "lost")?;
        wait::until(
            "the copy at the second port",
            Duration::from_secs(5),
            || Ok((expected.seen() == 1).then_some(())),
        )
    });
    assert!(text.contains("a-3: ") && !text.contains("a-2: "), "{text}");
    let (_, kept) = text.split_once("logs and captures: ").expect("no evidence");
    fs::remove_dir_all(kept).unwrap();
}

#[scenario]
fn a_tap_workload_answers_and_pings(run: &mut Run) -> Result<()> {
    let topology = Topology::tenant("plain")
        .port("a/a-1", "h1", "10.0.1.11/24")
        .tap("a/tap", "h1", "10.0.1.12/24");
    let net = plain_bridge(run, &topology)?;
    net.ping("a-1", "tap")?;
    net.ping("tap", "a-1")
}

#[scenario]
fn hosts_reach_each_other_through_the_router(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    let (h1, h2) = (net.host("h1")?, net.host("h2")?);
    let capture = Capture::start(net.middle(), "h2", "icmp", (&net.folder(), "middle"))?;
    net.expect_host_traffic("h1", "h2")?;
    Ping::default()
        .run(h1.namespace(), h2.address())?
        .all_answered()?;
    let captured = capture.stop_after_bytes(6 * (16 + 98), Duration::from_secs(5))?;
    let seen = captured.fields("icmp.type == 8", &["ip.src", "ip.dst"])?;
    ensure!(
        seen.len() == 3 && seen[0] == ["172.30.1.1", "172.30.2.1"],
        "{seen:?}"
    );
    Ok(())
}

#[scenario]
fn hosts_reach_each_other_over_the_switch(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Switched, 3)?;
    net.expect_host_traffic("h1", "h3")?;
    let (h1, h3) = (net.host("h1")?, net.host("h3")?);
    Ping::default()
        .run(h1.namespace(), h3.address())?
        .all_answered()
        .map(drop)
}

#[scenario]
fn iperf3_counts_bytes(run: &mut Run) -> Result<()> {
    let net = plain_bridge(run, &two_workloads())?;
    for reverse in [false, true] {
        let load = Load::TcpBytes(64 << 20);
        let tcp = net.iperf("a-1", "a-2", Iperf { load, reverse })?;
        tcp.carried(64 << 20)?;
        let load = Load::Udp {
            bytes: 4 << 20,
            rate: 100_000_000,
        };
        let udp = net.iperf("a-1", "a-2", Iperf { load, reverse })?;
        ensure!(
            udp.sent_bytes >= 4 << 20 && udp.lost_percent < 5.0,
            "{udp:?}"
        );
    }
    Ok(())
}

#[scenario]
fn an_interface_can_vanish_and_come_back(run: &mut Run) -> Result<()> {
    let net = plain_bridge(run, &two_workloads())?;
    let index = |net: &Network| net.host("h1")?.namespace().interface_index("a1");
    let before = index(net)?;
    net.remove_interface("a-1")?;
    net.make_interface("a-1")?;
    ensure!(index(net)? != before, "the interface has the same index");
    net.host("h1")?
        .namespace()
        .ip(&["link set a1 master plain"])?;
    net.ping("a-1", "a-2")
}

#[test]
fn what_a_dead_run_left_is_swept() {
    let (id, process) = leave_a_dead_run().unwrap();
    assert!(process.is_alive() && sweep::leftovers(&id).len() >= 4);
    // Another scenario's start may sweep it first; both do the same.
    sweep::sweep_dead_runs().unwrap();
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
    assert!(!process.is_alive());
}

#[test]
fn runs_that_live_or_are_kept_are_not_swept() {
    let run = Run::start().unwrap();
    let kept = RunId::claim().unwrap();
    kept.keep().unwrap();
    fs::write(kept.folder().join("owner"), "1 1").unwrap();
    let swept = sweep::sweep_dead_runs().unwrap();
    assert!(
        !swept.contains(run.id()) && !swept.contains(&kept),
        "{swept:?}"
    );
    sweep::take_down(run.id()).unwrap();
    sweep::take_down(&kept).unwrap();
}

/// A run as it is when its process was killed: namespace, state, pins, a process that goes on.
fn leave_a_dead_run() -> Result<(RunId, ProcessId)> {
    sweep::mount_bpffs()?;
    let id = RunId::claim()?;
    let namespace = Namespace::create(&id, "h1")?;
    fs::create_dir_all(id.state("h1"))?;
    fs::create_dir_all(id.pins("h1").join("maps"))?;
    let mut sleep = namespace.command("sleep")?;
    sleep.arg("600");
    let mut left = Background::start(sleep, &id.folder(), &id.folder().join("sleep.log"))?;
    left.leave();
    let process = recorded(&id.folder())[0];
    // The process is this one's child: without a wait it would stay as a zombie, which counts as ended.
    let mut ended = Command::new("true").spawn()?;
    let owner = ended.id();
    ended.wait()?;
    fs::write(id.folder().join("owner"), format!("{owner} 1"))?;
    Ok((id, process))
}

#[scenario]
fn interfaces_have_the_names_and_macs_of_the_topology(run: &mut Run) -> Result<()> {
    let net = plain_bridge(run, &two_workloads())?;
    let workload = net.workload("a-1")?;
    let mac = workload.namespace()?.interface_mac(WORKLOAD_INTERFACE)?;
    ensure!(
        mac == workload.mac() && mac == Mac([2, 0, 10, 0, 1, 11]),
        "{mac}"
    );
    ensure!(workload.interface() == "a1" && workload.path() == "a/a-1");
    Ok(())
}

/// Why a scenario that is meant to fail did.
fn failure_of(scenario: impl FnOnce(&mut Run) -> Result<()>) -> String {
    let run = || weft_tests::harness::run_scenario("harness", "meant_to_fail", scenario);
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("the scenario passed");
    *panic.downcast::<String>().expect("a message")
}
