//! GRE with a key (RFC 2784, RFC 2890): recognising, taking off and putting on.

use crate::execute::deliver;
use crate::maps::{self, OWN_ADDRESSES, PEERS, REMOTE_HOSTS};
use crate::packet::{Packet, write};
use crate::{SHOT, count, flood, probe};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_FIXED_GSO,
};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_vlan_pop,
};
use weft_common::frame::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_VLAN, protocol};
use weft_common::peer::{PEER_RESOLVED, PEER_VALID, PeerRecord};
use weft_common::port::PortKind;
use weft_common::tunnel::{
    ENCAP_LEN, GRE_FLAGS_KEY, GRE_PROTOCOL_ETHERNET, KEY_MAX, STATE_RECORD, TunnelKey,
};
use weft_common::{DropReason, Network};

/// `BPF_ADJ_ROOM_MAC`: the room is made, or taken, right after the Ethernet header.
const ADJ_ROOM_MAC: u32 = 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L2(14)`: an inner Ethernet header lies between GRE and the inner packet.
const ENCAP_L2_LEN: u64 = (ETHERNET_LEN as u64) << 56;
const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_GRE as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | ENCAP_L2_LEN;
/// Outer IPv4 and GRE in front of the inner frame.
const OUTER_L3_LEN: u32 = (ENCAP_LEN - ETHERNET_LEN) as u32;
const IP_OFFSET: usize = ETHERNET_LEN;
const GRE_OFFSET: usize = IP_OFFSET + 20;
/// Where the inner frame begins.
pub const INNER_OFFSET: usize = ENCAP_LEN;
/// Bytes of an 802.1Q tag.
const TAG_LEN: usize = 4;

/// A tunnel packet of ours.
#[derive(Clone, Copy)]
pub struct Arrival {
    /// What it is for.
    pub key: TunnelKey,
    /// Underlay record of the host that sent it.
    pub peer: u32,
}

/// Whether this is a tunnel packet of ours, from whom and for whom.
///
/// # Errors
/// A packet that is ours but can't be accepted is dropped with the reason.
#[inline(always)]
pub fn recognise(packet: &Packet) -> Result<Option<Arrival>, DropReason> {
    packet.pull_headers((INNER_OFFSET + ETHERNET_LEN) as u32);
    let Some([t0, t1]) = packet.read::<2>(12) else {
        return Ok(None);
    };
    if u16::from_be_bytes([t0, t1]) != ETHERTYPE_IPV4 {
        return Ok(None);
    }
    let Some(ip) = packet.read::<20>(IP_OFFSET) else {
        return Ok(None);
    };
    let [
        version,
        _,
        _,
        _,
        _,
        _,
        f0,
        f1,
        _,
        number,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ] = ip;
    let is_fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
    if number != protocol::GRE || version != 0x45 || is_fragment {
        return Ok(None);
    }
    let Some([g0, g1, p0, p1, k0, k1, k2, k3]) = packet.read::<8>(GRE_OFFSET) else {
        return Ok(None);
    };
    let is_ours = u16::from_be_bytes([g0, g1]) == GRE_FLAGS_KEY
        && u16::from_be_bytes([p0, p1]) == GRE_PROTOCOL_ETHERNET
        // SAFETY: the value isn't read.
        && unsafe { OWN_ADDRESSES.get(&[d0, d1, d2, d3]) }.is_some();
    if !is_ours {
        return Ok(None);
    }
    // SAFETY: a value that is replaced while it is read is 4 bytes, read at once.
    let Some(&peer) = (unsafe { REMOTE_HOSTS.get(&[s0, s1, s2, s3]) }) else {
        return Err(DropReason::UnknownHost);
    };
    let key = u32::from_be_bytes([k0, k1, k2, k3]);
    if key > KEY_MAX {
        return Err(DropReason::WideTunnelKey);
    }
    if key & STATE_RECORD != 0 {
        return Err(DropReason::StateRecord);
    }
    Ok(Some(Arrival {
        key: TunnelKey::from_bits(key),
        peer,
    }))
}

/// Delivers a tunnel packet to what its key names.
#[inline(always)]
pub fn receive(packet: &mut Packet, arrival: Arrival) -> i32 {
    let target = arrival.key;
    if target.index == 0 {
        return probe::receive(packet, arrival);
    }
    let index = u32::from(target.index);
    let Some(record) = maps::port(index) else {
        return count::dropped(0, DropReason::UnknownTunnelKey);
    };
    if record.kind == PortKind::Free as u8 {
        return count::dropped(0, DropReason::UnknownTunnelKey);
    }
    if record.generation != target.generation {
        return count::dropped(index, DropReason::OldGeneration);
    }
    if !decapsulate(packet) {
        return count::dropped(index, DropReason::DecapFailed);
    }
    if record.kind == PortKind::FloodSet as u8 {
        return flood::expand(packet, record.flood_list);
    }
    deliver(packet, index, true)
}

/// Takes off the outer headers. Only the inner frame's network is noted in the key: nothing else is needed.
#[inline(always)]
fn decapsulate(packet: &mut Packet) -> bool {
    let Some(inner) = packet.read::<ETHERNET_LEN>(INNER_OFFSET) else {
        return false;
    };
    // SAFETY: the helper checks length and layout.
    let result = unsafe {
        bpf_skb_adjust_room(
            packet.skb(),
            -(ENCAP_LEN as i32),
            ADJ_ROOM_MAC,
            BPF_F_ADJ_ROOM_FIXED_GSO as u64,
        )
    };
    if result != 0 || packet.write(0, inner).is_none() {
        return false;
    }
    let [.., t0, t1] = inner;
    let network = if u16::from_be_bytes([t0, t1]) == ETHERTYPE_IPV4 {
        Network::Ipv4
    } else {
        Network::Other
    };
    packet.key.head.class = (network as u8) << 2;
    true
}

/// Sends the packet to a remote host under a key.
#[inline(always)]
pub fn send(packet: &mut Packet, peer: u32, key: u32) -> i32 {
    let port = u32::from(packet.key.head.port);
    // Not `filter`: LLVM makes it an AND on a pointer, which the verifier refuses.
    let Some(peer) = PEERS.get(peer) else {
        return count::dropped(port, DropReason::PeerUnknown);
    };
    if peer.flags & PEER_VALID == 0 {
        return count::dropped(port, DropReason::PeerUnknown);
    }
    let Some(room) = encapsulate(packet) else {
        return count::dropped(port, DropReason::EncapFailed);
    };
    if write_outer(packet.skb(), peer, key, room.outer_length).is_none() {
        return count::dropped(port, DropReason::EncapFailed);
    }
    transmit(peer, room.has_network_header, port)
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
    /// Bytes of the outer IPv4 packet; 0 when a GSO packet is longer than the field holds, which Linux takes
    /// for "as long as the packet is" (`skb_ip_totlen`).
    pub outer_length: u16,
    /// Whether the kernel's network header offset is the outer one's.
    pub has_network_header: bool,
}

/// Makes room for the outer header and puts the inner Ethernet header behind it.
#[inline(always)]
pub fn encapsulate(packet: &mut Packet) -> Option<Room> {
    let length = packet.length() + OUTER_L3_LEN;
    let outer_length = if length > 0xffff { 0 } else { length as u16 };
    let inner = packet.read::<ETHERNET_LEN>(0)?;
    if let Some(tci) = packet.vlan_tci() {
        return encapsulate_tagged(packet, inner, tci);
    }
    let network = packet.key.head.network() as u8;
    if network == Network::Ipv4 as u8 || network == Network::Ipv6 as u8 {
        // SAFETY: the helper checks length and layout.
        let result = unsafe {
            bpf_skb_adjust_room(packet.skb(), ENCAP_LEN as i32, ADJ_ROOM_MAC, ENCAP_FLAGS)
        };
        if result == 0 {
            packet.write(INNER_OFFSET, inner)?;
            return Some(Room {
                outer_length,
                has_network_header: true,
            });
        }
    }
    // All but IP, and packets that were just taken out of a tunnel, which adjust_room refuses.
    // SAFETY: the helper checks the length.
    if unsafe { bpf_skb_change_head(packet.skb(), ENCAP_LEN as u32, 0) } != 0 {
        return None;
    }
    Some(Room {
        outer_length,
        has_network_header: false,
    })
}

/// A tag that the kernel took out of the frame goes back into it: left in the packet's metadata, it would come
/// out in front of the outer header.
#[inline(always)]
fn encapsulate_tagged(packet: &mut Packet, inner: [u8; ETHERNET_LEN], tci: u16) -> Option<Room> {
    let length = packet.length() + TAG_LEN as u32 + OUTER_L3_LEN;
    let outer_length = if length > 0xffff { 0 } else { length as u16 };
    // SAFETY: plain numbers; the helpers check the length.
    let result = unsafe {
        bpf_skb_vlan_pop(packet.skb());
        bpf_skb_change_head(packet.skb(), (ENCAP_LEN + TAG_LEN) as u32, 0)
    };
    if result != 0 {
        return None;
    }
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = inner;
    packet.write(
        INNER_OFFSET,
        [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5],
    )?;
    let [p0, p1] = ETHERTYPE_VLAN.to_be_bytes();
    let [t0, t1] = tci.to_be_bytes();
    packet.write(INNER_OFFSET + 12, [p0, p1, t0, t1])?;
    Some(Room {
        outer_length,
        has_network_header: false,
    })
}

/// Writes Ethernet, IPv4 with DF, and GRE with the key.
#[inline(always)]
pub fn write_outer(skb: *mut __sk_buff, peer: &PeerRecord, key: u32, length: u16) -> Option<()> {
    write(skb, 0, peer.dst_mac)?;
    write(skb, 6, peer.src_mac)?;
    write(skb, 12, ETHERTYPE_IPV4.to_be_bytes())?;
    let sum = peer.checksum_base + u32::from(length);
    let folded = (sum & 0xffff) + (sum >> 16);
    let [c0, c1] = (!(((folded & 0xffff) + (folded >> 16)) as u16)).to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    // Version 4 without options, identification 0, don't fragment, TTL 64.
    write(
        skb,
        IP_OFFSET,
        [0x45, 0, l0, l1, 0, 0, 0x40, 0, 64, protocol::GRE, c0, c1],
    )?;
    write(skb, IP_OFFSET + 12, peer.src)?;
    write(skb, IP_OFFSET + 16, peer.dst)?;
    let [g0, g1] = GRE_FLAGS_KEY.to_be_bytes();
    let [p0, p1] = GRE_PROTOCOL_ETHERNET.to_be_bytes();
    let [k0, k1, k2, k3] = key.to_be_bytes();
    write(skb, GRE_OFFSET, [g0, g1, p0, p1, k0, k1, k2, k3])
}
