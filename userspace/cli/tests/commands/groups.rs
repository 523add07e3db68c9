//! Chains and groups: what `get` shows of them, and how members are changed.

use super::server::Server;
use super::{example, ok, weft};
use weft_vnet::policy::{Action, AddressGroup, Chain, PortGroup, Rule};
use weft_vnet::{AddressGroupId, ChainId, Object, Operation, PortGroupId};

/// The example with a chain on the ingress of `web/web-1`, and a group of each kind.
fn filtered() -> Server {
    let server = example();
    let model = server.model();
    let tenant = *model.tenants.keys().next().unwrap();
    let web_1 = model.find_port(None, "web/web-1").unwrap();
    let mut port = (*model.ports[&web_1]).clone();
    let chain = ChainId(uuid::Uuid::from_u128(1));
    port.ingress = vec![chain];
    let log = Rule {
        action: Action::Log,
        log: Some("all".into()),
        ..Rule::default()
    };
    let objects = [
        Object::Chain(Chain {
            id: chain,
            tenant,
            name: "from-vm".into(),
            rules: vec![log, Rule::default()],
        }),
        Object::AddressGroup(AddressGroup {
            id: AddressGroupId(uuid::Uuid::from_u128(2)),
            tenant,
            name: "office".into(),
            prefixes: vec!["203.0.113.0/24".parse().unwrap()],
        }),
        Object::PortGroup(PortGroup {
            id: PortGroupId(uuid::Uuid::from_u128(3)),
            tenant,
            name: "servers".into(),
            ports: vec![web_1],
            stateful: false,
        }),
        Object::Port(port),
    ];
    server.transact(objects.map(Operation::Put).to_vec());
    server
}

#[test]
fn chains_and_groups_are_shown() {
    let server = filtered();
    let chains = "TENANT  NAME     RULES  PORTS\nacme    from-vm      2      1\n";
    assert_eq!(ok(&server, &["get", "chains"]), chains);
    let rules = "rule 1: { action: log, log: all }\nrule 2: { action: drop }\n";
    assert_eq!(
        ok(&server, &["get", "chain", "from-vm"]),
        format!("{chains}{rules}")
    );
    assert_eq!(
        ok(&server, &["get", "address-group", "office"]),
        "TENANT  NAME    MEMBERS\nacme    office        1\n203.0.113.0/24\n"
    );
    assert_eq!(
        ok(&server, &["get", "port-group", "servers"]),
        "TENANT  NAME     MEMBERS  STATEFUL\nacme    servers        1  false\nweb/web-1\n"
    );
    let port = ok(&server, &["get", "port", "web/web-1"]);
    assert!(port.ends_with("\ningress: from-vm\n"), "{port}");
    let text = ok(&server, &["export", "chains"]);
    let expected = "weft: v1\ntenant: acme\nchains:\n  from-vm:\n    - { action: log, log: all }\n    - { action: drop }\n";
    assert_eq!(text, expected);
    let ran = weft(&server, &["delete", "chain", "from-vm"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (
            1,
            "error: this chain can't be deleted: web/web-1 refers to it\n"
        )
    );
}

#[test]
fn members_come_and_go_in_one_transaction() {
    let server = filtered();
    let before = server.transactions();
    let added = [
        "group",
        "add",
        "office",
        "10.0.0.1",
        "fd00::/16",
        "203.0.113.0/24",
    ];
    assert_eq!(
        ok(&server, &added),
        "~ address group acme office members: +10.0.0.1/32, +fd00::/16, +203.0.113.0/24\napplied revision 3\n"
    );
    assert_eq!(server.transactions(), before + 1);
    let removed = ["group", "remove", "office", "203.0.113.0/24", "192.0.2.1"];
    ok(&server, &removed);
    let shown = ok(&server, &["get", "address-group", "office"]);
    assert!(shown.ends_with("\n10.0.0.1/32\nfd00::/16\n"), "{shown}");
    assert_eq!(
        ok(
            &server,
            &["group", "add", "servers", "web/web-2", "web/web-1"]
        ),
        "~ port group acme servers ports: [web/web-1] -> [web/web-1, web/web-2]\napplied revision 5\n"
    );
    ok(&server, &["group", "remove", "servers", "web/web-1"]);
    let shown = ok(&server, &["get", "port-group", "servers"]);
    assert!(shown.ends_with("\nweb/web-2\n"), "{shown}");
    for (args, expected) in [
        (
            &["office", "10.0.0.1/8"][..],
            "10.0.0.1/8 has bits beyond its prefix: expected 10.0.0.0/8",
        ),
        (
            &["offic", "10.0.0.1"],
            "there is no address group `offic`; there is office",
        ),
        (&["servers", "web/web-9"], "`web` has no port `web-9`"),
        (
            &["office", "10.0.0.1", "web/web-1"],
            "`web/web-1` is no address or prefix, others are: a group has addresses or ports",
        ),
    ] {
        let ran = weft(&server, &[&["group", "add"], args].concat());
        assert_eq!((ran.status, ran.err), (1, format!("error: {expected}\n")));
    }
}
