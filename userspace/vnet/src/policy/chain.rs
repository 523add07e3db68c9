//! Chains, rules and the sets that their conditions name, as plain data.
//!
//! No state. What a rule means is in `evaluate.rs`.

use crate::id::{AddressGroupId, ChainId, PortGroupId, PortId, TenantId};
use crate::mac::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Ordered rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its id.
    pub id: ChainId,
    /// Its owner.
    pub tenant: TenantId,
    /// Unique among the tenant's chains.
    pub name: String,
    /// The first that matches and ends the chain counts.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One rule of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All of them must hold.
    #[serde(default)]
    pub matches: Conditions,
    /// None of these may hold as a whole: one condition alone is inverted, several are inverted together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<Conditions>,
    /// What happens to a packet that matches.
    pub action: Action,
    /// Writes a log record under this name, whatever the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The packet passes; nothing after it is asked.
    Accept,
    /// The packet is dropped in silence.
    #[default]
    Drop,
    /// The packet is dropped and its sender told: a TCP reset, or ICMP administratively prohibited.
    Reject,
    /// Back to the rule behind the jump; in a chain of the hook itself: to the hook's next chain.
    Return,
    /// On to the next rule.
    Continue,
    /// Into another chain, and back behind this rule when it ends.
    Jump(ChainId),
    /// Writes a log record; on to the next rule.
    Log,
    /// Changes addresses: on chains of devices only.
    Translate(Translation),
}

/// How a rule of a device's chain changes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Translation {
    /// Another source.
    Snat,
    /// Another destination.
    Dnat,
    /// The way back of [`Translation::Snat`].
    ReverseSnat,
    /// The way back of [`Translation::Dnat`].
    ReverseDnat,
    /// Out of another port.
    Redirect,
}

impl Translation {
    /// The word of a topology file.
    pub const fn name(self) -> &'static str {
        match self {
            Translation::Snat => "snat",
            Translation::Dnat => "dnat",
            Translation::ReverseSnat => "reverse_snat",
            Translation::ReverseDnat => "reverse_dnat",
            Translation::Redirect => "redirect",
        }
    }
}

/// Conditions on a packet, at most one of a kind. A condition on what the packet doesn't have (a port of an ICMP packet)
/// doesn't hold; inverted it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Ethernet type: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<Vec<u16>>,
    /// Ethernet source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_mac: Option<MacMatch>,
    /// Ethernet destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_mac: Option<MacMatch>,
    /// VLAN tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanMatch>,
    /// IPv4 TOS or IPv6 traffic class: one of these bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<Vec<u8>>,
    /// Protocol of IPv4 and IPv6, behind extension headers: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Vec<u8>>,
    /// Source of IP, or sender of ARP: in one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Vec<AddressMatch>>,
    /// Destination of IP, or target of ARP: in one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Vec<AddressMatch>>,
    /// Source port of TCP, UDP or SCTP: in one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<Vec<PortRange>>,
    /// Destination port of TCP, UDP or SCTP: in one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<Vec<PortRange>>,
    /// Type and code of ICMP or ICMPv6: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Vec<IcmpMatch>>,
    /// Which piece of a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<FragmentPolicy>,
    /// State of the connection at this very port: one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<Connection>>,
    /// What only chains of devices may ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<DeviceCondition>,
}

/// MAC addresses that agree with `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacMatch {
    /// What the bits are.
    pub value: Mac,
    /// The bits that count.
    pub mask: Mac,
}

/// A tag, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VlanMatch {
    /// Without a tag.
    None,
    /// With a tag of this id.
    Id(u16),
}

/// Some addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressMatch {
    /// Those in this prefix.
    Prefix(IpNet),
    /// Those of this group.
    Group(Group),
}

/// A named set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Prefixes.
    Addresses(AddressGroupId),
    /// The addresses of ports.
    Ports(PortGroupId),
}

/// Ports of TCP, UDP or SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// Messages of ICMP and ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpMatch {
    /// Their type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Their code; any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}

