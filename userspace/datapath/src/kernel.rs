//! The real datapath: the kernel programs, their maps and the inject TAP.
//!
//! Everything is pinned under one folder, so that forwarding survives this process; a new one adopts maps and
//! links and swaps the programs. The process's own are the perf buffers and the TAP, which die with it.

mod acl;
mod beside;
mod bpffs;
mod clock;
mod connections;
mod dump;
mod filters;
mod inject;
mod links;
mod load;
mod maps;
mod mmap;
mod neighbours;
pub mod netdev;
mod netlink;
mod perf;
mod syscall;
mod takeover;
mod version;
mod watch_frames;
mod watch_mark;
mod xdp;

pub use clock::monotonic_ns;
pub use inject::{INJECT_PREFIX, InjectTap};
pub use load::Programs;
pub use perf::{MissReader, Waker};
pub use version::check_version;
pub use watch_frames::{FrameWatch, SeenFrame};
pub use xdp::why_not_xdp;

use crate::{
    Attachment, Buckets, ConnectionPiece, Datapath, Earlier, Error, Family, HeldPacket, MarkWatch,
    Miss, SlotUse, Tracked, XdpUse,
};
use beside::Beside;
use links::Links;
use maps::Maps;
use nix::fcntl::Flock;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_common::acl::{Cell, SetKey, SetList};
use weft_common::connection::Quota;
use weft_common::flood::FloodList;
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};
use weft_common::peer::{AddressBytes, PeerRecord};
use weft_common::policy::Policy;
use weft_common::port::{Delivery, InterfaceRecord, PortCounters};
use weft_common::{DropReason, FlowKey, PortRecord, Slot, SlotRef};

/// Where and how to load.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Folder in bpffs: `maps/`, `progs/` and `links/` are made under it, and a folder `abi-N` that says of which ABI
    /// they are.
    pub pin: PathBuf,
}

/// The kernel side of one agent.
pub struct Kernel {
    programs: Programs,
    links: Links,
    maps: Maps,
    inject: InjectTap,
    reader: MissReader,
    pin: PathBuf,
    /// The running maps and programs, where they are an earlier agent's of another ABI.
    beside: Option<Beside>,
    /// Held for as long as this agent runs: a folder of pins has one agent.
    _lock: Flock<File>,
}

impl Kernel {
    /// Loads the programs, adopts or makes the maps, opens the inject TAP in the calling thread's network
    /// namespace and starts to receive misses.
    ///
    /// # Errors
    /// Whatever the kernel refuses, with what was being done.
    pub fn open(config: &KernelConfig) -> Result<Kernel, Error> {
        check_version()?;
        bpffs::mount_if_absent(&config.pin)?;
        let lock = bpffs::lock(&config.pin)?;
        let beside = Beside::find(&config.pin)?;
        let folder = beside.as_ref().map_or(&config.pin, Beside::folder);
        let mut programs = Programs::load(folder)?;
        let mut maps = Maps::open(&mut programs)?;
        if let Some(beside) = &beside {
            beside.copy_generations(&mut maps);
        }
        bpffs::make(&config.pin.join("links"))?;
        let reader = MissReader::open(&maps)?;
        let mut links = Links::new(&config.pin);
        let inject = InjectTap::open()?;
        links.attach_inject(&mut programs, &config.pin, inject.name())?;
        Ok(Kernel {
            programs,
            links,
            maps,
            inject,
            reader,
            pin: config.pin.clone(),
            beside,
            _lock: lock,
        })
    }

    /// Waits for misses and hands each to `handle`, at most a bounded number. Returns how many there were.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn poll_misses(
        &mut self,
        timeout: Duration,
        handle: &mut dyn FnMut(Miss),
    ) -> Result<usize, Error> {
        self.reader.poll(timeout, handle)
    }

    /// Makes a thread that waits in [`Kernel::poll_misses`] return.
    pub fn waker(&self) -> Waker {
        self.reader.waker()
    }

    /// The highest generation in the kernel, in slots and in what refers to them: what a new flow table starts with.
    pub fn slot_generation(&self) -> u32 {
        self.maps.generation_max()
    }

    /// What an agent that is gone left under its folder of pins: everything is detached, and every pin removed.
    /// False when there was nothing. Only in the agent's network namespace, where the kernel has no TCX.
    ///
    /// # Errors
    /// [`Error::PinInUse`] while an agent runs; what the kernel keeps.
    pub fn release_pins(pin: &Path) -> Result<bool, Error> {
        if !pin.exists() {
            return Ok(false);
        }
        let _lock = bpffs::lock(pin)?;
        detach_all(pin)?;
        Ok(true)
    }

    /// Whether programs are attached, or another ABI's run on for now.
    fn attaches(&self) -> bool {
        self.beside.as_ref().is_none_or(|beside| beside.is_swapping)
    }

    /// The loaded programs, for BPF_PROG_TEST_RUN.
    pub fn programs(&mut self) -> &mut Programs {
        &mut self.programs
    }
}

