//! Pure packet formats that the agent speaks, on etherparse: bytes in, bytes out, no state.
//!
//! [`arp`] and [`ndp`] ask and answer for MAC addresses, [`icmp`] and [`icmpv6`] answer pings, [`undelivered`] tells
//! senders what went no further, [`tcp`] refuses connections, [`ipv4`] finds damaged headers, [`fragment`] divides
//! packets, [`ethernet`] frames them. Called by `weft-vnet`.

pub mod arp;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ndp;
pub mod tcp;
pub mod undelivered;

pub use arp::{Arp, ArpError, Operation};
pub use ethernet::ETHERNET_BYTES_MIN;
pub use icmp::IcmpError;
pub use ndp::{Nd, NdError};
pub use undelivered::Undelivered;
