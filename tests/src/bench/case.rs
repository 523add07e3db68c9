//! What is measured: benchmarks, their cases, and the ratios that are wanted.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use super::contestant::{Contestant, Path};
use super::report::{Sample, Unit};
use super::timing::Timing;
use super::{connect, pps, rr};

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Bench {
    /// TCP requests and their responses, a byte each
    Rr,
    /// TCP connections, opened and closed
    Connect,
    /// Small packets one way
    Pps,
}

/// One load of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// So many connections with one request in flight each.
    RequestResponse(usize),
    /// So many threads that connect.
    Connections(usize),
    /// UDP between sockets.
    Sockets,
    /// Whole frames of so many flows, past the sender's stack.
    RawFrames(u16),
}

impl Bench {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Bench::Rr => "rr",
            Bench::Connect => "connect",
            Bench::Pps => "pps",
        }
    }
}

impl Case {
    /// In the order in which they are measured.
    pub const ALL: [Case; 6] = [
        Case::RequestResponse(1),
        Case::RequestResponse(16),
        Case::Connections(16),
        Case::Sockets,
        Case::RawFrames(1),
        Case::RawFrames(10_000),
    ];

    /// Its benchmark.
    pub fn bench(self) -> Bench {
        match self {
            Case::RequestResponse(_) => Bench::Rr,
            Case::Connections(_) => Bench::Connect,
            Case::Sockets | Case::RawFrames(_) => Bench::Pps,
        }
    }

    /// Puts the load on a path, once.
    pub fn measure(self, path: &Path, timing: Timing) -> Result<Vec<Sample>> {
        let one = |case, unit, value| vec![Sample { case, unit, value }];
        Ok(match self {
            Case::RequestResponse(connections) => {
                rr::measure(path, connections, timing)?.samples(&self.to_string())
            }
            Case::Connections(threads) => {
                let rate = connect::measure(path, threads, timing)?;
                one(format!("{self}/rate"), Unit::PerSecond, rate)
            }
            Case::Sockets => {
                let rate = pps::between_sockets(path, timing)?;
                one(self.to_string(), Unit::PacketsPerSecond, rate)
            }
            Case::RawFrames(flows) => {
                let rate = pps::of_raw_frames(path, flows, timing)?;
                one(self.to_string(), Unit::PacketsPerSecond, rate)
            }
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::RequestResponse(connections) => write!(out, "{connections}-in-flight"),
            Case::Connections(threads) => write!(out, "{threads}-parallel"),
            Case::Sockets => write!(out, "socket"),
            Case::RawFrames(flows) => write!(out, "raw-tc/{flows}"),
        }
    }
}

/// The ratio to the limit that is wanted, without policy; none where a case is only shown.
pub fn goal(bench: Bench, case: &str, contestant: Contestant) -> Option<f64> {
    if contestant != Contestant::Weft {
        return None;
    }
    match (bench, case) {
        (Bench::Rr, "1-in-flight/rate") => Some(1.0),
        (Bench::Connect, "16-parallel/rate") => Some(0.97),
        (Bench::Pps, "socket" | "raw-tc/10000") => Some(1.0),
        (Bench::Pps, "raw-tc/1") => Some(1.1),
        _ => None,
    }
}
