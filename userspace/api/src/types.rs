//! What the store's half of the API speaks: transactions, the whole topology, changes as they
//! happen, and replicated state. Served by `weft_store::server`, called through `client`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weft_vnet::{Invalid, Model, Object, Operation, StateEntry};

/// Body of `POST /v1/transactions`: all of it happens, or nothing. With an `If-Match: "REVISION"`
/// header it happens only while the topology is at that revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// What to do, in order.
    pub operations: Vec<Operation>,
}

/// Answer to a transaction, a PUT or a DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The topology's revision from now on.
    pub revision: u64,
}

/// Answer of `GET /v1/topology`: all that a store holds, at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Identity of the store, made once when it was created. Another one under the same address
    /// is another store.
    pub store: Uuid,
    /// Counts every change, of topology or state; where to watch from.
    pub sequence: u64,
    /// Counts the topology's transactions.
    pub revision: u64,
    /// The topology, tenants first, in an order that `Model::apply` takes.
    pub objects: Vec<Object>,
    /// Replicated state with its owners.
    pub state: Vec<OwnedState>,
}

impl Contents {
    /// Builds the model of these contents, at their revision.
    ///
    /// # Errors
    /// What the model says when the contents contradict themselves.
    pub fn model(&self) -> Result<Model, Vec<Invalid>> {
        Model::restore(self.objects.iter().cloned(), self.revision)
    }
}

/// An entry of replicated state and who wrote it. A key has one owner: the last that wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnedState {
    /// Name of the host that wrote it.
    pub owner: String,
    /// What it wrote.
    pub entry: StateEntry,
}

/// Body of `PUT /v1/state/{host}`: what a host says about itself and has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateUpdate {
    /// Entries to write; one that another host owns changes hands.
    #[serde(default)]
    pub put: Vec<StateEntry>,
    /// Entries to take away; one that has another value or owner by now stays.
    #[serde(default)]
    pub remove: Vec<StateEntry>,
    /// Also take away all else that this host owns: for a host that starts.
    #[serde(default)]
    pub replace: bool,
}

/// One change of the store's contents, as watchers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its number; the next change has the next one.
    pub sequence: u64,
    /// The topology's revision after it.
    pub revision: u64,
    /// The transaction, if it was one; `Model::apply` of it gives the next model.
    pub operations: Vec<Operation>,
    /// The state that changed, if any did.
    pub state: Vec<StateChange>,
}

/// One entry of replicated state that changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateChange {
    /// It is new, has another value, or another owner.
    Put(OwnedState),
    /// It is gone.
    Remove(OwnedState),
}

/// What a watch delivers.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The next change.
    Change(Change),
    /// The changes in between are no longer known: start again from these contents.
    Reset(Box<Contents>),
}

impl Event {
    /// The sequence to watch from after this event.
    pub fn sequence(&self) -> u64 {
        match self {
            Event::Change(change) => change.sequence,
            Event::Reset(contents) => contents.sequence,
        }
    }
}
