//! Header extraction, the same code in the kernel programs and in the agent.
//!
//! Source: IEEE 802.3 and 802.1Q, RFC 826 (ARP), RFC 791 (IPv4), RFC 8200 (IPv6), RFC 792 and 4443 (ICMP).

use crate::drop::DropReason;
use crate::key::{self, FlowKey, Fragment, Network, VLAN_PRESENT};

/// Ethernet type of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethernet type of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet type of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethernet type of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// Ethernet type of an 802.1ad tag.
pub const ETHERTYPE_QINQ: u16 = 0x88a8;
/// IP protocol numbers of which the key holds ports or type and code.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Length of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Most bytes from the start of a frame that the extraction reads: Ethernet with a tag, IPv4 with options, ports.
pub const HEADER_BYTES_MAX: usize = ETHERNET_LEN + 4 + 60 + 8;

/// Bytes of a frame, read with bounds checked. In the kernel this is packet memory, in the agent a slice.
pub trait Frame {
    /// `N` bytes at `offset`, or none when the frame is shorter.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Length of the whole frame in bytes.
    fn length(&self) -> usize;

    /// A big-endian number at `offset`.
    #[inline(always)]
    fn number(&self, offset: usize) -> Option<u16> {
        self.bytes::<2>(offset).map(u16::from_be_bytes)
    }
}

impl Frame for [u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// What the extraction found besides the key: needed to act on the packet, but never matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// TTL or hop limit; 0 for all but IP.
    pub ttl: u8,
    /// Bytes from the start of the frame to the network header.
    pub l3_offset: u16,
    /// Bytes of the network packet as its own header says; 0 for all but IP.
    pub l3_length: u16,
}

