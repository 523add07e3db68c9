//! IPv6 in the virtual network: bridges, routers, neighbour discovery, routers that advertise themselves.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::harness::judge::{NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION};
use weft_tests::harness::network::WORKLOAD_INTERFACE;
use weft_tests::harness::packet::{Content, Mac};
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Direction, Iperf, Load, Network, Ping, Run, Topology, Underlay, wait};
use weft_tests::scenario;

const LIMIT: Duration = Duration::from_secs(20);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

/// Two workloads on one bridge; the second is on the given host.
fn bridge(other_host: &str) -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_v6("fd00:1::b/64")
        .port("web/web-2", other_host, "10.0.1.12/24")
        .and_v6("fd00:1::c/64")
}

/// A bridge on each side of a router; the database is on the given host.
fn web_and_db(db_host: &str) -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_v6("fd00:1::b/64")
        .port("db/db-1", db_host, "10.0.2.11/24")
        .and_v6("fd00:2::b/64")
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
        .and_legs_v6(&[("web", "fd00:1::1/64"), ("db", "fd00:2::1/64")])
}

#[scenario]
fn ping_on_a_bridge_of_one_host(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&bridge("h1"))?;
    net.ping_v6("web-1", "web-2")?;
    net.ping_v6("web-2", "web-1")?;
    net.ping("web-1", "web-2")
}

#[scenario]
fn ping_on_a_bridge_over_two_hosts(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&bridge("h2"))?;
    net.ping_v6("web-1", "web-2")?;
    net.ping_v6("web-2", "web-1")
}

#[scenario]
fn ping_across_a_router_on_one_host(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&web_and_db("h1"))?;
    net.ping_v6("web-1", "db-1")?;
    net.ping_v6("db-1", "web-1")
}

#[scenario]
fn ping_across_a_router_over_two_hosts(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    net.ping_v6("web-1", "db-1")?;
    net.ping_v6("db-1", "web-1")
}

#[scenario]
fn the_router_answers_ping_on_each_of_its_addresses(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for (from, router) in [
        ("web-1", "fd00:1::1"),
        ("web-1", "fd00:2::1"),
        ("db-1", "fd00:2::1"),
    ] {
        let own = net.workload(from)?.address_v6()?;
        net.ping_router_v6(from, ip(router), own, Ping::default())?
            .all_answered()?;
    }
    Ok(())
}

#[scenario]
fn large_pings_go_in_fragments(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for size in [4000, 9000] {
        let ping = Ping {
            size,
            ..Ping::default()
        };
        net.ping_v6_with("web-1", "db-1", ping)?.all_answered()?;
    }
    Ok(())
}

#[scenario]
fn iperf3_tcp_goes_through_the_router_both_ways(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 64 << 20;
    let net = run.two_hosts()?;
    net.apply(&web_and_db("h2"))?;
    for reverse in [false, true] {
        let load = Load::TcpBytes(BYTES);
        net.iperf_v6("web-1", "db-1", Iperf { load, reverse })?
            .carried(BYTES)?;
    }
    Ok(())
}

/// Behind a gateway is a whole prefix: pings to many of its addresses are one flow, whose mask is no longer.
#[scenario]
fn masks_are_no_longer_than_prefixes(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    let topology = web_and_db("h2").route("core", "fd00:9::/56", "fd00:2::b");
    net.apply(&topology)?;
    let gateway = net.workload("db-1")?;
    gateway.namespace()?.ip(&[
        "addr add fd00:9::1/128 dev net0 nodad",
        "addr add fd00:9:0:77::2/128 dev net0 nodad",
        "addr add fd00:9:0:ff::3/128 dev net0 nodad",
    ])?;
    let own = net.workload("web-1")?.address_v6()?;
    for far in ["fd00:9::1", "fd00:9:0:77::2", "fd00:9:0:ff::3"] {
        let far = ip(far);
        gateway.judge().expect("requests", 3, move |frame| {
            frame.icmpv6() == Some((own, far, 128))
        });
        // It may ask for its router by the address that it answers from.
        gateway
            .judge()
            .expect("answers for the router", 3, move |frame| {
                frame.icmpv6() == Some((ip("fd00:2::1"), far, NEIGHBOUR_ADVERTISEMENT))
            });
        net.ping_router_v6("web-1", far, own, Ping::default())?
            .all_answered()?;
    }
    let flows = routed_flows(net, "h1")?;
    ensure!(flows.len() == 1, "not one flow for a prefix: {flows:#?}");
    for (field, bits) in &flows[0].mask_bits {
        let longest = match field.as_str() {
            "in_port" | "class" | "vlan" | "dst_mac" => u32::MAX,
            "ip_src" => 10,
            "ip_dst" => 56,
            _ => 0,
        };
        ensure!(*bits <= longest, "{field} has {bits} bits: {:?}", flows[0]);
    }
    Ok(())
}

