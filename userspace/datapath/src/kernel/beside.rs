//! Maps and programs of another ABI that run on while this agent fills maps of its own beside them.
//!
//! bpffs holds no files but pins, so what there is to say is said by folders:
//!
//! | folder | it says |
//! |---|---|
//! | `abi-N` | `maps` and `progs` are of ABI N |
//! | `keys-M` | [`KEYS_VERSION`] of their keys; 1 where there is none |
//! | `next` | the same of a set that an agent of another ABI fills |
//! | `next/whole` | all attachments run the programs in `next`: what is left to do is moving them to their place |
//!
//! An agent that dies before `next/whole` is there has left nothing that is used but, at worst, programs that some
//! attachments run already; the next one starts with another set. Called by [`super::Kernel`] alone.

use crate::kernel::maps::{Maps, Record};
use crate::kernel::takeover::key_of;
use crate::kernel::{bpffs, dump};
use crate::{EarlierKey, Error, Family, OtherAbi};
use aya::maps::{Array, Map, MapData, MapError, MapType};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use weft_common::limits::{MASKS_MAX, MEGAFLOWS_V4_MAX, PORTS_MAX};
use weft_common::{ABI_VERSION, KEYS_VERSION, PortRecord};

const NEXT: &str = "next";
const WHOLE: &str = "whole";
/// Keys version of folders without one.
const KEYS_UNSAID: u32 = 1;
/// Entries of a table above which its keys aren't read; bytes of a value.
const ENTRIES_MAX: u32 = 4 * MEGAFLOWS_V4_MAX;
const VALUE_BYTES_MAX: u32 = 256;

/// The running maps and programs, of another ABI.
pub struct Beside {
    pin: PathBuf,
    next: PathBuf,
    abi: u32,
    keys: u32,
    /// Whether attachments are swapped now.
    pub is_swapping: bool,
}

impl Beside {
    /// What an earlier agent left under its folder of pins, if that is of another ABI; else the folder is this
    /// ABI's from here on. A swap that was almost done is finished first.
    ///
    /// # Errors
    /// What bpffs refuses.
    pub fn find(pin: &Path) -> Result<Option<Beside>, Error> {
        let next = pin.join(NEXT);
        if next.join(WHOLE).exists() {
            finish(pin)?;
        }
        bpffs::remove(&next)?;
        let other = versions(pin, "abi-").find(|version| *version != ABI_VERSION);
        let Some(abi) = other else {
            say_versions(pin)?;
            return Ok(None);
        };
        say_versions(&next)?;
        tracing::info!(
            earlier = abi,
            own = ABI_VERSION,
            "an earlier weftd's programs are of another ABI: they go on while new maps are filled beside theirs"
        );
        Ok(Some(Beside {
            pin: pin.to_owned(),
            next,
            abi,
            keys: versions(pin, "keys-").max().unwrap_or(KEYS_UNSAID),
            is_swapping: false,
        }))
    }

    /// The folder of the own maps and programs.
    pub fn folder(&self) -> &PathBuf {
        &self.next
    }

    /// Notes the generations of the other ABI's ports in the own maps, so that no tunnel key comes back early.
    pub fn copy_generations(&self, maps: &mut Maps) {
        let copied = self.generations().and_then(|generations| {
            generations.into_iter().try_for_each(|(index, generation)| {
                let record = PortRecord {
                    generation,
                    ..PortRecord::default()
                };
                maps.write_port(index, &record)
            })
        });
        if let Err(error) = copied {
            tracing::warn!(%error, "an earlier weftd's tunnel keys are known from the store and from disk only");
        }
    }

    /// What its flows match. Where that can't be read, misses rebuild the table after the swap.
    pub fn read(&self) -> OtherAbi {
        let keys = self.flow_keys().unwrap_or_else(|error| {
            tracing::warn!(%error, "an earlier weftd's flows can't be read: misses rebuild them");
            Vec::new()
        });
        OtherAbi {
            version: self.abi,
            keys,
        }
    }

    fn generations(&self) -> Result<Vec<(u16, u8)>, Error> {
        self.check_keys()?;
        let ports: Array<MapData, Record<PortRecord, { size_of::<PortRecord>() }>> =
            self.array("ports")?;
        let mut generations = Vec::new();
        for index in 1..ports.len().min(PORTS_MAX) {
            let record = ports.get(&index, 0);
            let record = record.map_err(|error| Error::map("ports", &error))?;
            let generation = record.value().map_or(0, |record| record.generation);
            if generation != 0 {
                generations.push((index as u16, generation));
            }
        }
        Ok(generations)
    }

