//! What the kernel keeps outside of a frame's bytes: segments still to be cut, tags taken out.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::{Builder, Capture, Iperf, Load, Run, Topology, wait};
use weft_tests::scenario;

/// Frames arrive within 1 ms, and 50 ms on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(5);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

/// A large TCP packet stays one through encapsulation, the underlay's router and decapsulation.
#[scenario]
fn segments_are_cut_behind_the_tunnel(run: &mut Run) -> Result<()> {
    const BYTES: u64 = 16 << 20;
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let capture = Capture::start(net.middle(), "h2", "proto gre", (&net.folder(), "gso"))?;
    let load = Load::TcpBytes(BYTES);
    let reverse = false;
    net.iperf("web-1", "web-2", Iperf { load, reverse })?
        .carried(BYTES)?;
    let captured = capture.stop()?;
    let large = captured.fields("gre && frame.len > 20000", &["frame.len"])?;
    ensure!(!large.is_empty(), "no frame above 20,000 bytes");
    Ok(())
}

/// A tagged frame arrives with its tag, which travels inside: the underlay sees none.
#[scenario]
fn a_tag_goes_through_the_tunnel_inside(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let capture = Capture::start(net.middle(), "h2", "", (&net.folder(), "tag"))?;
    let builder = Builder {
        source: net.workload("web-1")?.mac(),
        destination: net.workload("web-2")?.mac(),
    };
    let mut frame = builder.probe("tagged");
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    let arrived = net.expect_probe("web-2", "tagged", 2)?;
    for copies in 1..=2 {
        net.send("web-1", &frame)?;
        wait::until_ok("the tagged frame", ARRIVAL_LIMIT, || {
            ensure!(arrived.seen() == copies, "{arrived:?}");
            Ok(())
        })?;
    }
    let captured = capture.stop()?;
    let seen = captured.fields("gre && vlan.id == 5", &["eth.type"])?;
    ensure!(
        seen.len() == 2
            && seen
                .iter()
                .all(|types| types[0].starts_with("0x0800,0x8100")),
        "Ethernet types from the outside in: {seen:?}"
    );
    Ok(())
}