impl Datapath for Kernel {
    fn write_slot(&mut self, index: u32, slot: &Slot) -> Result<(), Error> {
        self.maps.slots.write(index, slot)
    }

    fn read_slot(&self, index: u32) -> Option<Slot> {
        self.maps.slots.read(index)
    }

    fn retire_slot(&mut self, index: u32) {
        self.maps.slots.retire(index);
    }

    fn write_group(&mut self, index: u32, buckets: &Buckets) -> Result<(), Error> {
        self.maps.slots.write_group(index, buckets)
    }

    fn clear_slot_use(&mut self, index: u32) {
        self.maps.slots.clear_use(index);
    }

    fn slot_use(&self, index: u32) -> SlotUse {
        self.maps.slots.use_of(index)
    }

    fn write_mask(&mut self, family: Family, number: u32, mask: &FlowKey) -> Result<(), Error> {
        self.maps.write_mask(family, number, mask)
    }

    fn read_mask(&self, family: Family, number: u32) -> Result<FlowKey, Error> {
        let masks = self.maps.masks(family)?;
        Ok(masks.get(number as usize).copied().unwrap_or_default())
    }

    fn publish(&mut self, family: Family, masked: &FlowKey, target: SlotRef) -> Result<(), Error> {
        self.maps.publish(family, masked, target)
    }

    fn withdraw(&mut self, family: Family, masked: &FlowKey) -> Result<(), Error> {
        self.maps.withdraw(family, masked)
    }

    fn take_over(&mut self) -> Result<Earlier, Error> {
        let other_abi = self.beside.as_ref().map(Beside::read);
        Ok(Earlier {
            other_abi,
            ..self.maps.take_over()?
        })
    }

    fn published(&self, family: Family, masked: &FlowKey) -> Result<Option<SlotRef>, Error> {
        self.maps.published(family, masked)
    }

    fn published_keys(&self) -> Result<Vec<(Family, FlowKey)>, Error> {
        let published = self.maps.published_flows()?.into_iter();
        Ok(published.map(|(family, key, _)| (family, key)).collect())
    }

    fn write_port(&mut self, index: u16, record: &PortRecord) -> Result<(), Error> {
        self.maps.write_port(index, record)
    }

    fn read_port(&self, index: u16) -> Result<PortRecord, Error> {
        self.maps.read_port(index)
    }

    fn write_flood_list(&mut self, index: u32, list: &FloodList) -> Result<(), Error> {
        self.maps.write_flood_list(index, list)
    }

    fn write_acls(&mut self, acls: &[(u16, Vec<Cell>)]) -> Result<(), Error> {
        self.maps.acls.write(acls)
    }

    fn remove_acl(&mut self, number: u16) -> Result<(), Error> {
        self.maps.acls.remove(number)
    }

    fn acl_counters(&self, number: u16) -> Result<Vec<Cell>, Error> {
        self.maps.acls.counters(number)
    }

    fn policy(&self, port: u16) -> Policy {
        self.maps.policies.policy(port)
    }

    fn write_policy(&mut self, port: u16, policy: Policy) {
        self.maps.policies.write_policy(port, policy);
    }

    fn write_tenant(&mut self, port: u16, tenant: u16) -> Result<(), Error> {
        self.maps.write_tenant(port, tenant)
    }

    fn quota(&self, tenant: u16) -> Quota {
        self.maps.policies.quota(tenant)
    }

    fn write_quota_limit(&mut self, tenant: u16, limit: u64) {
        self.maps.policies.write_limit(tenant, limit);
    }

    fn next_connections(&mut self, most: usize) -> Result<ConnectionPiece, Error> {
        self.maps.connections.next(most)
    }

    fn connections(&self, most: usize) -> Result<Vec<Tracked>, Error> {
        self.maps.connections.all(most)
    }

    fn remove_connection(&mut self, tracked: &Tracked) -> Result<(), Error> {
        self.maps.connections.remove(tracked)
    }

    fn write_set(&mut self, key: &SetKey, bits: u8, list: Option<&SetList>) -> Result<(), Error> {
        self.maps.acls.write_set(key, bits, list)
    }

    fn set_keys(&self) -> Result<Vec<(SetKey, u8)>, Error> {
        self.maps.acls.set_keys()
    }

