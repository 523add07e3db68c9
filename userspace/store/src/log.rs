//! The last changes of a store, for those who watch it: bounded, and each watcher reads at its own
//! pace. One that falls behind the log is reset rather than waited for.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use weft_api::types::Change;

/// Changes that are kept.
pub const CHANGES_MAX: usize = 4096;

/// The last changes, numbered without gaps.
#[derive(Debug)]
pub struct ChangeLog {
    changes: VecDeque<Arc<Change>>,
    /// Sequence of the newest change, also while none is kept.
    newest: watch::Sender<u64>,
    limit: usize,
}

/// What a watcher may read next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This change.
    Change(Arc<Change>),
    /// Nothing yet.
    Nothing,
    /// It is not to be had: too old, or of a store that went back.
    Lost,
}

impl ChangeLog {
    /// A log that starts after `sequence` and keeps `limit` changes.
    pub fn new(sequence: u64, limit: usize) -> Self {
        ChangeLog {
            changes: VecDeque::new(),
            newest: watch::Sender::new(sequence),
            limit,
        }
    }

    /// Sequence of the newest change.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Tells when there is something newer.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Adds the next change.
    pub fn push(&mut self, change: Change) {
        debug_assert_eq!(change.sequence, self.newest() + 1);
        let sequence = change.sequence;
        self.changes.push_back(Arc::new(change));
        if self.changes.len() > self.limit {
            self.changes.pop_front();
        }
        self.newest.send_replace(sequence);
    }

    /// The change after `sequence`.
    pub fn after(&self, sequence: u64) -> Next {
        let newest = self.newest();
        if sequence == newest {
            return Next::Nothing;
        }
        // Kept are the last `changes.len()` numbers up to `newest`.
        let behind = newest
            .checked_sub(sequence)
            .and_then(|behind| usize::try_from(behind).ok());
        let index = behind.and_then(|behind| self.changes.len().checked_sub(behind));
        match index.and_then(|index| self.changes.get(index)) {
            Some(change) => Next::Change(Arc::clone(change)),
            None => Next::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sequence: u64) -> Change {
        Change {
            sequence,
            revision: 0,
            operations: Vec::new(),
            state: Vec::new(),
        }
    }

    fn next(log: &ChangeLog, sequence: u64) -> Option<u64> {
        match log.after(sequence) {
            Next::Change(change) => Some(change.sequence),
            Next::Nothing => None,
            Next::Lost => Some(0),
        }
    }

    #[test]
    fn a_log_gives_the_next_change_or_says_that_it_is_lost() {
        let mut log = ChangeLog::new(10, 3);
        assert_eq!(
            (next(&log, 10), next(&log, 9), next(&log, 11)),
            (None, Some(0), Some(0))
        );
        (11..=15).for_each(|sequence| log.push(change(sequence)));
        let seen: Vec<_> = (10..=16).map(|from| next(&log, from)).collect();
        assert_eq!(
            seen,
            [
                Some(0),
                Some(0),
                Some(13),
                Some(14),
                Some(15),
                None,
                Some(0)
            ],
            "13, 14 and 15 are kept"
        );
    }
}
