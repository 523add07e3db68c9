//! Remote hosts: what moves below the tunnels, and what flows notice of it.

use super::*;
use weft_common::peer::{PEER_RESOLVED, PEER_VALID};
use weft_common::slot::Output;

impl Rig {
    fn peer(&mut self) -> weft_common::peer::PeerRecord {
        let index = self.engine.peers.hosts[&self.host("h2")].index;
        self.datapath().fake.peers[&index]
    }
}

#[test]
fn a_gateway_that_changes_its_mac_touches_no_flow() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame);
    assert_eq!(rig.peer().dst_mac, GATEWAY);
    rig.datapath().log.clear();
    let resolved = PEER_VALID | PEER_RESOLVED;
    for (mac, flags) in [
        (Some([2, 0, 0, 0, 1, 2]), resolved),
        (None, PEER_VALID),
        (Some(GATEWAY), resolved),
    ] {
        let path = rig.network.paths.get_mut(&H2).unwrap();
        path.next_hop_mac = mac;
        rig.look();
        let peer = rig.peer();
        assert_eq!((peer.dst_mac, peer.flags), (mac.unwrap_or_default(), flags));
    }
    assert_eq!(rig.datapath().log, []);
    assert_eq!(rig.forward("web/near", &frame), before);
}

#[test]
fn a_host_that_is_out_of_reach_is_a_named_drop() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    rig.network.paths.clear();
    rig.look();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(
        (slot.output, slot.drop_reason),
        (Output::Drop as u8, DropReason::PeerUnknown as u8)
    );
    assert_eq!(rig.peer().flags, 0);
    rig.network.paths.insert(H2, path_to(H2));
    rig.look();
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(slot.output, Output::Tunnel as u8);
}

#[test]
fn a_smaller_way_is_a_smaller_guard() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame).unwrap();
    rig.network.paths.get_mut(&H2).unwrap().mtu = 1400;
    rig.look();
    let after = rig.forward("web/near", &frame).unwrap();
    assert_eq!(after.mtu, before.mtu - 100);
}

#[test]
fn a_host_with_another_address_is_another_record() {
    let mut rig = Rig::new();
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    let before = rig.forward("web/near", &frame).unwrap().peer;
    let moved = Ipv4Addr::new(172, 30, 3, 1);
    let mut host = Host::clone(&rig.model.hosts[&rig.host("h2")]);
    host.zones.insert("default".into(), moved);
    rig.put(Object::Host(host));
    rig.network.paths.insert(moved, path_to(moved));
    rig.network.asked.push(moved);
    rig.look();
    rig.topology();
    let hosts = &rig.datapath().fake.remote_hosts;
    assert_eq!(hosts.keys().collect::<Vec<_>>(), [&moved.octets()]);
    let after = rig.forward("web/near", &frame).unwrap();
    assert_eq!(after.output, Output::Tunnel as u8);
    // A packet that still goes by the old slot must not reach whoever comes next.
    assert_ne!(after.peer, before);
    assert_eq!(rig.datapath().fake.peers[&before].flags, 0);
    rig.pass(weft_common::limits::SLOT_GRACE_SECS);
    rig.engine.tick();
    assert_eq!(rig.engine.peers.indices.allocate(), Some(before.into()));
}
