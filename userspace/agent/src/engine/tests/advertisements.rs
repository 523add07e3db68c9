//! Routers advertise themselves to the workloads of this host.

use super::*;
use weft_wire::Nd;
use weft_wire::ndp::Message as Said;

/// What was advertised, with the index of the local port that it went to.
fn advertised(rig: &mut Rig) -> Vec<(u16, Option<u32>)> {
    let injected = rig.injected();
    let said = injected.iter().filter_map(|it| {
        let nd = Nd::parse(it.packet.frame.get(14..)?).ok()?;
        let Said::RouterAdvertisement(advertisement) = nd.message else {
            return None;
        };
        Some((it.slot?.port, advertisement.mtu))
    });
    said.collect()
}

#[test]
fn every_local_port_behind_a_router_with_ipv6_hears_of_it_at_once() {
    let mut rig = Rig::new();
    rig.engine.tick();
    assert_eq!(advertised(&mut rig), [], "no router speaks IPv6");
    let mut rig = Rig::new();
    let address = "fd00:1::1/64".parse().unwrap();
    rig.change("core/web", |port| port.addresses.push(address));
    rig.topology();
    rig.engine.tick();
    // Not `web/far`, which is on another host, and not those of bridges without such a router.
    let mtu = rig.engine.overlay_mtu().map(u32::from);
    assert!(mtu.is_some());
    let expected = vec![(rig.index("web/near"), mtu)];
    assert_eq!(advertised(&mut rig), expected);
    // The next one is some seconds away.
    rig.engine.tick();
    assert_eq!(advertised(&mut rig), []);
}
