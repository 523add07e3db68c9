//! `ci`: the whole gate on a clean clone, step by step, with a table at the end.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

use crate::test::Suite;
use crate::workspace::Workspace;
use crate::{ebpf, fuzz, lint, setup, tidy};

/// What came of a step.
struct Done {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

pub fn run(ws: &Workspace) -> Result<()> {
    let mut done = Vec::new();
    // Nothing after these can work when one of them doesn't.
    let ready = step(&mut done, "setup", || {
        setup::need(setup::ALL, true).map(drop)
    }) && step(&mut done, "build-ebpf", || ebpf::build(ws));
    if ready {
        step(&mut done, "fmt", || lint::format(ws, true));
        step(&mut done, "lint", || lint::run(ws));
        step(&mut done, "tidy", || tidy::run(ws));
        for suite in Suite::ALL {
            step(&mut done, suite.name(), || suite.run(ws, None));
        }
        step(&mut done, "fuzz", || fuzz::run(ws, None, fuzz::SECONDS));
    }
    eprint!("{}", table(&done));
    let failed: Vec<&str> = done
        .iter()
        .filter(|step| step.result.is_err())
        .map(|step| step.name)
        .collect();
    if !failed.is_empty() {
        bail!("ci failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs one step; true when it went well.
fn step(done: &mut Vec<Done>, name: &'static str, work: impl FnOnce() -> Result<()>) -> bool {
    eprintln!("\nci: {name}");
    let start = Instant::now();
    let result = work();
    if let Err(error) = &result {
        eprintln!("ci: {name}: {error:#}");
    }
    let went_well = result.is_ok();
    done.push(Done {
        name,
        took: start.elapsed(),
        result,
    });
    went_well
}

fn table(done: &[Done]) -> String {
    let mut text = String::from("\nstep        result  seconds\n");
    for Done { name, took, result } in done {
        let result = if result.is_ok() { "ok" } else { "FAILED" };
        text += &format!("{name:<10}  {result:<6}  {:>7.0}\n", took.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_in_the_table() {
        let mut done = Vec::new();
        assert!(step(&mut done, "fmt", || Ok(())));
        assert!(!step(&mut done, "lint", || bail!("no")));
        let table = table(&done);
        assert!(table.contains("fmt         ok"), "{table}");
        assert!(table.contains("lint        FAILED"), "{table}");
    }
}
