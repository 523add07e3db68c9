//! Pure packet formats that the agent speaks, on etherparse: bytes in, bytes out, no state.
//!
//! [`arp`] and [`ndp`] ask and answer for MAC addresses, [`icmp`] and [`icmpv6`] answer pings and report what a
//! router couldn't forward, [`ethernet`] frames them. Called by `weft-vnet`.

pub mod arp;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod ndp;

pub use arp::{Arp, ArpError, Operation};
pub use ethernet::ETHERNET_BYTES_MIN;
pub use icmp::IcmpError;
pub use ndp::{Nd, NdError};
