//! Primitive rules as bit vectors: for each field and address, which rules each class of its values lets match.
//!
//! No state. A class is where no test changes its mind: between two bounds of a field, in a prefix and in none inside it.
//! Going from one class to the next, only rules that mention the place between them are looked at again.

use super::acl::{
    Acl, AddressClass, Bound, CompiledRule, FieldTable, PrefixEntry, SetEntry, SideTable, Vector,
    family_and_bits,
};
use super::chain::{AddressMatch, Connection, Group, Policy};
use super::evaluate::Decision;
use super::field::{Field, Range, ranges, service_ranges};
use super::flatten::{Act, Literal, Primitive, Side, Test, flatten, groups_of};
use super::sets::{SetId, Sets};
use crate::id::ChainId;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use weft_common::acl::{ESTABLISHED_PASSES, FIELDS_MAX, READS_MORE};
use weft_common::limits::{
    POLICY_CLASSES_MAX, POLICY_MAC_MASKS_MAX, POLICY_RULES_MAX, POLICY_WORDS_MAX,
};

/// Why chains don't compile. What is too large is decided by the interpreted evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules than a vector has bits.
    #[error(
        "{count} rules: expected at most {POLICY_RULES_MAX}, where a jump counts its target's rules each time"
    )]
    TooManyRules {
        /// How many they are.
        count: u64,
    },
    /// A rule asks for, or does, what only a device can: validation refuses it.
    #[error("a rule has no meaning on a port's chain")]
    NotAtPort,
    /// More different values in one field than a table holds.
    #[error(
        "{count} different values or prefixes in one condition: expected at most {POLICY_CLASSES_MAX}"
    )]
    TooManyClasses {
        /// How many they are.
        count: usize,
    },
    /// More masks of MAC addresses than a lookup tries.
    #[error("{count} different masks of MAC addresses: expected at most {POLICY_MAC_MASKS_MAX}")]
    TooManyMacMasks {
        /// How many they are.
        count: usize,
    },
    /// More vectors than there is room for.
    #[error("the rules take more than {POLICY_WORDS_MAX} words")]
    TooLarge,
}

/// Compiles the chains of a hook. `sets` gives groups their numbers; who their members are doesn't matter.
///
/// # Errors
/// [`CompileError`].
pub fn compile(policy: &Policy, hook: &[ChainId], sets: &mut Sets) -> Result<Acl, CompileError> {
    let primitives = flatten(policy, hook)?;
    let mut builder = Builder::new(&primitives);
    builder.fields(&primitives)?;
    for side in [Side::Src, Side::Dst] {
        builder.side(side, &primitives, sets)?;
    }
    Ok(builder.acl)
}

/// `ESTABLISHED_PASSES` if the first rule that an established packet may meet accepts all of them; `READS_MORE` if a rule
/// asks for what isn't the same in all packets of a connection's direction.
fn flags(primitives: &[Primitive]) -> u16 {
    let asks = |it: &Literal| {
        matches!(
            it.test,
            Test::SrcMac(_) | Test::DstMac(_) | Test::Vlan(_) | Test::Tos(_) | Test::Fragment(_)
        )
    };
    let mut literals = primitives.iter().flat_map(|it| &it.literals);
    let more = if literals.any(asks) { READS_MORE } else { 0 };
    let state = |it: &Literal| match &it.test {
        Test::State(list) => Some(list.contains(&Connection::Established) != it.is_inverted),
        _ => None,
    };
    let may_match = |it: &&Primitive| it.literals.iter().all(|it| state(it) != Some(false));
    let passes = primitives.iter().find(may_match).is_some_and(|first| {
        let is_accept = first.act == Act::End(Decision::Accept) && !first.is_logged;
        is_accept && first.literals.iter().all(|it| state(it).is_some())
    });
    more | if passes { ESTABLISHED_PASSES } else { 0 }
}

/// Rules, a bit each, in blocks.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, rule: usize, is_set: bool) {
        let bit = 1 << (rule % 64);
        if is_set {
            self.0[rule / 64] |= bit;
        } else {
            self.0[rule / 64] &= !bit;
        }
    }
}

struct Builder {
    acl: Acl,
    rules: usize,
    known: HashMap<Bits, u32>,
}

/// What rules test of one field: each test's ranges, and whether it is inverted.
type FieldTests = BTreeMap<usize, Vec<(Vec<Range>, bool)>>;

/// What a rule tests of one address: of `plain` each, and `either` if it is there.
#[derive(Default)]
struct AddressTests<'a> {
    plain: Vec<(&'a [AddressMatch], bool)>,
    either: Option<&'a [AddressMatch]>,
}

