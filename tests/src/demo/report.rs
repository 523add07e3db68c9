//! What the demo shows at its end, for people and for machines.

use std::fmt;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

/// All results.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Pings between all pairs.
    pub pings: Vec<PingReport>,
    /// iperf3.
    pub throughput: ThroughputReport,
    /// Installed flows.
    pub flows: Vec<HostFlows>,
    /// One trace.
    pub trace: TraceReport,
    /// Keys on the wire.
    pub gre_keys: Vec<KeyReport>,
    /// What the demo took.
    pub seconds: f64,
    /// What set-up and build before it took, if xtask said so.
    pub prepare_seconds: Option<f64>,
}

/// One directed pair.
#[derive(Debug, Serialize)]
pub struct PingReport {
    /// Workload that pings.
    pub from: String,
    /// Workload that answers.
    pub to: String,
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
}

/// iperf3's TCP stream in Gbit/s, each round, and the medians.
#[derive(Debug, Serialize)]
pub struct ThroughputReport {
    /// Over the overlay, web-1 to web-2.
    pub overlay_gbit_per_s: Vec<f64>,
    /// Over plain bridges.
    pub plain_gbit_per_s: Vec<f64>,
    /// Median over median.
    pub ratio: f64,
}

/// The flows of one host.
#[derive(Debug, Serialize)]
pub struct HostFlows {
    /// The host.
    pub host: String,
    /// As `weft flows -o json` shows them.
    pub flows: Vec<Value>,
    /// As `weft flows` shows them.
    #[serde(skip)]
    pub text: String,
}

/// A traced packet.
#[derive(Debug, Serialize)]
pub struct TraceReport {
    /// What to type.
    pub command: String,
    /// As `weft trace -o json` shows it.
    pub trace: Value,
    /// As `weft trace` shows it.
    #[serde(skip)]
    pub text: String,
}

/// A key on the wire.
#[derive(Debug, Serialize)]
pub struct KeyReport {
    /// As tshark shows it.
    pub gre_key: String,
    /// Outer destination.
    pub to: String,
    /// The port whose workload the packets were for.
    pub port: String,
    /// Its key as `weft ports` shows it.
    pub weft_ports: String,
    /// Pings seen under it.
    pub packets: u64,
}

impl ThroughputReport {
    /// From the rounds of each path.
    pub fn new(overlay_gbit_per_s: Vec<f64>, plain_gbit_per_s: Vec<f64>) -> ThroughputReport {
        let ratio = median(&overlay_gbit_per_s) / median(&plain_gbit_per_s);
        ThroughputReport {
            overlay_gbit_per_s,
            plain_gbit_per_s,
            ratio,
        }
    }
}

impl Report {
    /// Prints it to stdout.
    pub fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            let mut value = serde_json::to_value(self)?;
            value["ok"] = json!(true);
            println!("{}", serde_json::to_string_pretty(&value)?);
        } else {
            print!("{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Ping between all pairs (answered/sent):")?;
        for PingReport {
            from,
            to,
            sent,
            received,
        } in &self.pings
        {
            writeln!(out, "  {from} > {to}: {received}/{sent}")?;
        }
        let ThroughputReport {
            overlay_gbit_per_s,
            plain_gbit_per_s,
            ratio,
        } = &self.throughput;
        writeln!(out, "\niperf3, one TCP stream, Gbit/s:")?;
        writeln!(
            out,
            "  over the overlay     {}",
            numbers(overlay_gbit_per_s)
        )?;
        writeln!(out, "  over plain bridges   {}", numbers(plain_gbit_per_s))?;
        writeln!(out, "  medians' ratio       {ratio:.2}")?;
        writeln!(
            out,
            "\nGRE keys on the wire, and the port that `weft ports` shows with each:"
        )?;
        for KeyReport {
            gre_key,
            to,
            port,
            weft_ports,
            packets,
        } in &self.gre_keys
        {
            writeln!(
                out,
                "  {gre_key} to {to}: {port} = {weft_ports} ({packets} packets)"
            )?;
        }
        for HostFlows { host, text, flows } in &self.flows {
            writeln!(
                out,
                "\nweft flows, {host} ({} flows):\n{}",
                flows.len(),
                indent(text)
            )?;
        }
        writeln!(
            out,
            "\n{}:\n{}\n",
            self.trace.command,
            indent(&self.trace.text)
        )?;
        write!(out, "demo: took {:.0} s", self.seconds)?;
        if let Some(prepare) = self.prepare_seconds {
            write!(out, ", set-up and build before it {prepare:.0} s")?;
        }
        writeln!(out)
    }
}

fn numbers(values: &[f64]) -> String {
    values
        .iter()
        .map(|value| format!("{value:6.2}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn indent(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let report = ThroughputReport::new(vec![9.0, 1.0, 10.0], vec![10.0, 30.0, 9.0]);
        assert_eq!(report.ratio, 0.9);
    }
}
