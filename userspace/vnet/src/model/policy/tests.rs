//! What transactions with chains and groups are refused for, where, and what they leave. No state; run by cargo.

use super::super::{Invalid, Model, Object, Operation};
use super::*;
use crate::fixture::Topology;
use crate::policy::{AddressGroup, PortGroup, Rule, Translation};
use crate::{AddressGroupId, PortGroupId};
use ipnet::IpNet;
use weft_common::limits::{ADDRESS_GROUP_MEMBERS_MAX, POLICY_RULES_MAX};

fn id(number: u128) -> ChainId {
    ChainId(Uuid::from_u128(0x1000 + number))
}

fn tenant(topology: &Topology) -> TenantId {
    *topology.model.tenants.keys().next().unwrap()
}

fn chain(topology: &Topology, number: u128, actions: &[Action]) -> Chain {
    let rule = |action: &Action| Rule {
        action: *action,
        ..Rule::default()
    };
    Chain {
        id: id(number),
        tenant: tenant(topology),
        name: format!("c{number}"),
        rules: actions.iter().map(rule).collect(),
    }
}

fn put(chain: Chain) -> Operation {
    Operation::Put(Object::Chain(chain))
}

fn group(topology: &Topology, prefixes: &[&str]) -> AddressGroup {
    AddressGroup {
        id: AddressGroupId(Uuid::from_u128(0x2000)),
        tenant: tenant(topology),
        name: "office".into(),
        prefixes: nets(prefixes),
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|it| it.parse().unwrap()).collect()
}

fn ports(topology: &Topology, members: &[&str]) -> PortGroup {
    PortGroup {
        id: PortGroupId(Uuid::from_u128(0x3000)),
        tenant: tenant(topology),
        name: "web".into(),
        ports: members.iter().map(|it| topology.id(it)).collect(),
        stateful: false,
    }
}

/// A chain that accepts what comes from the ports of the group.
fn from_ports(topology: &Topology) -> Chain {
    let src = vec![AddressMatch::Group(Group::Ports(PortGroupId(
        Uuid::from_u128(0x3000),
    )))];
    let mut chain = chain(topology, 0, &[Action::Accept]);
    chain.rules[0].matches.src = Some(src);
    chain
}

fn refused(model: &Model, operations: &[Operation]) -> Vec<String> {
    let place = |it: Invalid| format!("{}{}: {}", it.operation, it.pointer, it.message);
    let invalid = model.apply(operations).expect_err("must be refused");
    invalid.into_iter().map(place).collect()
}

/// Two subnets whose port `web/web-1` has the chain 0 on its egress.
fn filtered(actions: &[Action]) -> Topology {
    let mut topology = Topology::two_subnets();
    topology.put(vec![Object::Chain(chain(&topology, 0, actions))]);
    topology.change("web/web-1", |port| port.egress = vec![id(0)]);
    topology
}

#[test]
fn a_loop_is_refused_at_its_jump_with_its_path() {
    let topology = filtered(&[Action::Accept]);
    let operations = [
        put(chain(&topology, 0, &[Action::Accept, Action::Jump(id(1))])),
        put(chain(&topology, 1, &[Action::Jump(id(0))])),
    ];
    let expected = "0/rules/1: chains jump in a loop: c0 -> c1 -> c0";
    assert_eq!(refused(&topology.model, &operations), [expected]);
}

#[test]
fn what_only_devices_do_is_refused_at_its_rule_or_its_port() {
    let topology = filtered(&[Action::Accept]);
    let snat = Action::Translate(Translation::Snat);
    let nat = chain(&topology, 0, &[Action::Log, snat]);
    let reason = "chain c0, rule 2: snat on a port's chain: put it on the router's chain";
    let told = refused(&topology.model, &[put(nat.clone())]);
    assert_eq!(told, [format!("0/rules/1: {reason}")]);
    // Nobody's chain may say it; then the port is to blame that takes it.
    let mut topology = Topology::two_subnets();
    topology.put(vec![Object::Chain(nat)]);
    let mut port = topology.get("web/web-1").clone();
    port.ingress = vec![id(0)];
    let told = refused(&topology.model, &[Operation::Put(Object::Port(port))]);
    assert_eq!(told, [format!("0/ingress: {reason}")]);
}

