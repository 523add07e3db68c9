//! The benchmarks: weft beside what a user would pick instead, over the same veth pairs in the same run.
//!
//! Every contestant has a path of its own, from a client's namespace by host A, a veth pair and host B to a server's
//! namespace. All are set up once and stay up: what waits costs nothing, tables that a new path would have to fill
//! are not what is measured, and each measurement warms up first. Each round measures all contestants, one after the
//! other, and the next one begins with another: what slows the machine for a while slows them all.
//!
//! [`contestant`] builds the paths, [`case`](mod@case) names what is measured, [`rr`], [`connect`] and [`pps`] are the
//! load, [`report`] makes the rows. Progress goes to stderr, the table to stdout.

mod case;
mod connect;
mod contestant;
mod pps;
mod report;
mod rr;
mod timing;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::harness::run_id::RunId;
use crate::harness::{evidence, prepare, process, sweep, wait};
use case::{Bench, Case};
use contestant::{Contestant, Path};
use report::Results;
use timing::Timing;

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Weft's speed beside plain bridges and kernel VXLAN, in network namespaces"
)]
struct Args {
    /// One benchmark; all without a name
    #[arg(value_enum)]
    name: Option<Bench>,
    /// How often every contestant is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Also write the rows into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds of one measurement, after a warm-up of a fifth of that
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    seconds: f64,
    /// Only these contestants, beside the limit
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    contestants: Vec<Contestant>,
    /// Run id, for tests that look for what is left
    #[arg(long, hide = true, value_parser = run_id)]
    id: Option<RunId>,
}

/// The program: reads the command line, and says how it went.
pub fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_id(text: &str) -> Result<RunId, String> {
    RunId::parse(text).ok_or_else(|| "not a run id".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.01..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("0.01 to 60".into())
    }
}

fn bench(args: &Args) -> Result<()> {
    prepare()?;
    let id = match &args.id {
        Some(id) => {
            id.claim_exactly()?;
            id.clone()
        }
        None => RunId::claim()?,
    };
    wait::stop_on_interrupt()?;
    let guard = sweep::TakeDown::of(&id, "bench");
    eprintln!("bench: {}", machine()?);
    let mut paths = Vec::new();
    let measured = set_up(&id, args, &mut paths).and_then(|()| measure(args, &mut paths));
    if measured.is_err() {
        wait::forget_interrupt();
        paths.iter().for_each(|path| explain(&id, path));
    }
    drop(paths);
    drop(guard);
    let rows = measured?.rows()?;
    let left = sweep::leftovers(&id);
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    print!("{}", report::table(&rows));
    if let Some(file) = &args.json {
        fs::write(file, report::json(&rows)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The paths of all contestants that this machine can have; each that it can't is named.
fn set_up(id: &RunId, args: &Args, paths: &mut Vec<Path>) -> Result<()> {
    for contestant in Contestant::ALL {
        let wanted = args.contestants.is_empty() || args.contestants.contains(&contestant);
        if contestant != Contestant::LIMIT && !wanted {
            continue;
        }
        if let Some(reason) = contestant.lacks(id)? {
            eprintln!("bench: LEFT OUT: {}: {reason}", contestant.name());
            continue;
        }
        eprintln!("bench: setting up {}", contestant.name());
        let path = Path::set_up(id, contestant)
            .with_context(|| format!("setting up {}", contestant.name()))?;
        path.check()?;
        paths.push(path);
    }
    Ok(())
}

fn measure(args: &Args, paths: &mut [Path]) -> Result<Results> {
    let time = Duration::from_secs_f64(args.seconds);
    let timing = Timing {
        warm_up: time / 5,
        time,
    };
    let mut results = Results::default();
    let cases = Case::ALL
        .iter()
        .filter(|case| args.name.is_none_or(|name| name == case.bench()));
    for case in cases {
        eprintln!("bench: {} {case}", case.bench().name());
        for round in 0..args.rounds as usize {
            for turn in 0..paths.len() {
                wait::check_interrupt()?;
                let path = &paths[(round + turn) % paths.len()];
                let contestant = path.contestant();
                let samples = case.measure(path, timing).with_context(|| {
                    format!("{} {case} over {}", case.bench().name(), contestant.name())
                })?;
                results.add(case.bench(), contestant, samples);
            }
        }
    }
    paths.iter_mut().try_for_each(Path::check_agents)?;
    Ok(results)
}

/// What a reader of the figures must know of the machine.
fn machine() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let cpus = std::thread::available_parallelism()?;
    Ok(format!(
        "kernel {}, {cpus} CPUs, load before {}",
        kernel.trim(),
        load.join(" ")
    ))
}

/// Says what agents said last, and keeps the rest.
fn explain(id: &RunId, path: &Path) {
    let Some(network) = path.network() else {
        return;
    };
    for host in network.hosts() {
        let log = fs::read_to_string(host.log_path()).unwrap_or_default();
        eprintln!(
            "bench: end of the log of {}:\n{}",
            host.name(),
            process::tail(&log, 15)
        );
    }
    match evidence::keep(id, Some(network), "bench") {
        Ok(folder) => eprintln!("bench: logs and captures: {}", folder.display()),
        Err(error) => eprintln!("bench: cannot keep the logs: {error:#}"),
    }
}
