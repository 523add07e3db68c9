//! Planning against topologies that exist: what changes, what stays, what goes.

use weft_vnet::{Model, Port};

use super::{generated_mac, plan};
use crate::export::{Selection, export};
use crate::topology::TopologyFile;

const EXAMPLE: &str = include_str!("../../../../docs/examples/two-hosts.yaml");

fn lines_of(model: &Model, text: &str, prune: bool) -> Vec<String> {
    let file = TopologyFile::parse("f", text).unwrap();
    let plan = plan(model, &file, prune).unwrap();
    plan.lines.iter().map(ToString::to_string).collect()
}

fn applied(model: &Model, text: &str, prune: bool) -> Model {
    let file = TopologyFile::parse("f", text).unwrap();
    let plan = plan(model, &file, prune).unwrap();
    if plan.operations.is_empty() {
        model.clone()
    } else {
        model.apply(&plan.operations).unwrap()
    }
}

fn example() -> Model {
    applied(&Model::default(), EXAMPLE, false)
}

fn port<'m>(model: &'m Model, path: &str) -> &'m Port {
    &model.ports[&model.find_port(None, path).unwrap()]
}

/// A document of tenant acme with these ports of bridge web.
fn web(ports: &str) -> String {
    format!("weft: v1\ntenant: acme\nbridges: {{ web: {{ ports: {{ {ports} }} }} }}\n")
}

#[test]
fn the_example_becomes_a_topology_and_applying_it_again_changes_nothing() {
    let lines = lines_of(&Model::default(), EXAMPLE, false);
    assert_eq!(lines.len(), 1 + 1 + 2 + 2 + 1 + 8, "{lines:#?}");
    assert_eq!(lines[0], "+ tenant acme");
    assert!(
        lines.contains(&"+ port acme web/web-1".to_owned()),
        "{lines:#?}"
    );
    let model = example();
    assert_eq!(model.revision, 1);
    assert_eq!(
        port(&model, "core/web").peer,
        Some(port(&model, "web/core").id)
    );
    assert_eq!(
        port(&model, "db/db-2").binding.as_ref().unwrap().interface,
        "db2"
    );
    for prune in [false, true] {
        assert_eq!(lines_of(&model, EXAMPLE, prune), [""; 0]);
    }
}

#[test]
fn what_a_file_does_not_mention_stays() {
    let model = example();
    let web_1 = port(&model, "web/web-1").clone();
    let lines = lines_of(
        &model,
        &web("web-1: { addresses: [10.0.1.21, 10.0.1.22] }"),
        false,
    );
    assert_eq!(
        lines,
        ["~ port acme web/web-1 addresses: [10.0.1.11] -> [10.0.1.21, 10.0.1.22]"]
    );
    let after = applied(&model, &web("web-1: { addresses: [10.0.1.21] }"), false);
    let now = port(&after, "web/web-1");
    assert_eq!(
        (now.id, now.mac, &now.binding),
        (web_1.id, web_1.mac, &web_1.binding)
    );
    assert_eq!(after.ports.len(), model.ports.len());
    assert_eq!(lines_of(&model, &web("web-1: {}"), false), [""; 0]);
    assert_eq!(lines_of(&model, &web("web-1:"), false), [""; 0]);
}

#[test]
fn every_field_that_changes_is_told() {
    let model = example();
    let change =
        "web-1: { mac: 02:00:00:00:01:ff, admin_up: false, bind: { host: h2, interface: w } }";
    assert_eq!(
        lines_of(&model, &web(change), false),
        [
            "~ port acme web/web-1 admin_up: true -> false, bind: h1:web1 -> h2:w, \
          mac: 02:00:00:00:01:0b -> 02:00:00:00:01:ff"
        ]
    );
    let common = "weft: v1\nhosts: { h1: { zones: { default: 172.30.1.9 } } }";
    assert_eq!(
        lines_of(&model, common, false),
        ["~ host h1 zones: {default: 172.30.1.1} -> {default: 172.30.1.9}"]
    );
    let routes = "weft: v1\ntenant: acme\nrouters: { core: { routes: [{ to: 10.9.0.0/16, via: 10.0.2.254 }, { to: 10.8.0.0/16, action: reject, weight: 5 }] } }";
    assert_eq!(
        lines_of(&model, routes, false),
        ["~ router acme core routes: [] -> \
          [10.9.0.0/16 via 10.0.2.254 weight 100, 10.8.0.0/16 reject weight 5]"]
    );
}

