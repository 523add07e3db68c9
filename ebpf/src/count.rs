//! Counters per port, slot and drop reason. Each CPU writes only its own.

use crate::SHOT;
use crate::maps::{DROP_COUNTERS, PORT_COUNTERS, SLOT_STATS, cpu};
use aya_ebpf::helpers::bpf_jiffies64;
use weft_common::DropReason;
use weft_common::drop::counter_index;
use weft_common::limits::{PORTS_MAX, SLOTS_MAX};

/// Counts a drop at a port (0: none) and ends the packet.
#[inline(always)]
pub fn dropped(port: u32, reason: DropReason) -> i32 {
    dropped_number(port, reason as u8)
}

/// Counts a drop whose reason stands in a slot.
#[inline(never)]
pub fn dropped_number(port: u32, reason: u8) -> i32 {
    if let Some(counter) = DROP_COUNTERS.get_ptr_mut(counter_index(cpu(), port, reason)) {
        // SAFETY: a checked pointer into this CPU's values.
        unsafe { *counter += 1 };
    }
    SHOT
}

/// Counts a frame from a workload.
#[inline(always)]
pub fn ingress(port: u32, bytes: u32) {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(cpu() * PORTS_MAX + port) {
        // SAFETY: a checked pointer into this CPU's values.
        unsafe {
            (*counters).ingress_packets += 1;
            (*counters).ingress_bytes += u64::from(bytes);
        }
    }
}

/// Counts a frame to a workload.
#[inline(always)]
pub fn egress(port: u32, bytes: u32) {
    if let Some(counters) = PORT_COUNTERS.get_ptr_mut(cpu() * PORTS_MAX + port) {
        // SAFETY: a checked pointer into this CPU's values.
        unsafe {
            (*counters).egress_packets += 1;
            (*counters).egress_bytes += u64::from(bytes);
        }
    }
}

/// Counts a packet of a slot and notes the time, which is written only when it changed.
#[inline(always)]
pub fn used(slot: u32, bytes: u32) {
    if let Some(stats) = SLOT_STATS.get_ptr_mut(cpu() * SLOTS_MAX + slot) {
        // SAFETY: a checked pointer into the stripe of this CPU; the helper takes nothing.
        unsafe {
            (*stats).packets += 1;
            (*stats).bytes += u64::from(bytes);
            let now = bpf_jiffies64();
            if (*stats).last_used_jiffies != now {
                (*stats).last_used_jiffies = now;
            }
        }
    }
}
