//! Traffic that real programs make: ping and iperf3, and what they say about it.
//!
//! Pure parsing and commands; what the traffic may cause elsewhere is declared by [`Network`](super::Network).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::namespace::Namespace;
use super::process::{Background, run};
use super::wait;

/// Payload bytes that fit into one IPv4 fragment of an interface with MTU 1500.
const FRAGMENT_PAYLOAD: u32 = 1480;
/// The same for IPv6: a fragment header more, and whole units of 8 bytes.
const FRAGMENT_PAYLOAD_V6: u32 = 1448;
/// A sender's and a receiver's buffer at their largest (tcp_wmem, tcp_rmem of Linux 6.18).
const TCP_BUFFERS_BYTES: u64 = (4 + 32) << 20;
/// iperf3 starts and connects within 0.1 s.
const IPERF_START_LIMIT: Duration = Duration::from_secs(5);
/// What iperf3 may take beyond the time or the bytes it was given.
const IPERF_LIMIT: Duration = Duration::from_secs(40);

/// How to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Echo requests.
    pub count: u32,
    /// Between two requests.
    pub interval: Duration,
    /// Bytes of payload behind the ICMP header.
    pub size: u32,
    /// Time to live of the requests.
    pub ttl: u8,
}

impl Default for Ping {
    fn default() -> Ping {
        Ping {
            count: 3,
            interval: Duration::from_millis(100),
            size: 56,
            ttl: 64,
        }
    }
}

impl Ping {
    /// Frames that one request makes at MTU 1500.
    pub fn frames_per_request(&self) -> u64 {
        u64::from((self.size + 8).div_ceil(FRAGMENT_PAYLOAD))
    }

    /// The same for IPv6: no fewer than there are.
    pub fn frames_per_request_v6(&self) -> u64 {
        u64::from((self.size + 8).div_ceil(FRAGMENT_PAYLOAD_V6))
    }

    /// The `ping` command line.
    fn arguments(&self, to: IpAddr) -> Vec<String> {
        let interval = self.interval.as_secs_f64();
        let Ping {
            count, size, ttl, ..
        } = self;
        let patience = wait::scaled(Duration::from_secs(2)).as_secs();
        let line = format!("-n -c {count} -i {interval} -s {size} -t {ttl} -W {patience} {to}");
        line.split(' ').map(String::from).collect()
    }

    /// Runs `ping` in a namespace. Lost packets are no error here.
    pub fn run(&self, from: &Namespace, to: impl Into<IpAddr>) -> Result<PingResult> {
        let mut command = from.command("ping")?;
        command.args(self.arguments(to.into()));
        let limit = Duration::from_secs(20) + self.interval * self.count * 3;
        let done = run(command, limit)?;
        PingResult::parse(&done.stdout).with_context(|| done.describe())
    }
}

/// What came of a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingResult {
    /// Requests sent.
    pub sent: u32,
    /// Requests answered.
    pub received: u32,
    /// Answers beyond the first of each.
    pub duplicates: u32,
    /// All that `ping` printed.
    pub text: String,
}

impl PingResult {
    fn parse(text: &str) -> Result<PingResult> {
        let summary = text
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let summary = summary.context("ping printed no summary")?;
        let number = |word: &str| -> u32 {
            let part = summary.split(", ").find(|part| part.contains(word));
            let digits = part.and_then(|part| part.trim_start_matches('+').split(' ').next());
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        Ok(PingResult {
            sent: number("transmitted"),
            received: number("received"),
            duplicates: number("duplicates"),
            text: text.into(),
        })
    }

    /// Requests without an answer.
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }

    /// An error unless every request was answered, once.
    pub fn all_answered(self) -> Result<PingResult> {
        if self.lost() > 0 || self.duplicates > 0 {
            let PingResult {
                sent,
                received,
                duplicates,
                text,
            } = &self;
            bail!("{sent} sent, {received} answered, {duplicates} duplicates\n{text}");
        }
        Ok(self)
    }
}

/// A `ping` that goes on until it is stopped.
#[derive(Debug)]
pub struct BackgroundPing {
    ping: Background,
}

impl BackgroundPing {
    /// Starts to ping, once in `interval`.
    pub fn start(
        from: &Namespace,
        to: impl Into<IpAddr>,
        interval: Duration,
        run_folder: &Path,
        log: &Path,
    ) -> Result<BackgroundPing> {
        let mut command = from.command("ping")?;
        let interval = interval.as_secs_f64().to_string();
        command.args(["-n", "-i", &interval, &to.into().to_string()]);
        Ok(BackgroundPing {
            ping: Background::start(command, run_folder, log)?,
        })
    }

    /// Stops it. The last request may have had no time for an answer, and doesn't count then.
    pub fn stop(mut self) -> Result<PingResult> {
        self.ping.signal(Signal::SIGINT)?;
        self.ping.wait(Duration::from_secs(5))?;
        let mut result = PingResult::parse(&self.ping.printed())?;
        let last = format!("icmp_seq={} ", result.sent);
        if !result.text.contains(&last) {
            result.sent -= 1;
        }
        Ok(result)
    }
}

/// What iperf3 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iperf {
    /// TCP, or UDP at a rate.
    pub load: Load,
    /// The server sends instead of the client.
    pub reverse: bool,
}

/// How much iperf3 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// TCP: so many bytes.
    TcpBytes(u64),
    /// TCP: as much as goes in this time.
    TcpFor(Duration),
    /// UDP: so many bytes, at so many bits per second, in datagrams that need no fragments.
    Udp {
        /// Bytes in all.
        bytes: u64,
        /// Bits per second.
        rate: u64,
    },
}

