//! What comes and goes: interfaces, agents, and the host's own traffic meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::kernel;
use weft_tests::harness::namespace::Namespace;
use weft_tests::harness::packet::Gre;
use weft_tests::harness::socket::{GreListener, PacketSocket};
use weft_tests::harness::traffic::{BackgroundPing, Throughput};
use weft_tests::harness::{
    Builder, Host, Iperf, Load, Network, Ping, Run, Topology, Underlay, wait,
};
use weft_tests::scenario;

/// A port's state follows its interface within 0.1 s.
const STATE_LIMIT: Duration = Duration::from_secs(10);

pub(super) fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

#[scenario]
fn an_interface_that_vanishes_and_comes_back_works_again(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let before = net.host("h1")?.namespace().interface_index("web1")?;
    net.remove_interface("web-1")?;
    wait_for_state(net, "waiting")?;
    net.make_interface("web-1")?;
    ensure!(
        net.host("h1")?.namespace().interface_index("web1")? != before,
        "the same index"
    );
    wait_for_state(net, "active")?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-1")
}

#[scenario]
fn an_interface_that_appears_after_its_binding_is_attached(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.plug_workloads(&topology())?;
    net.remove_interface("web-1")?;
    net.apply_yaml(&format!("{}---\n{}", topology().yaml(), net.hosts_yaml()))?
        .success()?;
    wait_for_state(net, "waiting")?;
    net.make_interface("web-1")?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")
}

fn wait_for_state(net: &Network, state: &str) -> Result<()> {
    let weft = net.weft("h1")?;
    wait::until_ok(&format!("web/web-1 to be {state}"), STATE_LIMIT, || {
        let port = weft.port("acme", "web/web-1")?;
        ensure!(port.state == state, "{port:?}");
        Ok(())
    })
}

#[scenario]
fn an_agent_that_was_killed_starts_again(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    for name in ["h1", "h2"] {
        net.host_mut(name)?.kill_agent()?;
        net.host_mut(name)?.start_agent()?;
        net.wait_until_active(&topology())?;
        net.ping("web-1", "web-2")?;
        net.ping("web-2", "web-1")?;
    }
    Ok(())
}

#[scenario]
fn workloads_go_on_while_their_agents_are_away(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    let ping = Ping {
        count: 20,
        ..Ping::default()
    };
    net.ping_with("web-1", "web-2", ping)?.all_answered()?;
    net.start_agents()?;
    net.ping_with("web-1", "web-2", ping)?.all_answered()?;
    net.hosts_mut()
        .iter_mut()
        .rev()
        .try_for_each(Host::stop_agent)?;
    net.ping_with("web-1", "web-2", ping)?
        .all_answered()
        .map(drop)
}

#[scenario]
fn workloads_lose_nothing_while_their_agents_die_and_start_again(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let pinging = net.ping_in_background("web-1", "web-2")?;
    for _ in 0..2 {
        net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
        thread::sleep(Duration::from_secs(1));
        net.start_agents()?;
        net.wait_until_active(&topology())?;
    }
    net.hosts_mut()
        .iter_mut()
        .rev()
        .try_for_each(Host::stop_agent)?;
    thread::sleep(Duration::from_secs(1));
    let result = pinging.stop()?;
    ensure!(result.sent > 50, "{result:?}");
    result.all_answered().map(drop)
}

#[scenario]
fn an_agent_that_starts_again_knows_the_flows_that_packets_take(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let pinging = net.ping_in_background("web-1", "web-2")?;
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    thread::sleep(Duration::from_secs(1));
    net.start_agents()?;
    net.wait_until_active(&topology())?;
    for (host, port) in [("h1", "web/web-1"), ("h2", "web/web-2")] {
        let weft = net.weft(host)?;
        wait::until_ok(&format!("the flow of {port}"), STATE_LIMIT, || {
            let flows = weft.flows()?;
            let found = flows
                .iter()
                .find(|flow| flow.port == port && flow.packets > 1);
            found.map(drop).with_context(|| format!("{flows:?}"))
        })?;
        says_what_it_adopted(net, host)?;
    }
    pinging.stop().map(drop)
}

