//! A host: a namespace with an underlay interface, and the agent `weftd` in it.
//!
//! State: the agent's process; its configuration, log and store in `/run/weft/ID-NAME`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::namespace::Namespace;
use super::process::{Background, Finished, run, tail};
use super::run_id::RunId;
use super::wait;
use super::weft::{Weft, binary};

/// A host's only interface into the underlay.
pub const UNDERLAY_INTERFACE: &str = "under0";
/// Port of the API that other hosts use.
pub const API_PORT: u16 = 7443;
/// An agent answers 0.3 s after its start, and is gone 0.2 s after SIGTERM.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A namespace in which an agent runs, or could.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    address: Ipv4Addr,
    state: PathBuf,
    pins: PathBuf,
    run_folder: PathBuf,
    agent: Option<Background>,
}

/// Whose store a host's agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A file of its own, served to other hosts.
    OwnAndServed,
    /// That of another host's agent.
    Of(Ipv4Addr),
}

impl Host {
    /// A host in a namespace whose underlay interface has this address, and its agent's configuration.
    pub fn create(
        run: &RunId,
        name: &str,
        namespace: Namespace,
        address: Ipv4Addr,
        store: Store,
    ) -> Result<Host> {
        let host = Host {
            name: name.into(),
            namespace,
            address,
            state: run.state(name),
            pins: run.pins(name),
            run_folder: run.folder(),
            agent: None,
        };
        fs::create_dir_all(&host.state)?;
        host.write_config(&host.config(store))?;
        Ok(host)
    }

    /// Its name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its address in the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The agent's configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.state.join("weftd.toml")
    }

    /// The agent's log.
    pub fn log_path(&self) -> PathBuf {
        self.state.join("weftd.log")
    }

    /// The folder with the agent's configuration, store and memory.
    pub fn state_folder(&self) -> &Path {
        &self.state
    }

    /// Where the agent pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// `weft`, against this host's agent.
    pub fn weft(&self) -> Result<Weft> {
        Weft::new(&self.socket())
    }

    /// The configuration by which the harness runs this host's agent.
    pub fn config(&self, store: Store) -> String {
        let token_file = token_file(&self.run_folder);
        let token_file = token_file.display();
        let (store, listen) = match store {
            Store::OwnAndServed => (
                format!(
                    "url = \"embedded:{}\"",
                    self.state.join("store.redb").display()
                ),
                format!(
                    "listen = \"{}:{API_PORT}\"\ntoken_file = \"{token_file}\"",
                    self.address
                ),
            ),
            Store::Of(other) => (
                format!("url = \"weftd+http://{other}:{API_PORT}\"\ntoken_file = \"{token_file}\""),
                String::new(),
            ),
        };
        format!(
            "host = \"{}\"\n\
             [underlay]\ninterfaces = [\"{UNDERLAY_INTERFACE}\"]\n\
             [store]\n{store}\n\
             [api]\nunix = \"{}\"\n{listen}\n\
             [bpf]\npin = \"{}\"\n\
             [state]\nfolder = \"{}\"\n",
            self.name,
            self.socket().display(),
            self.pins.display(),
            self.state.display()
        )
    }

    /// Replaces the agent's configuration, for its next start.
    pub fn write_config(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.config_path(), text)?)
    }

    /// Adds to the agent's configuration, for its next start.
    pub fn add_config(&self, text: &str) -> Result<()> {
        let config = fs::read_to_string(self.config_path())?;
        self.write_config(&format!("{config}{text}"))
    }

    /// Ids of the programs that pinned links run, as `bpftool` shows them.
    pub fn attached_programs(&self) -> Result<Vec<u64>> {
        self.pinned_ids("links", "link", "prog_id")
    }

    /// Ids of the pinned maps, as `bpftool` shows them.
    pub fn pinned_maps(&self) -> Result<Vec<u64>> {
        self.pinned_ids("maps", "map", "id")
    }

    fn pinned_ids(&self, folder: &str, kind: &str, field: &str) -> Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.pins.join(folder))? {
            let mut command = Command::new("bpftool");
            command
                .args(["-j", kind, "show", "pinned"])
                .arg(entry?.path());
            let shown = run(command, START_LIMIT)?.success()?;
            let shown: serde_json::Value = serde_json::from_str(&shown)?;
            let id = shown[field].as_u64();
            ids.push(id.with_context(|| format!("no {field} in {shown}"))?);
        }
        Ok(ids)
    }

    /// Starts the agent and waits until it answers.
    pub fn start_agent(&mut self) -> Result<()> {
        ensure!(
            self.agent.is_none(),
            "the agent of {} runs already",
            self.name
        );
        let command = self.agent_command(&[])?;
        let agent = Background::start(command, &self.run_folder, &self.log_path())?;
        let agent = self.agent.insert(agent);
        let weft = Weft::new(&self.state.join("weftd.sock"))?;
        let mut ended = Ok(());
        wait::until_ok(&format!("the agent of {}", self.name), START_LIMIT, || {
            ended = agent.check_running();
            if ended.is_err() {
                Ok(())
            } else {
                weft.status().map(drop)
            }
        })
        .with_context(|| tail(&agent.printed(), 20))?;
        ended
    }

    /// Runs the agent to its end with more arguments, or where it is expected to refuse its configuration.
    pub fn run_agent(&self, arguments: &[&str]) -> Result<Finished> {
        run(self.agent_command(arguments)?, START_LIMIT)
    }

    /// Kills the agent with SIGKILL: it cleans up nothing.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("no agent runs")?.kill()
    }

    /// Asks the agent to stop (SIGTERM) and waits until it did, well.
    pub fn stop_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent runs")?;
        agent.check_running()?;
        agent.signal(Signal::SIGTERM)?;
        let status = agent.wait(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "weftd of {} stopped with {status}",
            self.name
        );
        Ok(())
    }

    /// Bytes of memory that the agent holds now (VmRSS of proc(5)).
    pub fn agent_memory(&self) -> Result<u64> {
        let agent = self.agent.as_ref().context("no agent runs")?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: u64 = kib.context("no VmRSS")?.trim().parse()?;
        Ok(kib * 1024)
    }

    /// Waits until the agent ended by itself, well.
    pub fn wait_for_end(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent runs")?;
        let status = agent.wait(STOP_LIMIT)?;
        ensure!(status.success(), "weftd of {} ended: {status}", self.name);
        Ok(())
    }

    /// An error if the agent ended by itself or panicked in a thread.
    pub fn check_agent(&mut self) -> Result<()> {
        if let Some(agent) = &mut self.agent {
            agent
                .check_running()
                .with_context(|| format!("weftd of {}", self.name))?;
        }
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if let Some(at) = log.find("panicked at") {
            bail!("weftd of {} panicked:\n{}", self.name, tail(&log[at..], 20));
        }
        Ok(())
    }

    /// Leaves the agent running when this value is dropped.
    pub fn leave(&mut self) {
        self.agent.iter_mut().for_each(Background::leave);
    }

    fn agent_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(binary("weftd", "WEFTD_BIN")?)?;
        command
            .arg("--config")
            .arg(self.config_path())
            .args(arguments);
        command
            .env("RUST_BACKTRACE", "1")
            .env("RUST_LIB_BACKTRACE", "0");
        Ok(command)
    }

    fn socket(&self) -> PathBuf {
        self.state.join("weftd.sock")
    }
}

/// Where the run's API token is.
pub fn token_file(run_folder: &Path) -> PathBuf {
    run_folder.join("token")
}
