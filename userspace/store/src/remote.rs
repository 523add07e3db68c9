//! Another weftd's store, by its API. Calls answer at once, with an error when it can't be
//! reached; a watch goes on over breaks of the connection, and gives every change once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use uuid::Uuid;
use weft_api::agent::StoreStatus;
use weft_api::client::{Client, ClientError};
use weft_api::problem::{FieldError, Problem, kind};
use weft_api::types::{Contents, Event, StateUpdate};
use weft_vnet::{Invalid, Operation};

use crate::seen::Seen;
use crate::{Result, Store, StoreError};

/// First pause before a watch connects again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause after an answer that a retry won't change soon.
const PAUSE_REFUSED: Duration = Duration::from_secs(30);

/// Another weftd's store.
#[derive(Clone)]
pub struct RemoteStore {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    url: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    seen: Option<Seen>,
    connected: bool,
    problem: Option<String>,
}

impl RemoteStore {
    /// The store behind a client. With `seen`, one that went back since then is refused.
    pub fn new(client: Client, seen: Option<Seen>) -> Self {
        let url = format!("weftd+{}", client.endpoint());
        let known = Known {
            seen,
            connected: false,
            problem: Some("not reached yet".into()),
        };
        RemoteStore {
            shared: Arc::new(Shared {
                client,
                url,
                known: Mutex::new(known),
            }),
        }
    }
}

#[async_trait]
impl Store for RemoteStore {
    async fn read(&self) -> Result<Contents> {
        let contents = self.shared.noted(self.shared.client.topology().await)?;
        self.shared.accept(&contents)?;
        Ok(contents)
    }

    async fn transact(
        &self,
        expected_revision: Option<u64>,
        operations: Vec<Operation>,
    ) -> Result<u64> {
        self.shared.noted(
            self.shared
                .client
                .transact(expected_revision, operations)
                .await,
        )
    }

    async fn update_state(&self, owner: &str, update: StateUpdate) -> Result<()> {
        self.shared
            .noted(self.shared.client.update_state(owner, &update).await)
    }

