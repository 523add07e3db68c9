//! Slots, their use and all counters, mapped into memory: read and written without syscalls.

use crate::{Buckets, Error, SlotUse};
use aya::maps::{Map, MapData};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use weft_common::connection::Quota;
use weft_common::drop::{COUNTERS_PER_CPU, DropReason, counter_index};
use weft_common::limits::{PORTS_MAX, SELECT_BUCKETS, SELECT_GROUPS_MAX, SLOTS_MAX};
use weft_common::policy::Policy;
use weft_common::port::PortCounters;
use weft_common::slot::CacheEntry;
use weft_common::{Slot, SlotRef, SlotStats};

/// A mapped array of `T`.
struct Mapped<T> {
    start: NonNull<T>,
    length: usize,
    /// Keeps the map alive.
    _map: MapData,
}

// SAFETY: the memory belongs to the map, which any thread may touch; all access is volatile or atomic.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    fn open(map: Map, name: &'static str) -> Result<Mapped<T>, Error> {
        let Map::Array(map) = map else {
            return Err(Error::Map {
                map: name,
                detail: "isn't an array".to_owned(),
            });
        };
        let length = map
            .info()
            .map_err(|error| Error::map(name, &error))?
            .max_entries() as usize;
        let bytes = NonZeroUsize::new(length * size_of::<T>()).ok_or_else(|| Error::Map {
            map: name,
            detail: "is empty".to_owned(),
        })?;
        // SAFETY: a fresh shared mapping of the map's own memory.
        let start = unsafe {
            nix::sys::mman::mmap(
                None,
                bytes,
                nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
                nix::sys::mman::MapFlags::MAP_SHARED,
                map.fd().as_fd(),
                0,
            )
        };
        let start =
            start.map_err(|source| Error::io(format!("mapping {name} into memory"), source))?;
        Ok(Mapped {
            start: start.cast(),
            length,
            _map: map,
        })
    }

    fn at(&self, index: usize) -> Option<*mut T> {
        // SAFETY: the index is inside the mapping.
        (index < self.length).then(|| unsafe { self.start.as_ptr().add(index) })
    }

    fn read(&self, index: usize) -> Option<T> {
        // SAFETY: a checked pointer into the mapping; any bit pattern is a value of these types.
        self.at(index).map(|at| unsafe { at.read_volatile() })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, with its length, used by nobody any more.
        let _ = unsafe { nix::sys::mman::munmap(self.start.cast(), self.length * size_of::<T>()) };
    }
}

/// The slot array, the use of each slot on each CPU, and what refers to slots: select groups and microflow caches.
pub struct SlotArrays {
    slots: Mapped<Slot>,
    groups: Mapped<SlotRef>,
    cache: Mapped<CacheEntry>,
    stats: Mapped<SlotStats>,
}

impl SlotArrays {
    /// Maps all of them.
    pub fn open(slots: Map, groups: Map, stats: Map, cache: Map) -> Result<SlotArrays, Error> {
        Ok(SlotArrays {
            slots: Mapped::open(slots, "slots")?,
            groups: Mapped::open(groups, "select_groups")?,
            cache: Mapped::open(cache, "cache")?,
            stats: Mapped::open(stats, "slot_stats")?,
        })
    }

    /// Writes a slot. Its generation is written last: until then readers refuse it.
    pub fn write(&mut self, index: u32, slot: &Slot) -> Result<(), Error> {
        let at = self.slots.at(index as usize);
        let at = at.ok_or(Error::Full {
            what: "slots",
            limit: u64::from(SLOTS_MAX),
        })?;
        // SAFETY: a checked pointer; the generation is the record's first field, aligned, only written here.
        unsafe {
            let generation = &*at.cast::<AtomicU32>();
            generation.store(0, Ordering::Release);
            fence(Ordering::SeqCst);
            at.write_volatile(Slot {
                generation: 0,
                ..*slot
            });
            generation.store(slot.generation, Ordering::Release);
        }
        Ok(())
    }

    /// Takes the decision out of a slot. The record stays until its next use, for those who have just found it.
    pub fn retire(&mut self, index: u32) {
        if let Some(at) = self.slots.at(index as usize) {
            // SAFETY: a checked pointer; the generation is the record's first field, aligned.
            unsafe { (*at.cast::<AtomicU32>()).store(0, Ordering::Release) };
        }
    }

    /// Writes the buckets of a select group, each at once.
    pub fn write_group(&mut self, index: u32, buckets: &Buckets) -> Result<(), Error> {
        let first = index as usize * buckets.len();
        for (place, target) in (first..).zip(buckets) {
            let at = self.groups.at(place).ok_or(Error::Full {
                what: "select groups",
                limit: u64::from(SELECT_GROUPS_MAX),
            })?;
            // SAFETY: a checked pointer; a reference is 8 bytes, aligned, and only written here.
            unsafe {
                (*at.cast::<AtomicU64>()).store(zerocopy::transmute!(*target), Ordering::Release)
            };
        }
        Ok(())
    }

