//! Delivery of tunnel packets by XDP: whole IP packets and ARP for one port that takes such frames.
//!
//! Nothing is dropped here. Whatever isn't delivered goes on, untouched, to `from_underlay`: flood sets, probes, congestion
//! marks (RFC 6040), fragments, all that is odd, wrong or unknown.

use crate::count;
use crate::maps::{self, OWN_ADDRESSES, REMOTE_HOSTS};
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use weft_common::checksum::{self, PseudoHeader};
use weft_common::frame::{
    ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, IPV6_LEN, protocol,
};
use weft_common::port::{PORT_XDP, PORT_XDP_FRAGS, PortKind};
use weft_common::tunnel::{ENCAP_LEN_V4, ENCAP_LEN_V6, KEY_MAX, Outer, STATE_RECORD, TunnelKey};

/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;

/// The first buffer of a frame.
struct Bytes {
    start: usize,
    end: usize,
}

impl Frame for Bytes {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the N bytes at `at` lie before the end of the frame's first buffer.
        Some(unsafe { core::ptr::read_unaligned(at as *const [u8; N]) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }
}

/// Delivers a tunnel packet; none for what is not for this program, which is untouched then.
#[inline(always)]
pub fn deliver(ctx: &XdpContext) -> Option<u32> {
    let frame = Bytes {
        start: ctx.data(),
        end: ctx.data_end(),
    };
    let outer = Outer::parse(&frame)?;
    // SAFETY: the values aren't read.
    unsafe {
        OWN_ADDRESSES.get(&outer.dst)?;
        REMOTE_HOSTS.get(&outer.src)?;
    }
    // Only an odd TOS can change anything inside.
    if outer.key > KEY_MAX || outer.key & STATE_RECORD != 0 || outer.tos & 1 != 0 {
        return None;
    }
    let target = TunnelKey::from_bits(outer.key);
    let index = u32::from(target.index);
    let record = maps::port(index)?;
    let is_live = record.kind == PortKind::Port as u8 && record.generation == target.generation;
    // Chains are asked by `from_underlay`.
    if maps::policy(index) != 0 {
        return None;
    }
    if !is_live || record.flags & PORT_XDP == 0 || record.ifindex == 0 {
        return None;
    }
    // SAFETY: the context is valid for the whole program run.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if length > frame.length() as u64 && record.flags & PORT_XDP_FRAGS == 0 {
        return None;
    }
    // Two calls with a constant each, as the verifier wants to see one.
    let encapsulation = if outer.inner_offset == ENCAP_LEN_V6 {
        is_known_unicast(&frame, ENCAP_LEN_V6).then_some(ENCAP_LEN_V6)?
    } else {
        is_known_unicast(&frame, ENCAP_LEN_V4).then_some(ENCAP_LEN_V4)?
    };
    // SAFETY: the helper checks the length.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, encapsulation as i32) } != 0 {
        return None;
    }
    count::egress(index, length as u32 - encapsulation as u32);
    // SAFETY: plain numbers.
    Some(unsafe { bpf_redirect(record.ifindex, 0) } as u32)
}

/// Whether the frame at `offset` is for one receiver, and a whole packet that nothing has to be done to.
#[inline(always)]
fn is_known_unicast(frame: &Bytes, offset: usize) -> bool {
    let Some([first, _, _, _, _, _, _, _, _, _, _, _, t0, t1]) =
        frame.bytes::<ETHERNET_LEN>(offset)
    else {
        return false;
    };
    if first & 1 != 0 {
        return false;
    }
    let ethertype = u16::from_be_bytes([t0, t1]);
    if ethertype == ETHERTYPE_IPV4 {
        is_plain_ipv4(frame, offset + ETHERNET_LEN)
    } else if ethertype == ETHERTYPE_IPV6 {
        is_plain_ipv6(frame, offset + ETHERNET_LEN)
    } else {
        ethertype == ETHERTYPE_ARP
    }
}

/// Whether it is a whole IPv4 packet without options, with its checksum filled in.
#[inline(always)]
fn is_plain_ipv4(frame: &Bytes, offset: usize) -> bool {
    let Some([version, _, l0, l1, _, _, f0, f1, _, protocol, ..]) = frame.bytes::<12>(offset)
    else {
        return false;
    };
    let Some(addresses) = frame.bytes::<8>(offset + 12) else {
        return false;
    };
    let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    let pseudo = PseudoHeader {
        addresses: checksum::sum(&addresses),
        protocol,
        length: u16::from_be_bytes([l0, l1]).wrapping_sub(IPV4_LEN as u16),
    };
    version == 0x45 && !is_fragment && !checksum::is_unfinished(frame, offset + IPV4_LEN, pseudo)
}

/// Whether it is an IPv6 packet without extension headers, with its checksum filled in.
#[inline(always)]
fn is_plain_ipv6(frame: &Bytes, offset: usize) -> bool {
    let Some([version, _, _, _, l0, l1, next, _]) = frame.bytes::<8>(offset) else {
        return false;
    };
    let Some(addresses) = frame.bytes::<32>(offset + 8) else {
        return false;
    };
    let pseudo = PseudoHeader {
        addresses: checksum::sum(&addresses),
        protocol: next,
        length: u16::from_be_bytes([l0, l1]),
    };
    let is_known = matches!(
        next,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMPV6
    );
    version >> 4 == 6 && is_known && !checksum::is_unfinished(frame, offset + IPV6_LEN, pseudo)
}
