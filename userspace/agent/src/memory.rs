//! What weftd remembers on disk of the store that it saw, so that it can decide without one, and knows one that went
//! back; and which tunnel keys it gave out, so that none comes back too early after the kernel forgot.
//!
//! One file, replaced at once; a damaged or foreign one counts as none. Written by the runtime, read at the start.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use weft_api::Contents;

/// Version of the file.
const FORMAT: u32 = 1;
/// Most bytes of the file.
const BYTES_MAX: u64 = 256 << 20;

/// The file's content.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Remembered {
    format: u32,
    /// Where the store is.
    pub url: String,
    /// What it held when it was seen last.
    pub contents: Contents,
    /// The last generation that each index of a tunnel key was given out with.
    pub generations: BTreeMap<u16, u8>,
}

impl Remembered {
    /// What there is to remember of a store.
    pub fn new(url: String, contents: Contents, generations: BTreeMap<u16, u8>) -> Remembered {
        Remembered {
            format: FORMAT,
            url,
            contents,
            generations,
        }
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct Memory {
    path: PathBuf,
}

impl Memory {
    /// The file of a host in a folder.
    pub fn new(folder: &Path, host: &str) -> Memory {
        Memory {
            path: folder.join(format!("{host}.remembered.json")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; none when there is none, or when what is there can't be used, which the log says.
    pub fn load(&self) -> Option<Remembered> {
        match self.read() {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "nothing is remembered of the store"
                );
                None
            }
        }
    }

    fn read(&self) -> anyhow::Result<Option<Remembered>> {
        let what = || format!("reading {}", self.path.display());
        let file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.with_context(what)?,
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut text)
            .with_context(what)?;
        ensure!(text.len() as u64 <= BYTES_MAX, "{}: too long", what());
        let remembered: Remembered = serde_json::from_slice(&text).with_context(what)?;
        let found = remembered.format;
        ensure!(
            found == FORMAT,
            "{}: expected format {FORMAT}, found {found}",
            what()
        );
        Ok(Some(remembered))
    }

    /// Replaces it: whoever reads finds the old or the new content, whole, also after a crash.
    ///
    /// # Errors
    /// A full disk, and the like; the old content stays.
    pub fn save(&self, remembered: &Remembered) -> anyhow::Result<()> {
        let text = serde_json::to_vec(remembered)?;
        ensure!(
            text.len() as u64 <= BYTES_MAX,
            "the topology takes {} bytes, at most {BYTES_MAX} are remembered",
            text.len()
        );
        let new = self.path.with_extension("new");
        let written = self.write(&new, &text);
        if written.is_err() {
            // It would take room that may be missing.
            let _ = std::fs::remove_file(&new);
        }
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    fn write(&self, new: &Path, text: &[u8]) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::File::create(new)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(new, &self.path)?;
        std::fs::File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_counts_as_nothing() {
        let folder = std::env::temp_dir().join(format!("weft-memory-{}", std::process::id()));
        let memory = Memory::new(&folder.join("deeper"), "h1");
        assert!(memory.load().is_none());
        let generations = BTreeMap::from([(3, 7)]);
        let remembered = Remembered::new("embedded:/s".into(), Contents::default(), generations);
        memory.save(&remembered).unwrap();
        let loaded = memory.load().unwrap();
        assert_eq!(
            (loaded.url, loaded.generations),
            (remembered.url.clone(), remembered.generations.clone())
        );
        std::fs::write(memory.path(), "{").unwrap();
        assert!(memory.load().is_none());
        let foreign = Remembered {
            format: 9,
            ..remembered
        };
        memory.save(&foreign).unwrap();
        assert!(memory.load().is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
