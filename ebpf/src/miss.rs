//! Packets that the agent must decide: the whole packet goes up, under the port's token bucket.

use crate::SHOT;
use crate::count;
use crate::maps::{self, MISS_BUCKETS, MISSES};
use crate::packet::Packet;
use aya_ebpf::bindings::BPF_F_CURRENT_CPU;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_perf_event_output};
use weft_common::event::{MissHeader, MissReason};
use weft_common::key::VLAN_PRESENT;
use weft_common::limits::{MISS_BURST, MISS_BYTES_MAX, MISS_RATE_PER_SEC};
use weft_common::{DropReason, PortRecord};

const TOKEN_NS: u64 = 1_000_000_000 / MISS_RATE_PER_SEC;
const BURST_NS: u64 = MISS_BURST * TOKEN_NS;

/// Sends the packet up and ends it here: the agent holds it and brings it back by the inject TAP.
#[inline(never)]
pub fn send(packet: &Packet, record: &PortRecord, reason: MissReason) -> i32 {
    let port = u32::from(packet.key.head.port);
    if !take_token(port) {
        return count::dropped(port, DropReason::MissRate);
    }
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
    // SAFETY: context and map are valid; header is initialised memory of the given size; the upper half of
    // the flags asks for at most `length` bytes of the packet.
    let result = unsafe {
        bpf_perf_event_output(
            packet.context(),
            core::ptr::addr_of!(MISSES).cast_mut().cast(),
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

/// Takes one token. Two CPUs may take the same one: the bucket bounds, it doesn't count.
#[inline(always)]
fn take_token(port: u32) -> bool {
    let Some(bucket) = MISS_BUCKETS.get_ptr_mut(port) else {
        return false;
    };
    // SAFETY: a checked pointer; the helper takes nothing.
    unsafe {
        let now = bpf_ktime_get_ns();
        let mut credit = (*bucket)
            .credit_ns
            .saturating_add(now.saturating_sub((*bucket).filled_ns));
        if credit > BURST_NS {
            credit = BURST_NS;
        }
        (*bucket).filled_ns = now;
        let taken = credit >= TOKEN_NS;
        (*bucket).credit_ns = if taken { credit - TOKEN_NS } else { credit };
        taken
    }
}

/// A guard of a flow failed: the packet goes up with that reason.
#[inline(always)]
pub fn guard(packet: &Packet, reason: MissReason) -> i32 {
    match maps::port(u32::from(packet.key.head.port)) {
        Some(record) => send(packet, record, reason),
        None => count::dropped(0, DropReason::PortDown),
    }
}
