//! What is told of chains and connections.

use super::*;
use weft_api::{ConnectionState, ConnectionsQuery, Enforcer, HookRules};
use weft_common::connection::{BY_NETWORK, Connection, Entry, Phase, RST, Traffic, seen_at};
use weft_common::frame::protocol;
use weft_datapath::{Family, Tracked, monotonic_ns};
use weft_vnet::ChainId;
use weft_vnet::policy::{
    Action, Chain, Conditions, Connection as State, Hook, MacMatch, Rule, VlanMatch,
};

pub(super) const TO_NEAR: ChainId = ChainId(Uuid::from_u128(81));

fn rule(matches: Conditions, action: Action) -> Rule {
    Rule {
        matches,
        action,
        ..Rule::default()
    }
}

fn protocol_is(number: u8) -> Conditions {
    Conditions {
        protocol: Some(vec![number]),
        ..Conditions::default()
    }
}

/// What is established passes, TCP may open, the rest is dropped.
pub(super) fn stateful() -> Vec<Rule> {
    let established = Conditions {
        state: Some(vec![State::Established]),
        ..Conditions::default()
    };
    vec![
        rule(established, Action::Accept),
        rule(protocol_is(protocol::TCP), Action::Accept),
        rule(Conditions::default(), Action::Drop),
    ]
}

impl Rig {
    pub(super) fn chain(&mut self, rules: Vec<Rule>) {
        let chain = Chain {
            id: TO_NEAR,
            tenant: self.tenant(),
            name: "to-near".into(),
            rules,
        };
        self.put(Object::Chain(chain));
    }

    /// `web/near` and `db/near` receive by [`stateful`].
    pub(super) fn judged() -> Rig {
        let mut rig = Rig::new();
        rig.chain(stateful());
        for port in ["web/near", "db/near"] {
            rig.change(port, |port| port.egress = vec![TO_NEAR]);
        }
        rig.topology();
        rig
    }

    fn egress(&self, path: &str) -> HookRules {
        let rules = self.engine.report_rules(&self.id(path).to_string());
        let [_, egress] = <[HookRules; 2]>::try_from(rules.unwrap().hooks).unwrap();
        egress
    }

    /// Packets by rule.
    fn packets(&self, path: &str) -> Vec<u64> {
        let egress = self.egress(path);
        egress.rules.iter().map(|it| it.packets).collect()
    }

    /// The kernel counts packets of 100 bytes at a rule of a port.
    fn counted(&mut self, path: &str, rule: usize, packets: u64) {
        let index = self.index(path);
        let number = self.datapath().policy(index).egress;
        let rules = self.datapath().acl_counters(number).unwrap().len();
        let cells = self.datapath().fake.acls.get_mut(&number).unwrap();
        let place = cells.len() - rules + rule;
        cells[place][0] += packets;
        cells[place][1] += packets * 100;
    }

    /// A connection of `web/near`, admitted by a rule of now, with packets of 100 bytes.
    fn tracked(&mut self, number: u16, opener: u8, rule: u16, packets: [u64; 2]) -> Tracked {
        let index = self.index("web/near");
        let traffic = packets.map(|packets| Traffic {
            packets,
            bytes: packets * 100,
        });
        let mut entry = Entry {
            connection: Connection {
                seen: seen_at(monotonic_ns()),
                opened: self.datapath().policy(index).epoch,
                phase: Phase::Established as u8,
                flags: opener,
                rule,
                traffic,
                ..Connection::default()
            },
            ..Entry::default()
        };
        entry.key.remote[8..].copy_from_slice(&[10, 0, 1, 11, 10, 0, 1, 12]);
        entry.key.tail.local_l4 = 80;
        entry.key.tail.remote_l4 = number;
        entry.key.tail.port = index;
        entry.key.tail.protocol = protocol::TCP;
        let tracked = Tracked {
            family: Family::V4,
            is_established: true,
            entry,
        };
        self.datapath().fake.connections.push(tracked);
        tracked
    }
}