impl Builder {
    fn new(primitives: &[Primitive]) -> Self {
        let mut builder = Self {
            acl: Acl {
                rules: primitives.iter().map(CompiledRule::from).collect(),
                fields: Vec::new(),
                bounds: Vec::new(),
                sides: Vec::new(),
                prefixes: Vec::new(),
                sets: Vec::new(),
                vectors: vec![Vector::default()],
                words: Vec::new(),
                flags: flags(primitives),
            },
            rules: primitives.len(),
            known: HashMap::new(),
        };
        // Vector 0 has no rules.
        builder.known.insert(builder.none(), 0);
        builder
    }

    fn none(&self) -> Bits {
        Bits(vec![0; self.rules.div_ceil(64)])
    }

    /// All rules but those of which `is_free` says no.
    fn all(&self, is_free: impl Fn(usize) -> bool) -> Bits {
        let mut bits = self.none();
        for rule in (0..self.rules).filter(|it| is_free(*it)) {
            bits.set(rule, true);
        }
        bits
    }

    /// The vector of these rules; equal ones are one.
    fn vector(&mut self, bits: &Bits) -> Result<u32, CompileError> {
        if let Some(known) = self.known.get(bits) {
            return Ok(*known);
        }
        let mut vector = Vector {
            summary: 0,
            first: self.acl.words.len() as u32,
        };
        for (block, word) in bits.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            vector.summary |= 1 << block;
            self.acl.words.push(*word);
        }
        if self.acl.words.len() > POLICY_WORDS_MAX {
            return Err(CompileError::TooLarge);
        }
        let index = self.acl.vectors.len() as u32;
        self.acl.vectors.push(vector);
        self.known.insert(bits.clone(), index);
        Ok(index)
    }

    fn fields(&mut self, primitives: &[Primitive]) -> Result<(), CompileError> {
        let mut tests: BTreeMap<Field, FieldTests> = BTreeMap::new();
        for (rule, primitive) in primitives.iter().enumerate() {
            let services = (Field::Service, service_ranges(primitive), false);
            let of_literal = |it: &Literal| {
                let (field, ranges) = ranges(&it.test)?;
                Some((field, ranges, it.is_inverted))
            };
            let literals = primitive.literals.iter().filter_map(of_literal);
            for (field, ranges, is_inverted) in std::iter::once(services).chain(literals) {
                let of_rule = tests.entry(field).or_default().entry(rule).or_default();
                of_rule.push((ranges, is_inverted));
            }
        }
        let is_mac = |it: &&Field| matches!(it, Field::SrcMac(_) | Field::DstMac(_));
        let count = tests.keys().filter(is_mac).count();
        if count > POLICY_MAC_MASKS_MAX || tests.len() > FIELDS_MAX {
            return Err(CompileError::TooManyMacMasks { count });
        }
        for (field, of_rules) in &tests {
            self.field(*field, of_rules)?;
        }
        Ok(())
    }

    fn field(&mut self, field: Field, tests: &FieldTests) -> Result<(), CompileError> {
        // Where a rule may change its mind.
        let mut changes: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        changes.insert(0, tests.keys().copied().collect());
        for (rule, literals) in tests {
            for (first, last) in literals.iter().flat_map(|(ranges, _)| ranges) {
                let bounds = [Some(*first), last.checked_add(1)];
                for bound in bounds.into_iter().flatten() {
                    changes.entry(bound).or_default().insert(*rule);
                }
            }
        }
        limit_classes(changes.len())?;
        let first = self.acl.bounds.len();
        let mut bits = self.all(|rule| !tests.contains_key(&rule));
        for (key, rules) in changes {
            for rule in rules {
                let holds = tests
                    .get(&rule)
                    .into_iter()
                    .flatten()
                    .all(|(ranges, inverted)| {
                        let is_in = ranges.iter().any(|it| (it.0..=it.1).contains(&key));
                        is_in != *inverted
                    });
                bits.set(rule, holds);
            }
            let vector = self.vector(&bits)?;
            self.acl.bounds.push(Bound { key, vector });
        }
        self.acl.fields.push(FieldTable {
            field,
            first: first as u32,
            len: (self.acl.bounds.len() - first) as u32,
        });
        Ok(())
    }

    fn side(
        &mut self,
        side: Side,
        primitives: &[Primitive],
        sets: &mut Sets,
    ) -> Result<(), CompileError> {
        let mut tests: BTreeMap<usize, AddressTests<'_>> = BTreeMap::new();
        for (rule, primitive) in primitives.iter().enumerate() {
            for literal in &primitive.literals {
                let Test::Address(its_side, list) = &literal.test else {
                    continue;
                };
                if *its_side != side {
                    continue;
                }
                let of_rule = tests.entry(rule).or_default();
                if literal.is_inverted || groups_of(list).next().is_none() {
                    of_rule.plain.push((list, literal.is_inverted));
                } else {
                    of_rule.either = Some(list);
                }
            }
        }
        if tests.is_empty() {
            return Ok(());
        }
        let sets_part = self.set_entries(&tests, sets)?;
        let mut planes = Planes {
            plain: self.all(|_| true),
            alone: self.all(|_| true),
        };
        for (rule, of_rule) in &tests {
            planes.judge(*rule, of_rule, None);
        }
        let outside = self.address_class(&planes)?;
        let prefixes = self.prefix_entries(&tests, &planes)?;
        self.acl.sides.push(SideTable {
            side,
            prefixes,
            sets: sets_part,
            outside,
        });
        Ok(())
    }

    fn address_class(&mut self, planes: &Planes) -> Result<AddressClass, CompileError> {
        Ok(AddressClass {
            plain: self.vector(&planes.plain)?,
            alone: self.vector(&planes.alone)?,
        })
    }

    fn set_entries(
        &mut self,
        tests: &BTreeMap<usize, AddressTests<'_>>,
        sets: &mut Sets,
    ) -> Result<(u32, u32), CompileError> {
        let mut changes: BTreeMap<SetId, (Bits, Bits)> = BTreeMap::new();
        let mut note = |builder: &Self, group: Group, rule: usize, adds: bool| {
            let empty = || (builder.none(), builder.none());
            let entry = changes.entry(sets.number(group)).or_insert_with(empty);
            let bits = if adds { &mut entry.0 } else { &mut entry.1 };
            bits.set(rule, true);
        };
        for (rule, of_rule) in tests {
            for group in of_rule.either.into_iter().flat_map(groups_of) {
                note(self, group, *rule, true);
            }
            for group in of_rule.plain.iter().flat_map(|(list, _)| groups_of(list)) {
                note(self, group, *rule, false);
            }
        }
        let first = self.acl.sets.len();
        for (set, (adds, takes)) in changes {
            let (adds, takes) = (self.vector(&adds)?, self.vector(&takes)?);
            self.acl.sets.push(SetEntry { set, adds, takes });
        }
        Ok((first as u32, (self.acl.sets.len() - first) as u32))
    }

    fn prefix_entries(
        &mut self,
        tests: &BTreeMap<usize, AddressTests<'_>>,
        outside: &Planes,
    ) -> Result<[(u32, u32); 2], CompileError> {
        let mut mentions: BTreeMap<(usize, u128, u8), (IpNet, BTreeSet<usize>)> = BTreeMap::new();
        for (rule, of_rule) in tests {
            for prefix in of_rule.prefixes() {
                let (family, bits) = family_and_bits(prefix.addr());
                let place = (family, bits, prefix.prefix_len());
                let entry = mentions.entry(place).or_insert((prefix, BTreeSet::new()));
                entry.1.insert(*rule);
            }
        }
        limit_classes(mentions.len())?;
        let mut parts = [(0, 0); 2];
        // Prefixes around the one at hand, the widest first.
        let mut around: Vec<(IpNet, usize, Planes)> = Vec::new();
        for ((family, bits, len), (prefix, rules)) in mentions {
            while around
                .last()
                .is_some_and(|(it, _, _)| !it.contains(&prefix))
            {
                around.pop();
            }
            let wider = around.last();
            let mut planes = wider.map_or(outside, |it| &it.2).clone();
            for rule in rules {
                if let Some(of_rule) = tests.get(&rule) {
                    planes.judge(rule, of_rule, Some(prefix));
                }
            }
            let index = self.acl.prefixes.len();
            let entry = PrefixEntry {
                bits,
                len,
                wider: wider.map_or(0, |it| index - it.1) as u32,
                class: self.address_class(&planes)?,
            };
            self.acl.prefixes.push(entry);
            around.push((prefix, index, planes));
            let part = &mut parts[family];
            if part.1 == 0 {
                part.0 = index as u32;
            }
            part.1 += 1;
        }
        Ok(parts)
    }
}

