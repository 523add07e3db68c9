//! cargo-fuzz in the cache folder.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{cache_dir, cargo, run};

const VERSION: &str = "0.13.1";

/// Where it is (or will be): an absolute path, so that nobody's PATH matters.
pub fn path() -> Result<PathBuf> {
    Ok(cache_dir()?.join("bin/cargo-fuzz"))
}

pub fn plan() -> Result<Option<String>> {
    if works(&path()?) {
        return Ok(None);
    }
    let root = cache_dir()?;
    Ok(Some(format!(
        "compile cargo-fuzz {VERSION} from crates.io into {} (about a minute)",
        root.display()
    )))
}

pub fn install() -> Result<()> {
    let root = cache_dir()?;
    std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let mut install = cargo();
    install
        .args(["install", "cargo-fuzz", "--version", VERSION])
        .args(["--locked", "--force", "--quiet", "--root"])
        .arg(&root)
        // From there, no project's .cargo/config.toml has a say.
        .current_dir(&root)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    run(&mut install).context("cargo-fuzz could not be built")?;
    let path = path()?;
    if !works(&path) {
        bail!(
            "{} was built, but doesn't run as version {VERSION}",
            path.display()
        );
    }
    Ok(())
}

fn works(path: &Path) -> bool {
    let output = Command::new(path).args(["fuzz", "--version"]).output();
    output.is_ok_and(|output| {
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(VERSION)
    })
}
