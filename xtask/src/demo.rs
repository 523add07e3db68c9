//! `demo`: everything that the demo needs, then the demo itself in this process's place.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use crate::workspace::Workspace;
use crate::{ebpf, setup, test};

#[derive(clap::Args)]
pub struct Args {
    /// For the demo: --keep leaves it up and says how to look around, --json prints results for a machine
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "--keep|--json"
    )]
    args: Vec<String>,
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let start = Instant::now();
    let built_before = ws.release_binary("weftd").exists();
    let installed = setup::need(setup::NETWORK, false)?;
    ebpf::build(ws)?;
    test::build_binaries(ws)?;
    let kind = if installed || !built_before {
        "cold"
    } else {
        "warm"
    };
    let prepared = start.elapsed().as_secs();
    eprintln!("demo: set-up and build took {prepared} s ({kind})");

    let mut demo = Command::new(ws.release_binary("demo"));
    demo.current_dir(&ws.root).args(&args.args);
    demo.env("WEFT_DEMO_PREPARE_SECS", prepared.to_string());
    test::with_binaries(ws, &mut demo);
    // It only returns when the demo could not be started; ctrl-c goes to the demo, which cleans up.
    Err(demo.exec()).context("cannot run the demo")
}