#[test]
fn connections_count_for_the_rule_that_let_them_in() {
    let mut rig = Rig::judged();
    assert_eq!(rig.packets("web/near"), [0, 0, 0]);
    rig.counted("web/near", 1, 1);
    rig.counted("web/near", 2, 5);
    // Of ten packets one was looked up; those that the workload sent met no chain.
    rig.tracked(1, BY_NETWORK, 1, [7, 10]);
    assert_eq!(rig.packets("web/near"), [0, 10, 5]);
    assert_eq!(rig.egress("web/near").rules[1].bytes, 1000);
    // Answers to what the workload opened come in by the first rule, without a lookup.
    rig.tracked(2, 0, weft_common::acl::NO_RULE, [3, 4]);
    assert_eq!(rig.packets("web/near"), [4, 10, 5]);
    // The other port shares the tables, and nothing else.
    assert_eq!(rig.packets("db/near"), [0, 1, 5]);
    assert_eq!(rig.egress("db/near").enforcement.ports, 2);
}

#[test]
fn counts_go_on_when_chains_change_and_connections_end() {
    let mut rig = Rig::judged();
    rig.counted("web/near", 1, 1);
    rig.counted("web/near", 2, 5);
    let ended = rig.tracked(1, BY_NETWORK, 1, [7, 10]);
    rig.engine.keep_counts_of(&ended);
    rig.datapath().remove_connection(&ended).unwrap();
    assert_eq!(rig.packets("web/near"), [0, 10, 5]);
    let mut rules = stateful();
    rules.insert(0, rule(protocol_is(protocol::UDP), Action::Drop));
    rules[2].action = Action::Reject;
    rig.chain(rules);
    rig.topology();
    // One that moved goes on, one that says something else starts anew.
    assert_eq!(rig.packets("web/near"), [0, 0, 0, 5]);
    rig.counted("web/near", 3, 2);
    assert_eq!(rig.packets("web/near"), [0, 0, 0, 7]);
    rig.chain(stateful());
    rig.topology();
    assert_eq!(rig.packets("web/near"), [0, 0, 7]);
}

#[test]
fn a_port_that_joins_tables_starts_at_zero() {
    let mut rig = Rig::judged();
    rig.counted("web/near", 2, 5);
    rig.change("db/guest", |port| port.egress = vec![TO_NEAR]);
    rig.topology();
    rig.counted("web/near", 2, 1);
    assert_eq!(rig.packets("web/near"), [0, 0, 6]);
    assert_eq!(rig.packets("db/guest"), [0, 0, 1]);
}

#[test]
fn enforcement_is_told_with_its_reason() {
    let mut rig = Rig::judged();
    let its = rig.egress("web/near").enforcement;
    assert_eq!((its.by, its.flat_rules), (Enforcer::Kernel, 3));
    assert!(its.established_passes && !its.asks_each_packet && !its.may_exceed);
    assert!(its.bytes > 0 && its.steps_max == 0);
    let tagged = Conditions {
        vlan: Some(VlanMatch::Id(5)),
        ..Conditions::default()
    };
    // More steps than the kernel makes, and rules that ask each packet.
    rig.chain(vec![rule(tagged, Action::Log); 65]);
    rig.topology();
    let its = rig.egress("web/near").enforcement;
    assert!(its.may_exceed && its.asks_each_packet, "{its:?}");
    let mask = |bits: u8| Conditions {
        src_mac: Some(MacMatch {
            value: Mac([0; 6]),
            mask: Mac([0, 0, 0, 0, bits, 0]),
        }),
        ..Conditions::default()
    };
    let masks = (1..=9).map(|bits| rule(mask(bits), Action::Drop));
    rig.chain(masks.collect());
    rig.topology();
    let its = rig.egress("web/near").enforcement;
    assert_eq!(its.by, Enforcer::NotCompiled);
    let why = its.why.unwrap_or_default();
    assert!(why.starts_with("9 different masks of MAC"), "{why}");
    let its = rig.engine.report_status().policy;
    assert_eq!((its.tables, its.hooks, its.hooks_not_compiled), (0, 0, 2));
    let far = rig.egress("web/far").enforcement;
    assert_eq!(far.by, Enforcer::Nobody);
    assert!(rig.engine.report_rules("x").is_err());
}

