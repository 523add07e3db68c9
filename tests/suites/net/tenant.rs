//! Tenants: their networks don't meet, whatever addresses they use.

use anyhow::Result;
use weft_tests::harness::{Mac, Run, Topology};
use weft_tests::scenario;

/// A tenant with a bridge over both hosts; every tenant has the same addresses and MACs.
fn tenant(name: &str, first: &str, second: &str) -> Topology {
    Topology::tenant(name)
        .port(&format!("web/{first}"), "h1", "10.0.1.11/24")
        .port(&format!("web/{second}"), "h2", "10.0.1.12/24")
}

#[scenario]
fn two_tenants_with_equal_addresses_do_not_meet(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&tenant("acme", "a-1", "a-2"))?;
    net.apply(&tenant("blue", "b-1", "b-2"))?;
    // Only the other end of each is declared: a request or a reply at the other tenant fails the scenario.
    net.ping("a-1", "a-2")?;
    net.ping("b-2", "b-1")?;
    net.ping("a-2", "a-1")
}

#[scenario]
fn a_flooded_frame_stays_in_its_tenant(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&tenant("acme", "a-1", "a-2"))?;
    net.apply(&tenant("blue", "b-1", "b-2"))?;
    for (label, destination) in [
        ("unknown", Mac([2, 0xff, 0, 0, 0, 1])),
        ("broadcast", Mac::BROADCAST),
    ] {
        let arrived = net.expect_probe("a-2", label, 1)?;
        net.send_probe("a-1", destination, label)?;
        weft_tests::harness::wait::until(label, std::time::Duration::from_secs(5), || {
            Ok((arrived.seen() == 1).then_some(()))
        })?;
    }
    Ok(())
}
