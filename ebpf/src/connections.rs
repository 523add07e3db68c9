//! Tables of connections: finding, making, promoting, and the slot that an entry keeps for its workload's packets.
//!
//! | tables | kind | who |
//! |---|---|---|
//! | `half_open_v4`, `half_open_v6` | LRU | from the first packet until both sides take part: a flood displaces these only |
//! | `connections_v4`, `connections_v6` | plain, preallocated | from then on, counted against the tenant's quota (`quotas`) |
//!
//! An element may be given to another connection while it is read or written here. What decides on a packet is read with
//! that in mind ([`cached`]); counters and times may get a stranger's packet in such a moment.

use crate::maps::{
    CONNECTION_WORK, CONNECTIONS_V4, CONNECTIONS_V6, HALF_OPEN_V4, HALF_OPEN_V6, PORT_TENANTS,
    QUOTAS,
};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use weft_common::connection::{
    Connection, ConnectionKeyV4, ConnectionKeyV6, Entry, KeyTail, Phase, SEEN_SHIFT, Segment,
    timeout_units,
};
use weft_common::slot::SlotRef;
use weft_common::{DropReason, FlowKey};

/// `E2BIG`, which the kernel answers when a map is full.
const FULL: i32 = -7;
/// Words of a key of IPv6, and where that of IPv4 begins in it.
const KEY_WORDS: usize = size_of::<ConnectionKeyV6>() / 8;
const KEY_WORD_V4: usize = KEY_WORDS - size_of::<ConnectionKeyV4>() / 8;

/// What a run keeps of its packet's connection. In a map: it is too large for the stack, and the verifier is to know
/// nothing of it.
#[repr(C)]
pub struct Work {
    /// Key of the packet's connection; of IPv4 the last 16 bytes, behind zeros.
    pub key: ConnectionKeyV6,
    /// What is inserted.
    fresh: Entry,
    /// Where the slot is that `policy::ingress` found.
    pub target: SlotRef,
    /// Why the packet is dropped, or 0.
    pub drop: u32,
    /// The drop is a reject: the sender is to hear of it.
    pub is_reject: u32,
    /// State of the packet where there is no entry: a `weft_common::acl::State`.
    pub state: u32,
    /// Whether the packet's kind is tracked at all.
    pub is_tracked: u32,
    /// The key is one of IPv6.
    pub is_v6: u32,
    /// What the packet says as TCP.
    pub segment: Segment,
    spare: u16,
    /// Now, as `Connection::seen`.
    pub now: u32,
    /// The packet was taken into its connection's state, or refused: there is nothing to be asked.
    pub is_done: u32,
    /// Flags of the ACL that judges what is established.
    pub acl_flags: u32,
    /// Rule that admitted the connection's first packet just now.
    pub rule: u32,
    /// The connection was there before this packet.
    pub is_known: u32,
    /// As in `Connection::opened`.
    pub opened: u32,
    /// `Hook` by which the first packet came.
    pub opener: u32,
}

/// This CPU's own.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let work = CONNECTION_WORK.get_ptr_mut(0)?;
    // SAFETY: a checked pointer; programs run one after the other on a CPU.
    Some(unsafe { &mut *work })
}

/// Now, as `Connection::seen`.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { (bpf_ktime_get_coarse_ns() >> SEEN_SHIFT) as u32 }
}

impl Work {
    #[inline(always)]
    fn key_v4(&self) -> &ConnectionKeyV4 {
        // SAFETY: the last two of the key's words, which have no padding.
        unsafe {
            &*core::ptr::from_ref(&self.key)
                .cast::<u64>()
                .add(KEY_WORD_V4)
                .cast()
        }
    }

    /// Writes the key. `addresses`: the sender's two words, then the receiver's; of IPv4 both are in the first word.
    #[inline(always)]
    pub fn set_key(&mut self, addresses: [u64; 4], is_from_local: bool, tail: KeyTail) {
        let [s0, s1, d0, d1] = addresses;
        let words: *mut u64 = core::ptr::from_mut(&mut self.key).cast();
        // SAFETY: the key is five words without padding.
        unsafe {
            if self.is_v6 == 0 {
                words.write(0);
                words.add(1).write(0);
                words.add(2).write(0);
                words.add(3).write(if is_from_local {
                    s0
                } else {
                    s0.rotate_left(32)
                });
            } else if is_from_local {
                words.write(s0);
                words.add(1).write(s1);
                words.add(2).write(d0);
                words.add(3).write(d1);
            } else {
                words.write(d0);
                words.add(1).write(d1);
                words.add(2).write(s0);
                words.add(3).write(s1);
            }
        }
        self.key.tail = tail;
    }
}

