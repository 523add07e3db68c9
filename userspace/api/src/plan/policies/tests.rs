//! Chains and groups of a file against topologies that exist. No state; run by cargo.

use weft_vnet::policy::Hook;
use weft_vnet::{Model, Operation};

use super::super::plan;
use crate::export::{Selection, export, export_json};
use crate::topology::TopologyFile;

/// Names before they are defined, and every condition that INTERFACE.md shows.
const EXAMPLE: &str = r#"
weft: v1
tenant: acme
bridges:
  web:
    ports:
      web-1: { addresses: [10.0.1.11, "fd00:1::b"], ingress: [from-vm], egress: [to-web, guests] }
      web-2: { addresses: [10.0.1.12] }
chains:
  from-vm: []
  to-web:
    - { state: [established, related], action: accept }
    - { proto: tcp, dst_port: [80, 8000-8080], src: { group: office }, action: accept, log: web }
    - { not: { src: { group: office } }, action: jump, chain: guests }
    - { src: { port_group: web-servers }, action: accept }
    - { action: drop }
  guests:
    - { ethertype: [arp, 0x88cc], src_mac: 02:00:00:00:00:00/ff:ff:ff:00:00:00, vlan: none, action: log }
    - { proto: [icmp, 89], icmp: [{ type: 8 }, { type: 3, code: 4 }], tos: 184, action: return }
    - { src: [10.0.0.0/8, "fd00::/16"], dst: 192.0.2.1, fragment: first, not: [{ vlan: 5 }, { src_port: 53, proto: udp }], action: reject }
    - { dst_mac: 02:00:00:00:00:01, action: continue }
address_groups: { office: [203.0.113.0/24, "2001:db8::/48"], nobody: [] }
port_groups: { web-servers: { ports: [web/web-1, web/web-2], stateful: false } }
"#;