/// Which piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FragmentPolicy {
    /// All packets.
    Any,
    /// First fragments.
    First,
    /// Later fragments.
    Later,
    /// What isn't a fragment.
    Unfragmented,
}

/// State of a connection, as a port's host tracks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Connection {
    /// The packet opens one.
    #[default]
    New = 0,
    /// The packet belongs to one that this chain, or the opposite chain of the port, admitted.
    Established = 1,
    /// The packet is an error about one.
    Related = 2,
    /// The packet belongs to none and can't open one.
    Invalid = 3,
}

/// What only a device can know of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceCondition {
    /// It came in by one of these ports.
    InPort(Vec<PortId>),
    /// It leaves by one of these ports.
    OutPort(Vec<PortId>),
    /// It came into the network by a port of this group.
    InPortGroup(PortGroupId),
    /// It goes the way of the connection's first packet (true), or comes back (false).
    Forward(bool),
    /// Its destination was rewritten.
    DestinationRewritten,
}

impl DeviceCondition {
    /// The key of a topology file.
    pub const fn name(&self) -> &'static str {
        match self {
            DeviceCondition::InPort(_) => "in_port",
            DeviceCondition::OutPort(_) => "out_port",
            DeviceCondition::InPortGroup(_) => "in_port_group",
            DeviceCondition::Forward(_) => "flow",
            DeviceCondition::DestinationRewritten => "dst_rewritten",
        }
    }
}

/// A named set of prefixes, of both families.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressGroup {
    /// Its id.
    pub id: AddressGroupId,
    /// Its owner.
    pub tenant: TenantId,
    /// Unique among the tenant's address groups.
    pub name: String,
    /// Its members, each once and in order: [`AddressGroup::sort`].
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
}

/// A named set of ports; in conditions it stands for their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortGroup {
    /// Its id.
    pub id: PortGroupId,
    /// Its owner.
    pub tenant: TenantId,
    /// Unique among the tenant's port groups.
    pub name: String,
    /// Its members.
    #[serde(default)]
    pub ports: Vec<PortId>,
    /// Whether its ports share their connections.
    #[serde(default)]
    pub stateful: bool,
}

/// All chains and groups of a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Chains.
    #[serde(with = "crate::model::shared")]
    pub chains: BTreeMap<ChainId, Arc<Chain>>,
    /// Address groups.
    #[serde(with = "crate::model::shared")]
    pub address_groups: BTreeMap<AddressGroupId, Arc<AddressGroup>>,
    /// Port groups.
    #[serde(with = "crate::model::shared")]
    pub port_groups: BTreeMap<PortGroupId, Arc<PortGroup>>,
}

impl AddressGroup {
    /// Puts the members into order, each once, as a model has them.
    pub fn sort(&mut self) {
        self.prefixes.sort_unstable();
        self.prefixes.dedup();
    }

    /// Changes some members: those in `add` come, then those in `remove` go. The group is in order before and after.
    pub fn change(&mut self, add: &[IpNet], remove: &[IpNet]) {
        if !add.is_empty() {
            self.prefixes.extend_from_slice(add);
            // Stable: it sees the long run that is in order already.
            self.prefixes.sort();
            self.prefixes.dedup();
        }
        if !remove.is_empty() {
            let mut gone = remove.to_vec();
            gone.sort_unstable();
            self.prefixes.retain(|it| gone.binary_search(it).is_err());
        }
    }
}

impl Policy {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.address_groups.is_empty() && self.port_groups.is_empty()
    }

    /// Name of a chain, or its id when it isn't there.
    pub fn chain_name(&self, id: ChainId) -> String {
        self.chains
            .get(&id)
            .map_or_else(|| id.to_string(), |it| it.name.clone())
    }
}

impl MacMatch {
    /// The address in the bits that count, as a number.
    pub(super) fn bits(mac: Mac, mask: Mac) -> u64 {
        let number = |mac: Mac| {
            mac.0
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        number(mac) & number(mask)
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Connection::New => "new",
            Connection::Established => "established",
            Connection::Related => "related",
            Connection::Invalid => "invalid",
        })
    }
}
