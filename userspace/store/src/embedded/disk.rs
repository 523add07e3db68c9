//! The file of the embedded store: objects and state as JSON by their keys, and what is known of
//! the store itself. A transaction of the file for each change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use weft_api::types::{Change, OwnedState, StateChange};
use weft_vnet::policy::{AddressGroup, Policy, compare_members};
use weft_vnet::{AddressGroupId, Model, Object};

use crate::state::Table as StateTable;
use crate::{Result, StoreError};

/// "KIND/UUID" to an [`Object`].
const OBJECTS: TableDefinition<'static, &str, &str> = TableDefinition::new("objects");
/// "UUID/PREFIX", a member of an address group, to nothing: one that comes or goes is one entry of the file, however
/// many there are (ADR 16). The group's object is kept without them.
const MEMBERS: TableDefinition<'static, &str, &str> = TableDefinition::new("members");
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
            write.open_table(MEMBERS)?;
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
            members: all(MEMBERS)?,
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
            let put = &mut table;
            difference(put, "tenant", &old.tenants, &new.tenants, Object::Tenant)?;
            difference(put, "zone", &old.zones, &new.zones, Object::TunnelZone)?;
            difference(put, "host", &old.hosts, &new.hosts, Object::Host)?;
            difference(put, "bridge", &old.bridges, &new.bridges, Object::Bridge)?;
            difference(put, "router", &old.routers, &new.routers, Object::Router)?;
            difference(put, "port", &old.ports, &new.ports, Object::Port)?;
            let (old, new) = (&old.policy, &new.policy);
            difference(put, "chain", &old.chains, &new.chains, Object::Chain)?;
            let groups = (&old.port_groups, &new.port_groups);
            difference(put, "port_group", groups.0, groups.1, Object::PortGroup)?;
        }
        address_groups(&write, &old.policy, &new.policy)?;
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

/// Writes the difference of address groups: their objects without members, and each member that comes or goes.
fn address_groups(
    write: &WriteTransaction,
    old: &Policy,
    new: &Policy,
) -> std::result::Result<(), redb::Error> {
    let (old, new) = (&old.address_groups, &new.address_groups);
    let heads = |groups: &BTreeMap<AddressGroupId, Arc<AddressGroup>>| {
        let head = |(id, group): (&AddressGroupId, &Arc<AddressGroup>)| (*id, head(group));
        groups.iter().map(head).collect::<BTreeMap<_, _>>()
    };
    difference(
        &mut write.open_table(OBJECTS)?,
        "address_group",
        &heads(old),
        &heads(new),
        Object::AddressGroup,
    )?;
    let mut table = write.open_table(MEMBERS)?;
    let ids: BTreeSet<&AddressGroupId> = old.keys().chain(new.keys()).collect();
    for id in ids {
        let (before, after) = (old.get(id), new.get(id));
        if before.zip(after).is_some_and(|(a, b)| Arc::ptr_eq(a, b)) {
            continue;
        }
        let members = |group: Option<&Arc<AddressGroup>>| -> Vec<IpNet> {
            group.map_or_else(Vec::new, |it| it.prefixes.clone())
        };
        let (come, go) = compare_members(&members(before), &members(after));
        for prefix in go {
            table.remove(format!("{id}/{prefix}").as_str())?;
        }
        for prefix in come {
            table.insert(format!("{id}/{prefix}").as_str(), "")?;
        }
    }
    Ok(())
}

/// A group without its members.
fn head(group: &AddressGroup) -> Arc<AddressGroup> {
    let AddressGroup {
        id,
        tenant,
        name,
        prefixes: _,
    } = group;
    Arc::new(AddressGroup {
        id: *id,
        tenant: *tenant,
        name: name.clone(),
        prefixes: Vec::new(),
    })
}

fn json(value: &impl Serialize) -> std::result::Result<String, redb::Error> {
    serde_json::to_string(value).map_err(|error| redb::Error::Io(io::Error::other(error)))
}

/// The whole file as text.
struct Tables {
    objects: BTreeMap<String, String>,
    members: BTreeMap<String, String>,
    state: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
}

impl Tables {
    fn load(&self) -> std::result::Result<Loaded, String> {
        let format = self.meta("format")?;
        if format != FORMAT {
            return Err(format!("its format is {format}, this weft knows {FORMAT}"));
        }
        let mut objects: Vec<Object> = values(&self.objects)?;
        let mut members = self.members_by_group()?;
        for object in &mut objects {
            if let Object::AddressGroup(group) = object {
                group.prefixes = members.remove(&group.id).unwrap_or_default();
            }
        }
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

    fn members_by_group(
        &self,
    ) -> std::result::Result<BTreeMap<AddressGroupId, Vec<IpNet>>, String> {
        let mut members: BTreeMap<AddressGroupId, Vec<IpNet>> = BTreeMap::new();
        for key in self.members.keys() {
            let parsed = key
                .split_once('/')
                .and_then(|(id, prefix)| Some((id.parse().ok()?, prefix.parse().ok()?)));
            let (id, prefix) = parsed.ok_or_else(|| format!("`{key}` is no member of a group"))?;
            members.entry(id).or_default().push(prefix);
        }
        Ok(members)
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
