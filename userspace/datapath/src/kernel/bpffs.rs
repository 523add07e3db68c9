//! The BPF file system: mounted when it isn't, and the folder that holds this agent's pins.

use crate::Error;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;
use std::fs::File;
use std::path::Path;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Mounts bpffs on its usual place when a folder below it is wanted and nothing is mounted there.
pub fn mount_if_absent(pin: &Path) -> Result<(), Error> {
    if !pin.starts_with(MOUNT_POINT) || is_bpffs(Path::new(MOUNT_POINT)) {
        return Ok(());
    }
    mount(
        Some("bpf"),
        MOUNT_POINT,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|source| Error::io(format!("mounting bpffs on {MOUNT_POINT}"), source))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC)
}

/// Makes the folder of pins and keeps every other agent out of it while the lock is held.
///
/// # Errors
/// Names the folder when another process holds it.
pub fn lock(path: &Path) -> Result<Flock<File>, Error> {
    make(path)?;
    let what = |source| Error::io(format!("locking {}", path.display()), source);
    let folder = File::open(path).map_err(what)?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EAGAIN => Error::PinInUse(path.display().to_string()),
        error => what(error.into()),
    })
}

/// Makes a folder of pins.
pub fn make(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path)
        .map_err(|source| Error::io(format!("making {}", path.display()), source))
}

/// Removes a folder of pins and all in it; one that isn't there is no error.
pub fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Gives a folder of pins another name, one that is free. What is in it isn't touched.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to)
        .map_err(|source| Error::io(format!("renaming {}", from.display()), source))
}

/// Removes `weft`, the folder that folders of pins are in by default, with its last one.
pub fn remove_if_empty(folder: Option<&Path>) {
    if let Some(folder) = folder.filter(|folder| *folder == Path::new(MOUNT_POINT).join("weft")) {
        // Refused while anything is in it.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Names of what is in a folder of pins; none when there is no such folder.
pub fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
