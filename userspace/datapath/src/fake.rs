//! A datapath without a kernel: memory with the same rules, for tests of what stands above it.

use crate::{
    Attachment, Buckets, ConnectionPiece, Datapath, Earlier, EarlierFlow, EarlierKey, Error,
    Family, HeldPacket, MarkWatch, OtherAbi, Sighting, SlotUse, Tracked, XdpUse,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use weft_common::acl::{Cell, HEAD, Head, SetKey, SetList};
use weft_common::connection::Quota;
use weft_common::flood::FloodList;
use weft_common::limits::{MASKS_MAX, NEIGHBOURS_MAX, PORTS_MAX, SELECT_DEPTH_MAX, SLOTS_MAX};
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};
use weft_common::peer::{AddressBytes, PeerRecord};
use weft_common::policy::Policy;
use weft_common::port::{Delivery, PortCounters};
use weft_common::{DropReason, FlowKey, PortRecord, Slot, SlotRef, select};

/// A frame that was sent through a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// What was done with it; none when the reference was stale.
    pub slot: Option<Slot>,
    /// Index of the ingress port.
    pub port: u16,
    /// The frame.
    pub packet: HeldPacket,
}

/// Everything that the kernel would hold.
#[derive(Debug, Default)]
pub struct Fake {
    slots: HashMap<u32, Slot>,
    groups: HashMap<u32, Buckets>,
    uses: HashMap<u32, SlotUse>,
    masks: HashMap<(Family, u32), FlowKey>,
    megaflows: HashMap<(Family, FlowKey), SlotRef>,
    ports: HashMap<u16, PortRecord>,
    /// Underlay records by index.
    pub peers: BTreeMap<u16, PeerRecord>,
    /// Flood lists by index.
    /// Compiled ACLs.
    pub acls: BTreeMap<u16, Vec<Cell>>,
    /// The table of sets: tenant, family, address, bits of the prefix.
    pub sets: BTreeMap<(u32, u32, [u8; 16], u8), SetList>,
    /// What the kernel would track.
    pub connections: Vec<Tracked>,
    /// Policies by port.
    pub policies: BTreeMap<u16, Policy>,
    /// Numbers of tenants by port.
    pub tenants: BTreeMap<u16, u16>,
    /// Connections by tenant.
    pub quotas: BTreeMap<u16, Quota>,
    /// Addresses that the kernel would answer for.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// How many of them there may be, if the test says so.
    pub neighbours_max: Option<usize>,
    /// Networks in which it would answer, by port.
    pub askers: BTreeMap<u16, Asker>,
    /// Flood lists.
    pub flood_lists: BTreeMap<u32, FloodList>,
    /// Remote addresses from which tunnel packets are accepted.
    pub remote_hosts: BTreeMap<AddressBytes, u16>,
    /// Own underlay addresses.
    pub own_addresses: HashSet<AddressBytes>,
    /// Interfaces that exist, with their index.
    pub interfaces: BTreeMap<String, u32>,
    /// Underlay interfaces that are attached.
    pub underlays: HashSet<String>,
    /// Underlay interfaces whose driver has no XDP.
    pub without_xdp: HashSet<String>,
    /// What was sent through slots, in order.
    pub injected: Vec<Injected>,
    /// Maps of another ABI that forward for now.
    other: Option<Box<Other>>,
    /// What each watch sees.
    pub sighting: Arc<Mutex<Sighting>>,
}

/// What an agent of another ABI left.
#[derive(Debug)]
struct Other {
    maps: Fake,
    version: u32,
    has_known_keys: bool,
    is_swapping: bool,
    /// Ports that run the own programs already.
    swapped: HashSet<u16>,
}

/// A watch that sees what the test says.
struct FakeWatch(Arc<Mutex<Sighting>>);