/// `weft status` tells the flows that an agent took over, and its log, which is no terminal, has no colours.
fn says_what_it_adopted(net: &Network, host: &str) -> Result<()> {
    let weft = net.weft(host)?;
    wait::until_ok("the flows are adopted", STATE_LIMIT, || {
        let status: Value = weft.json(&["status"])?;
        let adopted = &status["adopted"];
        let is_done = adopted["kept"].as_u64() > Some(0) && adopted["undecided"] == 0;
        ensure!(is_done, "{status:#}");
        Ok(())
    })?;
    let text = weft.text(&["status"])?;
    ensure!(text.contains(" flows of an earlier weftd"), "{text}");
    let log = std::fs::read_to_string(net.host(host)?.log_path())?;
    ensure!(!log.contains('\u{1b}'), "{log}");
    Ok(())
}

/// Flows that are installed while agents are replaced.
const MANY_FLOWS: u32 = 100_000;

/// Ports between which traffic goes, and a bridge with one port, on which each destination is a flow of its own.
pub(super) fn crowded_topology() -> Topology {
    topology()
        .port("web/web-3", "h1", "10.0.1.13/24")
        .port("web/web-4", "h2", "10.0.1.14/24")
        .port("many/many-1", "h1", "10.0.9.11/24")
}

#[scenario]
fn a_killed_agents_flows_are_adopted_under_load(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    start_crowded(net)?;
    let crowd = Crowd::install(net, MANY_FLOWS)?;
    let load = Traffic::start(net)?;
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    thread::sleep(Duration::from_secs(10));
    crowd.send_all(net)?;
    net.start_agents()?;
    // New flows, at once.
    net.ping("web-3", "web-2")?;
    net.ping("web-2", "web-3")?;
    crowd.is_installed(net)?;
    net.wait_until_active(&crowded_topology())?;
    load.lost_nothing(net)?;
    crowd.is_known(net)
}

#[scenario]
fn a_new_version_is_swapped_in_under_load(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    start_crowded(net)?;
    let crowd = Crowd::install(net, 10_000)?;
    let load = Traffic::start(net)?;
    let programs = |net: &Network| -> Result<Vec<u64>> {
        let ids = net.hosts().iter().map(|host| host.attached_programs());
        Ok(ids.collect::<Result<Vec<_>>>()?.concat())
    };
    let before = programs(net)?;
    net.hosts_mut()
        .iter_mut()
        .rev()
        .try_for_each(Host::stop_agent)?;
    net.start_agents()?;
    net.wait_until_active(&crowded_topology())?;
    crowd.is_known(net)?;
    load.lost_nothing(net)?;
    let after = programs(net)?;
    ensure!(
        before.len() == after.len() && before.iter().all(|id| !after.contains(id)),
        "programs {before:?} were to be replaced: {after:?}"
    );
    Ok(())
}

pub(super) fn start_crowded(net: &mut Network) -> Result<()> {
    for host in net.hosts() {
        host.add_config("[limits]\nflow_idle_secs = 3600\n")?;
    }
    net.start_agents()?;
    net.apply(&crowded_topology())
}

/// Flows of `many/many-1`: one for each destination MAC that nobody has. Their frames are flooded, to nobody.
pub(super) struct Crowd {
    frames: Vec<Vec<u8>>,
}

