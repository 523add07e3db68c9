//! What a port's compiled chains decide of a packet.
//!
//! An ACL is an inner map of `acls` (layout: `weft_common::acl`). The lookup takes the vector of the packet's class in
//! each field and address, and goes through the rules that are in all of them, block by block, up to the first that
//! ends it. All loops are `bpf_loop` callbacks that the verifier walks through once, and what they change is in this
//! CPU's [`Work`], not on the stack: the verifier of Linux 6.1 takes what it saw in the first turn for all turns.

use crate::maps::{ACL_SETS, ACL_WORK, ACLS};
use crate::packet::Packet;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::maps::lpm_trie::Key;
use core::ffi::c_void;
use weft_common::acl::{
    ACCEPT, Cell, FIELDS, HEAD, Head, Keys, NO_ADDRESS, NO_RULE, PREFIX_CELLS, SET_KEY_HEAD_BITS,
    SIDE_CELLS, SIDES, STEP, SetKey, SetList, UNBOUNDED,
};
use weft_common::frame::ETHERNET_LEN;
use weft_common::key::{FlowKey, Fragment};
use weft_common::limits::{GROUPS_PER_ADDRESS_MAX, POLICY_BLOCKS_MAX, POLICY_HOPS_MAX};

/// Flags of an inner map: its length is its own (Linux 5.10).
const INNER_FLAGS: usize = aya_ebpf::bindings::BPF_F_INNER_MAP as usize;
/// The map of one ACL; the length is the template's.
pub type Table = Array<Cell, 1, INNER_FLAGS>;

/// `bpf_loop` goes on.
const CONTINUE: i64 = 0;
/// `bpf_loop` ends.
const BREAK: i64 = 1;
/// Turns of a binary search: entries of one kind are less than two to this.
const SEARCH_TURNS: u32 = 24;
/// Prefixes around each other, at most: one a length.
const WIDER_MAX: u32 = 129;
/// Room for vectors of fields and of sets: a power of two, since places are masked with it.
const ROOM: usize = 32;

/// Bytes of a key that a program is given.
const KEY_LEN: usize = size_of::<FlowKey>();

/// What the chains say of a packet.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// `ACCEPT`, `DROP`, `REJECT` or `UNBOUNDED`.
    pub decision: u8,
    /// Index of the rule in the flat list, or `NO_RULE`.
    pub rule: u16,
}

impl Verdict {
    /// As one number, which functions of BPF return.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.decision as u32 | (self.rule as u32) << 16
    }

    #[inline(always)]
    const fn of(number: u32) -> Verdict {
        Verdict {
            decision: number as u8,
            rule: (number >> 16) as u16,
        }
    }
}

/// What is known of one address: see `weft_common::acl::Class`.
#[repr(C)]
struct SideWork {
    plain: Cell,
    alone: Cell,
    adds: [Cell; ROOM],
    takes: [Cell; ROOM],
    /// Entries of `adds` and `takes`.
    sets: u64,
    /// 0: no rule asks for this address.
    is_asked: u64,
}

/// What a lookup keeps while it runs. In a map: nothing on the stack changes in a loop.
#[repr(C)]
pub struct Work {
    keys: Keys,
    /// Vectors of the packet's classes.
    fields: [Cell; ROOM],
    sides: [SideWork; 2],
    head: Cell,
    /// Blocks in which a rule may match.
    summary: u64,
    /// Of a binary search: what is looked for, and the entries between which it lies.
    wanted: Cell,
    low: u64,
    high: u64,
    /// First cell of the entries that are searched.
    first: u64,
    /// Which side is looked at.
    side: u64,
    /// Rule from which on the scan goes.
    from: u64,
    /// Rules of the block that is looked at.
    word: u64,
    /// Verdict, as `Verdict::number`.
    verdict: u64,
    /// The sets of the address that is looked at.
    list: SetList,
    /// What they are looked up by.
    set_key: Key<SetKey>,
}

/// What callbacks get: both pointers stay as they are.
struct Lookup {
    table: &'static Table,
    work: *mut Work,
}

