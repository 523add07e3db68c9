//! Flooding: a copy for each local port and one for each remote host, never back where the frame came from.
//!
//! The loops are `bpf_loop` callbacks: the verifier walks through them once instead of once a copy.

use crate::encap::Varying;
use crate::packet::Packet;
use crate::{SHOT, clamp, count, encap, fragments, maps, policy};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{bpf_clone_redirect, bpf_loop, bpf_skb_pull_data};
use core::ffi::c_void;
use weft_common::DropReason;
use weft_common::flood::FloodList;
use weft_common::limits::{FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX};
use weft_common::peer::{PEER_IPV6, PEER_RESOLVED};
use weft_common::port::PortKind;

/// `bpf_loop` goes on.
const CONTINUE: i64 = 0;
/// `bpf_loop` ends.
const BREAK: i64 = 1;

/// What the callback needs for copies for local ports. As little as there can be: it lies on the stack below the frames of
/// the policies.
struct LocalCopies {
    /// The caller's.
    packet: *mut Packet<'static>,
    list: &'static FloodList,
    origin: Origin,
}

/// What the callback needs for copies for remote hosts.
struct RemoteCopies {
    skb: *mut __sk_buff,
    list: &'static FloodList,
    /// Index of the port whose packet it is; 0 for none.
    ingress: u32,
    /// Of the outer header; the key is each host's own.
    varying: Varying,
    /// The room for the outer header is for IPv6.
    is_ipv6: bool,
}

/// A frame from a workload, or from the agent (`ingress` 0): local ports, whose policies are asked with `is_judged`, then
/// remote hosts.
#[inline(always)]
pub fn send(packet: &mut Packet, list: u32, ingress: u32, is_judged: bool) -> i32 {
    let Some(list) = maps::FLOOD_LISTS.get(list) else {
        return count::dropped(ingress, DropReason::OutputGone);
    };
    let origin = Origin {
        ingress,
        is_judged,
        damage: 0,
    };
    policy::see_macs(packet);
    to_locals(packet, list, origin);
    if list.remote_count == 0 {
        return SHOT;
    }
    to_remotes(packet, list, ingress)
}

/// Where a flooded packet came from.
#[derive(Clone, Copy)]
struct Origin {
    /// Index of the port that gets no copy; 0 for none.
    ingress: u32,
    /// Policies of local ports are asked.
    is_judged: bool,
    /// Number of the reason why the packet can't be one, which policies refuse it for; else 0.
    damage: u8,
}

/// Copies for local ports.
#[inline(never)]
fn to_locals(packet: &mut Packet, list: &'static FloodList, origin: Origin) -> i32 {
    let mut copies = LocalCopies {
        packet: core::ptr::from_mut(packet).cast(),
        list,
        origin,
    };
    each(
        FLOOD_LOCALS_MAX,
        copy_to_local,
        core::ptr::from_mut(&mut copies).cast(),
    );
    SHOT
}

/// Copies for remote hosts, of which there is one at least.
#[inline(never)]
fn to_remotes(packet: &mut Packet, list: &'static FloodList, ingress: u32) -> i32 {
    let [first, ..] = &list.remotes;
    let Some(peer) = maps::peer(first.peer) else {
        return count::dropped(ingress, DropReason::PeerUnknown);
    };
    // The outer headers of one host are all of one family.
    let is_ipv6 = peer.flags & PEER_IPV6 != 0;
    clamp::clamp_mss(packet, peer.clamp_mtu);
    let Some(room) = encap::encapsulate(packet, is_ipv6) else {
        return count::dropped(ingress, DropReason::EncapFailed);
    };
    let mut copies = RemoteCopies {
        skb: packet.skb(),
        list,
        ingress,
        varying: Varying {
            length: room.length,
            tos: packet.key.head.tos,
            ..Varying::NONE
        },
        is_ipv6,
    };
    each(
        FLOOD_REMOTES_MAX,
        copy_to_remote,
        core::ptr::from_mut(&mut copies).cast(),
    );
    SHOT
}

