//! Several next hops for one destination, next hops that stand by, and routes for some sources.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::{IpNumber, Ipv4Header, PacketBuilder};
use serde_json::Value;
use weft_tests::harness::packet::{Builder, Content, Mac, Transport};
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Network, Run, Topology, wait};
use weft_tests::scenario;

/// Where all packets go: beyond the next hops.
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const CONNECTIONS: u16 = 10_000;
const FIRST_PORT: u16 = 20_000;
/// Packets that are under way at once, so that nobody's buffer overflows.
const BATCH: usize = 200;
/// Misses that have nothing to do with connections: the first packet, what kernels say of themselves.
const MISSES_MAX: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Destination port of every packet: the rounds of a test are the same connections.
const SERVICE: u16 = 53;
/// A round is told by its packets' TTL, which is no part of a connection: this much more than the round.
const TTL: u8 = 100;

/// Where each connection of each round arrived: by round and source port.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<BTreeMap<(u8, u16), String>>>);

impl Arrivals {
    fn of_round(&self, round: u8) -> BTreeMap<u16, String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.range((round, 0)..=(round, u16::MAX))
            .map(|((_, port), gateway)| (*port, gateway.clone()))
            .collect()
    }

    fn count(&self, round: u8) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.range((round, 0)..=(round, u16::MAX)).count()
    }

    /// Lets packets to [`REMOTE`] arrive at these workloads, and notes them.
    fn watch(&self, net: &Network, gateways: &[&str]) -> Result<()> {
        for gateway in gateways {
            let (arrivals, name) = (self.clone(), (*gateway).to_owned());
            let judge = net.workload(gateway)?.judge();
            judge.expect("packets to beyond", u64::MAX, move |frame| {
                let (Content::Ipv4 {
                    destination: REMOTE,
                    ttl,
                    transport: Transport::Udp { source, .. } | Transport::Tcp { source, .. },
                    ..
                }
                | Content::Ipv6 {
                    destination: REMOTE_V6,
                    hop_limit: ttl,
                    transport: Transport::Udp { source, .. } | Transport::Tcp { source, .. },
                    ..
                }) = frame.content
                else {
                    return false;
                };
                let mut all = arrivals.0.lock().unwrap_or_else(PoisonError::into_inner);
                // One router was crossed.
                all.insert((ttl + 1 - TTL, source), name.clone());
                true
            });
        }
        Ok(())
    }
}

/// Sender and gateways on two hosts, behind two bridges of one router.
fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_v6("fd00:1::b/64")
        .port("web/web-2", "h1", "10.0.1.12/24")
        .port("db/gw-1", "h1", "10.0.2.21/24")
        .and_v6("fd00:2::21/64")
        .port("db/gw-2", "h1", "10.0.2.22/24")
        .and_v6("fd00:2::22/64")
        .port("db/gw-3", "h2", "10.0.2.23/24")
        .and_v6("fd00:2::23/64")
        .port("db/gw-4", "h2", "10.0.2.24/24")
        .and_v6("fd00:2::24/64")
        .router("core", &[("web", "10.0.1.1/24"), ("db", "10.0.2.1/24")])
        .and_legs_v6(&[("web", "fd00:1::1/64"), ("db", "fd00:2::1/64")])
}

/// The protocol of a test's packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// A route to the remote's subnet by each gateway.
    fn routes(self) -> [&'static str; 4] {
        match self {
            Family::V4 => [
                "via: 10.0.2.21",
                "via: 10.0.2.22",
                "via: 10.0.2.23",
                "via: 10.0.2.24",
            ],
            Family::V6 => [
                "via: 'fd00:2::21'",
                "via: 'fd00:2::22'",
                "via: 'fd00:2::23'",
                "via: 'fd00:2::24'",
            ],
        }
    }

    fn subnet(self) -> &'static str {
        match self {
            Family::V4 => "198.51.100.0/24",
            Family::V6 => "'2001:db8::/32'",
        }
    }

    /// Ends of a connection of the first workload, as `weft trace` writes them.
    fn ends(self, port: u16) -> String {
        match self {
            Family::V4 => format!("10.0.1.11:{port} > {REMOTE}:{SERVICE}"),
            Family::V6 => format!("[fd00:1::b]:{port} > [{REMOTE_V6}]:{SERVICE}"),
        }
    }
}

