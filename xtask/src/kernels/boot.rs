//! Boots a kernel in qemu and reads from its console what the suites said.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::debs::Kernel;

/// Ten times what it takes on an idle machine would be hours; a kernel that hangs shall not hang CI.
const TIME_MAX: Duration = Duration::from_secs(20 * 60);
/// What the lines of `init.sh` begin with.
const MARK: &str = "weft-kernels: ";

/// What a suite said at its end.
#[derive(Debug, PartialEq, Eq)]
pub struct SuiteResult {
    pub name: String,
    pub passed: u32,
    pub failed: u32,
    /// The exit status of its process.
    pub status: i32,
}

/// What came of a boot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub suites: Vec<SuiteResult>,
    /// `PROGRAM INSTRUCTIONS`: how much of each program's paths the verifier walked.
    pub verified: Vec<String>,
}

impl Outcome {
    /// Whether each of these suites ran and ended well.
    pub fn is_good(&self, wanted: &[&str]) -> bool {
        let is_good =
            |suite: &SuiteResult| suite.status == 0 && suite.failed == 0 && suite.passed > 0;
        let names = self.suites.iter().map(|suite| suite.name.as_str());
        names.eq(wanted.iter().copied()) && self.suites.iter().all(is_good)
    }
}

/// Boots the kernel, runs these suites, waits for its end and reads its console, which is kept in `log`.
///
/// # Errors
/// When it didn't get to the end, with the last lines that it printed.
pub fn run(kernel: &Kernel, initramfs: &Path, suites: &[&str], log: &Path) -> Result<Outcome> {
    // The kernel gives what it doesn't know to the first process, in its environment.
    let line = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off SUITES={}",
        suites.join(",")
    );
    // Emulated in one thread: with one for each CPU, a CPU may meet the int3 that another has taken back already, when
    // the kernel switches a static key, and the kernel dies of it. The boots side by side use the machine's cores.
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "Westmere",
            "-smp",
            "2",
            "-m",
            "2048",
        ])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &line])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(log)?)
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let deadline = Instant::now() + TIME_MAX;
    while qemu.try_wait()?.is_none() {
        if Instant::now() > deadline {
            qemu.kill()?;
            qemu.wait()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let console = String::from_utf8_lossy(&std::fs::read(log)?).replace('\r', "");
    read(&console)
}

/// Reads a console.
fn read(console: &str) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut counts = None;
    for line in console.lines() {
        if let Some(rest) = line.strip_prefix("test result: ") {
            counts = numbers(rest);
        } else if let Some(walked) = verified(line) {
            outcome.verified.push(walked);
        } else if let Some(end) = line
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_prefix("end "))
        {
            let mut words = end.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            let status = words
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(-1);
            let (passed, failed) = counts.take().unwrap_or_default();
            outcome.suites.push(SuiteResult {
                name,
                passed,
                failed,
                status,
            });
        }
    }
    if !console
        .lines()
        .any(|line| line.strip_prefix(MARK) == Some("done"))
    {
        bail!(
            "it didn't get to the end; its last lines:\n{}",
            tail(console, 25)
        );
    }
    Ok(outcome)
}

/// `from_port 34630` of `from_port: 4321 instructions, 34630 walked through`, which a test of the bpf suite prints.
fn verified(line: &str) -> Option<String> {
    let (program, rest) = line.strip_suffix(" walked through")?.split_once(": ")?;
    let (_, walked) = rest.split_once(" instructions, ")?;
    Some(format!("{program} {walked}"))
}

/// Passed and failed of `ok. 31 passed; 0 failed; ...`.
fn numbers(result: &str) -> Option<(u32, u32)> {
    let count = |what: &str| {
        let part = result
            .split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(what));
        part?.trim().parse().ok()
    };
    Some((count("passed")?, count("failed")?))
}

/// What the failed tests said: the console's parts between `failures:` and the result.
pub fn failures(console: &str) -> String {
    let mut shown = String::new();
    let mut is_inside = false;
    for line in console.lines() {
        is_inside = (is_inside || line == "failures:") && !line.starts_with("test result: ");
        if is_inside {
            shown += &format!("{line}\n");
        }
    }
    shown
}

fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "weft-kernels: begin bpf\nrunning 2 tests\n\
        from_port: 4321 instructions, 8154 walked through\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n\
        weft-kernels: end bpf 0 at 9.1 s\nweft-kernels: begin net\n\
        test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.00s\n\
        weft-kernels: end net 0 at 20.0 s\nweft-kernels: done\n";

    #[test]
    fn a_console_says_what_each_suite_did() {
        let outcome = read(GOOD).unwrap();
        assert!(outcome.is_good(&["bpf", "net"]));
        assert!(!outcome.is_good(&["bpf", "contract", "net"]));
        assert_eq!(outcome.suites.len(), 2);
        assert_eq!(
            (outcome.suites[1].passed, outcome.suites[1].name.as_str()),
            (7, "net")
        );
        assert_eq!(outcome.verified, ["from_port 8154"]);
    }

    #[test]
    fn a_kernel_that_dies_half_way_is_an_error_with_its_last_words() {
        let half = GOOD.split("weft-kernels: begin net").next().unwrap();
        let error = read(&format!("{half}Kernel panic - not syncing")).unwrap_err();
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }

    #[test]
    fn a_suite_that_failed_crashed_or_ran_nothing_is_not_good() {
        for (from, to) in [
            ("2 passed; 0 failed", "1 passed; 1 failed"),
            ("end bpf 0", "end bpf 139"),
            ("7 passed", "0 passed"),
            ("test result: ok. 7", "7"),
        ] {
            let outcome = read(&GOOD.replace(from, to)).unwrap();
            assert!(!outcome.is_good(&["bpf", "net"]), "{to}: {outcome:?}");
        }
    }
}
