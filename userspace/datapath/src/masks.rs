//! The masks of one family: at most 64, shared by all flows, and each port's set of those that its flows use.
//!
//! A packet is looked up under its own port's masks only, so what one tenant provokes costs another nothing, as long
//! as masks are left for both: each tenant may use [`MASKS_PER_TENANT_MAX`]. Past that its flows go under masks that
//! exist and match more bits, at worst under the one that matches all of them, which is always there.

use std::collections::HashMap;
use weft_common::FlowKey;
use weft_common::key::{FlowHead, VLAN_PRESENT};
use weft_common::limits::{MASKS_MAX, MASKS_PER_TENANT_MAX};

/// Number of the mask of all bits. The last one: what it serves is looked up when nothing else was found.
const EXACT: u32 = MASKS_MAX - 1;

/// Whose flows they are, as far as quotas go: a tenant's id as a number; 0 for none.
pub type Owner = u128;

/// A mask and how many flows use it.
#[derive(Clone, Debug)]
struct Mask {
    bits: FlowKey,
    flows: u32,
}

/// The masks of one family and who uses them.
#[derive(Debug, Default)]
pub struct Masks {
    masks: Vec<Option<Mask>>,
    by_bits: HashMap<FlowKey, u32>,
    /// Flows by port and mask number.
    ports: HashMap<(u16, u32), u32>,
    /// Flows by owner and mask number.
    owners: HashMap<(Owner, u32), u32>,
}

/// What a flow gets to match with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Number of the mask.
    pub number: u32,
    /// Its bits: those asked for, or more of them.
    pub bits: FlowKey,
    /// Whether the mask wasn't in use before and must be written.
    pub is_new: bool,
}

impl Masks {
    /// A mask with at least these bits for a flow of `owner`: the very one or a new one while the owner's quota
    /// lasts, else the widest of those that exist and match more bits (a narrower flow is still right).
    pub fn choose(&self, bits: &FlowKey, owner: Owner) -> Chosen {
        let has_room = self.number_of(owner) < MASKS_PER_TENANT_MAX;
        if *bits == exact() {
            return self.exact();
        }
        if let Some(&number) = self.by_bits.get(bits)
            && (has_room || self.owners.contains_key(&(owner, number)))
        {
            return Chosen {
                number,
                bits: *bits,
                is_new: false,
            };
        }
        let free = (0..EXACT).find(|&number| self.held(number).is_none());
        if let Some(number) = free.filter(|_| has_room) {
            return Chosen {
                number,
                bits: *bits,
                is_new: true,
            };
        }
        self.narrower(bits, owner, has_room)
    }

    /// The widest mask of `owner`, or of anyone while its quota lasts, that has all of these bits.
    fn narrower(&self, bits: &FlowKey, owner: Owner, has_room: bool) -> Chosen {
        let fitting = self
            .iter()
            .filter(|(number, mask, _)| {
                let is_allowed = has_room || self.owners.contains_key(&(owner, *number));
                *number != EXACT && is_allowed && mask.masked(bits) == *bits
            })
            .min_by_key(|(_, mask, _)| count_ones(mask));
        fitting.map_or_else(
            || self.exact(),
            |(number, bits, _)| Chosen {
                number,
                bits: *bits,
                is_new: false,
            },
        )
    }

    /// The mask of all bits.
    fn exact(&self) -> Chosen {
        Chosen {
            number: EXACT,
            bits: exact(),
            is_new: self.held(EXACT).is_none(),
        }
    }

    /// Gives the flows that `from` has at a port to another owner: so many under each mask number.
    pub fn give(&mut self, from: Owner, to: Owner, number: u32, flows: u32) {
        if let Some(count) = self.owners.get_mut(&(from, number)) {
            *count = count.saturating_sub(flows);
            if *count == 0 {
                self.owners.remove(&(from, number));
            }
        }
        *self.owners.entry((to, number)).or_default() += flows;
    }

