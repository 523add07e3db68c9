//! Every way in which a topology file can be wrong, with the exact place and words of the answer.

use weft_api::plan::plan;
use weft_api::topology::{Mistakes, TopologyFile};
use weft_vnet::Model;

/// The file that a line of a table stands for: a word for what is around it, and the text that
/// varies, with `\n` for new lines.
fn file(line: &str) -> String {
    let (around, text) = line.split_once(' ').unwrap_or((line, ""));
    let text = text.replace("\\n", "\n");
    match around {
        "file" => text,
        "tenant" => tenant(&text),
        "common" => common(&text),
        "port" => port(&text),
        "router_port" => tenant(&format!("routers:\n  core:\n    ports:\n      web: {text}")),
        "route" => tenant(&format!("routers:\n  core:\n    routes:\n      - {text}")),
        other => panic!("no file is called {other}"),
    }
}

/// A tenant's document.
fn tenant(text: &str) -> String {
    format!("weft: v1\ntenant: acme\n{text}\n")
}

/// A document with a bridge port, the text on line 6.
fn port(text: &str) -> String {
    tenant(&format!(
        "bridges:\n  web:\n    ports:\n      web-1: {text}"
    ))
}

/// A document of what belongs to no tenant.
fn common(text: &str) -> String {
    format!("weft: v1\ntunnel_zones: {{ default: {{ encapsulation: gre }} }}\n{text}\n")
}

fn mistakes(text: &str) -> Vec<String> {
    let answer = TopologyFile::parse("f", text)
        .and_then(|file| plan(&Model::default(), &file, false).map(drop));
    match answer {
        Ok(()) => Vec::new(),
        Err(Mistakes { list }) => list.iter().map(ToString::to_string).collect(),
    }
}

/// Checks a table: lines for [`file`], each with the one mistake in it below, indented.
fn check(table: &str) {
    let lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    for pair in lines.chunks(2) {
        let (text, expected) = (file(pair[0]), format!("f:{}", pair[1].trim()));
        assert_eq!(mistakes(&text), [expected], "the file was:\n{text}");
    }
}

const DOCUMENTS: &str = r##"
file
    1:1: found an empty file, expected `weft: v1` and what follows it