impl Lookup {
    #[inline(always)]
    fn cell(&self, index: u64) -> Option<&'static Cell> {
        self.table.get(index as u32)
    }

    /// This CPU's own.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "programs run one after the other on a CPU"
    )]
    fn work(&self) -> &mut Work {
        // SAFETY: a checked pointer into this CPU's element.
        unsafe { &mut *self.work }
    }

    /// Runs a callback up to `turns` times.
    #[inline(always)]
    fn each(&self, turns: u32, callback: unsafe extern "C" fn(u32, *mut c_void) -> i64) {
        // SAFETY: the callback takes a `Lookup`, which outlives the loop.
        unsafe {
            bpf_loop(
                turns,
                callback as *mut c_void,
                core::ptr::from_ref(self).cast_mut().cast(),
                0,
            );
        }
    }

    /// The block of a vector; 0 where it has none.
    #[inline(always)]
    fn word_of(&self, vector: &Cell, block: u64) -> u64 {
        let summary = vector[0];
        if summary >> (block & 63) & 1 == 0 {
            return 0;
        }
        let before = (summary & ((1 << (block & 63)) - 1)).count_ones();
        let number = vector[1] + u64::from(before);
        match self.cell(number >> 1) {
            Some(cell) if number & 1 == 0 => cell[0],
            Some(cell) => cell[1],
            None => 0,
        }
    }
}

/// The map of an ACL.
#[inline(always)]
fn table(acl: u32) -> Option<&'static Table> {
    ACLS.get(acl)
}

/// [`Head::flags`] of an ACL.
#[inline(always)]
pub fn flags(acl: u32) -> u16 {
    match table(acl).and_then(|table| table.get(HEAD)) {
        Some(cell) => Head::of(cell).flags,
        None => 0,
    }
}

/// What the chains of this number decide of a packet, with the number of a `weft_common::acl::State`. ACL 0: there are
/// none, it passes. An ACL that isn't there is one that the agent took away in this moment, and decides nothing: the agent
/// does.
#[inline(always)]
pub fn judge(packet: &Packet, acl: u32, state: u8) -> Verdict {
    if acl == 0 {
        return Verdict {
            decision: ACCEPT,
            rule: NO_RULE,
        };
    }
    let is_later =
        packet.key.head.class & weft_common::key::CLASS_FRAGMENT == Fragment::Later as u8;
    let is_known = !is_later || packet.fragment.is_known != 0;
    let facts = u32::from(state) | (is_known as u32) << 8;
    Verdict::of(lookup(packet.key, acl, facts, packet.length()))
}

/// A key that a program was given: see `judge` in `main.rs`.
#[inline(always)]
pub fn judge_given(packet: &mut Packet, mark: u32) -> i32 {
    let key = core::ptr::from_mut(packet.key).cast::<u64>();
    for word in 0..KEY_LEN / 8 {
        let Some(given) = packet.read::<8>(ETHERNET_LEN + word * 8) else {
            return UNBOUNDED as i32;
        };
        // SAFETY: a FlowKey is so many words, and plain bytes.
        unsafe { key.add(word).write(u64::from_ne_bytes(given)) };
    }
    let facts = mark >> 16;
    lookup(packet.key, mark & 0xffff, facts, packet.length()) as i32
}

/// `facts`: the state, and from bit 8 on whether the key's L4 fields are the packet's.
#[inline(never)]
fn lookup(key: &FlowKey, acl: u32, facts: u32, length: u32) -> u32 {
    let damaged = Verdict {
        decision: UNBOUNDED,
        rule: NO_RULE,
    };
    let Some(work) = ACL_WORK.get_ptr_mut(0) else {
        return damaged.number();
    };
    let Some(table) = table(acl) else {
        return damaged.number();
    };
    let lookup = Lookup { table, work };
    let Some(head) = table.get(HEAD) else {
        return damaged.number();
    };
    let work = lookup.work();
    work.head = *head;
    work.keys.fill(key, facts >> 8 != 0, facts as u8);
    work.summary = u64::MAX;
    let head = Head::of(head);
    lookup.each(u32::from(head.fields), field);
    work.side = 0;
    address(&lookup, head.sides);
    work.side = 1;
    address(&lookup, head.sides >> 1);
    work.from = 0;
    work.verdict = u64::from(damaged.number());
    lookup.each((POLICY_BLOCKS_MAX + POLICY_HOPS_MAX + 1) as u32, scan);
    let verdict = work.verdict as u32;
    count(table, &head, Verdict::of(verdict), length);
    verdict
}

