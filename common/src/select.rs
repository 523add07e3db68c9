//! Choices among several decisions: which bucket a packet falls into, and whose bucket that is.
//!
//! Kernel and simulation use the same two functions, so that they choose alike. Neither holds a secret or depends
//! on the host: every host chooses alike, too. No state.

use crate::FlowKey;
use crate::limits::SELECT_BUCKETS;

/// Odd constants of splitmix64 and MurmurHash3's finalizer.
const MIX: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
];

/// The bucket of a packet, below [`SELECT_BUCKETS`]: a hash of addresses, protocol and L4 ports (ICMP: type, code
/// and identifier), so that a connection stays in its bucket whatever else of its packets differs.
#[inline(always)]
pub fn bucket(key: &FlowKey) -> u8 {
    let head = &key.head;
    let ports =
        u64::from(head.l4_src) << 32 | u64::from(head.l4_dst) << 16 | u64::from(head.protocol);
    let [source_high, source_low] = words(&key.src);
    let [destination_high, destination_low] = words(&key.dst);
    let mut hash = mixed(ports ^ source_high);
    hash = mixed(hash ^ source_low);
    hash = mixed(hash ^ destination_high);
    hash = mixed(hash ^ destination_low);
    (hash >> 56) as u8
}

/// Whose bucket it is, as a position in `members`: the one with the highest hash of bucket and identity
/// (rendezvous hashing, Thaler and Ravishankar 1998). A member that leaves gives away its own buckets and no
/// other; one that joins takes an equal part of everyone's. None without members; of equal identities the first.
pub fn owner(bucket: u8, members: impl IntoIterator<Item = u64>) -> Option<usize> {
    let mut best: Option<(u64, usize)> = None;
    for (position, identity) in members.into_iter().enumerate() {
        let weight = mixed(identity ^ mixed(u64::from(bucket) + 1));
        if best.is_none_or(|(highest, _)| weight > highest) {
            best = Some((weight, position));
        }
    }
    best.map(|(_, position)| position)
}

/// A member's identity out of what names it, in 64-bit words.
pub fn identity(words: &[u64]) -> u64 {
    words.iter().fold(MIX[0], |hash, word| mixed(hash ^ word))
}

#[inline(always)]
fn mixed(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(MIX[0]);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(MIX[1]);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(MIX[2]);
    mixed ^ (mixed >> 31)
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    [
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes([i, j, k, l, m, n, o, p]),
    ]
}

const _: () = assert!(SELECT_BUCKETS == u8::MAX as u32 + 1);

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn key(source_port: u16) -> FlowKey {
        let mut key = FlowKey::default();
        key.set_src_v4([10, 0, 1, 11]);
        key.set_dst_v4([10, 9, 0, 1]);
        key.head.protocol = 17;
        key.head.l4_src = source_port;
        key.head.l4_dst = 53;
        key
    }

    /// Buckets of each member.
    fn shares(identities: &[u64]) -> Vec<usize> {
        let owner = |bucket| owner(bucket, identities.iter().copied()).unwrap();
        let owners: Vec<usize> = (0..=255).map(owner).collect();
        (0..identities.len())
            .map(|member| owners.iter().filter(|owner| **owner == member).count())
            .collect()
    }

    #[test]
    fn ports_alone_spread_over_all_buckets() {
        let mut hits = [0_u32; 256];
        for port in 0..25_600 {
            hits[usize::from(bucket(&key(port)))] += 1;
        }
        let (least, most) = (hits.iter().min().unwrap(), hits.iter().max().unwrap());
        assert!(*least > 60 && *most < 150, "{least} to {most} of 100");
    }

    #[test]
    fn what_is_no_part_of_a_connection_does_not_count() {
        let mut other = key(1000);
        other.head.port = 9;
        other.head.class = 5;
        other.head.tos = 8;
        other.head.vlan = 0x1005;
        other.head.src_mac = [2; 6];
        other.head.dst_mac = [3; 6];
        assert_eq!(bucket(&key(1000)), bucket(&other));
    }

    #[test]
    fn each_member_has_about_its_share() {
        for count in [2, 3, 4, 8] {
            let identities: Vec<u64> = (0..count).map(|n| identity(&[n, 7])).collect();
            let fair = 256 / identities.len();
            for share in shares(&identities) {
                assert!(
                    share > fair / 2 && share < fair * 3 / 2,
                    "{share} of {fair}"
                );
            }
        }
    }

    #[test]
    fn a_member_that_leaves_moves_its_own_buckets_only() {
        let four: [u64; 4] = core::array::from_fn(|n| identity(&[n as u64]));
        let three = [four[0], four[1], four[3]];
        for bucket in 0..=255 {
            let before = four[owner(bucket, four).unwrap()];
            let after = three[owner(bucket, three).unwrap()];
            assert!(before == after || before == four[2], "bucket {bucket}");
        }
        assert_eq!(owner(0, []), None);
    }

    /// Other hosts run other versions: the functions never change.
    #[test]
    fn the_functions_are_part_of_the_abi() {
        assert_eq!(
            [1, 2, 3, 4].map(|port| bucket(&key(port))),
            [111, 63, 230, 173],
        );
        assert_eq!(identity(&[1, 2]), 9_550_467_469_912_592_448);
    }
}
