//! Flood lists and flood sets.

use super::*;
use weft_common::limits::SLOT_GRACE_SECS;
use weft_common::slot::Output;

impl Rig {
    /// The slot of a flood from `lab/one`, by a flow.
    fn flood(&mut self) -> Slot {
        let frame = self.raw(FRIEND, STRANGER, 1);
        if self.forward("lab/one", &frame).is_none() {
            self.send("lab/one", &frame);
        }
        let slot = self.forward("lab/one", &frame).unwrap();
        assert_eq!(slot.output, Output::Flood as u8);
        slot
    }

    fn lab_set(&self) -> Option<TunnelKey> {
        let place = (self.bridge_id("lab"), self.host("h1"));
        let bits = self.activity.floods.get(&place);
        bits.map(|bits| TunnelKey::from_bits(*bits))
    }
}

#[test]
fn a_list_is_replaced_and_never_changed_in_place() {
    let mut rig = Rig::new();
    let before = rig.flood();
    let list = rig.datapath().fake.flood_lists[&before.flood_list];
    assert_eq!((list.local_count, list.remote_count), (2, 1));
    assert_eq!(list.remotes[0].tunnel_key, key(12, 1).bits());
    let set = rig.lab_set().unwrap();
    rig.port("lab/three", &[]);
    rig.bind("lab/three", "h1");
    rig.topology();
    rig.look();
    let after = rig.flood();
    assert_ne!(after.flood_list, before.flood_list);
    let lists = &rig.datapath().fake.flood_lists;
    assert_eq!(
        lists[&before.flood_list], list,
        "somebody may be reading it"
    );
    assert_eq!(lists[&after.flood_list].local_count, 3);
    rig.settle();
    assert_eq!(rig.lab_set(), Some(set), "other hosts go on with its key");
    let record = rig.datapath().read_port(set.index).unwrap();
    assert_eq!(record.flood_list, after.flood_list);
}

#[test]
fn a_replaced_list_rests_before_its_next_use() {
    let mut rig = Rig::new();
    let mut earlier = vec![rig.flood().flood_list];
    for (number, rest, is_used_again) in
        [(40, 0, false), (41, SLOT_GRACE_SECS, false), (42, 0, true)]
    {
        let place = (rig.bridge_id("lab"), rig.host("h2"));
        rig.activity.floods.insert(place, key(number, 1).bits());
        rig.topology();
        let list = rig.flood().flood_list;
        assert_eq!(earlier.contains(&list), is_used_again, "change {number}");
        earlier.push(list);
        rig.pass(rest);
        rig.engine.tick();
    }
}

#[test]
fn a_set_lives_as_long_as_there_are_ports_to_expand_it_to() {
    let mut rig = Rig::new();
    let set = rig.lab_set().unwrap();
    rig.remove_interface("lab-one");
    rig.look();
    rig.settle();
    assert_eq!(rig.lab_set(), Some(set));
    rig.remove_interface("lab-two");
    rig.look();
    let entry = StateEntry::FloodActivity {
        bridge: rig.bridge_id("lab"),
        host: rig.host("h1"),
        tunnel_key: set.bits(),
    };
    assert!(rig.settle().remove.contains(&entry));
    let record = rig.datapath().read_port(set.index).unwrap();
    assert_eq!((record.kind, record.generation), (0, set.generation));
}

#[test]
fn a_host_that_is_put_in_anew_says_its_sets_anew() {
    let mut rig = Rig::new();
    let old = rig.host("h1");
    let mut host = Host::clone(&rig.model.hosts[&old]);
    // Unbound first: a host with ports can't be removed.
    let bound: Vec<Port> = rig
        .model
        .ports
        .values()
        .filter(|port| port.binding.as_ref().is_some_and(|it| it.host == old))
        .map(|port| Port::clone(port))
        .collect();
    for port in &bound {
        let unbound = Port {
            binding: None,
            ..port.clone()
        };
        rig.put(Object::Port(unbound));
    }
    let delete = Operation::Delete {
        kind: weft_vnet::Kind::Host,
        id: old.0,
    };
    rig.model = rig.model.apply(&[delete]).unwrap();
    host.id = HostId(rig.uuid());
    let new = host.id;
    rig.put(Object::Host(host));
    for mut port in bound {
        port.binding.as_mut().unwrap().host = new;
        rig.put(Object::Port(port));
    }
    rig.topology();
    rig.settle();
    let hosts: Vec<HostId> = rig.activity.floods.keys().map(|(_, host)| *host).collect();
    assert!(hosts.contains(&new) && !hosts.contains(&old), "{hosts:?}");
}

#[test]
fn ports_beyond_the_bound_of_a_list_are_a_problem() {
    let mut rig = Rig::new();
    for number in 0..weft_common::limits::FLOOD_LOCALS_MAX {
        let path = format!("lab/more-{number}");
        rig.port(&path, &[]);
        rig.bind(&path, "h1");
    }
    rig.topology();
    rig.look();
    let problems = rig.engine.report_status().problems;
    assert!(
        problems.contains(&"bridge lab: floods reach 64 of 66 ports of this host".to_owned()),
        "{problems:?}"
    );
}
