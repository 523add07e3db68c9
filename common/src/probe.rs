//! Tunnel probes: what a host sends to each other host about once a second, through the tunnel itself.
//!
//! A probe is a tunnel packet whose key has index 0; the key's low byte says which kind. The other host's kernel
//! program turns a request into a reply, whatever state its agent is in. Both kinds also go up to the agent of
//! the host that they reach: a reply with its time of arrival, a request with what its sender says of itself.
//!
//! Two more kinds are for agents alone, and the kernel hands them up without an answer: what a port's interface sees
//! of a marked packet (`weft ping`), asked and answered.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Low byte of the key of a request.
pub const PROBE_REQUEST: u8 = 1;
/// Low byte of the key of a reply.
pub const PROBE_REPLY: u8 = 2;
/// Low byte of the key of a [`WatchPayload`] that asks.
pub const PROBE_WATCH: u8 = 3;
/// Low byte of the key of a [`WatchPayload`] that answers.
pub const PROBE_SEEN: u8 = 4;
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

/// What an agent asks another, and the answer: has this packet arrived at that port of yours? It is as long as a
/// [`ProbePayload`], and the kernel stamps it at the same place.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct WatchPayload {
    /// [`PROBE_MAGIC`].
    pub magic: [u8; 4],
    /// [`PROBE_FORMAT`].
    pub format: u8,
    /// [`WATCH_VISIBLY`], [`WATCH_END`], [`WATCH_BEGIN`]. Others are for later versions.
    pub flags: u8,
    /// Of an answer: the `SEEN_` flags.
    pub seen: u8,
    /// Names the question among those of one watch: an answer has the same.
    pub question: u8,
    /// The packet's mark: the 4 bytes of its ICMP identifier and sequence number, or its TCP sequence number.
    pub token: [u8; 4],
    /// Tunnel key of the port.
    pub key: [u8; 4],
    /// Of an answer: number of a `DropReason` that was counted at the port meanwhile; else 0.
    pub dropped: u8,
    /// Zero.
    pub spare: [u8; 15],
    /// As in a [`ProbePayload`].
    pub received_ns: [u8; 8],
    /// Zero.
    pub padding: [u8; PROBE_VERSION_LEN],
}

/// Flag of [`WatchPayload::flags`]: meanwhile deliver to the port so that its interface shows what is delivered.
pub const WATCH_VISIBLY: u8 = 1 << 0;
/// Flag of [`WatchPayload::flags`]: this is the last question.
pub const WATCH_END: u8 = 1 << 1;

/// Flag of [`WatchPayload::flags`]: the packet isn't sent yet, so that who doesn't watch for it can begin to.
pub const WATCH_BEGIN: u8 = 1 << 2;

/// Flag of [`WatchPayload::seen`]: the packet left by the port's interface.
pub const SEEN_DELIVERED: u8 = 1 << 0;
/// Flag of [`WatchPayload::seen`]: the workload's answer to it came in by the port's interface.
pub const SEEN_ANSWERED: u8 = 1 << 1;
/// Flag of [`WatchPayload::seen`]: whatever is delivered there is seen, so that what isn't seen wasn't delivered.
pub const SEEN_VISIBLY: u8 = 1 << 2;
/// Flag of [`WatchPayload::seen`]: the interface is down, or nobody is at its other end.
pub const SEEN_DOWN: u8 = 1 << 3;
/// Flag of [`WatchPayload::seen`]: no live port of this host has that key.
pub const SEEN_NO_PORT: u8 = 1 << 4;
/// Flag of [`WatchPayload::seen`]: this host doesn't watch: it can't, or watches as many ports as it may.
pub const SEEN_BUSY: u8 = 1 << 5;

const _: () = assert!(size_of::<ProbePayload>() == 56);
const _: () = assert!(size_of::<WatchPayload>() == size_of::<ProbePayload>());
const _: () = assert!(core::mem::offset_of!(WatchPayload, received_ns) == PROBE_RECEIVED_OFFSET);