/// The entry of the key in `work`: of the established ones, else of the half-open ones.
#[inline(always)]
pub fn find(work: &Work) -> Option<*mut Entry> {
    if work.is_v6 == 0 {
        match CONNECTIONS_V4.get_ptr_mut(work.key_v4()) {
            Some(entry) => Some(entry),
            None => HALF_OPEN_V4.get_ptr_mut(work.key_v4()),
        }
    } else {
        match CONNECTIONS_V6.get_ptr_mut(&work.key) {
            Some(entry) => Some(entry),
            None => HALF_OPEN_V6.get_ptr_mut(&work.key),
        }
    }
}

/// Whether the last packet was too long ago.
#[inline(always)]
pub fn is_expired(connection: &Connection, protocol: u8, now: u32) -> bool {
    let idle = now.wrapping_sub(connection.seen) as i32;
    // Another CPU may have written a later time.
    idle > 0 && idle as u32 > timeout_units(protocol, connection.phase, connection.flags)
}

/// Whether the element is still that of the key in `work`.
#[inline(always)]
fn is_same(entry: *const Entry, work: &Work) -> bool {
    // SAFETY: a checked pointer to an entry, whose key is five words; read one by one, as another CPU may write them.
    unsafe {
        let found: *const u64 = core::ptr::addr_of!((*entry).key).cast();
        let wanted: *const u64 = core::ptr::from_ref(&work.key).cast();
        found.add(3).read_volatile() == *wanted.add(3)
            && found.add(4).read_volatile() == *wanted.add(4)
            && (work.is_v6 == 0
                || (found.read_volatile() == *wanted
                    && found.add(1).read_volatile() == *wanted.add(1)
                    && found.add(2).read_volatile() == *wanted.add(2)))
    }
}

/// A packet came and was refused: the connection stays known for as long as any do.
#[inline(never)]
pub fn touch(work: &Work) -> u32 {
    if let Some(entry) = find(work) {
        // SAFETY: a checked pointer into a table; four bytes, written at once.
        unsafe { core::ptr::addr_of_mut!((*entry).connection.seen).write_volatile(work.now) };
    }
    0
}

/// Takes the connection out of both tables.
#[inline(never)]
pub fn forget(work: &Work) -> u32 {
    if work.is_v6 == 0 {
        let _ = CONNECTIONS_V4.remove(work.key_v4());
        let _ = HALF_OPEN_V4.remove(work.key_v4());
    } else {
        let _ = CONNECTIONS_V6.remove(&work.key);
        let _ = HALF_OPEN_V6.remove(&work.key);
    }
    0
}

/// Makes the half-open entry of a connection whose first packet was admitted under `epoch`. False when the
/// kernel has no room.
#[inline(never)]
pub fn open(work: &mut Work, opener: u32, epoch: u32, bytes: u32) -> bool {
    let connection = &mut work.fresh.connection;
    *connection = Connection::default();
    connection.seen = work.now;
    connection.opened = epoch;
    connection.phase = Phase::Opening as u8;
    connection.flags = opener as u8 & 1;
    connection.rule = work.rule as u16;
    let [ingress, egress] = &mut connection.traffic;
    let traffic = if opener == 0 { ingress } else { egress };
    traffic.packets = 1;
    traffic.bytes = u64::from(bytes);
    work.fresh.key = work.key;
    let flags = u64::from(BPF_ANY);
    let result = if work.is_v6 == 0 {
        HALF_OPEN_V4.insert(work.key_v4(), &work.fresh, flags)
    } else {
        HALF_OPEN_V6.insert(&work.key, &work.fresh, flags)
    };
    result.is_ok()
}