impl Crowd {
    /// Sends each frame until it has its flow; agents decide on at most 5,000 a second of one port.
    pub(super) fn install(net: &Network, flows: u32) -> Result<Crowd> {
        let source = net.workload("many-1")?.mac();
        let frames = (0..flows).map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            let mut frame = vec![0x02, 0xcc, 0, a, b, c];
            frame.extend(source.0);
            // An Ethernet type for experiments (RFC 5342).
            frame.extend([0x88, 0xb5]);
            frame.resize(60, 0);
            frame
        });
        let crowd = Crowd {
            frames: frames.collect(),
        };
        let socket = net.open_socket("many-1")?;
        for part in crowd.frames.chunks(1000) {
            part.iter().try_for_each(|frame| socket.send(frame))?;
            thread::sleep(Duration::from_millis(200));
        }
        let weft = net.weft("h1")?;
        wait::until_ok("a flow for each", Duration::from_secs(120), || {
            let status = weft.status()?;
            if status.flows >= u64::from(flows) {
                return Ok(());
            }
            for part in crowd.frames.chunks(2000) {
                part.iter().try_for_each(|frame| socket.send(frame))?;
                thread::sleep(Duration::from_millis(100));
            }
            anyhow::bail!("{} of {flows} flows", status.flows)
        })?;
        Ok(crowd)
    }

    /// Sends every frame, as fast as it goes.
    fn send_all(&self, net: &Network) -> Result<()> {
        let socket = net.open_socket("many-1")?;
        self.frames.iter().try_for_each(|frame| socket.send(frame))
    }

    /// Whether the agent on h1 counts as many flows as there are frames, at once, and none of them comes up.
    pub(super) fn is_installed(&self, net: &Network) -> Result<()> {
        self.send_all(net)?;
        let status = net.weft("h1")?.status()?;
        ensure!(
            status.flows >= self.frames.len() as u64 && status.misses < 1000,
            "{} flows of {}, {} misses",
            status.flows,
            self.frames.len(),
            status.misses
        );
        Ok(())
    }

    /// Whether the agent knows the reasons of all flows in the end.
    pub(super) fn is_known(&self, net: &Network) -> Result<()> {
        let weft = net.weft("h1")?;
        wait::until_ok("all flows to be adopted", Duration::from_secs(120), || {
            let flows = weft.flows()?;
            let known = flows.iter().filter(|flow| flow.port == "many/many-1");
            let known = known.filter(|flow| !flow.tags.is_empty()).count();
            ensure!(known >= self.frames.len(), "{known} flows are known");
            Ok(())
        })?;
        self.is_installed(net)
    }
}

/// Pings 200 times a second and TCP as fast as it goes, from h1 to h2. At that speed queues overflow here and there,
/// which TCP sees; what Weft drops has a name and is counted.
pub(super) struct Traffic {
    drops: Vec<BTreeMap<String, u64>>,
    pinging: BackgroundPing,
    streaming: thread::JoinHandle<Result<Throughput>>,
}

impl Traffic {
    pub(super) fn start(net: &Network) -> Result<Traffic> {
        net.ping("web-1", "web-2")?;
        net.ping("web-3", "web-4")?;
        let streaming = net.iperf_in_background("web-3", "web-4", Duration::from_secs(30))?;
        let pinging = net.ping_in_background_every("web-1", "web-2", Duration::from_millis(5))?;
        thread::sleep(Duration::from_secs(1));
        Ok(Traffic {
            drops: all_drops(net)?,
            pinging,
            streaming,
        })
    }

    fn lost_nothing(self, net: &Network) -> Result<()> {
        let before = self.drops.clone();
        self.carried_all()?;
        let drops = all_drops(net)?;
        ensure!(drops == before, "{before:?} became {drops:?}");
        Ok(())
    }

    /// Whether every ping was answered, once, and TCP went on.
    pub(super) fn carried_all(self) -> Result<()> {
        let carried = self.streaming.join().expect("iperf3's thread panicked")?;
        let result = self.pinging.stop()?;
        ensure!(result.sent > 1000, "{} sent", result.sent);
        ensure!(carried.received_bytes > 0, "{carried:?}");
        let lost = (result.lost(), result.duplicates);
        ensure!(
            lost == (0, 0),
            "{} sent, {} lost, {} duplicates",
            result.sent,
            lost.0,
            lost.1
        );
        Ok(())
    }
}

/// What each host dropped so far, by reason.
pub(super) fn all_drops(net: &Network) -> Result<Vec<BTreeMap<String, u64>>> {
    let drops = net.hosts().iter().map(|host| host.weft()?.all_drops());
    drops.collect()
}