/// A frame out of a tunnel, for flood set `set`: local ports only, never into a tunnel again.
#[inline(always)]
pub fn expand(packet: &mut Packet, list: u32, set: u32) -> i32 {
    if let Some(list) = maps::FLOOD_LISTS.get(list) {
        let damage = packet.extract(set as u16);
        fragments::track(packet);
        let origin = Origin {
            ingress: 0,
            is_judged: true,
            damage,
        };
        to_locals(packet, list, origin);
    }
    SHOT
}

/// `copies` is what the callback takes.
#[inline(always)]
fn each(
    times: usize,
    callback: unsafe extern "C" fn(u32, *mut c_void) -> i64,
    copies: *mut c_void,
) {
    // SAFETY: the callback takes what is handed over here, and it outlives the loop.
    unsafe {
        bpf_loop(times as u32, callback as *mut c_void, copies, 0);
    }
}

/// One copy for a local port.
unsafe extern "C" fn copy_to_local(position: u32, copies: *mut c_void) -> i64 {
    // SAFETY: `to_locals` hands over its copies, and its packet outlives them.
    let (copies, packet) = unsafe {
        let copies = &*copies.cast::<LocalCopies>();
        (copies, &mut *copies.packet)
    };
    if position >= copies.list.local_count {
        return BREAK;
    }
    // SAFETY: `place` is below the number of entries.
    let port = u32::from(unsafe { *copies.list.locals.get_unchecked(place(position)) });
    let Some(record) = maps::port(port) else {
        return CONTINUE;
    };
    if port == copies.origin.ingress || record.kind != PortKind::Port as u8 || record.ifindex == 0 {
        return CONTINUE;
    }
    let policy = maps::policy(port);
    if policy != 0 && copies.origin.is_judged {
        if copies.origin.damage != 0 {
            count::dropped_number(port, copies.origin.damage);
            return CONTINUE;
        }
        if !policy::copy_passes(packet, port, policy) {
            return CONTINUE;
        }
    }
    count::egress(port, packet.length());
    clone_to(packet.skb(), record.ifindex, port);
    CONTINUE
}

/// One copy for a remote host; the packet is encapsulated already.
unsafe extern "C" fn copy_to_remote(position: u32, copies: *mut c_void) -> i64 {
    // SAFETY: `to_remotes` hands over its copies.
    let copies = unsafe { &*copies.cast::<RemoteCopies>() };
    if position >= copies.list.remote_count {
        return BREAK;
    }
    // SAFETY: `place` is below the number of entries.
    let remote = unsafe { copies.list.remotes.get_unchecked(place(position)) };
    let Some(peer) = maps::peer(remote.peer) else {
        count::dropped(copies.ingress, DropReason::PeerUnknown);
        return CONTINUE;
    };
    let is_ipv6 = peer.flags & PEER_IPV6 != 0;
    if peer.flags & PEER_RESOLVED == 0 || is_ipv6 != copies.is_ipv6 {
        count::dropped(copies.ingress, DropReason::PeerUnknown);
        return CONTINUE;
    }
    let varying = Varying {
        key: remote.tunnel_key,
        ..copies.varying
    };
    // The clone before shares this packet's bytes: pulling makes them ours again.
    // SAFETY: plain numbers; a failure shows when the bytes are written.
    unsafe { bpf_skb_pull_data(copies.skb, 0) };
    if encap::write_outer(copies.skb, peer, varying).is_none() {
        count::dropped(copies.ingress, DropReason::EncapFailed);
        return BREAK;
    }
    clone_to(copies.skb, peer.ifindex, copies.ingress);
    CONTINUE
}

/// The position again, with a bound that the verifier sees: LLVM would test one register and use another.
#[inline(always)]
fn place(position: u32) -> usize {
    let mut place = u64::from(position);
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{0} &= 63", inout(reg) place) };
    place as usize
}

const _: () = assert!(FLOOD_LOCALS_MAX == 64 && FLOOD_REMOTES_MAX == 64);

#[inline(always)]
fn clone_to(skb: *mut __sk_buff, ifindex: u32, port: u32) {
    // SAFETY: plain numbers; the kernel checks the interface.
    if unsafe { bpf_clone_redirect(skb, ifindex, 0) } < 0 {
        count::dropped(port, DropReason::OutputFailed);
    }
}
