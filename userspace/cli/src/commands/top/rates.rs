//! Two samples of an agent's counters as rates per second.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use serde::Serialize;
use weft_api::agent::{DropInfo, FlowInfo, PortInfo, PortState};

/// Counters at one moment.
pub struct Sample {
    pub at: Instant,
    pub ports: Vec<PortInfo>,
    pub flows: Vec<FlowInfo>,
    pub drops: Vec<DropInfo>,
}

/// What happened between two samples, per second.
#[derive(Debug, Default, Serialize)]
pub struct Rates {
    /// Ports that packets pass here.
    pub ports: Vec<PortRate>,
    /// Flows.
    pub flows: Vec<FlowRate>,
    /// Drops by port and reason.
    pub drops: Vec<DropRate>,
}

/// One port.
#[derive(Debug, Serialize)]
pub struct PortRate {
    pub port: String,
    pub ingress_packets_per_sec: f64,
    pub ingress_bits_per_sec: f64,
    pub egress_packets_per_sec: f64,
    pub egress_bits_per_sec: f64,
    pub drops_per_sec: f64,
}

/// One flow.
#[derive(Debug, Serialize)]
pub struct FlowRate {
    #[serde(rename = "match")]
    pub matches: String,
    pub actions: String,
    pub packets_per_sec: f64,
    pub bits_per_sec: f64,
}

/// One reason at one port.
#[derive(Debug, Serialize)]
pub struct DropRate {
    pub port: String,
    pub reason: String,
    pub packets: u64,
    pub packets_per_sec: f64,
}

/// A table for the screen: text cells, with numbers to sort by.
pub struct Table {
    pub title: &'static str,
    pub columns: &'static [&'static str],
    rows: Vec<Vec<Value>>,
}

/// A cell.
enum Value {
    Text(String),
    /// A rate, shown with a prefix: "1.2k".
    Rate(f64),
}

impl Rates {
    /// Rates between two samples. Counters that fell were started anew.
    pub fn between(before: &Sample, now: &Sample) -> Rates {
        let secs = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let rate = move |old: Option<u64>, new: u64| {
            let old = old.unwrap_or(0);
            new.checked_sub(old).unwrap_or(new) as f64 / secs
        };
        let ports = by(&before.ports, |port| port.id.clone());
        let flows = by(&before.flows, |flow| flow.id.clone());
        let drops = by(&before.drops, drop_key);
        let active = now.ports.iter().filter(|it| it.state == PortState::Active);
        let port = |port: &PortInfo| {
            let old = ports.get(&port.id);
            let rate = |of: fn(&PortInfo) -> u64| rate(old.map(|it| of(it)), of(port));
            PortRate {
                port: port.name.clone(),
                ingress_packets_per_sec: rate(|it| it.ingress_packets),
                ingress_bits_per_sec: rate(|it| it.ingress_bytes) * 8.0,
                egress_packets_per_sec: rate(|it| it.egress_packets),
                egress_bits_per_sec: rate(|it| it.egress_bytes) * 8.0,
                drops_per_sec: rate(|it| it.drops),
            }
        };
        let flow = |flow: &FlowInfo| {
            let old = flows.get(&flow.id);
            FlowRate {
                matches: flow.matches.clone(),
                actions: flow.actions.clone(),
                packets_per_sec: rate(old.map(|it| it.packets), flow.packets),
                bits_per_sec: rate(old.map(|it| it.bytes), flow.bytes) * 8.0,
            }
        };
        let drop = |drop: &DropInfo| DropRate {
            port: drop.port.clone().unwrap_or_else(|| "-".into()),
            reason: drop.reason.clone(),
            packets: drop.packets,
            packets_per_sec: rate(
                drops.get(&drop_key(drop)).map(|it| it.packets),
                drop.packets,
            ),
        };
        Rates {
            ports: active.map(port).collect(),
            flows: now.flows.iter().map(flow).collect(),
            drops: now.drops.iter().map(drop).collect(),
        }
    }

    /// The three tables. The last column is the one that tells who is busiest.
    pub fn tables(&self) -> [Table; 3] {
        let port = |it: &PortRate| {
            vec![
                Value::Text(it.port.clone()),
                Value::Rate(it.drops_per_sec),
                Value::Rate(it.ingress_bits_per_sec),
                Value::Rate(it.egress_bits_per_sec),
                Value::Rate(it.ingress_packets_per_sec),
                Value::Rate(it.egress_packets_per_sec),
            ]
        };
        let flow = |it: &FlowRate| {
            let text = format!("{} -> {}", it.matches, it.actions);
            vec![
                Value::Text(text),
                Value::Rate(it.bits_per_sec),
                Value::Rate(it.packets_per_sec),
            ]
        };
        let drop = |it: &DropRate| {
            vec![
                Value::Text(format!("{} {}", it.port, it.reason)),
                Value::Rate(it.packets as f64),
                Value::Rate(it.packets_per_sec),
            ]
        };
        [
            Table {
                title: "ports",
                columns: &[
                    "PORT",
                    "DROPS/S",
                    "IN BIT/S",
                    "OUT BIT/S",
                    "IN P/S",
                    "OUT P/S",
                ],
                rows: self.ports.iter().map(port).collect(),
            },
            Table {
                title: "flows",
                columns: &["FLOW", "BIT/S", "P/S"],
                rows: self.flows.iter().map(flow).collect(),
            },
            Table {
                title: "drops",
                columns: &["PORT AND REASON", "PACKETS", "P/S"],
                rows: self.drops.iter().map(drop).collect(),
            },
        ]
    }
}

impl Table {
    /// Rows as text: by a column of numbers the largest first, by text in its order.
    pub fn sorted(&self, by: usize) -> Vec<Vec<String>> {
        let mut rows: Vec<&Vec<Value>> = self.rows.iter().collect();
        rows.sort_by(|a, b| match (a.get(by), b.get(by)) {
            (Some(Value::Rate(a)), Some(Value::Rate(b))) => b.total_cmp(a),
            (Some(Value::Text(a)), Some(Value::Text(b))) => a.cmp(b),
            _ => std::cmp::Ordering::Equal,
        });
        let cell = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Rate(rate) => with_prefix(*rate),
        };
        let rows = rows.into_iter();
        rows.map(|row| row.iter().map(cell).collect()).collect()
    }
}

fn by<T, K: Hash + Eq>(list: &[T], key: impl Fn(&T) -> K) -> HashMap<K, &T> {
    list.iter().map(|it| (key(it), it)).collect()
}

fn drop_key(drop: &DropInfo) -> (Option<String>, Option<String>, String) {
    (drop.tenant.clone(), drop.port.clone(), drop.reason.clone())
}

/// "7", "1.2k", "34.0M", "5.6G".
fn with_prefix(rate: f64) -> String {
    match rate {
        0.0..1e3 => format!("{rate:.0}"),
        1e3..1e6 => format!("{:.1}k", rate / 1e3),
        1e6..1e9 => format!("{:.1}M", rate / 1e6),
        _ => format!("{:.1}G", rate / 1e9),
    }
}
