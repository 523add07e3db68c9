//! The GRE keys that tcpdump sees between the hosts, beside what `weft ports` says of the egress ports.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::report::KeyReport;
use super::scene::{Scene, topology};
use crate::harness::Capture;

/// Of the 12 directed pairs 8 are between hosts, each with 3 requests and 3 replies of at least 98 bytes in 42 of
/// tunnel and 16 of pcap.
const CAPTURED_BYTES_MIN: u64 = 8 * 6 * (98 + 42 + 16);

/// Starts to capture tunnel packets in the routing namespace, where no program of weft's is.
pub fn capture(scene: &Scene) -> Result<Capture> {
    let network = scene.network();
    Capture::start(
        network.middle(),
        "h2",
        "proto gre",
        (&network.folder(), "gre"),
    )
}

/// For each key that a ping was seen under: the port that `weft ports` shows with it, which must be the one
/// whose workload the ping was for.
pub fn compare(scene: &Scene, capture: Capture) -> Result<Vec<KeyReport>> {
    let captured = capture.stop_after_bytes(CAPTURED_BYTES_MIN, Duration::from_secs(5))?;
    let mut packets: BTreeMap<(String, String), u64> = BTreeMap::new();
    for fields in captured.fields("gre && icmp", &["gre.key", "ip.dst"])? {
        let [key, destinations] = fields.as_slice() else {
            continue;
        };
        *packets
            .entry((key.clone(), destinations.clone()))
            .or_default() += 1;
    }
    let ports = scene.network().weft("h1")?.ports()?;
    let topology = topology();
    let mut reports = Vec::new();
    for ((key, destinations), packets) in packets {
        let (outer, inner) = destinations
            .split_once(',')
            .context("no packet in the tunnel packet")?;
        let spec = topology.ports().iter().find(|port| {
            port.address
                .is_some_and(|address| address.addr().to_string() == inner)
        });
        let path = spec
            .with_context(|| format!("{inner} is no workload's address"))?
            .path();
        let line = ports.iter().find(|line| line.name == path);
        let line = line.with_context(|| format!("`weft ports` doesn't show {path}"))?;
        let said = line
            .tunnel_key
            .with_context(|| format!("{path} has no key"))?;
        ensure!(
            format!("{said:#010x}") == key,
            "a ping for {path} has the GRE key {key}, `weft ports` says {said:#010x}"
        );
        reports.push(KeyReport {
            gre_key: key,
            to: outer.into(),
            port: path,
            weft_ports: line.key.clone().unwrap_or_default(),
            packets,
        });
    }
    ensure!(
        reports.len() == topology.ports().len(),
        "not one key for each workload: {reports:?}"
    );
    Ok(reports)
}