impl<'a> AddressTests<'a> {
    fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let plain = self.plain.iter().map(|(list, _)| *list);
        plain.chain(self.either).flatten().filter_map(prefix_of)
    }
}

/// See [`AddressClass`].
#[derive(Clone)]
struct Planes {
    plain: Bits,
    alone: Bits,
}

impl Planes {
    /// Sets a rule's bits for the addresses in this prefix and in no narrower one; without a prefix, for those in none.
    fn judge(&mut self, rule: usize, tests: &AddressTests<'_>, place: Option<IpNet>) {
        let holds = |list: &[AddressMatch]| {
            let mut prefixes = list.iter().filter_map(prefix_of);
            place.is_some_and(|place| prefixes.any(|it| it.contains(&place)))
        };
        let plain = tests
            .plain
            .iter()
            .all(|(list, inverted)| holds(list) != *inverted);
        self.plain.set(rule, plain);
        let alone = plain && tests.either.is_none_or(holds);
        self.alone.set(rule, alone);
    }
}

fn prefix_of(item: &AddressMatch) -> Option<IpNet> {
    match item {
        AddressMatch::Prefix(prefix) => Some(prefix.trunc()),
        AddressMatch::Group(_) => None,
    }
}

fn limit_classes(count: usize) -> Result<(), CompileError> {
    if count > POLICY_CLASSES_MAX {
        return Err(CompileError::TooManyClasses { count });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