    /// Masks that flows of this owner use; the one of all bits isn't counted.
    pub fn number_of(&self, owner: Owner) -> usize {
        (0..EXACT)
            .filter(|number| self.owners.contains_key(&(owner, *number)))
            .count()
    }

    fn held(&self, number: u32) -> Option<&Mask> {
        self.masks.get(number as usize)?.as_ref()
    }

    /// Counts a flow of `port` under a chosen mask. Returns the port's set of masks when it changed.
    pub fn add(&mut self, port: u16, owner: Owner, chosen: &Chosen) -> Option<u64> {
        let position = chosen.number as usize;
        if self.masks.len() <= position {
            self.masks.resize(position + 1, None);
        }
        if let Some(slot) = self.masks.get_mut(position) {
            slot.get_or_insert(Mask {
                bits: chosen.bits,
                flows: 0,
            })
            .flows += 1;
        }
        self.by_bits.insert(chosen.bits, chosen.number);
        *self.owners.entry((owner, chosen.number)).or_default() += 1;
        let flows = self.ports.entry((port, chosen.number)).or_default();
        *flows += 1;
        (*flows == 1).then(|| self.set_of(port))
    }

    /// Counts a flow that an earlier agent published under the mask with this number. False, and nothing is
    /// counted, when the number has other bits.
    pub fn adopt(&mut self, port: u16, owner: Owner, number: u32, bits: &FlowKey) -> bool {
        let held = self.held(number);
        let is_same = held.is_none_or(|mask| mask.bits == *bits);
        let is_only = self.by_bits.get(bits).is_none_or(|held| *held == number);
        if number >= MASKS_MAX || !is_same || !is_only {
            return false;
        }
        let chosen = Chosen {
            number,
            bits: *bits,
            is_new: false,
        };
        self.add(port, owner, &chosen);
        true
    }

    /// Takes a flow of `port` away again. Returns the port's set of masks when it changed.
    pub fn remove(&mut self, port: u16, owner: Owner, number: u32) -> Option<u64> {
        if let Some(slot) = self.masks.get_mut(number as usize)
            && let Some(mask) = slot
        {
            mask.flows = mask.flows.saturating_sub(1);
            if mask.flows == 0 {
                self.by_bits.remove(&mask.bits);
                *slot = None;
            }
        }
        take_one(&mut self.owners, (owner, number));
        take_one(&mut self.ports, (port, number)).then(|| self.set_of(port))
    }

    /// A bit for each mask that flows of this port use.
    pub fn set_of(&self, port: u16) -> u64 {
        (0..MASKS_MAX)
            .filter(|number| self.ports.contains_key(&(port, *number)))
            .fold(0, |set, n| set | 1 << n)
    }

    /// Masks in use, with number, bits and flows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &FlowKey, u32)> {
        let used = self.masks.iter().enumerate();
        used.filter_map(|(number, mask)| {
            mask.as_ref()
                .map(|mask| (number as u32, &mask.bits, mask.flows))
        })
    }
}

/// Counts one less; true when that was the last one.
fn take_one<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) -> bool {
    let Some(count) = counts.get_mut(&key) else {
        return false;
    };
    *count = count.saturating_sub(1);
    let is_last = *count == 0;
    if is_last {
        counts.remove(&key);
    }
    is_last
}

/// Every bit that a packet's key may have.
fn exact() -> FlowKey {
    // No `..`: a field that is added to the key has to be matched here.
    FlowKey {
        head: FlowHead {
            port: u16::MAX,
            class: u8::MAX,
            mask_id: 0,
            vlan: VLAN_PRESENT | 0x0fff,
            protocol: u8::MAX,
            tos: u8::MAX,
            src_mac: [u8::MAX; 6],
            dst_mac: [u8::MAX; 6],
            l4_src: u16::MAX,
            l4_dst: u16::MAX,
        },
        src: [u8::MAX; 16],
        dst: [u8::MAX; 16],
        spare: [0; 8],
    }
}