fn file(text: &str) -> TopologyFile {
    TopologyFile::parse("f", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn lines_of(model: &Model, text: &str, prune: bool) -> Vec<String> {
    let plan = plan(model, &file(text), prune).unwrap();
    plan.lines.iter().map(ToString::to_string).collect()
}

fn applied(model: &Model, text: &str, prune: bool) -> Model {
    let plan = plan(model, &file(text), prune).unwrap();
    model.apply(&plan.operations).unwrap()
}

fn tenant(text: &str) -> String {
    format!("weft: v1\ntenant: acme\n{text}\n")
}

#[test]
fn the_example_becomes_a_policy_and_applying_it_again_changes_nothing() {
    let lines = lines_of(&Model::default(), EXAMPLE, false);
    for expected in [
        "+ port acme web/web-1",
        "+ address group acme office",
        "+ port group acme web-servers",
        "+ chain acme to-web",
    ] {
        assert!(lines.contains(&expected.to_owned()), "{lines:#?}");
    }
    let model = applied(&Model::default(), EXAMPLE, false);
    for prune in [false, true] {
        assert_eq!(lines_of(&model, EXAMPLE, prune), [""; 0]);
    }
    let port = &model.ports[&model.find_port(None, "web/web-1").unwrap()];
    let egress = port.chains(Hook::Egress).iter();
    let egress: Vec<String> = egress.map(|id| model.policy.chain_name(*id)).collect();
    assert_eq!(egress, ["to-web", "guests"]);
}

#[test]
fn its_export_is_what_it_was_made_from() {
    let model = applied(&Model::default(), EXAMPLE, false);
    let text = export(&model, Selection::default());
    assert!(text.contains("    - { proto: tcp, src: { group: office }, dst_port: [80, 8000-8080], action: accept, log: web }\n"), "{text}");
    assert_eq!(lines_of(&model, &text, true), [""; 0], "{text}");
    let json = export_json(&model, Selection::default())
        .unwrap()
        .to_string();
    assert_eq!(lines_of(&model, &json, true), [""; 0], "{json}");
    let again = applied(&Model::default(), &text, false);
    assert_eq!(export(&again, Selection::default()), text);
    for (kind, first) in [
        (weft_vnet::Kind::Chain, "chains:"),
        (weft_vnet::Kind::AddressGroup, "address_groups:"),
        (weft_vnet::Kind::PortGroup, "port_groups:"),
    ] {
        let kind = Some(kind);
        let text = export(&model, Selection { kind, tenant: None });
        assert_eq!(text.lines().nth(2), Some(first), "{text}");
    }
}

#[test]
fn every_field_that_changes_is_told() {
    let model = applied(&Model::default(), EXAMPLE, false);
    let chain = tenant(
        "chains: { guests: [{ action: accept }], to-web: [{ state: [established, related], action: accept }, { action: reject }, { action: drop }] }",
    );
    let lines = lines_of(&model, &chain, false);
    assert!(
        lines[1].starts_with("~ chain acme to-web rules from 2 on: [{ proto: tcp, src: { group: office }, dst_port: [80, 8000-8080], action: accept, log: web }, { not: { src: { group: office } }, action: jump, chain: guests }, ")
            && lines[1].ends_with("] -> [{ action: reject }]"),
        "{lines:#?}"
    );
    let others = tenant(
        "bridges: { web: { ports: { web-1: { ingress: [], egress: [guests] } } } }\nport_groups: { web-servers: { ports: [web/web-2], stateful: true } }",
    );
    let expected = [
        "~ port acme web/web-1 egress: [to-web, guests] -> [guests], ingress: [from-vm] -> []",
        "~ port group acme web-servers ports: [web/web-1, web/web-2] -> [web/web-2], stateful: false -> true",
    ];
    assert_eq!(lines_of(&model, &others, false), expected);
}

/// However large the group is, the transaction has what differs.
#[test]
fn members_of_a_group_are_changed_one_by_one() {
    let model = applied(&Model::default(), EXAMPLE, false);
    let change = tenant("address_groups: { office: [203.0.113.0/24, 192.0.2.1] }");
    let plan = plan(&model, &file(&change), false).unwrap();
    assert_eq!(
        plan.lines[0].to_string(),
        "~ address group acme office members: +192.0.2.1/32, -2001:db8::/48"
    );
    let [Operation::Members { add, remove, .. }] = plan.operations.as_slice() else {
        panic!("{:?}", plan.operations);
    };
    assert_eq!((add.len(), remove.len()), (1, 1));
    let after = model.apply(&plan.operations).unwrap();
    assert_eq!(lines_of(&after, &change, false), [""; 0]);
    let many: Vec<String> = (0..=255).map(|it| format!("10.0.0.{it}")).collect();
    let change = tenant(&format!(
        "address_groups: {{ office: [{}] }}",
        many.join(", ")
    ));
    let lines = lines_of(&after, &change, false);
    let expected = "10.0.0.7/32 and 248 more, -192.0.2.1/32, -203.0.113.0/24";
    assert!(lines[0].ends_with(expected), "{lines:?}");
}

#[test]
fn prune_takes_chains_and_groups_of_the_tenants_named() {
    let other = EXAMPLE.replace("tenant: acme", "tenant: other");
    let model = applied(&Model::default(), EXAMPLE, false);
    let model = applied(&model, &other, false);
    let kept = tenant(
        "bridges: { web: { ports: { web-1: { ingress: [], egress: [guests] } } } }\nchains: { guests: [] }",
    );
    let lines = lines_of(&model, &kept, true);
    let gone: Vec<&str> = lines
        .iter()
        .filter(|it| it.starts_with("- "))
        .map(|it| &**it)
        .collect();
    let expected = [
        "- chain acme from-vm",
        "- chain acme to-web",
        "- port group acme web-servers",
        "- address group acme nobody",
        "- address group acme office",
        "- port acme web/web-2",
    ];
    assert_eq!(gone, expected);
    let after = applied(&model, &kept, true);
    assert_eq!(lines_of(&after, &kept, true), [""; 0]);
    assert_eq!(lines_of(&after, &other, true), [""; 0]);
    // A port that the file leaves as it is keeps its chains, which can't go then.
    let refused = tenant("bridges: { web: { ports: { web-1: {} } } }");
    let error = plan(&model, &file(&refused), true).unwrap_err();
    let expected = "this chain can't be deleted: web/web-1 refers to it";
    assert!(error.to_string().contains(expected), "{error}");
}
