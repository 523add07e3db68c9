//! `doctor`: what is wrong on this host and between hosts, each finding with the command that mends it.
//!
//! What the machine itself shows is looked at here, so that it works without weftd; the rest is what weftd tells.
//! [`diagnose`] is pure: facts in, checks out.

use anyhow::Result;
use owo_colors::AnsiColors;
use serde::Serialize;
use weft_api::Endpoint;
use weft_api::agent::{AgentHeard, HostInfo, HostState, PeerInfo, PortInfo, PortState, Status};

use super::Session;
use crate::Done;

/// Clocks that differ by more are told: logs of two hosts can't be compared.
const CLOCK_OFFSET_MS_MAX: u64 = 1000;
/// An agent that is silent for longer is told; it speaks each second.
const SILENCE_SECS_MAX: u64 = 10;
/// Oldest kernel that weftd takes, and the first with TCX.
const KERNEL_MIN: (u32, u32) = (6, 1);
const KERNEL_WITH_TCX: (u32, u32) = (6, 6);
/// Bytes that a tunnel takes of an underlay's MTU: inner Ethernet, GRE with key, outer IP.
const TUNNEL_LEN_V4: u32 = 14 + 8 + 20;
const TUNNEL_LEN_V6: u32 = 14 + 8 + 40;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Not as it should be.
    Problem,
    /// It can't be told, and why.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked: kernel, bpffs, jit, weftd, store, ports, mtu, peers, clock, versions.
    pub check: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// The command that mends it; of a problem only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// What is looked at.
pub struct Facts {
    /// This machine, when weftd is asked on it.
    machine: Option<Machine>,
    /// Version of this command.
    version: String,
    /// What weftd tells, or why it doesn't.
    agent: Result<Agent, String>,
}

/// What this machine shows.
#[derive(Default)]
struct Machine {
    /// "6.18.5-amd64"
    kernel: String,
    is_bpffs_mounted: bool,
    /// `net.core.bpf_jit_enable`; none where it can't be read.
    jit: Option<String>,
}

/// What weftd tells.
#[derive(Default)]
struct Agent {
    status: Status,
    hosts: Vec<HostInfo>,
    ports: Vec<PortInfo>,
}

/// Checks everything; exit status 3 when there is a problem.
pub async fn doctor(session: &Session, endpoint: &Endpoint) -> Result<Done> {
    let facts = Facts {
        machine: matches!(endpoint, Endpoint::Unix(_)).then(Machine::look),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent: ask(session).await,
    };
    let checks = diagnose(&facts);
    session.output.show(&checks, || screen(session, &checks))?;
    let is_ill = checks.iter().any(|it| it.outcome == Outcome::Problem);
    Ok(if is_ill { Done::Differs } else { Done::Well })
}

async fn ask(session: &Session) -> Result<Agent, String> {
    let client = &session.client;
    let all = async {
        Ok(Agent {
            status: client.status().await?,
            hosts: client.host_activity().await?,
            ports: client.port_activity().await?,
        })
    };
    all.await
        .map_err(|error: weft_api::ClientError| error.to_string())
}

impl Machine {
    fn look() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mounts = read("/proc/self/mounts");
        let is_bpffs = |line: &str| {
            let mut words = line.split(' ').skip(1);
            words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
        };
        let jit = read("/proc/sys/net/core/bpf_jit_enable");
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            is_bpffs_mounted: mounts.lines().any(is_bpffs),
            jit: Some(jit.trim().to_owned()).filter(|text| !text.is_empty()),
        }
    }
}

fn screen(session: &Session, checks: &[Check]) -> String {
    let mut text = String::new();
    for it in checks {
        let (word, colour) = match it.outcome {
            Outcome::Ok => ("ok      ", AnsiColors::Green),
            Outcome::Problem => ("problem ", AnsiColors::Red),
            Outcome::Unknown => ("unknown ", AnsiColors::Yellow),
        };
        let word = session.output.paint(word, colour);
        text += &format!("{word}{:9}{}\n", it.check, it.found);
        if let Some(mend) = &it.mend {
            text += &format!("        {:9}{mend}\n", "mend:");
        }
    }
    text
}

