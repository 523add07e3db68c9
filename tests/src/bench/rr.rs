//! Request and response over TCP: a byte each way, one in flight on each connection, no Nagle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::contestant::{Path, SERVER};
use super::report::{Sample, Unit};
use super::timing::{Timing, Window};

/// A response takes some ten microseconds; a lost packet is sent again after 0.2 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Requests in a second for which each connection has room from the start.
const RATE_EXPECTED: f64 = 100_000.0;

/// What a measurement found.
pub struct Measured {
    per_second: f64,
    /// Nanoseconds of each request that counted, sorted.
    latencies_ns: Vec<u32>,
}

/// Asks over so many connections at once.
pub fn measure(path: &Path, connections: usize, timing: Timing) -> Result<Measured> {
    let listener = path
        .server()
        .enter(|| Ok(TcpListener::bind((SERVER, 0))?))?;
    let to = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..connections {
        let client = path
            .client()
            .enter(|| Ok(TcpStream::connect_timeout(&to, ANSWER_LIMIT)?))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(ANSWER_LIMIT))?;
        }
        pairs.push((client, server));
    }
    let window = timing.begin();
    let asked: Result<Vec<Vec<u32>>> = thread::scope(|scope| {
        let mut clients = Vec::new();
        for (client, server) in pairs {
            scope.spawn(move || answer(server));
            clients.push(scope.spawn(move || ask(client, window)));
        }
        let joined = clients.into_iter().map(|client| client.join());
        joined
            .map(|result| result.map_err(|_| anyhow!("a client panicked"))?)
            .collect()
    });
    let mut latencies_ns = asked?.concat();
    ensure!(!latencies_ns.is_empty(), "no request was answered in time");
    latencies_ns.sort_unstable();
    Ok(Measured {
        per_second: latencies_ns.len() as f64 / window.seconds(),
        latencies_ns,
    })
}

impl Measured {
    /// Rate and percentiles as samples.
    pub fn samples(&self, case: &str) -> Vec<Sample> {
        let sample = |name: &str, unit, value| Sample {
            case: format!("{case}/{name}"),
            unit,
            value,
        };
        vec![
            sample("rate", Unit::PerSecond, self.per_second),
            sample("p50", Unit::Nanoseconds, self.percentile(50)),
            sample("p99", Unit::Nanoseconds, self.percentile(99)),
        ]
    }

    /// The smallest latency that so many percent of the requests don't exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.latencies_ns.len() * percent).div_ceil(100);
        let found = self.latencies_ns.get(rank.saturating_sub(1));
        found.copied().map_or(f64::NAN, f64::from)
    }
}

/// Gives each byte back until the client closes; what fails here the client sees as a missing response.
fn answer(mut server: TcpStream) {
    let mut byte = [0];
    while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
}

fn ask(mut client: TcpStream, window: Window) -> Result<Vec<u32>> {
    let mut latencies_ns = Vec::with_capacity((window.seconds() * RATE_EXPECTED) as usize);
    let mut byte = [7];
    loop {
        let asked = Instant::now();
        if asked >= window.until {
            return Ok(latencies_ns);
        }
        client.write_all(&byte)?;
        client.read_exact(&mut byte).context("no response")?;
        let answered = Instant::now();
        if window.holds(asked, answered) {
            let nanoseconds = (answered - asked).as_nanos();
            latencies_ns.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_latencies_that_were_seen() {
        let measured = |latencies_ns: Vec<u32>| Measured {
            per_second: 1.0,
            latencies_ns,
        };
        let hundred = measured((1..=100).collect());
        assert_eq!(
            (hundred.percentile(50), hundred.percentile(99)),
            (50.0, 99.0)
        );
        let one = measured(vec![7]);
        assert_eq!((one.percentile(50), one.percentile(99)), (7.0, 7.0));
    }
}
