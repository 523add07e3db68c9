//! The demo's world: what `docs/examples/two-hosts.yaml` describes, and a plain path beside it to compare with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::report::{HostFlows, PingReport, TraceReport};
use super::tap_process::TapProcess;
use crate::harness::host::UNDERLAY_INTERFACE;
use crate::harness::namespace::{Namespace, address_commands, join};
use crate::harness::network::WORKLOAD_INTERFACE;
use crate::harness::run_id::RunId;
use crate::harness::weft::binary;
use crate::harness::{Host, Mac, Network, Ping, Topology, Underlay};

/// The packet that the demo traces.
const TRACED: (&str, &str) = ("web/web-1", "icmp 10.0.1.11 > 10.0.2.11 echo");
/// The workload that is a process behind a tap.
const TAP: &str = "db-2";
const TAP_INTERFACE: &str = "db2";

/// Hosts, workloads and the plain path.
pub struct Scene {
    network: Network,
    tap: TapProcess,
    plain: [Namespace; 2],
}

impl Scene {
    /// Builds everything; no agent runs yet.
    pub fn build(id: &RunId) -> Result<Scene> {
        let mut network = Network::build(id, Underlay::Routed, 2, false)?;
        network.plug_workloads(&veth_workloads())?;
        let station = topology()
            .station_named(TAP)
            .context("the tap has an address")?;
        let host = network.host("h1")?.namespace();
        let tap = TapProcess::start(&id.folder(), host, TAP_INTERFACE, station)?;
        let plain = [plain_end(id, &network, 1)?, plain_end(id, &network, 2)?];
        Ok(Scene {
            network,
            tap,
            plain,
        })
    }

    /// The network under test.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The namespaces at the ends of the plain path, 10.9.1.11 and 10.9.2.11.
    pub fn plain(&self) -> &[Namespace; 2] {
        &self.plain
    }

    /// Starts weftd on both hosts.
    pub fn start_agents(&mut self) -> Result<()> {
        self.network.start_agents()
    }

    /// Applies the example and waits until all ports are active.
    pub fn apply(&self) -> Result<()> {
        let file = example();
        let weft = self.network.weft("h1")?;
        weft.text(&["apply", "-f", &file.display().to_string()])?;
        self.network.wait_until_active(&topology())
    }

    /// Pings from each workload to each other one. Every request must be answered.
    pub fn ping_all_pairs(&self) -> Result<Vec<PingReport>> {
        let topology = topology();
        let mut reports = Vec::new();
        for from in topology.ports() {
            for to in topology.ports().iter().filter(|to| to.name != from.name) {
                let target = to.address.context("each workload has an address")?.addr();
                let ping = Ping {
                    interval: Duration::from_millis(50),
                    ..Ping::default()
                };
                let result = if from.name == TAP {
                    self.tap.ping(target, ping)?
                } else {
                    self.network.ping_address(&from.name, target, ping)?
                };
                let (sent, received) = (result.sent, result.received);
                result
                    .all_answered()
                    .with_context(|| format!("{} to {}", from.name, to.name))?;
                reports.push(PingReport {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    sent,
                    received,
                });
            }
        }
        Ok(reports)
    }

    /// What `weft flows` shows on each host.
    pub fn flows(&self) -> Result<Vec<HostFlows>> {
        let flows_of = |host: &Host| -> Result<HostFlows> {
            let weft = host.weft()?;
            let flows: Vec<Value> = weft.json(&["flows"])?;
            ensure!(!flows.is_empty(), "no flow is installed on {}", host.name());
            Ok(HostFlows {
                host: host.name().into(),
                flows,
                text: weft.text(&["flows"])?,
            })
        };
        self.network.hosts().iter().map(flows_of).collect()
    }

