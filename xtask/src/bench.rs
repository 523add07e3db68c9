//! `bench`: everything that the benchmarks need, then the benchmarks themselves in this process's place.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::workspace::Workspace;
use crate::{ebpf, setup, test};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// For the benchmarks: [NAME] [--rounds N] [--json FILE], and what --help lists
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "NAME|--rounds|--json|--help"
    )]
    args: Vec<String>,
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    setup::need(setup::NETWORK, false)?;
    ebpf::build(ws)?;
    test::build_binaries(ws)?;
    // From where the person stands: --json's file is relative to that.
    let mut bench = Command::new(ws.release_binary("bench"));
    bench.args(&args.args);
    test::with_binaries(ws, &mut bench);
    // It only returns when the program could not be started; ctrl-c goes to the benchmarks, which clean up.
    Err(bench.exec()).context("cannot run the benchmarks")
}
