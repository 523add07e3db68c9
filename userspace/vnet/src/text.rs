//! Matches and decisions in words, in the manner of `ovs-ofctl`: for `weft flows` and `weft trace`.
//!
//! No state. Called by whoever prints.

use crate::id::{HostId, PortId};
use crate::mac::Mac;
use crate::simulate::{Cause, Member, Outcome, Verdict};
use crate::snapshot::Snapshot;
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_common::frame::protocol;
use weft_common::key::{
    CLASS_FRAGMENT, CLASS_NETWORK, CLASS_STAGE, FlowHead, Fragment, Network, VLAN_PRESENT,
};
use weft_common::{FlowKey, TunnelKey};

/// The matched fields of a flow: `in=web/web-1,ip,dst_mac=02:00:00:00:01:01,ip_dst=10.0.2.11/32`.
///
/// Port indices are per host: where several hosts use this one it stays a number; see [`describe_match_on`].
pub fn describe_match(key: &FlowKey, mask: &FlowKey, snapshot: &Snapshot) -> String {
    describe(key, mask, snapshot, None)
}

/// Like [`describe_match`], for a flow of this host.
pub fn describe_match_on(
    key: &FlowKey,
    mask: &FlowKey,
    snapshot: &Snapshot,
    host: HostId,
) -> String {
    describe(key, mask, snapshot, Some(host))
}

/// A decision: `set_src_mac=...,set_dst_mac=...,dec_ttl=1,output=web/web-2`.
pub fn describe_outcome(outcome: &Outcome, snapshot: &Snapshot) -> String {
    let mut words = Vec::new();
    if let Some((source, destination)) = outcome.macs {
        words.push(format!("set_src_mac={source}"));
        words.push(format!("set_dst_mac={destination}"));
    }
    if outcome.ttl_decrement > 0 {
        words.push(format!("dec_ttl={}", outcome.ttl_decrement));
    }
    words.push(describe_verdict(&outcome.verdict, snapshot));
    words.join(",")
}

/// Where a packet goes: `output=web/web-2`, `flood=web`, `drop=no_route (router core)`.
pub fn describe_verdict(verdict: &Verdict, snapshot: &Snapshot) -> String {
    let model = snapshot.model();
    match verdict {
        Verdict::Deliver(port) => format!("output={}", model.port_path(*port)),
        Verdict::Flood { domain } => format!("flood={}", model.bridge_name(*domain)),
        Verdict::Drop {
            reason,
            cause: None,
        } => format!("drop={}", reason.name()),
        Verdict::Drop {
            reason,
            cause: Some(cause),
        } => {
            format!("drop={} ({})", reason.name(), cause.describe(snapshot))
        }
        Verdict::Select(members) => {
            let members = members.iter().map(|Member { next_hop, outcome }| {
                let verdict = describe_verdict(&outcome.verdict, snapshot);
                format!("{}: {verdict}", next_hop.address)
            });
            format!("select=[{}]", members.collect::<Vec<_>>().join(", "))
        }
        Verdict::Refuse { reason, cause } => {
            let by = cause.map(|cause| format!(" ({})", cause.describe(snapshot)));
            let by = by.unwrap_or_default();
            format!("drop={}{by} and tell the sender", reason.name())
        }
        Verdict::Answered => "answered".to_owned(),
        Verdict::Wait {
            router_port,
            address,
        } => {
            format!("wait={address} on {}", model.port_path(*router_port))
        }
    }
}

impl Cause {
    /// The cause with its names: `route 10.0.0.0/8 of router core`.
    pub fn describe(&self, snapshot: &Snapshot) -> String {
        let model = snapshot.model();
        match self {
            Cause::Route {
                router,
                to,
                from: None,
            } => format!("route {to} of router {}", model.router_name(*router)),
            Cause::Route {
                router,
                to,
                from: Some(from),
            } => {
                let router = model.router_name(*router);
                format!("route {to} from {from} of router {router}")
            }
            Cause::InactiveRoute {
                router,
                to,
                via,
                why,
            } => {
                let (router, why) = (model.router_name(*router), why.describe(*via));
                format!("router {router}, whose route {to} via {via} is inactive: {why}")
            }
            Cause::Router(router) => format!("router {}", model.router_name(*router)),
            Cause::Bridge(bridge) => format!("bridge {}", model.bridge_name(*bridge)),
            Cause::Port(port) => format!("port {}", model.port_path(*port)),
            Cause::Rule(rule) => rule.describe(&model.policy),
        }
    }
}

