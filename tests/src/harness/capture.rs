//! Captures by tcpdump, read by tshark: the underlay as other programs see it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::namespace::Namespace;
use super::process::{Background, run};
use super::wait;

/// tcpdump listens 0.1 s after its start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// tshark takes 1 s to start.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Background,
    file: PathBuf,
}

impl Capture {
    /// Captures what fits a tcpdump filter on an interface into `FOLDER/pcap/NAME.pcap`; it listens when this
    /// returns.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        filter: &str,
        (run_folder, name): (&std::path::Path, &str),
    ) -> Result<Capture> {
        let file = run_folder.join("pcap").join(format!("{name}.pcap"));
        let log = run_folder.join("pcap").join(format!("{name}.log"));
        let mut command = namespace.command("tcpdump")?;
        command.args([
            "-n",
            "-U",
            "--immediate-mode",
            "-i",
            interface,
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(&file).arg(filter);
        let mut tcpdump = Background::start(command, run_folder, &log)?;
        tcpdump.wait_for_text("listening on", START_LIMIT)?;
        Ok(Capture { tcpdump, file })
    }

    /// Waits until at least so many bytes of frames were written, then ends it.
    pub fn stop_after_bytes(mut self, bytes: u64, limit: Duration) -> Result<Captured> {
        let file = self.file.clone();
        wait::until(
            &format!("{bytes} bytes in {}", file.display()),
            limit,
            || Ok((std::fs::metadata(&file)?.len() >= bytes).then_some(())),
        )?;
        self.end()
    }

    /// Ends it. Frames of the last milliseconds may be missing.
    pub fn stop(mut self) -> Result<Captured> {
        self.end()
    }

    fn end(&mut self) -> Result<Captured> {
        self.tcpdump.signal(Signal::SIGINT)?;
        let status = self.tcpdump.wait(START_LIMIT)?;
        ensure!(
            status.success(),
            "tcpdump ended with {status}: {}",
            self.tcpdump.printed()
        );
        Ok(Captured {
            file: self.file.clone(),
        })
    }
}

/// A capture that has ended.
#[derive(Debug)]
pub struct Captured {
    file: PathBuf,
}

impl Captured {
    /// For each frame that fits a tshark display filter, these fields (`gre.key`, `ip.src`, ...). A field that
    /// appears twice in a frame holds both values with a comma between.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        let mut command = Command::new("tshark");
        command
            .args(["-n", "-r"])
            .arg(&self.file)
            .args(["-Y", filter, "-T", "fields"]);
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        let shown = run(command, READ_LIMIT)?.success().context("tshark")?;
        Ok(shown
            .lines()
            .map(|line| line.split('\t').map(String::from).collect())
            .collect())
    }
}
