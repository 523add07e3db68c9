//! What an operator sees: metrics, the doctor, the log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::harness::host::{Store, UNDERLAY_INTERFACE};
use weft_tests::harness::{Run, Topology, Underlay, wait};
use weft_tests::scenario;

/// Probes are answered after 2 s.
const LIMIT: Duration = Duration::from_secs(60);
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9743);

fn topology() -> Topology {
    Topology::tenant("acme")
        .port("web/web-1", "h1", "10.0.1.11/24")
        .port("web/web-2", "h2", "10.0.1.12/24")
}

/// What `promtool check metrics` says of a text; nothing when it accepts it.
fn promtool(text: &str) -> Result<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool, of the package prometheus")?;
    let mut input = child.stdin.take().context("its input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let done = child.wait_with_output()?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(done.status.success() || !said.is_empty(), "{}", done.status);
    Ok(said)
}

#[scenario]
fn promtool_accepts_the_metrics(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    let host = net.host("h1")?;
    let config = host.config(Store::OwnAndServed) + "[metrics]\nlisten = \"127.0.0.1:9743\"\n";
    host.write_config(&config)?;
    host.namespace().ip(&["link set lo up"])?;
    net.start_agents()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let weft = net.weft("h1")?;
    wait::until_ok("h2 is up", LIMIT, || {
        ensure!(weft.host("h2")?.state == "up", "not up");
        Ok(())
    })?;
    let answer = net.host("h1")?.namespace().enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(METRICS), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: h1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (head, text) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.contains("text/plain; version=0.0.4"), "{head}");
    let said = promtool(text)?;
    ensure!(said.is_empty(), "promtool: {said}\n{text}");
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.with_context(|| format!("no {start} in {text}"))
    };
    let sent = "weft_port_packets_total{tenant=\"acme\",port=\"web/web-1\",direction=\"ingress\"}";
    ensure!(value(sent)? >= 3.0, "{text}");
    ensure!(value("weft_peer_up{peer=\"h2\"}")? == 1.0, "{text}");
    ensure!(value("weft_peer_rtt_seconds{peer=\"h2\"}")? > 0.0, "{text}");
    ensure!(value("weft_store_connected")? == 1.0, "{text}");
    ensure!(value("weft_misses_total")? >= 1.0, "{text}");
    // It would have said so.
    let broken = text.replace("# HELP weft_flows ", "# HELP weft_other ");
    ensure!(
        promtool(&broken)?.contains("weft_flows"),
        "promtool accepts everything"
    );
    Ok(())
}

/// Checks of `weft doctor -o json` that found a problem.
fn problems(checks: &Value) -> Vec<&Value> {
    let all = checks.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|it| it["outcome"] == "problem").collect()
}

#[scenario]
fn the_doctor_finds_nothing_then_what_is_wrong_and_the_command(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    let weft = net.weft("h1")?;
    wait::until_ok("a healthy host", LIMIT, || {
        let done = weft.run(&["doctor"])?;
        ensure!(done.status.success(), "{}", done.describe());
        ensure!(
            done.stdout.contains("1 of 1 other hosts answer"),
            "{}",
            done.describe()
        );
        Ok(())
    })?;
    // A workload's interface that is larger than tunnels carry (1600 - 42), and a peer whose weftd is away.
    net.host("h1")?
        .namespace()
        .ip(&["link set web1 mtu 1580"])?;
    net.host_mut("h2")?.kill_agent()?;
    let weft = net.weft("h1")?;
    wait::until_ok("both are found", LIMIT, || {
        let checks: Value = weft.json(&["doctor"])?;
        let found = problems(&checks);
        ensure!(found.len() == 2, "{checks:#}");
        ensure!(found[0]["check"] == "mtu", "{checks:#}");
        let mend = found[0]["mend"].as_str().unwrap_or_default();
        ensure!(
            mend.starts_with("ip link set dev web1 mtu 1558"),
            "{checks:#}"
        );
        ensure!(
            found[1]["mend"] == "on h2: systemctl restart weftd",
            "{checks:#}"
        );
        Ok(())
    })?;
    let done = weft.run(&["doctor"])?;
    ensure!(done.status.code() == Some(3), "{}", done.describe());
    // Without weftd there are still the machine's own facts.
    net.host_mut("h1")?.stop_agent()?;
    let done = net.weft("h1")?.run(&["doctor"])?;
    ensure!(done.status.code() == Some(3), "{}", done.describe());
    for text in [
        "ok      kernel",
        "ok      bpffs",
        "problem weftd",
        "systemctl restart weftd",
    ] {
        ensure!(done.stdout.contains(text), "{text}: {}", done.describe());
    }
    Ok(())
}

