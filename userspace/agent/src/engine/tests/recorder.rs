//! The fake datapath with a log of the order in which it was used, counters of drops, and interfaces that refuse.

use std::collections::{BTreeMap, BTreeSet};
use weft_common::acl::{Cell, SetKey, SetList};
use weft_common::connection::Quota;
use weft_common::flood::FloodList;
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};
use weft_common::peer::{AddressBytes, PeerRecord};
use weft_common::policy::Policy;
use weft_common::port::PortCounters;
use weft_common::{DropReason, FlowKey, PortRecord, Slot, SlotRef};
use weft_datapath::{
    Attachment, Buckets, ConnectionPiece, Datapath, Earlier, Error, Fake, Family, HeldPacket,
    MarkWatch, SlotUse, Tracked, XdpUse,
};

/// One use of the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A slot was written; generation 0 when it was retired.
    Wrote(SlotRef),
    /// A packet was sent through a slot.
    Injected(SlotRef),
    /// A key got a slot.
    Published(SlotRef),
    /// A port's program was detached.
    Detached(u16),
    /// What an agent of another ABI left is gone.
    Swapped,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What it holds.
    pub fake: Fake,
    /// In order.
    pub log: Vec<Event>,
    /// What the kernel counted, by port.
    pub dropped: BTreeMap<u16, Vec<(DropReason, u64)>>,
    /// Whether attaching fails.
    pub refuses_ports: bool,
    /// Whether a swap can't be ended.
    pub refuses_swap: bool,
    /// No compiled ACL can be written.
    pub refuses_acls: bool,
}

impl Datapath for Recorder {
    fn write_slot(&mut self, index: u32, slot: &Slot) -> Result<(), Error> {
        let generation = slot.generation;
        let written = SlotRef {
            slot: index,
            generation,
        };
        self.log.push(Event::Wrote(written));
        self.fake.write_slot(index, slot)
    }

    fn read_slot(&self, index: u32) -> Option<Slot> {
        self.fake.read_slot(index)
    }

    fn retire_slot(&mut self, index: u32) {
        let generation = 0;
        self.log.push(Event::Wrote(SlotRef {
            slot: index,
            generation,
        }));
        self.fake.retire_slot(index);
    }

    fn write_group(&mut self, index: u32, buckets: &Buckets) -> Result<(), Error> {
        self.fake.write_group(index, buckets)
    }

    fn write_acls(&mut self, acls: &[(u16, Vec<Cell>)]) -> Result<(), Error> {
        if self.refuses_acls {
            return Err(Error::io("writing", std::io::Error::other("no memory")));
        }
        self.fake.write_acls(acls)
    }

    fn remove_acl(&mut self, number: u16) -> Result<(), Error> {
        self.fake.remove_acl(number)
    }

    fn acl_counters(&self, number: u16) -> Result<Vec<Cell>, Error> {
        self.fake.acl_counters(number)
    }

    fn policy(&self, port: u16) -> Policy {
        self.fake.policy(port)
    }

    fn write_policy(&mut self, port: u16, policy: Policy) {
        self.fake.write_policy(port, policy);
    }

    fn write_tenant(&mut self, port: u16, tenant: u16) -> Result<(), Error> {
        self.fake.write_tenant(port, tenant)
    }

    fn quota(&self, tenant: u16) -> Quota {
        self.fake.quota(tenant)
    }

    fn write_quota_limit(&mut self, tenant: u16, limit: u64) {
        self.fake.write_quota_limit(tenant, limit);
    }

    fn next_connections(&mut self, most: usize) -> Result<ConnectionPiece, Error> {
        self.fake.next_connections(most)
    }

    fn connections(&self, most: usize) -> Result<Vec<Tracked>, Error> {
        self.fake.connections(most)
    }

    fn remove_connection(&mut self, tracked: &Tracked) -> Result<(), Error> {
        self.fake.remove_connection(tracked)
    }

    fn write_set(&mut self, key: &SetKey, bits: u8, list: Option<&SetList>) -> Result<(), Error> {
        self.fake.write_set(key, bits, list)
    }

    fn set_keys(&self) -> Result<Vec<(SetKey, u8)>, Error> {
        self.fake.set_keys()
    }

    fn clear_slot_use(&mut self, index: u32) {
        self.fake.clear_slot_use(index);
    }

    fn slot_use(&self, index: u32) -> SlotUse {
        self.fake.slot_use(index)
    }

    fn write_mask(&mut self, family: Family, number: u32, mask: &FlowKey) -> Result<(), Error> {
        self.fake.write_mask(family, number, mask)
    }

