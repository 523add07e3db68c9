//! The tables that the kernel answers ARP and neighbour solicitations by. Written by the agent, read by `from_port`.

use crate::Error;
use crate::kernel::maps::Record;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use weft_common::limits::NEIGHBOURS_MAX;
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};

type KeyBytes = Record<NeighbourKey, { size_of::<NeighbourKey>() }>;
type NeighbourBytes = Record<Neighbour, { size_of::<Neighbour>() }>;
type AskerBytes = Record<Asker, { size_of::<Asker>() }>;

/// See the module's text.
pub struct Neighbours {
    neighbours: HashMap<MapData, KeyBytes, NeighbourBytes>,
    askers: Array<MapData, AskerBytes>,
}

impl Neighbours {
    /// Takes over both maps.
    pub fn open(neighbours: Map, askers: Map) -> Result<Neighbours, Error> {
        Ok(Neighbours {
            neighbours: HashMap::try_from(neighbours)
                .map_err(|error| Error::map("neighbours", &error))?,
            askers: Array::try_from(askers).map_err(|error| Error::map("askers", &error))?,
        })
    }

    /// Every entry, by whomever.
    pub fn all(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, Error> {
        let entry = |read: Result<(KeyBytes, NeighbourBytes), MapError>| {
            let (key, neighbour) = read.map_err(|error| Error::map("neighbours", &error))?;
            Ok(key.value().zip(neighbour.value()))
        };
        let read = self.neighbours.iter().map(entry);
        read.filter_map(Result::transpose).collect()
    }

    /// Writes an entry, at once, or takes it away; one that isn't there is no error.
    pub fn write(
        &mut self,
        key: &NeighbourKey,
        neighbour: Option<&Neighbour>,
    ) -> Result<(), Error> {
        let key = KeyBytes::of(key);
        let done = match neighbour {
            Some(neighbour) => self
                .neighbours
                .insert(key, NeighbourBytes::of(neighbour), 0),
            None => match self.neighbours.remove(&key) {
                Err(MapError::KeyNotFound) => Ok(()),
                Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
                other => other,
            },
        };
        done.map_err(|error| match errno(&error) {
            Some(libc::E2BIG) => Error::Full {
                what: "addresses that the kernel answers for",
                limit: NEIGHBOURS_MAX.into(),
            },
            _ => Error::map("neighbours", &error),
        })
    }

    /// Whose questions of a port are answered.
    pub fn asker(&self, port: u16) -> Result<Asker, Error> {
        let record = self.askers.get(&u32::from(port), 0);
        let record = record.map_err(|error| Error::map("askers", &error))?;
        Ok(record.value().unwrap_or_default())
    }

    /// Says whose questions of a port are answered.
    pub fn write_asker(&mut self, port: u16, asker: &Asker) -> Result<(), Error> {
        self.askers
            .set(u32::from(port), Record::of(asker), 0)
            .map_err(|error| Error::map("askers", &error))
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