#[test]
fn a_mac_is_made_once_and_kept() {
    let model = applied(&example(), &web("new: { addresses: [10.0.1.99] }"), false);
    let new = port(&model, "web/new");
    assert_eq!(new.mac, generated_mac(new.id));
    assert_eq!(
        new.mac.0[0] & 0x03,
        0x02,
        "locally administered, one station"
    );
    let changed = applied(&model, &web("new: { mac: 02:00:00:00:09:09 }"), false);
    let kept = applied(&changed, &web("new: { addresses: [10.0.1.98] }"), false);
    assert_eq!(port(&kept, "web/new").mac.to_string(), "02:00:00:00:09:09");
}

#[test]
fn bind_and_peer_replace_each_other() {
    let model = example();
    let file = web("core: { bind: { host: h1, interface: c } }");
    let mut lines = lines_of(&model, &file, false);
    lines.sort();
    assert_eq!(
        lines,
        [
            "~ port acme core/web peer: web/core -> none",
            "~ port acme web/core bind: none -> h1:c, peer: core/web -> none",
        ]
    );
    let bound = applied(&model, &file, false);
    let back = applied(&bound, EXAMPLE, false);
    assert_eq!(port(&back, "web/core"), port(&model, "web/core"));
    assert_eq!(port(&back, "core/web"), port(&model, "core/web"));
}

#[test]
fn a_peering_moves_with_one_side_mentioned() {
    let model = example();
    let file = web("spare: {}") + "routers: { core: { ports: { db: { peer: web/spare } } } }\n";
    let mut lines = lines_of(&model, &file, false);
    lines.sort();
    assert_eq!(
        lines,
        [
            "+ port acme web/spare",
            "~ port acme core/db peer: db/core -> web/spare",
            "~ port acme db/core peer: core/db -> none",
        ]
    );
    let moved = applied(&model, &file, false);
    assert_eq!(
        port(&moved, "core/db").peer,
        Some(port(&moved, "web/spare").id)
    );
    assert_eq!(port(&moved, "db/core").peer, None);
    // And two at once, crosswise.
    let cross = "weft: v1\ntenant: acme\nrouters: { core: { ports: { web: { peer: db/core }, db: { peer: web/core } } } }";
    let crossed = applied(&model, cross, false);
    assert_eq!(
        port(&crossed, "core/db").peer,
        Some(port(&crossed, "web/core").id)
    );
    assert_eq!(
        port(&crossed, "core/web").peer,
        Some(port(&crossed, "db/core").id)
    );
    assert_eq!(
        port(&crossed, "db/core").peer,
        Some(port(&crossed, "core/web").id)
    );
}

#[test]
fn a_peer_that_is_bound_is_not_taken_from_its_workload() {
    let model = example();
    let file = TopologyFile::parse("f", &web("x: { peer: db/db-1 }")).unwrap();
    let error = plan(&model, &file, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f:3:39: found peer db/db-1, expected a port that isn't bound: it is, to db1"
    );
}

#[test]
fn prune_deletes_in_the_named_tenants_only() {
    let other = EXAMPLE
        .replace("tenant: acme", "tenant: other")
        .replace("bind: {", "# bind: {");
    let model = applied(&example(), &other, false);
    assert_eq!(model.tenants.len(), 2);
    let file = web("web-1: {}");
    assert_eq!(lines_of(&model, &file, false), [""; 0]);
    let mut lines = lines_of(&model, &file, true);
    lines.sort();
    assert_eq!(
        lines,
        [
            "- bridge acme db",
            "- port acme core/db",
            "- port acme core/web",
            "- port acme db/core",
            "- port acme db/db-1",
            "- port acme db/db-2",
            "- port acme web/core",
            "- port acme web/web-2",
            "- router acme core",
        ]
    );
    let pruned = applied(&model, &file, true);
    assert_eq!(
        (
            pruned.bridges.len(),
            pruned.routers.len(),
            pruned.hosts.len()
        ),
        (3, 1, 2)
    );
    let own = export(
        &pruned,
        Selection {
            kind: None,
            tenant: Some("other"),
        },
    );
    assert_eq!(
        own,
        export(
            &model,
            Selection {
                kind: None,
                tenant: Some("other")
            }
        )
    );
}

