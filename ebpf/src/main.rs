//! Weft's kernel programs. This file is the table of stages; each stage is a file of its own.
//!
//! | program | attached to | stages, in order |
//! |---|---|---|
//! | `from_port` | TC ingress of a workload's interface | [`packet`] extract, [`fragments`], [`neighbours`], [`policy`] where the port has one, [`lookup`] microflow cache then megaflows, [`miss`] or [`execute`] |
//! | `from_underlay` | TC ingress of an underlay interface | [`tunnel`] recognise and decapsulate, [`probe`], [`execute`] deliver or expand |
//! | `from_underlay_xdp` | XDP of an underlay interface, before `from_underlay` | [`xdp`] delivers what is plain, leaves the rest to `from_underlay` |
//! | `from_inject` | TC ingress of the inject TAP | [`inject`] take off the prefix, [`execute`] the named slot |
//!
//! [`execute`] is guards, rewrite and output; output is local delivery (by the [`policy`] of the port), [`encap`] (with
//! [`clamp`]), [`flood`] or a counted drop. [`policy`] asks the chains ([`acl`]) and keeps [`connections`].
//! Maps are in [`maps`], counters in [`count`]. What the maps hold is defined in `weft-common`.
#![no_std]
#![no_main]
// `asm!` for this target; allowed by RUSTC_BOOTSTRAP, which `cargo xtask build-ebpf` sets for this crate alone.
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    reason = "the classifier macro makes functions that can't have docs"
)]

mod acl;
mod clamp;
mod connections;
mod count;
mod encap;
mod execute;
mod flood;
mod fragments;
mod inject;
mod lookup;
mod maps;
mod miss;
mod neighbours;
mod packet;
mod policy;
mod probe;
mod tunnel;
mod xdp;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use packet::Packet;
use weft_common::DropReason;
use weft_common::event::MissReason;

/// The packet goes on to the host's own filters and stack. `TC_ACT_OK` would skip the programs and filters behind
/// ours, which are the host's business.
const PASS: i32 = TC_ACT_UNSPEC;
/// The packet ends here.
const SHOT: i32 = TC_ACT_SHOT as i32;

/// A frame that a workload sent.
#[classifier]
pub fn from_port(ctx: TcContext) -> i32 {
    let Some(mut packet) = Packet::new(&ctx) else {
        return SHOT;
    };
    let Some(port) = maps::port_of_interface(packet.ifindex()) else {
        return count::dropped(0, DropReason::UnboundInterface);
    };
    let Some(record) = maps::port(port) else {
        return count::dropped(0, DropReason::UnboundInterface);
    };
    count::ingress(port, packet.length());
    let damage = packet.extract(port as u16);
    if damage != 0 {
        return count::dropped_number(port, damage);
    }
    fragments::track(&mut packet);
    if let Some(answered) = neighbours::answer(&mut packet) {
        return answered;
    }
    let policy = maps::policy(port);
    let found = if policy == 0 {
        lookup::find(&packet, record)
    } else {
        policy::ingress(&mut packet, record, policy)
    };
    match found {
        Some((slot, target)) => execute::run(&mut packet, slot, target, execute::Origin::Port),
        // With a policy it went up already, or was dropped.
        None if policy != 0 => SHOT,
        None => miss::send(&packet, record, MissReason::NoFlow),
    }
}

/// A frame from the underlay: only our own tunnel packets are looked at, everything else passes.
#[classifier]
pub fn from_underlay(ctx: TcContext) -> i32 {
    let Some(mut packet) = Packet::new(&ctx) else {
        return PASS;
    };
    if !tunnel::may_be_ours(&packet) {
        return PASS;
    }
    let mut arrival = tunnel::Arrival::NONE;
    match tunnel::recognise(&packet, &mut arrival) {
        tunnel::NOT_OURS => PASS,
        tunnel::OURS => tunnel::receive(&mut packet, arrival),
        reason => count::dropped_number(0, reason as u8),
    }
}

/// A frame from the underlay, before the kernel makes a packet of it: known unicast is delivered, everything else goes on
/// to `from_underlay`, which names what it drops. Frames of several buffers are taken, too.
#[xdp(frags)]
pub fn from_underlay_xdp(ctx: XdpContext) -> u32 {
    xdp::deliver(&ctx).unwrap_or(XDP_PASS)
}

/// A frame that the agent held or made: the slot in its prefix is executed and nothing else.
#[classifier]
pub fn from_inject(ctx: TcContext) -> i32 {
    match Packet::new(&ctx) {
        Some(mut packet) => inject::run(&mut packet),
        None => SHOT,
    }
}

/// Attached to nothing: the agent and tests run it (BPF_PROG_TEST_RUN) to hear what an ACL decides. Behind an Ethernet header
/// the frame holds a flow key; the mark holds the ACL, from bit 16 on the state of the connection, and in bit 24 whether the
/// key's L4 fields are known. The answer is the decision, with the rule in the upper half.
#[classifier]
pub fn judge(ctx: TcContext) -> i32 {
    let Some(mut packet) = Packet::new(&ctx) else {
        return SHOT;
    };
    // SAFETY: the context is valid for the whole program run.
    let mark = unsafe { (*packet.skb()).mark };
    acl::judge_given(&mut packet, mark)
}

/// "Dual MIT/GPL": the kernel refuses `bpf_perf_event_output` to objects that aren't GPL-compatible.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: a program that could panic doesn't load.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
