//! What a network under test does over IPv6: the counterparts of what it does over IPv4.

use std::net::Ipv6Addr;

use anyhow::{Context, Result};

use super::{EchoKind, Network, WORKLOAD_INTERFACE, expect_echo};
use crate::harness::namespace::Namespace;
use crate::harness::topology::PortSpec;
use crate::harness::traffic::{Iperf, Ping, PingResult, Throughput};

impl Network {
    /// Like [`Network::ping_with`], over IPv6.
    pub fn ping_v6_with(&self, from: &str, to: &str, ping: Ping) -> Result<PingResult> {
        let (source, target) = (self.workload(from)?, self.workload(to)?);
        let pair = (source.address_v6()?, target.address_v6()?);
        let frames = u64::from(ping.count) * ping.frames_per_request_v6();
        expect_echo(&target.judge, EchoKind::Request, pair, frames);
        expect_echo(&source.judge, EchoKind::Reply, (pair.1, pair.0), frames);
        ping.run(source.namespace()?, pair.1)
    }

    /// Pings a workload from another over IPv6; every request must be answered, once.
    pub fn ping_v6(&self, from: &str, to: &str) -> Result<()> {
        let result = self.ping_v6_with(from, to, Ping::default())?;
        let answered = result.all_answered().map(drop);
        answered.with_context(|| format!("ping from {from} to {to} over IPv6"))
    }

    /// Pings an IPv6 address that belongs to the network itself, a router's; the answer is expected at `own`.
    pub fn ping_router_v6(
        &self,
        from: &str,
        router: Ipv6Addr,
        own: Ipv6Addr,
        ping: Ping,
    ) -> Result<PingResult> {
        let source = self.workload(from)?;
        let frames = u64::from(ping.count) * ping.frames_per_request_v6();
        expect_echo(&source.judge, EchoKind::Reply, (router, own), frames);
        ping.run(source.namespace()?, router)
    }

    /// Runs iperf3 from a workload to another over IPv6.
    pub fn iperf_v6(&self, from: &str, to: &str, iperf: Iperf) -> Result<Throughput> {
        let (client, server) = (self.workload(from)?, self.workload(to)?);
        let pair = (client.address_v6()?.into(), server.address_v6()?.into());
        self.expect_iperf_between((client, server), pair);
        iperf
            .run(
                (client.namespace()?, server.namespace()?),
                pair.1,
                &self.folder(),
            )
            .with_context(|| format!("iperf3 from {from} to {to} over IPv6"))
    }
}

/// Switches IPv6 on in a workload that has it. Nobody tests for duplicates of addresses that the scenario gives; one
/// that configures itself does, and asks for routers.
pub(super) fn start(
    namespace: &Namespace,
    spec: &PortSpec,
    gateway: Option<Ipv6Addr>,
) -> Result<Vec<String>> {
    if spec.address_v6.is_none() && !spec.autoconf {
        return Ok(Vec::new());
    }
    let autoconf = if spec.autoconf { "1" } else { "0" };
    let settings = [
        ("accept_ra", autoconf),
        (
            "router_solicitations",
            if spec.autoconf { "-1" } else { "0" },
        ),
        ("accept_dad", autoconf),
        ("disable_ipv6", "0"),
    ];
    for (setting, value) in settings {
        let path = format!("net/ipv6/conf/{WORKLOAD_INTERFACE}/{setting}");
        namespace.sysctl(&path, value)?;
    }
    let Some(address) = spec.address_v6 else {
        return Ok(Vec::new());
    };
    let mut commands = vec![format!("addr add {address} dev {WORKLOAD_INTERFACE} nodad")];
    commands.extend(gateway.map(|via| format!("route add default via {via}")));
    Ok(commands)
}