/// All checks, in the order in which one should mend.
pub fn diagnose(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(machine) = &facts.machine {
        check_machine(machine, &mut checks);
    }
    match &facts.agent {
        Ok(agent) => {
            check_agent(&agent.status, &mut checks);
            check_mtu(agent, &mut checks);
            check_peers(agent, &mut checks);
            check_clocks(&agent.hosts, &mut checks);
            check_versions(facts, agent, &mut checks);
        }
        Err(why) => {
            checks.push(problem(
                "weftd",
                format!("it doesn't answer: {why}"),
                "systemctl restart weftd; journalctl -u weftd -n 50",
            ));
            for check in ["store", "mtu", "peers", "clock", "versions"] {
                checks.push(unknown(check, "weftd would know"));
            }
        }
    }
    checks
}

fn ok(check: &'static str, found: impl Into<String>) -> Check {
    Check {
        check,
        outcome: Outcome::Ok,
        found: found.into(),
        mend: None,
    }
}

fn unknown(check: &'static str, found: impl Into<String>) -> Check {
    Check {
        outcome: Outcome::Unknown,
        ..ok(check, found)
    }
}

fn problem(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Check {
    Check {
        outcome: Outcome::Problem,
        mend: Some(mend.into()),
        ..ok(check, found)
    }
}

fn check_machine(machine: &Machine, checks: &mut Vec<Check>) {
    let kernel = &machine.kernel;
    checks.push(match version_of(kernel) {
        None => unknown(
            "kernel",
            format!("its version {kernel:?} has no form that is known"),
        ),
        Some(version) if version < KERNEL_MIN => problem(
            "kernel",
            format!("Linux {kernel} is older than 6.1"),
            "apt-get install linux-image-amd64 && reboot",
        ),
        Some(version) if version < KERNEL_WITH_TCX => ok(
            "kernel",
            format!("Linux {kernel}: programs attach by clsact"),
        ),
        Some(_) => ok("kernel", format!("Linux {kernel}: programs attach by TCX")),
    });
    checks.push(if machine.is_bpffs_mounted {
        ok("bpffs", "mounted on /sys/fs/bpf")
    } else {
        problem(
            "bpffs",
            "nothing is mounted on /sys/fs/bpf: what is pinned is lost with weftd",
            "mount -t bpf bpf /sys/fs/bpf",
        )
    });
    checks.push(match machine.jit.as_deref() {
        Some("0") => problem(
            "jit",
            "BPF programs are interpreted: forwarding is several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => ok("jit", "BPF programs are compiled"),
        None => unknown("jit", "net.core.bpf_jit_enable can't be read"),
    });
}

/// "6.18.5-amd64" as (6, 18).
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What `weft status` says, with commands. Peers have checks of their own.
fn check_agent(status: &Status, checks: &mut Vec<Check>) {
    checks.push(ok(
        "weftd",
        format!(
            "{} on host {}, up for {} s",
            status.version, status.host, status.uptime_secs
        ),
    ));
    let store = &status.store;
    if store.connected {
        checks.push(ok(
            "store",
            format!("{}, revision {}", store.url, status.revision),
        ));
    }
    for text in &status.problems {
        let Some((check, mend)) = mend_of(text, status) else {
            continue;
        };
        checks.push(problem(check, text, mend));
    }
}

/// The check that a problem of `weft status` belongs to, and what mends it; none for those of peers.
fn mend_of(text: &str, status: &Status) -> Option<(&'static str, String)> {
    let host = &status.host;
    let word = |number| text.split(' ').nth(number).unwrap_or_default().to_owned();
    if text.starts_with("store ") {
        let url = &status.store.url;
        let there = url.rsplit("://").next().unwrap_or(url);
        let mend = if url.starts_with("embedded:") {
            "systemctl restart weftd; journalctl -u weftd -n 50".to_owned()
        } else {
            format!("at {there}: systemctl restart weftd")
        };
        return Some(("store", mend));
    }
    if let Some(interface) = down_underlay(text) {
        return Some(("underlay", set_up(interface)));
    }
    if text.starts_with("underlay interface ") && text.contains(" has no carrier") {
        let mend = format!("ethtool {}, and mend the cable or switch at it", word(2));
        return Some(("underlay", mend));
    }
    if text.starts_with("underlay interface ") {
        let mend = format!(
            "ip link set dev {} up, or mend [underlay] interfaces in weftd.toml",
            word(2)
        );
        return Some(("underlay", mend));
    }
    if text.starts_with("port ") && text.contains("): its interface ") {
        let interface = word(3).trim_end_matches("):").to_owned();
        if text.ends_with(" is down") {
            return Some(("ports", set_up(&interface)));
        }
        if text.contains(" has no carrier") {
            let mend =
                format!("start the workload at {interface}; inside it: ip link set dev DEV up");
            return Some(("ports", mend));
        }
    }
    if text.starts_with("port ") {
        return Some((
            "ports",
            format!("weft port unbind {}, or make the interface", word(1)),
        ));
    }
    if text.starts_with(&format!("host {host} ")) {
        let mend = format!(
            "echo '{{weft: v1, hosts: {{{host}: {{zones: {{default: ADDRESS}}}}}}}}' | weft apply -f -"
        );
        return Some(("topology", mend));
    }
    if text.starts_with("host ") {
        return None;
    }
    Some(("weftd", "journalctl -u weftd -n 50".to_owned()))
}

/// The interface of "underlay interface eth0 is down".
fn down_underlay(problem: &str) -> Option<&str> {
    let name = problem.strip_prefix("underlay interface ")?;
    name.strip_suffix(" is down")
}

fn set_up(interface: &str) -> String {
    format!("ip link set dev {interface} up")
}

/// Whether what a workload may send fits every tunnel.
fn check_mtu(agent: &Agent, checks: &mut Vec<Check>) {
    let narrowest = agent.hosts.iter().filter_map(|host| {
        let carried = host.mtu_limit.or(host.mtu)?;
        Some((carried.saturating_sub(tunnel_len(host)), host))
    });
    let Some((fits, peer)) = narrowest.min_by_key(|(fits, _)| *fits) else {
        return checks.push(unknown("mtu", "no way to another host is known"));
    };
    let before = checks.len();
    let active = agent
        .ports
        .iter()
        .filter(|it| it.state == PortState::Active);
    for port in active {
        let (Some(mtu), Some(interface)) = (port.mtu, &port.interface) else {
            continue;
        };
        if mtu > fits {
            checks.push(problem(
                "mtu",
                format!(
                    "port {} ({interface}) has MTU {mtu}, of which {fits} fit a tunnel to {}",
                    port.name, peer.host
                ),
                format!("ip link set dev {interface} mtu {fits}, and the same inside the workload"),
            ));
        }
    }
    if checks.len() == before {
        checks.push(ok(
            "mtu",
            format!(
                "workloads' packets fit; at most {fits} do, to {}",
                peer.host
            ),
        ));
    }
}

fn tunnel_len(host: &HostInfo) -> u32 {
    let is_v6 = host.address.as_ref().is_some_and(|it| it.contains(':'));
    if is_v6 { TUNNEL_LEN_V6 } else { TUNNEL_LEN_V4 }
}

fn check_peers(agent: &Agent, checks: &mut Vec<Check>) {
    let before = checks.len();
    let mut up = 0;
    for host in &agent.hosts {
        let peer = agent.status.peers.iter().find(|it| it.host == host.host);
        match host.state {
            HostState::Local | HostState::Unmanaged => {}
            HostState::Up => up += 1,
            HostState::Unknown => checks.push(unknown("peers", unknown_peer(host))),
            HostState::Degraded | HostState::Down => checks.push(problem(
                "peers",
                host.problem
                    .clone()
                    .unwrap_or_else(|| format!("host {}", host.host)),
                match agent
                    .status
                    .problems
                    .iter()
                    .find_map(|it| down_underlay(it))
                {
                    Some(interface) if peer.is_none_or(|it| it.state != "resolved") => {
                        set_up(interface)
                    }
                    _ => mend_of_peer(host, peer),
                },
            )),
        }
        let is_reached = matches!(host.state, HostState::Up | HostState::Degraded);
        if let Some(secs) = silence(host).filter(|_| is_reached) {
            checks.push(problem(
                "peers",
                format!(
                    "host {}: its kernel answers, its weftd is silent for {secs} s",
                    host.host
                ),
                format!("on {}: systemctl restart weftd", host.host),
            ));
        }
    }
    if checks.len() == before {
        checks.push(ok("peers", format!("{up} of {up} other hosts answer")));
    }
}

fn unknown_peer(host: &HostInfo) -> String {
    match host.address {
        Some(_) => format!("host {}: no probe has been answered or lost yet", host.host),
        None => format!("host {} has no address in the tunnel zone", host.host),
    }
}

fn silence(host: &HostInfo) -> Option<u64> {
    let secs = host.agent.as_ref()?.heard_secs_ago;
    (secs > SILENCE_SECS_MAX).then_some(secs)
}

fn mend_of_peer(host: &HostInfo, peer: Option<&PeerInfo>) -> String {
    let address = host.address.as_deref().unwrap_or("ADDRESS");
    let interface = peer
        .and_then(|peer| peer.interface.as_deref())
        .unwrap_or("INTERFACE");
    let state = peer.map_or("", |peer| peer.state.as_str());
    match (host.state, host.mtu_limit, state) {
        (HostState::Degraded, Some(limit), _) => {
            format!(
                "raise the MTU on the way to {address}, or: ip link set dev {interface} mtu {limit}"
            )
        }
        (HostState::Degraded, None, _) => {
            format!("mtr -n {address}, and mend the link that loses packets")
        }
        (_, _, "unreachable") => format!("ip route add {address} via GATEWAY"),
        (_, _, "resolving") => {
            format!("ip link set dev {interface} up; ip neigh flush dev {interface}")
        }
        _ => format!(
            "on {}: systemctl restart weftd (if ping -c 3 {address} fails here: mend the network between, which must \
             let IP protocol 47 through)",
            host.host
        ),
    }
}

fn check_clocks(hosts: &[HostInfo], checks: &mut Vec<Check>) {
    let mut heard = heard(hosts).peekable();
    if heard.peek().is_none() {
        return checks.push(unknown("clock", "no other weftd was heard"));
    }
    let before = checks.len();
    for (host, agent) in heard {
        let offset = agent.clock_offset_ms;
        if offset.unsigned_abs() <= CLOCK_OFFSET_MS_MAX {
            continue;
        }
        let word = if offset > 0 { "ahead of" } else { "behind" };
        let secs = offset.unsigned_abs() as f64 / 1e3;
        checks.push(problem(
            "clock",
            format!(
                "the clock of host {} is {secs:.1} s {word} this one's",
                host.host
            ),
            format!(
                "on {} or here, whichever is wrong: chronyc makestep",
                host.host
            ),
        ));
    }
    if checks.len() == before {
        checks.push(ok("clock", "the hosts' clocks agree to within a second"));
    }
}

fn check_versions(facts: &Facts, agent: &Agent, checks: &mut Vec<Check>) {
    let own = &agent.status;
    let before = checks.len();
    if facts.version != own.version {
        checks.push(problem(
            "versions",
            format!("weft is {}, weftd {}", facts.version, own.version),
            "install the same version of both, then: systemctl restart weftd",
        ));
    }
    for (host, heard) in heard(&agent.hosts) {
        if (&heard.version, heard.abi) != (&own.version, own.abi) {
            checks.push(problem(
                "versions",
                format!(
                    "host {} runs weftd {} (abi {}), this one {} (abi {})",
                    host.host, heard.version, heard.abi, own.version, own.abi
                ),
                "install the same version on both, then: systemctl restart weftd",
            ));
        }
    }
    if checks.len() == before {
        let found = format!("all are {} (abi {})", own.version, own.abi);
        checks.push(ok("versions", found));
    }
}

fn heard(hosts: &[HostInfo]) -> impl Iterator<Item = (&HostInfo, &AgentHeard)> {
    hosts
        .iter()
        .filter_map(|host| Some((host, host.agent.as_ref()?)))
}

#[cfg(test)]
mod tests;
