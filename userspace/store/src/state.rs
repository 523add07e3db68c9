//! Replicated state in memory: entries by key, each with the host that wrote it last.

use std::collections::BTreeMap;

use weft_api::types::{OwnedState, StateChange, StateUpdate};

/// All entries.
pub(crate) type Table = BTreeMap<String, OwnedState>;

/// Entries that one owner may have.
const ENTRIES_PER_OWNER_MAX: usize = 1 << 18;

/// What an update changes: nothing for an entry that is already as it says.
pub(crate) fn changes(table: &Table, owner: &str, update: StateUpdate) -> Vec<StateChange> {
    let StateUpdate {
        put,
        remove,
        replace,
    } = update;
    let own = |entry| OwnedState {
        owner: owner.to_owned(),
        entry,
    };
    // The last entry of a key counts, as if they had come one by one.
    let put: BTreeMap<String, OwnedState> = put
        .into_iter()
        .map(|entry| (entry.key(), own(entry)))
        .collect();
    let mut gone: BTreeMap<&String, &OwnedState> = BTreeMap::new();
    for entry in remove {
        // By value: what came after the entry that is meant stays, of this owner or another.
        let held = table.get_key_value(&entry.key());
        gone.extend(held.filter(|(_, held)| held.owner == owner && held.entry == entry));
    }
    if replace {
        gone.extend(table.iter().filter(|(_, held)| held.owner == owner));
    }
    let removed = gone.into_iter().filter(|(key, _)| !put.contains_key(*key));
    let mut changes: Vec<StateChange> = removed
        .map(|(_, held)| StateChange::Remove(held.clone()))
        .collect();
    let new = put
        .into_iter()
        .filter(|(key, entry)| table.get(key) != Some(entry));
    changes.extend(new.map(|(_, entry)| StateChange::Put(entry)));
    changes
}

/// Whether an owner keeps to its bound with these changes; if not, the words for it.
pub(crate) fn check_bound(
    table: &Table,
    owner: &str,
    changes: &[StateChange],
) -> Result<(), String> {
    let is_own = |key: &str| table.get(key).is_some_and(|held| held.owner == owner);
    let mut owned = table.values().filter(|held| held.owner == owner).count();
    for change in changes {
        match change {
            StateChange::Put(put) if !is_own(&put.entry.key()) => owned += 1,
            StateChange::Put(_) => {}
            StateChange::Remove(_) => owned -= 1,
        }
    }
    if owned > ENTRIES_PER_OWNER_MAX {
        return Err(format!(
            "{owner} would own {owned} entries of state, expected at most {ENTRIES_PER_OWNER_MAX}"
        ));
    }
    Ok(())
}

/// Does changes to a table.
pub(crate) fn apply(table: &mut Table, changes: &[StateChange]) {
    for change in changes {
        match change {
            StateChange::Put(owned) => {
                table.insert(owned.entry.key(), owned.clone());
            }
            StateChange::Remove(owned) => {
                table.remove(&owned.entry.key());
            }
        }
    }
}
