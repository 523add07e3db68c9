//! Flood lists: where the copies of a flooded frame go. Immutable once published, like slots.

use crate::limits::{FLOOD_LOCALS_MAX, FLOOD_REMOTES_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One copy for one remote host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FloodRemote {
    /// Index of the host's underlay record.
    pub peer: u32,
    /// Tunnel key of the flood set on that host.
    pub tunnel_key: u32,
}

/// Local ports and remote hosts that get a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FloodList {
    /// Used entries of `locals`.
    pub local_count: u32,
    /// Used entries of `remotes`.
    pub remote_count: u32,
    /// Indices of local ports.
    pub locals: [u16; FLOOD_LOCALS_MAX],
    /// Remote hosts.
    pub remotes: [FloodRemote; FLOOD_REMOTES_MAX],
}

const _: () = assert!(size_of::<FloodList>() == 8 + 2 * FLOOD_LOCALS_MAX + 8 * FLOOD_REMOTES_MAX);
