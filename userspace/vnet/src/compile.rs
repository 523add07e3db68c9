//! From a decision to what the kernel of one host executes.
//!
//! No state. Called by the agent when it installs a flow, and when outputs move.

use crate::id::{BridgeId, HostId, PortId};
use crate::simulate::{Member, Outcome, Verdict};
use crate::snapshot::Snapshot;
use std::collections::HashMap;
use weft_common::slot::{Choice, Output, SET_MACS};
use weft_common::{DropReason, Slot};

/// A remote host in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Index of its underlay record.
    pub index: u16,
    /// Largest inner L3 packet on the way to it, in bytes.
    pub mtu: u16,
}

/// Where outputs are in the kernel's tables of one host.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Index of each port that is live here.
    pub ports: HashMap<PortId, u16>,
    /// Each remote host that can be reached.
    pub peers: HashMap<HostId, Peer>,
    /// Index of each flood domain's published list.
    pub flood_lists: HashMap<BridgeId, u32>,
}

/// The slot that carries out `outcome` on `host`, with generation 0. An output that isn't there becomes a drop:
/// [`DropReason::PortUnbound`], [`DropReason::PeerUnknown`] or [`DropReason::OutputGone`].
///
/// What is refused becomes [`Output::Agent`], with the reason for the packets that are too many for an answer.
/// What may not be installed becomes [`Output::Agent`], or, for a drop, that drop. A choice has group 0: the group is
/// made of the [`compile_member`]s by whoever keeps the groups.
pub fn compile(
    outcome: &Outcome,
    snapshot: &Snapshot,
    host: HostId,
    placement: &Placement,
) -> Slot {
    let mut slot = match &outcome.verdict {
        Verdict::Deliver(port) => deliver(*port, snapshot, host, placement),
        Verdict::Flood { domain } => flood(*domain, snapshot, host, placement),
        Verdict::Drop { reason, cause: _ } => drop(*reason),
        // Guards and rewrite are the members'.
        Verdict::Select(_) => {
            return Slot {
                choice: Choice::Select as u8,
                ..Slot::default()
            };
        }
        Verdict::Refuse { reason, cause: _ } => Slot {
            output: Output::Agent as u8,
            drop_reason: *reason as u8,
            ..Slot::default()
        },
        Verdict::Answered | Verdict::Wait { .. } => Slot {
            output: Output::Agent as u8,
            ..Slot::default()
        },
    };
    slot.ttl_decrement = outcome.ttl_decrement;
    if let Some((source, destination)) = outcome.macs {
        slot.flags |= SET_MACS;
        slot.src_mac = source.0;
        slot.dst_mac = destination.0;
    }
    slot
}

/// The slot of one of the ways that a choice leads to, likewise. What may not be installed is for the agent.
pub fn compile_member(
    member: &Member,
    snapshot: &Snapshot,
    host: HostId,
    placement: &Placement,
) -> Slot {
    if member.outcome.install {
        return compile(&member.outcome, snapshot, host, placement);
    }
    Slot {
        output: Output::Agent as u8,
        ..Slot::default()
    }
}

fn drop(reason: DropReason) -> Slot {
    Slot {
        output: Output::Drop as u8,
        drop_reason: reason as u8,
        ..Slot::default()
    }
}

fn deliver(port: PortId, snapshot: &Snapshot, host: HostId, placement: &Placement) -> Slot {
    if let Some(&index) = placement.ports.get(&port) {
        return Slot {
            output: Output::Local as u8,
            port: index,
            ..Slot::default()
        };
    }
    let Some((egress_host, tunnel_key)) = snapshot.activity(port) else {
        return drop(DropReason::PortUnbound);
    };
    if egress_host == host {
        return drop(DropReason::OutputGone);
    }
    match placement.peers.get(&egress_host) {
        Some(&Peer { index, mtu }) => Slot {
            output: Output::Tunnel as u8,
            peer: index,
            mtu,
            tunnel_key,
            ..Slot::default()
        },
        None => drop(DropReason::PeerUnknown),
    }
}

