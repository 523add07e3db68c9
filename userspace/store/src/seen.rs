//! What is remembered of a store, so that one that comes back empty or older is refused by name
//! rather than obeyed: obeying it would take down every network that it has forgotten.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weft_api::types::{Change, Contents};

use crate::{Result, StoreError};

/// The newest that was seen of a store. The agent keeps it on disk beside its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The store's identity.
    pub store: Uuid,
    /// Its topology's revision.
    pub revision: u64,
    /// Its sequence.
    pub sequence: u64,
}

impl Seen {
    /// What there is to remember of contents.
    pub fn of(contents: &Contents) -> Self {
        let Contents {
            store,
            revision,
            sequence,
            ..
        } = contents;
        Seen {
            store: *store,
            revision: *revision,
            sequence: *sequence,
        }
    }

    /// Remembers a change of the same store.
    pub fn advance(&mut self, change: &Change) {
        self.revision = self.revision.max(change.revision);
        self.sequence = self.sequence.max(change.sequence);
    }

    /// Compares contents, read from `url`, with what is remembered.
    ///
    /// # Errors
    /// [`StoreError::WentBack`] when they are of another store or older.
    pub fn check(&self, url: &str, contents: &Contents) -> Result<()> {
        let reason = if contents.store != self.store {
            let empty = if contents.objects.is_empty() {
                "empty and "
            } else {
                ""
            };
            format!(
                "it is {empty}another store ({} at revision {}, seen was {} at revision {})",
                contents.store, contents.revision, self.store, self.revision
            )
        } else if contents.revision < self.revision {
            format!(
                "it is at revision {}, seen was {}",
                contents.revision, self.revision
            )
        } else {
            return Ok(());
        };
        Err(StoreError::WentBack {
            url: url.to_owned(),
            reason,
            remembered: "the snapshot that weftd keeps".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_or_older_store_is_refused_a_newer_one_is_not() {
        let now = Contents {
            store: Uuid::from_u128(1),
            revision: 5,
            ..Contents::default()
        };
        let seen = Seen::of(&now);
        seen.check("u", &now).unwrap();
        seen.check(
            "u",
            &Contents {
                revision: 6,
                ..now.clone()
            },
        )
        .unwrap();
        let older = seen
            .check(
                "u",
                &Contents {
                    revision: 4,
                    ..now.clone()
                },
            )
            .unwrap_err();
        assert!(
            older
                .to_string()
                .contains("it is at revision 4, seen was 5"),
            "{older}"
        );
        let other = seen
            .check(
                "u",
                &Contents {
                    store: Uuid::from_u128(2),
                    ..now
                },
            )
            .unwrap_err();
        assert!(
            other.to_string().contains("it is empty and another store"),
            "{other}"
        );
    }
}
