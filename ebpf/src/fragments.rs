//! Later fragments get the ports of the first one, so that every stage after this works for them unchanged.
//!
//! Table: `fragments`, LRU, filled by first fragments of ports. A later fragment that came too early, or whose first
//! one was too long ago, keeps zeros.

use crate::maps::FRAGMENTS;
use crate::packet::Packet;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use weft_common::fragment::{FragmentEntry, FragmentKey, FragmentPorts};
use weft_common::key::{CLASS_FRAGMENT, Fragment};
use weft_common::limits::FRAGMENT_TIMEOUT_SECS;

const TIMEOUT_NS: u64 = FRAGMENT_TIMEOUT_SECS * 1_000_000_000;

/// Notes a first fragment, completes a later one's key. Nothing for whole packets.
#[inline(always)]
pub fn track(packet: &mut Packet) {
    if packet.key.head.class & CLASS_FRAGMENT != 0 {
        track_fragment(packet);
    }
}

#[inline(never)]
fn track_fragment(packet: &mut Packet) {
    let name = FragmentKey::of(packet.key, packet.headers.fragment_id);
    // SAFETY: the helper takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    if packet.key.head.fragment() as u8 == Fragment::First as u8 {
        let entry = FragmentEntry {
            ports: FragmentPorts::of(&packet.key.head, name.check()),
            seen_ns: now,
        };
        // A failure leaves the later ones without ports, as if they had come first.
        let _ = FRAGMENTS.insert(&name, &entry, 0);
        return;
    }
    // SAFETY: its memory may be given to another packet while it is read: see below.
    let Some(entry) = (unsafe { FRAGMENTS.get(&name) }) else {
        return;
    };
    // SAFETY: 8 bytes, aligned to 8, read at once: ports and check are of one packet.
    let ports: FragmentPorts = unsafe {
        let word = core::ptr::from_ref(&entry.ports).cast::<u64>();
        core::mem::transmute(word.read_volatile())
    };
    if ports.check == name.check() && now.wrapping_sub(entry.seen_ns) < TIMEOUT_NS {
        *packet.fragment = ports;
        ports.complete(&mut packet.key.head);
    }
}
