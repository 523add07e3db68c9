//! `fmt` and `lint`: how the code looks, by cargo's own tools.

use anyhow::Result;

use crate::workspace::{Workspace, run as run_command};
use crate::{ebpf, fuzz, setup};

/// Crates whose documentation is read.
const LIBRARIES: &[&str] = &[
    "weft-common",
    "weft-wire",
    "weft-vnet",
    "weft-api",
    "weft-store",
    "weft-datapath",
];

#[derive(clap::Args)]
pub struct FmtArgs {
    /// Change nothing; fail where something would change
    #[arg(long)]
    check: bool,
}

pub fn fmt(ws: &Workspace, args: &FmtArgs) -> Result<()> {
    format(ws, args.check)
}

/// Formats every crate, or only checks.
pub fn format(ws: &Workspace, check: bool) -> Result<()> {
    setup::need(&[setup::Part::Components], false)?;
    for manifest in ["Cargo.toml", fuzz::MANIFEST] {
        let mut command = ws.cargo(["fmt", "--all", "--manifest-path", manifest]);
        if check {
            command.arg("--check");
        }
        run_command(&mut command)?;
    }
    Ok(())
}

/// clippy on everything but the kernel programs, and rustdoc on the libraries.
pub fn run(ws: &Workspace) -> Result<()> {
    setup::need(&[setup::Part::Components], false)?;
    ebpf::build(ws)?;
    run_command(
        ws.cargo([
            "clippy",
            "--workspace",
            "--exclude",
            "weft-ebpf",
            "--all-targets",
        ])
        .args(["--", "-D", "warnings"]),
    )?;
    let packages = LIBRARIES.iter().flat_map(|name| ["--package", name]);
    run_command(
        ws.cargo(["doc", "--no-deps"])
            .args(packages)
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}
