//! The contestants, and the path of each: client, host A, a veth pair, host B, server.
//!
//! Names, addresses, MACs and MTUs are the same on each path. Offloads are as the kernel sets them.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::harness::host::UNDERLAY_INTERFACE;
use crate::harness::namespace::{address_commands, join};
use crate::harness::network::{UNDERLAY_MTU, WORKLOAD_INTERFACE, WORKLOAD_MTU};
use crate::harness::process;
use crate::harness::run_id::RunId;
use crate::harness::{Builder, Host, Mac, Namespace, Network, Ping, Topology, Underlay};

/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
/// The server's.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
/// Ends of the underlay's veth pair, where a contestant needs addresses there.
const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 30, 1, 1), Ipv4Addr::new(172, 30, 1, 2)];
/// `nft` takes 10 ms.
const NFT_LIMIT: Duration = Duration::from_secs(10);
/// Rules of the firewall that a new connection is compared with; the last one admits it.
const RULES: u8 = 10;

/// What carries packets from host to host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contestant {
    /// Bridges, and no tunnel: the limit
    Bridge,
    /// Weft, without policy
    Weft,
    /// The kernel's VXLAN, and bridges
    Vxlan,
    /// The same with a stateful firewall of ten rules on each host, by nftables
    #[value(name = "vxlan+nft")]
    VxlanNft,
}

/// A contestant's way from client to server.
pub struct Path {
    contestant: Contestant,
    client: Namespace,
    server: Namespace,
    network: Option<Network>,
}

impl Contestant {
    /// In the order in which the report shows them.
    pub const ALL: [Contestant; 4] = [
        Contestant::Bridge,
        Contestant::Weft,
        Contestant::Vxlan,
        Contestant::VxlanNft,
    ];
    /// Whom all others are compared with.
    pub const LIMIT: Contestant = Contestant::Bridge;

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Contestant::Bridge => "bridge",
            Contestant::Weft => "weft",
            Contestant::Vxlan => "vxlan",
            Contestant::VxlanNft => "vxlan+nft",
        }
    }

    /// What this machine lacks for it; none if it has everything.
    pub fn lacks(self, id: &RunId) -> Result<Option<String>> {
        let has_vxlan = |name| -> Result<_> {
            let probe = Namespace::create(id, name)?;
            let tried = probe.ip(&["link add probe type vxlan id 1 dstport 4789"]);
            Ok(tried.err().map(|error| format!("{error:#}")))
        };
        match self {
            Contestant::Bridge | Contestant::Weft => Ok(None),
            Contestant::Vxlan => has_vxlan("probe-vxlan"),
            Contestant::VxlanNft => {
                if let Some(lack) = has_vxlan("probe-nft")? {
                    return Ok(Some(lack));
                }
                let probe = Namespace::existing(&id.namespace("probe-nft"));
                let tried = nft(&probe, "add table ip probe\n");
                Ok(tried.err().map(|error| format!("{error:#}")))
            }
        }
    }
}

impl Path {
    /// Builds the path; what it needs carries the run's id.
    pub fn set_up(id: &RunId, contestant: Contestant) -> Result<Path> {
        let path = match contestant {
            Contestant::Weft => Path::through_weft(id)?,
            _ => Path::through_bridges(id, contestant)?,
        };
        for end in [&path.client, &path.server] {
            // Whoever closes a connection first remembers it for a minute (TIME-WAIT): after some measurements no port
            // would be left. Without room for such memories a closed connection is gone.
            end.sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
        }
        Ok(path)
    }

    /// Whose it is.
    pub fn contestant(&self) -> Contestant {
        self.contestant
    }

    /// The client's namespace.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server's namespace.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// Weft's hosts and their agents.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// Makes frames from client to server.
    pub fn frames(&self) -> Builder {
        Builder {
            source: Mac::of_address(CLIENT),
            destination: Mac::of_address(SERVER),
        }
    }

    /// An error unless pings are answered over the path, and by what it is named after.
    pub fn check(&self) -> Result<()> {
        let name = self.contestant.name();
        let answered = Ping::default().run(&self.client, SERVER)?.all_answered();
        answered.with_context(|| format!("ping over {name}"))?;
        if self.contestant == Contestant::VxlanNft {
            for host in self.hosts_of_bridges() {
                let path = "/proc/sys/net/netfilter/nf_conntrack_count";
                let count = host.enter(|| Ok(std::fs::read_to_string(path)?))?;
                let own = host.name();
                ensure!(count.trim() != "0", "{own} tracks no connection");
            }
        }
        Ok(())
    }