fn routed_flows(net: &Network, host: &str) -> Result<Vec<FlowLine>> {
    let mut flows = net.weft(host)?.flows()?;
    flows.retain(|flow| flow.actions.contains("ttl") && flow.matches.contains("ipv6"));
    Ok(flows)
}

/// A solicitation for a declared address reaches nobody; a probe for one, too, is answered, and fails.
#[scenario]
fn declared_addresses_are_answered_for(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&bridge("h2"))?;
    let target = net.workload("web-2")?;
    let asked = target
        .judge()
        .tally(Direction::Received, "solicitations", |frame| {
            frame
                .icmpv6()
                .is_some_and(|(_, to, kind)| kind == NEIGHBOUR_SOLICITATION && to.is_multicast())
        });
    let sender = net.workload("web-1")?;
    let asking = sender
        .judge()
        .tally(Direction::Sent, "solicitations", |frame| {
            frame
                .icmpv6()
                .is_some_and(|(_, to, kind)| kind == NEIGHBOUR_SOLICITATION && to.is_multicast())
        });
    net.ping_v6("web-1", "web-2")?;
    ensure!(asking.seen() > 0, "web-1 asked nobody: {asking:?}");
    // A duplicate of web-2's address on web-1 is found out.
    sender
        .judge()
        .expect("the answer to the probe", 9, |frame| {
            frame.icmpv6().is_some_and(|(from, to, kind)| {
                let to_all = to == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                kind == NEIGHBOUR_ADVERTISEMENT && to_all && from == ip("fd00:1::c")
            })
        });
    let namespace = sender.namespace()?;
    let dad = format!("net/ipv6/conf/{WORKLOAD_INTERFACE}/accept_dad");
    namespace.sysctl(&dad, "1")?;
    namespace.ip(&[format!("addr add fd00:1::c/64 dev {WORKLOAD_INTERFACE}")])?;
    wait::until_ok("the duplicate to be found", LIMIT, || {
        let shown = addresses(net, "web-1")?;
        ensure!(shown.contains("dadfailed"), "{shown}");
        Ok(())
    })?;
    // Its own address, which it declared, passes its own probe.
    namespace.ip(&[
        format!("addr del fd00:1::b/64 dev {WORKLOAD_INTERFACE}"),
        format!("addr add fd00:1::b/64 dev {WORKLOAD_INTERFACE}"),
    ])?;
    target.judge().expect("web-1's own probe", 9, |frame| {
        frame
            .icmpv6()
            .is_some_and(|(from, _, kind)| kind == NEIGHBOUR_SOLICITATION && from.is_unspecified())
    });
    wait::until_ok("the own address to be usable", LIMIT, || {
        let shown = addresses(net, "web-1")?;
        let own = shown.lines().find(|line| line.contains("fd00:1::b/64"));
        let own = own.context("the own address is gone")?;
        ensure!(
            !own.contains("tentative") && !own.contains("dadfailed"),
            "{shown}"
        );
        Ok(())
    })?;
    ensure!(
        asked.seen() <= 1,
        "web-2 was asked for what is declared: {asked:?}"
    );
    Ok(())
}

