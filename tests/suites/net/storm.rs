//! Under pressure: what one port or tenant provokes, others don't feel.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::harness::packet::{Builder, Echo};
use weft_tests::harness::socket::{PacketSocket, SNAP_LEN};
use weft_tests::harness::{
    Iperf, Load, Mac, Network, Ping, Run, Topology, Underlay, process, wait,
};
use weft_tests::scenario;

/// First packets of each measurement.
const FIRST_PACKETS: u32 = 200;
/// Most frames of a storm, and the longest that one lasts.
const STORM_FRAMES_MAX: u64 = 3_000_000;
const STORM_TIME_MAX: Duration = Duration::from_secs(60);
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);
/// What the agent may need more during a storm: its queue of misses, and the books of a full flow table.
const MEMORY_GROWTH_MAX: u64 = 400 << 20;

/// A tenant with two workloads on one bridge of h1.
fn tenant(name: &str, sender: &str, receiver: &str, last: u8) -> Topology {
    Topology::tenant(name)
        .port(&format!("lan/{sender}"), "h1", &format!("10.0.1.{last}/24"))
        .port(
            &format!("lan/{receiver}"),
            "h1",
            &format!("10.0.1.{}/24", last + 1),
        )
}

/// A MAC that nobody has: a frame to it is flooded, by a flow of its own.
fn nobody(number: u64) -> Mac {
    let [.., a, b, c, d] = number.to_be_bytes();
    Mac([0x02, 0xdd, a, b, c, d])
}

/// Frames sent as fast as one thread can, until this is dropped or a bound is reached.
struct Storm {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

impl Storm {
    /// `kinds` different destinations in turn: each is a miss once.
    fn start(net: &Network, from: &str, kinds: u64) -> Result<Storm> {
        let source = net.workload(from)?.mac();
        Storm::of(net, from, move |number| {
            let destination = nobody((1 << 24) + number % kinds);
            let builder = Builder {
                source,
                destination,
            };
            Ok(builder.probe("storm"))
        })
    }

