//! The benchmarks as a program: the rows that they write, and what they take down. How fast anything is, is not asked.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weft_tests::harness::process;
use weft_tests::harness::run_id::RunId;
use weft_tests::harness::{sweep, wait};

use super::demo::{forget_evidence, free_id};

/// One short round takes 10 s.
const BENCH_LIMIT: Duration = Duration::from_secs(100);
/// What each contestant's rows are about.
const CASES: [&str; 10] = [
    "connect 16-parallel/rate 1/s higher",
    "pps raw-tc/1 packet/s higher",
    "pps raw-tc/10000 packet/s higher",
    "pps socket packet/s higher",
    "rr 1-in-flight/p50 ns lower",
    "rr 1-in-flight/p99 ns lower",
    "rr 1-in-flight/rate 1/s higher",
    "rr 16-in-flight/p50 ns lower",
    "rr 16-in-flight/p99 ns lower",
    "rr 16-in-flight/rate 1/s higher",
];

fn bench(id: &RunId) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["--id", &id.to_string(), "--contestants", "weft"]);
    command
}

#[test]
fn one_round_gives_every_row() {
    let id = free_id().unwrap();
    let file = std::env::temp_dir().join(format!("weft-bench-{id}.json"));
    let mut command = bench(&id);
    command
        .args(["--rounds", "1", "--seconds", "0.5", "--json"])
        .arg(&file);
    let done = process::run(command, BENCH_LIMIT).unwrap();
    assert!(done.status.success(), "{}", done.describe());
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
    let rows: Vec<Value> = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    for contestant in ["bridge", "weft"] {
        let of = rows.iter().filter(|row| row["contestant"] == contestant);
        let found: BTreeSet<String> = of
            .map(|row| {
                let word = |name: &str| row[name].as_str().unwrap_or("?");
                ["bench", "case", "unit", "better"].map(word).join(" ")
            })
            .collect();
        assert_eq!(found, BTreeSet::from(CASES.map(String::from)), "{rows:#?}");
    }
    for row in &rows {
        let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
        assert!(number("min") > 0.0 && number("ratio") > 0.0, "{row}");
        assert!(
            number("min") <= number("median") && number("median") <= number("max"),
            "{row}"
        );
        assert!(row["limit"] == "bridge" && done.stdout.contains(row["case"].as_str().unwrap()));
    }
}

#[test]
fn a_bench_that_fails_takes_everything_down() {
    let id = free_id().unwrap();
    let mut command = bench(&id);
    command.env("WEFTD_BIN", "/bin/false");
    let failed = process::run(command, BENCH_LIMIT).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{}", failed.describe());
    let said = &failed.stderr;
    assert!(said.contains("bench: FAILED: setting up weft"), "{said}");
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
}

#[test]
fn a_bench_that_is_interrupted_takes_everything_down() {
    let id = free_id().unwrap();
    let log = std::env::temp_dir().join(format!("weft-bench-{id}.log"));
    let mut command = bench(&id);
    command.stderr(File::create(&log).unwrap());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    wait::until("the first measurement", BENCH_LIMIT, || {
        let said = fs::read_to_string(&log)?;
        Ok(said.contains("bench: rr").then_some(()))
    })
    .unwrap();
    let up = Path::new("/run/netns").join(id.namespace("bridge-client"));
    assert!(up.exists());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    let said = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(sweep::leftovers(&id), Vec::<String>::new());
    forget_evidence(&said);
}
