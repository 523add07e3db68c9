//! The file of the embedded store: objects and state as JSON by their keys, and what is known of
//! the store itself. A transaction of the file for each change.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use weft_api::types::{Change, OwnedState, StateChange};
use weft_vnet::{Model, Object};

use crate::state::Table as StateTable;
use crate::{Result, StoreError};

/// "KIND/UUID" to an [`Object`].
const OBJECTS: TableDefinition<'static, &str, &str> = TableDefinition::new("objects");
/// A state entry's key to an [`OwnedState`].
const STATE: TableDefinition<'static, &str, &str> = TableDefinition::new("state");
/// `format`, `store`, `revision`, `sequence`.
const META: TableDefinition<'static, &str, &str> = TableDefinition::new("meta");
/// Version of what the tables hold.
const FORMAT: &str = "1";

/// The open file; none between a failed write and the time when it can be opened again.
pub(super) struct Disk {
    database: Option<Database>,
}

/// What the file held when it was opened.
pub(super) struct Loaded {
    pub(super) store: Uuid,
    pub(super) sequence: u64,
    pub(super) model: Model,
    pub(super) state: StateTable,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Disk, Loaded)> {
        let url = format!("embedded:{}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| {
                StoreError::Unavailable(format!("{url}: can't make {}: {error}", folder.display()))
            })?;
        }
        let database = Database::create(path).map_err(|error| unopened(&url, error))?;
        let mut disk = Disk {
            database: Some(database),
        };
        disk.found()
            .map_err(|error| StoreError::Unavailable(format!("{url}: {error}")))?;
        let corrupt = |reason: String| StoreError::Corrupt {
            url: url.clone(),
            reason,
        };
        let tables = disk.tables().map_err(|error| corrupt(error.to_string()))?;
        let loaded = tables.load().map_err(corrupt)?;
        Ok((disk, loaded))
    }

    /// Closes the file and opens it anew: after a failed write nothing else can be done with it.
    pub(super) fn open_again(&mut self, path: &Path) -> Result<Loaded> {
        self.database = None;
        let (disk, loaded) = Disk::open(path)?;
        *self = disk;
        Ok(loaded)
    }

    fn begin_write(&self) -> std::result::Result<WriteTransaction, redb::Error> {
        let database = self.database.as_ref().ok_or_else(closed)?;
        Ok(database.begin_write()?)
    }

    /// Writes nothing new, to see whether that goes.
    pub(super) fn write_numbers(
        &mut self,
        revision: u64,
        sequence: u64,
    ) -> std::result::Result<(), redb::Error> {
        let write = self.begin_write()?;
        numbers(&write, revision, sequence)?;
        write.commit()?;
        Ok(())
    }

    /// Makes the tables of a new file.
    fn found(&mut self) -> std::result::Result<(), redb::Error> {
        let write = self.begin_write()?;
        {
            write.open_table(OBJECTS)?;
            write.open_table(STATE)?;
            let mut meta = write.open_table(META)?;
            if meta.get("format")?.is_none() {
                meta.insert("format", FORMAT)?;
                meta.insert("store", Uuid::new_v4().to_string().as_str())?;
                meta.insert("revision", "0")?;
                meta.insert("sequence", "0")?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn tables(&self) -> std::result::Result<Tables, redb::Error> {
        let read = self.database.as_ref().ok_or_else(closed)?.begin_read()?;
        let all = |definition: TableDefinition<'static, &str, &str>| -> std::result::Result<BTreeMap<String, String>, redb::Error> {
            let table = read.open_table(definition)?;
            let mut entries = BTreeMap::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                entries.insert(key.value().to_owned(), value.value().to_owned());
            }
            Ok(entries)
        };
        Ok(Tables {
            objects: all(OBJECTS)?,
            state: all(STATE)?,
            meta: all(META)?,
        })
    }

    /// Writes what differs between two models.
    pub(super) fn write_model(
        &mut self,
        old: &Model,
        new: &Model,
        sequence: u64,
    ) -> std::result::Result<(), redb::Error> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(OBJECTS)?;
            difference(
                &mut table,
                "tenant",
                &old.tenants,
                &new.tenants,
                Object::Tenant,
            )?;
            difference(
                &mut table,
                "zone",
                &old.zones,
                &new.zones,
                Object::TunnelZone,
            )?;
            difference(&mut table, "host", &old.hosts, &new.hosts, Object::Host)?;
            difference(
                &mut table,
                "bridge",
                &old.bridges,
                &new.bridges,
                Object::Bridge,
            )?;
            difference(
                &mut table,
                "router",
                &old.routers,
                &new.routers,
                Object::Router,
            )?;
            difference(&mut table, "port", &old.ports, &new.ports, Object::Port)?;
        }
        numbers(&write, new.revision, sequence)?;
        write.commit()?;
        Ok(())
    }

    /// Writes the state that changed.
    pub(super) fn write_state(&mut self, change: &Change) -> std::result::Result<(), redb::Error> {
        let write = self.begin_write()?;
        {
            let mut table = write.open_table(STATE)?;
            for change in &change.state {
                match change {
                    StateChange::Put(owned) => {
                        table.insert(owned.entry.key().as_str(), json(owned)?.as_str())?;
                    }
                    StateChange::Remove(owned) => {
                        table.remove(owned.entry.key().as_str())?;
                    }
                }
            }
        }
        numbers(&write, change.revision, change.sequence)?;
        write.commit()?;
        Ok(())
    }
}

