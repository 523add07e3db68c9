//! The topology file, as `weft apply` takes it (INTERFACE.md, "Topology file"): YAML with
//! positions, read strictly. What this version doesn't do is refused by name, never ignored.

mod document;
mod mistake;
mod policy;
mod reader;
pub(crate) mod yaml;

pub use document::{
    Attachment, BridgeEntry, Document, HostEntry, PortEntry, RouterEntry, TopologyFile,
    ZoneAddress, ZoneEntry,
};
pub use mistake::{Mistake, Mistakes, Span, Spanned};
pub use policy::{
    ActionEntry, AddressEntry, AddressGroupEntry, ChainEntry, ConditionsEntry, PortGroupEntry,
    RuleEntry,
};
pub(crate) use reader::list;
