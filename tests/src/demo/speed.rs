//! iperf3 over the overlay, and over plain bridges in the same run, by turns: what lies around both is the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use super::report::ThroughputReport;
use super::scene::Scene;
use crate::harness::{Iperf, Load, Namespace};

const ROUNDS: usize = 3;
const ROUND_TIME: Duration = Duration::from_secs(2);
const OVERLAY_TARGET: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);
const PLAIN_TARGET: Ipv4Addr = Ipv4Addr::new(10, 9, 2, 11);

/// Measures web-1 to web-2, and the plain path, [`ROUNDS`] times each.
pub fn compare(scene: &Scene) -> Result<ThroughputReport> {
    let network = scene.network();
    let overlay_ends = (
        network.workload("web-1")?.namespace()?,
        network.workload("web-2")?.namespace()?,
    );
    let plain_ends = (&scene.plain()[0], &scene.plain()[1]);
    let measure = |ends: (&Namespace, &Namespace), to| -> Result<f64> {
        let iperf = Iperf {
            load: Load::TcpFor(ROUND_TIME),
            reverse: false,
        };
        Ok(iperf.run(ends, to, &network.folder())?.bits_per_second / 1e9)
    };
    let (mut overlay, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        overlay.push(measure(overlay_ends, OVERLAY_TARGET)?);
        plain.push(measure(plain_ends, PLAIN_TARGET)?);
    }
    Ok(ThroughputReport::new(overlay, plain))
}