fn closed() -> redb::Error {
    redb::Error::Io(io::Error::other("the file is closed after a failed write"))
}

fn unopened(url: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            StoreError::Unavailable(format!("{url} is open already, in another weftd"))
        }
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() != io::ErrorKind::InvalidData =>
        {
            StoreError::Unavailable(format!("{url} can't be opened: {error}"))
        }
        error => StoreError::Corrupt {
            url: url.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn numbers(
    write: &WriteTransaction,
    revision: u64,
    sequence: u64,
) -> std::result::Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("revision", revision.to_string().as_str())?;
    meta.insert("sequence", sequence.to_string().as_str())?;
    Ok(())
}

/// Writes one kind's difference. Objects are shared between models: the same pointer is the same
/// object.
fn difference<K: Ord + std::fmt::Display, T: Clone + PartialEq>(
    table: &mut Table<'_, &'static str, &'static str>,
    kind: &str,
    old: &BTreeMap<K, Arc<T>>,
    new: &BTreeMap<K, Arc<T>>,
    object: impl Fn(T) -> Object,
) -> std::result::Result<(), redb::Error> {
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        table.remove(format!("{kind}/{id}").as_str())?;
    }
    for (id, value) in new {
        let same = |old: &Arc<T>| Arc::ptr_eq(old, value) || old == value;
        if !old.get(id).is_some_and(same) {
            let text = json(&object(T::clone(value)))?;
            table.insert(format!("{kind}/{id}").as_str(), text.as_str())?;
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> std::result::Result<String, redb::Error> {
    serde_json::to_string(value).map_err(|error| redb::Error::Io(io::Error::other(error)))
}

/// The whole file as text.
struct Tables {
    objects: BTreeMap<String, String>,
    state: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
}

impl Tables {
    fn load(&self) -> std::result::Result<Loaded, String> {
        let format = self.meta("format")?;
        if format != FORMAT {
            return Err(format!("its format is {format}, this weft knows {FORMAT}"));
        }
        let objects: Vec<Object> = values(&self.objects)?;
        let model = Model::restore(objects, self.number("revision")?);
        let model = model.map_err(|invalid| {
            let reasons: Vec<String> = invalid.iter().map(ToString::to_string).collect();
            format!("its topology contradicts itself: {}", reasons.join("; "))
        })?;
        let state: Vec<OwnedState> = values(&self.state)?;
        let store = self.meta("store")?;
        Ok(Loaded {
            store: store
                .parse()
                .map_err(|error| format!("`store` {store}: {error}"))?,
            sequence: self.number("sequence")?,
            model,
            state: state
                .into_iter()
                .map(|owned| (owned.entry.key(), owned))
                .collect(),
        })
    }

    fn meta(&self, key: &str) -> std::result::Result<&str, String> {
        self.meta
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| format!("`{key}` is missing"))
    }

    fn number(&self, key: &str) -> std::result::Result<u64, String> {
        let text = self.meta(key)?;
        text.parse()
            .map_err(|error| format!("`{key}` {text}: {error}"))
    }
}

fn values<T: DeserializeOwned>(
    table: &BTreeMap<String, String>,
) -> std::result::Result<Vec<T>, String> {
    let parsed = table
        .iter()
        .map(|(key, text)| serde_json::from_str(text).map_err(|error| format!("`{key}`: {error}")));
    parsed.collect()
}