fn addresses(net: &Network, workload: &str) -> Result<String> {
    let namespace = net.workload(workload)?.namespace()?;
    let args = ["-6", "addr", "show", "dev", WORKLOAD_INTERFACE];
    namespace.run("ip", &args, LIMIT)?.success()
}

/// A workload with nothing but a port makes itself an address and a default route, and reaches the other subnet.
#[scenario]
fn a_workload_configures_itself(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    let topology = web_and_db("h2")
        .silent_port("web/guest", "h1")
        .and_autoconf();
    let judge_guest = |net: &Network| -> Result<()> {
        // Its router asks for it: nobody declared its address.
        net.workload("guest")?
            .judge()
            .expect("solicitations", 9, |frame| {
                frame
                    .icmpv6()
                    .is_some_and(|(_, _, kind)| kind == NEIGHBOUR_SOLICITATION)
            });
        net.workload("web-1")?
            .judge()
            .expect("solicitations", 99, |frame| {
                frame
                    .icmpv6()
                    .is_some_and(|(_, _, kind)| kind == NEIGHBOUR_SOLICITATION)
            });
        Ok(())
    };
    net.plug_workloads(&topology)?;
    judge_guest(net)?;
    net.apply(&topology)?;
    let own = wait::until("an address of the advertised prefix", LIMIT, || {
        let shown = addresses(net, "guest")?;
        let word = |line: &str| {
            let address = line.trim().strip_prefix("inet6 ")?.split('/').next()?;
            (address.starts_with("fd00:1:") && !line.contains("tentative"))
                .then(|| address.to_string())
        };
        Ok(shown.lines().find_map(word))
    })?;
    let own = ip(&own);
    let guest = net.workload("guest")?.namespace()?;
    let routes = guest.run("ip", &["-6", "route"], LIMIT)?.success()?;
    let default = routes
        .lines()
        .find(|line| line.starts_with("default via fe80::"));
    ensure!(
        default.is_some(),
        "no default route by the router: {routes}"
    );
    let far = net.workload("db-1")?;
    far.judge().expect("requests", 3, move |frame| {
        frame.icmpv6() == Some((own, ip("fd00:2::b"), 128))
    });
    net.ping_router_v6("guest", ip("fd00:2::b"), own, Ping::default())?
        .all_answered()?;
    // What rdisc6 of ndisc6 makes of it: the prefix, the lifetime, and the tunnels' MTU (1600 less 42).
    let shown = guest.run("rdisc6", &["-1", WORKLOAD_INTERFACE], LIMIT)?;
    let shown = shown.success()?;
    for line in [
        "fd00:1::/64",
        "1800",
        "MTU",
        "1558",
        "Autonomous address conf.",
    ] {
        ensure!(shown.contains(line), "no {line} in:\n{shown}");
    }
    Ok(())
}

/// A station that nobody declared, with an address of `db`'s subnet, on one of two ports.
struct Station {
    address: &'static str,
    prefix: u8,
    gateway: &'static str,
}

const STATION_V4: Station = Station {
    address: "10.0.2.77",
    prefix: 24,
    gateway: "10.0.2.1",
};
const STATION_V6: Station = Station {
    address: "fd00:2::77",
    prefix: 64,
    gateway: "fd00:2::1",
};

impl Station {
    /// Plugs the station in at this workload, in silence.
    fn arrive(&self, net: &Network, at: &str) -> Result<()> {
        let Station {
            address,
            prefix,
            gateway,
        } = self;
        let namespace = net.workload(at)?.namespace()?;
        let mut commands = vec![format!(
            "addr add {address}/{prefix} dev {WORKLOAD_INTERFACE}"
        )];
        if address.contains(':') {
            for (setting, value) in [
                ("accept_ra", "0"),
                ("accept_dad", "0"),
                ("disable_ipv6", "0"),
            ] {
                let path = format!("net/ipv6/conf/{WORKLOAD_INTERFACE}/{setting}");
                namespace.sysctl(&path, value)?;
            }
            commands = vec![
                format!("{} nodad", commands[0]),
                format!("route add default via {gateway}"),
            ];
        } else {
            commands.push(format!("route add default via {gateway}"));
        }
        namespace.ip(&commands)
    }

