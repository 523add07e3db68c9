//! The fuzz targets of `tests/fuzz`: built once by cargo-fuzz, run side by side.
//!
//! `cargo fuzz` on stable: without a sanitizer, with nightly's coverage pass by RUSTC_BOOTSTRAP. What was found stays in
//! `target/fuzz`: inputs that reach something new in `corpus`, inputs that fail in `artifacts`.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::setup;
use crate::workspace::{Workspace, run as run_command, stdout};

/// The odd packets of the bpf suite, from which the targets start.
#[expect(dead_code, reason = "what is expected of them is for the bpf suite")]
#[path = "../../tests/suites/bpf/odd_packets.rs"]
mod odd_packets;

/// Seconds for each target in CI and by default.
pub const SECONDS: u32 = 30;
/// Longest input in bytes: a frame of the usual MTU.
const INPUT_BYTES_MAX: u32 = 1514;
/// The fuzz crate's manifest, from the root: it is a workspace of its own.
pub const MANIFEST: &str = "tests/fuzz/Cargo.toml";
const FUZZ_DIR: &str = "tests/fuzz";
/// cargo-fuzz builds for a named target.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the targets whose name contains `filter` for `seconds` each.
pub fn run(ws: &Workspace, filter: Option<&str>, seconds: u32) -> Result<()> {
    let names = list(ws, filter)?;
    if names.is_empty() {
        bail!("no fuzz target's name contains {:?}", filter.unwrap_or(""));
    }
    run_command(cargo_fuzz(ws, "build")?.arg("--target-dir").arg(folder(ws)))?;
    for name in &names {
        sow(ws, name)?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(names.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(name) = next(&waiting) {
                    if let Err(error) = fuzz(ws, &name, seconds) {
                        failed
                            .lock()
                            .expect("no holder panics")
                            .push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no holder panics");
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

fn next(waiting: &Mutex<impl Iterator<Item = String>>) -> Option<String> {
    waiting.lock().expect("no holder panics").next()
}

/// Names of the targets.
pub fn list(ws: &Workspace, filter: Option<&str>) -> Result<Vec<String>> {
    setup::need(setup::FUZZ, false)?;
    let listed = stdout(&mut cargo_fuzz(ws, "list")?)?;
    let names = listed
        .lines()
        .filter(|name| name.contains(filter.unwrap_or("")));
    Ok(names.map(str::to_owned).collect())
}

fn folder(ws: &Workspace) -> PathBuf {
    ws.target.join("fuzz")
}

fn cargo_fuzz(ws: &Workspace, what: &str) -> Result<Command> {
    let mut command = Command::new(setup::fuzzer_path()?);
    command
        .current_dir(&ws.root)
        .args(["fuzz", what, "--fuzz-dir", FUZZ_DIR])
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if what == "build" {
        command.args(["--sanitizer", "none", "--target", TARGET]);
    }
    Ok(command)
}

/// Gives a target the odd packets to start from: `extract` as frames without a tag in metadata, the parsers what is
/// behind the Ethernet type.
fn sow(ws: &Workspace, name: &str) -> Result<()> {
    let corpus = folder(ws).join("corpus").join(name);
    std::fs::create_dir_all(&corpus)
        .with_context(|| format!("cannot make {}", corpus.display()))?;
    for (number, odd) in odd_packets::ODD_PACKETS.iter().enumerate() {
        let bytes = unhex(odd.bytes).with_context(|| odd.what)?;
        let seed = match name {
            "extract" => [&[0], &[2; 12][..], &bytes].concat(),
            // Pieces of 68 bytes.
            "fragment" => [&[0, 68], &bytes[2..]].concat(),
            _ => bytes[2..].to_vec(),
        };
        let path = corpus.join(format!("odd-{number}"));
        std::fs::write(&path, seed).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: String = text.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| {
            let pair = digits.get(at..at + 2).context("half a byte")?;
            Ok(u8::from_str_radix(pair, 16)?)
        })
        .collect()
}

/// One target; its output is shown when it fails.
fn fuzz(ws: &Workspace, name: &str, seconds: u32) -> Result<()> {
    let corpus = folder(ws).join("corpus").join(name);
    let artifacts = folder(ws).join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let binary = folder(ws).join(TARGET).join("release").join(name);
    let child: Child = Command::new(&binary)
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        // Guides it through comparisons with constants, of which headers are full.
        .arg("-use_value_profile=1")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| line.contains("cov: "));
    eprintln!("fuzz {name}: {}", last.unwrap_or("said nothing").trim());
    if !output.status.success() {
        let tail: Vec<&str> = said.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!(
            "fuzz target {name} failed: {}\n{}",
            output.status,
            tail.join("\n")
        );
    }
    Ok(())
}