/// Gives the router these routes to the remote's subnet instead of those it had.
fn set_routes(net: &Network, family: Family, routes: &[&str]) -> Result<()> {
    let subnet = family.subnet();
    let routes: Vec<String> = routes
        .iter()
        .map(|route| format!("{{ to: {subnet}, {route} }}"))
        .collect();
    net.apply_yaml(&format!(
        "weft: v1\ntenant: acme\nrouters: {{ core: {{ routes: [{}] }} }}\n",
        routes.join(", ")
    ))
    .map(drop)
}

pub fn router_mac(net: &Network) -> Result<Mac> {
    let ports: Vec<Value> = net.weft("h1")?.json(&["ports"])?;
    let port = ports.iter().find(|port| port["name"] == "core/web");
    let mac = port.and_then(|port| port["mac"].as_str());
    mac.context("core/web has no MAC")?.parse()
}

/// A packet of the connection with this source port, half of them TCP.
fn packet(
    net: &Network,
    family: Family,
    from: &str,
    round: u8,
    (router, port): (Mac, u16),
) -> Result<Vec<u8>> {
    let sender = net.workload(from)?;
    let builder = PacketBuilder::ethernet2(sender.mac().0, router.0);
    let limit = TTL + round;
    let builder = match family {
        Family::V4 => builder.ipv4(sender.address()?.octets(), REMOTE.octets(), limit),
        Family::V6 => builder.ipv6(sender.address_v6()?.octets(), REMOTE_V6.octets(), limit),
    };
    let mut frame = Vec::new();
    if port.is_multiple_of(2) {
        builder.udp(port, SERVICE).write(&mut frame, &[])?;
    } else {
        let segment = builder.tcp(port, SERVICE, 0, 1024).syn();
        segment.write(&mut frame, &[])?;
    }
    Ok(frame)
}

/// Sends one packet of each connection; all arrive.
fn send_all(net: &Network, family: Family, arrivals: &Arrivals, round: u8) -> Result<()> {
    let (socket, router) = (net.open_socket("web-1")?, router_mac(net)?);
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + CONNECTIONS).collect();
    let mut sent = 0;
    for batch in ports.chunks(BATCH) {
        for port in batch {
            socket.send(&packet(net, family, "web-1", round, (router, *port))?)?;
        }
        sent += batch.len();
        wait::until_ok("all packets arrive", PATIENCE, || {
            let arrived = arrivals.count(round);
            ensure!(arrived == sent, "{arrived} of {sent} packets arrived");
            Ok(())
        })?;
    }
    Ok(())
}

/// Sends one packet and says where it arrives.
fn where_to(
    net: &Network,
    family: Family,
    arrivals: &Arrivals,
    from: &str,
    round: u8,
) -> Result<String> {
    let frame = packet(net, family, from, round, (router_mac(net)?, FIRST_PORT))?;
    net.send(from, &frame)?;
    wait::until_ok("the packet arrives", PATIENCE, || {
        arrivals
            .of_round(round)
            .remove(&FIRST_PORT)
            .context("it is nowhere")
    })
}

/// Where `weft trace` says that the connection goes, and that it says why.
fn traced(net: &Network, family: Family, port: u16) -> Result<String> {
    let protocol = if port.is_multiple_of(2) { "udp" } else { "tcp" };
    let packet = format!("{protocol} {}", family.ends(port));
    let trace: Value = net
        .weft("h1")?
        .json(&["trace", "--from", "web/web-1", &packet])?;
    let path = trace["egress"]["port"].as_str().unwrap_or_default();
    Ok(path.trim_start_matches("db/").to_owned())
}

fn shares(arrivals: &BTreeMap<u16, String>) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for gateway in arrivals.values() {
        *shares.entry(gateway.as_str()).or_default() += 1;
    }
    shares
}

fn is_fair(count: usize) -> bool {
    let percent = count * 100 / usize::from(CONNECTIONS);
    (15..=35).contains(&percent)
}

