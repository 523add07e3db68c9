//! Compiled ACLs, a map each inside `acls`, and the table of sets. Written by the agent, read by the programs.

use crate::Error;
use crate::kernel::maps::Record;
use crate::kernel::syscall;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData, MapError};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use weft_common::acl::{Cell, HEAD, Head, SetKey, SetList};

type KeyBytes = Record<SetKey, { size_of::<SetKey>() }>;
type ListBytes = Record<SetList, { size_of::<SetList>() }>;

/// See the module's text.
pub struct Acls {
    /// `acls`. aya has no way to write many at once, and after each write the kernel waits for all running programs.
    outer: MapData,
    /// Those that this agent wrote, by number: the map and its length.
    tables: BTreeMap<u16, (OwnedFd, u32)>,
    /// The sets that addresses are in.
    sets: LpmTrie<MapData, KeyBytes, ListBytes>,
}

impl Acls {
    /// Takes over both maps.
    pub fn open(outer: Map, sets: Map) -> Result<Acls, Error> {
        let Map::ArrayOfMaps(outer) = outer else {
            return Err(Error::Map {
                map: "acls",
                detail: "isn't an array of maps".to_owned(),
            });
        };
        Ok(Acls {
            outer,
            tables: BTreeMap::new(),
            sets: LpmTrie::try_from(sets).map_err(|error| Error::map("acl_sets", &error))?,
        })
    }

    /// Puts ACLs in the places of these numbers, each at once. Waits for programs that run (some 10 ms), once for all.
    pub fn write(&mut self, acls: &[(u16, Vec<Cell>)]) -> Result<(), Error> {
        let failed = |source| Error::io("writing compiled ACLs", source);
        let mut tables = Vec::new();
        for (number, cells) in acls {
            let length = cells.len() as u32;
            let table = syscall::create_inner_array(length).map_err(failed)?;
            let keys: Vec<u32> = (0..length).collect();
            syscall::update_batch(table.as_fd(), &keys, cells).map_err(failed)?;
            tables.push((*number, (table, length)));
        }
        let keys: Vec<u32> = tables.iter().map(|(number, _)| (*number).into()).collect();
        let fds: Vec<i32> = tables.iter().map(|(_, (fd, _))| fd.as_raw_fd()).collect();
        syscall::update_batch(self.outer.fd().as_fd(), &keys, &fds).map_err(failed)?;
        self.tables.extend(tables);
        Ok(())
    }

    /// Takes an ACL away.
    pub fn remove(&mut self, number: u16) -> Result<(), Error> {
        self.tables.remove(&number);
        syscall::delete_key(self.outer.fd().as_fd(), &u32::from(number))
            .map_err(|source| Error::io("removing a compiled ACL", source))
    }

    /// Packets and bytes of each rule of an ACL that this agent wrote.
    pub fn counters(&self, number: u16) -> Result<Vec<Cell>, Error> {
        let Some((table, length)) = self.tables.get(&number) else {
            return Ok(Vec::new());
        };
        let cells = syscall::read_inner_array(table.as_fd(), *length)
            .map_err(|source| Error::io("reading a compiled ACL", source))?;
        let head = Head::of(cells.get(HEAD as usize).unwrap_or(&[0; 2]));
        let first = head.rules.saturating_add(head.rule_count) as usize;
        Ok(cells.get(first..).unwrap_or_default().to_vec())
    }

    /// Writes, or takes away, what sets the addresses of a prefix are in. `bits` of the address are the prefix's.
    pub fn write_set(
        &mut self,
        key: &SetKey,
        bits: u8,
        list: Option<&SetList>,
    ) -> Result<(), Error> {
        let length = weft_common::acl::SET_KEY_HEAD_BITS + u32::from(bits);
        let key = Key::new(length, KeyBytes::of(key));
        let done = match list {
            Some(list) => self.sets.insert(&key, ListBytes::of(list), 0),
            None => match self.sets.remove(&key) {
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
                {
                    Ok(())
                }
                other => other,
            },
        };
        done.map_err(|error| Error::map("acl_sets", &error))
    }

    /// Every prefix that is in the table of sets, with its length.
    pub fn set_keys(&self) -> Result<Vec<(SetKey, u8)>, Error> {
        let keys = self.sets.keys();
        keys.map(|key| {
            let key = key.map_err(|error| Error::map("acl_sets", &error))?;
            let bits = key
                .prefix_len()
                .saturating_sub(weft_common::acl::SET_KEY_HEAD_BITS);
            let data: KeyBytes = key.data();
            Ok((data.value().unwrap_or_default(), bits as u8))
        })
        .collect()
    }
}
