//! What the kernel is told to answer.

use super::{Rig, STRANGER};
use std::net::IpAddr;
use weft_common::limits::PORTS_MAX;
use weft_common::neighbour::{Asker, HEARS, Neighbour, NeighbourKey, ROUTER};
use weft_common::peer::address_bytes;
use weft_datapath::Datapath;
use weft_vnet::{Mac, Object, Operation};

impl Rig {
    fn neighbour_key(&self, bridge: &str, address: &str) -> NeighbourKey {
        NeighbourKey {
            domain: self.bridge_id(bridge).0.into_bytes(),
            address: address_bytes(address.parse::<IpAddr>().unwrap()),
        }
    }

    /// What the kernel says to a request out of the port.
    fn kernel_says(&mut self, path: &str, address: &str) -> Option<Mac> {
        let index = self.index(path);
        let fake = &self.datapath().fake;
        let key = NeighbourKey {
            domain: fake.askers.get(&index)?.domain,
            address: address_bytes(address.parse::<IpAddr>().unwrap()),
        };
        let found = fake.neighbours.get(&key)?;
        (found.owner != u32::from(index)).then_some(Mac(found.mac))
    }

    /// What the engine says to it.
    fn engine_says(&mut self, path: &str, address: &str) -> Option<Mac> {
        let frame = self.frame(path, &format!("arp 10.0.1.200 who-has {address}"));
        self.injected();
        self.send(path, &frame);
        let sent = self.injected();
        let answer = sent
            .iter()
            .find(|it| it.port == 0 && it.packet.frame[21] == 2)?;
        Some(Mac(answer.packet.frame[6..12].try_into().unwrap()))
    }

    fn remove(&mut self, path: &str) {
        let (kind, id) = (weft_vnet::Kind::Port, self.id(path).0);
        let deleted = self.model.apply(&[Operation::Delete { kind, id }]);
        self.model = deleted.unwrap();
        self.model.revision += 1;
    }
}

#[test]
fn the_kernel_says_what_the_engine_would() {
    let mut rig = Rig::new();
    let mut answered = 0;
    for path in ["web/near", "db/near"] {
        for address in [
            "10.0.1.1",
            "10.0.1.11",
            "10.0.1.12",
            "10.0.1.13",
            "10.0.2.1",
            "10.0.2.11",
            "10.0.9.9",
        ] {
            let kernel = rig.kernel_says(path, address);
            assert_eq!(kernel, rig.engine_says(path, address), "{path}: {address}");
            answered += usize::from(kernel.is_some());
        }
    }
    assert_eq!(answered, 3);
    // What is said there teaches the network something.
    for path in ["db/guest", "lab/one"] {
        assert_eq!(rig.kernel_says(path, "10.0.2.1"), None, "{path}");
    }
}

#[test]
fn entries_say_whose_they_are_and_whether_it_is_a_router() {
    let mut rig = Rig::new();
    let near = u32::from(rig.index("web/near"));
    let expected = [
        ("10.0.1.1", rig.mac("core/web"), ROUTER | HEARS, 0),
        ("10.0.1.11", rig.mac("web/near"), 0, near),
        ("10.0.1.12", rig.mac("web/far"), 0, 0),
    ];
    for (address, mac, flags, owner) in expected {
        let neighbour = Neighbour {
            mac: mac.0,
            flags,
            spare: 0,
            owner,
        };
        let key = rig.neighbour_key("web", address);
        assert_eq!(
            rig.datapath().fake.neighbours.get(&key),
            Some(&neighbour),
            "{address}"
        );
    }
    let asker = Asker {
        domain: rig.bridge_id("web").0.into_bytes(),
        mac: rig.mac("web/near").0,
        spare: [0; 2],
    };
    assert_eq!(rig.datapath().fake.askers.get(&(near as u16)), Some(&asker));
    // A network without a workload that asks.
    let lab = rig.bridge_id("lab").0.into_bytes();
    let mut keys = rig.datapath().fake.neighbours.keys();
    assert!(keys.all(|key| key.domain != lab));
}

