//! The BPF file system: mounted when it isn't, and the folder that holds this agent's pins.

use crate::Error;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;
use std::fs::File;
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const MOUNT_POINT: &str = "/sys/fs/bpf";
/// An empty folder in the folder of folders of pins: an agent made that one, and the last to be released removes it.
const MADE: &str = "made-by-weftd";

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
    if let Some(parent) = path.parent().filter(|parent| *parent == default_parent()) {
        make_parent(parent)
            .map_err(|source| Error::io(format!("making {}", parent.display()), source))?;
    }
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

/// The folder that folders of pins are in by default.
fn default_parent() -> PathBuf {
    Path::new(MOUNT_POINT).join("weft")
}

/// Makes the folder that folders of pins are in, and notes that in it. One that was there stays somebody else's.
fn make_parent(folder: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(folder) {
        Ok(()) => std::fs::create_dir(folder.join(MADE)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the folder that folders of pins are in by default, with the last of those, if an agent made it.
pub fn remove_parent(folder: Option<&Path>) {
    if let Some(folder) = folder.filter(|folder| *folder == default_parent()) {
        remove_made(folder);
    }
}

fn remove_made(folder: &Path) {
    if names(folder) == [MADE] {
        let _ = std::fs::remove_dir(folder.join(MADE));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_an_agent_made_goes_with_its_last_pins() {
        let root = std::env::temp_dir().join(format!("weft-bpffs-{}", std::process::id()));
        std::fs::create_dir(&root).unwrap();
        let (found, made) = (root.join("found"), root.join("made"));
        std::fs::create_dir(&found).unwrap();
        for folder in [&found, &made] {
            make_parent(folder).unwrap();
            make_parent(folder).unwrap();
            make(&folder.join("h1")).unwrap();
            remove_made(folder);
            assert!(folder.join("h1").exists(), "in use");
            remove(&folder.join("h1")).unwrap();
            remove_made(folder);
        }
        assert_eq!((found.exists(), made.exists()), (true, false));
        assert_eq!(names(&found), Vec::<String>::new());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