#[test]
fn a_name_may_be_used_before_it_is_defined() {
    let (tenant, common) = EXAMPLE.split_once("---\n").unwrap();
    let swapped = applied(&Model::default(), &format!("{common}---\n{tenant}"), false);
    let (a, b) = (
        export(&swapped, Selection::default()),
        export(&example(), Selection::default()),
    );
    assert_eq!(a, b);
}

#[test]
fn what_the_model_refuses_is_shown_where_it_was_written() {
    let model = example();
    for (text, expected) in [
        (
            web("web-2: { mac: 02:00:00:00:01:0b }"),
            "f:3:42: the MAC is taken: web/web-1 has it",
        ),
        (
            web("x: { addresses: [10.0.1.5] }, y: { addresses: [127.0.0.1] }"),
            "f:3:75: 127.0.0.1 can't be the address of a port",
        ),
        (
            web("x: { bind: { host: h1, interface: web1 } }"),
            "f:3:62: the interface is taken: web/web-1 has it",
        ),
        (
            "weft: v1\ntenant: acme\nrouters: { web: {} }\n".into(),
            "f:3:12: the name is taken: bridge web has it",
        ),
    ] {
        let file = TopologyFile::parse("f", &text).unwrap();
        assert_eq!(
            plan(&model, &file, false).unwrap_err().to_string(),
            expected
        );
    }
}

/// The mistakes of a file, as one text.
fn refused(model: &Model, text: &str) -> String {
    let file = TopologyFile::parse("f", text).unwrap();
    plan(model, &file, false).unwrap_err().to_string()
}

#[test]
fn a_peer_is_not_taken_from_a_port_that_the_file_leaves_alone() {
    let model = example();
    let expected = "f:3:43: found peer core/web, expected a port without one: it is joined to web/core, \
                    which the file would have to move (give it another `peer`, or `bind`)";
    let steal = web("other: { peer: core/web }").replace("web: {", "new: {");
    assert_eq!(refused(&model, &steal), expected);
    let said_empty = steal.replace("bridges: {", "bridges: { web: { ports: { core: {} } },");
    assert!(refused(&model, &said_empty).contains(": found peer core/web"));
    // Pruned, or joined to another port by the file itself, it is free.
    let file = TopologyFile::parse(
        "f",
        &(steal.clone() + "routers: { core: { ports: { web: {} } } }"),
    )
    .unwrap();
    plan(&model, &file, true).unwrap();
    let moved = steal.replace(
        "bridges: {",
        "bridges: { web: { ports: { core: { bind: { host: h1, interface: x } } } },",
    );
    let after = applied(&model, &moved, false);
    assert_eq!(
        port(&after, "core/web").peer,
        Some(port(&after, "new/other").id)
    );
    let both = steal + "routers: { core: { ports: { web: { peer: new/other } } } }\n";
    let after = applied(&model, &both, false);
    assert_eq!(
        port(&after, "core/web").peer,
        Some(port(&after, "new/other").id)
    );
    assert_eq!(port(&after, "web/core").peer, None);
}

#[test]
fn lines_are_in_order_of_kind_tenant_and_name() {
    let ports = "c: {}, a: {}, d: {}, b: {}, f: {}, e: {}";
    let tenant = |name: &str| {
        format!(
            "weft: v1\ntenant: {name}\nbridges: {{ y: {{ ports: {{ {ports} }} }}, x: {{ ports: {{ {ports} }} }} }}\n"
        )
    };
    let file = tenant("t2") + "---\n" + &tenant("t1");
    let names = |sign: &str, kind: &str| -> Vec<String> {
        let mut names = Vec::new();
        for tenant in ["t1", "t2"] {
            for device in ["x", "y"] {
                let port = |port: &str| format!("{sign} port {tenant} {device}/{port}");
                match kind {
                    "bridge" => names.push(format!("{sign} bridge {tenant} {device}")),
                    _ => names.extend(["a", "b", "c", "d", "e", "f"].map(port)),
                }
            }
        }
        names
    };
    let expected = [
        vec!["+ tenant t1".to_owned(), "+ tenant t2".to_owned()],
        names("+", "bridge"),
        names("+", "port"),
    ];
    assert_eq!(lines_of(&Model::default(), &file, false), expected.concat());
    let model = applied(&Model::default(), &file, false);
    let empty = "weft: v1\ntenant: t1\n---\nweft: v1\ntenant: t2\n";
    let expected = [names("-", "port"), names("-", "bridge")].concat();
    assert_eq!(lines_of(&model, empty, true), expected);
}