#[scenario]
fn the_hosts_own_traffic_is_untouched_while_agents_come_and_go(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    net.expect_host_traffic("h1", "h2")?;
    if !kernel::has_tcx()? {
        add_qdiscs(net)?;
    }
    let traffic = HostTraffic::between(net)?;
    let done = AtomicBool::new(false);
    let (moves, seen) = thread::scope(|scope| {
        let running = scope.spawn(|| traffic.run_until(&done));
        let moves = agents_come_and_go(net);
        done.store(true, Ordering::Relaxed);
        (
            moves,
            running.join().expect("the traffic's thread panicked"),
        )
    });
    moves?;
    let (sent, received) = seen?;
    ensure!(
        sent > 0 && sent == received,
        "{received} of {sent} GRE packets arrived"
    );
    Ok(())
}

/// Without TCX each underlay interface needs a clsact qdisc. Whoever adds or removes one, the kernel meanwhile drops what
/// the interface sends (ADR 15). So the hosts have theirs before, as OPERATING.md advises, and agents are to leave it.
fn add_qdiscs(net: &Network) -> Result<()> {
    for host in net.hosts() {
        let add = ["qdisc", "add", "dev", UNDERLAY_INTERFACE, "clsact"];
        host.namespace().run("tc", &add, STATE_LIMIT)?.success()?;
    }
    Ok(())
}

fn agents_come_and_go(net: &mut Network) -> Result<()> {
    thread::sleep(Duration::from_millis(500));
    net.start_agents()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    net.hosts_mut().iter_mut().try_for_each(Host::kill_agent)?;
    thread::sleep(Duration::from_millis(500));
    net.start_agents()?;
    net.wait_until_active(&topology())?;
    net.ping("web-1", "web-2")?;
    net.hosts_mut()
        .iter_mut()
        .rev()
        .try_for_each(Host::stop_agent)?;
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Ping, TCP, and GRE that is none of weft's, from h1's own address to h2's.
struct HostTraffic {
    from: Namespace,
    to: Namespace,
    target: std::net::Ipv4Addr,
    folder: std::path::PathBuf,
    gre: PacketSocket,
    gre_frames: Vec<Vec<u8>>,
    listener: GreListener,
}

impl HostTraffic {
    fn between(net: &Network) -> Result<HostTraffic> {
        let (h1, h2) = (net.host("h1")?, net.host("h2")?);
        let builder = Builder {
            source: h1.namespace().interface_mac(UNDERLAY_INTERFACE)?,
            destination: net.middle().interface_mac("h1")?,
        };
        let strange = [
            Gre {
                key: None,
                protocol: 0x0800,
            },
            Gre {
                key: None,
                protocol: 0x6558,
            },
            Gre {
                key: Some(0x101),
                protocol: 0x0800,
            },
        ];
        let gre_frames = strange
            .iter()
            .map(|gre| builder.gre(h1.address(), h2.address(), *gre, &[0; 64]));
        Ok(HostTraffic {
            from: h1.namespace().clone(),
            to: h2.namespace().clone(),
            target: h2.address(),
            folder: net.folder(),
            gre: PacketSocket::open(h1.namespace(), UNDERLAY_INTERFACE)?,
            gre_frames: gre_frames.collect::<Result<_>>()?,
            listener: GreListener::open(h2.namespace())?,
        })
    }

    /// Sends until told to end; how many GRE packets were sent, and how many arrived. Ping and TCP are checked here.
    fn run_until(&self, done: &AtomicBool) -> Result<(u64, u64)> {
        let is_done = || done.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let pinging = scope.spawn(|| -> Result<()> {
                let ping = Ping {
                    count: 20,
                    interval: Duration::from_millis(20),
                    ..Ping::default()
                };
                while !is_done() {
                    ping.run(&self.from, self.target)?.all_answered()?;
                }
                Ok(())
            });
            let streaming = scope.spawn(|| -> Result<()> {
                let iperf = Iperf {
                    load: Load::TcpFor(Duration::from_secs(2)),
                    reverse: false,
                };
                while !is_done() {
                    iperf.run((&self.from, &self.to), self.target, &self.folder)?;
                }
                Ok(())
            });
            let (mut sent, mut received) = (0, 0);
            while !is_done() {
                for frame in &self.gre_frames {
                    self.gre.send(frame)?;
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(50));
                received += self.listener.count();
            }
            pinging.join().expect("the ping's thread panicked")?;
            streaming.join().expect("iperf3's thread panicked")?;
            Ok((sent, received + self.listener.count()))
        })
    }
}
