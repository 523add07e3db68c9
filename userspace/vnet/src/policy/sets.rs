//! Which groups an address is in: one longest-prefix table for all groups, changed entry by entry.
//!
//! Owns the members of groups and the numbers that compiled tables know them by. An entry holds the groups of every
//! prefix around it, too, so that one lookup of the longest prefix finds all groups of an address.

use super::chain::{Group, Policy};
use crate::id::PortId;
use crate::model::Port;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use weft_common::limits::GROUPS_PER_ADDRESS_MAX;

/// Number of a group in compiled tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// Members of groups.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    numbers: BTreeMap<Group, SetId>,
    /// What was declared: the groups that have exactly this prefix as a member.
    declared: BTreeMap<IpNet, BTreeSet<SetId>>,
    /// Members of each family (whether it is IPv6) and length: nothing else is looked for.
    lengths: BTreeMap<(bool, u8), usize>,
    /// The table of the kernel: the groups that all addresses of this prefix are in.
    entries: BTreeMap<IpNet, Vec<SetId>>,
}

/// Why a member isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetsError {
    /// Its addresses would be in too many groups.
    #[error("{prefix} would be in more than {GROUPS_PER_ADDRESS_MAX} groups")]
    TooManyGroups {
        /// Where that would be.
        prefix: IpNet,
    },
}

/// All members of all groups: prefixes, and the declared addresses of ports. A port that isn't there has none; a port may
/// be in a group that its own chains ask for.
pub fn members(
    policy: &Policy,
    ports: &BTreeMap<PortId, Arc<Port>>,
) -> impl Iterator<Item = (Group, IpNet)> {
    let of_addresses = policy.address_groups.values().flat_map(|group| {
        let prefixes = group.prefixes.iter();
        prefixes.map(|it| (Group::Addresses(group.id), *it))
    });
    let of_ports = policy.port_groups.values().flat_map(move |group| {
        let members = group.ports.iter().filter_map(|id| ports.get(id));
        let addresses = members.flat_map(|port| &port.addresses);
        addresses.map(|it| (Group::Ports(group.id), it.address.into()))
    });
    of_addresses.chain(of_ports)
}

/// An entry of the table that changed: its groups from now on, or none when it is gone.
pub type Change = (IpNet, Option<Vec<SetId>>);

impl Sets {
    /// The number of a group, made when it is asked for first. It stays for as long as this table lives.
    pub fn number(&mut self, group: Group) -> SetId {
        let next = SetId(self.numbers.len() as u32);
        *self.numbers.entry(group).or_insert(next)
    }

    /// The number of a group that has one.
    pub fn find(&self, group: Group) -> Option<SetId> {
        self.numbers.get(&group).copied()
    }

    /// Makes a prefix a member. Answers with the entries that changed: one, and one for each member inside of it.
    ///
    /// # Errors
    /// [`SetsError::TooManyGroups`]; then nothing has changed.
    pub fn add(&mut self, group: Group, prefix: IpNet) -> Result<Vec<Change>, SetsError> {
        let (set, prefix) = (self.number(group), prefix.trunc());
        if !self.declared.entry(prefix).or_default().insert(set) {
            return Ok(Vec::new());
        }
        *self.lengths.entry(family_and_length(prefix)).or_default() += 1;
        let crowded = self
            .inside(prefix)
            .into_iter()
            .find(|it| self.around(*it).len() > GROUPS_PER_ADDRESS_MAX);
        if let Some(crowded) = crowded {
            self.undeclare(prefix, set);
            return Err(SetsError::TooManyGroups { prefix: crowded });
        }
        Ok(self.update(prefix))
    }

    /// Takes a member away. Answers with the entries that changed.
    pub fn remove(&mut self, group: Group, prefix: IpNet) -> Vec<Change> {
        let prefix = prefix.trunc();
        match self.find(group) {
            Some(set) if self.undeclare(prefix, set) => self.update(prefix),
            _ => Vec::new(),
        }
    }

