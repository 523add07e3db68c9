//! Packets that the agent must decide: the whole packet goes up, under one of the port's two token buckets.
//!
//! One bucket is for packets without a flow. The other is for those of known flows that need a word from the agent: a
//! flood of what is refused, too large or at its end can't keep a port's new flows from being made.

use crate::SHOT;
use crate::count;
use crate::maps::{self, GUARD_BUCKETS, MISS_BUCKETS, MISSES, MISSES_BATCHED};
use crate::packet::Packet;
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_perf_event_output};
use weft_common::event::{MissHeader, MissReason};
use weft_common::key::VLAN_PRESENT;
use weft_common::limits::{
    GUARD_BURST, GUARD_RATE_PER_SEC, MISS_BURST, MISS_BYTES_MAX, MISS_RATE_PER_SEC, MISSES_EAGER,
};
use weft_common::port::TokenBucket;
use weft_common::{DropReason, PortRecord};

/// How fast a bucket fills, and how full it may be, in nanoseconds.
struct Rate {
    token_ns: u64,
    burst_ns: u64,
    /// How full it must stay for the agent to be woken at once.
    eager_ns: u64,
}

const MISS: Rate = Rate::new(MISS_RATE_PER_SEC, MISS_BURST);
const GUARD: Rate = Rate::new(GUARD_RATE_PER_SEC, GUARD_BURST);

impl Rate {
    const fn new(per_sec: u64, burst: u64) -> Rate {
        let token_ns = 1_000_000_000 / per_sec;
        Rate {
            token_ns,
            burst_ns: burst * token_ns,
            eager_ns: burst.saturating_sub(MISSES_EAGER) * token_ns,
        }
    }
}

/// Sends the packet up and ends it here: the agent holds it and brings it back by the inject TAP.
#[inline(never)]
pub fn send(packet: &Packet, record: &PortRecord, reason: MissReason) -> i32 {
    let port = u32::from(packet.key.head.port);
    match take_token(MISS_BUCKETS.get_ptr_mut(port), &MISS) {
        Some(is_eager) => output(packet, record, reason, is_eager),
        None => count::dropped(port, DropReason::MissRate),
    }
}

/// A guard of a flow failed, or the flow wants each packet seen: it goes up with that reason. One too many is dropped
/// as what it would have been refused for.
#[inline(never)]
pub fn guard(packet: &Packet, reason: MissReason, drop: DropReason) -> i32 {
    let port = u32::from(packet.key.head.port);
    let Some(record) = maps::port(port) else {
        return count::dropped(0, DropReason::PortDown);
    };
    match take_token(GUARD_BUCKETS.get_ptr_mut(port), &GUARD) {
        Some(is_eager) => output(packet, record, reason, is_eager),
        None => count::dropped(port, drop),
    }
}

#[inline(always)]
fn output(packet: &Packet, record: &PortRecord, reason: MissReason, is_eager: bool) -> i32 {
    let port = u32::from(packet.key.head.port);
    let length = packet.length();
    let captured = if length < MISS_BYTES_MAX {
        length
    } else {
        MISS_BYTES_MAX
    };
    let mut header = MissHeader {
        port: port as u16,
        reason: reason as u8,
        generation: record.generation,
        frame_length: length,
        captured_length: captured,
        gso_size: packet.gso_size() as u16,
        vlan: packet
            .vlan_tci()
            .map_or(0, |tci| (tci & 0x0fff) | VLAN_PRESENT),
        fragment: *packet.fragment,
    };
    let buffer = if is_eager {
        core::ptr::addr_of!(MISSES)
    } else {
        core::ptr::addr_of!(MISSES_BATCHED)
    };
    // SAFETY: context and map are valid; header is initialised memory of the given size; the upper half of
    // the flags asks for at most `length` bytes of the packet.
    let result = unsafe {
        bpf_perf_event_output(
            packet.context(),
            buffer.cast_mut().cast(),
            u64::from(captured) << 32 | BPF_F_CURRENT_CPU,
            core::ptr::from_mut(&mut header).cast(),
            size_of::<MissHeader>() as u64,
        )
    };
    if result != 0 {
        return count::dropped(port, DropReason::MissLost);
    }
    SHOT
}

/// Takes one token: none when there is none, else whether few were taken lately. Two CPUs may take the same one: the
/// bucket bounds, it doesn't count.
#[inline(always)]
fn take_token(bucket: Option<*mut TokenBucket>, rate: &Rate) -> Option<bool> {
    let bucket = bucket?;
    // SAFETY: a checked pointer; the helper takes nothing.
    unsafe {
        let now = bpf_ktime_get_ns();
        let mut credit = (*bucket)
            .credit_ns
            .saturating_add(now.saturating_sub((*bucket).filled_ns));
        if credit > rate.burst_ns {
            credit = rate.burst_ns;
        }
        (*bucket).filled_ns = now;
        let is_taken = credit >= rate.token_ns;
        if is_taken {
            credit -= rate.token_ns;
        }
        (*bucket).credit_ns = credit;
        is_taken.then_some(credit >= rate.eager_ns)
    }
}