/// The rule's packets and bytes. Several CPUs may meet in one cell.
#[inline(always)]
fn count(table: &Table, head: &Head, verdict: Verdict, length: u32) {
    if verdict.rule == NO_RULE {
        return;
    }
    let index = head.rules + head.rule_count + u32::from(verdict.rule);
    if let Some(cell) = table.get_ptr_mut(index) {
        // SAFETY: a checked pointer to 16 bytes; additions are atomic.
        unsafe {
            core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) cell, in(reg) 1_u64);
            core::arch::asm!("lock *(u64 *)({0} + 8) += {1}", in(reg) cell, in(reg) u64::from(length));
        }
    }
}

/// One field: the packet's class there.
unsafe extern "C" fn field(position: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let Some(field) = lookup.cell(u64::from(FIELDS + position)) else {
        return BREAK;
    };
    let mask = field[0] >> 16;
    let kind = masked::<15>(field[0]);
    // SAFETY: below 16.
    let key = unsafe { *work.keys.fields.get_unchecked(kind) } & mask;
    // Classes of keys that aren't MACs are below the mask's 48 bits.
    work.wanted = [key, 0];
    work.first = field[1] & 0xffff_ffff;
    work.low = 0;
    work.high = field[1] >> 32;
    lookup.each(SEARCH_TURNS, search_bound);
    let bound = work.first + work.low.saturating_sub(1);
    let vector = lookup.cell(bound).and_then(|bound| lookup.cell(bound[1]));
    let Some(vector) = vector else {
        work.summary = 0;
        return BREAK;
    };
    work.summary &= vector[0];
    // SAFETY: below `ROOM`.
    unsafe {
        *work
            .fields
            .get_unchecked_mut(masked::<31>(u64::from(position))) = *vector
    };
    CONTINUE
}

/// Narrows down to the first bound above the key.
unsafe extern "C" fn search_bound(_: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let (low, high) = (work.low, work.high);
    if low >= high {
        return BREAK;
    }
    let middle = (low + high) >> 1;
    let Some(bound) = lookup.cell(work.first + middle) else {
        return BREAK;
    };
    if bound[0] <= work.wanted[0] {
        work.low = middle + 1;
    } else {
        work.high = middle;
    }
    CONTINUE
}

/// One address: its class, and what its sets add and take.
#[inline(never)]
fn address(lookup: &Lookup, sides: u8) -> u32 {
    let work = lookup.work();
    let number = masked::<1>(work.side);
    // SAFETY: below 2.
    let side = unsafe { work.sides.get_unchecked_mut(number) };
    side.is_asked = u64::from(sides & 1);
    side.sets = 0;
    if side.is_asked == 0 {
        return 0;
    }
    let first = SIDES + number as u32 * SIDE_CELLS;
    let (Some(prefixes), Some(sets)) = (
        lookup.cell(u64::from(first)),
        lookup.cell(u64::from(first + 1)),
    ) else {
        work.summary = 0;
        return 0;
    };
    let mut class = sets[1];
    let family = work.keys.family;
    // SAFETY: below 2.
    work.wanted = unsafe { *work.keys.addresses.get_unchecked(number) };
    if family != NO_ADDRESS {
        let part = if family == 1 {
            prefixes[1]
        } else {
            prefixes[0]
        };
        work.first = part & 0xffff_ffff;
        work.low = 0;
        work.high = part >> 32;
        lookup.each(SEARCH_TURNS, search_prefix);
        // The last prefix that starts before the address holds it, or one around it does.
        work.high = class;
        lookup.each(WIDER_MAX, widen);
        class = work.high;
    }
    let (Some(plain), Some(alone)) = (lookup.cell(class & 0xffff_ffff), lookup.cell(class >> 32))
    else {
        work.summary = 0;
        return 0;
    };
    side.plain = *plain;
    side.alone = *alone;
    if sets[0] >> 32 != 0 && family != NO_ADDRESS {
        groups(lookup, sets[0]);
    }
    // Again, as the function has changed it.
    // SAFETY: below 2.
    let side = unsafe { lookup.work().sides.get_unchecked_mut(number) };
    let mut added = 0;
    if side.sets != 0 {
        work.word = 0;
        lookup.each(masked::<63>(side.sets) as u32, add_summary);
        added = work.word;
    }
    work.summary &= side.alone[0] | side.plain[0] & added;
    0
}

