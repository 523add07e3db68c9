//! A whole network under test: hosts, the routing namespace between them, and workloads.
//!
//! What a helper here causes it declares to the judges first. State: namespaces, taps and watches of the run;
//! all of them end with it.

mod v6;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;

use super::host::{API_PORT, Host, Store, UNDERLAY_INTERFACE, token_file};
use super::judge::{Declared, Judge};
use super::namespace::{Namespace, address_commands, join};
use super::packet::{Builder, Content, Echo, Frame, GRE_ETHERNET, Mac, PROTOCOL_ICMPV6, Transport};
use super::process::Finished;
use super::run_id::RunId;
use super::socket::PacketSocket;
use super::tap::{Station, Tap};
use super::topology::{PortSpec, Topology, WorkloadKind, hosts_yaml};
use super::traffic::{BackgroundPing, Iperf, Load, Ping, PingResult, Throughput};
use super::wait;
use super::watch::Watch;
use super::weft::Weft;

/// Carries workloads' 1500 bytes with an Ethernet header, GRE and an outer IP header (1542).
pub const UNDERLAY_MTU: u32 = 1600;
/// The MTU of workloads' interfaces.
pub const WORKLOAD_MTU: u32 = 1500;
/// A workload's interface inside its namespace.
pub const WORKLOAD_INTERFACE: &str = "net0";
/// Ports are active 0.3 s after `weft apply`.
const ACTIVE_LIMIT: Duration = Duration::from_secs(20);
/// Probes that may be refused while hosts learn of their own addresses: one a second goes to each.
const EARLY_PROBES_MAX: u64 = 10;

/// How hosts reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Each in a subnet of its own, 172.30.N.0/24, with a router between.
    Routed,
    /// All in 172.30.1.0/24, on one switch.
    Switched,
    /// Two, in 172.30.1.0/24, with one veth pair between and nothing else.
    Direct,
}

/// Hosts, what joins them, and workloads.
pub struct Network {
    id: RunId,
    middle: Namespace,
    hosts: Vec<Host>,
    workloads: BTreeMap<String, Workload>,
    underlay_judges: BTreeMap<String, Arc<Judge>>,
    watches: Vec<Watch>,
    watching: bool,
}

/// A workload: a station behind a port.
pub struct Workload {
    spec: PortSpec,
    station: Option<Station>,
    gateway_v6: Option<Ipv6Addr>,
    tenant: String,
    namespace: Option<Namespace>,
    tap: Option<Tap>,
    judge: Arc<Judge>,
    watches_made: u32,
}

impl Workload {
    /// Its port, `BRIDGE/PORT`.
    pub fn path(&self) -> String {
        self.spec.path()
    }

    /// Its tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Name of the host it is on.
    pub fn host(&self) -> &str {
        &self.spec.host
    }

    /// Its interface on the host.
    pub fn interface(&self) -> &str {
        &self.spec.interface
    }

    /// Its MAC.
    pub fn mac(&self) -> Mac {
        self.spec.mac
    }

    /// Its address; an error for one without.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let address = self.spec.address.map(|address| address.addr());
        address.with_context(|| format!("{} has no address", self.spec.name))
    }

    /// Its IPv6 address; an error for one without.
    pub fn address_v6(&self) -> Result<Ipv6Addr> {
        let address = self.spec.address_v6.map(|address| address.addr());
        address.with_context(|| format!("{} has no IPv6 address", self.spec.name))
    }

    /// Who judges what arrives at it.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Its namespace; an error for a tap.
    pub fn namespace(&self) -> Result<&Namespace> {
        let namespace = self.namespace.as_ref();
        namespace.with_context(|| format!("{} is a tap, with no namespace", self.spec.name))
    }
}

