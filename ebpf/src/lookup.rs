//! Which slot a packet goes to: first the microflow cache of this CPU, then the megaflows under the masks of
//! the packet's port. A megaflow that is found fills the cache.

use crate::maps::{self, CACHE, MASKS_V4, MASKS_V6, MEGAFLOWS_V4, MEGAFLOWS_V6};
use crate::packet::Packet;
use weft_common::limits::{CACHE_ENTRIES_PER_CPU, MASKS_MAX};
use weft_common::slot::{CacheEntry, Slot, SlotRef};
use weft_common::{FlowKey, Network, PortRecord};

const NO_SLOT: SlotRef = SlotRef {
    slot: 0,
    generation: 0,
};
/// Where the mask's number lies in the first word of a masked key (`FlowHead::mask_id`).
const MASK_ID_SHIFT: u32 = 24;

/// The slot for this packet and the reference that led to it.
#[inline(always)]
pub fn find(packet: &Packet, port: &PortRecord) -> Option<(&'static Slot, SlotRef)> {
    let words = words(packet.key);
    let is_v6 = packet.key.head.network() as u8 == Network::Ipv6 as u8;
    let entry = CACHE.get_ptr_mut(maps::cpu() * CACHE_ENTRIES_PER_CPU + hash(words, is_v6))?;
    // SAFETY: a checked pointer into the stripe of this CPU.
    let entry = unsafe { &mut *entry };
    if holds(entry, words, is_v6) && entry.epoch == port.epoch {
        let target = entry.target;
        if let Some(slot) = maps::slot(target) {
            return Some((slot, target));
        }
    }
    let target = megaflow(words, port, is_v6);
    if target.slot == 0 {
        return None;
    }
    let slot = maps::slot(target)?;
    entry.key = *words;
    entry.target = target;
    entry.epoch = port.epoch;
    Some((slot, target))
}

/// A function of its own: the masked key needs stack.
#[inline(never)]
fn megaflow(words: &[u64; 8], port: &PortRecord, is_v6: bool) -> SlotRef {
    if is_v6 {
        megaflow_v6(words, port.masks_v6)
    } else {
        megaflow_v4(words, port.masks_v4)
    }
}

#[inline(always)]
fn words(key: &FlowKey) -> &[u64; 8] {
    // SAFETY: a FlowKey is 64 bytes without padding, aligned to 8.
    unsafe { &*core::ptr::from_ref(key).cast() }
}

#[inline(always)]
fn hash(words: &[u64; 8], is_v6: bool) -> u32 {
    let mut mixed = words[0].wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ words[1]).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 29) ^ words[2]).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed = (mixed ^ words[3]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    if is_v6 {
        mixed = (mixed ^ (mixed >> 29) ^ words[4]).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ words[5] ^ words[6].rotate_left(32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    ((mixed ^ (mixed >> 32)) as u32) & (CACHE_ENTRIES_PER_CPU - 1)
}

#[inline(always)]
fn holds(entry: &CacheEntry, words: &[u64; 8], is_v6: bool) -> bool {
    let first = entry.key[0] == words[0]
        && entry.key[1] == words[1]
        && entry.key[2] == words[2]
        && entry.key[3] == words[3];
    first
        && (!is_v6
            || (entry.key[4] == words[4]
                && entry.key[5] == words[5]
                && entry.key[6] == words[6]
                && entry.key[7] == words[7]))
}

/// Tries the port's masks in order of their number; slot 0, which nothing uses, for none. (An `Option` would leave
/// its value undefined, and what LLVM makes of that the verifier has refused: a read of an unset register.)
#[inline(always)]
fn megaflow_v4(words: &[u64; 8], mut masks: u64) -> SlotRef {
    for _ in 0..MASKS_MAX {
        if masks == 0 {
            break;
        }
        let number = masks.trailing_zeros();
        masks &= masks - 1;
        let Some(mask) = MASKS_V4.get(number) else {
            break;
        };
        let key = [
            (words[0] & mask[0]) | u64::from(number) << MASK_ID_SHIFT,
            words[1] & mask[1],
            words[2] & mask[2],
            words[3] & mask[3],
        ];
        // SAFETY: a value that is replaced while it is read is 8 bytes, read at once; a stale reference is
        // found by its generation.
        if let Some(target) = unsafe { MEGAFLOWS_V4.get(&key) } {
            return *target;
        }
    }
    NO_SLOT
}

#[inline(always)]
fn megaflow_v6(words: &[u64; 8], mut masks: u64) -> SlotRef {
    for _ in 0..MASKS_MAX {
        if masks == 0 {
            break;
        }
        let number = masks.trailing_zeros();
        masks &= masks - 1;
        let Some(mask) = MASKS_V6.get(number) else {
            break;
        };
        let key = [
            (words[0] & mask[0]) | u64::from(number) << MASK_ID_SHIFT,
            words[1] & mask[1],
            words[2] & mask[2],
            words[3] & mask[3],
            words[4] & mask[4],
            words[5] & mask[5],
            words[6] & mask[6],
            0,
        ];
        // SAFETY: as above.
        if let Some(target) = unsafe { MEGAFLOWS_V6.get(&key) } {
            return *target;
        }
    }
    NO_SLOT
}
