//! The store in a file of its own (redb: one file, crash-safe). The model is held in memory, and
//! every change is on disk before anyone hears of it.
//!
//! Writes happen one after another on blocking threads, each whole on its thread: a caller that
//! goes away in between can't leave memory and disk apart.

mod disk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use uuid::Uuid;
use weft_api::agent::StoreStatus;
use weft_api::types::{Change, Contents, Event, StateUpdate};
use weft_vnet::{Model, Operation};

use crate::log::{CHANGES_MAX, ChangeLog, Next};
use crate::state::{self, Table};
use crate::{Result, Store, StoreError};
use disk::Disk;

/// Longest name of an owner of state: that of a host.
const OWNER_LENGTH_MAX: usize = 63;

/// A store in a file.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// Held for the whole of a write; the file has one writer.
    disk: Mutex<Disk>,
    held: RwLock<Held>,
    /// Why the last write failed, if it did.
    problem: Mutex<Option<String>>,
}

/// What is in memory; always what is on disk.
struct Held {
    store: Uuid,
    model: Arc<Model>,
    state: Arc<Table>,
    log: ChangeLog,
}

impl EmbeddedStore {
    /// Opens the store in a file; makes it, and the folders above it, if there is none.
    ///
    /// # Errors
    /// When the file can't be read or made, another process has it open, or its contents are not
    /// a store of this version.
    pub async fn open(path: &Path) -> Result<EmbeddedStore> {
        EmbeddedStore::open_with(path, CHANGES_MAX).await
    }

    /// The same, keeping another number of changes for watchers.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub async fn open_with(path: &Path, changes_max: usize) -> Result<EmbeddedStore> {
        let path = path.to_owned();
        blocking(move || {
            let (disk, loaded) = Disk::open(&path)?;
            let held = Held {
                store: loaded.store,
                model: Arc::new(loaded.model),
                state: Arc::new(loaded.state),
                log: ChangeLog::new(loaded.sequence, changes_max),
            };
            let inner = Inner {
                path,
                disk: Mutex::new(disk),
                held: RwLock::new(held),
                problem: Mutex::new(None),
            };
            Ok(EmbeddedStore {
                inner: Arc::new(inner),
            })
        })
        .await
    }

    /// The model as it is now.
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.inner.held().model)
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn read(&self) -> Result<Contents> {
        Ok(self.inner.contents())
    }

    async fn transact(
        &self,
        expected_revision: Option<u64>,
        operations: Vec<Operation>,
    ) -> Result<u64> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.transact(expected_revision, operations)).await
    }

    async fn update_state(&self, owner: &str, update: StateUpdate) -> Result<()> {
        if owner.is_empty() || owner.len() > OWNER_LENGTH_MAX {
            let message = format!("`{owner}` can't own state: expected the name of a host");
            return Err(StoreError::Refused(message));
        }
        let inner = Arc::clone(&self.inner);
        let owner = owner.to_owned();
        blocking(move || inner.update_state(&owner, update)).await
    }

    async fn watch(&self, from: u64) -> Result<BoxStream<'static, Result<Event>>> {
        let newer = self.inner.held().log.subscribe();
        let watcher = (Arc::clone(&self.inner), newer, from);
        let events = stream::unfold(watcher, |(inner, mut newer, from)| async move {
            loop {
                newer.mark_unchanged();
                if let Some(event) = inner.event_after(from) {
                    let from = event.sequence();
                    return Some((Ok(event), (inner, newer, from)));
                }
                // The store can't end while a watcher holds it.
                newer.changed().await.ok()?;
            }
        });
        Ok(events.boxed())
    }

    fn status(&self) -> StoreStatus {
        let problem = lock(&self.inner.problem).clone();
        StoreStatus {
            url: self.inner.url(),
            connected: problem.is_none(),
            problem,
        }
    }
}

impl Inner {
    fn url(&self) -> String {
        format!("embedded:{}", self.path.display())
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn contents(&self) -> Contents {
        let (store, model, state, sequence) = {
            let held = self.held();
            (
                held.store,
                Arc::clone(&held.model),
                Arc::clone(&held.state),
                held.log.newest(),
            )
        };
        Contents {
            store,
            sequence,
            revision: model.revision,
            objects: model.objects().collect(),
            state: state.values().cloned().collect(),
        }
    }

    fn event_after(&self, sequence: u64) -> Option<Event> {
        let next = self.held().log.after(sequence);
        match next {
            Next::Change(change) => Some(Event::Change(Change::clone(&change))),
            Next::Nothing => None,
            Next::Lost => Some(Event::Reset(Box::new(self.contents()))),
        }
    }

    fn transact(&self, expected: Option<u64>, operations: Vec<Operation>) -> Result<u64> {
        let mut disk = lock(&self.disk);
        self.mend(&mut disk)?;
        let (model, sequence) = {
            let held = self.held();
            (Arc::clone(&held.model), held.log.newest())
        };
        let actual = model.revision;
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(StoreError::Conflict { expected, actual });
        }
        if operations.is_empty() {
            return Ok(actual);
        }
        let next = model.apply(&operations).map_err(StoreError::Invalid)?;
        let revision = next.revision;
        let change = Change {
            sequence: sequence + 1,
            revision,
            operations,
            state: Vec::new(),
        };
        self.written(disk.write_model(&model, &next, change.sequence))?;
        let mut held = self.held_mut();
        held.model = Arc::new(next);
        held.log.push(change);
        Ok(revision)
    }

    fn update_state(&self, owner: &str, update: StateUpdate) -> Result<()> {
        let mut disk = lock(&self.disk);
        self.mend(&mut disk)?;
        let (table, sequence, revision) = {
            let held = self.held();
            (
                Arc::clone(&held.state),
                held.log.newest(),
                held.model.revision,
            )
        };
        let state = state::changes(&table, owner, update);
        if state.is_empty() {
            return Ok(());
        }
        state::check_bound(&table, owner, &state).map_err(StoreError::Refused)?;
        drop(table);
        let change = Change {
            sequence: sequence + 1,
            revision,
            operations: Vec::new(),
            state,
        };
        self.written(disk.write_state(&change))?;
        let mut held = self.held_mut();
        state::apply(Arc::make_mut(&mut held.state), &change.state);
        held.log.push(change);
        Ok(())
    }

    /// After a write that failed, the file is opened again and written to: whether that goes is seen before
    /// anything depends on it. What the failed write left there, if anything, is what the store holds from now on.
    fn mend(&self, disk: &mut Disk) -> Result<()> {
        if lock(&self.problem).is_none() {
            return Ok(());
        }
        let loaded = disk.open_again(&self.path).inspect_err(|error| {
            *lock(&self.problem) = Some(error.to_string());
        })?;
        self.written(disk.write_numbers(loaded.model.revision, loaded.sequence))?;
        let mut held = self.held_mut();
        if loaded.sequence != held.log.newest() {
            held.log = ChangeLog::new(loaded.sequence, CHANGES_MAX);
            held.model = Arc::new(loaded.model);
            held.state = Arc::new(loaded.state);
        }
        tracing::info!(store = self.url(), "the store can be written again");
        Ok(())
    }

    /// Remembers how a write went, for `status`.
    fn written(&self, result: std::result::Result<(), redb::Error>) -> Result<()> {
        let problem = result
            .err()
            .map(|error| format!("writing {}: {error}", self.url()));
        lock(&self.problem).clone_from(&problem);
        problem.map_or(Ok(()), |problem| Err(StoreError::Unavailable(problem)))
    }
}

/// A lock whose holder panicked still guards whole data: memory changes last, in one step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!(
                "the store failed: {error}"
            )))
        })
}
