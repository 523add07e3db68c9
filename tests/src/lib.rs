//! Weft's tests that need more than one crate: the harness (hosts are network namespaces), the demo, the benchmarks.
//!
//! The scenarios are in `suites/net`, programs alone under `BPF_PROG_TEST_RUN` in `suites/bpf`. A scenario:
//!
//! ```no_run
//! use weft_tests::harness::{Run, Topology};
//!
//! # fn scenario(run: &mut Run) -> anyhow::Result<()> {
//! let net = run.two_hosts()?;
//! net.apply(
//!     &Topology::tenant("acme")
//!         .port("web/web-1", "h1", "10.0.1.11/24")
//!         .port("web/web-2", "h2", "10.0.1.12/24"),
//! )?;
//! net.ping("web-1", "web-2")
//! # }
//! ```

pub mod bench;
pub mod demo;
pub mod harness;
pub mod model;

pub use weft_scenario_macro::scenario;
