//! The ABI between Weft's kernel programs and its agent, defined once.
//!
//! Everything here is `repr(C)` without implicit padding (`zerocopy` refuses to derive otherwise) and is
//! checked by const assertions. The crate owns no state. Both sides use it: `weft-ebpf` in the kernel,
//! `weft-datapath` and `weft-vnet` in user space.
#![no_std]

pub mod acl;
pub mod checksum;
pub mod connection;
pub mod drop;
pub mod ecn;
pub mod event;
pub mod flood;
pub mod fragment;
pub mod frame;
pub mod key;
pub mod limits;
pub mod neighbour;
pub mod peer;
pub mod policy;
pub mod port;
pub mod probe;
pub mod select;
pub mod slot;
pub mod tunnel;

pub use drop::DropReason;
pub use fragment::FragmentPorts;
pub use frame::{Frame, Headers, extract};
pub use key::{FlowKey, FlowKeyV4, Fragment, Network};
pub use port::PortRecord;
pub use slot::{Slot, SlotRef, SlotStats};
pub use tunnel::TunnelKey;

/// Version of every record and map in this crate. An agent that finds pinned maps of another version lets them forward,
/// fills its own beside them, and swaps.
pub const ABI_VERSION: u32 = 4;
/// Version of what an agent reads of maps of another ABI: sizes and meaning of keys in `megaflows_v4` and
/// `megaflows_v6`, of the masks in `masks_v4` and `masks_v6`, and of a `ports` record as far as its generation goes.
/// Raised when any of that changes: then flows are rebuilt by misses, and keys known from the store and from disk.
pub const KEYS_VERSION: u32 = 1;
