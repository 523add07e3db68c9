//! What applying a topology file would do: the operations of one transaction, and the same in
//! lines for people.
//!
//! What the file mentions becomes so. What it doesn't mention stays: an object, and a field of an
//! object that it does mention; of a field that it mentions, a list or map is the whole of it.
//! With `prune`, the bridges, routers, ports, chains and groups that the file doesn't mention go, in the tenants
//! that it names and nowhere else.

mod diff;
mod places;
mod policies;
mod target;

use std::fmt;

use uuid::Uuid;
use weft_vnet::{Mac, Model, Operation, PortId};

use crate::topology::{Mistakes, TopologyFile};

/// What applying a file would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The transaction; empty when the topology is as the file says.
    pub operations: Vec<Operation>,
    /// The same for people: one line an object, with each field that changes.
    pub lines: Vec<PlanLine>,
    /// What to know about what changes: routes that would not be used.
    pub notes: Vec<String>,
}

/// What happens to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLine {
    /// Whether it comes, changes or goes.
    pub sign: Sign,
    /// "port acme web/web-1 addresses: [10.0.1.11] -> [10.0.1.12]".
    pub text: String,
}

/// Whether an object comes, changes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `+`
    Add,
    /// `~`
    Change,
    /// `-`
    Remove,
}

impl fmt::Display for PlanLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            Sign::Add => '+',
            Sign::Change => '~',
            Sign::Remove => '-',
        };
        write!(f, "{sign} {}", self.text)
    }
}

/// Plans how `current` becomes what the file says.
///
/// # Errors
/// References to what doesn't exist and everything that the model refuses, each at its place in
/// the file.
pub fn plan(current: &Model, file: &TopologyFile, prune: bool) -> Result<Plan, Mistakes> {
    let (target, places) = target::build(current, file, prune)?;
    let plan = diff::between(current, &target);
    if plan.operations.is_empty() {
        return Ok(plan);
    }
    match current.apply(&plan.operations) {
        Ok(_) => Ok(plan),
        Err(invalid) => Err(places.mistakes(file, &plan.operations, &invalid)),
    }
}

/// Plans the step from one model to another, for changes that no file says.
pub fn difference(before: &Model, after: &Model) -> Plan {
    diff::between(before, after)
}

/// The MAC address of a port that was given none: locally administered, and always the same for
/// the same port.
pub fn generated_mac(port: PortId) -> Mac {
    let hash = Uuid::new_v5(&MAC_NAMESPACE, port.0.as_bytes());
    let [a, b, c, d, e, f, ..] = *hash.as_bytes();
    Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
}

/// Namespace (RFC 9562, 5.5) of generated MAC addresses; made once for this purpose.
const MAC_NAMESPACE: Uuid = Uuid::from_u128(0x6f0b_3a5e_1c55_4f0c_9d0e_57a3_b0c4_11d2);

#[cfg(test)]
mod tests;
