//! Run ids: which names a run uses, and how it claims an id that nobody else has.
//!
//! A run's folder `/run/weft/ID` is its marker. It is made before anything else of the run and removed last, so
//! that whatever carries a run's id belongs to a run with a marker. The file `owner` in it names the process.
//! Used by [`Run`](super::Run), the demo and [`sweep`](super::sweep).

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::process::ProcessId;

/// Where runs and agents keep what ends with them.
pub const STATE_ROOT: &str = "/run/weft";
/// Where agents pin maps, programs and links.
pub const PIN_ROOT: &str = "/sys/fs/bpf/weft";
/// The file in a run's folder that names the process the run belongs to.
const OWNER_FILE: &str = "owner";
/// The file in a run's folder that says: leave this up although its process is gone.
const KEEP_FILE: &str = "keep";

/// Four hex digits, or `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// The id in a folder's name, if it is one: the demo's is `demo`.
    pub fn parse(name: &str) -> Option<RunId> {
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_id = name == "demo" || (name.len() == 4 && name.bytes().all(lower_hex));
        is_id.then(|| RunId(name.into()))
    }

    /// Claims an id that no other run has, for this process.
    pub fn claim() -> Result<RunId> {
        let _lock = lock()?;
        for _ in 0..1000 {
            let random = RandomState::new().build_hasher().finish() as u16;
            let id = RunId(format!("{random:04x}"));
            if id.make_marker()? {
                return Ok(id);
            }
        }
        bail!("no free run id below {STATE_ROOT}")
    }

    /// Claims this very id, which must be free.
    pub fn claim_exactly(&self) -> Result<()> {
        let _lock = lock()?;
        if !self.make_marker()? {
            bail!(
                "the run id {self} is taken: {} exists",
                self.folder().display()
            );
        }
        Ok(())
    }

    /// The run's folder, which is its marker, too.
    pub fn folder(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.0)
    }

    /// Name of a host's or workload's namespace.
    pub fn namespace(&self, name: &str) -> String {
        format!("weft-{self}-{name}")
    }

    /// What every namespace of this run starts with.
    pub fn namespace_prefix(&self) -> String {
        format!("weft-{self}-")
    }

    /// What the folders of this run's hosts start with, below [`STATE_ROOT`] and [`PIN_ROOT`].
    pub fn host_prefix(&self) -> String {
        format!("{self}-")
    }

    /// A host's state folder.
    pub fn state(&self, host: &str) -> PathBuf {
        Path::new(STATE_ROOT).join(format!("{self}-{host}"))
    }

    /// A host's folder of pins.
    pub fn pins(&self, host: &str) -> PathBuf {
        Path::new(PIN_ROOT).join(format!("{self}-{host}"))
    }

    /// Whether the process that claimed the id still runs.
    pub fn is_alive(&self) -> bool {
        fs::read_to_string(self.folder().join(OWNER_FILE))
            .ok()
            .and_then(|text| ProcessId::parse(&text))
            .is_some_and(|owner| owner.is_alive())
    }

    /// Whether the run was left up on purpose.
    pub fn is_kept(&self) -> bool {
        self.folder().join(KEEP_FILE).exists()
    }

    /// Leaves the run up when its process ends: no sweep takes it down.
    pub fn keep(&self) -> Result<()> {
        let file = self.folder().join(KEEP_FILE);
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))
    }

    /// Makes the marker; false if the id is taken. The caller holds the lock, so that no sweep sees a marker
    /// without its owner.
    fn make_marker(&self) -> Result<bool> {
        let folder = self.folder();
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot make {}", folder.display()));
            }
        }
        let owner = ProcessId::of_this_process()?;
        fs::write(folder.join(OWNER_FILE), owner.to_string())?;
        Ok(true)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Every id that has a marker.
pub fn all() -> Result<Vec<RunId>> {
    let Ok(entries) = fs::read_dir(STATE_ROOT) else {
        return Ok(Vec::new());
    };
    let mut ids = Vec::new();
    for entry in entries {
        ids.extend(entry?.file_name().to_str().and_then(RunId::parse));
    }
    Ok(ids)
}

/// One lock for what processes must not do at once: claim ids, sweep, mount.
pub fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(STATE_ROOT).with_context(|| format!("cannot make {STATE_ROOT}"))?;
    let path = Path::new(STATE_ROOT).join("lock");
    let file = File::options().create(true).append(true).open(&path)?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}
