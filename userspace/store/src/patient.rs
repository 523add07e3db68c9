//! An embedded store that may not be there yet: it is opened when somebody asks for it, again and again, so that a
//! full disk or a missing folder is a state that passes and not the end of weftd.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use weft_api::agent::StoreStatus;
use weft_api::types::{Contents, Event, StateUpdate};
use weft_vnet::Operation;

use crate::{EmbeddedStore, Result, Seen, Store};

/// See the module's text.
pub struct PatientStore {
    path: PathBuf,
    url: String,
    seen: Option<Seen>,
    opened: tokio::sync::Mutex<Option<EmbeddedStore>>,
    status: Mutex<Known>,
}

/// What `status` says, without waiting for anybody.
#[derive(Default)]
struct Known {
    store: Option<EmbeddedStore>,
    problem: Option<String>,
}

impl PatientStore {
    /// The store in a file. With `seen`, one that went back since then is refused for as long as it stands there.
    pub fn new(path: PathBuf, url: String, seen: Option<Seen>) -> PatientStore {
        PatientStore {
            path,
            url,
            seen,
            opened: tokio::sync::Mutex::new(None),
            status: Mutex::default(),
        }
    }

    async fn store(&self) -> Result<EmbeddedStore> {
        let mut opened = self.opened.lock().await;
        if let Some(store) = &*opened {
            return Ok(store.clone());
        }
        let result = self.open().await;
        let mut known = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        known.problem = result.as_ref().err().map(ToString::to_string);
        known.store = result.as_ref().ok().cloned();
        opened.clone_from(&known.store);
        result
    }

    async fn open(&self) -> Result<EmbeddedStore> {
        let store = EmbeddedStore::open(&self.path).await?;
        if let Some(seen) = &self.seen {
            seen.check(&self.url, &store.read().await?)?;
        }
        Ok(store)
    }
}

#[async_trait]
impl Store for PatientStore {
    async fn read(&self) -> Result<Contents> {
        self.store().await?.read().await
    }

    async fn transact(
        &self,
        expected_revision: Option<u64>,
        operations: Vec<Operation>,
    ) -> Result<u64> {
        let store = self.store().await?;
        store.transact(expected_revision, operations).await
    }

    async fn update_state(&self, owner: &str, update: StateUpdate) -> Result<()> {
        self.store().await?.update_state(owner, update).await
    }

    async fn watch(&self, from: u64) -> Result<BoxStream<'static, Result<Event>>> {
        self.store().await?.watch(from).await
    }

    fn status(&self) -> StoreStatus {
        let known = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match &known.store {
            Some(store) => store.status(),
            None => StoreStatus {
                url: self.url.clone(),
                connected: false,
                problem: known.problem.clone(),
            },
        }
    }
}
