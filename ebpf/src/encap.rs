//! The sending end of a tunnel: outer Ethernet, IPv4 or IPv6, and GRE with a key (RFC 2784, RFC 2890) in front of
//! a frame.

use crate::packet::{ADJ_ROOM_MAC, Packet, write};
use crate::{SHOT, clamp, count, maps};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_FIXED_GSO,
};
use aya_ebpf::helpers::{
    bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_head, bpf_skb_vlan_pop,
};
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, protocol};
use weft_common::peer::{PEER_IPV6, PEER_RESOLVED, PeerRecord};
use weft_common::tunnel::{
    ENCAP_LEN_V4, ENCAP_LEN_V6, GRE_FLAGS_KEY, GRE_LEN, GRE_PROTOCOL_ETHERNET,
};
use weft_common::{DropReason, Network};

/// `BPF_F_ADJ_ROOM_ENCAP_L2(14)`: an inner Ethernet header lies between GRE and the inner packet.
const ENCAP_L2_LEN: u64 = (ETHERNET_LEN as u64) << 56;
const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_GRE as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | ENCAP_L2_LEN;
const IP_OFFSET: usize = ETHERNET_LEN;
/// Time to live, or hop limit, of the outer header.
const OUTER_TTL: u8 = 64;
/// Bits of an IPv6 flow label.
const FLOW_LABEL: u32 = 0x000f_ffff;
/// Bytes of an 802.1Q tag.
const TAG_LEN: usize = 4;

/// What differs from packet to packet in the outer header towards one host.
#[derive(Clone, Copy)]
pub struct Varying {
    /// The tunnel key.
    pub key: u32,
    /// Bytes of GRE header and inner frame.
    pub length: u32,
    /// TOS or traffic class of the inner packet; 0 for all but IP.
    pub tos: u8,
    /// Flow label of an IPv6 header: the same for all packets of an inner flow (RFC 6438, 3).
    pub label: u32,
}

impl Varying {
    /// Of no packet yet.
    pub const NONE: Varying = Varying {
        key: 0,
        length: 0,
        tos: 0,
        label: 0,
    };
}

/// Sends the packet to a remote host under a key. A function of its own, as what it needs of the stack would lie there
/// when policies are asked, too.
#[inline(never)]
pub fn send(packet: &mut Packet, peer: u32, key: u32) -> i32 {
    let port = u32::from(packet.key.head.port);
    let Some(peer) = maps::peer(peer) else {
        return count::dropped(port, DropReason::PeerUnknown);
    };
    clamp::clamp_mss(packet, peer.clamp_mtu);
    let is_ipv6 = peer.flags & PEER_IPV6 != 0;
    let label = if is_ipv6 { flow_label(packet) } else { 0 };
    let Some(room) = encapsulate(packet, is_ipv6) else {
        return count::dropped(port, DropReason::EncapFailed);
    };
    let varying = Varying {
        key,
        length: room.length,
        tos: packet.key.head.tos,
        label,
    };
    if write_outer(packet.skb(), peer, varying).is_none() {
        return count::dropped(port, DropReason::EncapFailed);
    }
    transmit(peer, room.has_network_header, port)
}

/// Flows take different ways through an IPv6 underlay where there are several: its routers need not look inside.
#[inline(always)]
fn flow_label(packet: &Packet) -> u32 {
    // SAFETY: the context is valid for the whole program run.
    unsafe { bpf_get_hash_recalc(packet.skb()) & FLOW_LABEL }
}

/// Hands a packet with its outer header to the underlay. Drops are counted at `port`.
#[inline(always)]
pub fn transmit(peer: &PeerRecord, has_network_header: bool, port: u32) -> i32 {
    if peer.flags & PEER_RESOLVED != 0 {
        // SAFETY: plain numbers.
        return unsafe { bpf_redirect(peer.ifindex, 0) } as i32;
    }
    if !has_network_header {
        return count::dropped(port, DropReason::PeerUnknown);
    }
    // SAFETY: no parameters: the kernel finds the next hop by the outer destination.
    let action = unsafe { bpf_redirect_neigh(peer.ifindex, core::ptr::null_mut(), 0, 0) };
    if action == i64::from(SHOT) {
        count::dropped(port, DropReason::OutputFailed)
    } else {
        action as i32
    }
}

/// How room for the outer header was made.
pub struct Room {
    /// Bytes of GRE header and inner frame.
    pub length: u32,
    /// Whether the kernel's network header offset is the outer one's.
    pub has_network_header: bool,
}