fn describe(key: &FlowKey, mask: &FlowKey, snapshot: &Snapshot, host: Option<HostId>) -> String {
    let mut words = Vec::new();
    let mut word = |text: String| words.push(text);
    // No `..`: a field that is added to the key has to be added here.
    let FlowKey {
        head,
        src: _,
        dst: _,
        spare: _,
    } = mask;
    let FlowHead {
        port,
        class,
        mask_id: _,
        vlan,
        protocol,
        tos,
        src_mac,
        dst_mac,
        l4_src,
        l4_dst,
    } = *head;
    if port != 0 {
        word(format!("in={}", ingress(key.head.port, snapshot, host)));
    }
    if class & CLASS_STAGE != 0 && key.head.stage() != 0 {
        word(format!("stage={}", key.head.stage()));
    }
    if class & CLASS_NETWORK != 0 {
        word(network(key.head.network()).to_owned());
    }
    if vlan != 0 {
        word(format!("vlan={}", vlan_text(key.head.vlan, vlan)));
    }
    if src_mac != [0; 6] {
        word(format!("src_mac={}", mac(key.head.src_mac, src_mac)));
    }
    if dst_mac != [0; 6] {
        word(format!("dst_mac={}", mac(key.head.dst_mac, dst_mac)));
    }
    addresses(key, mask, &mut word);
    if protocol != 0 {
        word(protocol_text(key, protocol));
    }
    if tos != 0 {
        word(format!(
            "tos={}",
            number(key.head.tos.into(), tos.into(), u8::MAX.into())
        ));
    }
    if class & CLASS_FRAGMENT != 0 {
        let fragment = match key.head.fragment() {
            Fragment::Whole => "no",
            Fragment::First => "first",
            Fragment::Later => "later",
        };
        word(format!("frag={fragment}"));
    }
    ports(key, l4_src, l4_dst, &mut word);
    words.join(",")
}

fn ingress(index: u16, snapshot: &Snapshot, host: Option<HostId>) -> String {
    let here = |it: &HostId| host.is_none_or(|host| host == *it);
    let activity = snapshot.all_activity().ports.iter();
    let mut found = activity
        .filter(|(_, (host, key))| here(host) && TunnelKey::from_bits(*key).index == index)
        .map(|(port, _): (&PortId, _)| *port);
    match (found.next(), found.next()) {
        (Some(port), None) => snapshot.model().port_path(port),
        _ => index.to_string(),
    }
}

const fn network(network: Network) -> &'static str {
    match network {
        Network::Other => "eth",
        Network::Ipv4 => "ip",
        Network::Arp => "arp",
        Network::Ipv6 => "ipv6",
    }
}

fn vlan_text(key: u16, mask: u16) -> String {
    if mask & VLAN_PRESENT != 0 && key & VLAN_PRESENT == 0 {
        return "none".to_owned();
    }
    match mask & !VLAN_PRESENT {
        0 => "any".to_owned(),
        id => number(key & !VLAN_PRESENT, id, 0x0fff),
    }
}

fn mac(key: [u8; 6], mask: [u8; 6]) -> String {
    if mask == [0xff; 6] {
        Mac(key).to_string()
    } else {
        format!("{}/{}", Mac(key), Mac(mask))
    }
}

/// A number, with its mask when not all of its bits are matched.
fn number(key: u16, mask: u16, all: u16) -> String {
    if mask == all {
        key.to_string()
    } else {
        format!("{:#x}/{mask:#x}", key & mask)
    }
}

fn addresses(key: &FlowKey, mask: &FlowKey, word: &mut impl FnMut(String)) {
    let (src, dst) = match key.head.network() {
        Network::Ipv4 => ("ip_src", "ip_dst"),
        Network::Arp => ("arp_spa", "arp_tpa"),
        Network::Ipv6 => {
            ipv6("ipv6_src", key.src, mask.src, word);
            return ipv6("ipv6_dst", key.dst, mask.dst, word);
        }
        Network::Other => return,
    };
    ipv4(src, key.src_v4(), mask.src_v4(), word);
    ipv4(dst, key.dst_v4(), mask.dst_v4(), word);
}

fn ipv4(name: &str, key: [u8; 4], mask: [u8; 4], word: &mut impl FnMut(String)) {
    let (key, mask) = (u32::from_be_bytes(key), u32::from_be_bytes(mask));
    let address = Ipv4Addr::from_bits(key & mask);
    let length = mask.leading_ones();
    match mask {
        0 => {}
        _ if mask.count_ones() == length => word(format!("{name}={address}/{length}")),
        _ => word(format!("{name}={address}/{}", Ipv4Addr::from_bits(mask))),
    }
}

fn ipv6(name: &str, key: [u8; 16], mask: [u8; 16], word: &mut impl FnMut(String)) {
    let (key, mask) = (u128::from_be_bytes(key), u128::from_be_bytes(mask));
    let address = Ipv6Addr::from_bits(key & mask);
    let length = mask.leading_ones();
    match mask {
        0 => {}
        _ if mask.count_ones() == length => word(format!("{name}={address}/{length}")),
        _ => word(format!("{name}={address}/{}", Ipv6Addr::from_bits(mask))),
    }
}

fn protocol_text(key: &FlowKey, mask: u8) -> String {
    let value = key.head.protocol;
    let name = match (key.head.network(), value) {
        _ if mask != u8::MAX => None,
        (Network::Arp, 1) => Some("request"),
        (Network::Arp, 2) => Some("reply"),
        (Network::Arp | Network::Other, _) => None,
        (_, protocol::ICMP) => Some("icmp"),
        (_, protocol::TCP) => Some("tcp"),
        (_, protocol::UDP) => Some("udp"),
        (_, protocol::ICMPV6) => Some("icmpv6"),
        (_, protocol::SCTP) => Some("sctp"),
        _ => None,
    };
    let field = if key.head.network() == Network::Arp {
        "arp_op"
    } else {
        "proto"
    };
    let value = || number(value.into(), mask.into(), u8::MAX.into());
    format!("{field}={}", name.map_or_else(value, str::to_owned))
}