/// What iperf3 measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Bytes that the sender gave to its socket.
    pub sent_bytes: u64,
    /// Bytes that the receiver got.
    pub received_bytes: u64,
    /// At the receiver.
    pub bits_per_second: f64,
    /// UDP datagrams lost, in percent.
    pub lost_percent: f64,
    /// TCP segments sent again.
    pub retransmits: u64,
}

impl Iperf {
    /// Runs a server in one namespace and a client in another.
    pub fn run(
        &self,
        (client, server): (&Namespace, &Namespace),
        to: impl Into<IpAddr>,
        run_folder: &Path,
    ) -> Result<Throughput> {
        let to = to.into();
        // A log of its own: "listening" must be this server's word.
        let log = run_folder.join(format!("iperf3-{}.log", server.name()));
        std::fs::remove_file(&log).ok();
        let mut command = server.command("iperf3")?;
        command.args(["-s", "-1", "--forceflush", "-B", &to.to_string()]);
        let mut listening = Background::start(command, run_folder, &log)?;
        listening.wait_for_text("Server listening", IPERF_START_LIMIT)?;
        let mut command = client.command("iperf3")?;
        command
            .args(["-c", &to.to_string(), "-J"])
            .args(self.arguments());
        let done = run(command, IPERF_LIMIT)?;
        let report: Value = serde_json::from_str(&done.stdout).with_context(|| done.describe())?;
        Throughput::parse(&report).with_context(|| done.describe())
    }

    fn arguments(&self) -> Vec<String> {
        let line = match self.load {
            Load::TcpBytes(bytes) => format!("-n {bytes}"),
            Load::TcpFor(time) => format!("-t {}", time.as_secs()),
            Load::Udp { bytes, rate } => format!("-u -n {bytes} -b {rate} -l 1400"),
        };
        let reverse = self.reverse.then_some("-R");
        line.split(' ').chain(reverse).map(String::from).collect()
    }
}

impl Throughput {
    /// An error unless TCP carried so many bytes. iperf3 asks the receiver when all is sent, not when all has
    /// arrived: what both sockets' buffers hold may be missing in its count.
    pub fn carried(&self, bytes: u64) -> Result<()> {
        ensure!(self.sent_bytes >= bytes, "not all was sent: {self:?}");
        ensure!(
            self.received_bytes + TCP_BUFFERS_BYTES >= bytes,
            "too little arrived: {self:?}"
        );
        Ok(())
    }

    fn parse(report: &Value) -> Result<Throughput> {
        if let Some(error) = report["error"].as_str() {
            bail!("iperf3: {error}");
        }
        let end = &report["end"];
        let number = |path: &str| {
            end.pointer(path)
                .and_then(Value::as_f64)
                .with_context(|| format!("no end{path}"))
        };
        if end["sum"].is_object() {
            let sent = number("/sum/bytes")?;
            let lost_percent = number("/sum/lost_percent")?;
            return Ok(Throughput {
                sent_bytes: sent as u64,
                received_bytes: (sent * (1.0 - lost_percent / 100.0)) as u64,
                bits_per_second: number("/sum/bits_per_second")?,
                lost_percent,
                retransmits: 0,
            });
        }
        Ok(Throughput {
            sent_bytes: number("/sum_sent/bytes")? as u64,
            received_bytes: number("/sum_received/bytes")? as u64,
            bits_per_second: number("/sum_received/bits_per_second")?,
            lost_percent: 0.0,
            // Left out where the sender's kernel doesn't tell.
            retransmits: number("/sum_sent/retransmits").unwrap_or(0.0) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_summary_is_read() {
        let text = "PING 10.0.1.12 ...\n\n--- 10.0.1.12 ping statistics ---\n\
            5 packets transmitted, 4 received, +1 duplicates, 20% packet loss, time 804ms\n";
        let result = PingResult::parse(text).unwrap();
        assert_eq!((result.sent, result.received, result.duplicates), (5, 4, 1));
        assert_eq!(result.lost(), 1);
        assert!(result.all_answered().is_err());
        let errors = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2040ms";
        let result = PingResult::parse(errors).unwrap();
        assert_eq!((result.sent, result.received, result.duplicates), (3, 0, 0));
    }

    #[test]
    fn large_pings_are_fragments() {
        let frames = |size| {
            Ping {
                size,
                ..Ping::default()
            }
            .frames_per_request()
        };
        assert_eq!([56, 1472, 1473, 4000, 9000].map(frames), [1, 1, 2, 3, 7]);
    }

    #[test]
    fn iperfs_reports_are_read() {
        let tcp = serde_json::json!({ "end": {
            "sum_sent": { "bytes": 1000 },
            "sum_received": { "bytes": 990, "bits_per_second": 8e9 },
        }});
        let read = Throughput::parse(&tcp).unwrap();
        assert_eq!((read.sent_bytes, read.received_bytes), (1000, 990));
        let udp = serde_json::json!({ "end": {
            "sum": { "bytes": 1000, "lost_percent": 10.0, "bits_per_second": 1e6 },
        }});
        let read = Throughput::parse(&udp).unwrap();
        assert_eq!((read.received_bytes, read.lost_percent), (900, 10.0));
        let failed = serde_json::json!({ "error": "unable to connect", "end": {} });
        assert!(Throughput::parse(&failed).is_err());
    }
}