fn flood(domain: BridgeId, snapshot: &Snapshot, host: HostId, placement: &Placement) -> Slot {
    let Some(&flood_list) = placement.flood_lists.get(&domain) else {
        return drop(DropReason::OutputGone);
    };
    // All copies or none: a frame that is too long for one host is for the agent.
    let remote = snapshot
        .flood_hosts(domain)
        .filter(|(remote, _)| *remote != host);
    let mtus = remote
        .filter_map(|(remote, _)| placement.peers.get(&remote))
        .map(|peer| peer.mtu);
    let mtu = mtus.min().unwrap_or(0);
    Slot {
        output: Output::Flood as u8,
        flood_list,
        mtu,
        ..Slot::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Topology;
    use crate::snapshot::Activity;
    use std::sync::Arc;
    use weft_common::TunnelKey;

    struct Compiled {
        topology: Topology,
        snapshot: Snapshot,
        placement: Placement,
    }

    impl Compiled {
        /// The two subnets, seen from `h1`: `h2` can be reached, and takes floods of `web`.
        fn new() -> Self {
            let topology = Topology::two_subnets();
            let h2 = host(&topology, "h2");
            let floods = [(
                (topology.domain("web"), h2),
                TunnelKey {
                    index: 9,
                    generation: 1,
                }
                .bits(),
            )];
            let activity = Activity {
                floods: floods.into(),
                ..topology.snapshot().all_activity().clone()
            };
            let snapshot = Snapshot::build(Arc::new(topology.model.clone()), activity);
            let local = ["web/web-1", "db/db-1"].map(|path| topology.id(path));
            let placement = Placement {
                ports: local.into_iter().zip(1..).collect(),
                peers: [(
                    h2,
                    Peer {
                        index: 5,
                        mtu: 1458,
                    },
                )]
                .into(),
                flood_lists: [(topology.domain("web"), 3)].into(),
            };
            Compiled {
                topology,
                snapshot,
                placement,
            }
        }

        fn slot(&self, text: &str) -> Slot {
            let outcome = self.topology.send("web/web-1", text);
            compile(
                &outcome,
                &self.snapshot,
                host(&self.topology, "h1"),
                &self.placement,
            )
        }
    }

    fn host(topology: &Topology, name: &str) -> HostId {
        topology
            .model
            .hosts
            .values()
            .find(|it| it.name == name)
            .unwrap()
            .id
    }

    fn dropped(reason: DropReason) -> Slot {
        Slot {
            output: Output::Drop as u8,
            drop_reason: reason as u8,
            ..Slot::default()
        }
    }

    const NEAR: &str = "icmp 10.0.1.11 > 10.0.1.12";
    const REQUEST: &str = "arp 10.0.1.11 who-has 10.0.1.99";

    #[test]
    fn a_local_port_is_an_index() {
        let compiled = Compiled::new();
        let slot = compiled.slot("icmp 10.0.1.11 > 10.0.2.11");
        let expected = Slot {
            output: Output::Local as u8,
            port: 2,
            ttl_decrement: 1,
            flags: SET_MACS,
            src_mac: compiled.topology.mac("core/db").0,
            dst_mac: compiled.topology.mac("db/db-1").0,
            ..Slot::default()
        };
        assert_eq!(slot, expected);
    }

    #[test]
    fn a_remote_port_is_a_tunnel_with_its_key_and_mtu() {
        let compiled = Compiled::new();
        let (_, tunnel_key) = compiled
            .snapshot
            .activity(compiled.topology.id("web/web-2"))
            .unwrap();
        let output = Output::Tunnel as u8;
        let expected = Slot {
            output,
            peer: 5,
            mtu: 1458,
            tunnel_key,
            ..Slot::default()
        };
        assert_eq!(compiled.slot(NEAR), expected);
    }

    #[test]
    fn a_flood_is_a_list_with_the_smallest_mtu() {
        let compiled = Compiled::new();
        let output = Output::Flood as u8;
        let expected = Slot {
            output,
            flood_list: 3,
            mtu: 1458,
            ..Slot::default()
        };
        assert_eq!(compiled.slot(REQUEST), expected);
    }

    #[test]
    fn outputs_that_are_not_there_are_named_drops() {
        let mut compiled = Compiled::new();
        compiled.placement.peers.clear();
        assert_eq!(compiled.slot(NEAR), dropped(DropReason::PeerUnknown));
        compiled.placement.flood_lists.clear();
        assert_eq!(compiled.slot(REQUEST), dropped(DropReason::OutputGone));
        compiled.placement.ports.clear();
        let gone = Slot {
            ttl_decrement: 0,
            flags: 0,
            ..compiled.slot("icmp 10.0.1.11 > 10.0.2.11")
        };
        assert_eq!(
            (gone.output, gone.drop_reason),
            (0, DropReason::OutputGone as u8)
        );
        let model = compiled.snapshot.shared_model().clone();
        compiled.snapshot = Snapshot::build(model, Activity::default());
        assert_eq!(compiled.slot(NEAR), dropped(DropReason::PortUnbound));
    }

    #[test]
    fn drops_keep_their_reason_and_answers_go_to_the_agent() {
        let compiled = Compiled::new();
        let slot = compiled.slot("icmp 10.0.1.11 > 192.0.2.1");
        let told = Slot {
            output: Output::Agent as u8,
            ..dropped(DropReason::NoRoute)
        };
        assert_eq!(slot, told);
        let slot = compiled.slot("icmp 10.0.1.11 > 224.0.0.5");
        assert_eq!(slot, dropped(DropReason::RouterLocal));
        let slot = compiled.slot("icmp 10.0.1.11 > 10.0.1.1");
        assert_eq!(slot.output, Output::Agent as u8);
    }
}
