//! Tunnel probes: what a host sends to each other host about once a second, through the tunnel itself.
//!
//! A probe is a tunnel packet whose key has index 0; the key's low byte says which kind. The other host's kernel
//! program turns a request into a reply, whatever state its agent is in. Both kinds also go up to the agent of
//! the host that they reach: a reply with its time of arrival, a request with what its sender says of itself.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Low byte of the key of a request.
pub const PROBE_REQUEST: u8 = 1;
/// Low byte of the key of a reply.
pub const PROBE_REPLY: u8 = 2;
/// Ethernet type of the inner frame: IEEE 802's first for local experiments.
pub const ETHERTYPE_PROBE: u16 = 0x88b5;
/// First bytes of each probe.
pub const PROBE_MAGIC: [u8; 4] = *b"weft";
/// Form of the payload.
pub const PROBE_FORMAT: u8 = 1;
/// Most bytes of a sender's version.
pub const PROBE_VERSION_LEN: usize = 16;

/// What follows the inner Ethernet header. Numbers are in network order; zeros may follow, up to any size.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ProbePayload {
    /// [`PROBE_MAGIC`].
    pub magic: [u8; 4],
    /// [`PROBE_FORMAT`].
    pub format: u8,
    /// ABI version of the sender.
    pub abi: u8,
    /// Zero.
    pub spare: [u8; 2],
    /// Names the request.
    pub sequence: [u8; 8],
    /// `CLOCK_MONOTONIC` of the sender, in nanoseconds, when it made the request.
    pub sent_ns: [u8; 8],
    /// Unix time of the sender at that moment, in milliseconds.
    pub sent_unix_ms: [u8; 8],
    /// `bpf_ktime_get_ns` (also `CLOCK_MONOTONIC`) of the host that it arrived at, written there.
    pub received_ns: [u8; 8],
    /// Version of the sender's weftd, in ASCII, then zeros.
    pub version: [u8; PROBE_VERSION_LEN],
}

/// Offset of [`ProbePayload::received_ns`].
pub const PROBE_RECEIVED_OFFSET: usize = core::mem::offset_of!(ProbePayload, received_ns);

const _: () = assert!(size_of::<ProbePayload>() == 56);