    /// What `weft trace` shows for one packet.
    pub fn trace(&self) -> Result<TraceReport> {
        let weft = self.network.weft("h1")?;
        let (from, packet) = TRACED;
        let arguments = ["trace", "--from", from, packet];
        Ok(TraceReport {
            command: format!("weft trace --from {from} '{packet}'"),
            trace: weft.json(&arguments)?,
            text: weft.text(&arguments)?,
        })
    }

    /// An error if an agent ended or panicked.
    pub fn check_agents(&mut self) -> Result<()> {
        self.network
            .hosts_mut()
            .iter_mut()
            .try_for_each(Host::check_agent)
    }

    /// Leaves agents and the tap's process running when this value is dropped.
    pub fn leave(&mut self) {
        self.network.hosts_mut().iter_mut().for_each(Host::leave);
        self.tap.leave();
    }
}

/// What to type after `--keep`.
pub fn how_to_look_around(id: &RunId) -> Result<String> {
    let weft = binary("weft", "WEFT_BIN")?;
    let socket = |host| id.state(host).join("weftd.sock");
    let enter = |name| format!("nsenter --net=/run/netns/{}", id.namespace(name));
    Ok(format!(
        "\ndemo: everything is still up. To look around:\n\
         \n  {ping} ping 10.0.2.11\
         \n  {tcpdump} tcpdump -n -i {UNDERLAY_INTERFACE} proto gre\
         \n  {weft} --endpoint unix:{h1} ports\
         \n  {weft} --endpoint unix:{h2} flows\
         \n  {weft} --endpoint unix:{h1} trace --from web/web-1 'tcp 10.0.1.11:40000 > 10.0.2.11:80 [syn]'\
         \n  ls {pins}\
         \n  {log}\
         \n\nTo take it down: cargo xtask demo --down\n",
        ping = enter("web-1"),
        tcpdump = enter("h1"),
        weft = weft.display(),
        h1 = socket("h1").display(),
        h2 = socket("h2").display(),
        pins = id.pins("h1").display(),
        log = format_args!("less {}", id.state("h1").join("weftd.log").display()),
    ))
}

/// What the example describes. Applying the example itself shows whether the two agree: a workload with
/// another address than its port's would not be reached.
pub fn topology() -> Topology {
    let web = veth_workloads();
    web.tap("db/db-2", "h1", "10.0.2.12/24")
        .with_mac(mac(2, 12))
}

fn veth_workloads() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .with_mac(mac(1, 11))
        .port("web/web-2", "h2", "10.0.1.12/24")
        .with_mac(mac(1, 12))
        .port("db/db-1", "h2", "10.0.2.11/24")
        .with_mac(mac(2, 11))
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
}

/// The example's MACs: subnet and host number at the end.
fn mac(subnet: u8, host: u8) -> Mac {
    Mac([2, 0, 0, 0, subnet, host])
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("docs")
        .join("examples/two-hosts.yaml")
}

/// One end of the plain path: a workload and a bridge on a host, and a veth to the routing namespace, which is
/// the shape of the overlay's path without weft in it.
fn plain_end(id: &RunId, network: &Network, number: u8) -> Result<Namespace> {
    const MTU: u32 = 1500;
    let host = network.host(&format!("h{number}"))?.namespace();
    let workload = Namespace::create(id, &format!("plain-{number}"))?;
    let uplink = format!("plain-h{number}");
    join((host, "plain"), (&workload, WORKLOAD_INTERFACE), MTU)?;
    join((host, "plainup"), (network.middle(), &uplink), MTU)?;
    host.ip(&[
        "link add plainbr type bridge mcast_snooping 0",
        "link set plain master plainbr",
        "link set plainup master plainbr",
        "link set plainbr up",
    ])?;
    network.middle().ip(&address_commands(
        &uplink,
        format!("10.9.{number}.254/24"),
        None,
    ))?;
    let gateway = [10, 9, number, 254].into();
    let address = format!("10.9.{number}.11/24");
    workload.ip(&address_commands(
        WORKLOAD_INTERFACE,
        address,
        Some(gateway),
    ))?;
    Ok(workload)
}