impl MarkWatch for FakeWatch {
    fn look(&mut self) -> Result<Sighting, Error> {
        Ok(*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Fake {
    /// An interface appears.
    pub fn add_interface(&mut self, name: &str, ifindex: u32) {
        self.interfaces.insert(name.to_owned(), ifindex);
    }

    /// All that it holds is of another ABI from here on: it forwards until the swap, and the own maps are empty but
    /// for the ports' generations.
    pub fn set_aside(&mut self, version: u32, has_known_keys: bool) {
        let maps = std::mem::take(self);
        self.interfaces.clone_from(&maps.interfaces);
        self.without_xdp.clone_from(&maps.without_xdp);
        let generations = maps.ports.iter().filter(|_| has_known_keys);
        let generations = generations.map(|(index, record)| {
            let generation = record.generation;
            let record = PortRecord {
                generation,
                ..PortRecord::default()
            };
            (*index, record)
        });
        self.ports = generations.collect();
        self.other = Some(Box::new(Other {
            maps,
            version,
            has_known_keys,
            is_swapping: false,
            swapped: HashSet::new(),
        }));
    }

    /// What the kernel would do with a packet: the first mask of its port under which there is a flow whose
    /// slot still holds that decision.
    pub fn forward(&mut self, key: &FlowKey) -> Option<Slot> {
        if let Some(other) = &mut self.other
            && !other.swapped.contains(&key.head.port)
        {
            return other.maps.forward(key);
        }
        let family = Family::of(key);
        let record = self.ports.get(&key.head.port)?;
        let set = match family {
            Family::V4 => record.masks_v4,
            Family::V6 => record.masks_v6,
        };
        let target = (0..MASKS_MAX)
            .filter(|number| set & 1 << number != 0)
            .find_map(|number| {
                let mut masked = key.masked(self.masks.get(&(family, number))?);
                masked.head.mask_id = number as u8;
                self.megaflows.get(&(family, masked)).copied()
            })?;
        let mut slot = self.take(target)?;
        for _ in 0..SELECT_DEPTH_MAX {
            let Some(group) = slot.select_group() else {
                break;
            };
            let bucket = usize::from(select::bucket(key));
            slot = self.take(*self.groups.get(&group)?.get(bucket)?)?;
        }
        slot.select_group().is_none().then_some(slot)
    }

    fn earlier_keys(&self) -> Vec<EarlierKey> {
        let keys = self.megaflows.keys().filter_map(|&(family, masked)| {
            let number = u32::from(masked.head.mask_id);
            Some(EarlierKey {
                family,
                masked,
                mask: *self.masks.get(&(family, number))?,
            })
        });
        keys.collect()
    }

    /// The slot, if it still holds that decision; the use is counted.
    fn take(&mut self, target: SlotRef) -> Option<Slot> {
        let slot = *self
            .slots
            .get(&target.slot)
            .filter(|slot| slot.generation == target.generation)?;
        let used = self.uses.entry(target.slot).or_default();
        used.packets += 1;
        used.last_used += 1;
        Some(slot)
    }
}

impl Datapath for Fake {
    fn write_slot(&mut self, index: u32, slot: &Slot) -> Result<(), Error> {
        if index >= SLOTS_MAX {
            return Err(Error::Full {
                what: "slots",
                limit: u64::from(SLOTS_MAX),
            });
        }
        self.slots.insert(index, *slot);
        Ok(())
    }

    fn read_slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(&index).copied()
    }

    fn retire_slot(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(&index) {
            slot.generation = 0;
        }
    }

    fn write_group(&mut self, index: u32, buckets: &Buckets) -> Result<(), Error> {
        self.groups.insert(index, *buckets);
        Ok(())
    }

    fn clear_slot_use(&mut self, index: u32) {
        self.uses.remove(&index);
    }

    fn slot_use(&self, index: u32) -> SlotUse {
        self.uses.get(&index).copied().unwrap_or_default()
    }

    fn write_mask(&mut self, family: Family, number: u32, mask: &FlowKey) -> Result<(), Error> {
        self.masks.insert((family, number), *mask);
        Ok(())
    }

    fn read_mask(&self, family: Family, number: u32) -> Result<FlowKey, Error> {
        Ok(self
            .masks
            .get(&(family, number))
            .copied()
            .unwrap_or_default())
    }

    fn publish(&mut self, family: Family, masked: &FlowKey, target: SlotRef) -> Result<(), Error> {
        self.megaflows.insert((family, *masked), target);
        Ok(())
    }

    fn withdraw(&mut self, family: Family, masked: &FlowKey) -> Result<(), Error> {
        self.megaflows.remove(&(family, *masked));
        Ok(())
    }

    fn take_over(&mut self) -> Result<Earlier, Error> {
        let flow = |(&(family, masked), &target): (&(Family, FlowKey), &SlotRef)| {
            let number = u32::from(masked.head.mask_id);
            let slot = *self.slots.get(&target.slot)?;
            Some(EarlierFlow {
                family,
                masked,
                mask: *self.masks.get(&(family, number))?,
                target,
                slot: Slot {
                    generation: 0,
                    ..slot
                },
            })
        };
        let mut earlier = Earlier {
            flows: self.megaflows.iter().filter_map(flow).collect(),
            remote_hosts: self.remote_hosts.clone(),
            own_addresses: self.own_addresses.iter().copied().collect(),
            flood_lists: self.flood_lists.clone(),
            ..Earlier::default()
        };
        earlier.follow_choices(
            |target| self.slots.get(&target.slot).copied(),
            |group| self.groups.get(&group).copied(),
        );
        earlier.other_abi = self.other.as_ref().map(|other| OtherAbi {
            version: other.version,
            keys: match other.has_known_keys {
                true => other.maps.earlier_keys(),
                false => Vec::new(),
            },
        });
        let mut used = earlier.member_slots.clone();
        used.extend(earlier.flows.iter().map(|flow| flow.target.slot));
        self.slots.retain(|index, _| used.contains(index));
        Ok(earlier)
    }

    fn published(&self, family: Family, masked: &FlowKey) -> Result<Option<SlotRef>, Error> {
        Ok(self.megaflows.get(&(family, *masked)).copied())
    }

    fn published_keys(&self) -> Result<Vec<(Family, FlowKey)>, Error> {
        Ok(self.megaflows.keys().copied().collect())
    }

    fn write_port(&mut self, index: u16, record: &PortRecord) -> Result<(), Error> {
        if u32::from(index) >= PORTS_MAX {
            return Err(Error::Full {
                what: "ports",
                limit: u64::from(PORTS_MAX),
            });
        }
        self.ports.insert(index, *record);
        Ok(())
    }

    fn read_port(&self, index: u16) -> Result<PortRecord, Error> {
        Ok(self.ports.get(&index).copied().unwrap_or_default())
    }

    fn write_flood_list(&mut self, index: u32, list: &FloodList) -> Result<(), Error> {
        self.flood_lists.insert(index, *list);
        Ok(())
    }

    fn write_acls(&mut self, acls: &[(u16, Vec<Cell>)]) -> Result<(), Error> {
        self.acls.extend(acls.iter().cloned());
        Ok(())
    }

    fn remove_acl(&mut self, number: u16) -> Result<(), Error> {
        self.acls.remove(&number);
        Ok(())
    }

    fn acl_counters(&self, number: u16) -> Result<Vec<Cell>, Error> {
        let Some(cells) = self.acls.get(&number) else {
            return Ok(Vec::new());
        };
        let head = Head::of(&cells[HEAD as usize]);
        let first = (head.rules + head.rule_count) as usize;
        Ok(cells[first..].to_vec())
    }

    fn policy(&self, port: u16) -> Policy {
        self.policies.get(&port).copied().unwrap_or_default()
    }

    fn write_policy(&mut self, port: u16, policy: Policy) {
        self.policies.insert(port, policy);
    }

    fn write_tenant(&mut self, port: u16, tenant: u16) -> Result<(), Error> {
        self.tenants.insert(port, tenant);
        Ok(())
    }

    fn quota(&self, tenant: u16) -> Quota {
        self.quotas.get(&tenant).copied().unwrap_or_default()
    }

    fn write_quota_limit(&mut self, tenant: u16, limit: u64) {
        self.quotas.entry(tenant).or_default().limit = limit;
    }

    fn next_connections(&mut self, _: usize) -> Result<ConnectionPiece, Error> {
        let established = self.connections.iter().filter(|it| it.is_established);
        Ok(ConnectionPiece {
            entries: established.copied().collect(),
            is_last: true,
        })
    }

    fn connections(&self, most: usize) -> Result<Vec<Tracked>, Error> {
        Ok(self.connections.iter().copied().take(most).collect())
    }

    fn remove_connection(&mut self, tracked: &Tracked) -> Result<(), Error> {
        self.connections
            .retain(|it| it.entry.key != tracked.entry.key);
        Ok(())
    }

    fn write_set(&mut self, key: &SetKey, bits: u8, list: Option<&SetList>) -> Result<(), Error> {
        let place = (key.tenant, key.family, key.address, bits);
        match list {
            Some(list) => self.sets.insert(place, *list),
            None => self.sets.remove(&place),
        };
        Ok(())
    }

    fn set_keys(&self) -> Result<Vec<(SetKey, u8)>, Error> {
        let key = |(tenant, family, address, bits): &(u32, u32, [u8; 16], u8)| {
            let key = SetKey {
                tenant: *tenant,
                family: *family,
                address: *address,
            };
            (key, *bits)
        };
        Ok(self.sets.keys().map(key).collect())
    }

    fn neighbours(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, Error> {
        Ok(self
            .neighbours
            .iter()
            .map(|(key, it)| (*key, *it))
            .collect())
    }

    fn write_neighbour(
        &mut self,
        key: &NeighbourKey,
        neighbour: Option<&Neighbour>,
    ) -> Result<(), Error> {
        let Some(neighbour) = neighbour else {
            self.neighbours.remove(key);
            return Ok(());
        };
        let limit = self.neighbours_max.unwrap_or(NEIGHBOURS_MAX as usize);
        if self.neighbours.len() >= limit && !self.neighbours.contains_key(key) {
            return Err(Error::Full {
                what: "addresses that the kernel answers for",
                limit: limit as u64,
            });
        }
        self.neighbours.insert(*key, *neighbour);
        Ok(())
    }

    fn asker(&self, port: u16) -> Result<Asker, Error> {
        Ok(self.askers.get(&port).copied().unwrap_or_default())
    }

    fn write_asker(&mut self, port: u16, asker: &Asker) -> Result<(), Error> {
        self.askers.insert(port, *asker);
        Ok(())
    }

    fn write_peer(&mut self, index: u16, peer: &PeerRecord) -> Result<(), Error> {
        self.peers.insert(index, *peer);
        Ok(())
    }

    fn set_remote_host(&mut self, address: AddressBytes, peer: Option<u16>) -> Result<(), Error> {
        match peer {
            Some(peer) => self.remote_hosts.insert(address, peer),
            None => self.remote_hosts.remove(&address),
        };
        Ok(())
    }

    fn keep_remote_hosts(&mut self, keep: &BTreeSet<AddressBytes>) -> Result<(), Error> {
        self.remote_hosts
            .retain(|address, _| keep.contains(address));
        Ok(())
    }

    fn set_own_address(&mut self, address: AddressBytes, present: bool) -> Result<(), Error> {
        if present {
            self.own_addresses.insert(address)
        } else {
            self.own_addresses.remove(&address)
        };
        Ok(())
    }

    fn start_swap(&mut self) {
        if let Some(other) = &mut self.other {
            other.is_swapping = true;
        }
    }

    fn end_swap(&mut self) -> Result<(), Error> {
        self.other = None;
        Ok(())
    }

    fn attach_port(&mut self, port: u16, interface: &str) -> Result<Attachment, Error> {
        let ifindex = self.interfaces.get(interface).copied();
        let ifindex = ifindex.ok_or_else(|| Error::NoInterface(interface.to_owned()))?;
        if let Some(other) = self.other.as_mut().filter(|other| other.is_swapping) {
            other.swapped.insert(port);
        }
        Ok(Attachment {
            ifindex,
            delivery: Delivery::Peer,
        })
    }

    fn detach_port(&mut self, _port: u16, _ifindex: u32) -> Result<(), Error> {
        Ok(())
    }

    fn detach_other_ports(&mut self, _keep: &BTreeSet<u16>) {}

    fn attach_underlay(&mut self, interface: &str) -> Result<(), Error> {
        if !self.interfaces.contains_key(interface) {
            return Err(Error::NoInterface(interface.to_owned()));
        }
        if self.other.as_ref().is_none_or(|other| other.is_swapping) {
            self.underlays.insert(interface.to_owned());
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        *self = Fake {
            interfaces: std::mem::take(&mut self.interfaces),
            ..Fake::default()
        };
        Ok(())
    }

    fn attach_xdp(&mut self, interface: &str, wanted: XdpUse) -> Result<bool, Error> {
        if wanted == XdpUse::Always && self.without_xdp.contains(interface) {
            let unsupported = std::io::Error::from(std::io::ErrorKind::Unsupported);
            return Err(Error::io("attaching from_underlay_xdp", unsupported));
        }
        Ok(wanted == XdpUse::Always)
    }

    fn inject(&mut self, target: SlotRef, port: u16, packet: &HeldPacket) -> Result<(), Error> {
        let slot = self
            .slots
            .get(&target.slot)
            .filter(|slot| slot.generation == target.generation)
            .copied();
        self.injected.push(Injected {
            slot,
            port,
            packet: packet.clone(),
        });
        Ok(())
    }

    fn watch(&self, _interface: &str, _mark: u32) -> Result<Box<dyn MarkWatch>, Error> {
        Ok(Box::new(FakeWatch(self.sighting.clone())))
    }

    fn port_counters(&self, _port: u16) -> Result<PortCounters, Error> {
        Ok(PortCounters::default())
    }

    fn drops(&self, _port: u16) -> Result<Vec<(DropReason, u64)>, Error> {
        Ok(Vec::new())
    }
}