#[test]
fn a_route_that_would_not_be_used_is_told_along() {
    let model = example();
    let text = "weft: v1\ntenant: acme\nrouters: { core: { routes: [{ to: 10.9.0.0/16, via: 10.0.2.254 }, { to: 10.8.0.0/16, via: 192.168.77.1 }] } }";
    let file = TopologyFile::parse("f", text).unwrap();
    let notes = plan(&model, &file, false).unwrap().notes;
    assert_eq!(
        notes,
        [
            "route 10.8.0.0/16 via 192.168.77.1 of router acme core is inactive: 192.168.77.1 is in no connected subnet"
        ]
    );
    let model = applied(&model, text, false);
    assert_eq!(
        plan(&model, &file, false).unwrap().notes,
        [""; 0],
        "nothing changes"
    );
    // Made so by another change.
    let text = "weft: v1\ntenant: acme\nrouters: { core: { ports: { db: { addresses: [10.7.0.1/24] } } } }";
    let file = TopologyFile::parse("f", text).unwrap();
    let notes = plan(&model, &file, false).unwrap().notes;
    assert_eq!(
        notes,
        [
            "route 10.9.0.0/16 via 10.0.2.254 of router acme core is inactive: 10.0.2.254 is in no connected subnet"
        ],
        "what was so before isn't told again"
    );
    // Of several routes of one prefix one is used.
    let text = "weft: v1\ntenant: acme\nrouters: { core: { routes: [{ to: 10.9.0.0/16, via: 10.0.2.254 }, { to: 10.9.0.0/16, via: 10.0.2.253 }, { to: 10.9.0.0/16, action: reject, weight: 50 }, { to: 10.0.1.0/24, via: 10.0.2.9 }] } }";
    let file = TopologyFile::parse("f", text).unwrap();
    let notes = plan(&example(), &file, false).unwrap().notes;
    let expected = [
        "route 10.0.1.0/24 via 10.0.2.9 of router acme core is inactive: 10.0.1.0/24 is connected",
        "route 10.9.0.0/16 via 10.0.2.253 of router acme core is inactive: one of 10.9.0.0/16 with weight 50 is used",
        "route 10.9.0.0/16 via 10.0.2.254 of router acme core is inactive: one of 10.9.0.0/16 with weight 50 is used",
    ];
    assert_eq!(notes, expected);
    // Next hops of one weight are used together, and a route for some sources beside that for all.
    let text = "weft: v1\ntenant: acme\nrouters: { core: { routes: [{ to: 10.9.0.0/16, via: 10.0.2.254 }, { to: 10.9.0.0/16, via: 10.0.2.253 }, { to: 10.9.0.0/16, from: 10.0.1.0/24, action: reject }, { to: 10.0.1.0/24, from: 10.0.1.0/24, via: 10.0.2.9 }] } }";
    let file = TopologyFile::parse("f", text).unwrap();
    let plan = plan(&example(), &file, false).unwrap();
    assert_eq!(plan.notes, [""; 0]);
    let text = plan.lines[0].to_string();
    assert!(
        text.contains("10.9.0.0/16 from 10.0.1.0/24 reject weight 100"),
        "{text}"
    );
}

#[test]
fn the_export_of_the_example_is_what_it_was_made_from() {
    let model = example();
    let text = export(&model, Selection::default());
    assert_eq!(lines_of(&model, &text, true), [""; 0]);
    let again = applied(&Model::default(), &text, false);
    assert_eq!(export(&again, Selection::default()), text);
}
