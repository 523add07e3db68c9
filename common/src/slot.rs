//! Slots: immutable records of what to do with the packets of a flow.
//!
//! A slot is written while nobody can reach it, then published by one 8-byte [`SlotRef`]. Readers copy what
//! they need and compare the generation: a slot that was given to another decision has another one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Names a slot and the decision it held when the reference was made. 8 bytes, written at once.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SlotRef {
    /// Index into the slot array; 0 is never used.
    pub slot: u32,
    /// Generation that the slot must have.
    pub generation: u32,
}

/// What happens to the packet after its rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Output {
    /// Drop, counted under [`Slot::drop_reason`].
    Drop = 0,
    /// Deliver to the local port with index [`Slot::port`].
    Local = 1,
    /// Send to [`Slot::peer`] under [`Slot::tunnel_key`].
    Tunnel = 2,
    /// Send to every member of flood list [`Slot::flood_list`] but the ingress port.
    Flood = 3,
    /// Hand to the agent, packet by packet.
    Agent = 4,
}

/// A choice that the kernel makes (DESIGN 4). [`Choice::Select`] comes before everything else: the slot that it leads
/// to has guards, rewrite and output of its own. The others aren't carried out yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Choice {
    /// None: the output decides.
    None = 0,
    /// Take the slot in the bucket of group [`Slot::choice_group`] that [`crate::select::bucket`] names.
    Select = 1,
    /// Translate the source from a pool.
    Snat = 2,
    /// Translate the destination.
    Dnat = 3,
    /// Look the packet up again in another stage.
    Recirculate = 4,
}

/// Flag of [`Slot::flags`]: write both MAC addresses.
pub const SET_MACS: u8 = 1 << 0;

/// Everything to do with a packet of one flow: guards, rewrite, choice, output, in that order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Slot {
    /// Compared by readers; raised each time the slot is retired.
    pub generation: u32,
    /// An [`Output`].
    pub output: u8,
    /// A [`crate::DropReason`] for [`Output::Drop`], else 0.
    pub drop_reason: u8,
    /// Routers crossed: guard (TTL must be greater) and amount to subtract.
    pub ttl_decrement: u8,
    /// [`SET_MACS`].
    pub flags: u8,
    /// Guard: largest L3 length, or GSO segment, in bytes; 0 for none.
    pub mtu: u16,
    /// Index of the local output port.
    pub port: u16,
    /// Index of the underlay record of the remote host.
    pub peer: u16,
    /// Zero.
    pub spare: u16,
    /// Key of the egress port on the remote host.
    pub tunnel_key: u32,
    /// Index of the flood list.
    pub flood_list: u32,
    /// New Ethernet source with [`SET_MACS`].
    pub src_mac: [u8; 6],
    /// New Ethernet destination with [`SET_MACS`].
    pub dst_mac: [u8; 6],
    /// A [`Choice`].
    pub choice: u8,
    /// Stage that the packet goes on in after the choice.
    pub choice_stage: u8,
    /// Zero.
    pub choice_spare: u16,
    /// Group or pool of the choice.
    pub choice_group: u32,
    /// Zero.
    pub reserved: [u8; 20],
}

/// Use of one slot on one CPU: index `cpu * SLOTS_MAX + slot`. Only that CPU writes it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SlotStats {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came in.
    pub bytes: u64,
    /// `bpf_jiffies64` of the last packet.
    pub last_used_jiffies: u64,
    /// Zero.
    pub spare: u64,
}

/// One entry of the microflow cache: index `cpu * CACHE_ENTRIES_PER_CPU + hash`. Only that CPU touches it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct CacheEntry {
    /// The packet's key; the IPv4 family uses the first four words and leaves the others stale.
    pub key: [u64; 8],
    /// The decision.
    pub target: SlotRef,
    /// Epoch of the ingress port's policy under which the entry was made.
    pub epoch: u32,
    /// Zero.
    pub spare: [u32; 13],
}

const _: () = assert!(size_of::<SlotRef>() == 8);
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(size_of::<SlotStats>() == 32);
const _: () = assert!(size_of::<CacheEntry>() == 128);

impl Output {
    /// The output with this number, or none.
    pub const fn from_number(number: u8) -> Option<Output> {
        match number {
            0 => Some(Output::Drop),
            1 => Some(Output::Local),
            2 => Some(Output::Tunnel),
            3 => Some(Output::Flood),
            4 => Some(Output::Agent),
            _ => None,
        }
    }
}

impl Slot {
    /// The select group that chooses the decision in this one's stead.
    #[inline(always)]
    pub const fn select_group(&self) -> Option<u32> {
        if self.choice == Choice::Select as u8 {
            Some(self.choice_group)
        } else {
            None
        }
    }
}
