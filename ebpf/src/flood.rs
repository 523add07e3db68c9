//! Flooding: a copy for each local port and one for each remote host, never back where the frame came from.

use crate::packet::Packet;
use crate::{SHOT, count, maps, tunnel};
use aya_ebpf::helpers::bpf_clone_redirect;
use weft_common::flood::FloodList;
use weft_common::limits::{FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX};
use weft_common::peer::{PEER_RESOLVED, PEER_VALID};
use weft_common::port::PortKind;
use weft_common::DropReason;

/// A frame from a workload, or from the agent (`ingress` 0): local ports, then remote hosts.
#[inline(never)]
pub fn send(packet: &mut Packet, list: u32, ingress: u32) -> i32 {
    let Some(list) = maps::FLOOD_LISTS.get(list) else {
        return count::dropped(ingress, DropReason::OutputGone);
    };
    to_locals(packet, list, ingress);
    if list.remote_count != 0 {
        to_remotes(packet, list, ingress);
    }
    SHOT
}

/// A frame out of a tunnel: local ports only, never into a tunnel again.
#[inline(never)]
pub fn expand(packet: &Packet, list: u32) -> i32 {
    if let Some(list) = maps::FLOOD_LISTS.get(list) {
        to_locals(packet, list, 0);
    }
    SHOT
}

#[inline(always)]
fn to_locals(packet: &Packet, list: &FloodList, ingress: u32) {
    for position in 0..FLOOD_LOCALS_MAX {
        if position as u32 >= list.local_count {
            return;
        }
        let Some(port) = list.locals.get(position) else { return };
        let port = u32::from(*port);
        if port == ingress {
            continue;
        }
        let Some(record) = maps::port(port) else { continue };
        if record.kind != PortKind::Port as u8 || record.ifindex == 0 {
            continue;
        }
        count::egress(port, packet.length());
        clone_to(packet, record.ifindex, port);
    }
}

#[inline(always)]
fn to_remotes(packet: &mut Packet, list: &FloodList, ingress: u32) {
    let Some(room) = tunnel::encapsulate(packet) else {
        count::failed(ingress, DropReason::EncapFailed);
        return;
    };
    for position in 0..FLOOD_REMOTES_MAX {
        if position as u32 >= list.remote_count {
            return;
        }
        let Some(remote) = list.remotes.get(position) else { return };
        let ready = PEER_VALID | PEER_RESOLVED;
        let Some(peer) = maps::PEERS.get(remote.peer).filter(|peer| peer.flags & ready == ready) else {
            count::failed(ingress, DropReason::PeerUnknown);
            continue;
        };
        // The clone before shares this packet's bytes: pulling makes them ours again.
        packet.pull_for_writing();
        if tunnel::write_outer(packet, peer, remote.tunnel_key, room.outer_length).is_none() {
            count::failed(ingress, DropReason::EncapFailed);
            return;
        }
        clone_to(packet, peer.ifindex, ingress);
    }
}

#[inline(always)]
fn clone_to(packet: &Packet, ifindex: u32, port: u32) {
    // SAFETY: plain numbers; the kernel checks the interface.
    if unsafe { bpf_clone_redirect(packet.skb(), ifindex, 0) } < 0 {
        count::failed(port, DropReason::OutputFailed);
    }
}
