//! Remote hosts: what moves below the tunnels, and what flows notice of it.

use super::*;
use weft_common::ecn::ECN_MASK;
use weft_common::peer::{PEER_IPV6, PEER_RESOLVED, PEER_VALID, PeerRecord, address_bytes};
use weft_common::slot::Output;

impl Rig {
    fn peer(&mut self) -> PeerRecord {
        let index = self.engine.peers.hosts[&self.host("h2")].index;
        self.datapath().fake.peers[&index]
    }
}

/// Gives both hosts other addresses, and the way between them.
fn move_hosts(rig: &mut Rig, own: IpAddr, remote: IpAddr) {
    for (name, address) in [("h1", own), ("h2", remote)] {
        let mut host = Host::clone(&rig.model.hosts[&rig.host(name)]);
        host.zones.insert("default".into(), address);
        rig.put(Object::Host(host));
    }
    rig.network.paths.insert(remote, path_to(remote));
    rig.network.asked.push(remote);
    rig.look();
    rig.topology();
}

#[test]
fn an_ipv6_underlay_has_longer_headers() {
    let mut rig = Rig::new();
    let (own, remote) = ("fd30:1::1".parse().unwrap(), "fd30:2::1".parse().unwrap());
    move_hosts(&mut rig, own, remote);
    let record = rig.peer();
    assert_eq!(record.flags, PEER_VALID | PEER_RESOLVED | PEER_IPV6);
    assert_eq!(
        (record.src, record.dst),
        (address_bytes(own), address_bytes(remote))
    );
    let frame = rig.frame("web/near", "icmp 10.0.1.11 > 10.0.1.12");
    rig.send("web/near", &frame);
    // 40 of IPv6, 8 of GRE, 14 of Ethernet.
    assert_eq!(rig.forward("web/near", &frame).unwrap().mtu, 1500 - 62);
    assert!(
        rig.datapath()
            .fake
            .own_addresses
            .contains(&address_bytes(own))
    );
}

#[test]
fn a_host_of_the_other_family_is_not_reached() {
    let mut rig = Rig::new();
    move_hosts(
        &mut rig,
        [172, 30, 1, 1].into(),
        "fd30:2::1".parse().unwrap(),
    );
    let mut records = rig.datapath().fake.peers.values();
    assert!(records.all(|record| record.flags & PEER_VALID == 0));
}

#[test]
fn the_configuration_says_what_is_copied_and_clamped() {
    let mut rig = Rig::new();
    assert_eq!((rig.peer().tos_mask, rig.peer().clamp_mtu), (ECN_MASK, 0));
    rig.engine.tunnel_options = TunnelOptions {
        copy_dscp: true,
        clamp_mss: true,
    };
    rig.look();
    assert_eq!(
        (rig.peer().tos_mask, rig.peer().clamp_mtu),
        (0xff, 1500 - 42)
    );
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
    let moved = IpAddr::from([172, 30, 3, 1]);
    let mut host = Host::clone(&rig.model.hosts[&rig.host("h2")]);
    host.zones.insert("default".into(), moved);
    rig.put(Object::Host(host));
    rig.network.paths.insert(moved, path_to(moved));
    rig.network.asked.push(moved);
    rig.look();
    rig.topology();
    let hosts = &rig.datapath().fake.remote_hosts;
    assert_eq!(hosts.keys().collect::<Vec<_>>(), [&address_bytes(moved)]);
    let after = rig.forward("web/near", &frame).unwrap();
    assert_eq!(after.output, Output::Tunnel as u8);
    // A packet that still goes by the old slot must not reach whoever comes next.
    assert_ne!(after.peer, before);
    assert_eq!(rig.datapath().fake.peers[&before].flags, 0);
    rig.pass(weft_common::limits::SLOT_GRACE_SECS);
    rig.engine.tick();
    assert_eq!(rig.engine.peers.indices.allocate(), Some(before.into()));
}