fn count_ones(mask: &FlowKey) -> u32 {
    zerocopy::IntoBytes::as_bytes(mask)
        .iter()
        .map(|byte| byte.count_ones())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: Owner = 1;
    const EVIL: Owner = 2;

    fn bits(count: u32) -> FlowKey {
        let mut mask = FlowKey::default();
        mask.set_dst_v4((u32::MAX << (32 - count.min(32))).to_be_bytes());
        mask.head.port = u16::MAX;
        mask.head.l4_dst = count as u16;
        mask
    }

    /// A flow under a mask of these bits.
    fn flow(masks: &mut Masks, port: u16, owner: Owner, bits: &FlowKey) -> Chosen {
        let chosen = masks.choose(bits, owner);
        masks.add(port, owner, &chosen);
        chosen
    }

    #[test]
    fn a_mask_is_shared_and_freed_with_its_last_flow() {
        let mut masks = Masks::default();
        let chosen = masks.choose(&bits(24), ACME);
        assert!(chosen.is_new);
        assert_eq!(masks.add(1, ACME, &chosen), Some(1));
        let again = masks.choose(&bits(24), ACME);
        assert!(!again.is_new);
        assert_eq!(masks.add(1, ACME, &again), None);
        assert_eq!(masks.add(2, EVIL, &again), Some(1));
        assert_eq!(masks.remove(1, ACME, 0), None);
        assert_eq!(masks.remove(1, ACME, 0), Some(0));
        assert_eq!(masks.remove(2, EVIL, 0), Some(0));
        assert_eq!(masks.iter().count(), 0);
        assert_eq!((masks.number_of(ACME), masks.number_of(EVIL)), (0, 0));
    }

    #[test]
    fn past_its_quota_a_tenant_gets_the_widest_of_its_masks_that_serves() {
        let mut masks = Masks::default();
        let (mut wide, mut wider) = (bits(32), bits(32));
        wide.head.l4_dst = u16::MAX;
        wider.head.l4_dst = 0xff00;
        flow(&mut masks, 1, EVIL, &wide);
        flow(&mut masks, 1, EVIL, &wider);
        for count in 2..MASKS_PER_TENANT_MAX as u32 {
            assert!(flow(&mut masks, 1, EVIL, &bits(count)).is_new);
        }
        let mut wanted = bits(32);
        wanted.head.l4_dst = 0x8000;
        assert_eq!(masks.choose(&wanted, EVIL).bits, wider);
        wanted.head.l4_dst = 0x8080;
        assert_eq!(masks.choose(&wanted, EVIL).bits, wide);
        // Nothing of its own has this bit: all bits are matched, under the last number.
        wanted.head.tos = 1;
        let last = flow(&mut masks, 1, EVIL, &wanted);
        assert_eq!(
            (last.number, last.bits, last.is_new),
            (EXACT, exact(), true)
        );
        assert!(!masks.choose(&wanted, EVIL).is_new);
        assert_eq!(masks.number_of(EVIL), MASKS_PER_TENANT_MAX);
    }

    #[test]
    fn a_tenant_that_provokes_every_prefix_leaves_the_masks_of_others_alone() {
        let mut masks = Masks::default();
        for count in 1..=32 {
            for port in 0..64 {
                let mut provoked = bits(count);
                provoked.head.l4_src = port;
                flow(&mut masks, 1, EVIL, &provoked);
            }
        }
        let mine = flow(&mut masks, 2, ACME, &bits(24));
        assert_eq!((mine.bits, mine.is_new), (bits(24), true));
        assert_eq!(masks.set_of(2).count_ones(), 1);
        assert!(masks.set_of(1).count_ones() as usize <= MASKS_PER_TENANT_MAX + 1);
    }

    #[test]
    fn when_every_number_is_taken_all_bits_are_matched() {
        let mut masks = Masks::default();
        for owner in 0..8 {
            for count in 0..MASKS_PER_TENANT_MAX as u32 {
                let mut other = bits(count + 1);
                other.head.protocol = owner as u8;
                flow(&mut masks, 1, owner, &other);
            }
        }
        let mut wanted = bits(9);
        wanted.head.protocol = 200;
        assert_eq!(masks.choose(&wanted, 99).bits, exact());
    }
}
