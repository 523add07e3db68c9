//! The store as `weft apply` shows it: all of a file or nothing, and a second host on the first one's.

use anyhow::{Result, ensure};
use weft_tests::harness::{Run, Topology, Underlay};
use weft_tests::scenario;

/// A file that names a field that doesn't exist, in line 10, column 16.
const UNKNOWN_FIELD: &str = "\
weft: v1
tenant: acme
bridges:
  ok: {}
---
weft: v1
tenant: acme
bridges:
  web:
    ports: { x: { adresses: [10.0.1.99] } }
";
/// A file with an address that is none, in line 4, column 44.
const BAD_ADDRESS: &str = "\
weft: v1
tenant: acme
bridges:
  web: { ports: { web-9: { addresses: [10.0.1.300] } } }
";

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h1", "10.0.1.12/24")
}

#[scenario]
fn a_bad_file_says_where_and_changes_nothing(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&topology())?;
    let weft = net.weft("h1")?;
    let before = weft.text(&["export"])?;
    for (file, place, expected) in [
        (UNKNOWN_FIELD, ":10:19", "addresses"),
        (BAD_ADDRESS, ":4:40", "address"),
    ] {
        let refused = net.apply_yaml(file)?;
        ensure!(refused.status.code() == Some(1), "{}", refused.describe());
        ensure!(
            refused.stderr.contains(place),
            "not at {place}: {}",
            refused.describe()
        );
        ensure!(
            refused.stderr.contains("expected"),
            "{}",
            refused.describe()
        );
        ensure!(refused.stderr.contains(expected), "{}", refused.describe());
        ensure!(
            weft.text(&["export"])? == before,
            "the topology has changed"
        );
    }
    net.ping("web-1", "web-2")
}

#[scenario]
fn an_export_applies_without_a_change(run: &mut Run) -> Result<()> {
    let net = run.hosts(Underlay::Routed, 1)?;
    net.apply(&topology())?;
    let weft = net.weft("h1")?;
    let revision = weft.status()?.revision;
    let export = weft.text(&["export"])?;
    net.apply_yaml(&export)?.success()?;
    ensure!(
        weft.status()?.revision == revision,
        "the revision has changed"
    );
    let file = net.folder().join("topology.yaml");
    let same = weft.run(&["diff", "-f", &file.display().to_string()])?;
    ensure!(same.status.code() == Some(0), "{}", same.describe());
    Ok(())
}

#[scenario]
fn a_second_host_sees_what_was_applied_at_the_first(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let (one, other) = (
        net.weft("h1")?.text(&["export"])?,
        net.weft("h2")?.text(&["export"])?,
    );
    ensure!(one == other, "h1:\n{one}\nh2:\n{other}");
    Ok(())
}
