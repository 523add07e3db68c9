//! Where topology and replicated state live: one trait, [`Store`], and what implements it.
//!
//! * [`embedded`]: a file of this weftd; [`patient`] opens it as soon as it can be.
//! * [`remote`]: another weftd's store, by its API.
//! * [`server`]: the store's half of that API; weftd mounts it.
//!
//! Nothing here lies in a packet's way: agents decide from snapshots that they build from what a
//! store told them last.

pub mod embedded;
pub mod log;
pub mod patient;
pub mod remote;
pub mod seen;
pub mod server;
mod state;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use weft_api::agent::StoreStatus;
use weft_api::client::{Client, ClientError, Endpoint};
use weft_api::types::{Contents, Event, StateUpdate};
use weft_vnet::{Invalid, Operation};

pub use embedded::EmbeddedStore;
pub use patient::PatientStore;
pub use remote::RemoteStore;
pub use seen::Seen;

/// What every store does.
#[async_trait]
pub trait Store: Send + Sync {
    /// All that it holds, at one instant.
    async fn read(&self) -> Result<Contents>;

    /// Does all operations, or none; gives the topology's revision afterwards. With
    /// `expected_revision` only while the topology is at that one. No operations change nothing.
    async fn transact(
        &self,
        expected_revision: Option<u64>,
        operations: Vec<Operation>,
    ) -> Result<u64>;

    /// Writes what `owner` (a host's name) says and has learned.
    async fn update_state(&self, owner: &str, update: StateUpdate) -> Result<()>;

    /// Every change after `from`, in order; [`Event::Reset`] where changes are no longer known.
    async fn watch(&self, from: u64) -> Result<BoxStream<'static, Result<Event>>>;

    /// How it is reached, and whether it is: what `weft status` shows.
    fn status(&self) -> StoreStatus;
}

/// What stores answer.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a store didn't do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The topology changed in between.
    #[error("expected revision {expected}, the topology is at {actual}")]
    Conflict {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The model refuses the operations.
    #[error("the change is refused: {}", reasons(.0))]
    Invalid(Vec<Invalid>),
    /// A request that makes no sense, whatever the topology is.
    #[error("{0}")]
    Refused(String),
    /// The store went back in time: another one stands in its place, or an older copy of it.
    #[error(
        "the store at {url} is not the one seen before: {reason}. Its contents are refused. To \
         accept them, stop weftd and delete {remembered}"
    )]
    WentBack {
        /// Where it is.
        url: String,
        /// How that is known.
        reason: String,
        /// What remembers the store seen before.
        remembered: String,
    },
    /// It can't be reached, or its disk fails.
    #[error("{0}")]
    Unavailable(String),
    /// What it holds can't be understood.
    #[error("the store at {url} holds what this weft doesn't understand: {reason}")]
    Corrupt {
        /// Where it is.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// `[store] url` names no store.
    #[error("`{url}` names no store: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn reasons(invalid: &[Invalid]) -> String {
    invalid
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl From<ClientError> for StoreError {
    fn from(error: ClientError) -> Self {
        StoreError::Unavailable(error.to_string())
    }
}

/// A place where a store is, parsed from `[store] url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `embedded:/var/lib/weft/store.redb`
    Embedded(PathBuf),
    /// `weftd+unix:/run/weft/h1.sock`, `weftd+http://10.0.0.1:7443`
    Remote(Endpoint),
}

impl std::str::FromStr for StoreUrl {
    type Err = StoreError;

    fn from_str(url: &str) -> Result<Self> {
        let error = |reason: String| StoreError::Url {
            url: url.to_owned(),
            reason,
        };
        if let Some(path) = url.strip_prefix("embedded:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(error(
                    "expected a whole path, embedded:/var/lib/weft/store.redb".into(),
                ));
            }
            return Ok(StoreUrl::Embedded(path.into()));
        }
        if url.starts_with("weftd+") {
            let endpoint = url
                .parse()
                .map_err(|it: weft_api::client::EndpointError| it.to_string());
            return endpoint.map(StoreUrl::Remote).map_err(error);
        }
        if url.starts_with("etcd:") {
            return Err(error(
                "etcd comes later; this version has embedded: and weftd+".into(),
            ));
        }
        if url.starts_with("http://") || url.starts_with("unix:") {
            return Err(error(format!("another weftd's store is `weftd+{url}`")));
        }
        let known = "expected embedded:/PATH, weftd+unix:/PATH or weftd+http://HOST:PORT";
        Err(error(known.into()))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Embedded(path) => write!(f, "embedded:{}", path.display()),
            StoreUrl::Remote(endpoint) => write!(f, "weftd+{endpoint}"),
        }
    }
}

/// Opens the store that `[store] url` names; `token` is for another weftd's. `seen` is what the
/// caller remembers of it, if it does: a store that went back since then is refused.
///
/// # Errors
/// A URL that names no store. The store itself is not asked here: a remote one may come up later, and
/// the disk of an embedded one may be full. What is in its way, [`StoreError::WentBack`] among it, is
/// the answer to every call until it is gone.
pub fn open(url: &str, token: Option<&str>, seen: Option<Seen>) -> Result<Arc<dyn Store>> {
    match url.parse()? {
        StoreUrl::Embedded(path) => Ok(Arc::new(PatientStore::new(path, url.to_owned(), seen))),
        StoreUrl::Remote(endpoint) => Ok(Arc::new(RemoteStore::new(
            Client::new(endpoint, token),
            seen,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_stores_and_bad_ones_say_what_is_expected() {
        for url in [
            "embedded:/a/b.redb",
            "weftd+unix:/run/h1.sock",
            "weftd+http://10.0.0.1:7443",
        ] {
            assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
        }
        for (url, reason) in [
            ("etcd://a:2379,b:2379", "etcd comes later"),
            ("embedded:", "expected a whole path"),
            ("embedded:store.redb", "expected a whole path"),
            ("http://10.0.0.1:7443", "`weftd+http://10.0.0.1:7443`"),
            ("weftd+https://10.0.0.1", "TLS"),
            ("redis://a", "expected embedded:/PATH, weftd+unix:/PATH or"),
        ] {
            let error = url.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
