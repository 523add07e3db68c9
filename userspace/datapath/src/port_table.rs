//! Which tunnel key belongs to what: indices of ports and flood sets, with generations that don't come back
//! within [`TUNNEL_KEY_REUSE_SECS_MIN`].

use crate::Error;
use std::collections::{HashMap, VecDeque};
use weft_common::TunnelKey;
use weft_common::limits::{PORTS_MAX, TUNNEL_KEY_REUSE_SECS_MIN};

/// Indices in use and when the others were given up.
#[derive(Debug)]
pub struct PortTable {
    /// Last generation given out, by index.
    generations: Vec<u8>,
    used: HashMap<u16, TunnelKey>,
    never_used: VecDeque<u16>,
    /// Released indices with the second at which that happened, oldest first.
    released: VecDeque<(u64, u16)>,
}

impl Default for PortTable {
    fn default() -> PortTable {
        PortTable::new(|_| 0, 0)
    }
}

impl PortTable {
    /// A table over what an earlier agent left: `generation_of` is the last one of each index, 0 if never used.
    pub fn new(generation_of: impl Fn(u16) -> u8, now_secs: u64) -> PortTable {
        let indices = 1..PORTS_MAX as u16;
        let mut generations = vec![0];
        generations.extend(indices.clone().map(&generation_of));
        let (never_used, seen): (VecDeque<u16>, VecDeque<u16>) =
            indices.partition(|&index| generation_of(index) == 0);
        let released = seen.into_iter().map(|index| (now_secs, index)).collect();
        PortTable {
            generations,
            used: HashMap::new(),
            never_used,
            released,
        }
    }

    /// A key for something new.
    ///
    /// # Errors
    /// [`Error::Full`] when all indices are in use or were in use too recently.
    pub fn allocate(&mut self, now_secs: u64) -> Result<TunnelKey, Error> {
        let index = match self.never_used.pop_front() {
            Some(index) => index,
            None => self.rested(now_secs).ok_or(Error::Full {
                what: "ports",
                limit: u64::from(PORTS_MAX),
            })?,
        };
        let generation = match self.generations.get_mut(usize::from(index)) {
            Some(last) => {
                // 0 means "never used", so that a fresh map's records never match a key.
                *last = last.checked_add(1).unwrap_or(1);
                *last
            }
            None => 1,
        };
        let key = TunnelKey { index, generation };
        self.used.insert(index, key);
        Ok(key)
    }

    /// Takes over a key that an earlier agent of this host gave out; false when it isn't this host's last.
    pub fn adopt(&mut self, key: TunnelKey) -> bool {
        let is_last = self.generations.get(usize::from(key.index)) == Some(&key.generation);
        if key.index == 0 || key.generation == 0 || !is_last || self.used.contains_key(&key.index) {
            return false;
        }
        self.released.retain(|(_, index)| *index != key.index);
        self.used.insert(key.index, key);
        true
    }

    /// Notes a key that this host is said to have given out, where nothing else is known of its index: the kernel's
    /// records are gone after a reboot, but other hosts may still send under it.
    pub fn recall(&mut self, key: TunnelKey, now_secs: u64) {
        if let Some(last) = self.generations.get_mut(usize::from(key.index))
            && *last == 0
            && key.index != 0
        {
            *last = key.generation;
            self.never_used.retain(|index| *index != key.index);
            self.released.push_back((now_secs, key.index));
        }
    }

    /// Gives a key up.
    pub fn release(&mut self, key: TunnelKey, now_secs: u64) {
        if self.used.remove(&key.index).is_some() {
            self.released.push_back((now_secs, key.index));
        }
    }

    fn rested(&mut self, now_secs: u64) -> Option<u16> {
        let &(since, index) = self.released.front()?;
        if now_secs.saturating_sub(since) < TUNNEL_KEY_REUSE_SECS_MIN {
            return None;
        }
        self.released.pop_front();
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_comes_back_soon() {
        let mut table = PortTable::default();
        let keys: Vec<TunnelKey> = (1..PORTS_MAX).map(|_| table.allocate(0).unwrap()).collect();
        assert!(matches!(table.allocate(0), Err(Error::Full { .. })));
        table.release(keys[4], 100);
        assert!(table.allocate(100 + TUNNEL_KEY_REUSE_SECS_MIN - 1).is_err());
        let again = table.allocate(100 + TUNNEL_KEY_REUSE_SECS_MIN).unwrap();
        assert_eq!(
            (again.index, again.generation),
            (keys[4].index, keys[4].generation + 1)
        );
    }

    #[test]
    fn a_key_that_others_know_is_not_given_out_anew() {
        let mut table = PortTable::default();
        let said = TunnelKey {
            index: 1,
            generation: 9,
        };
        table.recall(said, 0);
        assert_eq!(table.allocate(0).unwrap().index, 2);
        assert!(table.adopt(said));
        table.recall(
            TunnelKey {
                index: 1,
                generation: 3,
            },
            0,
        );
        table.release(said, 0);
        let rest: Vec<TunnelKey> = (3..PORTS_MAX).map(|_| table.allocate(0).unwrap()).collect();
        assert!(rest.iter().all(|key| key.index > 2));
        let again = table.allocate(TUNNEL_KEY_REUSE_SECS_MIN).unwrap();
        assert_eq!((again.index, again.generation), (1, 10));
    }

    #[test]
    fn the_last_key_of_an_earlier_agent_is_adopted_once() {
        let mut table = PortTable::new(|index| if index == 3 { 7 } else { 0 }, 0);
        assert!(!table.adopt(TunnelKey {
            index: 3,
            generation: 6
        }));
        assert!(table.adopt(TunnelKey {
            index: 3,
            generation: 7
        }));
        assert!(!table.adopt(TunnelKey {
            index: 3,
            generation: 7
        }));
        assert_ne!(table.allocate(0).unwrap().index, 3);
    }
}
