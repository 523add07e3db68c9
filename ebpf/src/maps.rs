//! Every map of the object. The agent pins each under its name; sizes that depend on the number of CPUs are
//! set by the agent at load time.

use crate::acl::{Table, Work as AclWork};
use crate::connections::Work as ConnectionWork;
use crate::packet::Scratch;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::ArrayOfMaps;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerfEventArray};
use weft_common::acl::{SetKey, SetList};
use weft_common::connection::{ConnectionKeyV4, ConnectionKeyV6, Entry, Quota};
use weft_common::drop::COUNTERS_PER_CPU;
use weft_common::flood::FloodList;
use weft_common::fragment::{FragmentEntry, FragmentKey};
use weft_common::limits::{
    ACL_SETS_MAX, ACLS_MAX, CACHE_ENTRIES_PER_CPU, CONNECTIONS_V4_MAX, CONNECTIONS_V6_MAX,
    FLOOD_LISTS_MAX, FRAGMENTS_MAX, HALF_OPEN_V4_MAX, HALF_OPEN_V6_MAX, INTERFACES_MAX, MASKS_MAX,
    MEGAFLOWS_V4_MAX, MEGAFLOWS_V6_MAX, NEIGHBOURS_MAX, PEERS_MAX, PORTS_MAX, SELECT_BUCKETS,
    SELECT_GROUPS_MAX, SLOTS_MAX, TENANTS_MAX,
};
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};
use weft_common::peer::{AddressBytes, PEER_COPIES, PEER_VALID, PeerRecord, place};
use weft_common::port::{InterfaceRecord, PortCounters, PortRecord, TokenBucket};
use weft_common::slot::{CacheEntry, Slot, SlotRef, SlotStats};

const MMAPABLE: u32 = BPF_F_MMAPABLE;

/// Port and flood-set records by tunnel key index.
#[map(name = "ports")]
pub static PORTS: Array<PortRecord> = Array::with_max_entries(PORTS_MAX, 0);
/// Ports by interface.
#[map(name = "interfaces")]
pub static INTERFACES: Array<InterfaceRecord> = Array::with_max_entries(INTERFACES_MAX, 0);
/// Actions.
#[map(name = "slots")]
pub static SLOTS: Array<Slot> = Array::with_max_entries(SLOTS_MAX, MMAPABLE);
/// Buckets of the select groups, one group behind the other.
#[map(name = "select_groups")]
pub static SELECT_GROUPS: Array<SlotRef> =
    Array::with_max_entries(SELECT_GROUPS_MAX * SELECT_BUCKETS, MMAPABLE);
/// Use of slots, a stripe for each CPU.
#[map(name = "slot_stats")]
pub static SLOT_STATS: Array<SlotStats> = Array::with_max_entries(SLOTS_MAX, MMAPABLE);
/// Microflow cache, a stripe for each CPU.
#[map(name = "cache")]
pub static CACHE: Array<CacheEntry> = Array::with_max_entries(CACHE_ENTRIES_PER_CPU, MMAPABLE);
/// Masks of the IPv4 family.
#[map(name = "masks_v4")]
pub static MASKS_V4: Array<[u64; 4]> = Array::with_max_entries(MASKS_MAX, 0);
/// Masks of IPv6.
#[map(name = "masks_v6")]
pub static MASKS_V6: Array<[u64; 8]> = Array::with_max_entries(MASKS_MAX, 0);
/// Masked keys of the IPv4 family with the number of their mask.
#[map(name = "megaflows_v4")]
pub static MEGAFLOWS_V4: HashMap<[u64; 4], SlotRef> =
    HashMap::with_max_entries(MEGAFLOWS_V4_MAX, 0);
/// Masked keys of IPv6 with the number of their mask.
#[map(name = "megaflows_v6")]
pub static MEGAFLOWS_V6: HashMap<[u64; 8], SlotRef> =
    HashMap::with_max_entries(MEGAFLOWS_V6_MAX, 0);
