//! What the network answers for: addresses whose owner the topology names, and who may ask without the agent hearing it.
//!
//! Maps: `neighbours` by [`NeighbourKey`], `askers` by port index. A key names its network by id and not by a number, so
//! that it means the same to each agent that ever fills the map.

use crate::peer::AddressBytes;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address in a network.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct NeighbourKey {
    /// Id of the flood domain: never zero.
    pub domain: [u8; 16],
    /// The address, IPv4 as `::ffff:a.b.c.d`.
    pub address: AddressBytes,
}

/// Flag of [`Neighbour::flags`]: it is a router's, and answers say so (RFC 4861, 4.4).
pub const ROUTER: u8 = 1 << 0;
/// Flag of [`Neighbour::flags`]: solicitations that are sent to its MAC reach nobody but the network itself.
pub const HEARS: u8 = 1 << 1;

/// Who has an address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct Neighbour {
    /// Its MAC.
    pub mac: [u8; 6],
    /// [`ROUTER`], [`HEARS`].
    pub flags: u8,
    /// Zero.
    pub spare: u8,
    /// Index of the port whose it is, if that is on this host; else 0. Its own questions are for the others.
    pub owner: u32,
}

/// A port whose workload is answered. All zero: everything that it asks is for the agent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Asker {
    /// Id of the flood domain that it is in.
    pub domain: [u8; 16],
    /// The MAC under which answers find it; zero when they might go elsewhere.
    pub mac: [u8; 6],
    /// Zero.
    pub spare: [u8; 2],
}

const _: () = assert!(size_of::<NeighbourKey>() == 32);
const _: () = assert!(size_of::<Neighbour>() == 12);
const _: () = assert!(size_of::<Asker>() == 24);