    fn flow_keys(&self) -> Result<Vec<EarlierKey>, Error> {
        self.check_keys()?;
        let mut keys = self.family_keys::<32>(Family::V4, "megaflows_v4", "masks_v4")?;
        keys.extend(self.family_keys::<64>(Family::V6, "megaflows_v6", "masks_v6")?);
        Ok(keys)
    }

    /// The sound ones among the keys of a family, `N` bytes each.
    fn family_keys<const N: usize>(
        &self,
        family: Family,
        flows: &'static str,
        masks: &'static str,
    ) -> Result<Vec<EarlierKey>, Error> {
        let map = self.open(flows)?;
        let info = map.info().map_err(|error| Error::map(flows, &error))?;
        let is_as_ours = matches!(info.map_type(), Ok(MapType::Hash))
            && info.key_size() as usize == N
            && (1..=VALUE_BYTES_MAX).contains(&info.value_size())
            && info.max_entries() <= ENTRIES_MAX;
        if !is_as_ours {
            return Err(unknown(flows, "has another form"));
        }
        let entries = dump::entries(map.fd().as_fd(), flows, N, info.value_size() as usize)?;
        let bits: Array<MapData, [u8; N]> = self.array(masks)?;
        let read = |number| bits.get(&number, 0).map(|bytes| key_of(&bytes));
        let bits: Vec<_> = (0..bits.len().min(MASKS_MAX))
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::map(masks, &error))?;
        let keys = entries.iter().filter_map(|(key, _)| {
            let masked = key_of(key);
            let mask = *bits.get(usize::from(masked.head.mask_id))?;
            Some(EarlierKey {
                family,
                masked,
                mask,
            })
        });
        Ok(keys.filter(EarlierKey::is_sound).collect())
    }

    fn check_keys(&self) -> Result<(), Error> {
        if self.keys == KEYS_VERSION {
            return Ok(());
        }
        let detail = format!("keys are of version {}, not {KEYS_VERSION}", self.keys);
        Err(unknown("megaflows", &detail))
    }

    fn array<V: aya::Pod>(&self, name: &'static str) -> Result<Array<MapData, V>, Error> {
        let wrong = |error: MapError| Error::map(name, &error);
        let map = Map::from_map_data(self.open(name)?).map_err(wrong)?;
        map.try_into().map_err(wrong)
    }

    fn open(&self, name: &'static str) -> Result<MapData, Error> {
        let path = self.pin.join("maps").join(name);
        MapData::from_pin(path).map_err(|error| Error::map(name, &error))
    }
}

/// Puts what is in `next` in the place of what ran before it. Every step may be done twice.
///
/// # Errors
/// What bpffs refuses.
pub fn finish(pin: &Path) -> Result<(), Error> {
    let next = pin.join(NEXT);
    bpffs::make(&next.join(WHOLE))?;
    for name in ["maps", "progs"] {
        let (from, to) = (next.join(name), pin.join(name));
        if from.exists() {
            bpffs::remove(&to)?;
            bpffs::rename(&from, &to)?;
        }
    }
    let said = bpffs::names(&next);
    let is_version = |name: &&String| name.starts_with("abi-") || name.starts_with("keys-");
    for name in said.iter().filter(is_version) {
        bpffs::make(&pin.join(name))?;
    }
    for name in bpffs::names(pin).iter().filter(is_version) {
        if !said.contains(name) {
            bpffs::remove(&pin.join(name))?;
        }
    }
    // First, so that what is left of `next` is a try that came to nothing.
    bpffs::remove(&next.join(WHOLE))?;
    bpffs::remove(&next)
}

/// Makes the folders that say of which versions the maps here are.
fn say_versions(folder: &Path) -> Result<(), Error> {
    bpffs::make(&folder.join(format!("abi-{ABI_VERSION}")))?;
    bpffs::make(&folder.join(format!("keys-{KEYS_VERSION}")))
}

/// Versions that folders with this prefix name; 0, which is nobody's, for what is no number.
fn versions(folder: &Path, prefix: &'static str) -> impl Iterator<Item = u32> {
    let names = bpffs::names(folder).into_iter();
    names.filter_map(move |name| Some(name.strip_prefix(prefix)?.parse().unwrap_or(0)))
}

fn unknown(map: &'static str, detail: &str) -> Error {
    Error::Map {
        map,
        detail: detail.to_owned(),
    }
}