#[test]
fn entries_follow_the_topology() {
    let mut rig = Rig::new();
    rig.change("web/far", |port| port.mac = STRANGER);
    rig.topology();
    assert_eq!(rig.kernel_says("web/near", "10.0.1.12"), Some(STRANGER));
    rig.change("web/far", |port| {
        port.addresses = vec!["10.0.1.13".parse().unwrap()]
    });
    rig.topology();
    assert_eq!(rig.kernel_says("web/near", "10.0.1.12"), None);
    assert_eq!(rig.kernel_says("web/near", "10.0.1.13"), Some(STRANGER));
    // Of a router that can't be reached addresses are known all the same, but it doesn't hear.
    let key = rig.neighbour_key("web", "10.0.1.1");
    let hears = |rig: &mut Rig| rig.datapath().fake.neighbours[&key].flags & HEARS != 0;
    assert!(hears(&mut rig));
    rig.change("web/core", |port| port.admin_up = false);
    rig.topology();
    assert!(!hears(&mut rig));
    rig.remove("web/far");
    rig.topology();
    assert_eq!(rig.kernel_says("web/near", "10.0.1.13"), None);
    // A port that speaks for anyone, or for nobody, isn't answered, and its network is nobody's.
    rig.change("web/near", |port| port.addresses.clear());
    rig.topology();
    let index = rig.index("web/near");
    assert_eq!(rig.datapath().asker(index).unwrap(), Asker::default());
    let web = rig.bridge_id("web").0.into_bytes();
    assert!(
        rig.datapath()
            .fake
            .neighbours
            .keys()
            .all(|key| key.domain != web)
    );
}

/// A route for a router's own address alone changes who is told what, and nothing else of the network.
#[test]
fn a_route_for_the_address_alone_is_seen() {
    let mut rig = Rig::new();
    let key = rig.neighbour_key("web", "10.0.1.1");
    let mut router = weft_vnet::Router::clone(rig.model.routers.values().next().unwrap());
    router.routes.push(weft_vnet::Route {
        to: "10.0.1.1/32".parse().unwrap(),
        from: Some("10.0.1.0/24".parse().unwrap()),
        action: weft_vnet::RouteAction::Blackhole,
        weight: 100,
    });
    rig.put(Object::Router(router));
    rig.topology();
    assert_eq!(rig.datapath().fake.neighbours[&key].flags, ROUTER);
}

#[test]
fn an_earlier_agents_entries_are_answered_until_this_one_knows_better() {
    let mut before = Rig::new();
    let (neighbours, askers) = {
        let fake = &before.datapath().fake;
        (fake.neighbours.clone(), fake.askers.clone())
    };
    let mut rig = Rig::empty(None);
    let stale = NeighbourKey {
        domain: [9; 16],
        address: [9; 16],
    };
    let old_port = PORTS_MAX as u16 - 1;
    {
        let fake = &mut rig.datapath().fake;
        fake.neighbours = neighbours.clone();
        fake.neighbours.insert(stale, Neighbour::default());
        fake.askers = askers;
        let asker = Asker {
            domain: [9; 16],
            ..Asker::default()
        };
        fake.askers.insert(old_port, asker);
    }
    rig.look();
    assert!(rig.datapath().fake.neighbours.contains_key(&stale));
    rig.model = before.model.clone();
    rig.network = before.network.clone();
    for (name, link) in before.network.links.clone() {
        rig.datapath().fake.add_interface(&name, link.ifindex);
    }
    rig.look();
    rig.topology();
    assert_eq!(rig.datapath().fake.neighbours.len(), neighbours.len());
    assert!(!rig.datapath().fake.neighbours.contains_key(&stale));
    assert_eq!(rig.datapath().asker(old_port).unwrap(), Asker::default());
    assert_eq!(
        rig.kernel_says("web/near", "10.0.1.12"),
        Some(rig.mac("web/far"))
    );
}

#[test]
fn a_port_that_is_unbound_is_answered_no_more() {
    let mut rig = Rig::new();
    let index = rig.index("web/near");
    rig.change("web/near", |port| port.binding = None);
    rig.topology();
    assert_eq!(rig.datapath().asker(index).unwrap(), Asker::default());
    let web = rig.bridge_id("web").0.into_bytes();
    assert!(
        rig.datapath()
            .fake
            .neighbours
            .keys()
            .all(|key| key.domain != web)
    );
}

/// What the kernel has no room for is the engine's to answer; it is said, and tried again.
#[test]
fn a_full_table_leaves_the_rest_to_the_agent() {
    let mut rig = Rig::new();
    let held = rig.datapath().fake.neighbours.len();
    rig.datapath().fake.neighbours_max = Some(held);
    rig.change("web/far", |port| {
        port.addresses.push("10.0.1.14".parse().unwrap())
    });
    rig.topology();
    assert_eq!(rig.kernel_says("web/near", "10.0.1.14"), None);
    let far = Some(rig.mac("web/far"));
    assert_eq!(rig.engine_says("web/near", "10.0.1.14"), far);
    let problem = rig.engine.neighbour_problems().unwrap();
    assert!(problem.contains("no room for 1 more"), "{problem}");
    // An address that goes makes room for another at once.
    rig.change("web/far", |port| _ = port.addresses.remove(0));
    rig.topology();
    assert_eq!(rig.kernel_says("web/near", "10.0.1.14"), far);
    assert_eq!(rig.engine.neighbour_problems(), None);
}