    /// The buckets of a select group.
    pub fn read_group(&self, index: u32) -> Option<Buckets> {
        let mut buckets = [SlotRef::default(); SELECT_BUCKETS as usize];
        let first = index as usize * buckets.len();
        for (place, target) in (first..).zip(&mut buckets) {
            *target = self.groups.read(place)?;
        }
        Some(buckets)
    }

    /// Takes the decision out of every slot but these: what caches still say of them is refused.
    pub fn keep(&mut self, kept: &HashSet<u32>) {
        for index in (0..self.slots.length).filter(|index| !kept.contains(&(*index as u32))) {
            if let Some(at) = self.slots.at(index) {
                // SAFETY: a checked pointer; the generation is the record's first field, aligned.
                unsafe { (*at.cast::<AtomicU32>()).store(0, Ordering::Release) };
            }
        }
    }

    /// A slot.
    pub fn read(&self, index: u32) -> Option<Slot> {
        self.slots.read(index as usize)
    }

    /// Highest generation in any slot, and in any cached reference to one.
    pub fn generation_max(&self) -> u32 {
        let slots = (0..self.slots.length).filter_map(|index| self.slots.read(index));
        let cached = (0..self.cache.length).filter_map(|index| self.cache.read(index));
        let generations = slots.map(|slot| slot.generation);
        let cached = cached.map(|entry| entry.target.generation);
        generations.chain(cached).max().unwrap_or(0)
    }

    /// Use of a slot over all CPUs.
    pub fn use_of(&self, index: u32) -> SlotUse {
        let stripes = (index as usize..self.stats.length).step_by(SLOTS_MAX as usize);
        let mut total = SlotUse::default();
        for stats in stripes.filter_map(|index| self.stats.read(index)) {
            total.packets += stats.packets;
            total.bytes += stats.bytes;
            total.last_used = total.last_used.max(stats.last_used_jiffies);
        }
        total
    }

    /// Sets the use of a slot to zero.
    pub fn clear_use(&mut self, index: u32) {
        for index in (index as usize..self.stats.length).step_by(SLOTS_MAX as usize) {
            if let Some(at) = self.stats.at(index) {
                // SAFETY: a checked pointer; a CPU that counts at the same time may lose one packet's count.
                unsafe { at.write_volatile(SlotStats::default()) };
            }
        }
    }
}

/// Traffic and drops by port, on each CPU.
pub struct Counters {
    ports: Mapped<PortCounters>,
    drops: Mapped<u64>,
}

impl Counters {
    /// Maps both.
    pub fn open(ports: Map, drops: Map) -> Result<Counters, Error> {
        Ok(Counters {
            ports: Mapped::open(ports, "port_counters")?,
            drops: Mapped::open(drops, "drop_counters")?,
        })
    }

    /// Traffic of a port over all CPUs.
    pub fn traffic(&self, port: u16) -> PortCounters {
        let stripes = (usize::from(port)..self.ports.length).step_by(PORTS_MAX as usize);
        let mut total = PortCounters::default();
        for counters in stripes.filter_map(|index| self.ports.read(index)) {
            total.ingress_packets += counters.ingress_packets;
            total.ingress_bytes += counters.ingress_bytes;
            total.egress_packets += counters.egress_packets;
            total.egress_bytes += counters.egress_bytes;
        }
        total
    }

    /// Drops of a port over all CPUs, those that aren't zero.
    pub fn drops(&self, port: u16) -> Vec<(DropReason, u64)> {
        let of = |reason: DropReason| {
            let first = counter_index(0, u32::from(port), reason as u8) as usize;
            let stripes = (first..self.drops.length).step_by(COUNTERS_PER_CPU as usize);
            (
                reason,
                stripes.filter_map(|index| self.drops.read(index)).sum(),
            )
        };
        DropReason::ALL
            .iter()
            .map(|reason| of(*reason))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Policies of ports, and connections by tenant.
pub struct Policies {
    words: Mapped<u64>,
    quotas: Mapped<Quota>,
}

impl Policies {
    /// Maps both.
    pub fn open(words: Map, quotas: Map) -> Result<Policies, Error> {
        Ok(Policies {
            words: Mapped::open(words, "policies")?,
            quotas: Mapped::open(quotas, "quotas")?,
        })
    }

    /// A port's policy.
    pub fn policy(&self, port: u16) -> Policy {
        Policy::unpack(self.words.read(port.into()).unwrap_or(0))
    }

    /// Gives a port another policy, at once.
    pub fn write_policy(&mut self, port: u16, policy: Policy) {
        if let Some(at) = self.words.at(port.into()) {
            // SAFETY: a checked pointer to eight aligned bytes.
            unsafe { &*at.cast::<AtomicU64>() }.store(policy.pack(), Ordering::Release);
        }
    }

    /// Connections of a tenant.
    pub fn quota(&self, tenant: u16) -> Quota {
        self.quotas.read(tenant.into()).unwrap_or_default()
    }

    /// Where the kernel is to stop opening connections for a tenant.
    pub fn write_limit(&mut self, tenant: u16, limit: u64) {
        if let Some(at) = self.quotas.at(tenant.into()) {
            // SAFETY: a checked pointer to a record whose second field nobody else writes.
            unsafe { (&raw mut (*at).limit).write_volatile(limit) };
        }
    }
}
