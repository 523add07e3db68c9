//! `test`: the suites, each by cargo with what it needs built before.
//!
//! `unit` needs the kernel object (weft-datapath embeds it), `bpf` runs single programs by BPF_PROG_TEST_RUN,
//! `net` runs the real binaries between namespaces. `kernels` is both on other kernels ([`kernels`]).

use anyhow::{Result, bail};
use clap::ValueEnum;
use std::process::Command;

use crate::workspace::{Workspace, run as run_command, stdout};
use crate::{ebpf, fuzz, kernels, setup};

/// Net scenarios at a time. They wait more than they compute.
const NET_THREADS: &str = "3";

#[derive(clap::Args)]
pub struct Args {
    /// Which suites
    #[arg(value_enum, default_value = "all")]
    suites: Choice,
    /// Only tests, or fuzz targets, whose name contains this; with `kernels`: 6.1, 6.12 or newest
    filter: Option<String>,
    /// With `kernels`: nothing but scenarios whose name contains this
    scenario: Option<String>,
    /// Seconds for each fuzz target
    #[arg(long, default_value_t = fuzz::SECONDS)]
    secs: u32,
    /// Print the names and run nothing
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    Unit,
    Bpf,
    Net,
    /// The fuzz targets; `all` leaves them out
    Fuzz,
    /// Unit, bpf and net
    All,
    /// The bpf suite and scenarios on other kernels, in qemu
    Kernels,
}

/// One suite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    Unit,
    Bpf,
    Net,
}

impl Suite {
    /// In the order in which they run: the cheapest first.
    pub const ALL: [Suite; 3] = [Suite::Unit, Suite::Bpf, Suite::Net];

    pub fn name(self) -> &'static str {
        match self {
            Suite::Unit => "unit",
            Suite::Bpf => "bpf",
            Suite::Net => "net",
        }
    }

    /// Builds what the suite needs and runs it.
    pub fn run(self, ws: &Workspace, filter: Option<&str>) -> Result<()> {
        self.prepare(ws)?;
        run_command(&mut self.cargo_test(ws, filter, &[]))
    }

    fn list(self, ws: &Workspace, filter: Option<&str>) -> Result<()> {
        ebpf::build(ws)?;
        let listed = stdout(&mut self.cargo_test(ws, filter, &["--list", "--format", "terse"]))?;
        for name in names(&listed) {
            println!("{name}");
        }
        Ok(())
    }

    fn prepare(self, ws: &Workspace) -> Result<()> {
        if self == Suite::Net {
            setup::need(setup::NETWORK, false)?;
        }
        ebpf::build(ws)?;
        if self == Suite::Net {
            build_binaries(ws)?;
        }
        Ok(())
    }

    fn cargo_test(self, ws: &Workspace, filter: Option<&str>, harness_args: &[&str]) -> Command {
        let mut command = ws.cargo(["test"]);
        match self {
            Suite::Unit => command
                .args([
                    "--workspace",
                    "--exclude",
                    "weft-ebpf",
                    "--exclude",
                    "weft-tests",
                ])
                .args(["--lib", "--bins", "--tests", "--no-fail-fast"]),
            Suite::Bpf => command.args(["--package", "weft-tests", "--test", "bpf"]),
            // The harness has tests of its own.
            Suite::Net => command.args(["--package", "weft-tests", "--lib", "--test", "net"]),
        };
        with_binaries(ws, &mut command);
        command.args(filter).arg("--").args(harness_args);
        if self == Suite::Net {
            command.args(["--test-threads", NET_THREADS]);
        }
        command
    }
}

pub fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let filter = args.filter.as_deref();
    if args.scenario.is_some() && !matches!(args.suites, Choice::Kernels) {
        bail!("one filter is enough but for kernels");
    }
    let suites = match args.suites {
        Choice::Unit => vec![Suite::Unit],
        Choice::Bpf => vec![Suite::Bpf],
        Choice::Net => vec![Suite::Net],
        Choice::Fuzz if args.list => {
            let names = fuzz::list(ws, filter)?;
            names.iter().for_each(|name| println!("{name}"));
            return Ok(());
        }
        Choice::Fuzz => return fuzz::run(ws, filter, args.secs),
        Choice::All => Suite::ALL.to_vec(),
        Choice::Kernels => return kernels::run(ws, filter, args.scenario.as_deref(), args.list),
    };
    if args.list {
        return suites
            .into_iter()
            .try_for_each(|suite| suite.list(ws, filter));
    }
    let results: Vec<_> = suites
        .into_iter()
        .map(|suite| (suite, suite.run(ws, filter)))
        .collect();
    let (summary, failed) = summarise(&results);
    if failed {
        bail!("{summary}");
    }
    eprintln!("{summary}");
    Ok(())
}

/// The release binaries that demo and net tests run, all in one build: features, and with them every
/// dependency, would differ between two.
pub fn build_binaries(ws: &Workspace) -> Result<()> {
    let packages = [
        "--package",
        "weft-agent",
        "--package",
        "weft-cli",
        "--package",
        "weft-tests",
    ];
    run_command(ws.cargo(["build", "--release", "--bins"]).args(packages))
}

/// Tells a test or the demo which `weftd` and `weft` to run.
pub fn with_binaries(ws: &Workspace, command: &mut Command) {
    command
        .env("WEFTD_BIN", ws.release_binary("weftd"))
        .env("WEFT_BIN", ws.release_binary("weft"));
}

/// The names in a test harness's terse list, whose lines are `name: test`.
fn names(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
}

/// `unit ok, bpf FAILED`, with the reasons of failures before it.
fn summarise(results: &[(Suite, Result<()>)]) -> (String, bool) {
    let mut words = Vec::new();
    let mut failed = false;
    for (suite, result) in results {
        match result {
            Ok(()) => words.push(format!("{} ok", suite.name())),
            Err(error) => {
                eprintln!("{}: {error:#}", suite.name());
                words.push(format!("{} FAILED", suite.name()));
                failed = true;
            }
        }
    }
    (words.join(", "), failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn the_list_holds_names_only() {
        let listed = "bridge::ping: test\nbench::speed: benchmark\n\n1 test, 1 benchmark\n";
        assert_eq!(names(listed).collect::<Vec<_>>(), ["bridge::ping"]);
    }

    #[test]
    fn one_failed_suite_fails_the_run_and_hides_no_other() {
        let results = [
            (Suite::Unit, Ok(())),
            (Suite::Bpf, Err(anyhow!("no"))),
            (Suite::Net, Ok(())),
        ];
        assert_eq!(
            summarise(&results),
            ("unit ok, bpf FAILED, net ok".into(), true)
        );
        assert!(!summarise(&results[..1]).1);
    }
}