#[test]
fn connections_are_told_by_port_and_flushed() {
    let mut rig = Rig::judged();
    rig.tracked(40_000, BY_NETWORK, 1, [7, 10]);
    rig.tracked(40_001, 0, weft_common::acl::NO_RULE, [1, 0]);
    let connections = &mut rig.datapath().fake.connections;
    connections[1].is_established = false;
    connections[1].entry.connection.phase = Phase::Opening as u8;
    let gone = connections[0];
    let long_ago = gone.entry.connection.seen.wrapping_sub(1_000_000);
    connections.push(gone);
    connections[2].entry.connection.seen = long_ago;
    connections[2].entry.key.tail.remote_l4 = 40_002;
    let near = ConnectionsQuery {
        port: Some(rig.id("web/near").to_string()),
        ..ConnectionsQuery::default()
    };
    let other = ConnectionsQuery {
        port: Some(rig.id("db/near").to_string()),
        ..ConnectionsQuery::default()
    };
    let mut told = rig.engine.report_connections(&near).unwrap();
    told.connections.sort_by_key(|it| it.remote_port);
    assert_eq!((told.total, told.connections.len()), (2, 2));
    let [one, two] = &told.connections[..] else {
        panic!("two");
    };
    assert_eq!(
        (&*one.port, &*one.tenant, &*one.host),
        ("web/near", "acme", "h1")
    );
    assert_eq!((&*one.local, one.local_port), ("10.0.1.11", Some(80)));
    assert_eq!((&*one.remote, one.remote_port), ("10.0.1.12", Some(40_000)));
    assert_eq!((one.ingress_packets, one.egress_bytes), (7, 1000));
    assert_eq!(one.rule.as_deref(), Some("chain to-near, rule 2"));
    assert_eq!(
        (one.state, &*one.opened_by),
        (ConnectionState::Established, "network")
    );
    assert_eq!(
        (two.state, &*two.opened_by),
        (ConnectionState::HalfOpen, "workload")
    );
    assert_eq!(two.rule, None);
    rig.datapath().fake.connections[0].entry.connection.flags |= RST;
    let reset = rig.engine.report_connections(&near).unwrap();
    let is_reset = |it: &weft_api::ConnectionInfo| it.state == ConnectionState::Reset;
    assert!(reset.connections.iter().any(is_reset));
    assert_eq!(rig.engine.report_connections(&other).unwrap().total, 0);
    let tenant = Some(rig.tenant().to_string());
    let one = ConnectionsQuery {
        tenant,
        limit: Some(1),
        ..ConnectionsQuery::default()
    };
    let told = rig.engine.report_connections(&one).unwrap();
    assert_eq!((told.total, told.connections.len()), (2, 1));
    assert_eq!(rig.engine.flush_connections(&other).unwrap().removed, 0);
    assert_eq!(rig.engine.flush_connections(&near).unwrap().removed, 3);
    assert_eq!(rig.engine.report_connections(&near).unwrap().total, 0);
    // What they counted stays.
    assert!(rig.packets("web/near")[1] >= 9);
}

/// The port's key is another one: the chains go with it.
#[test]
fn a_port_that_is_bound_elsewhere_keeps_its_chains() {
    let mut rig = Rig::judged();
    let before = rig.index("web/near");
    rig.add_interface("other", 900);
    rig.change("web/near", |port| {
        if let Some(binding) = &mut port.binding {
            binding.interface = "other".into();
        }
    });
    rig.topology();
    rig.look();
    let index = rig.index("web/near");
    assert_ne!(index, before);
    assert_ne!(rig.datapath().policy(index).egress, 0);
    assert_ne!(
        rig.engine.acls.table(rig.id("web/near"), Hook::Egress),
        Default::default()
    );
}
