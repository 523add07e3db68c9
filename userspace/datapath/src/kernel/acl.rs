//! Compiled ACLs, a map each inside `acls`, and the table of sets. Written by the agent, read by the programs.

use crate::Error;
use crate::kernel::maps::Record;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::of_maps::ArrayOfMaps;
use aya::maps::{Array, MapData, MapError};
use weft_common::acl::{Cell, HEAD, Head, SetKey, SetList};

/// `BPF_F_INNER_MAP`: a map in another one may be of any length (Linux 5.10).
const INNER_MAP: u32 = 1 << 12;

type Table = Array<MapData, Cell>;
type KeyBytes = Record<SetKey, { size_of::<SetKey>() }>;
type ListBytes = Record<SetList, { size_of::<SetList>() }>;

/// See the module's text.
pub struct Acls {
    /// By number.
    pub tables: ArrayOfMaps<MapData, Table>,
    /// The sets that addresses are in.
    pub sets: LpmTrie<MapData, KeyBytes, ListBytes>,
}

impl Acls {
    /// Puts an ACL in the place of this number, at once.
    pub fn write(&mut self, number: u16, cells: &[Cell]) -> Result<(), Error> {
        let failed = |error: &MapError| Error::map("acls", error);
        let mut table =
            Table::create(cells.len() as u32, INNER_MAP).map_err(|error| failed(&error))?;
        for (index, cell) in cells.iter().enumerate() {
            table
                .set(index as u32, cell, 0)
                .map_err(|error| failed(&error))?;
        }
        self.tables
            .set(number.into(), &table, 0)
            .map_err(|error| failed(&error))
    }

    /// Takes an ACL away: what is in its place decides nothing. (aya can't delete from an array of maps.)
    pub fn remove(&mut self, number: u16) -> Result<(), Error> {
        self.write(number, &[Cell::default()])
    }

    /// Packets and bytes of each rule of an ACL.
    pub fn counters(&self, number: u16) -> Result<Vec<Cell>, Error> {
        let failed = |error: MapError| Error::map("acls", &error);
        let table = match self.tables.get(&number.into(), 0) {
            Err(MapError::KeyNotFound) => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let head = Head::of(&table.get(&HEAD, 0).map_err(failed)?);
        let first = head.rules + head.rule_count;
        let cells = first..first + head.rule_count.min(table.len());
        cells.map(|it| table.get(&it, 0).map_err(failed)).collect()
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
