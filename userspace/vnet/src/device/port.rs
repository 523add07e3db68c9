//! Ports: where packets enter and leave devices, and where workloads are.
//!
//! No state. Called by [`crate::simulate()`] between the devices.

use super::chains::judge;
use crate::id::PortId;
use crate::policy::Hook;
use crate::simulate::{Cause, Verdict};
use crate::tag::Tag;
use crate::trace::{Step, TraceSink};
use crate::walk::{Next, Walk};
use weft_common::DropReason;

/// A workload sends the packet into this port.
pub(crate) fn enter<T: TraceSink>(walk: &mut Walk<'_, T>, id: PortId) -> Next {
    walk.depends_on(Tag::Port(id));
    tell(walk, id, "in from the workload");
    match walk.snapshot.port(id) {
        Some(port) if port.admin_up => {
            judge(walk, port, Hook::Ingress).unwrap_or(Next::Receive(id))
        }
        _ => walk.drop(DropReason::PortDown, Some(Cause::Port(id))),
    }
}

/// A device sends the packet out of this port: to the workload, or to the device of the peer.
pub(crate) fn leave<T: TraceSink>(walk: &mut Walk<'_, T>, id: PortId) -> Next {
    walk.depends_on(Tag::Port(id));
    let Some(port) = walk.snapshot.port(id) else {
        return walk.drop(DropReason::OutputGone, Some(Cause::Port(id)));
    };
    if !port.admin_up {
        return walk.drop(DropReason::PortDown, Some(Cause::Port(id)));
    }
    let Some(peer) = port.peer else {
        walk.depends_on(Tag::Activity(id));
        if let Some((host, _)) = walk.snapshot.activity(id) {
            walk.depends_on(Tag::Host(host));
        }
        if let Some(end) = judge(walk, port, Hook::Egress) {
            return end;
        }
        tell(walk, id, "out to the workload");
        return Next::Done(Verdict::Deliver(id));
    };
    walk.depends_on(Tag::Port(peer));
    match walk.snapshot.port(peer) {
        None => walk.drop(DropReason::NoPeer, Some(Cause::Port(id))),
        Some(other) if !other.admin_up => walk.drop(DropReason::PortDown, Some(Cause::Port(peer))),
        Some(_) => {
            let model = walk.snapshot.model();
            walk.step(|| Step {
                device: format!("port {}", model.port_path(id)),
                text: format!("over to {}", model.port_path(peer)),
            });
            Next::Receive(peer)
        }
    }
}

fn tell<T: TraceSink>(walk: &mut Walk<'_, T>, id: PortId, text: &str) {
    let model = walk.snapshot.model();
    walk.step(|| Step {
        device: format!("port {}", model.port_path(id)),
        text: text.to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use crate::fixture::Topology;
    use crate::{Cause, Entry, Tag, Verdict};
    use weft_common::DropReason;

    fn down(topology: &Topology, port: &str) -> Verdict {
        let cause = Some(Cause::Port(topology.id(port)));
        Verdict::Drop {
            reason: DropReason::PortDown,
            cause,
        }
    }

    #[test]
    fn a_port_that_is_down_drops_both_ways() {
        let mut topology = Topology::two_subnets();
        let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.1.12");
        topology.change("web/web-1", |port| port.admin_up = false);
        let sent = topology.send_frame("web/web-1", &ping);
        assert_eq!(sent.verdict, down(&topology, "web/web-1"));
        assert!(sent.install && sent.tags.contains(&Tag::Port(topology.id("web/web-1"))));
        let received = topology.send("web/web-2", "icmp 10.0.1.12 > 10.0.1.11");
        assert_eq!(received.verdict, down(&topology, "web/web-1"));
    }

    #[test]
    fn either_side_of_a_peering_can_be_down() {
        for side in ["web/core", "core/web", "core/db", "db/core"] {
            let mut topology = Topology::two_subnets();
            topology.change(side, |port| port.admin_up = false);
            let sent = topology.send("web/web-1", "icmp 10.0.1.11 > 10.0.2.11");
            let Verdict::Drop { reason, cause } = down(&topology, side) else {
                unreachable!("see above")
            };
            // What the packet came to behind the router's port is the router's word to say.
            let expected = match side {
                "core/db" => Verdict::Refuse { reason, cause },
                _ => Verdict::Drop { reason, cause },
            };
            assert_eq!(sent.verdict, expected, "{side}");
        }
    }

    #[test]
    fn a_delivery_depends_on_where_the_port_is_live() {
        let topology = Topology::two_subnets();
        let sent = topology.send("web/web-1", "icmp 10.0.1.11 > 10.0.1.12");
        let port = topology.id("web/web-2");
        assert_eq!(sent.verdict, Verdict::Deliver(port));
        let (host, _) = topology.snapshot().activity(port).unwrap();
        assert!(
            sent.tags
                .is_superset(&[Tag::Activity(port), Tag::Host(host)].into())
        );
    }

    #[test]
    fn an_unknown_port_drops() {
        let topology = Topology::two_subnets();
        let ping = topology.frame("web/web-1", "icmp 10.0.1.11 > 10.0.1.12");
        let stranger = topology.port_object("web/none").id;
        let sent = topology.simulate(Entry::Workload(stranger), &ping);
        assert!(matches!(
            sent.verdict,
            Verdict::Drop {
                reason: DropReason::PortDown,
                ..
            }
        ));
    }
}