const GATEWAYS: [&str; 4] = ["gw-1", "gw-2", "gw-3", "gw-4"];

/// 10,000 connections over 4 next hops: one flow, no miss for each, a fair share; where they arrive is where the
/// trace says. One next hop leaves: its connections move, the others stay where they are, and none is a miss.
#[scenario]
fn connections_spread_over_next_hops_and_stay(run: &mut Run) -> Result<()> {
    spread_and_leave(run, Family::V4)
}

/// The same over IPv6.
#[scenario]
fn ipv6_connections_spread_over_next_hops_and_stay(run: &mut Run) -> Result<()> {
    spread_and_leave(run, Family::V6)
}

fn spread_and_leave(run: &mut Run, family: Family) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let routes = family.routes();
    set_routes(net, family, &routes)?;
    let arrivals = Arrivals::default();
    arrivals.watch(net, &GATEWAYS)?;
    where_to(net, family, &arrivals, "web-1", 1)?;
    let before = spread(net, family, &arrivals, 2)?;
    let counts = shares(&before);
    ensure!(
        counts.len() == 4 && counts.values().all(|count| is_fair(*count)),
        "{counts:?}"
    );
    for (port, gateway) in before.iter().step_by(usize::from(CONNECTIONS) / 16) {
        let traced = traced(net, family, *port)?;
        ensure!(
            traced == *gateway,
            "port {port} arrived at {gateway}, traced to {traced}"
        );
    }

    let rest = [routes[0], routes[2], routes[3]];
    set_routes(net, family, &rest)?;
    let (moving, _) = before
        .iter()
        .find(|(_, gateway)| *gateway == GATEWAYS[1])
        .context("nobody at the second gateway")?;
    wait::until_ok("the agent knows", PATIENCE, || {
        ensure!(traced(net, family, *moving)? != GATEWAYS[1]);
        Ok(())
    })?;
    let after = spread(net, family, &arrivals, 3)?;
    let mut moved = 0;
    for (port, gateway) in &after {
        let was = &before[port];
        ensure!(
            (was == gateway) == (was != GATEWAYS[1]),
            "port {port}: {was} to {gateway}"
        );
        moved += usize::from(was != gateway);
    }
    println!("shares {counts:?}; {moved} moved");
    ensure!(is_fair(moved), "{moved} connections moved");
    Ok(())
}

/// Sends a packet of each connection; they take one flow, and no miss each.
fn spread(
    net: &Network,
    family: Family,
    arrivals: &Arrivals,
    round: u8,
) -> Result<BTreeMap<u16, String>> {
    let weft = net.weft("h1")?;
    let before = weft.status()?.misses;
    send_all(net, family, arrivals, round)?;
    let misses = weft.status()?.misses - before;
    ensure!(
        misses <= MISSES_MAX,
        "{misses} misses for {CONNECTIONS} connections"
    );
    let flows = weft.flows()?;
    let is_choice = |flow: &&FlowLine| flow.actions.starts_with("select(");
    ensure!(flows.iter().filter(is_choice).count() == 1, "{flows:#?}");
    Ok(arrivals.of_round(round))
}

/// A UDP packet in two fragments: the first has the ports, the other nothing that tells its connection.
fn fragments(net: &Network, router: Mac, round: u8, port: u16) -> Result<[Vec<u8>; 2]> {
    let sender = net.workload("web-1")?;
    let udp = [
        &port.to_be_bytes()[..],
        &SERVICE.to_be_bytes(),
        &[0, 48, 0, 0],
        &[7; 16],
    ]
    .concat();
    let piece = |offset: u16, payload: &[u8]| -> Result<Vec<u8>> {
        let (source, length) = (sender.address()?.octets(), payload.len() as u16);
        let mut header =
            Ipv4Header::new(length, TTL + round, IpNumber::UDP, source, REMOTE.octets())?;
        header.identification = port;
        header.dont_fragment = false;
        header.more_fragments = offset == 0;
        header.fragment_offset = offset.try_into()?;
        header.header_checksum = header.calc_header_checksum();
        let packet = [&header.to_bytes(), payload].concat();
        let builder = Builder {
            source: sender.mac(),
            destination: router,
        };
        Ok(builder.ethernet(0x0800, &packet))
    };
    Ok([piece(0, &udp)?, piece(3, &[8; 24])?])
}

