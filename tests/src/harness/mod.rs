//! The harness: a host is a network namespace, a scenario is one function.
//!
//! A [`Run`] has an id; everything that it makes carries the id and is taken down by it, also by the next run if
//! this one's process dies. A [`Network`] has hosts with agents, and workloads that are declared as a
//! [`Topology`]. Helpers declare what they cause; a frame that nobody declared fails the scenario.

pub mod capture;
pub mod evidence;
pub mod host;
pub mod judge;
pub mod kernel;
pub mod namespace;
pub mod network;
pub mod packet;
pub mod pcap;
pub mod process;
mod run;
pub mod run_id;
pub mod socket;
pub mod sweep;
pub mod tap;
pub mod topology;
pub mod traffic;
pub mod wait;
pub mod watch;
pub mod weft;

pub use capture::Capture;
pub use host::Host;
pub use judge::{Direction, Judge};
pub use namespace::Namespace;
pub use network::{Network, Underlay};
pub use packet::{Builder, Frame, Mac};
pub use run::{Run, Verdict, prepare, run_scenario};
pub use topology::Topology;
pub use traffic::{Iperf, Load, Ping};
