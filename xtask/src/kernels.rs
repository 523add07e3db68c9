//! `test kernels [VERSION [SCENARIO]]`: the suites on Debian's oldest supported, current and newest cloud kernels, in
//! qemu.
//!
//! Kernels come from [`debs`], what runs on them is packed by [`image`], [`boot`] runs it. Two kernels boot at a time.
//! qemu emulates (`-accel tcg`), so that it needs no rights and gives the same result everywhere; what that makes too
//! slow is in [`NOT_HERE`].

mod boot;
mod debs;
mod image;

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::test::{build_binaries, with_binaries};
use crate::workspace::{Workspace, stdout};
use crate::{ebpf, setup};
use boot::Outcome;
use debs::{Kernel, MATRIX, Series};

/// Kernels at a time: the machines that run CI have two cores.
const BOOTS: usize = 2;
/// Areas of the net suite that run on every kernel; what is in others isn't about the kernel, or part 1's.
const AREAS: [&str; 10] = [
    "api", "attach", "bridge", "encap", "offload", "restart", "router", "store", "tenant", "trace",
];
/// Scenarios of these areas that don't run here, and why.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "bridge::iperf3_udp_goes_both_ways",
        "a stream of a fixed rate loses packets where emulation can't keep up with it",
    ),
    (
        "restart::a_killed_agents_flows_are_adopted_under_load",
        LOAD,
    ),
    ("restart::a_new_version_is_swapped_in_under_load", LOAD),
];
const LOAD: &str = "emulation can't make 100,000 flows in a test's time";

/// What runs in one boot, the longest first, so that both cores have something to do to the end; the first has the
/// scenarios.
const BOOTED: [&[&str]; 2] = [&["net"], &["bpf", "contract"]];

/// A boot: a kernel, its initramfs, the suites that run on it.
struct Boot<'k> {
    kernel: &'k Kernel,
    initramfs: PathBuf,
    suites: &'static [&'static str],
}

/// What came of a boot.
struct Done {
    name: &'static str,
    release: String,
    suites: &'static [&'static str],
    took: Duration,
    outcome: Result<Outcome>,
    log: PathBuf,
}

/// Runs the suites on the kernels that `version` names: all without one. With `scenario` nothing runs but the scenarios
/// whose name contains it.
pub fn run(
    ws: &Workspace,
    version: Option<&str>,
    scenario: Option<&str>,
    list: bool,
) -> Result<()> {
    let wanted = wanted(version)?;
    if list {
        wanted.iter().for_each(|series| println!("{}", series.name));
        return Ok(());
    }
    setup::need(setup::KERNELS, false)?;
    let kernels = debs::fetch(&wanted)?;
    let folder = ws.target.join("kernels");
    let programs = programs(ws)?;
    let net = programs.iter().find(|(_, name)| *name == "net");
    let names = test_names(&net.context("no net suite")?.0)?;
    let scenarios = Scenarios::choose(&names, scenario);
    ensure!(
        !scenarios.run.is_empty(),
        "no scenario for kernels is called {}",
        scenario.unwrap_or_default()
    );
    let booted = scenario.map_or(&BOOTED[..], |_| &BOOTED[..1]);
    let base = image::base(&folder, &programs, &scenarios.run)?;
    for kernel in &kernels {
        eprintln!("kernels: {} is {}", kernel.name, kernel.release);
    }
    let done = boot_all(boots(&kernels, booted, &folder, &base)?, &folder);
    if scenario.is_none() {
        scenarios.show_skipped();
    }
    report(&done, scenarios.skipped.len())
}

/// Every boot, in the order in which they are to start.
fn boots<'k>(
    kernels: &'k [Kernel],
    booted: &[&'static [&'static str]],
    folder: &Path,
    base: &Path,
) -> Result<Vec<Boot<'k>>> {
    let mut boots = Vec::new();
    for kernel in kernels {
        let initramfs = image::with_modules(folder, base, kernel)?;
        boots.extend(booted.iter().map(|suites| Boot {
            kernel,
            initramfs: initramfs.clone(),
            suites,
        }));
    }
    boots.sort_by_key(|boot| BOOTED.iter().position(|suites| *suites == boot.suites));
    Ok(boots)
}

