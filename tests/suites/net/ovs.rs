//! Another maker's VTEP: a host on which Open vSwitch runs, and no weftd.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::capture::Captured;
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::packet::{Content, Echo, Transport};
use weft_tests::harness::process::{Background, run};
use weft_tests::harness::{
    Capture, Host, Iperf, Load, Mac, Namespace, Network, Ping, Run, Topology, Underlay, wait,
};
use weft_tests::scenario;

/// The port's key on the host of Open vSwitch.
const KEY: u32 = 4711;
/// An address of web-2 that the topology doesn't know.
const UNDECLARED: [u8; 4] = [10, 0, 1, 99];
/// Open vSwitch starts in 1 s, and answers in 0.1 s.
const LIMIT: Duration = Duration::from_secs(20);

/// Open vSwitch in a host's namespace. Its processes end with this value.
struct Ovs<'a> {
    namespace: &'a Namespace,
    folder: PathBuf,
    daemons: Vec<Background>,
}

impl<'a> Ovs<'a> {
    /// Its two daemons, with everything of theirs in the run's folder.
    fn start(net: &'a Network, host: &str) -> Result<Ovs<'a>> {
        let folder = net.folder().join("ovs");
        std::fs::create_dir_all(&folder)?;
        let mut ovs = Ovs {
            namespace: net.host(host)?.namespace(),
            folder,
            daemons: Vec::new(),
        };
        let file = |name: &str| ovs.folder.join(name).display().to_string();
        let (database, socket) = (file("conf.db"), file("db.sock"));
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let mut create = Command::new("ovsdb-tool");
        create.args(["create", &database, schema]);
        run(create, LIMIT)?.success()?;
        let (listen, control) = (format!("--remote=punix:{socket}"), file("ovsdb.ctl"));
        let server = [&database, &listen, &format!("--unixctl={control}")];
        ovs.daemon(net, "ovsdb-server", &server.map(String::as_str))?;
        wait::until_ok("the database of Open vSwitch", LIMIT, || {
            ovs.vsctl("--no-wait init")
        })?;
        let control = ovs.folder.join("vswitchd.ctl");
        let control = format!("--unixctl={}", control.display());
        let connect = format!("unix:{socket}");
        ovs.daemon(net, "ovs-vswitchd", &[&connect, &control])?;
        Ok(ovs)
    }

    fn daemon(&mut self, net: &Network, program: &str, args: &[&str]) -> Result<()> {
        let mut command = self.namespace.command(program)?;
        command.args(args).env("OVS_RUNDIR", &self.folder);
        let log = self.folder.join(format!("{program}.log"));
        // The one that was started last ends first.
        let daemon = Background::start(command, &net.folder(), &log)?;
        self.daemons.insert(0, daemon);
        Ok(())
    }

    /// Runs `ovs-vsctl` with these words, which waits until the switch has done it.
    fn vsctl(&self, words: &str) -> Result<()> {
        let mut command = self.namespace.command("ovs-vsctl")?;
        let socket = self.folder.join("db.sock");
        command.arg(format!("--db=unix:{}", socket.display()));
        command.arg("--timeout=10").args(words.split(' '));
        run(command, LIMIT)?.success()?;
        Ok(())
    }

    /// The commands of docs/OPERATING.md, "Another maker's VTEP", with the address and key of the other end.
    fn join(&self, address: &str, other: &str, workload: &str, out_key: u32) -> Result<()> {
        let mac = self.namespace.interface_mac(UNDERLAY_INTERFACE)?;
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other-config:hwaddr={mac} \
             -- add-port br-phy {UNDERLAY_INTERFACE}"
        ))?;
        self.namespace.ip(&[
            format!("addr flush dev {UNDERLAY_INTERFACE}"),
            format!("addr add {address}/24 dev br-phy"),
            "link set br-phy up".into(),
        ])?;
        self.vsctl(&format!(
            "add-br br-int -- set bridge br-int datapath_type=netdev \
             -- add-port br-int {workload} \
             -- add-port br-int gre0 -- set interface gre0 type=gre \
             options:remote_ip={other} options:in_key={KEY} options:out_key={out_key}"
        ))
    }

    fn check_running(&mut self) -> Result<()> {
        self.daemons
            .iter_mut()
            .try_for_each(Background::check_running)
    }
}

