//! Network namespaces: made and removed by `ip netns`, entered with `setns` (`ip netns exec` would hide bpffs),
//! and their links.
//!
//! A host and a workload each are one. State: the namespace itself, `/run/netns/weft-ID-NAME`.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::packet::Mac;
use super::process;
use super::run_id::{self, RunId};

/// Where iproute2 keeps namespaces.
pub const NETNS_ROOT: &str = "/run/netns";
/// `ip` takes 5 ms; ten times that, on a machine that is busy with other scenarios.
const IP_LIMIT: Duration = Duration::from_secs(10);

/// A network namespace of a run. Dropping it removes nothing: the run is taken down as a whole, by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `weft-ID-NAME`, with `lo` up and without IPv6, whose own traffic would be noise.
    pub fn create(run: &RunId, name: &str) -> Result<Namespace> {
        let namespace = Namespace {
            name: run.namespace(name),
        };
        {
            // The first `ip netns add` of a machine mounts /run/netns, which is not safe side by side.
            let _lock = run_id::lock()?;
            let mut ip = Command::new("ip");
            ip.args(["netns", "add", &namespace.name]);
            process::run(ip, IP_LIMIT)?.success()?;
        }
        namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// One that exists, by its whole name.
    pub fn existing(name: &str) -> Namespace {
        Namespace { name: name.into() }
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands in it, as one batch; the first that fails ends it.
    pub fn ip(&self, commands: &[impl AsRef<str>]) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        let batch: String = commands
            .iter()
            .map(|line| format!("{}\n", line.as_ref()))
            .collect();
        let done = process::run_with_input(ip, &batch, IP_LIMIT)?;
        done.success()
            .map(drop)
            .with_context(|| format!("in {}:\n{batch}", self.name))
    }

    /// A command that will run inside, found in `PATH`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let file = self.open()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing on success.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        Ok(command)
    }

    /// Runs a command inside to its end, and captures what it prints.
    pub fn run(&self, program: &str, args: &[&str], limit: Duration) -> Result<process::Finished> {
        let mut command = self.command(program)?;
        command.args(args);
        process::run(command, limit)
    }

    /// Calls a function on a thread inside: for sockets and devices, which stay there.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = self.open()?;
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                inside()
            });
            entered
                .join()
                .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
    }

    /// Writes a value below `/proc/sys` as it is inside.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.enter(|| {
            let path = Path::new("/proc/sys").join(name);
            fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
        })
    }

    /// An interface's index.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        self.enter(|| {
            nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface} in {}", self.name))
        })
    }

    /// An interface's MAC address.
    pub fn interface_mac(&self, interface: &str) -> Result<Mac> {
        let shown = self
            .run("ip", &["-br", "link", "show", "dev", interface], IP_LIMIT)?
            .success()?;
        let mac = shown.split_whitespace().find_map(|word| word.parse().ok());
        mac.with_context(|| format!("no MAC address in {shown:?}"))
    }

    fn open(&self) -> Result<File> {
        let path = PathBuf::from(NETNS_ROOT).join(&self.name);
        File::open(&path).with_context(|| format!("cannot open {}", path.display()))
    }
}

/// Joins two namespaces by a veth pair, both ends up. Offloads are as the kernel sets them.
pub fn join(one: (&Namespace, &str), other: (&Namespace, &str), mtu: u32) -> Result<()> {
    let (near, near_interface) = one;
    let (far, far_interface) = other;
    let add = format!(
        "link add {near_interface} mtu {mtu} type veth peer name {far_interface} mtu {mtu} netns {}",
        far.name
    );
    near.ip(&[add, format!("link set {near_interface} up")])?;
    far.ip(&[format!("link set {far_interface} up")])
}

/// `ip` commands that give an interface an address and, where there is one, a default gateway.
pub fn address_commands(
    interface: &str,
    address: impl std::fmt::Display,
    gateway: Option<Ipv4Addr>,
) -> Vec<String> {
    let mut commands = vec![format!("addr add {address} dev {interface}")];
    commands.extend(gateway.map(|via| format!("route add default via {via}")));
    commands
}