#[test]
fn too_many_rules_are_refused_with_the_number() {
    let mut topology = Topology::two_subnets();
    topology.put(vec![Object::Chain(chain(&topology, 1, &[Action::Log]))]);
    topology.put(vec![Object::Chain(chain(
        &topology,
        0,
        &[Action::Jump(id(1))],
    ))]);
    topology.change("web/web-1", |port| port.egress = vec![id(0)]);
    let full = chain(&topology, 1, &vec![Action::Log; POLICY_RULES_MAX]);
    let expected = "0: 4097 rules on one egress hook: expected at most 4096, where a jump counts its target's rules each time; it is on the egress of web/web-1";
    assert_eq!(refused(&topology.model, &[put(full)]), [expected]);
    let fits = chain(&topology, 1, &vec![Action::Log; POLICY_RULES_MAX - 1]);
    topology.model.apply(&[put(fits)]).unwrap();
}

#[test]
fn what_is_referred_to_is_there_and_stays() {
    let topology = filtered(&[Action::Accept]);
    let jump = chain(&topology, 1, &[Action::Jump(id(7))]);
    let told = refused(&topology.model, &[put(jump)]);
    assert_eq!(
        told,
        [format!(
            "0/rules/0: there is no chain with the id {}",
            id(7)
        )]
    );
    let (kind, chain_0) = (Kind::Chain, id(0).0);
    let told = refused(&topology.model, &[Operation::Delete { kind, id: chain_0 }]);
    assert_eq!(
        told,
        ["0: this chain can't be deleted: web/web-1 refers to it"]
    );
    let mut port = topology.get("db/db-1").clone();
    port.ingress = vec![id(0), id(7)];
    let told = refused(&topology.model, &[Operation::Put(Object::Port(port))]);
    assert_eq!(
        told,
        [format!(
            "0/ingress/1: there is no chain with the id {}",
            id(7)
        )]
    );
    let twin = Chain {
        id: id(9),
        ..chain(&topology, 0, &[])
    };
    let told = refused(&topology.model, &[put(twin)]);
    assert_eq!(told, ["0/name: the name is taken: chain c0 has it"]);
}

#[test]
fn another_tenant_s_are_no_one_s() {
    let mut topology = filtered(&[Action::Accept]);
    let other = super::super::Tenant {
        id: TenantId(Uuid::from_u128(0x4000)),
        name: "other".into(),
    };
    let foreign = Chain {
        tenant: other.id,
        ..chain(&topology, 1, &[])
    };
    topology.put(vec![Object::Tenant(other), Object::Chain(foreign)]);
    let told = refused(
        &topology.model,
        &[put(chain(&topology, 0, &[Action::Jump(id(1))]))],
    );
    let expected = format!(
        "0/rules/0: the chain with the id {} is another tenant's",
        id(1)
    );
    assert_eq!(told, [expected]);
}

#[test]
fn a_member_without_a_fixed_address_is_refused_where_it_is_made() {
    let mut topology = Topology::two_subnets();
    topology.put(vec![
        Object::PortGroup(ports(&topology, &["web/web-1"])),
        Object::Chain(from_ports(&topology)),
    ]);
    topology.change("db/db-1", |port| port.egress = vec![id(0)]);
    let reason = "chain c0, rule 1: source port group web: its member web-1 has no fixed address (`addresses`); it is on the egress of db/db-1";
    let mut port = topology.get("web/web-1").clone();
    port.addresses.clear();
    let told = refused(&topology.model, &[Operation::Put(Object::Port(port))]);
    assert_eq!(told, [format!("0: {reason}")]);
}