/// Moves a half-open connection, whose next phase and flags are given, to the established ones, if its tenant may have
/// one more. The reason why not, or 0.
#[inline(never)]
pub fn promote(work: &mut Work, entry: &Entry, phase: u32, flags: u32) -> u32 {
    let port = u32::from(work.key.tail.port);
    let tenant = PORT_TENANTS.get(port).copied().unwrap_or(0);
    let quota = if tenant == 0 {
        None
    } else {
        QUOTAS.get_ptr_mut(tenant)
    };
    if let Some(quota) = quota {
        // SAFETY: a checked pointer; the agent and other CPUs write it as a whole.
        let is_full = unsafe {
            let opened = core::ptr::addr_of!((*quota).opened).read_volatile();
            opened >= core::ptr::addr_of!((*quota).limit).read_volatile()
        };
        if is_full {
            return DropReason::ConnectionQuota as u32;
        }
    }
    work.fresh.connection = entry.connection;
    work.fresh.key = work.key;
    let fresh = &mut work.fresh.connection;
    fresh.target = SlotRef::default();
    fresh.phase = phase as u8;
    fresh.flags = flags as u8;
    let no_other = u64::from(BPF_NOEXIST);
    let result = if work.is_v6 == 0 {
        CONNECTIONS_V4.insert(work.key_v4(), &work.fresh, no_other)
    } else {
        CONNECTIONS_V6.insert(&work.key, &work.fresh, no_other)
    };
    if let Err(error) = result {
        // Another CPU was faster, or there is no room.
        return if error == FULL {
            DropReason::ConnectionTableFull as u32
        } else {
            0
        };
    }
    if let Some(quota) = quota {
        // SAFETY: a checked pointer; the addition is atomic.
        unsafe {
            core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) quota, in(reg) 1_u64);
        }
    }
    if work.is_v6 == 0 {
        let _ = HALF_OPEN_V4.remove(work.key_v4());
    } else {
        let _ = HALF_OPEN_V6.remove(&work.key);
    }
    0
}

/// The slot that the entry keeps for packets exactly like this one; slot 0 for none.
#[inline(always)]
pub fn cached(entry: *const Entry, work: &Work, key: &FlowKey) -> SlotRef {
    // SAFETY: a checked pointer; the reference is 8 bytes, read at once, before and behind what it belongs to.
    unsafe {
        let target: *const u64 = core::ptr::addr_of!((*entry).connection.target).cast();
        let first = target.read_volatile();
        let found: *const u64 = core::ptr::addr_of!((*entry).connection.head).cast();
        let wanted: *const u64 = core::ptr::from_ref(&key.head).cast();
        let is_alike = found.read_volatile() == *wanted
            && found.add(1).read_volatile() == *wanted.add(1)
            && found.add(2).read_volatile() == *wanted.add(2);
        if first as u32 != 0 && is_alike && is_same(entry, work) && target.read_volatile() == first
        {
            return core::mem::transmute::<u64, SlotRef>(first);
        }
    }
    SlotRef {
        slot: 0,
        generation: 0,
    }
}

/// Keeps the slot in `work` for packets like this one.
#[inline(never)]
pub fn keep(work: &Work, key: &FlowKey) -> u32 {
    let Some(entry) = find(work) else {
        return 0;
    };
    // SAFETY: as in `cached`; without a slot nobody believes the head.
    unsafe {
        let target: *mut u64 = core::ptr::addr_of_mut!((*entry).connection.target).cast();
        target.write_volatile(0);
        let head: *mut u64 = core::ptr::addr_of_mut!((*entry).connection.head).cast();
        let words: *const u64 = core::ptr::from_ref(&key.head).cast();
        head.write_volatile(*words);
        head.add(1).write_volatile(*words.add(1));
        head.add(2).write_volatile(*words.add(2));
        target.write_volatile(core::mem::transmute::<SlotRef, u64>(work.target));
    }
    0
}

/// Counts a packet that passed `hook` and notes the time.
#[inline(always)]
pub fn count(connection: &mut Connection, hook: u32, now: u32, bytes: u32) {
    if connection.seen != now {
        connection.seen = now;
    }
    let [ingress, egress] = &mut connection.traffic;
    let traffic = if hook == 0 { ingress } else { egress };
    traffic.packets += 1;
    traffic.bytes += u64::from(bytes);
}