file weft: v1\ntenant: [
    3:1: not YAML: while parsing a node, did not find expected node content
file weft
    1:1: found `weft`, expected a document as a mapping of `weft`, `tenant`, `bridges`, `routers`, `tunnel_zones`, `hosts`, `chains`, `address_groups`, `port_groups`
file tenant: acme
    1:1: found a document without `weft`, expected `weft: v1` in it
file weft: v2
    1:7: found `v2`, expected `v1`, the only version of this format
file weft: v1\n---\nweft: v1\nwft: v1
    4:1: found `wft`, expected a key of a document: `weft`, `tenant`, `bridges`, `routers`, `tunnel_zones`, `hosts`, `chains`, `address_groups` or `port_groups`
file weft: v1\nbridges: {}
    2:1: found `bridges` in a document without `tenant`, expected `tenant: NAME`
tenant hosts: {}
    3:1: found `hosts` in a tenant's document, expected it in one without `tenant`
file weft: v1\ntenant: a b
    2:9: found `a b`, expected a name of 1 to 63 letters, digits, `-`, `_` or `.`
file weft: v1\ntenant:
    2:1: found nothing, expected a name of 1 to 63 letters, digits, `-`, `_` or `.`
file weft: v1\ntenant: !str acme
    2:9: found the tag `!str`, expected a plain value
tenant bridges: { web: {} }\nbridges: {}
    4:1: found key `bridges` again, first written at 3:1
tenant bridges: [web]
    3:10: found a list, expected a mapping from names to bridges
tenant bridges: { web: {}, web: {} }
    3:21: found `web` again, first written at 3:12
tenant bridges: { web: {} }\nrouters: { web: {} }
    4:12: found router `web`, expected another name: a bridge has it at 3:12
tenant bridges: { web: {} }\n---\nweft: v1\ntenant: acme\nbridges: { web: {} }
    7:12: found bridge `web`, expected another name: a bridge has it at 3:12
tenant bridges: { ? [a] : b }
    3:14: found a list, expected a name of 1 to 63 letters, digits, `-`, `_` or `.`
"##;

#[test]
fn documents() {
    check(DOCUMENTS);
}

const PORTS: &str = r##"
port []
    6:14: found a list, expected a bridge port as a mapping of `mac`, `addresses`, `bind`, `peer`, `admin_up`, `ingress`, `egress`
port { adresses: [] }
    6:16: found `adresses`, expected a key of a bridge port: `mac`, `addresses`, `bind`, `peer`, `admin_up`, `ingress` or `egress`
port { mac: 02:00:00 }
    6:21: found `02:00:00`, expected a MAC address like 02:00:00:00:01:0b
port { mac: 01:00:5e:00:00:01 }
    6:21: found `01:00:5e:00:00:01`, expected the MAC address of one station, not a multicast one
port { mac: [] }
    6:21: found a list, expected a MAC address like 02:00:00:00:01:0b
port { addresses: 10.0.1.11 }
    6:27: found `10.0.1.11`, expected a list of addresses like [10.0.1.11]
port { addresses: [10.0.1.300] }
    6:28: found `10.0.1.300`, expected an IPv4 or IPv6 address like 10.0.1.11
port { addresses: [10.0.1.11/24] }
    6:28: found `10.0.1.11/24`, expected an address without a prefix length: 10.0.1.11
port { addresses: [10.0.1.11, 10.0.1.11] }
    6:39: found `10.0.1.11` again, first written at 6:28
port { addresses: [224.0.0.1] }
    6:28: found `224.0.0.1`, expected the address of one station
port { bind: h1 }
    6:22: found `h1`, expected a binding as a mapping of `host`, `interface`, `tunnel_key`
port { bind: { host: h1 } }
    6:22: found a binding without `interface`, expected it
port { bind: { host: h1, interface: a-name-that-is-too-long } }
    6:45: found `a-name-that-is-too-long`, expected the name of a network interface (at most 15 characters)
port { bind: { host: h1, interface: a, tunnel_key: 0 } }
    6:60: found `0`, expected a tunnel key from 1 to 8388607
port { bind: { host: h1, interface: a, tunnel_key: 8388608 } }
    6:60: found `8388608`, expected a tunnel key from 1 to 8388607
port { bind: { host: h1, interface: a, tunnel_key: 4.7 } }
    6:60: found `4.7`, expected a tunnel key from 1 to 8388607
port { bind: }
    6:16: found nothing, expected a binding as a mapping of `host`, `interface`, `tunnel_key`
port { peer: core }
    6:22: found `core`, expected a port as DEVICE/PORT, like core/web
port { peer: core/web, bind: { host: h1, interface: a } }
    6:32: found both `bind` and `peer`, expected one: a port is bound to an interface or joined to another port
port { admin_up: yes }
    6:26: found `yes`, expected true or false
router_port { addresses: [10.0.1.1] }
    6:26: found `10.0.1.1`, expected a prefix length, too: 10.0.1.1/24
router_port { addresses: [10.0.1.1/33] }
    6:26: found `10.0.1.1/33`, expected an address with a prefix length like 10.0.1.1/24 or fd00:1::1/64
router_port { addresses: [10.0.1.0/24] }
    6:26: 10.0.1.0 is the network address of 10.0.1.0/24: expected one from 10.0.1.1 to 10.0.1.254
router_port { addresses: [10.0.1.255/24] }
    6:26: 10.0.1.255 is the broadcast address of 10.0.1.0/24: expected one from 10.0.1.1 to 10.0.1.254
router_port { addresses: ["fd00:1::/64"] }
    6:26: fd00:1:: is the address of all routers of fd00:1::/64: expected one with other bits behind the prefix
router_port { addresses: ["fe80::1/64"] }
    6:26: fe80::1 is link-local: a router's port makes such an address of its MAC
router_port { addresses: ["fd00:1::1/64"] }\n      x: { addresses: ["fd00:1:0:1::1/64", "fd00:1::2/48"] }
    7:44: fd00:1::2/48 overlaps fd00:1::1/64 of core/web: expected another subnet on each port of a router
router_port { addresses: [10.0.1.1/24] }\n      x: { addresses: [10.0.9.1/24, 10.0.0.1/16] }
    7:37: 10.0.0.1/16 overlaps 10.0.1.1/24 of core/web: expected another subnet on each port of a router
"##;

#[test]
fn ports() {
    check(PORTS);
}

const ROUTES: &str = r##"
route { via: 10.0.2.254 }
    6:9: found a route without `to`, expected it
route { to: 10.0.9.0/24 }
    6:9: found a route without `via` or `action`, expected one
route { to: 10.0.9.1/24, action: reject }
    6:15: found `10.0.9.1/24`, expected a prefix without host bits: 10.0.9.0/24
route { to: 10.0.9.0, action: reject }
    6:15: found `10.0.9.0`, expected a prefix like 10.0.1.0/24 or fd00:1::/64
route { to: 10.0.9.0/24, from: 10.0.1.1/24, action: reject }
    6:34: found `10.0.1.1/24`, expected a prefix without host bits: 10.0.1.0/24
route { to: 10.0.9.0/24, from: "fd00:1::/64", action: reject }
    6:9: packets for 10.0.9.0/24 don't come from fd00:1::/64: expected an IPv4 prefix
route { to: 10.0.9.0/24, action: drop }
    6:36: found `drop`, expected `blackhole` or `reject`
route { to: 10.0.9.0/24, action: reject, via: 10.0.2.254 }
    6:28: found both `via` and `action`, expected one
route { to: 10.0.9.0/24, action: reject, weight: -1 }
    6:52: found `-1`, expected a whole number like 100
route { to: 10.0.9.0/24, via: 10.0.2.0/24 }
    6:33: found `10.0.2.0/24`, expected an IPv4 address like 10.0.1.1
route { to: 10.0.9.0/24, via: 224.0.0.1 }
    6:9: 224.0.0.1 can't be a next hop
route { to: "fd00:9::/64", via: 10.0.2.254 }
    6:35: found `10.0.2.254`, expected an IPv6 address like fd00:1::1
route { to: 10.0.9.0/24, via: "fd00:2::fe" }
    6:33: found `fd00:2::fe`, expected an IPv4 address like 10.0.1.1
route { to: "fd00:9::/64", via: "fe80::1" }
    6:9: fe80::1 is link-local, and there is one on every port: expected an address of a port's subnet
"##;

#[test]
fn routes() {
    check(ROUTES);
}

const COMMON_OBJECTS: &str = r##"
common hosts: { h1: { zones: } }
    3:16: found nothing, expected a mapping from names to underlay addresses
common hosts: { h1: { zones: { default: 172.30.1 } } }
    3:34: found `172.30.1`, expected an IP address like 172.30.1.1 or fd30:1::1
common hosts: { h1: { zones: { default: "fe80::1" } } }
    3:34: fe80::1 can't be the address of a host
common hosts: { h1: { zone: {} } }
    3:16: found `zone`, expected a key of a host: `zones`
common hosts: { h1: { zones: { defualt: 172.30.1.1 } } }
    3:25: found tunnel zone `defualt`, which is neither in this file nor in the topology
file weft: v1\ntunnel_zones: { default: { encapsulation: ipip } }
    2:43: found `ipip`, expected `gre`
"##;

#[test]
fn common_objects() {
    check(COMMON_OBJECTS);
    let twice = common(
        "hosts:\n  h1: { zones: { default: 172.30.1.1 } }\n  h2: { zones: { default: 172.30.1.1 } }",
    );
    let [mistake] = &mistakes(&twice)[..] else {
        panic!("one mistake")
    };
    assert!(
        mistake.contains("the underlay address is taken: host h"),
        "{mistake}"
    );
}

const REFERENCES: &str = r##"
port { bind: { host: h9, interface: a } }
    6:30: found host `h9`, which is neither in this file nor in the topology
port { peer: core/web }
    6:22: found port `core/web`, which is neither in this file nor in the topology
port { peer: web/web-1 }
    6:22: found a peer of the same device, expected one of another
port { peer: web/web-2 }\n      web-2: {}
    6:22: found a peer of the same device, expected one of another
port { peer: core/a }\n      web-2: { peer: core/a }\nrouters: { core: { ports: { a: {} } } }
    7:22: found another peer for core/a, which is joined to web/web-1 at 6:22
port { peer: core/a }\nrouters: { core: { ports: { a: { bind: { host: h1, interface: i } } } } }\n---\nweft: v1\nhosts: { h1: {} }
    6:22: found peer core/a, expected a port without `bind`: it has one at 7:63
"##;

#[test]
fn references() {
    check(REFERENCES);
}

const POLICY: &str = r##"
file weft: v1\nchains: { a: x }
    2:1: found `chains` in a document without `tenant`, expected `tenant: NAME`
port { ingress: a }
    6:25: found `a`, expected a list of chains like [to-web]
tenant chains: { a: drop }
    3:14: found `drop`, expected a list of rules
tenant chains: { a: [{ proto: tcp }] }
    3:15: found a rule without `action`, expected it
tenant chains: { a: [{ action: jump }] }
    3:25: found `jump` without `chain`, expected it
tenant chains: { a: [{ action: drop, chain: b }] }
    3:31: found `chain` with action `drop`, expected it with `jump` only
tenant chains: { a: [{ action: snat }] }
    3:25: action `snat` is not supported by this version of weft
tenant chains: { a: [{ out_port: up1, action: drop }] }
    3:17: `out_port` of a rule is not supported by this version of weft
tenant chains: { a: [{ not: {}, action: drop }] }
    3:22: found a mapping, expected a condition: `ethertype`, `src_mac`, `dst_mac`, `vlan`, `tos`, `proto`, `src`, `dst`, `src_port`, `dst_port`, `icmp`, `fragment` or `state`
tenant chains: { a: [{ src: 10.0.1.1/24, action: drop }] }
    3:22: found `10.0.1.1/24`, expected a prefix without host bits: 10.0.1.0/24
tenant chains: { a: [{ src: { group: a, port_group: b }, action: drop }] }
    3:22: found a mapping, expected one of `group` and `port_group`
tenant chains: { a: [{ vlan: 4096, action: drop }] }
    3:23: found `4096`, expected `none` or a VLAN id from 0 to 4095
tenant chains: { a: [{ ethertype: 0x5ff, action: drop }] }
    3:28: found `0x5ff`, expected `ipv4`, `ipv6`, `arp` or a number like 0x88cc
tenant chains: { a: [{ icmp: { code: 0 }, action: drop }] }
    3:23: found `icmp` without `type`, expected it
tenant address_groups: { office: [anywhere] }
    3:28: found `anywhere`, expected an address or prefix like 10.0.1.11, 10.0.1.0/24 or fd00:1::/64
tenant port_groups: { web: { ports: [web-1] } }
    3:31: found `web-1`, expected a port as DEVICE/PORT, like core/web
tenant address_groups: { office: [10.0.0.1, 10.0.0.1/32] }
    3:38: found `10.0.0.1/32` again, first written at 3:28
file weft: v1\ntenant: a\nchains: { c: [] }\n---\nweft: v1\ntenant: a\nchains: { c: [] }
    7:11: found chain `c`, expected another name: a chain has it at 3:11
file weft: v1\ntenant: a\naddress_groups: { c: [] }\n---\nweft: v1\ntenant: a\naddress_groups: { c: [] }
    7:19: found address group `c`, expected another name: an address group has it at 3:19
"##;

#[test]
fn mistakes_of_policies() {
    check(POLICY);
}

/// References of policies and what the model refuses of them, each at its place.
const POLICY_REFERENCES: &str = r##"
port { ingress: [b] }\nchains: { a: [] }
    6:26: found chain `b`, which is neither in this file nor in the topology (expected `a`)
tenant chains: { a: [{ action: jump, chain: b }] }
    3:38: found chain `b`, which is neither in this file nor in the topology (expected `a`)
tenant chains: { a: [{ src: { group: office }, action: drop }] }
    3:31: found address group `office`, which is neither in this file nor in the topology
tenant chains: { a: [{ not: { dst: [{ port_group: web }] }, action: drop }] }
    3:44: found port group `web`, which is neither in this file nor in the topology
tenant port_groups: { web: { ports: [web/web-1] } }
    3:31: found port `web/web-1`, which is neither in this file nor in the topology
tenant chains: { a: [{ action: accept }, { action: jump, chain: b }], b: [{ action: jump, chain: a }] }
    3:35: chains jump in a loop: a -> b -> a
port { ingress: [a] }\nchains: { a: [{ src: { port_group: web }, action: accept }] }\nport_groups: { web: { ports: [web/web-1] } }
    7:15: chain a, rule 1: source port group web has no meaning on ingress chains: expected it on egress chains
port { egress: [a] }\nchains: { a: [{ action: log }, { src: { port_group: web }, action: accept }] }\nport_groups: { web: { ports: [web/web-1] } }
    7:32: chain a, rule 2: source port group web: its member web-1 has no fixed address (`addresses`)
"##;

#[test]
fn references_of_policies() {
    let lines = POLICY_REFERENCES.lines().filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    for pair in lines.chunks(2) {
        let text = file(pair[0]);
        let file = TopologyFile::parse("f", &text).unwrap();
        let Err(mistakes) = plan(&Model::default(), &file, false) else {
            panic!("taken:\n{text}");
        };
        assert_eq!(
            mistakes.to_string(),
            format!("f:{}", pair[1].trim()),
            "the file was:\n{text}"
        );
    }
}

/// A hook has so many rules, a jump's target counted each time.
#[test]
fn too_many_rules_on_a_port_are_refused_with_the_number() {
    let chain = |count: usize| {
        let rules = "{ action: log }, ".repeat(count);
        format!(
            "{}chains: {{ a: [{{ action: jump, chain: b }}], b: [{rules}] }}\n",
            port("{ egress: [a] }")
        )
    };
    let planned = |count| {
        let file = TopologyFile::parse("f", &chain(count)).unwrap();
        plan(&Model::default(), &file, false).map(drop)
    };
    planned(4095).unwrap();
    let expected = "f:6:24: 4097 rules on one egress hook: expected at most 4096, where a jump counts its target's rules each time";
    assert_eq!(planned(4096).unwrap_err().to_string(), expected);
}

const LATER_FEATURES: &str = r##"
tenant bridges: { web: { dhcp: [] } }
    3:19: `dhcp` of a bridge is not supported by this version of weft
tenant bridges: { web: { ingress: [a] } }
    3:19: `ingress` of a bridge is not supported by this version of weft
tenant bridges: { web: { egress: [a] } }
    3:19: `egress` of a bridge is not supported by this version of weft
tenant routers: { core: { ingress: [a] } }
    3:20: `ingress` of a router is not supported by this version of weft
tenant routers: { core: { floating: {} } }
    3:20: `floating` of a router is not supported by this version of weft
tenant routers: { core: { load_balancers: {} } }
    3:20: `load_balancers` of a router is not supported by this version of weft
port { allowed_pairs: [] }
    6:16: `allowed_pairs` of a bridge port is not supported by this version of weft
router_port { uplink: host }
    6:14: `uplink` of a router port is not supported by this version of weft
router_port { masquerade: true }
    6:14: `masquerade` of a router port is not supported by this version of weft
file weft: v1\ntunnel_zones: { default: { encapsulation: vxlan } }
    2:43: encapsulation `vxlan` is not supported by this version of weft
"##;

#[test]
fn later_features_are_refused_by_name() {
    check(LATER_FEATURES);
}

#[test]
fn columns_count_characters() {
    let expected = [
        "f:6:16: found `ü`, expected a key of a bridge port: `mac`, `addresses`, `bind`, `peer`, `admin_up`, `ingress` or `egress`",
        "f:6:29: found `x`, expected a MAC address like 02:00:00:00:01:0b",
    ];
    assert_eq!(mistakes(&port("{ \"ü\": 1, mac: x }")), expected);
}

#[test]
fn a_tab_is_shown_where_it_is() {
    for (text, expected) in [
        ("weft: v1\n\ttenant: acme\n", "f:2:1: "),
        ("weft: v1\nbridges:\n\tweb: {}\n", "f:3:1: "),
        ("weft: v1\nbridges:\n  web:\n  \tports: {}\n", "f:4:3: "),
        ("weft: v1\ntenant:\tacme\n", "f:2:8: "),
    ] {
        let expected = format!("{expected}found a tab, expected spaces");
        assert_eq!(mistakes(text), [expected], "{text:?}");
    }
    // Before comments and the ends of lines it is as good as a space.
    assert_eq!(
        mistakes("weft: v1\t# or so\n \t\n\t# a\ntunnel_zones: {}\n"),
        [""; 0]
    );
}

#[test]
fn what_is_no_text_is_refused_at_its_first_bad_byte() {
    for (bytes, expected) in [
        (
            &b"weft: v1\n# gr\xfc\xdfe\n"[..],
            "f:2:5: found byte 0xfc, expected UTF-8",
        ),
        (b"\xff\xfew", "f:1:1: found byte 0xff, expected UTF-8"),
        (
            b"weft: v1\n# \xc3\xbc\xc3",
            "f:2:4: found byte 0xc3, expected UTF-8",
        ),
    ] {
        let error = TopologyFile::parse_bytes("f", bytes).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let text = port("{ mac: x }");
    let error = TopologyFile::parse_bytes("f", text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), mistakes(&text).join("\n"));
}

#[test]
fn what_was_found_is_told_in_short() {
    let long = "x".repeat(100_000);
    let cut = format!("{}…", "x".repeat(59));
    for text in [
        port(&format!("{{ mac: {long} }}")),
        port(&format!("{{ ? {long} : 1 }}")),
        port(&format!("{{ mac: !{long} a }}")),
        format!("weft: {long}"),
        tenant(&format!("bridges: {{ ? {long} : {{}} }}")),
        format!("{long}\nweft: v1: x"),
        format!("weft: *{long}"),
    ] {
        let [mistake] = &mistakes(&text)[..] else {
            panic!("one mistake of {}", &text[..100])
        };
        assert!(mistake.len() < 400, "{}", &mistake[..400]);
        let is_cut = mistake.contains(&cut) && !mistake.contains(&"x".repeat(61))
            || !mistake.contains("xxx");
        assert!(is_cut, "{mistake}");
    }
    let even = "y".repeat(60);
    assert!(mistakes(&port(&format!("{{ mac: {even} }}")))[0].contains(&format!("`{even}`")));
}

#[test]
fn documents_may_stand_in_a_list() {
    let json = r#"[{"weft": "v1", "tenant": "acme", "bridges": {"web": {"ports": {"a": {}}}}}, {"weft": "v1", "hosts": {"h1": {}}}]"#;
    let file = TopologyFile::parse("f", json).unwrap();
    assert_eq!(file.documents.len(), 2);
    assert_eq!(mistakes(json), [""; 0]);
    let expected = "f:1:16: found `b`, expected a document as a mapping of `weft`, `tenant`, `bridges`, `routers`, `tunnel_zones`, `hosts`, `chains`, `address_groups`, `port_groups`";
    assert_eq!(mistakes("[{ weft: v1 }, b]"), [expected]);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_its_order() {
    let text = port("{ mac: x, addresses: [y, 10.0.1.1], bnd: {} }")
        + "routers: { web: { ports: { p: { addresses: [1.2.3.4] } } } }\n";
    assert_eq!(
        mistakes(&text),
        [
            "f:6:21: found `x`, expected a MAC address like 02:00:00:00:01:0b",
            "f:6:36: found `y`, expected an IPv4 or IPv6 address like 10.0.1.11",
            "f:6:50: found `bnd`, expected a key of a bridge port: `mac`, `addresses`, `bind`, `peer`, `admin_up`, `ingress` or `egress`",
            "f:7:12: found router `web`, expected another name: a bridge has it at 4:3",
            "f:7:45: found `1.2.3.4`, expected a prefix length, too: 1.2.3.4/24",
        ]
    );
}

#[test]
fn a_typo_is_met_with_the_word_that_was_meant() {
    let error = TopologyFile::parse("f", &port("{ adresses: [] }")).unwrap_err();
    assert_eq!(
        error.list[0].help.as_deref(),
        Some("did you mean `addresses`?")
    );
    let file =
        TopologyFile::parse("f", &common("hosts: { h1: { zones: { x: 172.30.1.1 } } }")).unwrap();
    let error = plan(&Model::default(), &file, false).unwrap_err();
    assert_eq!(error.list[0].help.as_deref(), Some("expected `default`"));
}

#[test]
fn hostile_files_end() {
    let deep = "[".repeat(100_000);
    assert_eq!(mistakes(&deep).len(), 1);
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        laughs += &format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{before}"); 10].join(", ")
        );
    }
    let answer = mistakes(&laughs);
    assert!(answer[0].contains("more than 1000000 values"), "{answer:?}");
}
