//! A compiled ACL: flat tables of numbers, as they will lie in maps of the kernel, and the lookup in them.
//!
//! Immutable; made by `compile.rs`. Every loop of the lookup is bounded by a limit of `weft_common::limits`.

use super::evaluate::{Decision, RuleRef, Verdict};
use super::field::Field;
use super::flatten::{Act, Primitive, Side};
use super::sets::{SetId, Sets};
use super::view::View;
use std::net::IpAddr;
use weft_common::acl::{ESTABLISHED_PASSES, FIELDS_MAX, Keys, READS_MORE};
use weft_common::limits::{GROUPS_PER_ADDRESS_MAX, POLICY_BLOCKS_MAX, POLICY_HOPS_MAX};

/// What chains of a hook compile to. Equal chains give equal ACLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) fields: Vec<FieldTable>,
    /// Of all fields: where a class begins.
    pub(super) bounds: Vec<Bound>,
    pub(super) sides: Vec<SideTable>,
    /// Of both sides, sorted by family, bits and length.
    pub(super) prefixes: Vec<PrefixEntry>,
    /// Of both sides, sorted by side and set.
    pub(super) sets: Vec<SetEntry>,
    pub(super) vectors: Vec<Vector>,
    /// Blocks of vectors, those that are zero left out.
    pub(super) words: Vec<u64>,
    /// `weft_common::acl::ESTABLISHED_PASSES` and `READS_MORE`.
    pub(super) flags: u16,
}

/// What a rule does when it is the first that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CompiledRule {
    pub(super) act: Act,
    pub(super) origin: Option<RuleRef>,
    pub(super) is_logged: bool,
}

/// A field that rules test: its part of [`Acl::bounds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldTable {
    pub(super) field: Field,
    pub(super) first: u32,
    pub(super) len: u32,
}

/// From this key on, up to the next bound, rules of this vector match. The first bound of a field is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) key: u64,
    pub(super) vector: u32,
}

/// An address that rules test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SideTable {
    pub(super) side: Side,
    /// Its part of [`Acl::prefixes`], for IPv4 and for IPv6.
    pub(super) prefixes: [(u32, u32); 2],
    /// Its part of [`Acl::sets`].
    pub(super) sets: (u32, u32),
    /// Class of addresses in no prefix, and of packets without addresses.
    pub(super) outside: AddressClass,
}

/// What is known of an address: (`alone` OR (`plain` AND the sets' `adds`)) without the sets' `takes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressClass {
    /// Rules whose tests by prefix hold.
    pub(super) plain: u32,
    /// Those of them that match without a group: they ask for none, or for a prefix as well as for groups.
    pub(super) alone: u32,
}

/// A prefix and its class: an entry of a longest-prefix map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixEntry {
    /// On the left; IPv4 in the upper 32 bits.
    pub(super) bits: u128,
    pub(super) len: u8,
    /// Entries from here back to the next wider prefix; 0 for none.
    pub(super) wider: u32,
    pub(super) class: AddressClass,
}

/// What membership in a set changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetEntry {
    pub(super) set: SetId,
    /// Rules that match its members.
    pub(super) adds: u32,
    /// Rules that don't match its members.
    pub(super) takes: u32,
}

/// Some rules, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vector {
    /// Blocks that aren't zero.
    pub(super) summary: u64,
    /// Where they lie in [`Acl::words`].
    pub(super) first: u32,
}

/// A lookup that would take more steps than the kernel makes: the packet is decided by the interpreted evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {POLICY_HOPS_MAX} rules that don't end the lookup match")]
pub struct Unbounded;

/// What a lookup found.
pub type Decided = Result<Verdict, Unbounded>;

/// What one side of a packet says of the rules.
struct Facts {
    class: AddressClass,
    adds: Members,
    takes: Members,
}

/// Indices of entries.
#[derive(Default)]
struct Members {
    entries: [u32; GROUPS_PER_ADDRESS_MAX],
    len: usize,
}

