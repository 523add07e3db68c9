//! One run of one scenario: its id, its network, its end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use super::evidence;
use super::network::{Network, Underlay};
use super::run_id::RunId;
use super::sweep;

/// What a scenario has: an id that nobody else has, and at most one network.
pub struct Run {
    id: RunId,
    network: Option<Network>,
}

impl Run {
    /// A run with an id of its own, after what dead runs left was swept (once per process).
    pub fn start() -> Result<Run> {
        static PREPARED: OnceLock<Result<(), String>> = OnceLock::new();
        PREPARED
            .get_or_init(|| prepare().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(|error| anyhow!(error))?;
        Ok(Run {
            id: RunId::claim()?,
            network: None,
        })
    }

    /// Its id.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Two hosts in different subnets with a router between them; their agents answer.
    pub fn two_hosts(&mut self) -> Result<&mut Network> {
        self.hosts(Underlay::Routed, 2)
    }

    /// Some hosts; their agents answer.
    pub fn hosts(&mut self, underlay: Underlay, hosts: u8) -> Result<&mut Network> {
        let network = self.hosts_without_agents(underlay, hosts)?;
        network.start_agents()?;
        Ok(network)
    }

    /// Some hosts on which no agent runs yet.
    pub fn hosts_without_agents(&mut self, underlay: Underlay, hosts: u8) -> Result<&mut Network> {
        let network = Network::build(&self.id, underlay, hosts, true)?;
        Ok(self.network.insert(network))
    }

    /// Some hosts whose agents answer, and whose frames nobody watches: for loads that would keep the watchers
    /// busier than what is tested. The scenario counts what arrives by itself.
    pub fn unwatched_hosts(&mut self, underlay: Underlay, hosts: u8) -> Result<&mut Network> {
        let network = Network::build(&self.id, underlay, hosts, false)?;
        let network = self.network.insert(network);
        network.start_agents()?;
        Ok(network)
    }

    /// What a scenario must also have shown when its own steps passed: agents that still run, and no frame that
    /// nobody expected.
    fn check(&mut self) -> Result<()> {
        let Some(network) = &mut self.network else {
            return Ok(());
        };
        let unexpected = network.unexpected();
        for host in network.hosts_mut() {
            host.check_agent()?;
        }
        if !unexpected.is_empty() {
            bail!(
                "frames arrived that nobody expected:\n    {}",
                unexpected.join("\n    ")
            );
        }
        Ok(())
    }

    /// Ends everything of the run.
    fn take_down(mut self) -> Result<()> {
        self.network = None;
        sweep::take_down(&self.id)
    }
}

/// What a scenario function may return.
pub trait Verdict {
    /// The same as a result.
    fn into_result(self) -> Result<()>;
}

impl Verdict for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl Verdict for Result<()> {
    fn into_result(self) -> Result<()> {
        self
    }
}

/// Runs a scenario and panics if it fails, or the checks at its end do. `#[scenario]` calls this.
pub fn run_scenario(module: &str, name: &str, scenario: impl FnOnce(&mut Run) -> Result<()>) {
    let area = module.rsplit("::").next().unwrap_or(module);
    if let Err(error) = try_scenario(&format!("{area}::{name}"), scenario) {
        panic!("{area}::{name}: {error:#}");
    }
}

fn try_scenario(name: &str, scenario: impl FnOnce(&mut Run) -> Result<()>) -> Result<()> {
    let mut run = Run::start()?;
    let caught = catch_unwind(AssertUnwindSafe(|| scenario(&mut run)));
    let steps = caught.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(&*panic))));
    let checks = run.check();
    let result = match (steps, checks) {
        (Err(error), Err(more)) => Err(anyhow!("{error:#}\n  and {more:#}")),
        (steps, checks) => steps.and(checks),
    };
    let result = result.map_err(|error| {
        let evidence = evidence::keep(&run.id, run.network.as_ref(), &name.replace("::", "-"));
        let kept =
            evidence.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        anyhow!("{error:#}\n  logs and captures: {kept}")
    });
    let down = run.take_down();
    result.and(down)
}

/// A place for pins, and nothing left of dead runs. Each process calls it once, before its first run.
pub fn prepare() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("network namespaces are made by root: run this as root");
    }
    sweep::mount_bpffs()?;
    for id in sweep::sweep_dead_runs().context("sweeping what dead runs left")? {
        eprintln!("took down run {id}, whose process is gone");
    }
    Ok(())
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}
