//! What comes and goes: interfaces, agents, and the host's own traffic meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::namespace::Namespace;
use weft_tests::harness::packet::Gre;
use weft_tests::harness::socket::{GreListener, PacketSocket};
use weft_tests::harness::{
    Builder, Host, Iperf, Load, Network, Ping, Run, Topology, Underlay, wait,
};
use weft_tests::scenario;

/// A port's state follows its interface within 0.1 s.
const STATE_LIMIT: Duration = Duration::from_secs(10);

fn topology() -> Topology {
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
    }
    pinging.stop().map(drop)
}

#[scenario]
fn the_hosts_own_traffic_is_untouched_while_agents_come_and_go(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    net.expect_host_traffic("h1", "h2")?;
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
