//! The demo as a program: what it prints, what it leaves up, what it takes down.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weft_tests::harness::process::{self, Finished};
use weft_tests::harness::run_id::RunId;
use weft_tests::harness::{Namespace, Ping, prepare, sweep, wait};

/// The demo takes 25 s.
const DEMO_LIMIT: Duration = Duration::from_secs(250);

/// Runs the demo under an id of its own, not `demo`, which may be up on this machine.
fn demo(id: &RunId, arguments: &[&str], weftd: Option<&str>) -> Result<Finished> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(["--id", &id.to_string()]).args(arguments);
    command.envs(weftd.map(|weftd| ("WEFTD_BIN", weftd)));
    process::run(command, DEMO_LIMIT)
}

/// An id that was free a moment ago.
pub fn free_id() -> Result<RunId> {
    prepare()?;
    let id = RunId::claim()?;
    sweep::take_down(&id)?;
    Ok(id)
}

#[test]
fn a_demo_that_fails_takes_everything_down() {
    let id = free_id().unwrap();
    let failed = demo(&id, &["--json"], Some("/bin/false")).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", failed.describe());
    let result: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(result["ok"], false);
    assert!(
        failed.stderr.contains("demo: FAILED: "),
        "{}",
        failed.describe()
    );
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
    forget_evidence(&failed.stderr);
}

#[test]
fn a_demo_that_is_interrupted_takes_everything_down() {
    let id = free_id().unwrap();
    let log = std::env::temp_dir().join(format!("weft-demo-{id}.log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command
        .args(["--id", &id.to_string()])
        .stderr(File::create(&log).unwrap());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let up = Path::new("/run/netns").join(id.namespace("web-1"));
    wait::until("the demo's workloads", DEMO_LIMIT, || {
        Ok(up.exists().then_some(()))
    })
    .unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    let said = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
    forget_evidence(&said);
}

/// Removes what a failure that was meant left below the target folder.
pub fn forget_evidence(said: &str) {
    let kept = said
        .lines()
        .find_map(|line| line.split_once("logs and captures: "));
    if let Some((_, folder)) = kept {
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn the_demo_shows_its_results_and_stays_up_until_it_is_taken_down() {
    let id = free_id().unwrap();
    let shown = keep_and_look(&id);
    let down = demo(&id, &["--down"], None).unwrap();
    shown.unwrap();
    assert!(down.status.success(), "{}", down.describe());
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
}

fn keep_and_look(id: &RunId) -> Result<()> {
    let done = demo(id, &["--json", "--keep"], None)?;
    ensure!(done.status.success(), "{}", done.describe());
    ensure!(
        done.stderr.trim_end().ends_with("demo: ok"),
        "{}",
        done.describe()
    );
    let results: Value = serde_json::from_str(&done.stdout).with_context(|| done.describe())?;
    ensure!(results["ok"] == true, "{results:#}");
    let length = |name: &str| results[name].as_array().map_or(0, Vec::len);
    ensure!(
        length("pings") == 12 && length("gre_keys") == 4 && length("flows") == 2,
        "{results:#}"
    );
    ensure!(
        results["trace"]["trace"]["egress"]["port"] == "db/db-1",
        "{results:#}"
    );
    ensure!(
        results["throughput"]["ratio"]
            .as_f64()
            .is_some_and(|ratio| ratio > 0.0),
        "{results:#}"
    );
    // Agents, workloads and the process behind the tap go on without the demo.
    let web_1 = Namespace::existing(&id.namespace("web-1"));
    Ping::default()
        .run(&web_1, [10, 0, 2, 12])?
        .all_answered()?;
    Ok(())
}
