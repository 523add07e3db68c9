//! How programs are attached, whichever way this kernel has: TCX links, or filters of a clsact qdisc.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::harness::host::UNDERLAY_INTERFACE;
use weft_tests::harness::weft::binary;
use weft_tests::harness::{Namespace, Ping, Run, Topology, Underlay, process};
use weft_tests::scenario;

/// `tc` and a refusing `weftd` take some milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Classic BPF: drops (2, `TC_ACT_SHOT`) IPv4 ICMP, leaves the rest to the filters behind it (-1, `TC_ACT_UNSPEC`).
const DROP_ICMP: &str = "6,40 0 0 12,21 0 3 2048,48 0 0 23,21 0 1 1,6 0 0 2,6 0 0 4294967295";

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

fn tc(namespace: &Namespace, arguments: &str) -> Result<String> {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    namespace.run("tc", &arguments, LIMIT)?.success()
}

#[scenario]
fn the_hosts_own_filters_behind_weft_still_see_its_traffic(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    net.expect_host_traffic("h1", "h2")?;
    let host = net.host("h2")?.namespace().clone();
    tc(&host, &format!("qdisc add dev {UNDERLAY_INTERFACE} clsact"))?;
    let filter = format!("filter add dev {UNDERLAY_INTERFACE} ingress prio 60000 bpf da bytecode");
    let mut words: Vec<&str> = filter.split(' ').collect();
    words.push(DROP_ICMP);
    host.run("tc", &words, LIMIT)?.success()?;
    net.start_agents()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let ping = Ping {
        count: 3,
        ..Ping::default()
    };
    let result = ping.run(net.host("h1")?.namespace(), net.host("h2")?.address())?;
    ensure!(
        result.received == 0,
        "the host drops ICMP, and {result:?}: its filter was skipped"
    );
    let shown = tc(
        &host,
        &format!("filter show dev {UNDERLAY_INTERFACE} ingress"),
    )?;
    ensure!(shown.contains("pref 60000"), "{shown}");
    Ok(())
}

#[scenario]
fn a_kernel_before_6_1_is_refused_in_one_line(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 1)?;
    let host = net.host("h1")?;
    for arguments in [&[][..], &["--check"]] {
        // The 2.6 personality makes any kernel call itself 2.6.something.
        let mut weftd = Command::new("setarch");
        weftd.arg("--uname-2.6").arg(binary("weftd", "WEFTD_BIN")?);
        weftd
            .arg("--config")
            .arg(host.config_path())
            .args(arguments);
        weftd.env_remove("RUST_BACKTRACE");
        weftd.env_remove("RUST_LIB_BACKTRACE");
        let refused = process::run(weftd, LIMIT)?;
        ensure!(!refused.status.success(), "{}", refused.describe());
        let line = refused.stderr.trim();
        ensure!(
            line.lines().count() == 1 && line.contains("Linux 2.6") && line.contains("Linux 6.1"),
            "{}",
            refused.describe()
        );
    }
    Ok(())
}