    /// Whether an address is in a group, by what was declared: the reference of [`Sets::of`].
    pub fn contains(&self, group: Group, address: IpAddr) -> bool {
        let Some(set) = self.find(group) else {
            return false;
        };
        let has = |it: IpNet| {
            self.declared
                .get(&it)
                .is_some_and(|sets| sets.contains(&set))
        };
        self.prefixes_of(address).any(has)
    }

    /// The groups of an address, by the table: at most [`GROUPS_PER_ADDRESS_MAX`].
    pub fn of(&self, address: IpAddr) -> &[SetId] {
        self.prefixes_of(address)
            .find_map(|it| self.entries.get(&it))
            .map_or(&[], Vec::as_slice)
    }

    /// Entries of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&IpNet, &[SetId])> {
        self.entries.iter().map(|(it, sets)| (it, sets.as_slice()))
    }

    /// The prefixes that hold an address and may be there, the longest first.
    fn prefixes_of(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let is_v6 = address.is_ipv6();
        let lengths = self.lengths.range((is_v6, 0)..=(is_v6, 128)).rev();
        lengths.filter_map(move |((_, length), _)| Some(IpNet::new(address, *length).ok()?.trunc()))
    }

    fn undeclare(&mut self, prefix: IpNet, set: SetId) -> bool {
        let Some(sets) = self.declared.get_mut(&prefix) else {
            return false;
        };
        if !sets.remove(&set) {
            return false;
        }
        if sets.is_empty() {
            self.declared.remove(&prefix);
        }
        let length = family_and_length(prefix);
        let count = self.lengths.get(&length).map_or(0, |it| it - 1);
        if count == 0 {
            self.lengths.remove(&length);
        } else {
            self.lengths.insert(length, count);
        }
        true
    }

    fn update(&mut self, prefix: IpNet) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut places: BTreeSet<IpNet> = self.inside(prefix).into_iter().collect();
        places.insert(prefix);
        for place in places {
            let now = self
                .declared
                .contains_key(&place)
                .then(|| self.around(place));
            if self.entries.get(&place) == now.as_ref() {
                continue;
            }
            match &now {
                Some(sets) => self.entries.insert(place, sets.clone()),
                None => self.entries.remove(&place),
            };
            changes.push((place, now));
        }
        changes
    }

    /// The declared prefixes in this one.
    fn inside(&self, prefix: IpNet) -> Vec<IpNet> {
        let longest = IpNet::from(prefix.broadcast());
        let range = self.declared.range(prefix..=longest);
        range.map(|(it, _)| *it).collect()
    }

    /// The groups that hold all of this prefix.
    fn around(&self, prefix: IpNet) -> Vec<SetId> {
        let wider = self
            .prefixes_of(prefix.addr())
            .filter(|it| it.prefix_len() <= prefix.prefix_len());
        let sets: BTreeSet<SetId> = wider
            .filter_map(|it| self.declared.get(&it))
            .flatten()
            .copied()
            .collect();
        sets.into_iter().collect()
    }
}