/// Narrows down to the first prefix above the address.
unsafe extern "C" fn search_prefix(_: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let (low, high) = (work.low, work.high);
    if low >= high {
        return BREAK;
    }
    let middle = (low + high) >> 1;
    let Some(prefix) = lookup.cell(work.first + middle * u64::from(PREFIX_CELLS)) else {
        return BREAK;
    };
    let [wanted_high, wanted_low] = work.wanted;
    if prefix[0] < wanted_high || (prefix[0] == wanted_high && prefix[1] <= wanted_low) {
        work.low = middle + 1;
    } else {
        work.high = middle;
    }
    CONTINUE
}

/// The prefix before `low`, if it holds the address, else on to the next wider one. The class goes into `high`.
unsafe extern "C" fn widen(_: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    if work.low == 0 {
        return BREAK;
    }
    let at = work.first + (work.low - 1) * u64::from(PREFIX_CELLS);
    let (Some(prefix), Some(rest)) = (lookup.cell(at), lookup.cell(at + 1)) else {
        return BREAK;
    };
    let length = rest[0] & 0xff;
    let [high, low] = work.wanted;
    let (high, low) = (prefix[0] ^ high, prefix[1] ^ low);
    let is_inside = if length <= 64 {
        // A shift by 64 is none.
        length == 0 || high >> ((64 - length) & 63) == 0
    } else {
        high == 0 && low >> ((128 - length) & 63) == 0
    };
    if is_inside {
        work.high = rest[1];
        return BREAK;
    }
    let wider = rest[0] >> 32;
    if wider == 0 || wider >= work.low {
        return BREAK;
    }
    work.low -= wider;
    CONTINUE
}

/// What the sets of an address change. `part`: first cell and number of the side's sets. The key and the list are in
/// [`Work`], as the stack has no room for them.
#[inline(always)]
fn groups(lookup: &Lookup, part: u64) {
    let work = lookup.work();
    let family = work.keys.family;
    let bits = if family == 1 { 128 } else { 32 };
    let [high, low] = work.wanted;
    let [high, low] = [high.to_be(), low.to_be()];
    let key = &mut work.set_key;
    key.prefix_len = SET_KEY_HEAD_BITS + bits;
    key.data.tenant = Head::of(&work.head).tenant;
    key.data.family = family;
    // SAFETY: sixteen bytes, of no alignment.
    unsafe {
        let address = core::ptr::addr_of_mut!(key.data.address).cast::<u64>();
        address.write_unaligned(high);
        address.add(1).write_unaligned(low);
    }
    let Some(list) = ACL_SETS.get(&work.set_key) else {
        return;
    };
    let to = core::ptr::from_mut(&mut work.list).cast::<u32>();
    let from = core::ptr::from_ref(list).cast::<u32>();
    for place in 0..=GROUPS_PER_ADDRESS_MAX {
        // Word by word: a copy of the whole would go over the stack.
        // SAFETY: both are so many words.
        unsafe {
            to.add(place)
                .write_volatile(from.add(place).read_volatile())
        };
    }
    work.first = part & 0xffff_ffff;
    // Where the entries end; `high` is changed by each search.
    work.word = part >> 32;
    let count = work.list.count;
    let turns = if count < GROUPS_PER_ADDRESS_MAX as u32 {
        count
    } else {
        GROUPS_PER_ADDRESS_MAX as u32
    };
    lookup.each(turns, group);
}

/// One set of the address: noted if the ACL asks for it.
unsafe extern "C" fn group(position: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let place = masked::<31>(u64::from(position));
    // SAFETY: below the length.
    let set = u64::from(unsafe { *work.list.sets.get_unchecked(place) });
    work.wanted = [set, 0];
    work.low = 0;
    work.high = work.word;
    lookup.each(SEARCH_TURNS, search_bound);
    if work.low == 0 {
        return CONTINUE;
    }
    let Some(entry) = lookup.cell(work.first + work.low - 1) else {
        return CONTINUE;
    };
    if entry[0] != work.wanted[0] {
        return CONTINUE;
    }
    let (Some(adds), Some(takes)) = (
        lookup.cell(entry[1] & 0xffff_ffff),
        lookup.cell(entry[1] >> 32),
    ) else {
        return BREAK;
    };
    // SAFETY: below 2, and below `ROOM`.
    unsafe {
        let side = work.sides.get_unchecked_mut(masked::<1>(work.side));
        let place = masked::<31>(side.sets);
        *side.adds.get_unchecked_mut(place) = *adds;
        *side.takes.get_unchecked_mut(place) = *takes;
        side.sets += 1;
    }
    CONTINUE
}

