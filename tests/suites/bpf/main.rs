//! Each stage of the kernel programs, under BPF_PROG_TEST_RUN: input packet, expected verdict, output and counters.

mod bench;
mod encap;
mod frames;
#[path = "../../fuzz/src/lib.rs"]
mod fuzz_targets;
mod odd_packets;
mod zone;

mod acl;
mod cache;
mod connections;
mod differential;
mod fragments;
mod hooks;
mod inject;
mod key;
mod miss;
mod neighbours;
mod port;
mod probe;
mod select;
mod tenants;
mod underlay;
mod verifier;
mod xdp;
