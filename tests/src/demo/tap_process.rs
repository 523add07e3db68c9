//! The process behind the demo's tap: a [`Tap`] in a process of its own, so that it outlives the demo under
//! `--keep`, and a socket by which it is told to ping.
//!
//! One request is one line, `ping ADDRESS COUNT INTERVAL_MS`; the answer is `SENT RECEIVED`, or `error TEXT`.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;

use crate::harness::namespace::Namespace;
use crate::harness::process::Background;
use crate::harness::tap::{Station, Tap};
use crate::harness::traffic::{Ping, PingResult};
use crate::harness::{Judge, Mac, wait};

/// The process is ready 20 ms after its start.
const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What the process is told when it starts.
#[derive(clap::Args)]
pub struct Args {
    /// The host's namespace
    #[arg(long)]
    namespace: String,
    /// Interface to make there
    #[arg(long)]
    interface: String,
    /// The workload's MAC
    #[arg(long)]
    mac: Mac,
    /// The workload's address and prefix length
    #[arg(long)]
    address: Ipv4Net,
    /// The workload's gateway
    #[arg(long)]
    gateway: Option<Ipv4Addr>,
    /// Socket to listen on
    #[arg(long)]
    socket: PathBuf,
}

/// The process, seen from the demo.
pub struct TapProcess {
    process: Background,
    socket: PathBuf,
}

impl TapProcess {
    /// Starts this very program again as the process behind a tap.
    pub fn start(
        run_folder: &Path,
        host: &Namespace,
        interface: &str,
        station: Station,
    ) -> Result<TapProcess> {
        let socket = run_folder.join(format!("{interface}.sock"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "tap-process",
            "--namespace",
            host.name(),
            "--interface",
            interface,
        ]);
        command.args(["--mac", &station.mac.to_string()]);
        command.args(["--address", &station.address.to_string()]);
        if let Some(gateway) = station.gateway {
            command.args(["--gateway", &gateway.to_string()]);
        }
        command.arg("--socket").arg(&socket);
        let log = run_folder.join(format!("{interface}.log"));
        let mut process = Background::start(command, run_folder, &log)?;
        wait::until("the process behind the tap", START_LIMIT, || {
            process.check_running()?;
            Ok(socket.exists().then_some(()))
        })?;
        Ok(TapProcess { process, socket })
    }

    /// Pings from the process.
    pub fn ping(&self, to: Ipv4Addr, ping: Ping) -> Result<PingResult> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        writeln!(
            stream,
            "ping {to} {} {}",
            ping.count,
            ping.interval.as_millis()
        )?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        let numbers = answer.trim().split_once(' ');
        let counts = numbers.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
        let Some((sent, received)) = counts else {
            bail!("the process behind the tap says: {}", answer.trim())
        };
        Ok(PingResult {
            sent,
            received,
            duplicates: 0,
            text: String::new(),
        })
    }

    /// Leaves it running when this value is dropped.
    pub fn leave(&mut self) {
        self.process.leave();
    }
}

/// The process itself: answers until it is killed.
pub fn serve(args: &Args) -> Result<()> {
    let station = Station {
        mac: args.mac,
        address: args.address,
        gateway: args.gateway,
    };
    let judge = Arc::new(Judge::new(&args.interface));
    let namespace = Namespace::existing(&args.namespace);
    let pcap = args.socket.with_extension("pcap");
    let tap = Tap::create(&namespace, &args.interface, station, judge, &pcap)?;
    let listener = UnixListener::bind(&args.socket)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request)?;
        match answer(&tap, request.trim()) {
            Ok(text) => writeln!(stream, "{text}")?,
            Err(error) => writeln!(stream, "error {error:#}")?,
        }
    }
    Ok(())
}

fn answer(tap: &Tap, request: &str) -> Result<String> {
    let words: Vec<&str> = request.split(' ').collect();
    let ["ping", to, count, interval_ms] = words[..] else {
        bail!("not a request: {request}")
    };
    let interval = Duration::from_millis(interval_ms.parse()?);
    let ping = Ping {
        count: count.parse()?,
        interval,
        ..Ping::default()
    };
    let to = to.parse().with_context(|| format!("{to} is no address"))?;
    let result = tap.ping(to, ping)?;
    Ok(format!("{} {}", result.sent, result.received))
}