#[test]
fn a_port_that_goes_leaves_its_groups() {
    let mut topology = Topology::two_subnets();
    topology.put(vec![
        Object::PortGroup(ports(&topology, &["web/web-1", "web/web-2"])),
        Object::Chain(from_ports(&topology)),
    ]);
    topology.change("db/db-1", |port| port.egress = vec![id(0)]);
    let (stays, gone) = (topology.id("web/web-2"), topology.id("web/web-1"));
    let delete = Operation::Delete {
        kind: Kind::Port,
        id: gone.0,
    };
    let model = topology.model.apply(&[delete]).unwrap();
    let group = model.policy.port_groups.values().next().unwrap();
    assert_eq!(group.ports, [stays]);
    let put = Operation::Put(Object::PortGroup(ports(&topology, &["web/web-1"])));
    let told = refused(&model, &[put]);
    assert_eq!(
        told,
        [format!("0/ports/0: there is no port with the id {gone}")]
    );
}

#[test]
fn members_change_alone_and_are_kept_in_order() {
    let mut topology = Topology::two_subnets();
    let office = group(
        &topology,
        &["203.0.113.0/24", "10.0.0.0/8", "fd00::/16", "10.0.0.0/8"],
    );
    let id = office.id;
    topology.put(vec![Object::AddressGroup(office)]);
    let of = |model: &Model| model.policy.address_groups[&id].prefixes.clone();
    assert_eq!(
        of(&topology.model),
        nets(&["10.0.0.0/8", "203.0.113.0/24", "fd00::/16"])
    );
    let members = |add: &[&str], remove: &[&str]| Operation::Members {
        group: id,
        add: nets(add),
        remove: nets(remove),
    };
    let changes = members(
        &["192.0.2.1/32", "10.0.0.0/8"],
        &["fd00::/16", "192.0.2.9/32"],
    );
    let model = topology.model.apply(&[changes]).unwrap();
    assert_eq!(
        of(&model),
        nets(&["10.0.0.0/8", "192.0.2.1/32", "203.0.113.0/24"])
    );
    let told = refused(&model, &[members(&[], &[]), members(&["10.0.0.1/8"], &[])]);
    let expected = "1/add/0: 10.0.0.1/8 has bits beyond its prefix: expected 10.0.0.0/8";
    assert_eq!(told, [expected]);
    let nobody = Operation::Members {
        group: AddressGroupId(Uuid::from_u128(7)),
        add: Vec::new(),
        remove: Vec::new(),
    };
    assert!(refused(&model, &[nobody])[0].starts_with("0/group: there is no address group"));
    // As many as may be, and one more.
    let many = (0..ADDRESS_GROUP_MEMBERS_MAX as u32)
        .map(|it| IpNet::from(std::net::IpAddr::from((0x0b00_0000 + it).to_be_bytes())));
    let all = Operation::Members {
        group: id,
        add: many.collect(),
        remove: of(&model),
    };
    let model = model.apply(&[all]).unwrap();
    let told = refused(&model, &[members(&["192.0.2.1/32"], &[])]);
    let expected = "0/prefixes: address group office has 100001 members: expected at most 100000";
    assert_eq!(told, [expected]);
}

#[test]
fn policies_survive_json_and_the_store() {
    let mut topology = Topology::two_subnets();
    topology.put(vec![
        Object::AddressGroup(group(&topology, &["10.0.0.0/8"])),
        Object::PortGroup(ports(&topology, &["web/web-1"])),
        Object::Chain(from_ports(&topology)),
    ]);
    topology.change("db/db-1", |port| port.egress = vec![id(0)]);
    let model = topology.model;
    let json = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Model>(&json).unwrap(), model);
    assert_eq!(
        Model::restore(model.objects(), model.revision).unwrap(),
        model
    );
    for object in model.objects() {
        let operation = Operation::Put(object);
        let json = serde_json::to_string(&operation).unwrap();
        assert_eq!(serde_json::from_str::<Operation>(&json).unwrap(), operation);
    }
}
