//! Policy of ports: chains of rules, what they decide, and their compiled form.
//!
//! | file | what |
//! |---|---|
//! | `chain.rs` | chains, rules, conditions, groups: what people declare |
//! | `view.rs` | what of a packet a rule can ask for |
//! | `sets.rs` | which groups an address is in |
//! | `evaluate.rs` | the interpreted evaluation: the reference |
//! | `validate.rs` | what isn't taken |
//! | `flatten.rs` | a hook's chains as one list of primitive rules |
//! | `field.rs` | the fields that are numbers, as keys and ranges of keys |
//! | `compile.rs` | primitive rules as bit vectors |
//! | `reject.rs` | what senders of rejected packets are told |
//! | `acl.rs` | the compiled tables and the lookup in them |
//! | `encode.rs` | the compiled tables as the kernel has them |
//! | `generator.rs` | random policies and packets, for tests here and of the kernel |
//! | `changed.rs` | which hooks and members a change of the topology concerns |
//!
//! No state. The topology keeps chains and groups; nothing enforces them yet.

mod acl;
mod chain;
mod changed;
mod compile;
mod encode;
mod evaluate;
mod field;
mod flatten;
#[cfg(any(test, feature = "generator"))]
pub mod generator;
mod reject;
mod sets;
mod validate;
mod view;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;

pub use acl::{Acl, Decided, Unbounded};
pub use chain::{
    Action, AddressGroup, AddressMatch, Chain, Conditions, Connection, DeviceCondition,
    FragmentPolicy, Group, IcmpMatch, MacMatch, Policy, PortGroup, PortRange, Rule, Translation,
    VlanMatch,
};
pub use changed::{PolicyChange, changed, compare_members};
pub use compile::{CompileError, compile};
pub use encode::{set_key, set_list};
pub use evaluate::{Decision, RuleRef, Verdict, evaluate};
pub use reject::answer_to_rejected;
pub use sets::{Change, SetId, Sets, SetsError, members};
pub use validate::{At, Hook, Refusal, validate_chains, validate_group, validate_hook};
pub use view::View;
