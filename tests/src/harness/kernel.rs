//! Which kernel the scenarios run on. No state.

use std::fs;

use anyhow::{Context, Result};

/// The first that attaches programs by TCX.
const WITH_TCX: (u32, u32) = (6, 6);

/// The running kernel's version: major and minor.
///
/// # Errors
/// When the kernel's release begins with anything else.
pub fn version() -> Result<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(|number| number.parse::<u32>());
    Ok((
        numbers.next().context("no version")??,
        numbers.next().context("no version")??,
    ))
}

/// Whether agents attach by TCX here; they add a clsact qdisc and filters otherwise.
///
/// # Errors
/// As [`version`].
pub fn has_tcx() -> Result<bool> {
    Ok(version()? >= WITH_TCX)
}
