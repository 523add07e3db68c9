//! Sources that no packet beyond its own link can have (RFC 1812, 5.3.7; RFC 4291, 2.5): what a router doesn't forward.
//!
//! No state. Called by the router device, which puts the bits that were looked at into the mask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_common::DropReason;

/// Why a router doesn't forward packets from this source, if it doesn't; and how many leading bits of it tell.
///
/// Masks are few, so nearly all sources take one length, though fewer bits would tell some of them apart.
pub(super) fn judge(source: IpAddr) -> (Option<DropReason>, u8) {
    match source {
        IpAddr::V4(source) => judge_v4(source),
        IpAddr::V6(source) => judge_v6(source),
    }
}

/// This network (0/8), loopback (127/8), groups (224/4), and what is reserved, with the broadcast address (240/4).
fn judge_v4(source: Ipv4Addr) -> (Option<DropReason>, u8) {
    let [first, ..] = source.octets();
    let is_martian = matches!(first, 0 | 127 | 224..);
    // 5 bits tell all but 0/8 from 1/8 to 7/8, and 127/8 from 120/8 to 126/8.
    let bits = if matches!(first, 0..8 | 120..128) {
        8
    } else {
        5
    };
    (is_martian.then_some(DropReason::MartianSource), bits)
}

/// Link-local addresses (fe80::/10) and groups (ff00::/8); the unspecified address, loopback, and IPv4 addresses in
/// IPv6's form (::ffff:0:0/96), which are on no wire (RFC 4291, 2.5.5.2; RFC 6890, table 20).
fn judge_v6(source: Ipv6Addr) -> (Option<DropReason>, u8) {
    let (top, upper) = (source.to_bits() >> 118, source.to_bits() >> 32);
    if top != 0 {
        // A group's first 8 bits are among the 10 that tell a link-local address.
        let reason = if source.is_multicast() {
            Some(DropReason::MartianSource)
        } else {
            source
                .is_unicast_link_local()
                .then_some(DropReason::BeyondScope)
        };
        return (reason, 10);
    }
    if upper != 0 {
        let is_mapped = source.to_ipv4_mapped().is_some();
        return (is_mapped.then_some(DropReason::MartianSource), 96);
    }
    let is_martian = source.is_unspecified() || source.is_loopback();
    (is_martian.then_some(DropReason::MartianSource), 128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(source: &str) -> (Option<DropReason>, u8) {
        judge(source.parse().unwrap())
    }

    #[test]
    fn martians_are_refused_and_their_neighbours_are_not() {
        let martian = Some(DropReason::MartianSource);
        for (source, reason, bits) in [
            ("0.0.0.0", martian, 8),
            ("0.255.255.255", martian, 8),
            ("1.0.0.0", None, 8),
            ("7.255.255.255", None, 8),
            ("8.0.0.0", None, 5),
            ("10.0.1.11", None, 5),
            ("100.64.0.1", None, 5),
            ("126.255.255.255", None, 8),
            ("127.0.0.1", martian, 8),
            ("128.0.0.0", None, 5),
            ("172.16.0.1", None, 5),
            ("192.168.0.1", None, 5),
            ("223.255.255.255", None, 5),
            ("224.0.0.5", martian, 5),
            ("240.0.0.1", martian, 5),
            ("255.255.255.255", martian, 5),
            ("::", martian, 128),
            ("::1", martian, 128),
            ("::2", None, 128),
            ("::fffe:10.0.1.11", None, 96),
            ("::ffff:10.0.1.11", martian, 96),
            ("64:ff9b::10.0.1.11", None, 10),
            ("2001:db8::1", None, 10),
            ("fd00::1", None, 10),
            ("fe7f::1", None, 10),
            ("fe80::1", Some(DropReason::BeyondScope), 10),
            ("febf::1", Some(DropReason::BeyondScope), 10),
            ("fec0::1", None, 10),
            ("ff02::1", martian, 10),
        ] {
            assert_eq!(judged(source), (reason, bits), "{source}");
        }
    }

    proptest! {
        #[test]
        fn the_bits_prove_the_judgement(
            is_v6: bool,
            one in prop_oneof![any::<u128>(), any::<u32>().prop_map(u128::from), Just(0xffff << 32)],
            other: u128,
        ) {
            let address = |bits: u128| match is_v6 {
                true => IpAddr::from(Ipv6Addr::from_bits(bits)),
                false => Ipv4Addr::from_bits(bits as u32).into(),
            };
            let length = if is_v6 { 128 } else { 32 };
            let judged = judge(address(one));
            let mask = u128::MAX.checked_shl(length - u32::from(judged.1)).unwrap_or(0);
            prop_assert_eq!(judge(address(one & mask | other & !mask)), judged);
        }
    }
}
