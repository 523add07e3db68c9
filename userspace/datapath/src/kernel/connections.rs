//! The tables of tracked connections, read in pieces.

use crate::kernel::syscall::{delete_key, read_batch};
use crate::{ConnectionPiece, Error, Family, Tracked};
use aya::maps::{Map, MapData};
use std::os::fd::AsFd;
use weft_common::connection::{ConnectionKeyV4, ConnectionKeyV6, Entry};

/// Entries of one read: as little memory, and as few calls.
const PIECE: usize = 4096;

/// The four tables, and how far the reader of the established ones is.
pub struct Tables {
    /// By family: those that both sides take part in.
    established: [MapData; 2],
    /// By family: those that nobody has answered yet.
    half_open: [MapData; 2],
    /// Table that is read, and place in it.
    at: (usize, Option<u32>),
}

impl Tables {
    /// Takes over all four: established ones of IPv4 and IPv6, then half-open ones.
    pub fn open(maps: [Map; 4]) -> Result<Tables, Error> {
        let data = |map| match map {
            Map::HashMap(data) | Map::LruHashMap(data) => Ok(data),
            _ => Err(Error::Map {
                map: "connections",
                detail: "isn't a hash map".to_owned(),
            }),
        };
        let [a, b, c, d] = maps;
        Ok(Tables {
            established: [data(a)?, data(b)?],
            half_open: [data(c)?, data(d)?],
            at: (0, None),
        })
    }

    /// The next established connections, at most about so many.
    pub fn next(&mut self, most: usize) -> Result<ConnectionPiece, Error> {
        let (table, cursor) = self.at;
        let family = [Family::V4, Family::V6][table & 1];
        let map = &self.established[table & 1];
        let (entries, cursor) = read(map, family, true, cursor, most)?;
        let is_last = table == 1 && cursor.is_none();
        self.at = match cursor {
            Some(_) => (table, cursor),
            None => (1 - table, None),
        };
        Ok(ConnectionPiece { entries, is_last })
    }

    /// All of them, half-open ones, too; at most so many of each table.
    pub fn all(&self, most: usize) -> Result<Vec<Tracked>, Error> {
        let mut all = Vec::new();
        for (maps, is_established) in [(&self.established, true), (&self.half_open, false)] {
            for (map, family) in maps.iter().zip([Family::V4, Family::V6]) {
                let full = all.len() + most;
                let mut cursor = None;
                while all.len() < full {
                    let (read, end) = read(map, family, is_established, cursor, PIECE)?;
                    all.extend(read);
                    cursor = end;
                    if cursor.is_none() {
                        break;
                    }
                }
                all.truncate(full);
            }
        }
        Ok(all)
    }

    /// Takes one out; one that is gone is no error.
    pub fn remove(&mut self, tracked: &Tracked) -> Result<(), Error> {
        let maps = match tracked.is_established {
            true => &self.established,
            false => &self.half_open,
        };
        let key = &tracked.entry.key;
        let done = match tracked.family {
            Family::V4 => delete_key(maps[0].fd().as_fd(), &key.v4()),
            Family::V6 => delete_key(maps[1].fd().as_fd(), key),
        };
        done.map_err(|source| Error::io("removing a connection", source))
    }
}

/// A piece of one table, and where it ends.
fn read(
    map: &MapData,
    family: Family,
    is_established: bool,
    cursor: Option<u32>,
    most: usize,
) -> Result<(Vec<Tracked>, Option<u32>), Error> {
    let failed = |source| Error::io("reading connections", source);
    let fd = map.fd().as_fd();
    let tracked = |entry| Tracked {
        family,
        is_established,
        entry,
    };
    Ok(match family {
        Family::V4 => {
            let (read, end) =
                read_batch::<ConnectionKeyV4, Entry>(fd, cursor, most).map_err(failed)?;
            (read.into_iter().map(|(_, it)| tracked(it)).collect(), end)
        }
        Family::V6 => {
            let (read, end) =
                read_batch::<ConnectionKeyV6, Entry>(fd, cursor, most).map_err(failed)?;
            (read.into_iter().map(|(_, it)| tracked(it)).collect(), end)
        }
    })
}