    fn read_mask(&self, family: Family, number: u32) -> Result<FlowKey, Error> {
        self.fake.read_mask(family, number)
    }

    fn publish(&mut self, family: Family, masked: &FlowKey, target: SlotRef) -> Result<(), Error> {
        self.log.push(Event::Published(target));
        self.fake.publish(family, masked, target)
    }

    fn withdraw(&mut self, family: Family, masked: &FlowKey) -> Result<(), Error> {
        self.fake.withdraw(family, masked)
    }

    fn take_over(&mut self) -> Result<Earlier, Error> {
        self.fake.take_over()
    }

    fn published(&self, family: Family, masked: &FlowKey) -> Result<Option<SlotRef>, Error> {
        self.fake.published(family, masked)
    }

    fn published_keys(&self) -> Result<Vec<(Family, FlowKey)>, Error> {
        self.fake.published_keys()
    }

    fn write_port(&mut self, index: u16, record: &PortRecord) -> Result<(), Error> {
        self.fake.write_port(index, record)
    }

    fn read_port(&self, index: u16) -> Result<PortRecord, Error> {
        self.fake.read_port(index)
    }

    fn write_flood_list(&mut self, index: u32, list: &FloodList) -> Result<(), Error> {
        self.fake.write_flood_list(index, list)
    }

    fn neighbours(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, Error> {
        self.fake.neighbours()
    }

    fn write_neighbour(
        &mut self,
        key: &NeighbourKey,
        neighbour: Option<&Neighbour>,
    ) -> Result<(), Error> {
        self.fake.write_neighbour(key, neighbour)
    }

    fn asker(&self, port: u16) -> Result<Asker, Error> {
        self.fake.asker(port)
    }

    fn write_asker(&mut self, port: u16, asker: &Asker) -> Result<(), Error> {
        self.fake.write_asker(port, asker)
    }

    fn write_peer(&mut self, index: u16, peer: &PeerRecord) -> Result<(), Error> {
        self.fake.write_peer(index, peer)
    }

    fn set_remote_host(&mut self, address: AddressBytes, peer: Option<u16>) -> Result<(), Error> {
        self.fake.set_remote_host(address, peer)
    }

    fn keep_remote_hosts(&mut self, keep: &BTreeSet<AddressBytes>) -> Result<(), Error> {
        self.fake.keep_remote_hosts(keep)
    }

    fn set_own_address(&mut self, address: AddressBytes, present: bool) -> Result<(), Error> {
        self.fake.set_own_address(address, present)
    }

    fn start_swap(&mut self) {
        self.fake.start_swap();
    }

    fn end_swap(&mut self) -> Result<(), Error> {
        if self.refuses_swap {
            return Err(Error::io("renaming", std::io::Error::other("busy")));
        }
        self.log.push(Event::Swapped);
        self.fake.end_swap()
    }

    fn attach_port(&mut self, port: u16, interface: &str) -> Result<Attachment, Error> {
        if self.refuses_ports {
            return Err(Error::io("attaching", std::io::Error::other("busy")));
        }
        self.fake.attach_port(port, interface)
    }

    fn detach_port(&mut self, port: u16, ifindex: u32) -> Result<(), Error> {
        self.log.push(Event::Detached(port));
        self.fake.detach_port(port, ifindex)
    }

    fn detach_other_ports(&mut self, keep: &BTreeSet<u16>) {
        self.fake.detach_other_ports(keep);
    }

    fn attach_underlay(&mut self, interface: &str) -> Result<(), Error> {
        self.fake.attach_underlay(interface)
    }

    fn release(&mut self) -> Result<(), Error> {
        self.fake.release()
    }

    fn attach_xdp(&mut self, interface: &str, wanted: XdpUse) -> Result<bool, Error> {
        self.fake.attach_xdp(interface, wanted)
    }

    fn inject(&mut self, target: SlotRef, port: u16, packet: &HeldPacket) -> Result<(), Error> {
        self.log.push(Event::Injected(target));
        self.fake.inject(target, port, packet)
    }

    fn watch(&self, interface: &str, mark: u32) -> Result<Box<dyn MarkWatch>, Error> {
        self.fake.watch(interface, mark)
    }

    fn port_counters(&self, port: u16) -> Result<PortCounters, Error> {
        self.fake.port_counters(port)
    }

    fn drops(&self, port: u16) -> Result<Vec<(DropReason, u64)>, Error> {
        Ok(self.dropped.get(&port).cloned().unwrap_or_default())
    }
}