    /// An error if an agent ended or panicked.
    pub fn check_agents(&mut self) -> Result<()> {
        let hosts = self.network.as_mut().map(Network::hosts_mut);
        hosts
            .unwrap_or_default()
            .iter_mut()
            .try_for_each(Host::check_agent)
    }

    fn through_weft(id: &RunId) -> Result<Path> {
        let mut network = Network::build(id, Underlay::Direct, 2, false)?;
        network.start_agents()?;
        network.apply(
            &Topology::tenant("acme")
                .port("web/client", "h1", &format!("{CLIENT}/24"))
                .port("web/server", "h2", &format!("{SERVER}/24")),
        )?;
        Ok(Path {
            contestant: Contestant::Weft,
            client: network.workload("client")?.namespace()?.clone(),
            server: network.workload("server")?.namespace()?.clone(),
            network: Some(network),
        })
    }

    fn through_bridges(id: &RunId, contestant: Contestant) -> Result<Path> {
        let prefix = contestant.name().replace('+', "-");
        let create = |name: &str| Namespace::create(id, &format!("{prefix}-{name}"));
        let (client, server) = (create("client")?, create("server")?);
        let hosts = [create("a")?, create("b")?];
        join(
            (&hosts[0], UNDERLAY_INTERFACE),
            (&hosts[1], UNDERLAY_INTERFACE),
            UNDERLAY_MTU,
        )?;
        let ends = [(&client, CLIENT), (&server, SERVER)];
        for (side, (end, address)) in ends.into_iter().enumerate() {
            let host = &hosts[side];
            join((host, "port"), (end, WORKLOAD_INTERFACE), WORKLOAD_MTU)?;
            let mac = Mac::of_address(address);
            end.ip(&[format!("link set {WORKLOAD_INTERFACE} address {mac}")])?;
            let address = format!("{address}/24");
            end.ip(&address_commands(WORKLOAD_INTERFACE, address, None))?;
            let uplink = if contestant == Contestant::Bridge {
                UNDERLAY_INTERFACE
            } else {
                make_vxlan(host, side)?;
                "vxlan"
            };
            host.ip(&[
                "link add bridge0 type bridge mcast_snooping 0",
                "link set port master bridge0",
                &format!("link set {uplink} master bridge0"),
                "link set bridge0 up",
            ])?;
            // This kernel would show what is bridged to the IP firewall of every namespace, where most systems load
            // that (br_netfilter) only on request: it is part of the contestant with a firewall and of no other.
            let firewall = contestant == Contestant::VxlanNft;
            for family in ["iptables", "ip6tables", "arptables"] {
                let value = if firewall && family == "iptables" {
                    "1"
                } else {
                    "0"
                };
                host.sysctl(&format!("net/bridge/bridge-nf-call-{family}"), value)?;
            }
            if firewall {
                load_firewall(host)?;
            }
        }
        Ok(Path {
            contestant,
            client,
            server,
            network: None,
        })
    }

    fn hosts_of_bridges(&self) -> [Namespace; 2] {
        let client = self.client.name();
        let prefix = client.strip_suffix("client").unwrap_or(client);
        ["a", "b"].map(|host| Namespace::existing(&format!("{prefix}{host}")))
    }
}

fn make_vxlan(host: &Namespace, side: usize) -> Result<()> {
    let (local, remote) = (UNDERLAY[side], UNDERLAY[1 - side]);
    host.ip(&address_commands(
        UNDERLAY_INTERFACE,
        format!("{local}/24"),
        None,
    ))?;
    host.ip(&[
        format!(
            "link add vxlan type vxlan id 7 dstport 4789 local {local} remote {remote} dev {UNDERLAY_INTERFACE}"
        ),
        "link set vxlan up".into(),
    ])
}

/// Established connections first, then rules of which only the last admits anything.
fn load_firewall(host: &Namespace) -> Result<()> {
    let others =
        (1..RULES).map(|number| format!("ip saddr 192.0.2.{number} tcp dport {number} accept\n"));
    let rules: String = others.collect();
    let ruleset = format!(
        "table ip bench {{ chain forward {{\n\
         type filter hook forward priority filter; policy drop;\n\
         ct state established,related accept\n{rules}\
         ip saddr 10.0.1.0/24 ip daddr 10.0.1.0/24 accept\n}}\n}}\n"
    );
    nft(host, &ruleset)?;
    // Closed connections would fill the table of all namespaces within some measurements.
    host.sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1")
}

fn nft(host: &Namespace, ruleset: &str) -> Result<()> {
    let mut nft = host.command("nft")?;
    nft.args(["-f", "-"]);
    let done = process::run_with_input(nft, ruleset, NFT_LIMIT)?;
    done.success().map(drop)
}
