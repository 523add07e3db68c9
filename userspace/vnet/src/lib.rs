//! The pure core of Weft: the topology model, and the one function that decides where a packet goes.
//!
//! No I/O, no clock, no randomness, no runtime. The agent, the API, the command line and the tests call it:
//! [`Model::apply`] changes the topology, [`Snapshot::build`] makes it fast to read, [`simulate::simulate`]
//! decides a packet, [`compile::compile`] turns the decision into what the kernel executes, and
//! [`tag::changed_tags`] says which decisions a change concerns.

pub mod compile;
mod device;
pub mod flow_state;
pub mod id;
pub mod mac;
pub mod mask;
pub mod model;
pub mod neighbours;
pub mod packet;
pub mod policy;
pub mod route;
pub mod simulate;
pub mod snapshot;
pub mod tag;
pub mod text;
pub mod too_big;
pub mod trace;
pub mod workload;

mod trie;
mod walk;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;

pub use compile::{Peer, Placement, compile, compile_member};
pub use flow_state::{FlowState, StateEntry};
pub use id::{
    AddressGroupId, BridgeId, ChainId, HostId, PortGroupId, PortId, RouterId, TenantId, ZoneId,
};
pub use mac::Mac;
pub use model::{
    Binding, Bridge, DeviceId, Encapsulation, FindError, Host, Invalid, Kind, Model, Object,
    Operation, Port, PortAddress, Route, RouteAction, Router, Tenant, TunnelZone,
};
pub use packet::{Entry, Packet};
pub use route::NextHop;
pub use simulate::{
    Cause, Emission, Member, Origin, Outcome, Verdict, advertisements, ask, simulate,
    simulate_judged,
};
pub use snapshot::{Activity, FloodDomain, Snapshot};
pub use tag::{Tag, changed_tags};
pub use text::{describe_match, describe_match_on, describe_outcome};
pub use too_big::{TooBig, too_big};
pub use trace::{NoTrace, Step, TraceSink};
pub use workload::{TextError, frame_for};
