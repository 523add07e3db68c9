//! Taking runs down by their id alone: processes, pins, namespaces, state, and last the marker.
//!
//! Every run ends this way, and begins by doing the same for runs whose process is dead. Keeps no state.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::namespace::NETNS_ROOT;
use super::process::{self, ProcessId};
use super::run_id::{self, PIN_ROOT, RunId, STATE_ROOT};
use super::wait;

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";
const IP_LIMIT: Duration = Duration::from_secs(10);

/// Takes down every run whose process is dead and that nobody wanted to keep; returns their ids.
pub fn sweep_dead_runs() -> Result<Vec<RunId>> {
    let _lock = run_id::lock()?;
    let mut swept = Vec::new();
    for id in run_id::all()? {
        if !id.is_alive() && !id.is_kept() {
            take_down(&id)?;
            swept.push(id);
        }
    }
    Ok(swept)
}

/// Removes everything that carries the run's id. What is gone already is no error; the first thing that
/// can't be removed is the error, after all else was tried, and the marker stays for the next sweep.
pub fn take_down(id: &RunId) -> Result<()> {
    let mut results = Vec::new();
    results.extend(
        process::recorded(&id.folder())
            .into_iter()
            .map(ProcessId::kill),
    );
    let namespaces = names_with_prefix(Path::new(NETNS_ROOT), &id.namespace_prefix());
    results.extend(namespaces.iter().map(|name| end_processes_in(name)));
    for pins in paths_with_prefix(Path::new(PIN_ROOT), &id.host_prefix()) {
        results.push(remove_folder(&pins));
    }
    results.extend(namespaces.iter().map(|name| remove_namespace(name)));
    for state in paths_with_prefix(Path::new(STATE_ROOT), &id.host_prefix()) {
        results.push(remove_folder(&state));
    }
    results
        .into_iter()
        .collect::<Result<()>>()
        .with_context(|| format!("taking down run {id}"))?;
    remove_folder(&id.folder())
}

/// Takes a run down when it is dropped, also while a panic unwinds.
#[derive(Debug)]
pub struct TakeDown {
    id: RunId,
    program: &'static str,
    armed: bool,
}

impl TakeDown {
    /// Of this run; `program` is who says so if it fails.
    pub fn of(id: &RunId, program: &'static str) -> TakeDown {
        TakeDown {
            id: id.clone(),
            program,
            armed: true,
        }
    }

    /// Leaves the run up.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for TakeDown {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        wait::forget_interrupt();
        if let Err(error) = take_down(&self.id).context("cleaning up") {
            eprintln!("{}: {error:#}", self.program);
        }
    }
}

/// Whether anything that carries the id is left: a list for the person who asks.
pub fn leftovers(id: &RunId) -> Vec<String> {
    let mut left = names_with_prefix(Path::new(NETNS_ROOT), &id.namespace_prefix());
    let processes = process::recorded(&id.folder())
        .into_iter()
        .filter(|process| process.is_alive());
    left.extend(processes.map(|process| format!("process {process}")));
    for (root, prefix) in [(PIN_ROOT, id.host_prefix()), (STATE_ROOT, id.host_prefix())] {
        let paths = paths_with_prefix(Path::new(root), &prefix);
        left.extend(paths.into_iter().map(|path| path.display().to_string()));
    }
    left.extend(
        id.folder()
            .exists()
            .then(|| id.folder().display().to_string()),
    );
    left
}

/// Mounts bpffs on `/sys/fs/bpf` if it isn't.
pub fn mount_bpffs() -> Result<()> {
    let _lock = run_id::lock()?;
    if statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(
        Some("bpffs"),
        BPFFS,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("cannot mount bpffs on {BPFFS} (are you root?)"))
}

/// Ends what runs inside a namespace of ours and isn't in the records: a command's child, for example.
fn end_processes_in(namespace: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["netns", "pids", namespace]);
    let shown = process::run(ip, IP_LIMIT)?.success()?;
    let this = i32::try_from(std::process::id())?;
    let pids = shown
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    pids.filter(|&pid| pid != this)
        .filter_map(ProcessId::of)
        .try_for_each(ProcessId::kill)
        .with_context(|| format!("in namespace {namespace}"))
}

fn remove_namespace(name: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["netns", "del", name]);
    let done = process::run(ip, IP_LIMIT)?;
    if !done.status.success() && Path::new(NETNS_ROOT).join(name).exists() {
        bail!("{}", done.describe());
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn paths_with_prefix(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    names_with_prefix(folder, prefix)
        .into_iter()
        .map(|name| folder.join(name))
        .collect()
}

fn names_with_prefix(folder: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}