    fn neighbours(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, Error> {
        self.maps.neighbours.all()
    }

    fn write_neighbour(
        &mut self,
        key: &NeighbourKey,
        neighbour: Option<&Neighbour>,
    ) -> Result<(), Error> {
        self.maps.neighbours.write(key, neighbour)
    }

    fn asker(&self, port: u16) -> Result<Asker, Error> {
        self.maps.neighbours.asker(port)
    }

    fn write_asker(&mut self, port: u16, asker: &Asker) -> Result<(), Error> {
        self.maps.neighbours.write_asker(port, asker)
    }

    fn write_peer(&mut self, index: u16, peer: &PeerRecord) -> Result<(), Error> {
        self.maps.write_peer(index, peer)
    }

    fn set_remote_host(&mut self, address: AddressBytes, peer: Option<u16>) -> Result<(), Error> {
        self.maps.set_remote_host(address, peer)
    }

    fn keep_remote_hosts(&mut self, keep: &BTreeSet<AddressBytes>) -> Result<(), Error> {
        self.maps.keep_remote_hosts(keep)
    }

    fn set_own_address(&mut self, address: AddressBytes, present: bool) -> Result<(), Error> {
        self.maps.set_own_address(address, present)
    }

    fn start_swap(&mut self) {
        if let Some(beside) = &mut self.beside {
            beside.is_swapping = true;
        }
    }

    fn end_swap(&mut self) -> Result<(), Error> {
        if self.beside.is_none() {
            return Ok(());
        }
        self.links.sweep_earlier()?;
        beside::finish(&self.pin)?;
        self.beside = None;
        Ok(())
    }

    fn attach_port(&mut self, port: u16, interface: &str) -> Result<Attachment, Error> {
        let ifindex = ifindex_of(interface)?;
        let occupied = self.maps.interface(ifindex)?;
        if occupied.ifindex != 0 && occupied.ifindex != ifindex {
            return Err(Error::Full {
                what: "interface records with this number",
                limit: u64::from(weft_common::limits::INTERFACES_MAX),
            });
        }
        self.maps.set_interface(
            ifindex,
            InterfaceRecord {
                ifindex,
                port: u32::from(port),
            },
        )?;
        if self.attaches() {
            self.links
                .attach_port(&mut self.programs, port, interface, ifindex)?;
        }
        let delivery = if is_veth(interface) {
            Delivery::Peer
        } else {
            Delivery::Plain
        };
        Ok(Attachment { ifindex, delivery })
    }

    fn detach_port(&mut self, port: u16, ifindex: u32) -> Result<(), Error> {
        if self.attaches() {
            self.links.detach_port(port)?;
        }
        if self.maps.interface(ifindex)?.ifindex == ifindex {
            self.maps
                .set_interface(ifindex, InterfaceRecord::default())?;
        }
        Ok(())
    }

    fn detach_other_ports(&mut self, keep: &BTreeSet<u16>) {
        if self.attaches() {
            self.links.sweep(keep);
        }
    }

    fn attach_underlay(&mut self, interface: &str) -> Result<(), Error> {
        ifindex_of(interface)?;
        if !self.attaches() {
            return Ok(());
        }
        self.links.attach_underlay(&mut self.programs, interface)
    }

    fn release(&mut self) -> Result<(), Error> {
        detach_all(&self.pin)
    }

    fn attach_xdp(&mut self, interface: &str, wanted: XdpUse) -> Result<bool, Error> {
        let wanted = match wanted {
            XdpUse::Never => false,
            XdpUse::WhereItPays => why_not_xdp(interface)?.is_none(),
            XdpUse::Always => true,
        };
        if !self.attaches() {
            return Ok(wanted);
        }
        if wanted {
            self.links.attach_xdp(&mut self.programs, interface)?;
        } else {
            self.links.detach_xdp(interface)?;
        }
        Ok(wanted)
    }

    fn inject(&mut self, target: SlotRef, port: u16, packet: &HeldPacket) -> Result<(), Error> {
        self.inject.write(&packet.to_inject(target, port))
    }

    fn watch(&self, interface: &str, mark: u32) -> Result<Box<dyn MarkWatch>, Error> {
        Ok(Box::new(watch_mark::InterfaceWatch::open(interface, mark)?))
    }

    fn port_counters(&self, port: u16) -> Result<PortCounters, Error> {
        Ok(self.maps.counters.traffic(port))
    }

    fn drops(&self, port: u16) -> Result<Vec<(DropReason, u64)>, Error> {
        Ok(self.maps.counters.drops(port))
    }
}

/// Detaches all that is attached, and removes the folder of pins with those above it that Weft made.
fn detach_all(pin: &Path) -> Result<(), Error> {
    filters::Filters::new(pin).detach_all()?;
    links::detach_all(pin);
    bpffs::remove(pin)?;
    bpffs::remove_parent(pin.parent());
    Ok(())
}

/// Index of an interface in the calling thread's network namespace.
fn ifindex_of(interface: &str) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| Error::NoInterface(interface.to_owned()))
}

/// Whether `bpf_redirect_peer` reaches the workload. Only a veth has a peer; into a tap every frame would be lost.
/// Asked by ETHTOOL_GDRVINFO, as sysfs may show another namespace's interfaces.
fn is_veth(interface: &str) -> bool {
    inject::driver_of(interface).is_ok_and(|driver| driver == "veth")
}