impl Network {
    /// Builds the underlay and the hosts `h1`, `h2`, ...; no agent runs yet. The first host's agent will hold
    /// the store.
    pub fn build(id: &RunId, underlay: Underlay, hosts: u8, watching: bool) -> Result<Network> {
        fs::create_dir_all(id.folder().join("pcap"))?;
        fs::write(
            token_file(&id.folder()),
            format!("weft-tests-token-of-run-{id}\n"),
        )?;
        let middle = Namespace::create(id, "r")?;
        let mut network = Network {
            id: id.clone(),
            middle,
            hosts: Vec::new(),
            workloads: BTreeMap::new(),
            underlay_judges: BTreeMap::new(),
            watches: Vec::new(),
            watching,
        };
        match underlay {
            Underlay::Routed => network.middle.sysctl("net/ipv4/ip_forward", "1")?,
            Underlay::Switched => {
                network.middle.ip(&[
                    "link add switch type bridge mcast_snooping 0",
                    "link set switch up",
                ])?;
            }
            Underlay::Direct => ensure!(hosts == 2, "one veth pair joins two hosts"),
        }
        (1..=hosts).try_for_each(|number| network.add_host(underlay, number))?;
        Ok(network)
    }

    /// Starts every host's agent, the store's first.
    pub fn start_agents(&mut self) -> Result<()> {
        self.hosts.iter_mut().try_for_each(Host::start_agent)
    }

    /// Makes a topology's workloads, applies it, and waits until every host sends to every port.
    pub fn apply(&mut self, topology: &Topology) -> Result<()> {
        self.plug_workloads(topology)?;
        self.apply_yaml(&format!("{}---\n{}", topology.yaml(), self.hosts_yaml()))?
            .success()?;
        self.wait_until_active(topology)
    }

    /// Makes a topology's workloads and their interfaces, and applies nothing.
    pub fn plug_workloads(&mut self, topology: &Topology) -> Result<()> {
        topology
            .ports()
            .iter()
            .try_for_each(|port| self.add_workload(topology, port))
    }

    /// Runs `weft apply` on the first host's agent with this text.
    pub fn apply_yaml(&self, yaml: &str) -> Result<Finished> {
        let file = self.id.folder().join("topology.yaml");
        fs::write(&file, yaml)?;
        self.weft("h1")?
            .run(&["apply", "-f", &file.display().to_string()])
    }

    /// The document with the hosts of this network.
    pub fn hosts_yaml(&self) -> String {
        hosts_yaml(self.hosts.iter().map(|host| (host.name(), host.address())))
    }

