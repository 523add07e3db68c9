//! Weft's API as types, its client, and the topology file with what turns it into transactions.
//!
//! * [`types`], [`agent`], [`port_policy`], [`problem`]: what goes over HTTP. Served by `weft-store` and `weftd`.
//! * [`client`]: calls it, for the command line and for stores on another host.
//! * [`topology`]: the file that people write. [`plan`]: what applying it would do. [`export`]: the
//!   way back.

pub mod agent;
pub mod client;
pub mod export;
pub mod kinds;
pub mod plan;
pub mod port_policy;
pub mod problem;
pub mod time;
pub mod topology;
pub mod types;

pub use agent::{
    AdoptedStatus, AgentHeard, AuditStatus, DropInfo, FlowInfo, FlowsQuery, Health, HostInfo,
    HostState, MaskInfo, PeerInfo, PingAnswer, PingArrival, PingRefusal, PingRequest, PingResponse,
    PingTunnel, PortInfo, PortState, ReleaseRequest, Released, Status, StoreStatus, TraceEgress,
    TraceRequest, TraceResponse, TraceStep,
};
pub use client::{Client, ClientError, Endpoint};
pub use plan::{Plan, PlanLine};
pub use port_policy::{
    CONNECTIONS_LIMIT, ConnectionInfo, ConnectionState, Connections, ConnectionsQuery, Enforcement,
    Enforcer, Flushed, HookRules, PolicyStatus, PortRules, QuotaInfo, RuleInfo,
};
pub use problem::{FieldError, Problem};
pub use topology::{Mistake, Mistakes, TopologyFile};
pub use types::{
    Change, Committed, Contents, Event, OwnedState, StateChange, StateUpdate, Transaction,
};