/// Fills `key` from a frame that came in at `port`. `vlan_tci` is a tag that the kernel took out of the frame.
///
/// # Errors
/// [`DropReason::Truncated`] and [`DropReason::BadHeader`].
#[inline(always)]
pub fn extract<F: Frame + ?Sized>(
    frame: &F,
    port: u16,
    vlan_tci: Option<u16>,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let ethernet = frame
        .bytes::<ETHERNET_LEN>(0)
        .ok_or(DropReason::Truncated)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = ethernet;
    let mut ethertype = u16::from_be_bytes([t0, t1]);
    let mut offset = ETHERNET_LEN;
    let mut tag = vlan_tci;
    if tag.is_none() && (ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ) {
        tag = Some(frame.number(ETHERNET_LEN).ok_or(DropReason::Truncated)?);
        ethertype = frame
            .number(ETHERNET_LEN + 2)
            .ok_or(DropReason::Truncated)?;
        offset = ETHERNET_LEN + 4;
    }
    *key = FlowKey::default();
    key.head.port = port;
    key.head.vlan = tag.map_or(0, |tci| (tci & 0x0fff) | VLAN_PRESENT);
    key.head.dst_mac = [d0, d1, d2, d3, d4, d5];
    key.head.src_mac = [s0, s1, s2, s3, s4, s5];
    if ethertype == ETHERTYPE_IPV4 {
        ipv4(frame, offset, key)
    } else if ethertype == ETHERTYPE_IPV6 {
        ipv6(frame, offset, key)
    } else if ethertype == ETHERTYPE_ARP && is_ipv4_arp(frame, offset) {
        arp(frame, offset, key)
    } else {
        key.head.class = key::class(0, Network::Other, Fragment::Whole);
        key.head.l4_src = ethertype;
        Ok(Headers {
            ttl: 0,
            l3_offset: offset as u16,
            l3_length: 0,
        })
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let header = frame.bytes::<20>(offset).ok_or(DropReason::Truncated)?;
    let [
        version,
        tos,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        ttl,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ] = header;
    let header_length = usize::from(version & 0x0f) * 4;
    let length = u16::from_be_bytes([l0, l1]);
    let bad = version >> 4 != 4
        || header_length < 20
        || usize::from(length) < header_length
        || offset + usize::from(length) > frame.length();
    if bad {
        return Err(DropReason::BadHeader);
    }
    let fragment_field = u16::from_be_bytes([f0, f1]);
    let fragment = match (fragment_field & 0x1fff != 0, fragment_field & 0x2000 != 0) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    };
    key.head.class = key::class(0, Network::Ipv4, fragment);
    key.head.protocol = protocol;
    key.head.tos = tos;
    key.set_src_v4([a, b, c, d]);
    key.set_dst_v4([e, f, g, h]);
    if fragment as u8 != Fragment::Later as u8 {
        let payload = usize::from(length) - header_length;
        l4(frame, offset + header_length, payload, key)?;
    }
    Ok(Headers {
        ttl,
        l3_offset: offset as u16,
        l3_length: length,
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let header = frame.bytes::<8>(offset).ok_or(DropReason::Truncated)?;
    let src = frame.bytes::<16>(offset + 8).ok_or(DropReason::Truncated)?;
    let dst = frame
        .bytes::<16>(offset + 24)
        .ok_or(DropReason::Truncated)?;
    let [version, class, _, _, l0, l1, protocol, ttl] = header;
    let payload = u16::from_be_bytes([l0, l1]);
    if version >> 4 != 6 || offset + 40 + usize::from(payload) > frame.length() {
        return Err(DropReason::BadHeader);
    }
    key.head.class = key::class(0, Network::Ipv6, Fragment::Whole);
    key.head.protocol = protocol;
    key.head.tos = (version << 4) | (class >> 4);
    key.src = src;
    key.dst = dst;
    l4(frame, offset + 40, usize::from(payload), key)?;
    Ok(Headers {
        ttl,
        l3_offset: offset as u16,
        l3_length: payload.saturating_add(40),
    })
}

/// Ports, or ICMP type, code and identifier; protocols without them leave zeros.
#[inline(always)]
fn l4<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    payload: usize,
    key: &mut FlowKey,
) -> Result<(), DropReason> {
    let number = key.head.protocol;
    let has_ports = number == protocol::TCP || number == protocol::UDP || number == protocol::SCTP;
    let is_icmp = number == protocol::ICMP || number == protocol::ICMPV6;
    if !has_ports && !is_icmp {
        return Ok(());
    }
    if payload < 8 {
        return Err(DropReason::Truncated);
    }
    let [a, b, c, d, e, f] = frame.bytes::<6>(offset).ok_or(DropReason::Truncated)?;
    key.head.l4_src = u16::from_be_bytes([a, b]);
    if has_ports {
        key.head.l4_dst = u16::from_be_bytes([c, d]);
    } else if is_echo(number, a) {
        key.head.l4_dst = u16::from_be_bytes([e, f]);
    }
    Ok(())
}

#[inline(always)]
fn is_echo(number: u8, icmp_type: u8) -> bool {
    if number == protocol::ICMP {
        icmp_type == 8 || icmp_type == 0
    } else {
        icmp_type == 128 || icmp_type == 129
    }
}

/// Ethernet and IPv4 with lengths 6 and 4 (RFC 826); other ARP is an opaque frame.
#[inline(always)]
fn is_ipv4_arp<F: Frame + ?Sized>(frame: &F, offset: usize) -> bool {
    frame.bytes::<6>(offset) == Some([0, 1, 8, 0, 6, 4]) && frame.bytes::<28>(offset).is_some()
}

#[inline(always)]
fn arp<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let operation = frame.number(offset + 6).ok_or(DropReason::Truncated)?;
    let sender = frame.bytes::<4>(offset + 14).ok_or(DropReason::Truncated)?;
    let target = frame.bytes::<4>(offset + 24).ok_or(DropReason::Truncated)?;
    key.head.class = key::class(0, Network::Arp, Fragment::Whole);
    key.head.protocol = if operation > 255 {
        255
    } else {
        operation as u8
    };
    key.set_src_v4(sender);
    key.set_dst_v4(target);
    Ok(Headers {
        ttl: 0,
        l3_offset: offset as u16,
        l3_length: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARP_REQUEST: &[u8] = &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 1, 11, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0,
        0, 0, 1, 11, 10, 0, 1, 11, 0, 0, 0, 0, 0, 0, 10, 0, 1, 1,
    ];
    const PING: &[u8] = &[
        2, 0, 0, 0, 1, 12, 2, 0, 0, 0, 1, 11, 8, 0, 0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0, 10,
        0, 1, 11, 10, 0, 1, 12, 8, 0, 0, 0, 0x12, 0x34, 0, 1,
    ];

    fn key_of(frame: &[u8]) -> Result<(FlowKey, Headers), DropReason> {
        let mut key = FlowKey::default();
        extract(frame, 7, None, &mut key).map(|headers| (key, headers))
    }

    #[test]
    fn an_arp_request_has_operation_and_both_addresses() {
        let (key, _) = key_of(ARP_REQUEST).unwrap();
        assert_eq!(key.head.network(), Network::Arp);
        assert_eq!(
            (key.head.protocol, key.src_v4(), key.dst_v4()),
            (1, [10, 0, 1, 11], [10, 0, 1, 1])
        );
        assert_eq!(key.head.port, 7);
    }

    #[test]
    fn an_echo_has_type_code_and_identifier() {
        let (key, headers) = key_of(PING).unwrap();
        assert_eq!(
            (key.head.l4_src, key.head.l4_dst, headers.ttl),
            (0x0800, 0x1234, 64)
        );
        assert_eq!((headers.l3_offset, headers.l3_length), (14, 28));
    }

    #[test]
    fn every_shortened_frame_is_refused_by_name() {
        for length in 0..PING.len() {
            let reason = key_of(&PING[..length]).unwrap_err();
            assert!(
                matches!(reason, DropReason::Truncated | DropReason::BadHeader),
                "{length}: {reason:?}"
            );
        }
    }

    #[test]
    fn a_tag_in_the_frame_and_one_in_metadata_give_the_same_key() {
        let mut tagged = PING[..12].to_vec_of_tag();
        tagged.extend_from_slice(&PING[12..]);
        let (in_frame, _) = key_of(&tagged).unwrap();
        let mut in_metadata = FlowKey::default();
        extract(PING, 7, Some(0x2005), &mut in_metadata).unwrap();
        assert_eq!(in_frame, in_metadata);
        assert_eq!(in_frame.head.vlan, 5 | VLAN_PRESENT);
    }

    extern crate std;
    use std::vec::Vec;

    trait WithTag {
        fn to_vec_of_tag(&self) -> Vec<u8>;
    }

    impl WithTag for [u8] {
        fn to_vec_of_tag(&self) -> Vec<u8> {
            [self, &[0x81, 0, 0x20, 5]].concat()
        }
    }
}
