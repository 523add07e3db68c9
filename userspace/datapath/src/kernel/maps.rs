//! The object's maps with the types of `weft-common`. aya sees byte arrays, so that the ABI crate needs no aya.

use crate::kernel::acl::Acls;
use crate::kernel::connections::Tables;
use crate::kernel::load::Programs;
use crate::kernel::mmap::{Counters, Policies, SlotArrays};
use crate::kernel::neighbours::Neighbours;
use crate::{Error, Family};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use std::collections::BTreeSet;
use weft_common::flood::FloodList;
use weft_common::limits::INTERFACES_MAX;
use weft_common::peer::{AddressBytes, PeerRecord, place};
use weft_common::port::InterfaceRecord;
use weft_common::{FlowKey, PortRecord, SlotRef};
use zerocopy::{FromBytes, IntoBytes};

type Bytes<T, const N: usize> = Array<MapData, Record<T, N>>;

/// `N` bytes that are a `T`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Record<T, const N: usize>([u8; N], std::marker::PhantomData<T>);

// SAFETY: a transparent wrapper of bytes: any bit pattern is valid.
unsafe impl<T: Copy + 'static, const N: usize> aya::Pod for Record<T, N> {}

impl<T: FromBytes + IntoBytes + zerocopy::Immutable, const N: usize> Record<T, N> {
    pub(super) fn of(value: &T) -> Record<T, N> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(value.as_bytes());
        Record(bytes, std::marker::PhantomData)
    }

    pub(super) fn value(&self) -> Option<T> {
        T::read_from_bytes(&self.0).ok()
    }
}

/// Every map that the agent reads or writes.
pub struct Maps {
    ports: Bytes<PortRecord, 32>,
    interfaces: Bytes<InterfaceRecord, 8>,
    pub slots: SlotArrays,
    pub(super) masks_v4: Array<MapData, [u8; 32]>,
    pub(super) masks_v6: Array<MapData, [u8; 64]>,
    pub(super) megaflows_v4: HashMap<MapData, [u8; 32], [u8; 8]>,
    pub(super) megaflows_v6: HashMap<MapData, [u8; 64], [u8; 8]>,
    peers: Bytes<PeerRecord, 64>,
    peer_versions: Array<MapData, u32>,
    pub(super) flood_lists: Bytes<FloodList, { size_of::<FloodList>() }>,
    pub(super) own_addresses: HashMap<MapData, AddressBytes, u32>,
    pub(super) remote_hosts: HashMap<MapData, AddressBytes, u32>,
    /// Perf event arrays.
    pub misses: MapData,
    pub misses_batched: MapData,
    pub counters: Counters,
    pub acls: Acls,
    pub policies: Policies,
    pub connections: Tables,
    port_tenants: Array<MapData, u32>,
    pub neighbours: Neighbours,
}

