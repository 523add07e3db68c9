//! The command `weft` as a person runs it, against one agent, and the parts of its JSON that scenarios read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

use super::process::{self, Finished};

/// A call takes 10 ms; a busy machine and a transaction in the store's file take longer.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// `weft --endpoint unix:SOCKET`.
#[derive(Clone, Debug)]
pub struct Weft {
    program: PathBuf,
    endpoint: String,
}

/// A line of `weft ports -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct PortLine {
    /// Its tenant.
    pub tenant: String,
    /// `BRIDGE/PORT`.
    pub name: String,
    /// Host that it is bound on.
    pub host: Option<String>,
    /// `active`, `waiting`, `unbound`, `down` or `remote`.
    pub state: String,
    /// Its tunnel key as `INDEX.GENERATION`.
    pub key: Option<String>,
    /// The same as a GRE key.
    pub tunnel_key: Option<u32>,
    /// Frames that its workload sent.
    pub ingress_packets: u64,
    /// Frames that its workload got.
    pub egress_packets: u64,
    /// Packets of its workload that were dropped.
    pub drops: u64,
    /// What keeps it from being active.
    pub problem: Option<String>,
}

/// A line of `weft drops -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct DropLine {
    /// The port, where one was found.
    pub port: Option<String>,
    /// The reason's name.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}

/// A line of `weft flows -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct FlowLine {
    /// Ingress port.
    pub port: String,
    /// What it matches, for people.
    #[serde(rename = "match")]
    pub matches: String,
    /// Bits of each header field that it looks at.
    pub mask_bits: BTreeMap<String, u32>,
    /// What it does, for people.
    pub actions: String,
    /// Packets that took it.
    pub packets: u64,
    /// What the decision depended on.
    pub tags: Vec<String>,
}

/// The parts of `weft status -o json` that scenarios read.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Revision of the topology that the agent decides by.
    pub revision: u64,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why.
    pub problems: Vec<String>,
    /// Packets that came up without a flow.
    pub misses: u64,
    /// Installed flows.
    pub flows: u64,
    /// Flows that had to make room for others.
    pub evicted: u64,
    /// What the audit found.
    pub audit: Audit,
    /// Other hosts.
    pub peers: Vec<Peer>,
}

/// The audit in `weft status -o json`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Audit {
    /// How often all was gone through.
    pub rounds: u64,
    /// What differed in the last round.
    pub drift: u64,
    /// What was mended.
    pub repaired: u64,
}

/// Another host in `weft status -o json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Its name.
    pub host: String,
    /// `resolved`, `resolving` or `unreachable`.
    pub state: String,
}

/// The parts of `weft hosts -o json` that scenarios read.
#[derive(Clone, Debug, Deserialize)]
pub struct HostLine {
    /// Its name.
    pub host: String,
    /// `local`, `unknown`, `up`, `degraded` or `down`.
    pub state: String,
    /// Probes of the last minute that were answered or lost.
    pub probes: u32,
    /// Those that were lost.
    pub lost: u32,
    /// Mean round trip.
    pub rtt_avg_us: Option<u64>,
    /// What the way should carry.
    pub mtu: Option<u32>,
    /// Largest packet that came through.
    pub mtu_carried: Option<u32>,
    /// What the way carries, when that is less.
    pub mtu_limit: Option<u32>,
    /// What its agent says of itself.
    pub agent: Option<AgentHeard>,
    /// What is wrong.
    pub problem: Option<String>,
}

/// What another agent said.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentHeard {
    /// Its version.
    pub version: String,
    /// Seconds since it was heard.
    pub heard_secs_ago: u64,
    /// Its clock less the asked host's.
    pub clock_offset_ms: i64,
}

impl Weft {
    /// The command against the agent that listens on a unix socket.
    pub fn new(socket: &Path) -> Result<Weft> {
        let endpoint = format!("unix:{}", socket.display());
        Ok(Weft {
            program: binary("weft", "WEFT_BIN")?,
            endpoint,
        })
    }

    /// Runs it, whatever its exit status will be. Arguments as typed after `weft --endpoint ...`.
    pub fn run(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(&self.program);
        command.args(["--endpoint", &self.endpoint]).args(arguments);
        process::run(command, CALL_LIMIT)
    }

    /// Runs it and returns what it prints; it must succeed.
    pub fn text(&self, arguments: &[&str]) -> Result<String> {
        self.run(arguments)?.success()
    }

    /// Runs it with `-o json` and reads what it prints. Exit status 3 (degraded, or different) is fine.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let done = self.run(&[&["-o", "json"], arguments].concat())?;
        if !done.status.success() && done.status.code() != Some(3) {
            bail!("{}", done.describe());
        }
        serde_json::from_str(&done.stdout).with_context(|| done.describe())
    }

    /// `weft ports`.
    pub fn ports(&self) -> Result<Vec<PortLine>> {
        self.json(&["ports"])
    }

    /// The line of `weft ports` for one port of a tenant.
    pub fn port(&self, tenant: &str, name: &str) -> Result<PortLine> {
        let ports = self.ports()?;
        let found = ports
            .into_iter()
            .find(|port| port.tenant == tenant && port.name == name);
        found.with_context(|| format!("`weft ports` doesn't show {tenant} {name}"))
    }

    /// `weft flows`.
    pub fn flows(&self) -> Result<Vec<FlowLine>> {
        self.json(&["flows"])
    }

    /// The line of `weft hosts` for a host.
    pub fn host(&self, name: &str) -> Result<HostLine> {
        let hosts: Vec<HostLine> = self.json(&["hosts"])?;
        let found = hosts.into_iter().find(|line| line.host == name);
        found.with_context(|| format!("`weft hosts` doesn't show {name}"))
    }

    /// `weft status`.
    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    /// Packets that this host dropped so far, by reason.
    pub fn all_drops(&self) -> Result<BTreeMap<String, u64>> {
        let drops: Vec<DropLine> = self.json(&["drops"])?;
        let mut all = BTreeMap::new();
        for line in drops {
            *all.entry(line.reason).or_default() += line.packets;
        }
        Ok(all)
    }

    /// Packets that this host dropped for a reason so far.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let drops: Vec<DropLine> = self.json(&["drops"])?;
        Ok(drops
            .iter()
            .filter(|line| line.reason == reason)
            .map(|line| line.packets)
            .sum())
    }
}

/// A binary of the product: where the variable says, or in the workspace's `target/release`.
pub fn binary(name: &str, variable: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => target_folder().join("release").join(name),
    };
    if !path.is_file() {
        bail!(
            "there is no {}: `cargo xtask test net` and `cargo xtask demo` build what they need, or {variable} \
             names a binary",
            path.display()
        );
    }
    Ok(path)
}

/// Cargo's target directory.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"),
        PathBuf::from,
    )
}
