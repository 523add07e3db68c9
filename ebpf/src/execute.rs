//! What a slot says: choice, guards, rewrite, output, in that order.

use crate::packet::Packet;
use crate::{SHOT, count, encap, flood, maps, miss, policy};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_peer};
use weft_common::event::MissReason;
use weft_common::frame::{ETHERNET_LEN, protocol};
use weft_common::limits::SELECT_DEPTH_MAX;
use weft_common::port::{Delivery, PortKind};
use weft_common::slot::{Output, SET_MACS, Slot, SlotRef};
use weft_common::{DropReason, FlowKey, Network, select};

/// Who asked for the slot: a packet from the agent never goes up again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A workload.
    Port,
    /// A workload whose packet the agent held.
    Held,
    /// The network: no chain judges it.
    Network,
}

/// Executes a slot. The packet's key and headers are filled.
#[inline(always)]
pub fn run(packet: &mut Packet, slot: &Slot, target: SlotRef, origin: Origin) -> i32 {
    count::used(target.slot, packet.length());
    let port = u32::from(packet.key.head.port);
    let mut slot = slot;
    if let Some(group) = slot.select_group() {
        // A reader that met a group in the middle of a change: the agent knows the new decision.
        let Some(chosen) = select(packet.key, group, packet.length()) else {
            return refuse(packet, origin, MissReason::NoFlow, DropReason::InjectStale);
        };
        slot = chosen;
    }
    // First of all: a packet that a later router refuses may end at an earlier one.
    if slot.ttl_decrement != 0 && packet.headers.ttl <= slot.ttl_decrement {
        return refuse(packet, origin, MissReason::Ttl, DropReason::TtlExpired);
    }
    if slot.output == Output::Drop as u8 {
        return count::dropped_number(port, slot.drop_reason);
    }
    if slot.output == Output::Agent as u8 {
        let reason = DropReason::from_number(slot.drop_reason);
        let drop = reason.unwrap_or(DropReason::UnknownAction);
        return refuse(packet, origin, MissReason::Action, drop);
    }
    if slot.mtu != 0 && l3_size(packet) > u32::from(slot.mtu) {
        return refuse(packet, origin, MissReason::Mtu, DropReason::MtuExceeded);
    }
    if rewrite(packet, slot).is_none() {
        return count::dropped(port, DropReason::Truncated);
    }
    match Output::from_number(slot.output) {
        Some(Output::Local) => deliver(packet, u32::from(slot.port), origin != Origin::Network),
        Some(Output::Tunnel) => encap::send(packet, u32::from(slot.peer), slot.tunnel_key),
        Some(Output::Flood) => {
            flood::send(packet, slot.flood_list, port, origin != Origin::Network)
        }
        _ => count::dropped(port, DropReason::UnknownAction),
    }
}

/// The slot that the packet's bucket leads to, through as many groups as there may be in a row. A function of its
/// own, as the programs' stack has no room for its values.
#[inline(never)]
fn select(key: &FlowKey, mut group: u32, length: u32) -> Option<&'static Slot> {
    let bucket = select::bucket(key);
    for _ in 0..SELECT_DEPTH_MAX {
        let (slot, target) = maps::selected(group, bucket)?;
        count::used(target.slot, length);
        match slot.select_group() {
            Some(next) => group = next,
            None => return Some(slot),
        }
    }
    None
}

#[inline(always)]
fn refuse(packet: &Packet, origin: Origin, reason: MissReason, drop: DropReason) -> i32 {
    if origin != Origin::Port {
        return count::dropped(u32::from(packet.key.head.port), drop);
    }
    miss::guard(packet, reason, drop)
}

/// Bytes of the network packet, or of one segment of a GSO packet.
#[inline(always)]
fn l3_size(packet: &Packet) -> u32 {
    let offset = packet.l3_offset();
    let payload = packet.gso_size();
    if payload == 0 {
        return packet.length().saturating_sub(offset as u32);
    }
    let upper = packet.l4_offset();
    let header = upper.saturating_sub(offset);
    let l4 = match packet.key.head.protocol {
        protocol::TCP => packet
            .read::<1>(upper + 12)
            .map_or(20, |[first]| usize::from(first >> 4) * 4),
        _ => 8,
    };
    payload + header as u32 + l4 as u32
}

/// MAC addresses, and the TTL with its checksum (RFC 1624).
#[inline(always)]
fn rewrite(packet: &Packet, slot: &Slot) -> Option<()> {
    if slot.flags & SET_MACS != 0 {
        packet.write(0, slot.dst_mac)?;
        packet.write(6, slot.src_mac)?;
    }
    if slot.ttl_decrement == 0 {
        return Some(());
    }
    let offset = packet.l3_offset();
    match packet.key.head.network() {
        Network::Ipv4 => {
            let [ttl, protocol, high, low] = packet.read::<4>(offset + 8)?;
            // The TTL is the upper byte of its word: taking n from it adds n * 256 to the complement.
            let sum =
                u32::from(u16::from_be_bytes([high, low])) + (u32::from(slot.ttl_decrement) << 8);
            let folded = (sum & 0xffff) + (sum >> 16);
            let [high, low] = (folded as u16).to_be_bytes();
            packet.write(
                offset + 8,
                [ttl.wrapping_sub(slot.ttl_decrement), protocol, high, low],
            )
        }
        Network::Ipv6 => {
            let [limit] = packet.read::<1>(offset + 7)?;
            packet.write(offset + 7, [limit.wrapping_sub(slot.ttl_decrement)])
        }
        _ => None,
    }
}

/// Delivers to a local port, if its policy lets it (asked with `is_judged`). Only IP goes by `bpf_redirect_peer`, which doesn't look at the Ethernet type again:
/// the kernel knows it for IP alone, and not behind a tag inside the frame.
#[inline(always)]
pub fn deliver(packet: &mut Packet, port: u32, is_judged: bool) -> i32 {
    let Some(record) = maps::port(port) else {
        return count::dropped(port, DropReason::OutputGone);
    };
    if record.kind != PortKind::Port as u8 || record.ifindex == 0 {
        return count::dropped(port, DropReason::OutputGone);
    }
    let policy = maps::policy(port);
    if policy != 0 && is_judged && !policy::egress(packet, port, policy) {
        return SHOT;
    }
    count::egress(port, packet.length());
    let network = packet.key.head.network() as u8;
    let is_ip = network == Network::Ipv4 as u8 || network == Network::Ipv6 as u8;
    let is_known = is_ip && packet.headers.l3_offset as usize <= ETHERNET_LEN;
    let by_peer = record.delivery == Delivery::Peer as u8 && is_known;
    // SAFETY: both helpers take plain numbers; the kernel checks the interface.
    let action = unsafe {
        if by_peer {
            bpf_redirect_peer(record.ifindex, 0)
        } else {
            bpf_redirect(record.ifindex, 0)
        }
    };
    if action == i64::from(SHOT) {
        count::dropped(port, DropReason::OutputFailed)
    } else {
        action as i32
    }
}