impl Acl {
    /// What the chains decide of a packet. `sets` tells the groups of its addresses.
    ///
    /// # Errors
    /// [`Unbounded`].
    pub fn lookup(&self, view: &View, sets: &Sets) -> Decided {
        let (source, destination) = view.addresses().unzip();
        let mut keys = Keys::default();
        keys.fill(&view.key, view.upper_known, view.state as u8);
        let mut vectors = [0_u32; FIELDS_MAX];
        let mut summary = u64::MAX;
        for (slot, table) in vectors.iter_mut().zip(&self.fields) {
            *slot = self.field_vector(table, table.field.key(&keys));
            summary &= self.vectors[*slot as usize].summary;
        }
        let vectors = &vectors[..self.fields.len().min(FIELDS_MAX)];
        let mut facts = Vec::with_capacity(2);
        for table in &self.sides {
            let address = match table.side {
                Side::Src => source,
                Side::Dst => destination,
            };
            let fact = self.facts(table, address, sets);
            summary &= self.side_summary(&fact);
            facts.push(fact);
        }
        self.scan(summary, |block| {
            let of_fields = vectors
                .iter()
                .fold(u64::MAX, |all, it| all & self.word(*it, block));
            facts
                .iter()
                .fold(of_fields, |all, it| all & self.side_word(it, block))
        })
    }

    /// Goes through the rules that match, up to one that ends the lookup. `word` gives those of a block.
    fn scan(&self, summary: u64, word: impl Fn(u32) -> u64) -> Decided {
        let mut logs = Vec::new();
        let mut from = 0_usize;
        // Each turn is a step, another block, or the last one.
        for _ in 0..=POLICY_BLOCKS_MAX + POLICY_HOPS_MAX {
            let block = from / 64;
            if block >= POLICY_BLOCKS_MAX || summary >> block == 0 {
                return Ok(accepted(logs));
            }
            let word = match summary >> block & 1 {
                0 => 0,
                _ => word(block as u32) & u64::MAX << (from % 64),
            };
            if word == 0 {
                from = (block + 1) * 64;
                continue;
            }
            let index = block * 64 + word.trailing_zeros() as usize;
            let Some(rule) = self.rules.get(index) else {
                return Ok(accepted(logs));
            };
            if let (true, Some(origin)) = (rule.is_logged, rule.origin) {
                logs.push(origin);
            }
            match rule.act {
                Act::End(decision) => {
                    return Ok(Verdict {
                        decision,
                        by: rule.origin,
                        logs,
                    });
                }
                Act::Step(target) => from = usize::from(target),
            }
        }
        Err(Unbounded)
    }

    fn field_vector(&self, table: &FieldTable, key: u64) -> u32 {
        let bounds = &self.bounds[part(table.first, table.len)];
        let behind = bounds.partition_point(|it| it.key <= key);
        bounds[behind.saturating_sub(1)].vector
    }

    fn facts(&self, table: &SideTable, address: Option<IpAddr>, sets: &Sets) -> Facts {
        let (first, len) = table.sets;
        let entries = &self.sets[part(first, len)];
        let mut facts = Facts {
            class: table.outside,
            adds: Members::default(),
            takes: Members::default(),
        };
        let Some(address) = address else {
            return facts;
        };
        facts.class = self.address_class(table, address);
        if entries.is_empty() {
            return facts;
        }
        for set in sets.of(address).iter().take(GROUPS_PER_ADDRESS_MAX) {
            if let Ok(index) = entries.binary_search_by_key(set, |it| it.set) {
                facts.adds.push(entries[index].adds);
                facts.takes.push(entries[index].takes);
            }
        }
        facts
    }

