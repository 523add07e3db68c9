//! `cargo xtask`: every developer command of Weft, and nothing that ships.
//!
//! Called by developers, by the README's two commands and by `.ci/run`. Progress goes to stderr, so that
//! what a command prints on stdout (`demo --json`, `test --list`, cargo's `test result:` lines) stays clean.

mod bench;
mod ci;
mod demo;
mod ebpf;
mod fuzz;
mod kernels;
mod lint;
mod setup;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Weft's developer commands"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need: bpf-linker, rust-src, Debian packages
    Setup(setup::Args),
    /// Build the kernel programs with BTF into target/weft-ebpf.o, which weftd embeds
    BuildEbpf(ebpf::Args),
    /// Two hosts, four workloads, two agents, on this machine; ends with `demo: ok`
    Demo(demo::Args),
    /// Measure speed beside what else carries packets between hosts: rr, connect, pps
    Bench(bench::Args),
    /// Run the test suites: unit, bpf, net, or all of them; the fuzz targets; or the suites on other kernels
    Test(test::Args),
    /// Check the rules that no compiler checks: crate directions, sizes, links, docs/SCENARIOS.md
    Tidy,
    /// Format the sources
    Fmt(lint::FmtArgs),
    /// clippy and rustdoc, warnings are errors
    Lint,
    /// The whole gate: setup, fmt, lint, tidy, unit, bpf, net, fuzz
    Ci,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = Workspace::find().and_then(|ws| match cli.command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => ebpf::run(&ws, &args),
        Command::Demo(args) => demo::run(&ws, &args),
        Command::Bench(args) => bench::run(&ws, &args),
        Command::Test(args) => test::run(&ws, &args),
        Command::Tidy => tidy::run(&ws),
        Command::Fmt(args) => lint::fmt(&ws, &args),
        Command::Lint => lint::run(&ws),
        Command::Ci => ci::run(&ws),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