/// Underlay records: see `weft_common::peer::place`.
#[map(name = "peers")]
pub static PEERS: Array<PeerRecord> = Array::with_max_entries(PEERS_MAX * PEER_COPIES, 0);
/// Versions of the underlay records.
#[map(name = "peer_versions")]
pub static PEER_VERSIONS: Array<u32> = Array::with_max_entries(PEERS_MAX, 0);
/// Published flood lists.
#[map(name = "flood_lists")]
pub static FLOOD_LISTS: Array<FloodList> = Array::with_max_entries(FLOOD_LISTS_MAX, 0);
/// Own underlay addresses.
#[map(name = "own_addresses")]
pub static OWN_ADDRESSES: HashMap<AddressBytes, u32> = HashMap::with_max_entries(64, 0);
/// Underlay addresses of the zone's other hosts; the value is the index of the underlay record.
#[map(name = "remote_hosts")]
pub static REMOTE_HOSTS: HashMap<AddressBytes, u32> = HashMap::with_max_entries(PEERS_MAX, 0);
/// Misses of ports that have few, with the whole packet: each wakes the agent.
#[map(name = "misses")]
pub static MISSES: PerfEventArray<u8> = PerfEventArray::new(0);
/// Misses of ports that have many, which the agent reads in batches.
#[map(name = "misses_batched")]
pub static MISSES_BATCHED: PerfEventArray<u8> = PerfEventArray::new(0);
/// Token buckets for misses, by port.
#[map(name = "miss_buckets")]
pub static MISS_BUCKETS: Array<TokenBucket> = Array::with_max_entries(PORTS_MAX, 0);
/// Token buckets for packets that fail a guard or that a flow hands to the agent, by port.
#[map(name = "guard_buckets")]
pub static GUARD_BUCKETS: Array<TokenBucket> = Array::with_max_entries(PORTS_MAX, 0);
/// Traffic by port, a stripe for each CPU. (A per-CPU array would take an allocation for each counter.)
#[map(name = "port_counters")]
pub static PORT_COUNTERS: Array<PortCounters> = Array::with_max_entries(PORTS_MAX, MMAPABLE);
/// Drops by port and reason, a stripe for each CPU: see `weft_common::drop::counter_index`.
#[map(name = "drop_counters")]
pub static DROP_COUNTERS: Array<u64> = Array::with_max_entries(COUNTERS_PER_CPU, MMAPABLE);

/// First fragments of packets whose later ones may still come.
#[map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
/// Compiled ACLs by number: see `weft_common::acl`. Number 0 is never used.
#[btf_map(name = "acls")]
pub static ACLS: ArrayOfMaps<Table, { ACLS_MAX as usize }> = ArrayOfMaps::new();
/// Sets of addresses, over all tenants: the sets that the addresses of a prefix are in.
#[map(name = "acl_sets")]
pub static ACL_SETS: LpmTrie<SetKey, SetList> = LpmTrie::with_max_entries(ACL_SETS_MAX, 0);
/// What the running program keeps of its lookup in an ACL.
#[map(name = "acl_work")]
pub static ACL_WORK: PerCpuArray<AclWork> = PerCpuArray::with_max_entries(1, 0);
/// Policies of ports: see `weft_common::policy`.
#[map(name = "policies")]
pub static POLICIES: Array<u64> = Array::with_max_entries(PORTS_MAX, MMAPABLE);
/// Numbers of the tenants that ports belong to; 0 for none.
#[map(name = "port_tenants")]
pub static PORT_TENANTS: Array<u32> = Array::with_max_entries(PORTS_MAX, 0);
/// Connections by tenant.
#[map(name = "quotas")]
pub static QUOTAS: Array<Quota> = Array::with_max_entries(TENANTS_MAX, MMAPABLE);
/// Connections that both sides take part in. The kernel evicts none: the agent takes out what has expired.
#[map(name = "connections_v4")]
pub static CONNECTIONS_V4: HashMap<ConnectionKeyV4, Entry> =
    HashMap::with_max_entries(CONNECTIONS_V4_MAX, 0);