    /// Waits until the ports of a topology are active on their hosts, and all other hosts know where.
    pub fn wait_until_active(&self, topology: &Topology) -> Result<()> {
        let paths: Vec<(String, &str)> = topology
            .ports()
            .iter()
            .map(|port| (port.path(), port.host.as_str()))
            .collect();
        for host in &self.hosts {
            let weft = host.weft()?;
            wait::until_ok(
                &format!("active ports on {}", host.name()),
                ACTIVE_LIMIT,
                || {
                    let lines = weft.ports()?;
                    for (path, home) in &paths {
                        let line = lines
                            .iter()
                            .find(|line| {
                                line.tenant == topology.tenant_name() && line.name == *path
                            })
                            .with_context(|| format!("{path} isn't in `weft ports`"))?;
                        let active = *home != host.name() || line.state == "active";
                        ensure!(
                            active && line.tunnel_key.is_some(),
                            "{path} isn't active: {line:?}"
                        );
                    }
                    let status = weft.status()?;
                    let waiting = status.peers.iter().find(|peer| peer.state != "resolved");
                    ensure!(waiting.is_none(), "a host isn't reached: {waiting:?}");
                    ensure!(
                        status.peers.len() + 1 >= self.hosts.len(),
                        "not all hosts are known"
                    );
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// A host.
    pub fn host(&self, name: &str) -> Result<&Host> {
        let found = self.hosts.iter().find(|host| host.name() == name);
        found.with_context(|| format!("there is no host {name}"))
    }

    /// A host, to start and stop its agent.
    pub fn host_mut(&mut self, name: &str) -> Result<&mut Host> {
        let found = self.hosts.iter_mut().find(|host| host.name() == name);
        found.with_context(|| format!("there is no host {name}"))
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// All hosts, to start and stop their agents.
    pub fn hosts_mut(&mut self) -> &mut [Host] {
        &mut self.hosts
    }

    /// `weft` against a host's agent.
    pub fn weft(&self, host: &str) -> Result<Weft> {
        self.host(host)?.weft()
    }

    /// The namespace between the hosts: a router or a switch, with an interface named after each host.
    pub fn middle(&self) -> &Namespace {
        &self.middle
    }

    /// A workload.
    pub fn workload(&self, name: &str) -> Result<&Workload> {
        self.workloads
            .get(name)
            .with_context(|| format!("there is no workload {name}"))
    }

    /// Who judges what arrives at a host's underlay interface.
    pub fn underlay_judge(&self, host: &str) -> Result<&Judge> {
        let judge = self.underlay_judges.get(host);
        judge
            .map(Arc::as_ref)
            .with_context(|| format!("nobody watches the underlay of {host}"))
    }

    /// Allows what the kernel of a host without programs of weft says to tunnel packets, seen at the underlay of the one
    /// that sent them: GRE is no protocol of its own (RFC 792, protocol unreachable).
    pub fn expect_refused_gre(&self, sender: &str) -> Result<()> {
        self.underlay_judge(sender)?.expect(
            "GRE refused by a host's kernel",
            u64::MAX,
            is_protocol_unreachable,
        );
        Ok(())
    }

    /// Allows any traffic between two hosts' own addresses: what the hosts do without weft.
    pub fn expect_host_traffic(&self, one: &str, other: &str) -> Result<()> {
        let pair = (self.host(one)?.address(), self.host(other)?.address());
        for name in [one, other] {
            let what = format!("traffic between {one} and {other} themselves");
            self.underlay_judge(name)?
                .expect(what, u64::MAX, move |frame| {
                    is_between(frame, (pair.0.into(), pair.1.into()))
                });
        }
        Ok(())
    }

    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        self.id.folder()
    }

    /// Pings a workload from another; every request must be answered, once.
    pub fn ping(&self, from: &str, to: &str) -> Result<()> {
        let result = self.ping_with(from, to, Ping::default())?;
        result
            .all_answered()
            .map(drop)
            .with_context(|| format!("ping from {from} to {to}"))
    }

    /// Pings a workload from another, in any way. Lost packets are no error here.
    pub fn ping_with(&self, from: &str, to: &str, ping: Ping) -> Result<PingResult> {
        let (source, target) = (self.workload(from)?, self.workload(to)?);
        let (from_address, to_address) = (source.address()?, target.address()?);
        let frames = u64::from(ping.count) * ping.frames_per_request();
        expect_echo(
            &target.judge,
            EchoKind::Request,
            (from_address, to_address),
            frames,
        );
        expect_echo(
            &source.judge,
            EchoKind::Reply,
            (to_address, from_address),
            frames,
        );
        self.ping_address(from, to_address, ping)
    }

    /// Pings a workload from another until it is told to stop, 20 times a second.
    pub fn ping_in_background(&self, from: &str, to: &str) -> Result<BackgroundPing> {
        self.ping_in_background_every(from, to, Duration::from_millis(50))
    }

    /// Pings a workload from another until it is told to stop, once in `interval`.
    pub fn ping_in_background_every(
        &self,
        from: &str,
        to: &str,
        interval: Duration,
    ) -> Result<BackgroundPing> {
        let (source, target) = (self.workload(from)?, self.workload(to)?);
        let (from_address, to_address) = (source.address()?, target.address()?);
        expect_echo(
            &target.judge,
            EchoKind::Request,
            (from_address, to_address),
            u64::MAX,
        );
        expect_echo(
            &source.judge,
            EchoKind::Reply,
            (to_address, from_address),
            u64::MAX,
        );
        let log = self.folder().join(format!("ping-{from}-{to}.log"));
        BackgroundPing::start(
            source.namespace()?,
            to_address,
            interval,
            &self.folder(),
            &log,
        )
    }

    /// Pings any address from a workload. The caller declares what that causes.
    pub fn ping_address(&self, from: &str, to: Ipv4Addr, ping: Ping) -> Result<PingResult> {
        let source = self.workload(from)?;
        match &source.tap {
            Some(tap) => tap.ping(to, ping),
            None => ping.run(source.namespace()?, to),
        }
    }

    /// Pings an address that belongs to the network itself, a router's.
    pub fn ping_router(&self, from: &str, router: Ipv4Addr, ping: Ping) -> Result<PingResult> {
        let source = self.workload(from)?;
        let frames = u64::from(ping.count) * ping.frames_per_request();
        expect_echo(
            &source.judge,
            EchoKind::Reply,
            (router, source.address()?),
            frames,
        );
        self.ping_address(from, router, ping)
    }

    /// Runs iperf3 from a workload to another.
    pub fn iperf(&self, from: &str, to: &str, iperf: Iperf) -> Result<Throughput> {
        let (client, server, address) = self.expect_iperf(from, to)?;
        iperf
            .run((&client, &server), address, &self.folder())
            .with_context(|| format!("iperf3 from {from} to {to}"))
    }

    /// Runs iperf3 from a workload to another for so long, TCP as fast as it goes, while other things happen.
    pub fn iperf_in_background(
        &self,
        from: &str,
        to: &str,
        time: Duration,
    ) -> Result<JoinHandle<Result<Throughput>>> {
        let (client, server, address) = self.expect_iperf(from, to)?;
        let (folder, what) = (self.folder(), format!("iperf3 from {from} to {to}"));
        let iperf = Iperf {
            load: Load::TcpFor(time),
            reverse: false,
        };
        Ok(std::thread::spawn(move || {
            let result = iperf.run((&client, &server), address, &folder);
            result.context(what)
        }))
    }

    fn expect_iperf(&self, from: &str, to: &str) -> Result<(Namespace, Namespace, Ipv4Addr)> {
        let (client, server) = (self.workload(from)?, self.workload(to)?);
        let pair = (client.address()?, server.address()?);
        self.expect_iperf_between((client, server), (pair.0.into(), pair.1.into()));
        let namespaces = (client.namespace()?, server.namespace()?);
        Ok((namespaces.0.clone(), namespaces.1.clone(), pair.1))
    }

    fn expect_iperf_between(
        &self,
        (client, server): (&Workload, &Workload),
        pair: (IpAddr, IpAddr),
    ) {
        for judge in [&client.judge, &server.judge] {
            judge.expect(
                format!("iperf3 between {} and {}", pair.0, pair.1),
                u64::MAX,
                move |frame| is_between(frame, pair) && is_tcp_or_udp(frame),
            );
        }
    }

    /// Sends a whole frame out of a workload.
    pub fn send(&self, from: &str, frame: &[u8]) -> Result<()> {
        let source = self.workload(from)?;
        match &source.tap {
            Some(tap) => tap.send(frame),
            None => PacketSocket::open(source.namespace()?, WORKLOAD_INTERFACE)?.send(frame),
        }
    }

    /// A socket that sends whole frames out of a veth workload.
    pub fn open_socket(&self, from: &str) -> Result<PacketSocket> {
        PacketSocket::open(self.workload(from)?.namespace()?, WORKLOAD_INTERFACE)
    }

    /// Sends a probe from a workload to a MAC.
    pub fn send_probe(&self, from: &str, destination: Mac, label: &str) -> Result<()> {
        let builder = Builder {
            source: self.workload(from)?.mac(),
            destination,
        };
        self.send(from, &builder.probe(label))
    }

    /// Allows a probe to arrive at a workload, `at_most` times.
    pub fn expect_probe(&self, at: &str, label: &str, at_most: u64) -> Result<Arc<Declared>> {
        let wanted = label.to_string();
        let judge = &self.workload(at)?.judge;
        Ok(
            judge.expect(format!("probe {label}"), at_most, move |frame| {
                frame.is_probe(&wanted)
            }),
        )
    }

    /// Removes a veth workload's interface, on both ends.
    pub fn remove_interface(&mut self, workload: &str) -> Result<()> {
        let workload = self.workload(workload)?;
        let host = self.host(workload.host())?;
        host.namespace()
            .ip(&[format!("link del {}", workload.interface())])
    }

    /// Makes a veth workload's interface (again), with the same names, and addresses inside.
    pub fn make_interface(&mut self, workload: &str) -> Result<()> {
        let mut workload = self
            .workloads
            .remove(workload)
            .context("there is no such workload")?;
        let made = self.plug(&mut workload);
        self.workloads.insert(workload.spec.name.clone(), workload);
        made
    }

    /// Frames that arrived somewhere and that nobody expected. Ends all watches.
    pub fn unexpected(&mut self) -> Vec<String> {
        self.watches.iter().for_each(Watch::stop);
        self.watches.clear();
        let judges = self.workloads.values().map(|workload| &workload.judge);
        let judges = judges.chain(self.underlay_judges.values());
        judges.flat_map(|judge| judge.unexpected()).collect()
    }

    fn add_host(&mut self, underlay: Underlay, number: u8) -> Result<()> {
        let name = format!("h{number}");
        let namespace = Namespace::create(&self.id, &name)?;
        match self.hosts.first() {
            // The first host's pair is there, with its far end in the middle: that is this host's interface.
            Some(first) if underlay == Underlay::Direct => {
                self.middle.ip(&[format!(
                    "link set {} netns {} name {UNDERLAY_INTERFACE}",
                    first.name(),
                    namespace.name()
                )])?;
                namespace.ip(&[format!("link set {UNDERLAY_INTERFACE} up")])?;
            }
            _ => join(
                (&namespace, UNDERLAY_INTERFACE),
                (&self.middle, &name),
                UNDERLAY_MTU,
            )?,
        }
        let (subnet, host) = match underlay {
            Underlay::Routed => (number, 1),
            Underlay::Switched | Underlay::Direct => (1, number),
        };
        let address = Ipv4Addr::new(172, 30, subnet, host);
        let gateway = (underlay == Underlay::Routed).then_some(Ipv4Addr::new(172, 30, subnet, 254));
        if let Some(gateway) = gateway {
            self.middle
                .ip(&address_commands(&name, format!("{gateway}/24"), None))?;
        }
        if underlay == Underlay::Switched {
            self.middle
                .ip(&[format!("link set {name} master switch")])?;
        }
        let commands = address_commands(UNDERLAY_INTERFACE, format!("{address}/24"), gateway);
        namespace.ip(&commands)?;
        let first = self.hosts.first().map(Host::address);
        let store = first.map_or(Store::OwnAndServed, Store::Of);
        if self.watching {
            let judge = Arc::new(Judge::new(&format!("{name}'s underlay")));
            expect_underlay(&judge);
            self.watches.push(Watch::start(
                &namespace,
                UNDERLAY_INTERFACE,
                judge.clone(),
                &self.pcap(&format!("{name}-underlay")),
            )?);
            self.underlay_judges.insert(name.clone(), judge);
        }
        self.hosts
            .push(Host::create(&self.id, &name, namespace, address, store)?);
        Ok(())
    }

    fn add_workload(&mut self, topology: &Topology, spec: &PortSpec) -> Result<()> {
        if self.workloads.contains_key(&spec.name) {
            return Ok(());
        }
        let judge = Arc::new(Judge::new(&spec.name));
        if let Some(address) = spec.address {
            judge.expect_own_arp(address.addr());
        }
        if topology.has_v6() {
            judge.expect_discovery(spec.address_v6.map(|address| address.addr()));
        }
        let mut workload = Workload {
            spec: spec.clone(),
            station: topology.station(spec),
            gateway_v6: topology.gateway_v6(&spec.bridge),
            tenant: topology.tenant_name().into(),
            namespace: None,
            tap: None,
            judge,
            watches_made: 0,
        };
        if spec.kind == WorkloadKind::Veth {
            workload.namespace = Some(Namespace::create(&self.id, &spec.name)?);
        }
        self.plug(&mut workload)?;
        self.workloads.insert(spec.name.clone(), workload);
        Ok(())
    }

    /// Makes a workload's interface and watches it.
    fn plug(&mut self, workload: &mut Workload) -> Result<()> {
        let Workload {
            spec,
            station,
            gateway_v6,
            judge,
            ..
        } = workload;
        workload.watches_made += 1;
        let pcap = self.pcap(&format!("{}-{}", spec.name, workload.watches_made));
        let host = self.host(&spec.host)?.namespace();
        let Some(namespace) = &workload.namespace else {
            let station =
                station.with_context(|| format!("{}: a tap has an address", spec.name))?;
            workload.tap = Some(Tap::create(
                host,
                &spec.interface,
                station,
                judge.clone(),
                &pcap,
            )?);
            return Ok(());
        };
        join(
            (host, &spec.interface),
            (namespace, WORKLOAD_INTERFACE),
            WORKLOAD_MTU,
        )?;
        let mut commands = vec![format!(
            "link set {WORKLOAD_INTERFACE} address {}",
            spec.mac
        )];
        commands.extend(v6::start(namespace, spec, *gateway_v6)?);
        if let Some(Station {
            mac: _,
            address,
            gateway,
        }) = *station
        {
            commands.extend(workload_address(address, gateway));
        }
        namespace.ip(&commands)?;
        if self.watching {
            let watch = Watch::start(namespace, WORKLOAD_INTERFACE, judge.clone(), &pcap)?;
            self.watches.push(watch);
        }
        Ok(())
    }

    fn pcap(&self, name: &str) -> PathBuf {
        self.folder().join("pcap").join(format!("{name}.pcap"))
    }
}

fn workload_address(address: Ipv4Net, gateway: Option<Ipv4Addr>) -> Vec<String> {
    address_commands(WORKLOAD_INTERFACE, address, gateway)
}

/// Which echo message is expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EchoKind {
    Request,
    Reply,
}

/// Allows the fragments of echo messages, too, which look like any other later fragment.
fn expect_echo<A: Into<IpAddr>>(judge: &Judge, wanted: EchoKind, pair: (A, A), frames: u64) {
    let pair: (IpAddr, IpAddr) = (pair.0.into(), pair.1.into());
    let what = if wanted == EchoKind::Request {
        "echo requests"
    } else {
        "echo replies"
    };
    judge.expect(
        format!("{what} {} > {}", pair.0, pair.1),
        frames,
        move |frame| {
            let Some((source, destination, transport)) = frame.ip() else {
                return false;
            };
            let kind_fits = match transport {
                Transport::Icmp {
                    echo: Some(Echo::Request { .. }),
                    ..
                } => wanted == EchoKind::Request,
                Transport::Icmp {
                    echo: Some(Echo::Reply { .. }),
                    ..
                } => wanted == EchoKind::Reply,
                Transport::LaterFragment { protocol } => [1, PROTOCOL_ICMPV6].contains(protocol),
                _ => false,
            };
            kind_fits && (source, destination) == pair
        },
    );
}

/// Allows what an underlay interface always receives: ARP, tunnels and the store's API between hosts.
fn expect_underlay(judge: &Judge) {
    judge.expect(
        "probes of a host whose agent doesn't know its own address yet",
        EARLY_PROBES_MAX,
        is_protocol_unreachable,
    );
    judge.expect("ARP", u64::MAX, |frame| {
        matches!(frame.content, Content::Arp { .. })
    });
    judge.expect("tunnels and the API between hosts", u64::MAX, |frame| {
        let Some((source, destination, transport)) = frame.ipv4() else {
            return false;
        };
        let between_hosts = [source, destination]
            .iter()
            .all(|ip| ip.octets()[..2] == [172, 30]);
        between_hosts
            && match transport {
                Transport::Gre { gre, .. } => gre.key.is_some() && gre.protocol == GRE_ETHERNET,
                Transport::Tcp {
                    source,
                    destination,
                } => *source == API_PORT || *destination == API_PORT,
                _ => false,
            }
    });
}

fn is_protocol_unreachable(frame: &Frame) -> bool {
    let transport = frame.ipv4().map(|(_, _, transport)| transport);
    matches!(
        transport,
        Some(Transport::Icmp {
            kind: 3,
            code: 2,
            ..
        })
    )
}

fn is_between(frame: &Frame, pair: (IpAddr, IpAddr)) -> bool {
    frame.ip().is_some_and(|(source, destination, _)| {
        (source, destination) == pair || (destination, source) == pair
    })
}

fn is_tcp_or_udp(frame: &Frame) -> bool {
    matches!(
        frame.ip(),
        Some((_, _, Transport::Tcp { .. } | Transport::Udp { .. }))
    )
}