fn typed<M: TryFrom<Map, Error = MapError>>(
    programs: &mut Programs,
    name: &'static str,
) -> Result<M, Error> {
    M::try_from(programs.take_map(name)?).map_err(|error| Error::map(name, &error))
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub fn open(programs: &mut Programs) -> Result<Maps, Error> {
        Ok(Maps {
            ports: typed(programs, "ports")?,
            interfaces: typed(programs, "interfaces")?,
            slots: SlotArrays::open(
                programs.take_map("slots")?,
                programs.take_map("select_groups")?,
                programs.take_map("slot_stats")?,
                programs.take_map("cache")?,
            )?,
            masks_v4: typed(programs, "masks_v4")?,
            masks_v6: typed(programs, "masks_v6")?,
            megaflows_v4: typed(programs, "megaflows_v4")?,
            megaflows_v6: typed(programs, "megaflows_v6")?,
            peers: typed(programs, "peers")?,
            peer_versions: typed(programs, "peer_versions")?,
            flood_lists: typed(programs, "flood_lists")?,
            own_addresses: typed(programs, "own_addresses")?,
            remote_hosts: typed(programs, "remote_hosts")?,
            misses: perf_array(programs, "misses")?,
            misses_batched: perf_array(programs, "misses_batched")?,
            counters: Counters::open(
                programs.take_map("port_counters")?,
                programs.take_map("drop_counters")?,
            )?,
            policies: Policies::open(programs.take_map("policies")?, programs.take_map("quotas")?)?,
            connections: Tables::open([
                programs.take_map("connections_v4")?,
                programs.take_map("connections_v6")?,
                programs.take_map("half_open_v4")?,
                programs.take_map("half_open_v6")?,
            ])?,
            port_tenants: typed(programs, "port_tenants")?,
            neighbours: Neighbours::open(
                programs.take_map("neighbours")?,
                programs.take_map("askers")?,
            )?,
            acls: Acls::open(programs.take_map("acls")?, programs.take_map("acl_sets")?)?,
        })
    }

    pub fn write_port(&mut self, index: u16, record: &PortRecord) -> Result<(), Error> {
        self.ports
            .set(u32::from(index), Record::of(record), 0)
            .map_err(|error| Error::map("ports", &error))
    }

    pub fn write_tenant(&mut self, port: u16, tenant: u16) -> Result<(), Error> {
        self.port_tenants
            .set(u32::from(port), u32::from(tenant), 0)
            .map_err(|error| Error::map("port_tenants", &error))
    }

    pub fn read_port(&self, index: u16) -> Result<PortRecord, Error> {
        let record = self
            .ports
            .get(&u32::from(index), 0)
            .map_err(|error| Error::map("ports", &error))?;
        Ok(record.value().unwrap_or_default())
    }

    pub fn interface(&self, ifindex: u32) -> Result<InterfaceRecord, Error> {
        let record = self.interfaces.get(&(ifindex % INTERFACES_MAX), 0);
        Ok(record
            .map_err(|error| Error::map("interfaces", &error))?
            .value()
            .unwrap_or_default())
    }

    pub fn set_interface(&mut self, ifindex: u32, record: InterfaceRecord) -> Result<(), Error> {
        let result = self
            .interfaces
            .set(ifindex % INTERFACES_MAX, Record::of(&record), 0);
        result.map_err(|error| Error::map("interfaces", &error))
    }

    pub fn write_mask(&mut self, family: Family, number: u32, mask: &FlowKey) -> Result<(), Error> {
        match family {
            Family::V4 => {
                let result = self.masks_v4.set(number, bytes_v4(mask), 0);
                result.map_err(|error| Error::map("masks_v4", &error))
            }
            Family::V6 => {
                let result = self.masks_v6.set(number, bytes_v6(mask), 0);
                result.map_err(|error| Error::map("masks_v6", &error))
            }
        }
    }

    pub fn publish(
        &mut self,
        family: Family,
        masked: &FlowKey,
        target: SlotRef,
    ) -> Result<(), Error> {
        let target = target.as_bytes().try_into().unwrap_or_default();
        match family {
            Family::V4 => insert(
                "megaflows_v4",
                &mut self.megaflows_v4,
                bytes_v4(masked),
                target,
            ),
            Family::V6 => insert(
                "megaflows_v6",
                &mut self.megaflows_v6,
                bytes_v6(masked),
                target,
            ),
        }
    }

    pub fn withdraw(&mut self, family: Family, masked: &FlowKey) -> Result<(), Error> {
        match family {
            Family::V4 => remove("megaflows_v4", &mut self.megaflows_v4, bytes_v4(masked)),
            Family::V6 => remove("megaflows_v6", &mut self.megaflows_v6, bytes_v6(masked)),
        }
    }

    pub fn published(&self, family: Family, masked: &FlowKey) -> Result<Option<SlotRef>, Error> {
        let target = match family {
            Family::V4 => self.megaflows_v4.get(&bytes_v4(masked), 0),
            Family::V6 => self.megaflows_v6.get(&bytes_v6(masked), 0),
        };
        match target {
            Ok(bytes) => Ok(SlotRef::read_from_bytes(&bytes).ok()),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(Error::map("megaflows", &error)),
        }
    }

    /// Writes the record beside the one that holds, then makes it the one that holds: readers see either.
    pub fn write_peer(&mut self, index: u16, peer: &PeerRecord) -> Result<(), Error> {
        let index = u32::from(index);
        let versions = |error: MapError| Error::map("peer_versions", &error);
        let version = self.peer_versions.get(&index, 0).map_err(versions)?;
        let next = version.wrapping_add(1);
        self.peers
            .set(place(index, next), Record::of(peer), 0)
            .map_err(|error| Error::map("peers", &error))?;
        self.peer_versions.set(index, next, 0).map_err(versions)
    }

    pub fn write_flood_list(&mut self, index: u32, list: &FloodList) -> Result<(), Error> {
        self.flood_lists
            .set(index, Record::of(list), 0)
            .map_err(|error| Error::map("flood_lists", &error))
    }

    pub fn set_remote_host(
        &mut self,
        address: AddressBytes,
        peer: Option<u16>,
    ) -> Result<(), Error> {
        match peer {
            Some(peer) => insert(
                "remote_hosts",
                &mut self.remote_hosts,
                address,
                u32::from(peer),
            ),
            None => remove("remote_hosts", &mut self.remote_hosts, address),
        }
    }

    pub fn keep_remote_hosts(&mut self, keep: &BTreeSet<AddressBytes>) -> Result<(), Error> {
        let found: Vec<AddressBytes> = self.remote_hosts.keys().flatten().collect();
        found
            .into_iter()
            .filter(|address| !keep.contains(address))
            .try_for_each(|address| self.set_remote_host(address, None))
    }

    pub fn set_own_address(&mut self, address: AddressBytes, present: bool) -> Result<(), Error> {
        if present {
            insert("own_addresses", &mut self.own_addresses, address, 1)
        } else {
            remove("own_addresses", &mut self.own_addresses, address)
        }
    }
}

fn perf_array(programs: &mut Programs, map: &'static str) -> Result<MapData, Error> {
    match programs.take_map(map)? {
        Map::PerfEventArray(data) => Ok(data),
        _ => Err(Error::Map {
            map,
            detail: "isn't a perf event array".to_owned(),
        }),
    }
}

fn bytes_v4(key: &FlowKey) -> [u8; 32] {
    key.v4().as_bytes().try_into().unwrap_or([0; 32])
}

fn bytes_v6(key: &FlowKey) -> [u8; 64] {
    key.as_bytes().try_into().unwrap_or([0; 64])
}

fn insert<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    key: K,
    value: V,
) -> Result<(), Error> {
    map.insert(key, value, 0)
        .map_err(|error| Error::map(name, &error))
}

fn remove<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    key: K,
) -> Result<(), Error> {
    match map.remove(&key) {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        result => result.map_err(|error| Error::map(name, &error)),
    }
}