/// An interface that is set down, its other end that is, and the underlay's: each is named, with the command.
#[scenario]
fn interfaces_that_are_down_are_named_with_the_command(run: &mut Run) -> Result<()> {
    let net = run.two_hosts()?;
    net.apply(&topology())?;
    net.ping("web-1", "web-2")?;
    let weft = net.weft("h1")?;
    let host = net.host("h1")?.namespace().clone();
    let workload = net.workload("web-1")?.namespace()?.clone();
    let wait_for = |state: &str, what: &str, mend: &str| {
        wait::until_ok(what, LIMIT, || {
            let port = weft.port("acme", "web/web-1")?;
            ensure!(port.state == state, "{port:?}");
            let (status, checks) = (weft.status()?, weft.json::<Value>(&["doctor"])?);
            let is_told = status.problems.iter().any(|it| it.contains(what));
            let found = problems(&checks);
            let is_found = found.iter().any(|it| it["mend"] == mend);
            ensure!(is_told && is_found, "{status:?} {checks:#}");
            Ok(())
        })
    };
    let wait_until_well = || {
        wait::until_ok("a healthy host", LIMIT, || {
            let done = weft.run(&["doctor"])?;
            ensure!(done.status.success(), "{}", done.describe());
            Ok(())
        })
    };
    wait_until_well()?;
    host.ip(&["link set web1 down"])?;
    wait_for(
        "down",
        "port web/web-1 (interface web1): its interface is down",
        "ip link set dev web1 up",
    )?;
    let ping = weft.run(&["ping", "web/web-1", "web/web-2"])?;
    let why = "web1, the interface of port web/web-1, is down";
    ensure!(
        ping.status.code() == Some(1) && ping.stderr.contains(why),
        "{}",
        ping.describe()
    );
    host.ip(&["link set web1 up"])?;
    wait_until_well()?;
    workload.ip(&["link set net0 down"])?;
    wait_for(
        "down",
        "its interface has no carrier",
        "start the workload at web1; inside it: ip link set dev DEV up",
    )?;
    workload.ip(&["link set net0 up"])?;
    wait_until_well()?;
    host.ip(&[format!("link set {UNDERLAY_INTERFACE} down")])?;
    let mend = format!("ip link set dev {UNDERLAY_INTERFACE} up");
    let what = format!("underlay interface {UNDERLAY_INTERFACE} is down");
    wait_for("active", &what, &mend)
}

#[scenario]
fn the_log_is_json_when_asked_for(run: &mut Run) -> Result<()> {
    let net = run.hosts_without_agents(Underlay::Routed, 2)?;
    let host = net.host("h1")?;
    let config = host.config(Store::OwnAndServed) + "[log]\nformat = \"json\"\n";
    host.write_config(&config)?;
    net.start_agents()?;
    net.apply(&topology())?;
    let path = net.host("h1")?.log_path();
    wait::until_ok("a line about h2", LIMIT, || {
        let log = std::fs::read_to_string(&path)?;
        let mut peers = Vec::new();
        for line in log.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            ensure!(
                event["host"] == "h1" && event["level"].is_string(),
                "{line}"
            );
            ensure!(event["message"].is_string(), "{line}");
            peers.extend(event["peer"].as_str().map(str::to_owned));
        }
        ensure!(peers.iter().any(|peer| peer == "h2"), "{log}");
        Ok(())
    })
}
