//! The only place with aya and netlink: loads and attaches the kernel programs, fills their maps, reads misses,
//! and watches the host's interfaces, routes and neighbours.
//!
//! [`Datapath`] is the seam: [`kernel::Kernel`] is the real one, [`fake::Fake`] the one for tests without a
//! kernel. [`FlowTable`] and [`PortTable`] keep the books for either. The agent's packet thread owns all of it.

pub mod earlier;
pub mod error;
pub mod fake;
pub mod flow_table;
pub mod held;
pub mod kernel;
pub mod masks;
pub mod network;
pub mod port_table;

pub use earlier::{Earlier, EarlierFlow, EarlierKey, OtherAbi};
pub use error::Error;
pub use fake::Fake;
pub use flow_table::{Flow, FlowId, FlowTable, Member};
pub use held::HeldPacket;
pub use kernel::{Kernel, KernelConfig, monotonic_ns};
pub use masks::Owner;
pub use port_table::PortTable;

use std::collections::BTreeSet;
use weft_common::acl::{Cell, SetKey, SetList};
use weft_common::connection::{Entry, Quota};
use weft_common::flood::FloodList;
use weft_common::limits::SELECT_BUCKETS;
use weft_common::neighbour::{Asker, Neighbour, NeighbourKey};
use weft_common::peer::{AddressBytes, PeerRecord};
use weft_common::policy::Policy;
use weft_common::port::{Delivery, PortCounters};
use weft_common::{DropReason, FlowKey, Network, PortRecord, Slot, SlotRef};

/// Which of the two megaflow tables a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, ARP and all that isn't IPv6.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a packet's key.
    pub fn of(key: &FlowKey) -> Family {
        match key.head.network() {
            Network::Ipv6 => Family::V6,
            Network::Other | Network::Ipv4 | Network::Arp => Family::V4,
        }
    }
}

/// How much a slot was used, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotUse {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// A number that changes whenever the slot was used (jiffies).
    pub last_used: u64,
}

/// What attaching to a workload's interface found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Index of the interface.
    pub ifindex: u32,
    /// How frames reach the workload.
    pub delivery: Delivery,
}

/// What an interface showed of a marked packet: see [`Datapath::watch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// It went out by the interface.
    pub went_out: bool,
    /// An answer to it came in.
    pub was_answered: bool,
    /// The interface is up, and somebody is at its other end.
    pub is_up: bool,
}

/// A look-out for one marked packet at one interface.
pub trait MarkWatch: Send {
    /// What has been seen so far. Returns at once.
    ///
    /// # Errors
    /// When the kernel can't say.
    fn look(&mut self) -> Result<Sighting, Error>;
}

/// Whether tunnel packets are received by XDP, before TC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpUse {
    /// By TC alone.
    Never,
    /// On interfaces where it pays: see [`kernel::why_not_xdp`].
    #[default]
    WhereItPays,
    /// Wherever the driver has it.
    Always,
}

/// What each bucket of a select group leads to.
pub type Buckets = [SlotRef; SELECT_BUCKETS as usize];

/// A packet that the kernel handed to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Index of the ingress port.
    pub port: u16,
    /// Generation of the ingress port's key when the packet was sent up.
    pub generation: u8,
    /// Number of a `weft_common::event::MissReason`.
    pub reason: u8,
    /// The packet.
    pub packet: HeldPacket,
}

/// A connection that the kernel tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Which addresses its key has.
    pub family: Family,
    /// Both sides take part; else nobody has answered yet.
    pub is_established: bool,
    /// What is known of it.
    pub entry: Entry,
}

/// A piece of the tables of established connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPiece {
    /// The connections.
    pub entries: Vec<Tracked>,
    /// The next one starts at the beginning.
    pub is_last: bool,
}