    /// The frames with numbers from 0 on.
    fn of(
        net: &Network,
        from: &str,
        frame: impl Fn(u64) -> Result<Vec<u8>> + Send + 'static,
    ) -> Result<Storm> {
        let socket = net.open_socket(from)?;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || {
            let start = Instant::now();
            for number in 0..STORM_FRAMES_MAX {
                if stopped.load(Ordering::Relaxed) || start.elapsed() > STORM_TIME_MAX {
                    break;
                }
                // A full queue of the interface is no failure: the frame wasn't sent.
                if socket.send(&frame(number)?).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Ok(Storm {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the storm doesn't panic")?;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends frames that are a miss each, one after the other; returns how long each took, shortest first. All arrive.
fn first_packets(net: &Network, from: &str, to: &str, first: u64) -> Result<Vec<Duration>> {
    let (sender, receiver) = (net.open_socket(from)?, net.open_socket(to)?);
    receiver.set_timeout(ARRIVAL_LIMIT)?;
    let source = net.workload(from)?.mac();
    let mut times = Vec::new();
    for number in first..first + u64::from(FIRST_PACKETS) {
        let destination = nobody(number);
        let frame = Builder {
            source,
            destination,
        }
        .probe(&format!("first {number}"));
        let sent = Instant::now();
        sender.send(&frame)?;
        arrives(&receiver, &frame).with_context(|| format!("first packet {number}"))?;
        times.push(sent.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    Ok(times)
}

fn arrives(receiver: &PacketSocket, frame: &[u8]) -> Result<()> {
    let mut buffer = [0; SNAP_LEN];
    let start = Instant::now();
    while start.elapsed() < ARRIVAL_LIMIT {
        if receiver
            .receive(&mut buffer)?
            .is_some_and(|it| it.bytes.starts_with(&frame[..frame.len().min(40)]))
        {
            return Ok(());
        }
    }
    anyhow::bail!("it didn't arrive")
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

/// Megabits a second of one TCP stream between the victim's workloads.
fn throughput(net: &Network) -> Result<f64> {
    let iperf = Iperf {
        load: Load::TcpFor(Duration::from_secs(3)),
        reverse: false,
    };
    Ok(net.iperf("calm-1", "calm-2", iperf)?.bits_per_second / 1e6)
}

#[scenario]
fn misses_of_one_port_lose_nothing_of_another(run: &mut Run) -> Result<()> {
    let net = run.unwatched_hosts(Underlay::Routed, 1)?;
    net.apply(&tenant("acme", "calm-1", "calm-2", 11))?;
    net.apply(&tenant("evil", "wild-1", "wild-2", 21))?;
    let memory = net.host("h1")?.agent_memory()?;
    let weft = net.weft("h1")?;
    // The same load on the machine, but for the misses: one flow.
    let storm = Storm::start(net, "wild-1", 1)?;
    let quiet = first_packets(net, "calm-1", "calm-2", 0)?;
    let quiet_speed = throughput(net)?;
    storm.end()?;
    let misses = weft.status()?.misses;
    let storm = Storm::start(net, "wild-1", STORM_FRAMES_MAX)?;
    wait::until("a storm", Duration::from_secs(30), || {
        Ok((weft.status()?.misses > misses + 20_000).then_some(()))
    })?;
    let stormy = first_packets(net, "calm-1", "calm-2", 10_000)?;
    let stormy_speed = throughput(net)?;
    let grown = net.host("h1")?.agent_memory()?.saturating_sub(memory);
    let during = weft.status()?;
    let sent = storm.end()?;
    println!(
        "first packets: p50 {:?} p99 {:?}; beside a storm of misses: p50 {:?} p99 {:?}; TCP {quiet_speed:.0} and \
         {stormy_speed:.0} Mbit/s; {sent} frames sent, {} misses, {} flows, {} made room, {} MiB more",
        quiet[quiet.len() / 2],
        p99(&quiet),
        stormy[stormy.len() / 2],
        p99(&stormy),
        during.misses,
        during.flows,
        during.evicted,
        grown >> 20,
    );
    ensure!(grown < MEMORY_GROWTH_MAX, "the agent grew by {grown} bytes");
    for name in ["lan/calm-1", "lan/calm-2"] {
        let port = weft.port("acme", name)?;
        ensure!(port.drops == 0, "{port:?}");
    }
    every_drop_is_named(net)
}

/// What the storm's port sent was delivered, or dropped under a name that is counted there.
fn every_drop_is_named(net: &Network) -> Result<()> {
    let weft = net.weft("h1")?;
    wait::until("all frames accounted for", Duration::from_secs(30), || {
        let (sender, receiver) = (
            weft.port("evil", "lan/wild-1")?,
            weft.port("evil", "lan/wild-2")?,
        );
        Ok((sender.ingress_packets <= receiver.egress_packets + sender.drops).then_some(()))
    })?;
    let dropped = weft.all_drops()?;
    ensure!(dropped.contains_key("miss_rate"), "{dropped:?}");
    Ok(())
}

/// A tenant whose router has a workload of known address on one side, and one that nobody knows on the other.
fn with_unknown_side(tenant: &str, known: &str, unknown: &str, far: &str) -> Topology {
    Topology::tenant(tenant)
        .port(&format!("lan/{known}"), "h1", "10.0.1.11/24")
        .silent_port(&format!("far/{unknown}"), "h1")
        .router("core", &[("lan", "10.0.1.1/24"), ("far", far)])
}

/// The MAC of its gateway, as a workload learned it.
fn gateway_mac(net: &Network, workload: &str) -> Result<Mac> {
    let namespace = net.workload(workload)?.namespace()?;
    let args = ["-j", "neigh", "show", "10.0.1.1"];
    let text = namespace.run("ip", &args, Duration::from_secs(10))?;
    let entries: serde_json::Value = serde_json::from_str(&text.success()?)?;
    let mac = entries[0]["lladdr"].as_str().context("no gateway")?;
    mac.parse()
}

/// A thousand wait at most, and next hops that don't answer are waited for: who has many of them takes the room from
/// itself, not from others.
#[scenario]
fn next_hops_that_nobody_has_crowd_out_no_other_port(run: &mut Run) -> Result<()> {
    let net = run.unwatched_hosts(Underlay::Routed, 1)?;
    net.apply(&with_unknown_side(
        "acme",
        "calm-1",
        "calm-2",
        "10.2.255.1/16",
    ))?;
    net.apply(&with_unknown_side(
        "evil",
        "wild-1",
        "wild-2",
        "10.2.255.1/16",
    ))?;
    // The calm one's far side has a /17 of addresses and answers for each when it is asked.
    net.workload("calm-2")?.namespace()?.ip(&[
        "address add 10.2.255.2/16 dev net0",
        "route add local 10.2.0.0/17 dev lo",
    ])?;
    net.ping_router("wild-1", Ipv4Addr::new(10, 0, 1, 1), Ping::default())?
        .all_answered()?;
    let builder = Builder {
        source: net.workload("wild-1")?.mac(),
        destination: gateway_mac(net, "wild-1")?,
    };
    let weft = net.weft("h1")?;
    let storm = Storm::of(net, "wild-1", move |number| {
        let [.., high, low] = (256 + number % 60_000).to_be_bytes();
        let echo = Echo::Request { id: 1, seq: 1 };
        let from = Ipv4Addr::new(10, 0, 1, 11);
        builder.echo(from, Ipv4Addr::new(10, 2, high, low), echo, &[])
    })?;
    wait::until("a full waiting room", Duration::from_secs(30), || {
        let dropped = weft.all_drops()?;
        Ok(dropped.get("waiting_full").copied().filter(|it| *it > 1000))
    })?;
    let receiver = net.workload("calm-2")?.namespace()?;
    let receiver = receiver.enter(|| Ok(UdpSocket::bind("0.0.0.0:4000")?))?;
    receiver.set_read_timeout(Some(ARRIVAL_LIMIT))?;
    let sender = net.workload("calm-1")?.namespace()?;
    let sender = sender.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    for number in 0..FIRST_PACKETS {
        let [.., high, low] = (3 + number).to_be_bytes();
        sender.send_to(&[high, low], (Ipv4Addr::new(10, 2, high, low), 4000))?;
        thread::sleep(Duration::from_millis(2));
    }
    for arrived in 0..FIRST_PACKETS {
        let received = receiver.recv(&mut [0; 8]);
        received.with_context(|| format!("{arrived} of {FIRST_PACKETS} first packets arrived"))?;
    }
    let sent = storm.end()?;
    println!("{FIRST_PACKETS} first packets beside {sent} to next hops that nobody has");
    let port = weft.port("acme", "lan/calm-1")?;
    ensure!(port.drops == 0, "{port:?}");
    Ok(())
}

#[scenario]
fn drift_is_shown_and_mended(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&tenant("acme", "calm-1", "calm-2", 11))?;
    net.ping("calm-1", "calm-2")?;
    let weft = net.weft("h1")?;
    ensure!(weft.status()?.audit.drift == 0);
    // Another's hand in the maps: every published key goes.
    let map = net.host("h1")?.pins().join("maps/megaflows_v4");
    let keys = published_keys(&map)?;
    ensure!(!keys.is_empty());
    for key in &keys {
        let mut command = Command::new("bpftool");
        command
            .args(["map", "delete", "pinned"])
            .arg(&map)
            .arg("key")
            .args(key);
        process::run(command, Duration::from_secs(30))?.success()?;
    }
    let limit = Duration::from_secs(120);
    let mended = wait::until("the audit", limit, || {
        let audit = weft.status()?.audit;
        Ok((audit.repaired > 0).then_some(audit))
    })?;
    ensure!(mended.drift > 0, "{mended:?}");
    ensure!(published_keys(&map)?.len() >= keys.len());
    wait::until("a round without drift", limit, || {
        Ok((weft.status()?.audit.drift == 0).then_some(()))
    })?;
    let misses = weft.status()?.misses;
    net.ping("calm-1", "calm-2")?;
    ensure!(weft.status()?.misses == misses, "the flows aren't back");
    Ok(())
}

/// The keys of a pinned hash map, as bpftool takes them.
fn published_keys(map: &std::path::Path) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("bpftool");
    command.args(["-j", "map", "dump", "pinned"]).arg(map);
    let text = process::run(command, Duration::from_secs(30))?.success()?;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let key = |entry: &serde_json::Value| -> Option<Vec<String>> {
        let bytes = entry["key"].as_array()?;
        bytes
            .iter()
            .map(|byte| Some(byte.as_str()?.to_owned()))
            .collect()
    };
    entries
        .iter()
        .map(|entry| key(entry).with_context(|| format!("{entry}")))
        .collect()
}