    async fn watch(&self, from: u64) -> Result<BoxStream<'static, Result<Event>>> {
        let watch = Watch {
            shared: Arc::clone(&self.shared),
            from,
            open: None,
            pause: Duration::ZERO,
        };
        Ok(stream::unfold(watch, |mut watch| async move {
            Some((watch.next().await, watch))
        })
        .boxed())
    }

    fn status(&self) -> StoreStatus {
        let known = self.shared.known();
        StoreStatus {
            url: self.shared.url.clone(),
            connected: known.connected,
            problem: known.problem.clone(),
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Option<Uuid> {
        self.known().seen.map(|seen| seen.store)
    }

    /// Remembers whether the store was reached, for `status` and once for the log.
    fn noted<T>(&self, result: std::result::Result<T, ClientError>) -> Result<T> {
        let problem = match &result {
            Ok(_) => None,
            // It answered, and what it refused is this very request.
            Err(ClientError::Problem(problem)) if (400..500).contains(&problem.status) => {
                (problem.kind == kind::UNAUTHORIZED).then(|| problem.to_string())
            }
            Err(error) => Some(error.to_string()),
        };
        self.note(problem);
        result.map_err(|error| self.translated(error))
    }

    fn note(&self, problem: Option<String>) {
        let mut known = self.known();
        match &problem {
            Some(problem) if known.problem.is_none() => {
                tracing::warn!(store = %self.url, %problem, "lost the store");
            }
            None if known.problem.is_some() => tracing::info!(store = %self.url, "has the store"),
            _ => {}
        }
        known.connected = problem.is_none();
        known.problem = problem;
    }

    /// Compares whole contents with what was seen before.
    fn accept(&self, contents: &Contents) -> Result<()> {
        let mut known = self.known();
        if let Some(seen) = &known.seen {
            let checked = seen.check(&self.url, contents);
            if let Err(error) = checked {
                known.connected = false;
                known.problem = Some(error.to_string());
                return Err(error);
            }
        }
        known.seen = Some(Seen::of(contents));
        Ok(())
    }

    fn translated(&self, error: ClientError) -> StoreError {
        let ClientError::Problem(problem) = error else {
            return error.into();
        };
        match problem.kind.as_str() {
            kind::INVALID => StoreError::Invalid(invalid(&problem)),
            kind::REVISION_CONFLICT => conflict(&problem),
            kind::MALFORMED | kind::NOT_FOUND => StoreError::Refused(problem.to_string()),
            _ => StoreError::Unavailable(format!("{}: {problem}", self.url)),
        }
    }
}

/// The problem's pointers as what the model said on the other side.
fn invalid(problem: &Problem) -> Vec<Invalid> {
    let one = |FieldError { pointer, detail }: &FieldError| {
        let rest = pointer.strip_prefix("/operations/").unwrap_or_default();
        let (operation, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let inner = rest
            .split_once('/')
            .map_or(String::new(), |(_, inner)| format!("/{inner}"));
        Invalid {
            operation: operation.parse().unwrap_or(0),
            pointer: inner,
            message: detail.clone(),
        }
    };
    problem.errors.iter().map(one).collect()
}

fn conflict(problem: &Problem) -> StoreError {
    let actual = problem.revision.unwrap_or(0);
    match problem.expected_revision {
        Some(expected) => StoreError::Conflict { expected, actual },
        None => StoreError::Refused(problem.to_string()),
    }
}

/// A watch over breaks of the connection.
struct Watch {
    shared: Arc<Shared>,
    /// The last sequence that was given to whoever watches.
    from: u64,
    open: Option<BoxStream<'static, std::result::Result<Event, ClientError>>>,
    /// How long to wait before the next attempt.
    pause: Duration,
}

impl Watch {
    async fn next(&mut self) -> Result<Event> {
        loop {
            let Some(open) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            match open.next().await {
                Some(Ok(event)) => match self.take(event)? {
                    Some(event) => return Ok(event),
                    None => continue,
                },
                Some(Err(error)) => self.lost(error)?,
                None => self.open = None,
            }
        }
    }

    /// Opens the watch, after the pause that is due.
    async fn connect(&mut self) -> Result<()> {
        if !self.pause.is_zero() {
            // Hosts that lost one store don't all come back in the same instant.
            let jitter = Uuid::new_v4().as_u128() % (self.pause.as_millis() / 2 + 1);
            let jitter = Duration::from_millis(u64::try_from(jitter).unwrap_or(0));
            tokio::time::sleep(self.pause + jitter).await;
        }
        self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        match self
            .shared
            .client
            .watch(self.from, self.shared.store())
            .await
        {
            Ok(open) => {
                self.shared.note(None);
                self.open = Some(open);
                Ok(())
            }
            Err(error) => self.lost(error),
        }
    }

    /// The connection is gone. Only what a new one won't mend is the watcher's business.
    fn lost(&mut self, error: ClientError) -> Result<()> {
        self.open = None;
        if error.is_temporary() {
            self.shared.note(Some(error.to_string()));
            return Ok(());
        }
        self.pause = PAUSE_REFUSED;
        let error = self.shared.translated(error);
        self.shared.note(Some(error.to_string()));
        Err(error)
    }

    /// Checks an event against what came before it; `None` when it can't be what follows.
    fn take(&mut self, event: Event) -> Result<Option<Event>> {
        match &event {
            Event::Change(change) if change.sequence != self.from + 1 => {
                self.open = None;
                return Ok(None);
            }
            Event::Change(change) => {
                if let Some(seen) = &mut self.shared.known().seen {
                    seen.advance(change);
                }
            }
            Event::Reset(contents) => {
                if let Err(error) = self.shared.accept(contents) {
                    self.open = None;
                    self.pause = PAUSE_REFUSED;
                    return Err(error);
                }
            }
        }
        self.from = event.sequence();
        self.pause = Duration::ZERO;
        Ok(Some(event))
    }
}