/// What the agent asks of a forwarding plane. All indices are those of the ABI; all methods are syscalls or
/// memory writes that return at once.
pub trait Datapath {
    /// Writes a slot that nobody can reach yet.
    fn write_slot(&mut self, index: u32, slot: &Slot) -> Result<(), Error>;
    /// The decision that a slot holds now.
    fn read_slot(&self, index: u32) -> Option<Slot>;
    /// Takes the decision out of a slot: who looks from now on finds none, who read it before goes on with it.
    fn retire_slot(&mut self, index: u32);
    /// Writes a select group that no slot names yet.
    fn write_group(&mut self, index: u32, buckets: &Buckets) -> Result<(), Error>;
    /// Sets the counters of a slot to zero, before its next use.
    fn clear_slot_use(&mut self, index: u32);
    /// How much a slot was used.
    fn slot_use(&self, index: u32) -> SlotUse;
    /// Writes the mask with this number.
    fn write_mask(&mut self, family: Family, number: u32, mask: &FlowKey) -> Result<(), Error>;
    /// The mask with this number; zero when there is none.
    fn read_mask(&self, family: Family, number: u32) -> Result<FlowKey, Error>;
    /// Publishes a masked key, with its mask's number in it, or gives it another slot.
    fn publish(&mut self, family: Family, masked: &FlowKey, target: SlotRef) -> Result<(), Error>;
    /// Withdraws a masked key; one that isn't there is no error.
    fn withdraw(&mut self, family: Family, masked: &FlowKey) -> Result<(), Error>;
    /// Reads what an earlier agent left. Decisions that no published key leads to are taken away: what cached
    /// packets still go by is in the answer.
    fn take_over(&mut self) -> Result<Earlier, Error>;
    /// The slot that is published for a masked key.
    fn published(&self, family: Family, masked: &FlowKey) -> Result<Option<SlotRef>, Error>;
    /// Every masked key that is published, by whomever.
    fn published_keys(&self) -> Result<Vec<(Family, FlowKey)>, Error>;
    /// Writes a port or flood-set record.
    fn write_port(&mut self, index: u16, record: &PortRecord) -> Result<(), Error>;
    /// Reads a port or flood-set record.
    fn read_port(&self, index: u16) -> Result<PortRecord, Error>;
    /// Writes a flood list that nobody can reach yet.
    fn write_flood_list(&mut self, index: u32, list: &FloodList) -> Result<(), Error>;
    /// Puts compiled ACLs in the places of these numbers: of each number packets get the old one or the new one.
    fn write_acls(&mut self, acls: &[(u16, Vec<Cell>)]) -> Result<(), Error>;
    /// Takes away an ACL that no policy names.
    fn remove_acl(&mut self, number: u16) -> Result<(), Error>;
    /// Packets and bytes of each rule of an ACL; nothing for a number that has none.
    fn acl_counters(&self, number: u16) -> Result<Vec<Cell>, Error>;
    /// A port's policy.
    fn policy(&self, port: u16) -> Policy;
    /// Gives a port another policy, at once: no packet sees half of one.
    fn write_policy(&mut self, port: u16, policy: Policy);
    /// Says whose connections those of a port are.
    fn write_tenant(&mut self, port: u16, tenant: u16) -> Result<(), Error>;
    /// Connections of a tenant.
    fn quota(&self, tenant: u16) -> Quota;
    /// Where [`Quota::opened`] of a tenant must stop.
    fn write_quota_limit(&mut self, tenant: u16, limit: u64);
    /// The next established connections, at most about so many: each call goes on where the one before ended.
    fn next_connections(&mut self, most: usize) -> Result<ConnectionPiece, Error>;
    /// Connections, half-open ones, too; at most so many of each table.
    fn connections(&self, most: usize) -> Result<Vec<Tracked>, Error>;
    /// Takes a connection out; one that is gone is no error.
    fn remove_connection(&mut self, tracked: &Tracked) -> Result<(), Error>;
    /// Writes, or takes away, the sets that the addresses of a prefix of `bits` bits are in.
    fn write_set(&mut self, key: &SetKey, bits: u8, list: Option<&SetList>) -> Result<(), Error>;
    /// Every prefix in the table of sets, with its length, by whomever.
    fn set_keys(&self) -> Result<Vec<(SetKey, u8)>, Error>;
    /// Every address that the kernel answers for, by whomever it was written.
    fn neighbours(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, Error>;
    /// Has the kernel answer for an address, or no longer: at once, one that it doesn't answer for is no error.
    fn write_neighbour(
        &mut self,
        key: &NeighbourKey,
        neighbour: Option<&Neighbour>,
    ) -> Result<(), Error>;
    /// In which network the kernel answers the workload of a port.
    fn asker(&self, port: u16) -> Result<Asker, Error>;
    /// Says in which network the kernel answers the workload of a port.
    fn write_asker(&mut self, port: u16, asker: &Asker) -> Result<(), Error>;
    /// Writes an underlay record.
    fn write_peer(&mut self, index: u16, peer: &PeerRecord) -> Result<(), Error>;
    /// Accepts, or refuses again, tunnel packets from a remote address.
    fn set_remote_host(&mut self, address: AddressBytes, peer: Option<u16>) -> Result<(), Error>;
    /// Refuses tunnel packets from all remote addresses but these.
    fn keep_remote_hosts(&mut self, keep: &BTreeSet<AddressBytes>) -> Result<(), Error>;
    /// Receives, or no longer, tunnel packets to an own address.
    fn set_own_address(&mut self, address: AddressBytes, present: bool) -> Result<(), Error>;
    /// From here on attaching and detaching are done: beside an earlier agent's maps of another ABI they are only
    /// noted in the own maps, and its programs run on. Whoever calls it attaches everything again.
    fn start_swap(&mut self);
    /// Detaches what wasn't attached since [`Datapath::start_swap`], and puts the own maps and programs in the place
    /// of the earlier agent's. Nothing where there is nothing beside. After an error it may be called again.
    fn end_swap(&mut self) -> Result<(), Error>;
    /// Attaches `from_port` to an interface and makes it the port's; the interface must exist.
    fn attach_port(&mut self, port: u16, interface: &str) -> Result<Attachment, Error>;
    /// Detaches a port's program; the interface may be gone already.
    fn detach_port(&mut self, port: u16, ifindex: u32) -> Result<(), Error>;
    /// Detaches what an earlier agent attached to ports that aren't in `keep`.
    fn detach_other_ports(&mut self, keep: &BTreeSet<u16>);
    /// Attaches `from_underlay` to an interface.
    fn attach_underlay(&mut self, interface: &str) -> Result<(), Error>;
    /// Detaches everything and removes every pin: nothing is forwarded from here on.
    fn release(&mut self) -> Result<(), Error>;
    /// Attaches `from_underlay_xdp` to an interface beside `from_underlay`, or detaches it. Returns whether it is
    /// attached now; after an error it isn't.
    fn attach_xdp(&mut self, interface: &str, wanted: XdpUse) -> Result<bool, Error>;
    /// Sends a packet through a slot, as if it came from `port` (0: from none).
    fn inject(&mut self, target: SlotRef, port: u16, packet: &HeldPacket) -> Result<(), Error>;
    /// Begins to look out at an interface for a packet with this mark, and for its answer. The mark is four bytes behind
    /// the first four of its ICMP or TCP header.
    fn watch(&self, interface: &str, mark: u32) -> Result<Box<dyn MarkWatch>, Error>;
    /// Traffic of a port.
    fn port_counters(&self, port: u16) -> Result<PortCounters, Error>;
    /// Drops of a port (0: of none), those that aren't zero.
    fn drops(&self, port: u16) -> Result<Vec<(DropReason, u64)>, Error>;
}
