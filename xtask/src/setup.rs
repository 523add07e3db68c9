//! `setup`: what building and testing need beyond cargo itself, in parts that other commands ask for.
//!
//! Each part knows whether it is missing, says what it would do, and does it. A person at a terminal is asked
//! first; `--yes`, the variable `CI`, or a stdin that is no terminal mean yes.

mod apt;
mod components;
mod fuzzer;
mod linker;
mod packages;
mod rust_src;

pub use apt::TemporaryApt;
pub use fuzzer::path as fuzzer_path;
pub use linker::path as linker_path;

use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Write};

#[derive(clap::Args)]
pub struct Args {
    /// Install without asking
    #[arg(long)]
    yes: bool,
}

/// One thing that may have to be installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// bpf-linker, linked to the toolchain's own LLVM.
    Linker,
    /// The standard library's sources, for `-Z build-std=core`.
    RustSrc,
    /// Debian packages with the programs that demo and net tests run.
    Packages,
    /// Debian packages with what boots other kernels.
    Emulator,
    /// rustfmt and clippy.
    Components,
    /// cargo-fuzz.
    Fuzzer,
}

/// What compiling the kernel programs takes.
pub const BUILD: &[Part] = &[Part::Linker, Part::RustSrc];
/// What demo and net tests take.
pub const NETWORK: &[Part] = &[Part::Linker, Part::RustSrc, Part::Packages];
/// What the fuzz targets take: libFuzzer is C++.
pub const FUZZ: &[Part] = &[Part::Packages, Part::Fuzzer];
/// What running the suites on other kernels takes.
pub const KERNELS: &[Part] = &[Part::Linker, Part::RustSrc, Part::Packages, Part::Emulator];
/// Everything.
pub const ALL: &[Part] = &[
    Part::Linker,
    Part::RustSrc,
    Part::Packages,
    Part::Emulator,
    Part::Components,
    Part::Fuzzer,
];

pub fn run(args: &Args) -> Result<()> {
    if !need(ALL, args.yes)? {
        eprintln!("setup: everything is there");
    }
    Ok(())
}

/// Makes the parts present. True when something had to be installed.
pub fn need(parts: &[Part], yes: bool) -> Result<bool> {
    let mut missing = Vec::new();
    for &part in parts {
        if let Some(plan) = part.plan()? {
            missing.push((part, plan));
        }
    }
    if missing.is_empty() {
        return Ok(false);
    }
    eprintln!("setup: this machine lacks something; what will be done:");
    for (_, plan) in &missing {
        eprintln!("  * {plan}");
    }
    if !(yes || agreed_without_asking() || ask()?) {
        bail!("nothing was installed; `cargo xtask setup` does it when you are ready");
    }
    for (part, _) in missing {
        eprintln!("setup: {} ...", part.name());
        part.install()?;
    }
    Ok(true)
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Linker => "bpf-linker",
            Part::RustSrc => "rust-src",
            Part::Packages => "Debian packages",
            Part::Emulator => "Debian packages of the emulator",
            Part::Components => "rustfmt and clippy",
            Part::Fuzzer => "cargo-fuzz",
        }
    }

    /// What installing would do, or nothing when the part is there.
    fn plan(self) -> Result<Option<String>> {
        match self {
            Part::Linker => linker::plan(),
            Part::RustSrc => rust_src::plan(),
            Part::Packages => packages::plan(packages::NETWORK),
            Part::Emulator => packages::plan(packages::EMULATOR),
            Part::Components => Ok(components::plan()),
            Part::Fuzzer => fuzzer::plan(),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Part::Linker => linker::install(),
            Part::RustSrc => rust_src::install(),
            Part::Packages => packages::install(packages::NETWORK),
            Part::Emulator => packages::install(packages::EMULATOR),
            Part::Components => components::install(),
            Part::Fuzzer => fuzzer::install(),
        }
    }
}

fn agreed_without_asking() -> bool {
    std::env::var_os("CI").is_some() || !std::io::stdin().is_terminal()
}

fn ask() -> Result<bool> {
    eprint!("setup: go ahead? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("no answer")?;
    Ok(matches!(
        answer.trim().to_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}