/// Makes room for the outer header and puts the inner Ethernet header behind it.
#[inline(always)]
pub fn encapsulate(packet: &mut Packet, is_ipv6: bool) -> Option<Room> {
    if is_ipv6 {
        make_room::<ENCAP_LEN_V6>(packet, u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
    } else {
        make_room::<ENCAP_LEN_V4>(packet, u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
    }
}

#[inline(always)]
fn make_room<const OUTER: usize>(packet: &mut Packet, family: u64) -> Option<Room> {
    let length = packet.length() + GRE_LEN as u32;
    let inner = packet.read::<ETHERNET_LEN>(0)?;
    if let Some(tci) = packet.vlan_tci() {
        return make_room_tagged::<OUTER>(packet, inner, tci);
    }
    let network = packet.key.head.network() as u8;
    if network == Network::Ipv4 as u8 || network == Network::Ipv6 as u8 {
        // SAFETY: the helper checks length and layout.
        let result = unsafe {
            bpf_skb_adjust_room(
                packet.skb(),
                OUTER as i32,
                ADJ_ROOM_MAC,
                ENCAP_FLAGS | family,
            )
        };
        if result == 0 {
            packet.write(OUTER, inner)?;
            return Some(Room {
                length,
                has_network_header: true,
            });
        }
    }
    // All but IP, and packets that were just taken out of a tunnel, which adjust_room refuses.
    // SAFETY: the helper checks the length.
    if unsafe { bpf_skb_change_head(packet.skb(), OUTER as u32, 0) } != 0 {
        return None;
    }
    Some(Room {
        length,
        has_network_header: false,
    })
}

/// A tag that the kernel took out of the frame goes back into it: left in the packet's metadata, it would come
/// out in front of the outer header.
#[inline(always)]
fn make_room_tagged<const OUTER: usize>(
    packet: &mut Packet,
    inner: [u8; ETHERNET_LEN],
    tci: u16,
) -> Option<Room> {
    let length = packet.length() + (TAG_LEN + GRE_LEN) as u32;
    // SAFETY: plain numbers; the helpers check the length.
    let result = unsafe {
        bpf_skb_vlan_pop(packet.skb());
        bpf_skb_change_head(packet.skb(), (OUTER + TAG_LEN) as u32, 0)
    };
    if result != 0 {
        return None;
    }
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = inner;
    packet.write(OUTER, [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5])?;
    let [p0, p1] = ETHERTYPE_VLAN.to_be_bytes();
    let [t0, t1] = tci.to_be_bytes();
    packet.write(OUTER + 12, [p0, p1, t0, t1])?;
    Some(Room {
        length,
        has_network_header: false,
    })
}

/// Writes the outer headers.
#[inline(always)]
pub fn write_outer(skb: *mut __sk_buff, peer: &PeerRecord, varying: Varying) -> Option<()> {
    write(skb, 0, peer.dst_mac)?;
    write(skb, 6, peer.src_mac)?;
    let tos = varying.tos & peer.tos_mask;
    if peer.flags & PEER_IPV6 != 0 {
        write_ipv6(skb, peer, varying, tos)?;
        write_gre(skb, ENCAP_LEN_V6 - GRE_LEN, varying.key)
    } else {
        write_ipv4(skb, peer, varying, tos)?;
        write_gre(skb, ENCAP_LEN_V4 - GRE_LEN, varying.key)
    }
}

/// The number for a length field; 0 when a GSO packet is longer than the field holds, which Linux takes for "as
/// long as the packet is" (`skb_ip_totlen`).
#[inline(always)]
fn length_field(length: u32) -> u16 {
    if length > 0xffff { 0 } else { length as u16 }
}

/// Version 4 without options, identification 0, don't fragment.
#[inline(always)]
fn write_ipv4(skb: *mut __sk_buff, peer: &PeerRecord, varying: Varying, tos: u8) -> Option<()> {
    write(skb, 12, ETHERTYPE_IPV4.to_be_bytes())?;
    let length = length_field(varying.length + 20);
    let sum = peer.checksum_base + u32::from(length) + u32::from(tos);
    let folded = (sum & 0xffff) + (sum >> 16);
    let [c0, c1] = (!(((folded & 0xffff) + (folded >> 16)) as u16)).to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    let head = [
        0x45,
        tos,
        l0,
        l1,
        0,
        0,
        0x40,
        0,
        OUTER_TTL,
        protocol::GRE,
        c0,
        c1,
    ];
    write(skb, IP_OFFSET, head)?;
    let [.., s0, s1, s2, s3] = peer.src;
    let [.., d0, d1, d2, d3] = peer.dst;
    write(skb, IP_OFFSET + 12, [s0, s1, s2, s3, d0, d1, d2, d3])
}

/// Version 6 without extension headers.
#[inline(always)]
fn write_ipv6(skb: *mut __sk_buff, peer: &PeerRecord, varying: Varying, tos: u8) -> Option<()> {
    write(skb, 12, ETHERTYPE_IPV6.to_be_bytes())?;
    let first = 6 << 28 | u32::from(tos) << 20 | varying.label;
    let [v0, v1, v2, v3] = first.to_be_bytes();
    let [l0, l1] = length_field(varying.length).to_be_bytes();
    let head = [v0, v1, v2, v3, l0, l1, protocol::GRE, OUTER_TTL];
    write(skb, IP_OFFSET, head)?;
    write(skb, IP_OFFSET + 8, peer.src)?;
    write(skb, IP_OFFSET + 24, peer.dst)
}

#[inline(always)]
fn write_gre(skb: *mut __sk_buff, offset: usize, key: u32) -> Option<()> {
    let [g0, g1] = GRE_FLAGS_KEY.to_be_bytes();
    let [p0, p1] = GRE_PROTOCOL_ETHERNET.to_be_bytes();
    let [k0, k1, k2, k3] = key.to_be_bytes();
    write(skb, offset, [g0, g1, p0, p1, k0, k1, k2, k3])
}