/// A workload behind Open vSwitch and one behind weft on one bridge: ping, ARP and TCP both ways, floods to addresses
/// that nobody declared, under the keys that each side was told.
#[scenario]
fn a_workload_behind_open_vswitch_is_on_the_bridge(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 4 << 20;
    let net = run.hosts_without_agents(Underlay::Switched, 2)?;
    net.host_mut("h1")?.start_agent()?;
    let topology = Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24");
    net.plug_workloads(&topology)?;
    let with_key = format!("interface: web2, tunnel_key: {KEY}");
    let yaml = topology.yaml().replace("interface: web2", &with_key);
    net.apply_yaml(&format!("{yaml}---\n{}", net.hosts_yaml()))?
        .success()?;
    let weft = net.weft("h1")?;
    let own_key = wait::until_ok("web-1's key, and web-2's", LIMIT, || {
        ensure!(weft.port("acme", "web/web-2")?.tunnel_key == Some(KEY));
        let own = weft.port("acme", "web/web-1")?;
        ensure!(own.state == "active", "{own:?}");
        own.tunnel_key.context("no key")
    })?;
    offloads_off(net)?;
    let (one, other) = (net.host("h1")?, net.host("h2")?);
    let mut ovs = Ovs::start(net, "h2")?;
    let addresses = [one, other].map(|host| host.address().to_string());
    ovs.join(&addresses[1], &addresses[0], "web2", own_key)?;
    wait::until_ok("a host without weftd that is no problem", LIMIT, || {
        let host = weft.host("h2")?;
        ensure!(host.state == "unmanaged" && host.problem.is_none());
        let status = weft.status()?;
        ensure!(status.state == "ok", "{:?}", status.problems);
        Ok(())
    })?;
    // Open vSwitch reads copies of h2's frames, and h2's kernel refuses the originals. Where there is a firewall, one would
    // drop them on that interface; here they come to h1, which they don't disturb.
    net.expect_refused_gre("h1")?;
    let capture = Capture::start(net.middle(), "h2", "proto gre", (&net.folder(), "ovs"))?;
    // Open vSwitch drops what it can't send before it has learned the way (ARP on br-phy).
    wait::until_ok("the way to each other", LIMIT, || {
        let ping = Ping {
            count: 1,
            ..Ping::default()
        };
        net.ping_with("web-2", "web-1", ping)?
            .all_answered()
            .map(drop)
    })?;
    net.ping("web-1", "web-2")?;
    net.ping("web-2", "web-1")?;
    ping_undeclared(net)?;
    for (from, to) in [("web-1", "web-2"), ("web-2", "web-1")] {
        let (load, reverse) = (Load::TcpBytes(BYTES), false);
        net.iperf(from, to, Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    keys_are(&capture.stop()?, [(one, KEY), (other, own_key)])?;
    ensure!(weft.drops("bad_probe")? == 0 && weft.drops("unasked_probe")? == 0);
    ovs.check_running()
}

/// Each host sent under this key, and under no other.
fn keys_are(captured: &Captured, wanted: [(&Host, u32); 2]) -> Result<()> {
    for (host, expected) in wanted {
        let filter = format!("gre && ip.src == {}", host.address());
        let mut keys = captured.fields(&filter, &["gre.key"])?;
        ensure!(keys.len() > 20, "{} frames of {}", keys.len(), host.name());
        keys.dedup();
        let only = format!("{expected:#010x}");
        ensure!(keys == [[only]], "keys of {}: {keys:x?}", host.name());
    }
    Ok(())
}

/// What network cards do and veth pairs don't: between hosts, frames have their checksums and are cut to size. So do
/// those that a workload hands to Open vSwitch, which reads them from a raw socket.
fn offloads_off(net: &Network) -> Result<()> {
    let ends = [
        (net.host("h1")?.namespace(), UNDERLAY_INTERFACE),
        (net.workload("web-2")?.namespace()?, WORKLOAD_INTERFACE),
    ];
    for (namespace, interface) in ends {
        let off = "tx off tso off gso off".split(' ');
        let args: Vec<&str> = ["-K", interface].into_iter().chain(off).collect();
        namespace.run("ethtool", &args, LIMIT)?.success()?;
    }
    Ok(())
}

/// ARP for an address that no port declares is flooded: it gets to web-2, which has it all the same.
fn ping_undeclared(net: &Network) -> Result<()> {
    let (from, to) = (net.workload("web-1")?, net.workload("web-2")?);
    let add = format!("addr add 10.0.1.99/24 dev {WORKLOAD_INTERFACE}");
    to.namespace()?.ip(&[add])?;
    to.judge().expect_own_arp(UNDECLARED.into());
    let asked = to.judge().expect("flooded ARP", 5, |frame| {
        matches!(frame.content, Content::Arp { .. }) && frame.destination == Mac::BROADCAST
    });
    for judge in [from.judge(), to.judge()] {
        judge.expect("echo with 10.0.1.99", u64::MAX, |frame| {
            let Some((source, destination, Transport::Icmp { echo, .. })) = frame.ipv4() else {
                return false;
            };
            let is_echo = matches!(echo, Some(Echo::Request { .. } | Echo::Reply { .. }));
            is_echo && [source, destination].contains(&UNDECLARED.into())
        });
    }
    net.ping_address("web-1", UNDECLARED.into(), Ping::default())?
        .all_answered()?;
    ensure!(asked.seen() > 0, "no flooded ARP came to web-2");
    Ok(())
}
