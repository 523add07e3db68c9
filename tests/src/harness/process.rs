//! Processes: which one a pid is (by its start time), commands with a time limit, and background processes
//! that a later run can find and end if this one dies.
//!
//! State: `processes` in the run's folder has a line for every background process. Used by everything here
//! that runs a program.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait;

/// The file in a run's folder that lists its background processes.
const RECORDS_FILE: &str = "processes";

/// A process and no other: its pid with its start time in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pid: i32,
    start: u64,
}

impl ProcessId {
    /// This process.
    pub fn of_this_process() -> Result<ProcessId> {
        let pid = i32::try_from(std::process::id())?;
        ProcessId::of(pid).context("cannot read this process's start time")
    }

    /// The process that has the pid now; none if there is none, or only its exit status is left.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the name in parentheses may hold anything; state is field 3, start time field 22.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(ProcessId { pid, start })
    }

    /// What [`Display`](fmt::Display) wrote: `PID START`, and perhaps more words.
    pub fn parse(text: &str) -> Option<ProcessId> {
        let mut words = text.split_whitespace();
        Some(ProcessId {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
        })
    }

    /// Whether this very process still runs.
    pub fn is_alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }

    /// Kills the process and waits until it is gone, 5 s at most.
    pub fn kill(self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.is_alive() {
            kill(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
            if Instant::now() > deadline {
                bail!("process {} doesn't end", self.pid);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.pid, self.start)
    }
}

/// The background processes that a run's folder lists.
pub fn recorded(run_folder: &Path) -> Vec<ProcessId> {
    let text = fs::read_to_string(run_folder.join(RECORDS_FILE)).unwrap_or_default();
    text.lines().filter_map(ProcessId::parse).collect()
}

/// What a command that ended left.
#[derive(Debug)]
pub struct Finished {
    /// The command as a person would type it.
    pub what: String,
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything on its stdout.
    pub stdout: String,
    /// Everything on its stderr.
    pub stderr: String,
}

impl Finished {
    /// Its stdout, or an error that holds what it said.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}", self.describe());
        }
        Ok(self.stdout)
    }

    /// Command, status and everything it printed.
    pub fn describe(&self) -> String {
        let said = format!("{}\n{}", self.stderr.trim(), self.stdout.trim());
        let said = said.trim().replace('\n', "\n    ");
        format!("`{}` ended with {}:\n    {said}", self.what, self.status)
    }
}

/// Runs a command to its end and captures what it prints. Fails if it can't be started, or runs too long.
pub fn run(command: Command, limit: Duration) -> Result<Finished> {
    run_with_input(command, "", limit)
}

/// As [`run`], with text for the command's stdin.
pub fn run_with_input(mut command: Command, input: &str, limit: Duration) -> Result<Finished> {
    let what = show(&command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{what}`"))?;
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that doesn't read its input may be gone already: its status says what happened.
        stdin.write_all(input.as_bytes()).ok();
    }
    let ended = wait_for_exit(&mut child, limit);
    if ended.is_err() {
        child.kill().ok();
        child.wait().ok();
    }
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let status = ended.with_context(|| format!("`{what}`: {stderr}{stdout}"))?;
    Ok(Finished {
        what,
        status,
        stdout,
        stderr,
    })
}

/// A process that goes on while the scenario does; dropping it kills it.
#[derive(Debug)]
pub struct Background {
    what: String,
    child: Child,
    log: PathBuf,
    leave: bool,
}

impl Background {
    /// Starts a command with stdout and stderr appended to `log`, and writes it into the run's records.
    pub fn start(mut command: Command, run_folder: &Path, log: &Path) -> Result<Background> {
        let what = show(&command);
        let output = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{what}`"))?;
        let background = Background {
            what,
            child,
            log: log.into(),
            leave: false,
        };
        if let Some(id) = ProcessId::of(background.pid().as_raw()) {
            let records = run_folder.join(RECORDS_FILE);
            let mut file = File::options().create(true).append(true).open(records)?;
            writeln!(file, "{id} {}", background.what)?;
        }
        Ok(background)
    }

    /// Everything that it has printed so far, and what the log held before.
    pub fn printed(&self) -> String {
        fs::read(&self.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// Waits until it has printed `text`; an error if it ends before, or after `limit`.
    pub fn wait_for_text(&mut self, text: &str, limit: Duration) -> Result<()> {
        let log = self.log.clone();
        let what = format!("`{text}` from `{}`", self.what);
        wait::until(&what, limit, || {
            if fs::read_to_string(&log).is_ok_and(|printed| printed.contains(text)) {
                return Ok(Some(()));
            }
            self.check_running()?;
            Ok(None)
        })
    }

    /// An error with the end of its log if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        bail!(
            "`{}` ended with {status}:\n{}",
            self.what,
            tail(&self.printed(), 20)
        )
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot signal `{}`", self.what))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = self.what.clone();
        wait_for_exit(&mut self.child, limit).with_context(|| format!("`{what}`"))
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Leaves it running when this value is dropped.
    pub fn leave(&mut self) {
        self.leave = true;
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.leave {
            self.kill().ok();
        }
    }
}

/// The command as a person would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last lines of a text.
pub fn tail(text: &str, lines_max: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}

fn wait_for_exit(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    wait::until("its end", limit, || Ok(child.try_wait()?))
}

fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
