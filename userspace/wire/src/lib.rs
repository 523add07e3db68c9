//! Pure packet formats that the agent speaks, on etherparse: bytes in, bytes out, no state.
//!
//! [`arp`] asks and answers for MAC addresses, [`icmp`] answers pings and reports what a router couldn't
//! forward, [`ethernet`] frames both. Called by `weft-vnet`.

pub mod arp;
pub mod ethernet;
pub mod icmp;

pub use arp::{Arp, ArpError, Operation};
pub use ethernet::ETHERNET_BYTES_MIN;
pub use icmp::IcmpError;