/// The same over IPv6.
#[map(name = "connections_v6")]
pub static CONNECTIONS_V6: HashMap<ConnectionKeyV6, Entry> =
    HashMap::with_max_entries(CONNECTIONS_V6_MAX, 0);
/// Connections that nobody has answered yet.
#[map(name = "half_open_v4")]
pub static HALF_OPEN_V4: LruHashMap<ConnectionKeyV4, Entry> =
    LruHashMap::with_max_entries(HALF_OPEN_V4_MAX, 0);
/// The same over IPv6.
#[map(name = "half_open_v6")]
pub static HALF_OPEN_V6: LruHashMap<ConnectionKeyV6, Entry> =
    LruHashMap::with_max_entries(HALF_OPEN_V6_MAX, 0);
/// What the running program keeps of a packet's connection.
#[map(name = "connection_work")]
pub static CONNECTION_WORK: PerCpuArray<ConnectionWork> = PerCpuArray::with_max_entries(1, 0);
/// Addresses that the program answers for.
#[map(name = "neighbours")]
pub static NEIGHBOURS: HashMap<NeighbourKey, Neighbour> =
    HashMap::with_max_entries(NEIGHBOURS_MAX, 0);
/// Ports whose workloads it answers, by index.
#[map(name = "askers")]
pub static ASKERS: Array<Asker> = Array::with_max_entries(PORTS_MAX, 0);
/// What the running program keeps of its packet.
#[map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Number of the CPU that runs this program.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_smp_processor_id() }
}

/// Index of the port that is bound to an interface.
#[inline(always)]
pub fn port_of_interface(ifindex: u32) -> Option<u32> {
    let record = INTERFACES.get(ifindex % INTERFACES_MAX)?;
    (record.ifindex == ifindex).then_some(record.port)
}

/// The record with this index.
#[inline(always)]
pub fn port(index: u32) -> Option<&'static PortRecord> {
    PORTS.get(index)
}

/// The policy of a port, as `Policy::pack` makes it; 0 for none.
#[inline(always)]
pub fn policy(port: u32) -> u64 {
    match POLICIES.get_ptr(port) {
        // SAFETY: a checked pointer; eight bytes, read at once.
        Some(word) => {
            let word = unsafe { word.read_volatile() };
            // Its epoch goes on where there are no chains.
            if word as u32 == 0 { 0 } else { word }
        }
        None => 0,
    }
}

/// The underlay record of a remote host that can be reached.
#[inline(always)]
pub fn peer(index: u32) -> Option<&'static PeerRecord> {
    let version = PEER_VERSIONS.get_ptr(index)?;
    // SAFETY: the pointer was checked; four bytes, read at once, before what they name.
    let version = unsafe { version.read_volatile() };
    let record = PEERS.get_ptr(place(index, version))?;
    // SAFETY: the pointer was checked.
    if unsafe { (*record).flags } & PEER_VALID == 0 {
        return None;
    }
    let valid: *const PeerRecord;
    // Without this LLVM makes the condition an AND on the pointer, which the verifier refuses.
    // SAFETY: adds nothing.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) record => valid) };
    // SAFETY: the pointer was checked, and a record that holds isn't written.
    Some(unsafe { &*valid })
}

/// The slot that a reference names, if it still holds that decision.
#[inline(always)]
pub fn slot(target: SlotRef) -> Option<&'static Slot> {
    let slot = SLOTS.get(target.slot)?;
    (slot.generation == target.generation).then_some(slot)
}

/// The slot in a bucket of a select group, with its reference; none where nothing was written, or the slot has
/// another decision by now.
#[inline(always)]
pub fn selected(group: u32, bucket: u8) -> Option<(&'static Slot, SlotRef)> {
    let index = group
        .wrapping_mul(SELECT_BUCKETS)
        .wrapping_add(bucket.into());
    let target = *SELECT_GROUPS.get(index)?;
    if target.slot == 0 {
        return None;
    }
    Some((slot(target)?, target))
}