/// Boots some at a time; what came of them, by kernel.
fn boot_all(boots: Vec<Boot<'_>>, folder: &Path) -> Vec<Done> {
    let queue = Mutex::new(boots.into_iter());
    let next = || queue.lock().expect("no thread panics").next();
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..BOOTS {
            scope.spawn(|| {
                while let Some(boot) = next() {
                    let result = test(&boot, folder);
                    done.lock().expect("no thread panics").push(result);
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics");
    done.sort_by_key(|done| {
        let of_kernel = MATRIX.iter().position(|series| series.name == done.name);
        (of_kernel, done.suites)
    });
    done
}

/// The kernels of the matrix that are meant by what was typed.
fn wanted(version: Option<&str>) -> Result<Vec<Series>> {
    let Some(version) = version else {
        return Ok(MATRIX.to_vec());
    };
    let named: Vec<Series> = MATRIX
        .iter()
        .copied()
        .filter(|series| series.name == version)
        .collect();
    let names = MATRIX.map(|series| series.name).join(", ");
    ensure!(
        !named.is_empty(),
        "there is no kernel {version} in the matrix: {names}"
    );
    Ok(named)
}

fn test(boot: &Boot<'_>, folder: &Path) -> Done {
    let Boot { kernel, suites, .. } = boot;
    let what = suites.join("+");
    let log = folder.join(format!("{}-{what}.log", kernel.name));
    let start = Instant::now();
    let outcome = boot::run(kernel, &boot.initramfs, suites, &log);
    let took = start.elapsed();
    eprintln!(
        "kernels: {} {what} ended after {:.0} s",
        kernel.name,
        took.as_secs_f64()
    );
    Done {
        name: kernel.name,
        release: kernel.release.clone(),
        suites,
        took,
        outcome,
        log,
    }
}

/// Which scenarios run, and how many of the net suite don't.
struct Scenarios {
    run: Vec<String>,
    skipped: Vec<String>,
}

impl Scenarios {
    /// Of these names, those that run on every kernel and contain what is wanted.
    fn choose(names: &[String], wanted: Option<&str>) -> Scenarios {
        let is_here = |name: &&String| {
            let area = name.split("::").next().unwrap_or_default();
            AREAS.contains(&area)
                && wanted.is_none_or(|wanted| name.contains(wanted))
                && !NOT_HERE
                    .iter()
                    .any(|(not_here, _)| name.as_str() == *not_here)
        };
        let (run, skipped) = names.iter().partition(is_here);
        let own = |names: Vec<&String>| names.into_iter().cloned().collect();
        Scenarios {
            run: own(run),
            skipped: own(skipped),
        }
    }

    fn show_skipped(&self) {
        println!(
            "not run on them, as they aren't about the kernel: {}",
            self.skipped.join(", ")
        );
        for (name, why) in NOT_HERE {
            println!("SKIPPED {name}: {why}");
        }
    }
}

/// The names in the net suite.
fn test_names(net: &Path) -> Result<Vec<String>> {
    let listed = stdout(Command::new(net).args(["--list", "--format", "terse"]))?;
    let names = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// Builds what runs on the kernels. The test programs are those of the other suites, and so are there already in CI.
fn programs(ws: &Workspace) -> Result<Vec<image::Program>> {
    ebpf::build(ws)?;
    build_binaries(ws)?;
    Ok(vec![
        (ws.release_binary("weftd"), "weftd"),
        (ws.release_binary("weft"), "weft"),
        (test_program(ws, "weft-tests", "bpf")?, "bpf"),
        (test_program(ws, "weft-tests", "net")?, "net"),
        (test_program(ws, "weft-datapath", "contract")?, "contract"),
    ])
}

/// Builds a package's test program and tells where cargo put it.
fn test_program(ws: &Workspace, package: &str, test: &str) -> Result<PathBuf> {
    let mut build = ws.cargo(["test", "--no-run", "--message-format=json"]);
    build.args(["--package", package, "--test", test]);
    with_binaries(ws, &mut build);
    let messages = stdout(&mut build)?;
    let mut programs = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|artifact| artifact["target"]["name"] == test)
        .filter_map(|artifact| Some(PathBuf::from(artifact["executable"].as_str()?)));
    programs
        .next()
        .with_context(|| format!("cargo built no test program {test}"))
}

/// Prints a table and what failed; an error when something did.
fn report(done: &[Done], skipped: usize) -> Result<()> {
    let mut failed = Vec::new();
    for Done {
        name,
        suites,
        outcome,
        log,
        ..
    } in done
    {
        let is_good = match outcome {
            Ok(outcome) => outcome.is_good(suites),
            Err(error) => {
                eprintln!("\nkernels: {name}: {error:#}");
                false
            }
        };
        if !is_good {
            failed.push(*name);
            let console = std::fs::read(log).unwrap_or_default();
            let said = boot::failures(&String::from_utf8_lossy(&console).replace('\r', ""));
            eprintln!(
                "\nkernels: {name}: {said}\nthe whole console: {}",
                log.display()
            );
        }
    }
    println!("{}", table(done, skipped));
    if !failed.is_empty() {
        failed.dedup();
        bail!("kernels failed: {}", failed.join(", "));
    }
    Ok(())
}

fn table(done: &[Done], skipped: usize) -> String {
    let mut text = String::new();
    for Done {
        name,
        release,
        took,
        outcome,
        suites: _,
        log: _,
    } in done
    {
        text += &format!("\n{name:<7} {release}, {:.0} s\n", took.as_secs_f64());
        let Ok(outcome) = outcome else {
            text += "        didn't get to its end\n";
            continue;
        };
        for suite in &outcome.suites {
            let skipped = if suite.name == "net" { skipped } else { 0 };
            text += &format!(
                "        {:<9} {} passed, {} failed, {skipped} skipped\n",
                suite.name, suite.passed, suite.failed
            );
        }
        if !outcome.verified.is_empty() {
            let verified = outcome.verified.join(", ");
            text += &format!("        verifier  {verified} of 1000000 instructions\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_one_kernel_and_none_names_all() {
        assert_eq!(wanted(None).unwrap().len(), MATRIX.len());
        assert_eq!(wanted(Some("6.12")).unwrap()[0].name, "6.12");
        let error = wanted(Some("5.10")).err().unwrap().to_string();
        assert!(
            error.contains("5.10") && error.contains("6.1, 6.12, newest"),
            "{error}"
        );
    }

    #[test]
    fn every_scenario_is_run_or_named_as_skipped() {
        let names = ["bridge::ping", "demo::a", "router::ping"].map(str::to_owned);
        let scenarios = Scenarios::choose(&names, None);
        assert_eq!(scenarios.run, ["bridge::ping", "router::ping"]);
        assert_eq!(scenarios.skipped, ["demo::a"]);
        assert_eq!(
            Scenarios::choose(&names, Some("router")).run,
            ["router::ping"]
        );
        assert!(Scenarios::choose(&names, Some("demo")).run.is_empty());
    }
}