/// Gathers the summaries of what sets add in `word`.
unsafe extern "C" fn add_summary(position: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    // SAFETY: below 2, and below `ROOM`.
    unsafe {
        let side = work.sides.get_unchecked(masked::<1>(work.side));
        work.word |= side.adds.get_unchecked(masked::<31>(u64::from(position)))[0];
    }
    CONTINUE
}

/// One step through the rules that match: the next block, or the next rule in it.
unsafe extern "C" fn scan(_: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let from = work.from;
    let block = from >> 6;
    let accepted = Verdict {
        decision: ACCEPT,
        rule: NO_RULE,
    };
    if block >= POLICY_BLOCKS_MAX as u64 || work.summary >> (block & 63) == 0 {
        work.verdict = u64::from(accepted.number());
        return BREAK;
    }
    let skipped = u64::from((work.summary >> (block & 63)).trailing_zeros());
    if skipped != 0 {
        work.from = (block + skipped) << 6;
        return CONTINUE;
    }
    let head = Head::of(&work.head);
    work.word = u64::MAX << (from & 63);
    lookup.each(u32::from(head.fields), and_field);
    and_sides(lookup, block);
    let word = work.word;
    if word == 0 {
        work.from = (block + 1) << 6;
        return CONTINUE;
    }
    let rule = (block << 6) + u64::from(word.trailing_zeros());
    if rule >= u64::from(head.rule_count) {
        // Bits of no rule are set where no rule asks for anything.
        work.verdict = u64::from(accepted.number());
        return BREAK;
    }
    let Some(cell) = lookup.cell(u64::from(head.rules) + rule) else {
        return BREAK;
    };
    let act = cell[0] as u8;
    if act == STEP {
        work.from = cell[0] >> 16 & 0xffff;
        return CONTINUE;
    }
    let verdict = Verdict {
        decision: act,
        rule: rule as u16,
    };
    work.verdict = u64::from(verdict.number());
    BREAK
}

/// Takes from `word` what isn't in the packet's class of a field.
unsafe extern "C" fn and_field(position: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    // SAFETY: below `ROOM`.
    let vector = unsafe { work.fields.get_unchecked(masked::<31>(u64::from(position))) };
    let word = lookup.word_of(vector, work.from >> 6);
    work.word &= word;
    if work.word == 0 { BREAK } else { CONTINUE }
}

/// Takes from `word` what the addresses don't match.
#[inline(always)]
fn and_sides(lookup: &Lookup, block: u64) {
    let work = lookup.work();
    for number in 0..2_u64 {
        // SAFETY: below 2.
        let side = unsafe { work.sides.get_unchecked(number as usize) };
        if work.word == 0 || side.is_asked == 0 {
            continue;
        }
        let mut word = lookup.word_of(&side.alone, block);
        if side.sets != 0 {
            work.side = number;
            work.low = 0;
            work.high = 0;
            lookup.each(masked::<63>(side.sets) as u32, gather);
            word = (word | lookup.word_of(&side.plain, block) & work.low) & !work.high;
        }
        work.word &= word;
    }
}

/// Gathers what sets add in `low`, and what they take in `high`.
unsafe extern "C" fn gather(position: u32, lookup: *mut c_void) -> i64 {
    // SAFETY: `each` hands over a `Lookup`.
    let lookup = unsafe { &*lookup.cast::<Lookup>() };
    let work = lookup.work();
    let (place, block) = (masked::<31>(u64::from(position)), work.from >> 6);
    // SAFETY: below 2, and below `ROOM`.
    let (adds, takes) = unsafe {
        let side = work.sides.get_unchecked(masked::<1>(work.side));
        (
            side.adds.get_unchecked(place),
            side.takes.get_unchecked(place),
        )
    };
    let (adds, takes) = (lookup.word_of(adds, block), lookup.word_of(takes, block));
    work.low |= adds;
    work.high |= takes;
    CONTINUE
}

/// A number with a bound that the verifier sees: LLVM would test one register and use another.
#[inline(always)]
fn masked<const MASK: i32>(number: u64) -> usize {
    let mut masked = number;
    // SAFETY: plain arithmetic.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) masked, const MASK) };
    masked as usize
}

const _: () = assert!(GROUPS_PER_ADDRESS_MAX == ROOM && weft_common::acl::FIELDS_MAX <= ROOM);