fn ports(key: &FlowKey, src: u16, dst: u16, word: &mut impl FnMut(String)) {
    let is_icmp = matches!(key.head.protocol, protocol::ICMP | protocol::ICMPV6);
    let (network, head) = (key.head.network(), &key.head);
    match network {
        Network::Other if src == u16::MAX => word(format!("eth_type={:#06x}", head.l4_src)),
        Network::Ipv4 | Network::Ipv6 if is_icmp && src == u16::MAX => {
            let [icmp_type, code] = head.l4_src.to_be_bytes();
            word(format!("icmp_type={icmp_type},icmp_code={code}"));
        }
        _ if src != 0 => word(format!("l4_src={}", number(head.l4_src, src, u16::MAX))),
        _ => {}
    }
    if dst != 0 {
        let name = if is_icmp { "icmp_id" } else { "l4_dst" };
        word(format!("{name}={}", number(head.l4_dst, dst, u16::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Topology;

    #[test]
    fn only_what_is_matched_is_said() {
        let topology = Topology::two_subnets();
        let mut key = FlowKey::default();
        key.head.port = 1;
        key.head.class = weft_common::key::class(0, Network::Ipv4, Fragment::First);
        key.head.protocol = protocol::ICMP;
        key.head.l4_src = 0x0800;
        key.head.l4_dst = 77;
        key.set_dst_v4([10, 0, 2, 11]);
        let said = |mask: &FlowKey| describe_match(&key, mask, &topology.snapshot());
        let mut mask = FlowKey::default();
        assert_eq!(said(&mask), "");
        mask.head.port = u16::MAX;
        mask.head.class = CLASS_NETWORK;
        mask.set_dst_v4([255, 255, 255, 0]);
        let live = topology.snapshot();
        let (port, _) = live
            .all_activity()
            .ports
            .iter()
            .find(|(_, (_, key))| key >> 8 == 1)
            .unwrap();
        let name = topology.model.port_path(*port);
        assert_eq!(said(&mask), format!("in={name},ip,ip_dst=10.0.2.0/24"));
        mask.head.port = 0;
        mask.head.class |= CLASS_FRAGMENT;
        mask.head.protocol = u8::MAX;
        mask.head.l4_src = u16::MAX;
        mask.head.l4_dst = u16::MAX;
        mask.head.dst_mac = [1, 0, 0, 0, 0, 0];
        mask.set_dst_v4([0; 4]);
        let expected = "ip,dst_mac=00:00:00:00:00:00/01:00:00:00:00:00,proto=icmp,frag=first,\
                        icmp_type=8,icmp_code=0,icmp_id=77";
        assert_eq!(said(&mask), expected);
    }

    #[test]
    fn an_index_that_two_hosts_use_stays_a_number_until_the_host_is_known() {
        let topology = Topology::two_subnets();
        let key = TunnelKey {
            index: 7,
            generation: 1,
        }
        .bits();
        let hosts: Vec<HostId> = topology.model.hosts.keys().copied().collect();
        let ports = [("web/web-1", hosts[0]), ("web/web-2", hosts[1])];
        let activity = crate::Activity {
            ports: ports
                .iter()
                .map(|(path, host)| (topology.id(path), (*host, key)))
                .collect(),
            floods: Default::default(),
        };
        let snapshot = Snapshot::build(topology.model.clone().into(), activity);
        let (mut key, mut mask) = (FlowKey::default(), FlowKey::default());
        (key.head.port, mask.head.port) = (7, u16::MAX);
        assert_eq!(describe_match(&key, &mask, &snapshot), "in=7");
        assert_eq!(
            describe_match_on(&key, &mask, &snapshot, hosts[1]),
            "in=web/web-2"
        );
    }

    #[test]
    fn decisions_are_said_with_names() {
        let topology = Topology::two_subnets();
        let said = |text| describe_outcome(&topology.send("web/web-1", text), &topology.snapshot());
        let expected = format!(
            "set_src_mac={},set_dst_mac={},dec_ttl=1,output=db/db-1",
            topology.mac("core/db"),
            topology.mac("db/db-1")
        );
        assert_eq!(said("icmp 10.0.1.11 > 10.0.2.11"), expected);
        assert_eq!(said("arp 10.0.1.11 who-has 10.0.1.99"), "flood=web");
        assert_eq!(
            said("icmp 10.0.1.11 > 192.0.2.1"),
            "drop=no_route (router core) and tell the sender"
        );
        assert_eq!(
            said("icmp 10.0.1.11 > 10.0.2.99"),
            "wait=10.0.2.99 on core/db"
        );
        assert_eq!(said("icmp 10.0.1.11 > 10.0.1.1"), "answered");
    }
}
