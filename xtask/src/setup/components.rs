//! rustfmt and clippy, which a minimal toolchain lacks.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};

use crate::workspace::{cargo, run_on_stderr};

const HOW: &str = "`rustup component add rustfmt clippy`";

pub fn plan() -> Option<String> {
    let there = ["fmt", "clippy"].iter().all(|name| has_subcommand(name));
    (!there).then(|| format!("install rustfmt and clippy: {HOW}"))
}

pub fn install() -> Result<()> {
    if !rustup_may_install() {
        bail!(
            "this toolchain has no rustfmt or no clippy, and there is no rustup that may install: {HOW}"
        );
    }
    run_on_stderr(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
        .context("fmt and lint need rustfmt and clippy")
}

/// Whether there is a rustup that nobody has told to install nothing.
pub fn rustup_may_install() -> bool {
    let forbidden = std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0");
    !forbidden && succeeds(Command::new("rustup").arg("--version"))
}

fn has_subcommand(name: &str) -> bool {
    succeeds(cargo().args([name, "--version"]))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
