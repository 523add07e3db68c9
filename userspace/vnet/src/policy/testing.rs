//! Short words for the tests of policy.

use super::{
    Action, AddressGroup, AddressMatch, Conditions, Connection, Group, Policy, PortRange, Rule,
    Sets, View,
};
use crate::id::{AddressGroupId, TenantId};
use std::sync::Arc;
use uuid::Uuid;
use weft_common::frame::protocol;
use weft_common::key::class;
use weft_common::{FlowKey, Fragment, Network};

pub(super) use super::generator::{addresses, chain_id, policy, ports};

pub(super) fn prefixes(text: &str) -> Option<Vec<AddressMatch>> {
    let prefix = |it: &str| AddressMatch::Prefix(it.parse().unwrap());
    Some(text.split_whitespace().map(prefix).collect())
}

pub(super) fn in_groups(groups: &[Group]) -> Option<Vec<AddressMatch>> {
    Some(groups.iter().map(|it| AddressMatch::Group(*it)).collect())
}

pub(super) fn port(first: u16, last: u16) -> Option<Vec<PortRange>> {
    Some(vec![PortRange { first, last }])
}

pub(super) fn rule(matches: Conditions, action: Action) -> Rule {
    Rule {
        matches,
        action,
        ..Rule::default()
    }
}

/// Matches everything.
pub(super) fn always(action: Action) -> Rule {
    rule(Conditions::default(), action)
}

pub(super) fn with_address_group(mut policy: Policy, number: u128) -> Policy {
    let id = AddressGroupId(Uuid::from_u128(number));
    let group = AddressGroup {
        id,
        tenant: TenantId(Uuid::nil()),
        name: format!("group{number}"),
        prefixes: Vec::new(),
    };
    policy.address_groups.insert(id, Arc::new(group));
    policy
}

pub(super) fn sets(members: &[(Group, &str)]) -> Sets {
    let mut sets = Sets::default();
    for (group, prefix) in members {
        sets.add(*group, prefix.parse().unwrap()).unwrap();
    }
    sets
}

/// A new connection's first packet.
pub(super) fn tcp(src: &str, dst: &str, dst_port: u16) -> View {
    let mut key = FlowKey::default();
    key.head.class = class(0, Network::Ipv4, Fragment::Whole);
    key.head.protocol = protocol::TCP;
    (key.head.l4_src, key.head.l4_dst) = (40_000, dst_port);
    key.set_src_v4(src.parse::<std::net::Ipv4Addr>().unwrap().octets());
    key.set_dst_v4(dst.parse::<std::net::Ipv4Addr>().unwrap().octets());
    View {
        key,
        upper_known: true,
        state: Connection::New,
    }
}

pub(super) fn arp() -> View {
    let mut view = tcp("10.0.0.1", "10.0.0.2", 0);
    view.key.head.class = class(0, Network::Arp, Fragment::Whole);
    view.key.head.protocol = 1;
    (view.key.head.l4_src, view.key.head.l4_dst) = (0, 0);
    view
}