    fn address_class(&self, table: &SideTable, address: IpAddr) -> AddressClass {
        let (family, bits) = family_and_bits(address);
        let (first, len) = table.prefixes[family];
        let entries = &self.prefixes[part(first, len)];
        let behind = entries.partition_point(|it| it.bits <= bits);
        // The last entry that starts before the address holds it, or a wider one does: a walk of a prefix's length.
        let mut index = behind;
        while let Some(entry) = index.checked_sub(1).and_then(|it| entries.get(it)) {
            if (entry.bits ^ bits).leading_zeros() >= u32::from(entry.len) {
                return entry.class;
            }
            if entry.wider == 0 {
                break;
            }
            index -= entry.wider as usize;
        }
        table.outside
    }

    fn side_summary(&self, facts: &Facts) -> u64 {
        let summary = |vector: u32| self.vectors[vector as usize].summary;
        let adds = facts.adds.iter().fold(0, |all, it| all | summary(it));
        summary(facts.class.alone) | summary(facts.class.plain) & adds
    }

    fn side_word(&self, facts: &Facts, block: u32) -> u64 {
        let alone = self.word(facts.class.alone, block);
        if facts.adds.len == 0 {
            return alone;
        }
        let any = |members: &Members| members.iter().fold(0, |all, it| all | self.word(it, block));
        let plain = self.word(facts.class.plain, block);
        (alone | plain & any(&facts.adds)) & !any(&facts.takes)
    }

    fn word(&self, vector: u32, block: u32) -> u64 {
        let Vector { summary, first } = self.vectors[vector as usize];
        if summary >> block & 1 == 0 {
            return 0;
        }
        let before = (summary & ((1 << block) - 1)).count_ones();
        self.words[(first + before) as usize]
    }

    /// Steps that a packet may make at most, if it matches whatever leads on. At most [`POLICY_HOPS_MAX`] of them are
    /// made for every packet: an ACL with more may answer [`Unbounded`].
    pub fn steps_max(&self) -> usize {
        // From a rule on: it doesn't match, or it does.
        let mut from = vec![0; self.rules.len() + 1];
        for (index, rule) in self.rules.iter().enumerate().rev() {
            let matched = match rule.act {
                Act::End(_) => 0,
                Act::Step(target) => 1 + from.get(usize::from(target)).copied().unwrap_or(0),
            };
            from[index] = matched.max(from[index + 1]);
        }
        from[0]
    }

    /// Groups that it asks for.
    pub fn set_ids(&self) -> impl Iterator<Item = SetId> {
        self.sets.iter().map(|it| it.set)
    }

    /// The rule that one of the flat list comes from.
    pub fn origin(&self, index: u16) -> Option<RuleRef> {
        self.rules.get(usize::from(index))?.origin
    }

    /// Whether packets of established connections pass by what all of them have in common, without a lookup.
    pub fn established_passes(&self) -> bool {
        self.flags & ESTABLISHED_PASSES != 0
    }

    /// Whether it asks for more than what all packets of a connection in one direction have in common.
    pub fn reads_more(&self) -> bool {
        self.flags & READS_MORE != 0
    }

    /// Rules in the flat list.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Bytes of its map in the kernel.
    pub fn bytes(&self) -> usize {
        size_of_val(self.cells(0).as_slice())
    }
}

impl Members {
    fn push(&mut self, vector: u32) {
        if let Some(slot) = self.entries.get_mut(self.len) {
            *slot = vector;
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().take(self.len).copied()
    }
}

impl From<&Primitive> for CompiledRule {
    fn from(primitive: &Primitive) -> Self {
        Self {
            act: primitive.act,
            origin: primitive.origin,
            is_logged: primitive.is_logged,
        }
    }
}

/// 0 for IPv4 and 1 for IPv6, and the address's bits on the left.
pub(super) fn family_and_bits(address: IpAddr) -> (usize, u128) {
    match address {
        IpAddr::V4(it) => (0, u128::from(it.to_bits()) << 96),
        IpAddr::V6(it) => (1, it.to_bits()),
    }
}

fn accepted(logs: Vec<RuleRef>) -> Verdict {
    Verdict {
        decision: Decision::Accept,
        by: None,
        logs,
    }
}

fn part(first: u32, len: u32) -> std::ops::Range<usize> {
    first as usize..(first + len) as usize
}