/// Later fragments have no ports of their own, and go where the first one went all the same.
#[scenario]
fn later_fragments_follow_their_first(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    set_routes(net, Family::V4, &Family::V4.routes())?;
    let firsts = Arrivals::default();
    firsts.watch(net, &GATEWAYS)?;
    let later: Arc<Mutex<Vec<(u8, String)>>> = Arc::default();
    for gateway in GATEWAYS {
        let (later, name) = (later.clone(), gateway.to_owned());
        let judge = net.workload(gateway)?.judge();
        judge.expect("later fragments", u64::MAX, move |frame| {
            let Content::Ipv4 {
                ttl,
                transport: Transport::LaterFragment { .. },
                ..
            } = frame.content
            else {
                return false;
            };
            let mut all = later.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((ttl + 1 - TTL, name.clone()));
            true
        });
    }
    let router = router_mac(net)?;
    let mut reached = BTreeMap::new();
    for round in 1..=24 {
        let port = FIRST_PORT + u16::from(round);
        for fragment in fragments(net, router, round, port)? {
            net.send("web-1", &fragment)?;
        }
        let (first, later) = wait::until_ok("both fragments arrive", PATIENCE, || {
            let first = firsts.of_round(round).remove(&port).context("no first")?;
            let later = later.lock().unwrap_or_else(PoisonError::into_inner);
            let mut later = later.iter().filter(|(of, _)| *of == round);
            let (_, later) = later.next().context("no later one")?;
            Ok((first, later.clone()))
        })?;
        ensure!(
            first == later,
            "the first went to {first}, the other to {later}"
        );
        *reached.entry(first).or_insert(0) += 1;
    }
    ensure!(reached.len() > 1, "all went to one next hop: {reached:?}");
    Ok(())
}

#[scenario]
fn weights_stand_by_and_sources_choose(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let arrivals = Arrivals::default();
    arrivals.watch(net, &GATEWAYS)?;
    let standby = "via: 10.0.2.23, weight: 200";
    let for_second = "from: 10.0.1.12/32, via: 10.0.2.24, weight: 300";
    set_routes(
        net,
        Family::V4,
        &["via: 10.0.2.21, weight: 50", standby, for_second],
    )?;
    let arrives = |from, round| where_to(net, Family::V4, &arrivals, from, round);
    ensure!(arrives("web-1", 1)? == "gw-1", "the lower weight");
    ensure!(arrives("web-2", 2)? == "gw-4", "the route for this source");
    set_routes(net, Family::V4, &[standby, for_second])?;
    wait::until_ok("the agent knows", PATIENCE, || {
        ensure!(traced(net, Family::V4, FIRST_PORT)? == "gw-3");
        Ok(())
    })?;
    ensure!(arrives("web-1", 3)? == "gw-3", "the weight that stood by");
    ensure!(arrives("web-2", 4)? == "gw-4", "not concerned");
    set_routes(
        net,
        Family::V4,
        &[standby, for_second, "action: blackhole, weight: 1"],
    )?;
    wait::until_ok("the agent knows", PATIENCE, || {
        ensure!(traced(net, Family::V4, FIRST_PORT)?.is_empty());
        Ok(())
    })?;
    let weft = net.weft("h1")?;
    let before = weft.drops("blackhole_route")?;
    net.send(
        "web-1",
        &packet(net, Family::V4, "web-1", 5, (router_mac(net)?, FIRST_PORT))?,
    )?;
    wait::until_ok("the drop is counted", PATIENCE, || {
        ensure!(weft.drops("blackhole_route")? == before + 1);
        Ok(())
    })?;
    ensure!(
        arrives("web-2", 6)? == "gw-4",
        "the longer source counts before the weight"
    );
    ensure!(arrivals.count(5) == 0);
    // What was applied is what is exported.
    let export = weft.text(&["export"])?;
    ensure!(
        export.contains("from: 10.0.1.12/32, via: 10.0.2.24, weight: 300"),
        "{export}"
    );
    Ok(())
}
