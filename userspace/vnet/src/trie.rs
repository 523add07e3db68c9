//! Longest prefix match that also says how many bits of the address decided.
//!
//! Immutable. The routing table is made of it: one of destinations, and for each of those one of sources.

use ipnet::IpNet;
use std::net::IpAddr;

/// Values by prefix, of both families.
#[derive(Clone, Debug)]
pub(crate) struct Trie<V> {
    entries: Vec<(IpNet, V)>,
    /// Two binary tries: node 0 is the root of IPv4's, node 1 that of IPv6's.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Next node for a 0 and a 1; 0 for none.
    children: [u32; 2],
    /// Index into `entries` plus one; 0 for none.
    entry: u32,
}

/// What a lookup found, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matches<'a, V> {
    /// The prefixes that hold the address, the longest first.
    pub(crate) entries: Vec<&'a (IpNet, V)>,
    /// Leading bits of the address that prove it: they agree with the longest, and with no longer one.
    pub(crate) bits: u8,
}

impl<V> Trie<V> {
    /// The trie of these prefixes, each of them once.
    pub(crate) fn new(entries: Vec<(IpNet, V)>) -> Trie<V> {
        let mut trie = Trie {
            nodes: vec![Node::default(); 2],
            entries,
        };
        for index in 0..trie.entries.len() {
            trie.insert(index);
        }
        trie
    }

    pub(crate) fn lookup(&self, address: IpAddr) -> Matches<'_, V> {
        let mut found = Vec::new();
        let mut node = self.nodes.get(root(address)).copied().unwrap_or_default();
        let mut bits = 0;
        loop {
            if let Some(index) = (node.entry as usize).checked_sub(1) {
                found.push(&self.entries[index]);
            }
            if node.children == [0, 0] {
                break;
            }
            let next = node.children[bit(address, bits)];
            // There are longer prefixes: this bit says whether the address may be in one.
            bits += 1;
            if next == 0 {
                break;
            }
            node = self.nodes[next as usize];
        }
        found.reverse();
        Matches {
            entries: found,
            bits,
        }
    }

    fn insert(&mut self, index: usize) {
        let prefix = self.entries[index].0;
        let mut at = root(prefix.addr());
        for depth in 0..prefix.prefix_len() {
            let side = bit(prefix.addr(), depth);
            if self.nodes[at].children[side] == 0 {
                self.nodes[at].children[side] = self.nodes.len() as u32;
                self.nodes.push(Node::default());
            }
            at = self.nodes[at].children[side] as usize;
        }
        self.nodes[at].entry = index as u32 + 1;
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Trie::new(Vec::new())
    }
}

/// The nodes follow from the entries.
impl<V: PartialEq> PartialEq for Trie<V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<V: Eq> Eq for Trie<V> {}

/// The root of the trie of an address's family.
const fn root(address: IpAddr) -> usize {
    address.is_ipv6() as usize
}