fn family_and_length(prefix: IpNet) -> (bool, u8) {
    (prefix.addr().is_ipv6(), prefix.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::super::PortGroup;
    use super::super::testing::{addresses, with_address_group};
    use super::*;
    use crate::fixture::Topology;
    use crate::id::{PortGroupId, TenantId};
    use uuid::Uuid;
    use weft_common::limits::ADDRESS_GROUP_MEMBERS_MAX;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_member_that_holds_no_other_is_one_entry() {
        let mut sets = Sets::default();
        let office = addresses(1);
        for index in 0..1000_u32 {
            let member = IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes()));
            assert_eq!(sets.add(office, member).unwrap().len(), 1);
        }
        assert_eq!(
            sets.remove(office, net("10.0.0.7/32")),
            [(net("10.0.0.7/32"), None)]
        );
        assert!(!sets.contains(office, "10.0.0.7".parse().unwrap()));
        assert!(sets.of("10.0.0.7".parse().unwrap()).is_empty());
        assert_eq!(sets.of("10.0.0.8".parse().unwrap()), [SetId(0)]);
    }

    #[test]
    fn a_hundred_thousand_members_are_changed_one_by_one() {
        let mut sets = Sets::default();
        sets.add(addresses(2), net("10.0.0.0/8")).unwrap();
        sets.add(addresses(2), net("fd00::/16")).unwrap();
        let member = |index: u32| -> IpNet {
            let v6 = std::net::Ipv6Addr::from((0xfd00 << 112) | u128::from(index));
            match index % 2 {
                0 => IpNet::from(IpAddr::from((0x0a00_0000 + index).to_be_bytes())),
                _ => IpNet::from(IpAddr::from(v6)),
            }
        };
        let all = ADDRESS_GROUP_MEMBERS_MAX as u32;
        for index in 0..all {
            assert_eq!(sets.add(addresses(1), member(index)).unwrap().len(), 1);
        }
        for index in [0, 1, all / 2, all - 1] {
            assert_eq!(sets.of(member(index).addr()).len(), 2);
            assert_eq!(sets.remove(addresses(1), member(index)).len(), 1);
            assert_eq!(sets.of(member(index).addr()).len(), 1);
        }
    }

    #[test]
    fn an_inner_prefix_is_in_the_groups_of_the_outer_ones() {
        let mut sets = Sets::default();
        let (wide, narrow) = (addresses(1), addresses(2));
        sets.add(narrow, net("10.1.2.0/24")).unwrap();
        assert_eq!(sets.add(wide, net("10.0.0.0/8")).unwrap().len(), 2);
        assert_eq!(sets.of("10.1.2.3".parse().unwrap()).len(), 2);
        assert_eq!(sets.of("10.9.9.9".parse().unwrap()).len(), 1);
        assert_eq!(sets.remove(wide, net("10.0.0.0/8")).len(), 2);
        assert_eq!(sets.of("10.1.2.3".parse().unwrap()), [SetId(0)]);
    }

    #[test]
    fn groups_have_prefixes_and_the_addresses_of_their_ports() {
        let topology = Topology::two_subnets();
        let mut policy = with_address_group(Policy::default(), 1);
        let office = policy.address_groups.values_mut().next().unwrap();
        Arc::make_mut(office).prefixes = vec![net("203.0.113.0/24"), net("fd00::/16")];
        let (web, nobody) = (PortGroupId(Uuid::from_u128(2)), PortId(Uuid::from_u128(99)));
        let group = PortGroup {
            id: web,
            tenant: TenantId(Uuid::nil()),
            name: "web".into(),
            ports: vec![topology.id("web/web-1"), nobody],
            stateful: false,
        };
        policy.port_groups.insert(web, Arc::new(group));
        let found: Vec<_> = members(&policy, &topology.model.ports).collect();
        let own = &topology.model.ports[&topology.id("web/web-1")].addresses;
        let own = own
            .iter()
            .map(|it| (Group::Ports(web), IpNet::from(it.address)));
        let expected: Vec<_> = [net("203.0.113.0/24"), net("fd00::/16")]
            .map(|it| (addresses(1), it))
            .into_iter()
            .chain(own)
            .collect();
        assert_eq!(found, expected);
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn what_is_in_too_many_groups_is_refused_and_changes_nothing() {
        let mut sets = Sets::default();
        for group in 0..GROUPS_PER_ADDRESS_MAX {
            sets.add(addresses(group as u128), net("10.0.0.1/32"))
                .unwrap();
        }
        let before = sets.entries.clone();
        let refused = sets.add(addresses(99), net("10.0.0.0/8")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "10.0.0.1/32 would be in more than 32 groups"
        );
        assert_eq!(sets.entries, before);
        assert!(!sets.contains(addresses(99), "10.0.0.2".parse().unwrap()));
    }
}
