//! Numbers of kernel records: each is given out once, and one that an earlier agent's flows still go by is given
//! to nobody until those are gone.

use std::collections::BTreeSet;

/// Which numbers are free. 0 never is.
pub struct Indices {
    end: u32,
    next: u32,
    free: Vec<u32>,
    /// In use when this agent started: given out only after they were freed.
    earlier: BTreeSet<u32>,
    /// Those of them that nobody claimed.
    held: BTreeSet<u32>,
}

impl Indices {
    /// All numbers from 1 below `end` are free.
    pub fn new(end: u32) -> Indices {
        Indices {
            end,
            next: 1,
            free: Vec::new(),
            earlier: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    /// Keeps a number that an earlier agent uses. Only before any was given out.
    pub fn hold(&mut self, index: u32) {
        if (1..self.end).contains(&index) {
            self.earlier.insert(index);
            self.held.insert(index);
        }
    }

    /// Takes a number over for what the earlier agent used it for; false when it isn't held.
    pub fn claim(&mut self, index: u32) -> bool {
        self.held.remove(&index)
    }

    /// Frees what is still held: nothing of the earlier agent's is left that goes by it.
    pub fn let_go(&mut self) {
        self.free.extend(std::mem::take(&mut self.held));
    }

    /// A free number.
    pub fn allocate(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = (self.next..self.end).find(|index| !self.earlier.contains(index))?;
        self.next = index + 1;
        Some(index)
    }

    /// Gives a number back, for use at once.
    pub fn free(&mut self, index: u32) {
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_earlier_agent_are_claimed_or_rest() {
        let mut indices = Indices::new(6);
        for index in [0, 2, 3, 4, 6] {
            indices.hold(index);
        }
        assert!(indices.claim(3) && !indices.claim(3) && !indices.claim(1));
        assert_eq!(
            [(); 3].map(|()| indices.allocate()),
            [Some(1), Some(5), None]
        );
        indices.free(3);
        assert_eq!([(); 2].map(|()| indices.allocate()), [Some(3), None]);
        indices.let_go();
        let mut rest = [(); 3].map(|()| indices.allocate());
        rest.sort();
        assert_eq!(rest, [None, Some(2), Some(4)]);
    }
}
