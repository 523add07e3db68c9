//! The scenarios: real agents and real packets between network namespaces, each scenario one function.
//!
//! One module is one area. `cargo xtask test net [AREA::NAME]` runs them; each makes, names and removes its own
//! world (see `weft_tests::harness`), so that they run side by side.

mod api;
mod attach;
mod bench;
mod bridge;
mod deep;
mod demo;
mod ecmp;
mod encap;
mod errors;
mod errors_v6;
mod harness;
mod ipv6;
mod neighbours;
mod offload;
mod ovs;
mod ping;
mod policy;
mod policy_changes;
mod policy_seen;
mod probe;
mod release;
mod restart;
mod router;
mod seeing;
mod store;
mod storm;
mod tenant;
mod trace;
mod trouble;
mod tunnel_v6;
mod upgrade;
mod xdp;
