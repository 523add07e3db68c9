//! What senders over IPv6 are told by three routers in a row, and on a bridge by the port: hop limits, sizes, ways that
//! don't exist, and the tools that ask.

use anyhow::{Result, ensure};
use weft_tests::harness::weft::FlowLine;
use weft_tests::harness::{Network, Run, Topology};
use weft_tests::scenario;

use crate::errors::{
    TUNNEL_BYTES, expect_probes, refuses_services, says, set_underlay_mtu, shows_hops,
};

/// Each router's address on the side from which the packets come, then the workload.
const HOPS: [&str; 4] = ["fd00:1::1", "fd00:ffff:1::2", "fd00:ffff:2::2", "fd00:2::b"];

/// `web` - r1 - r2 - r3 - `db`, and another workload on `web`.
fn topology() -> Topology {
    const ROUTERS: [&str; 3] = ["r1", "r2", "r3"];
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .and_v6("fd00:1::b/64")
        .port("web/web-2", "h2", "10.0.1.12/24")
        .and_v6("fd00:1::c/64")
        .port("db/db-1", "h2", "10.0.2.11/24")
        .and_v6("fd00:2::b/64")
        .row(&ROUTERS, ("web", "10.0.1.1/24"), ("db", "10.0.2.1/24"))
        .and_row_v6(&ROUTERS, ("web", "fd00:1::1/64"), ("db", "fd00:2::1/64"))
}

/// All that crossed the routers did so by the same flow.
fn only_one_flow(net: &Network) -> Result<()> {
    let mut flows: Vec<FlowLine> = net.weft("h1")?.flows()?;
    flows.retain(|flow| flow.port == "web/web-1" && flow.actions.contains("dec_ttl"));
    ensure!(flows.len() == 1, "not one flow: {flows:#?}");
    ensure!(flows[0].actions.contains("dec_ttl(3)"), "{flows:#?}");
    Ok(())
}

#[scenario]
fn every_hop_limit_gets_its_answer_with_one_flow(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    // First without a flow, which none of those comes to be that end on the way; then beside it.
    for hop_limit in (1..=5).chain(1..=5) {
        let line = format!("ping -6 -n -c 3 -i 0.2 -W 2 -t {hop_limit} fd00:2::b");
        let said = says(net, "web-1", &line)?;
        let is_right = match hop_limit {
            1..=3 => {
                let hop = HOPS[hop_limit - 1];
                let told = (1..=3).all(|seq| {
                    said.contains(&format!(
                        "From {hop} icmp_seq={seq} Time exceeded: Hop limit"
                    ))
                });
                told && said.contains(" 0 received")
            }
            _ => said.contains(" 3 received"),
        };
        ensure!(is_right, "{line}:\n{said}");
    }
    only_one_flow(net)
}

/// On a bridge and over three routers: what fits arrives, what doesn't is answered with the size that does, and the
/// flow is one.
#[scenario]
fn every_size_gets_its_answer_with_one_flow(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    for underlay in [1500, 1400] {
        set_underlay_mtu(net, underlay)?;
        let overlay = underlay - TUNNEL_BYTES;
        for (to, teller) in [("fd00:1::c", "fd00:1::c"), ("fd00:2::b", "fd00:1::1")] {
            for size in overlay - 5..=overlay + 5 {
                let payload = size - 48;
                // What the workload learned of the way before, it forgets.
                says(net, "web-1", "ip -6 route flush cache")?;
                let line = format!("ping -6 -n -c 1 -W 2 -M do -s {payload} {to}");
                let said = says(net, "web-1", &line)?;
                let told = format!("From {teller} icmp_seq=1 Packet too big: mtu={overlay}");
                let is_right = match size <= overlay {
                    true => said.contains(" 1 received") && !said.contains("too big"),
                    false => said.contains(" 0 received") && said.contains(&told),
                };
                ensure!(is_right, "{size} bytes to {to} over {underlay}:\n{said}");
            }
        }
    }
    only_one_flow(net)
}

#[scenario]
fn routers_say_why_they_do_not_forward(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    let topology = topology()
        .route_action("r1", "fd00:51::/64", "reject")
        .route_action("r1", "fd00:52::/64", "blackhole");
    net.apply(&topology)?;
    expect_probes(net)?;
    for (to, who, what) in [
        ("fd00:77::9", HOPS[0], "No route"),
        ("fd00:2::99", HOPS[2], "Address unreachable"),
        ("fd00:51::9", HOPS[0], "Administratively prohibited"),
    ] {
        // The first time the packets wait for the answer, then they meet the flow.
        for _ in 0..2 {
            let said = says(net, "web-1", &format!("ping -6 -n -c 2 -i 0.2 -W 6 {to}"))?;
            let errors = said
                .lines()
                .filter(|line| {
                    line.starts_with(&format!("From {who} "))
                        && line.ends_with(&format!("Destination unreachable: {what}"))
                })
                .count();
            ensure!(errors == 2, "{to}: {errors} times {what}:\n{said}");
        }
    }
    let silent = says(net, "web-1", "ping -6 -n -c 2 -i 0.2 -W 1 fd00:52::9")?;
    ensure!(
        silent.contains("100% packet loss") && !silent.contains("From "),
        "a blackhole spoke:\n{silent}"
    );
    for address in [HOPS[0], HOPS[1]] {
        refuses_services(net, address, (1, 4))?;
    }
    Ok(())
}

#[scenario]
fn traceroute_and_mtr_show_every_hop(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    expect_probes(net)?;
    // With one limit, traceroute waits for it, not for three times what the answer before took.
    for tool in [
        "traceroute -6 -n -w 5 -I fd00:2::b",
        "traceroute -6 -n -w 5 -U fd00:2::b",
        "traceroute -6 -n -w 5 -T -p 80 fd00:2::b",
        "mtr -6 -n --report -c 3 fd00:2::b",
        "mtr -6 -n --report -c 3 -u fd00:2::b",
    ] {
        shows_hops(net, tool, &HOPS)?;
    }
    Ok(())
}
