//! Changing the topology: a transaction is applied whole, or refused with every reason.
//!
//! No state of its own: works on a [`Draft`]. Called by the store, and by whoever wants to know whether a
//! transaction would be accepted.

use super::draft::Draft;
use super::validate::{validate, validate_new};
use super::{Invalid, Model, Object, Operation};

impl Model {
    /// The model after `operations`, with the next revision.
    ///
    /// Objects may refer to what a later operation makes. Of a peering one side is enough; a transaction that
    /// clears one side clears the other. A deleted device takes its ports along, and a deleted port leaves its groups.
    ///
    /// # Errors
    /// Every reason for which the transaction is refused; then nothing has changed.
    pub fn apply(&self, operations: &[Operation]) -> Result<Model, Vec<Invalid>> {
        let mut draft = Draft::new(self);
        for (index, operation) in operations.iter().enumerate() {
            match operation {
                Operation::Put(object) => draft.put(index, object),
                Operation::Delete { kind, id } => draft.delete(index, *kind, *id),
                Operation::Members { group, add, remove } => {
                    draft.members(index, *group, add, remove);
                }
            }
        }
        draft.join_peers();
        draft.leave_groups();
        validate(&mut draft);
        validate_new(&mut draft);
        draft.finish()
    }

    /// The model that was stored as these objects. Only what would contradict itself is refused: what an
    /// earlier version took stays, until somebody changes it.
    ///
    /// # Errors
    /// Every contradiction.
    pub fn restore(
        objects: impl IntoIterator<Item = Object>,
        revision: u64,
    ) -> Result<Model, Vec<Invalid>> {
        let empty = Model::default();
        let mut draft = Draft::new(&empty);
        for (index, object) in objects.into_iter().enumerate() {
            draft.put(index, &object);
        }
        draft.join_peers();
        validate(&mut draft);
        let model = draft.finish()?;
        Ok(Model { revision, ..model })
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use crate::fixture::Topology;

    fn refused(model: &Model, operations: &[Operation]) -> Vec<(usize, String, String)> {
        let invalid = model.apply(operations).expect_err("must be refused");
        invalid
            .into_iter()
            .map(|it| (it.operation, it.pointer, it.message))
            .collect()
    }

    fn port_of(model: &Model, path: &str) -> Port {
        let id = model.find_port(None, path).unwrap();
        (*model.ports[&id]).clone()
    }

    fn put(port: Port) -> Operation {
        Operation::Put(Object::Port(port))
    }

    #[test]
    fn each_transaction_raises_the_revision() {
        let model = Topology::two_subnets().model;
        assert_eq!(model.apply(&[]).unwrap().revision, model.revision + 1);
    }

    #[test]
    fn one_side_of_a_peering_is_enough() {
        let mut topology = Topology::new();
        topology.bridge("web");
        topology.router("core");
        let (a, b) = (
            topology.port_object("web/core"),
            topology.port_object("core/web"),
        );
        let a = Port {
            peer: Some(b.id),
            ..a
        };
        let model = topology
            .model
            .apply(&[put(a.clone()), put(b.clone())])
            .unwrap();
        assert_eq!(port_of(&model, "core/web").peer, Some(a.id));
        let cleared = model.apply(&[put(Port { peer: None, ..a })]).unwrap();
        assert_eq!(port_of(&cleared, "core/web").peer, None);
        let deleted = model
            .apply(&[Operation::Delete {
                kind: Kind::Port,
                id: b.id.0,
            }])
            .unwrap();
        assert_eq!(port_of(&deleted, "web/core").peer, None);
    }

    #[test]
    fn a_port_has_one_peer_only() {
        let topology = Topology::two_subnets();
        let other = Port {
            peer: Some(topology.id("core/web")),
            ..topology.port_object("db/other")
        };
        let errors = refused(&topology.model, &[put(other)]);
        assert_eq!(errors[0].1, "/peer");
        assert!(
            errors[0].2.contains("already the peer of web/core"),
            "{errors:?}"
        );
    }

    #[test]
    fn a_peering_can_move_in_one_transaction() {
        let topology = Topology::two_subnets();
        let new = Port {
            peer: Some(topology.id("core/web")),
            ..topology.port_object("db/other")
        };
        let old = Port {
            peer: None,
            ..port_of(&topology.model, "web/core")
        };
        let model = topology.model.apply(&[put(new.clone()), put(old)]).unwrap();
        assert_eq!(port_of(&model, "core/web").peer, Some(new.id));
        assert_eq!(port_of(&model, "web/core").peer, None);
    }

    #[test]
    fn a_bound_port_has_no_peer() {
        let topology = Topology::two_subnets();
        let mut port = port_of(&topology.model, "web/core");
        let host = *topology.model.hosts.keys().next().unwrap();
        port.binding = Some(Binding {
            host,
            interface: "x".into(),
            tunnel_key: None,
        });
        let errors = refused(&topology.model, &[put(port)]);
        assert_eq!((errors[0].0, errors[0].1.as_str()), (0, "/binding"));
    }

    #[test]
    fn an_interface_belongs_to_one_port() {
        let topology = Topology::two_subnets();
        let mut port = port_of(&topology.model, "web/web-2");
        port.binding = port_of(&topology.model, "web/web-1").binding;
        let errors = refused(&topology.model, &[put(port)]);
        assert_eq!(errors[0].1, "/binding");
        assert!(errors[0].2.contains("web/web-1"), "{errors:?}");
    }

    #[test]
    fn a_declared_tunnel_key_is_one_and_belongs_to_one_port() {
        let mut topology = Topology::two_subnets();
        topology.bind_with_key("web/web-2", "h2", 4711);
        let mut port = port_of(&topology.model, "db/db-2");
        for key in [0, 4711, 1 << 23] {
            port.binding.as_mut().unwrap().tunnel_key = Some(key);
            let errors = refused(&topology.model, &[put(port.clone())]);
            assert_eq!(errors[0].1, "/binding/tunnel_key");
        }
        port.binding.as_mut().unwrap().tunnel_key = Some((1 << 23) - 1);
        topology.model.apply(&[put(port)]).unwrap();
    }

    #[test]
    fn names_are_unique_where_they_must_be() {
        let topology = Topology::two_subnets();
        let tenant = *topology.model.tenants.keys().next().unwrap();
        let twin = Router {
            id: RouterId(Uuid::from_u128(900)),
            tenant,
            name: "web".into(),
            routes: Vec::new(),
        };
        let errors = refused(&topology.model, &[Operation::Put(Object::Router(twin))]);
        assert_eq!((errors[0].0, errors[0].1.as_str()), (0, "/name"));
        let mut port = port_of(&topology.model, "web/web-1");
        port.name = "web-2".into();
        assert_eq!(refused(&topology.model, &[put(port)])[0].1, "/name");
    }

    #[test]
    fn macs_are_unique_on_a_bridge_with_its_routers() {
        let topology = Topology::two_subnets();
        let mut port = port_of(&topology.model, "web/web-1");
        port.mac = port_of(&topology.model, "core/web").mac;
        assert_eq!(refused(&topology.model, &[put(port.clone())])[0].1, "/mac");
        port.mac = port_of(&topology.model, "db/db-1").mac;
        topology.model.apply(&[put(port)]).unwrap();
    }

    #[test]
    fn addresses_have_a_prefix_on_routers_only() {
        let topology = Topology::two_subnets();
        let mut port = port_of(&topology.model, "web/web-1");
        port.addresses = vec!["10.0.1.11/24".parse().unwrap()];
        assert_eq!(refused(&topology.model, &[put(port)])[0].1, "/addresses/0");
        let mut port = port_of(&topology.model, "core/web");
        port.addresses = vec!["10.0.1.1/24".parse().unwrap(), "10.0.9.1".parse().unwrap()];
        assert_eq!(refused(&topology.model, &[put(port)])[0].1, "/addresses/1");
    }

    /// The router's port `core/web` with these addresses, and a new port `core/x` with those.
    fn subnets(topology: &Topology, web: &str, other: &str) -> [Operation; 2] {
        let addresses = |text: &str| text.split(' ').map(|it| it.parse().unwrap()).collect();
        let web = Port {
            addresses: addresses(web),
            ..port_of(&topology.model, "core/web")
        };
        let other = Port {
            addresses: addresses(other),
            ..topology.port_object("core/x")
        };
        [put(web), put(other)]
    }

    #[test]
    fn a_router_has_no_address_that_means_its_whole_subnet() {
        let topology = Topology::two_subnets();
        for (address, expected) in [
            (
                "10.8.1.0/24",
                "10.8.1.0 is the network address of 10.8.1.0/24: expected one from 10.8.1.1 to 10.8.1.254",
            ),
            (
                "10.8.1.255/24",
                "10.8.1.255 is the broadcast address of 10.8.1.0/24: expected one from 10.8.1.1 to 10.8.1.254",
            ),
            (
                "10.8.1.4/30",
                "10.8.1.4 is the network address of 10.8.1.4/30: expected one from 10.8.1.5 to 10.8.1.6",
            ),
        ] {
            let operations = subnets(&topology, "10.0.1.1/24", address);
            let expected = (1, "/addresses/0".to_owned(), expected.to_owned());
            assert_eq!(refused(&topology.model, &operations), [expected]);
        }
        // RFC 3021, and the address of one machine.
        for address in ["10.8.1.0/31", "10.8.1.1/31", "10.8.1.0/32", "10.8.1.5/30"] {
            let operations = subnets(&topology, "10.0.1.1/24", address);
            topology.model.apply(&operations).unwrap();
        }
    }

    #[test]
    fn subnets_of_a_router_do_not_overlap() {
        let topology = Topology::two_subnets();
        for (web, other, expected) in [
            (
                "10.0.1.1/24",
                "10.8.0.1/24 10.0.0.1/16",
                "10.0.0.1/16 overlaps 10.0.1.1/24 of core/web",
            ),
            (
                "10.0.1.1/24",
                "10.8.0.1/24 10.0.2.9/25",
                "10.0.2.9/25 overlaps 10.0.2.1/24 of core/db",
            ),
        ] {
            let errors = refused(&topology.model, &subnets(&topology, web, other));
            let text = format!("{expected}: expected another subnet on each port of a router");
            assert!(
                errors.contains(&(1, "/addresses/1".into(), text)),
                "{errors:?}"
            );
        }
        // Two addresses in the subnet of one port, and neighbouring subnets, are fine.
        let operations = subnets(&topology, "10.0.1.1/25 10.0.1.2/25", "10.0.1.129/25");
        topology.model.apply(&operations).unwrap();
        // Another router may have the same subnet.
        let mut topology = topology;
        topology.router("other");
        topology.port("other/x", &["10.0.1.1/24"]);
    }

    #[test]
    fn what_is_stored_already_is_not_judged_by_later_rules() {
        let topology = Topology::two_subnets();
        let mut old = topology.model.clone();
        let db = std::sync::Arc::make_mut(old.ports.get_mut(&topology.id("core/db")).unwrap());
        db.addresses = vec!["10.0.1.0/24".parse().unwrap()];
        assert!(Model::default().apply(&puts(&old)).is_err());
        let restored = Model::restore(old.objects(), old.revision).unwrap();
        assert_eq!(restored, old);
        let other = Port {
            addresses: vec!["10.0.1.99".parse().unwrap()],
            ..topology.port_object("web/x")
        };
        restored.apply(&[put(other)]).unwrap();
    }

    fn puts(model: &Model) -> Vec<Operation> {
        model.objects().map(Operation::Put).collect()
    }

    #[test]
    fn what_is_referred_to_stays() {
        let topology = Topology::two_subnets();
        let tenant = topology.model.tenants.keys().next().unwrap().0;
        let errors = refused(
            &topology.model,
            &[Operation::Delete {
                kind: Kind::Tenant,
                id: tenant,
            }],
        );
        assert!(
            errors.iter().any(|it| it.2.contains("bridge web")),
            "{errors:?}"
        );
        let host = topology.model.hosts.keys().next().unwrap().0;
        let errors = refused(
            &topology.model,
            &[Operation::Delete {
                kind: Kind::Host,
                id: host,
            }],
        );
        assert!(
            errors.iter().any(|it| it.2.contains("web/web-1")),
            "{errors:?}"
        );
    }

    #[test]
    fn a_device_takes_its_ports_along_and_frees_their_peers() {
        let topology = Topology::two_subnets();
        let DeviceId::Router(core) = port_of(&topology.model, "core/web").device else {
            panic!("core is a router");
        };
        let model = topology
            .model
            .apply(&[Operation::Delete {
                kind: Kind::Router,
                id: core.0,
            }])
            .unwrap();
        assert!(model.find_port(None, "core/web").is_err());
        assert_eq!(port_of(&model, "web/core").peer, None);
    }

    #[test]
    fn a_missing_reference_is_named_with_its_place() {
        let topology = Topology::two_subnets();
        let mut port = topology.port_object("web/new");
        port.peer = Some(PortId(Uuid::from_u128(77)));
        assert_eq!(refused(&topology.model, &[put(port.clone())])[0].1, "/peer");
        port.peer = None;
        port.device = DeviceId::Bridge(BridgeId(Uuid::from_u128(78)));
        assert_eq!(refused(&topology.model, &[put(port)])[0].1, "/device");
    }

    #[test]
    fn everything_survives_json() {
        let model = Topology::two_subnets().model;
        let json = serde_json::to_string(&model).unwrap();
        assert_eq!(serde_json::from_str::<Model>(&json).unwrap(), model);
        for object in model.objects() {
            let operation = Operation::Put(object);
            let json = serde_json::to_value(&operation).unwrap();
            assert!(json["put"]["kind"].is_string(), "{json}");
            assert_eq!(
                serde_json::from_value::<Operation>(json).unwrap(),
                operation
            );
        }
    }
}
