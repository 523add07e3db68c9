//! The masks of one family: at most 64, shared by all flows, and each port's set of those that its flows use.

use std::collections::HashMap;
use weft_common::FlowKey;
use weft_common::limits::MASKS_MAX;

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
    /// A mask with at least these bits: the very one, a free one, or, when all are taken, one that exists and
    /// matches more bits (a narrower flow is still right). None when there is no such mask.
    pub fn choose(&self, bits: &FlowKey) -> Option<Chosen> {
        if let Some(&number) = self.by_bits.get(bits) {
            return Some(Chosen {
                number,
                bits: *bits,
                is_new: false,
            });
        }
        let free = self
            .masks
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.masks.len());
        if free < MASKS_MAX as usize {
            return Some(Chosen {
                number: free as u32,
                bits: *bits,
                is_new: true,
            });
        }
        let narrower = self.masks.iter().enumerate().find_map(|(number, mask)| {
            let mask = mask.as_ref()?;
            (mask.bits.masked(bits) == *bits).then_some((number as u32, mask.bits))
        });
        narrower.map(|(number, bits)| Chosen {
            number,
            bits,
            is_new: false,
        })
    }

    /// Counts a flow of `port` under a chosen mask. Returns the port's set of masks when it changed.
    pub fn add(&mut self, port: u16, chosen: &Chosen) -> Option<u64> {
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
        let flows = self.ports.entry((port, chosen.number)).or_default();
        *flows += 1;
        (*flows == 1).then(|| self.set_of(port))
    }

    /// Counts a flow that an earlier agent published under the mask with this number. False, and nothing is
    /// counted, when the number has other bits.
    pub fn adopt(&mut self, port: u16, number: u32, bits: &FlowKey) -> bool {
        let position = number as usize;
        let held = self.masks.get(position).and_then(Option::as_ref);
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
        self.add(port, &chosen);
        true
    }

    /// Takes a flow of `port` away again. Returns the port's set of masks when it changed.
    pub fn remove(&mut self, port: u16, number: u32) -> Option<u64> {
        if let Some(slot) = self.masks.get_mut(number as usize)
            && let Some(mask) = slot
        {
            mask.flows = mask.flows.saturating_sub(1);
            if mask.flows == 0 {
                self.by_bits.remove(&mask.bits);
                *slot = None;
            }
        }
        let flows = self.ports.get_mut(&(port, number))?;
        *flows = flows.saturating_sub(1);
        if *flows > 0 {
            return None;
        }
        self.ports.remove(&(port, number));
        Some(self.set_of(port))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(count: u32) -> FlowKey {
        let mut mask = FlowKey::default();
        mask.set_dst_v4((u32::MAX << (32 - count.min(32))).to_be_bytes());
        mask.head.port = u16::MAX;
        mask.head.l4_dst = count as u16;
        mask
    }

    #[test]
    fn a_mask_is_shared_and_freed_with_its_last_flow() {
        let mut masks = Masks::default();
        let chosen = masks.choose(&bits(24)).unwrap();
        assert!(chosen.is_new);
        assert_eq!(masks.add(1, &chosen), Some(1));
        let again = masks.choose(&bits(24)).unwrap();
        assert!(!again.is_new);
        assert_eq!(masks.add(1, &again), None);
        assert_eq!(masks.add(2, &again), Some(1));
        assert_eq!(masks.remove(1, 0), None);
        assert_eq!(masks.remove(1, 0), Some(0));
        assert_eq!(masks.remove(2, 0), Some(0));
        assert_eq!(masks.iter().count(), 0);
    }

    #[test]
    fn when_all_are_taken_a_narrower_one_serves() {
        let mut masks = Masks::default();
        let mut all = bits(32);
        all.head.l4_dst = u16::MAX;
        let chosen = masks.choose(&all).unwrap();
        masks.add(1, &chosen);
        for count in 1..MASKS_MAX {
            let chosen = masks.choose(&bits(count)).unwrap();
            masks.add(1, &chosen);
        }
        let mut wanted = bits(32);
        wanted.head.l4_dst = 0x8000;
        assert_eq!(masks.choose(&wanted).unwrap().bits, all);
        wanted.head.tos = 1;
        assert_eq!(masks.choose(&wanted), None);
    }
}
