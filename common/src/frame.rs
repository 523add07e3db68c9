//! Header extraction, the same code in the kernel programs and in the agent.
//!
//! | file | what | sources |
//! |---|---|---|
//! | this one | Ethernet, tags, ARP | IEEE 802.3, 802.1Q, 802.1ad; RFC 826 |
//! | `ipv4.rs` | IPv4 with options and fragments | RFC 791, 1858 |
//! | `ipv6.rs` | IPv6 with extension headers and fragments | RFC 8200, 6946, 7112 |
//! | `upper.rs` | ports, ICMP type, code and echo identifier | RFC 9293, 768, 9260, 792, 4443 |
//!
//! What can't be a packet is refused under a name. What a receiver alone can judge (checksums, L4 lengths and
//! flags, the contents of options) isn't looked at.

mod ipv4;
mod ipv6;
mod upper;

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
/// Smallest Ethernet type: a smaller number is the length of an 802.3 frame.
pub const ETHERTYPE_MIN: u16 = 0x0600;
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
/// Length of a tag.
const TAG_LEN: usize = 4;
/// Length of an IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Most extension headers of one IPv6 packet.
pub const EXTENSION_HEADERS_MAX: usize = 6;
/// Most bytes of the extension headers of one IPv6 packet.
pub const EXTENSION_BYTES_MAX: usize = 256;
/// Longest upper-layer header of which anything is read, or checked to be there: TCP without options.
const UPPER_LEN_MAX: usize = 20;
/// Most bytes from the start of a frame that the extraction reads.
pub const HEADER_BYTES_MAX: usize =
    ETHERNET_LEN + TAG_LEN + IPV6_LEN + EXTENSION_BYTES_MAX + UPPER_LEN_MAX;

const _: () = assert!(HEADER_BYTES_MAX < 512, "Frame::blurred");
const _: () = assert!(EXTENSION_BYTES_MAX > 60 - IPV6_LEN, "IPv4 options fit, too");

/// Bytes of a frame, read with bounds checked. In the kernel this is packet memory, in the agent a slice.
pub trait Frame {
    /// `N` bytes at `offset`, or none when the frame is shorter.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Length of the whole frame in bytes.
    fn length(&self) -> usize;

    /// The same number, below 512, of which the kernel's verifier knows nothing else: it walks through the rest of
    /// a program again for each value that it can tell from the others.
    #[inline(always)]
    fn blurred(&self, number: usize) -> usize {
        number
    }

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
    /// Bytes from the start of the frame to the upper-layer header; 0 for all but IP, and for later fragments.
    pub l4_offset: u16,
    /// Identification of a fragment; 0 for whole packets.
    pub fragment_id: u32,
}

/// Bytes from the start of the frame that [`extract`] has to be able to read: few for what nearly every packet is,
/// so that the kernel doesn't pull payload into the linear part of the packet.
#[inline(always)]
pub fn header_bytes<F: Frame + ?Sized>(frame: &F) -> usize {
    // One read with one check: LLVM would compute with what isn't there, which the verifier refuses.
    let Some([t0, t1, version, _, _, _, _, _, next]) = frame.bytes::<9>(12) else {
        return HEADER_BYTES_MAX;
    };
    let ethertype = u16::from_be_bytes([t0, t1]);
    if ethertype == ETHERTYPE_IPV4 && version == 0x45 {
        ETHERNET_LEN + 20 + UPPER_LEN_MAX
    } else if ethertype == ETHERTYPE_IPV6 && !ipv6::is_extension(next) {
        ETHERNET_LEN + IPV6_LEN + UPPER_LEN_MAX
    } else {
        HEADER_BYTES_MAX
    }
}

/// Fills `key` from a frame that came in at `port`. `vlan_tci` is a tag that the kernel took out of the frame.
///
/// The outermost tag is the key's; a frame with another one behind it is opaque, whatever it carries.
///
/// # Errors
/// [`DropReason::Truncated`], [`DropReason::BadHeader`] and the reasons from [`DropReason::ShortFrame`] to
/// [`DropReason::TinyFragment`].
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
    // A number and no Option: LLVM would compute with what isn't there, which the verifier refuses.
    let mut vlan = vlan_tci.map_or(0, tag);
    if vlan == 0 && (ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ) {
        vlan = tag(frame.number(ETHERNET_LEN).ok_or(DropReason::Truncated)?);
        ethertype = frame
            .number(ETHERNET_LEN + 2)
            .ok_or(DropReason::Truncated)?;
        offset = ETHERNET_LEN + TAG_LEN;
    }
    *key = FlowKey::default();
    key.head.port = port;
    key.head.vlan = vlan;
    key.head.dst_mac = [d0, d1, d2, d3, d4, d5];
    key.head.src_mac = [s0, s1, s2, s3, s4, s5];
    if ethertype == ETHERTYPE_IPV4 {
        ipv4::extract(frame, offset, key)
    } else if ethertype == ETHERTYPE_IPV6 {
        ipv6::extract(frame, offset, key)
    } else if ethertype == ETHERTYPE_ARP {
        arp(frame, offset, key)
    } else {
        key.head.class = key::class(0, Network::Other, Fragment::Whole);
        // The length of an 802.3 frame is no type: it would make each length a packet of its own kind.
        key.head.l4_src = if ethertype < ETHERTYPE_MIN {
            0
        } else {
            ethertype
        };
        Ok(Headers {
            l3_offset: offset as u16,
            ..Headers::default()
        })
    }
}

/// The key's form of a tag's control information.
#[inline(always)]
const fn tag(tci: u16) -> u16 {
    (tci & 0x0fff) | VLAN_PRESENT
}

/// Which fragment begins at `start` (in units of 8 bytes) and has `payload` bytes; `headers` are the bytes of the
/// packet that every fragment repeats.
#[inline(always)]
fn fragment(
    start: u16,
    more: bool,
    payload: usize,
    headers: usize,
) -> Result<Fragment, DropReason> {
    let is_odd = more && !payload.is_multiple_of(8);
    let end = usize::from(start) * 8 + payload + headers;
    if payload == 0 || is_odd || end > 0xffff {
        return Err(DropReason::BadFragment);
    }
    Ok(if start == 0 {
        Fragment::First
    } else {
        Fragment::Later
    })
}

/// Only Ethernet and IPv4 with address lengths 6 and 4 (RFC 826): a receiver may take anything else for an answer
/// that nobody checked.
#[inline(always)]
fn arp<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    key: &mut FlowKey,
) -> Result<Headers, DropReason> {
    let packet = frame.bytes::<28>(offset).ok_or(DropReason::Truncated)?;
    let [h0, h1, p0, p1, hardware_len, protocol_len, o0, o1, ..] = packet;
    if [h0, h1, p0, p1, hardware_len, protocol_len] != [0, 1, 8, 0, 6, 4] {
        return Err(DropReason::BadArp);
    }
    let operation = u16::from_be_bytes([o0, o1]);
    let [.., s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] = packet;
    key.head.class = key::class(0, Network::Arp, Fragment::Whole);
    key.head.protocol = if operation > 255 {
        255
    } else {
        operation as u8
    };
    key.set_src_v4([s0, s1, s2, s3]);
    key.set_dst_v4([t0, t1, t2, t3]);
    Ok(Headers {
        l3_offset: offset as u16,
        ..Headers::default()
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
                matches!(reason, DropReason::Truncated | DropReason::ShortFrame),
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
