//! What chains and groups of a file mean, and the place and words of each mistake. No state; run by cargo.

use super::*;
use crate::topology::yaml::{Source, documents};

/// A rule, or its mistakes.
fn read(text: &str) -> Result<RuleEntry, Vec<String>> {
    let source = Source::new("f", text);
    let nodes = documents(&source).map_err(|it| vec![it.to_string()])?;
    let mut reader = Reader::new(&source);
    let rule = rule(&mut reader, &nodes[0]);
    let mistakes: Vec<String> = reader.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(rule.is_none(), !mistakes.is_empty(), "{text}: {mistakes:?}");
    rule.ok_or(mistakes)
}

#[test]
fn rules_mean_what_they_say() {
    let stateful = read("{ state: [established, related], action: accept }").unwrap();
    let states = [Connection::Established, Connection::Related];
    assert_eq!(stateful.matches.plain.state, Some(states.to_vec()));
    assert_eq!(stateful.action, ActionEntry::Accept);

    let web = read("{ proto: tcp, dst_port: [80, 8000-8080], src: { group: office }, action: accept, log: web }").unwrap();
    let ports = [(80, 80), (8_000, 8_080)].map(|(first, last)| PortRange { first, last });
    assert_eq!(web.matches.plain.protocol, Some(vec![6]));
    assert_eq!(web.matches.plain.dst_port, Some(ports.to_vec()));
    let Some([AddressEntry::AddressGroup(office)]) = web.matches.src.as_deref() else {
        panic!("{web:?}");
    };
    assert_eq!((office.value.as_str(), office.span.column), ("office", 56));
    assert_eq!(web.log.map(|it| it.value), Some("web".into()));

    let guests = read("{ not: { src: { group: office } }, action: jump, chain: guests }").unwrap();
    assert_eq!(guests.matches, ConditionsEntry::default());
    assert_eq!(guests.not.len(), 1);
    assert!(matches!(&guests.action, ActionEntry::Jump(chain) if chain.value == "guests"));
}

#[test]
fn every_condition_is_read() {
    let text = "ethertype: [ipv4, 0x88cc]
src_mac: 02:00:00:00:00:00/ff:ff:ff:00:00:00
dst_mac: \"ff:ff:ff:ff:ff:ff\"
vlan: none
tos: 184
proto: [udp, 89]
src: [10.0.1.11, 10.0.2.0/24, \"fd00:1::/64\", { port_group: web }]
dst: 0.0.0.0/0
src_port: 0-65535
dst_port: 53
icmp: [{ type: 8 }, { type: 3, code: 4 }]
fragment: unfragmented
state: new
not: [{ vlan: 5 }, { dst_port: 22, src: 10.0.0.0/8 }]
action: reject";
    let rule = read(text).unwrap();
    let plain = &rule.matches.plain;
    assert_eq!(plain.ethertype, Some(vec![0x0800, 0x88cc]));
    let masks = [plain.src_mac, plain.dst_mac].map(|it| it.map(|it| it.mask.to_string()));
    assert_eq!(
        masks,
        ["ff:ff:ff:00:00:00", "ff:ff:ff:ff:ff:ff"].map(|it| Some(it.into()))
    );
    assert_eq!(
        (plain.vlan, &plain.tos),
        (Some(VlanMatch::None), &Some(vec![184]))
    );
    assert_eq!(plain.protocol, Some(vec![17, 89]));
    let src = rule.matches.src.unwrap();
    assert_eq!(
        src[0],
        AddressEntry::Prefix("10.0.1.11/32".parse().unwrap())
    );
    assert_eq!(src[2], AddressEntry::Prefix("fd00:1::/64".parse().unwrap()));
    assert!(matches!(&src[3], AddressEntry::PortGroup(web) if web.value == "web"));
    let icmp = [(8, None), (3, Some(4))].map(|(kind, code)| IcmpMatch { kind, code });
    assert_eq!(plain.icmp, Some(icmp.to_vec()));
    assert_eq!(plain.fragment, Some(FragmentPolicy::Unfragmented));
    let not = (rule.not[0].plain.vlan, rule.not[1].src.is_some());
    assert_eq!((rule.not.len(), not), (2, (Some(VlanMatch::Id(5)), true)));
}

#[test]
fn every_mistake_of_a_rule_is_told() {
    let told = read("{ proto: tpc, dst_port: [80, 99999, 90-80], action: accpet, colour: red }");
    let expected = [
        "f:1:61: found `colour`, expected a key of a rule: `ethertype`, `src_mac`, `dst_mac`, `vlan`, `tos`, `proto`, `src`, `dst`, `src_port`, `dst_port`, `icmp`, `fragment`, `state`, `not`, `action`, `chain` or `log`",
        "f:1:10: found `tpc`, expected `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, `gre` or a number from 0 to 255",
        "f:1:30: found `99999`, expected a port like 80 or a range like 8000-8080",
        "f:1:37: found `90-80`, expected a port like 80 or a range like 8000-8080",
        "f:1:53: found `accpet`, expected `accept`, `drop`, `reject`, `return`, `continue`, `jump` or `log`",
    ];
    assert_eq!(told, Err(expected.map(String::from).to_vec()));
}

#[test]
fn a_rule_with_a_wrong_condition_is_none() {
    for wrong in [
        "state: old",
        "fragment: last",
        "tos: 256",
        "src_mac: 02:00",
        "dst: { group: a b }",
        "icmp: [{ type: 8 }, { type: 300 }]",
        "not: [{ vlan: 5 }, { vlan: x }]",
    ] {
        let mistakes = read(&format!("{{ {wrong}, action: drop }}")).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{wrong}: {mistakes:?}");
    }
}
