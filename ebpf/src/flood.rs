//! Flooding: a copy for each local port and one for each remote host, never back where the frame came from.
//!
//! The loops are `bpf_loop` callbacks: the verifier walks through them once instead of once a copy.

use crate::encap::Varying;
use crate::packet::Packet;
use crate::{SHOT, clamp, count, encap, maps};
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

/// What the callbacks need of the packet and the list.
struct Copies {
    skb: *mut __sk_buff,
    list: &'static FloodList,
    /// Index of the port that gets no copy; 0 for none.
    ingress: u32,
    /// Bytes of the frame.
    length: u32,
    /// Of the outer header; the key is each host's own.
    varying: Varying,
    /// The room for the outer header is for IPv6.
    is_ipv6: bool,
}

/// A frame from a workload, or from the agent (`ingress` 0): local ports, then remote hosts.
#[inline(always)]
pub fn send(packet: &mut Packet, list: u32, ingress: u32) -> i32 {
    let Some(list) = maps::FLOOD_LISTS.get(list) else {
        return count::dropped(ingress, DropReason::OutputGone);
    };
    let (skb, length) = (packet.skb(), packet.length());
    let mut copies = Copies {
        skb,
        list,
        ingress,
        length,
        varying: Varying::NONE,
        is_ipv6: false,
    };
    each(FLOOD_LOCALS_MAX, copy_to_local, &mut copies);
    if list.remote_count != 0 {
        let [first, ..] = &list.remotes;
        let Some(peer) = maps::peer(first.peer) else {
            return count::dropped(ingress, DropReason::PeerUnknown);
        };
        // The outer headers of one host are all of one family.
        copies.is_ipv6 = peer.flags & PEER_IPV6 != 0;
        clamp::clamp_mss(packet, peer.clamp_mtu);
        let Some(room) = encap::encapsulate(packet, copies.is_ipv6) else {
            return count::dropped(ingress, DropReason::EncapFailed);
        };
        copies.varying.length = room.length;
        copies.varying.tos = packet.key.head.tos;
        each(FLOOD_REMOTES_MAX, copy_to_remote, &mut copies);
    }
    SHOT
}

/// A frame out of a tunnel: local ports only, never into a tunnel again.
#[inline(always)]
pub fn expand(packet: &Packet, list: u32) -> i32 {
    if let Some(list) = maps::FLOOD_LISTS.get(list) {
        let (skb, length) = (packet.skb(), packet.length());
        let mut copies = Copies {
            skb,
            list,
            ingress: 0,
            length,
            varying: Varying::NONE,
            is_ipv6: false,
        };
        each(FLOOD_LOCALS_MAX, copy_to_local, &mut copies);
    }
    SHOT
}

#[inline(always)]
fn each(
    times: usize,
    callback: unsafe extern "C" fn(u32, *mut c_void) -> i64,
    copies: &mut Copies,
) {
    // SAFETY: the callback takes what is handed over here, and `copies` outlives the loop.
    unsafe {
        bpf_loop(
            times as u32,
            callback as *mut c_void,
            core::ptr::from_mut(copies).cast(),
            0,
        );
    }
}

/// One copy for a local port.
unsafe extern "C" fn copy_to_local(position: u32, copies: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Copies`.
    let copies = unsafe { &*copies.cast::<Copies>() };
    if position >= copies.list.local_count {
        return BREAK;
    }
    // SAFETY: `place` is below the number of entries.
    let port = u32::from(unsafe { *copies.list.locals.get_unchecked(place(position)) });
    let Some(record) = maps::port(port) else {
        return CONTINUE;
    };
    if port == copies.ingress || record.kind != PortKind::Port as u8 || record.ifindex == 0 {
        return CONTINUE;
    }
    count::egress(port, copies.length);
    clone_to(copies.skb, record.ifindex, port);
    CONTINUE
}

/// One copy for a remote host; the packet is encapsulated already.
unsafe extern "C" fn copy_to_remote(position: u32, copies: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Copies`.
    let copies = unsafe { &*copies.cast::<Copies>() };
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