    fn leave(&self, net: &Network, from: &str) -> Result<()> {
        let Station {
            address, prefix, ..
        } = self;
        let namespace = net.workload(from)?.namespace()?;
        let gone = format!("addr del {address}/{prefix} dev {WORKLOAD_INTERFACE}");
        namespace.ip(&[gone])
    }

    fn ip(&self) -> Result<IpAddr> {
        Ok(self.address.parse()?)
    }

    /// What its pings and the questions for it cause at every port of its bridge.
    fn expect(&self, net: &Network) -> Result<()> {
        let own = self.ip()?;
        for at in ["db-1", "open-1", "open-2"] {
            let judge = net.workload(at)?.judge();
            judge.expect("ARP and neighbour discovery", u64::MAX, |frame| {
                let nd = [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
                let is_nd = frame
                    .icmpv6()
                    .is_some_and(|(_, _, kind)| nd.contains(&kind));
                is_nd || matches!(frame.content, Content::Arp { .. })
            });
            judge.expect("requests to the station", 20, move |frame| {
                frame.ip().is_some_and(|(_, to, _)| to == own)
            });
        }
        Ok(())
    }

    /// Pings it from `web-1`; every request must be answered.
    fn ping(&self, net: &Network) -> Result<()> {
        let own = net.workload("web-1")?.address_v6()?;
        let result = match self.ip()? {
            IpAddr::V4(address) => net.ping_router("web-1", address, Ping::default())?,
            IpAddr::V6(address) => net.ping_router_v6("web-1", address, own, Ping::default())?,
        };
        result.all_answered().map(drop)
    }

    /// It is on one port and known; it leaves, arrives on another, whose MAC it has now, and says so in one frame.
    /// From then on that is where packets go.
    fn moves(
        &self,
        net: &mut Network,
        announcement: impl Fn(Mac) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let topology = web_and_db("h2")
            .silent_port("db/open-1", "h2")
            .silent_port("db/open-2", "h1");
        net.plug_workloads(&topology)?;
        self.expect(net)?;
        net.apply(&topology)?;
        self.arrive(net, "open-1")?;
        self.ping(net)?;
        self.leave(net, "open-1")?;
        self.arrive(net, "open-2")?;
        let own = self.ip()?;
        let old = net.workload("open-1")?.judge();
        let late = old.tally(
            Direction::Received,
            "requests at the old place",
            move |frame| frame.ip().is_some_and(|(_, to, _)| to == own),
        );
        let (old, new) = (net.workload("open-1")?.mac(), net.workload("open-2")?.mac());
        let source = if own.is_ipv4() {
            "10.0.1.11"
        } else {
            "fd00:1::b"
        };
        let packet = format!("icmp {source} > {own} echo");
        let weft = net.weft("h1")?;
        let goes_to = || {
            weft.run(&["trace", "--from", "web/web-1", &packet])?
                .success()
        };
        ensure!(
            goes_to()?.contains(&old.to_string()),
            "it was heard of before it said anything"
        );
        net.send("open-2", &announcement(new)?)?;
        wait::until_ok("the announcement to be heard", LIMIT, || {
            let way = goes_to()?;
            ensure!(way.contains(&new.to_string()), "{way}");
            Ok(())
        })?;
        self.ping(net)?;
        ensure!(late.seen() == 0, "{late:?}");
        Ok(())
    }
}

#[scenario]
fn a_gratuitous_arp_moves_an_address(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    STATION_V4.moves(net, |mac| {
        let address = STATION_V4.address.parse()?;
        Ok(weft_wire::Arp::request(mac.0, address, address).frame(Mac::BROADCAST.0))
    })
}

#[scenario]
fn an_unsolicited_advertisement_moves_an_address(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    STATION_V6.moves(net, |mac| {
        let nobody = Ipv6Addr::UNSPECIFIED;
        let nd = weft_wire::Nd::advertisement(ip(STATION_V6.address), mac.0, false, nobody);
        Ok(nd.frame([0x33, 0x33, 0, 0, 0, 1], mac.0))
    })
}
