//! The demo: weft's main job in one command, on two hosts that are namespaces.
//!
//! Progress goes to stderr, results to stdout. Everything has the run id `demo` and is taken down at the end,
//! also after a failure or Ctrl-C, unless `--keep` says otherwise.

mod keys;
mod report;
mod scene;
mod speed;
mod tap_process;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

use crate::harness::run_id::RunId;
use crate::harness::{evidence, prepare, process, sweep, wait};
use report::Report;
use scene::Scene;

/// What xtask says about the time that set-up and build took.
const PREPARE_SECS_VARIABLE: &str = "WEFT_DEMO_PREPARE_SECS";

#[derive(Parser)]
#[command(
    name = "demo",
    about = "Two hosts, one virtual network, in network namespaces"
)]
struct Args {
    /// Leave everything up, and say how to look around
    #[arg(long)]
    keep: bool,
    /// Print results as JSON, and only them, on stdout
    #[arg(long)]
    json: bool,
    /// Take down what --keep left, and do nothing else
    #[arg(long, conflicts_with_all = ["keep", "json"])]
    down: bool,
    /// Run id, for tests that run side by side
    #[arg(long, hide = true, value_parser = run_id, default_value = "demo")]
    id: RunId,
    #[command(subcommand)]
    command: Option<Hidden>,
}

#[derive(Subcommand)]
enum Hidden {
    /// The process behind the demo's tap
    #[command(hide = true)]
    TapProcess(tap_process::Args),
}

/// The program: reads the command line, and says how it went.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args {
        Args {
            command: Some(Hidden::TapProcess(tap)),
            ..
        } => tap_process::serve(tap),
        Args { down: true, id, .. } => down(id),
        Args { keep, json, id, .. } => demo(id, *keep, *json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows progress: what begins, on a line of its own.
fn step(text: &str) {
    eprintln!("demo: {text}");
}

fn run_id(text: &str) -> Result<RunId, String> {
    RunId::parse(text).ok_or_else(|| "not a run id".into())
}

fn down(id: &RunId) -> Result<()> {
    if id.is_alive() {
        bail!("a demo is running; stop it with Ctrl-C, and it takes everything down");
    }
    let left = sweep::leftovers(id);
    sweep::take_down(id)?;
    step(if left.is_empty() {
        "nothing was up"
    } else {
        "everything is taken down"
    });
    Ok(())
}

fn demo(id: &RunId, keep: bool, json: bool) -> Result<()> {
    let start = Instant::now();
    prepare()?;
    claim(id)?;
    wait::stop_on_interrupt()?;
    let guard = sweep::TakeDown::of(id, "demo");
    let result = run(id, keep);
    let seconds = start.elapsed().as_secs_f64();
    let mut report = match result {
        Ok(report) => report,
        Err(error) => {
            drop(guard);
            if json {
                println!(
                    "{}",
                    serde_json::json!({ "ok": false, "error": format!("{error:#}") })
                );
            }
            return Err(error);
        }
    };
    report.seconds = seconds;
    report.prepare_seconds = std::env::var(PREPARE_SECS_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    if keep {
        id.keep()?;
        guard.disarm();
    } else {
        step("taking everything down");
        drop(guard);
        let left = sweep::leftovers(id);
        anyhow::ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    }
    report.print(json)?;
    if keep {
        eprint!("{}", scene::how_to_look_around(id)?);
    }
    if json {
        eprintln!("demo: ok");
    } else {
        println!("demo: ok");
    }
    Ok(())
}

/// The demo's id, after what an earlier one left is taken down.
fn claim(id: &RunId) -> Result<()> {
    if id.is_alive() {
        bail!("a demo is running already");
    }
    if !sweep::leftovers(id).is_empty() {
        step("taking down what an earlier demo left");
        sweep::take_down(id)?;
    }
    id.claim_exactly()
}

fn run(id: &RunId, keep: bool) -> Result<Report> {
    let mut scene = None;
    let result = steps(id, &mut scene);
    if let (Err(_), Some(scene)) = (&result, &scene) {
        wait::forget_interrupt();
        explain(id, scene);
    }
    if let (Ok(_), Some(scene), true) = (&result, &mut scene, keep) {
        scene.leave();
    }
    result
}

fn steps(id: &RunId, slot: &mut Option<Scene>) -> Result<Report> {
    step("two hosts in different subnets, a router between them, four workloads");
    let scene = slot.insert(Scene::build(id)?);
    step("weftd on h1, which holds the store, and on h2, which uses h1's by the API");
    scene.start_agents()?;
    step("weft apply -f docs/examples/two-hosts.yaml");
    scene.apply()?;
    step("ping between all pairs of workloads");
    let capture = keys::capture(scene)?;
    let pings = scene.ping_all_pairs()?;
    let gre_keys = keys::compare(scene, capture)?;
    step("iperf3 over the overlay and, by turns, over plain bridges");
    let throughput = speed::compare(scene)?;
    step("flows and a trace");
    let flows = scene.flows()?;
    let trace = scene.trace()?;
    scene.check_agents()?;
    Ok(Report {
        pings,
        throughput,
        flows,
        trace,
        gre_keys,
        seconds: 0.0,
        prepare_seconds: None,
    })
}

/// Says what the agents said last, and keeps the rest.
fn explain(id: &RunId, scene: &Scene) {
    for host in scene.network().hosts() {
        let Ok(log) = std::fs::read_to_string(host.log_path()) else {
            continue;
        };
        eprintln!(
            "demo: end of the log of {}:\n{}",
            host.name(),
            process::tail(&log, 15)
        );
    }
    match evidence::keep(id, Some(scene.network()), "demo") {
        Ok(folder) => step(&format!("logs and captures: {}", folder.display())),
        Err(error) => step(&format!("cannot keep the logs: {error:#}")),
    }
}