/// Bit `depth` of an address, counted from the most significant one.
fn bit(address: IpAddr, depth: u8) -> usize {
    let shift = u32::from(depth);
    match address {
        IpAddr::V4(it) => ((it.to_bits() >> (31 - shift)) & 1) as usize,
        IpAddr::V6(it) => ((it.to_bits() >> (127 - shift)) & 1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn trie(prefixes: &[&str]) -> Trie<()> {
        let entry = |text: &&str| (text.parse().unwrap(), ());
        Trie::new(prefixes.iter().map(entry).collect())
    }

    fn found(trie: &Trie<()>, address: &str) -> (Option<String>, u8) {
        let Matches { entries, bits } = trie.lookup(address.parse().unwrap());
        (entries.first().map(|(prefix, ())| prefix.to_string()), bits)
    }

    #[test]
    fn a_lone_prefix_takes_its_own_bits() {
        let trie = trie(&["10.0.1.0/24"]);
        assert_eq!(found(&trie, "10.0.1.7"), (Some("10.0.1.0/24".into()), 24));
        assert_eq!(found(&trie, "10.0.0.7"), (None, 24));
        assert_eq!(found(&trie, "192.0.2.1"), (None, 1));
        assert_eq!(found(&Trie::default(), "192.0.2.1"), (None, 0));
    }

    #[test]
    fn a_longer_prefix_costs_the_bits_that_exclude_it() {
        let trie = trie(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(found(&trie, "10.1.2.3"), (Some("10.1.0.0/16".into()), 16));
        assert_eq!(found(&trie, "10.0.2.3"), (Some("10.0.0.0/8".into()), 16));
        assert_eq!(found(&trie, "10.128.0.1"), (Some("10.0.0.0/8".into()), 9));
        assert_eq!(found(&trie, "192.0.2.1"), (Some("0.0.0.0/0".into()), 1));
        assert_eq!(found(&trie, "11.0.0.1"), (Some("0.0.0.0/0".into()), 8));
    }

    #[test]
    fn neighbouring_prefixes_cost_nothing() {
        let trie = trie(&["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(found(&trie, "10.0.1.7"), (Some("10.0.1.0/24".into()), 24));
    }

    #[test]
    fn a_host_route_is_matched_whole() {
        let trie = trie(&["0.0.0.0/0", "10.0.1.1/32"]);
        assert_eq!(found(&trie, "10.0.1.1"), (Some("10.0.1.1/32".into()), 32));
        assert_eq!(found(&trie, "10.0.1.0"), (Some("0.0.0.0/0".into()), 32));
    }

    #[test]
    fn families_share_nothing() {
        let trie = trie(&["0.0.0.0/0", "fd00:1::/64", "fd00:1::/48", "fd00:2::/64"]);
        let near = (Some("fd00:1::/64".into()), 64);
        assert_eq!(found(&trie, "fd00:1::b"), near);
        assert_eq!(
            found(&trie, "fd00:1:0:1::b"),
            (Some("fd00:1::/48".into()), 64)
        );
        assert_eq!(found(&trie, "fd00:3::b"), (None, 32));
        assert_eq!(found(&trie, "10.0.0.1"), (Some("0.0.0.0/0".into()), 0));
    }

    /// The 128 bits of an address; an IPv4 one is on the left.
    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(it) => u128::from(it.to_bits()) << 96,
            IpAddr::V6(it) => it.to_bits(),
        }
    }

    fn address(is_v6: bool, bits: u128) -> IpAddr {
        if is_v6 {
            return Ipv6Addr::from_bits(bits).into();
        }
        Ipv4Addr::from_bits((bits >> 96) as u32).into()
    }

    /// The definition, word for word, without a trie.
    fn naive(entries: &[(IpNet, ())], address: IpAddr) -> Matches<'_, ()> {
        let mut holding: Vec<&(IpNet, ())> = entries
            .iter()
            .filter(|(prefix, ())| prefix.contains(&address))
            .collect();
        holding.sort_by_key(|(prefix, ())| std::cmp::Reverse(prefix.prefix_len()));
        let length = holding.first().map_or(0, |it| it.0.prefix_len());
        // The fewest leading bits under which no address has another answer.
        let excluded = entries
            .iter()
            .filter(|it| it.0.addr().is_ipv4() == address.is_ipv4())
            .filter(|it| it.0.prefix_len() > length)
            .map(|(prefix, ())| {
                let common = (bits(prefix.addr()) ^ bits(address)).leading_zeros() as u8;
                common + 1
            });
        Matches {
            bits: excluded.chain([length]).max().unwrap_or(0),
            entries: holding,
        }
    }

    fn prefixes() -> impl Strategy<Value = Vec<(IpNet, ())>> {
        // Few values in few bits, so that prefixes nest and touch.
        let near = prop_oneof![0_u128..64, any::<u128>()];
        let prefix = (any::<bool>(), near, any::<u8>()).prop_map(|(is_v6, bits, length)| {
            let address = address(is_v6, bits.rotate_right(6));
            let longest = if is_v6 { 128 } else { 32 };
            IpNet::new(address, length % (longest + 1)).unwrap().trunc()
        });
        proptest::collection::btree_set(prefix, 0..24)
            .prop_map(|set| set.into_iter().map(|it| (it, ())).collect())
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_definition(
            entries in prefixes(),
            is_v6: bool,
            near in 0_u128..64,
            noise in prop_oneof![Just(0), any::<u128>()],
        ) {
            let address = address(is_v6, near.rotate_right(6) ^ (noise >> 6));
            let trie = Trie::new(entries.clone());
            prop_assert_eq!(trie.lookup(address), naive(&entries, address));
        }

        #[test]
        fn the_bits_prove_the_answer(entries in prefixes(), is_v6: bool, one: u128, other: u128) {
            let trie = Trie::new(entries);
            let matches = trie.lookup(address(is_v6, one));
            let mask = u128::MAX.checked_shl(128 - u32::from(matches.bits)).unwrap_or(0);
            let alike = address(is_v6, one & mask | other & !mask);
            prop_assert_eq!(trie.lookup(alike), matches);
        }
    }
}
