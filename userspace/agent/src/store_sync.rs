//! Keeps the packet thread's picture of the store, and the store's picture of this host.
//!
//! Runs on the runtime. Whatever happens to the store, the packet thread goes on with what it had. A store that
//! comes back as another one, or older than what was seen, is refused by name.

use crate::engine::Message;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use weft_api::{Change, Contents, Event, OwnedState, StateChange, StateUpdate};
use weft_datapath::Kernel;
use weft_store::Store;
use weft_vnet::{Activity, Model, StateEntry};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Whether the store can be reached, and if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Where it is.
    pub url: String,
    /// Whether changes arrive.
    pub connected: bool,
    /// Why they don't.
    pub problem: Option<String>,
}

/// See the module's text.
pub struct StoreSync<F> {
    store: Arc<dyn Store>,
    url: String,
    host: String,
    /// Hands messages to the packet thread.
    send: F,
    updates: mpsc::UnboundedReceiver<StateUpdate>,
    /// What this host says, by key: written again whenever the store was away.
    own: BTreeMap<String, StateEntry>,
    model: Arc<Model>,
    state: BTreeMap<String, OwnedState>,
    /// Identity and revision of what was seen last.
    seen: Option<(String, u64)>,
}

impl<F: Fn(Message<Kernel>) + Send> StoreSync<F> {
    /// Nothing is known yet.
    pub fn new(
        store: Arc<dyn Store>,
        url: String,
        host: String,
        send: F,
        updates: mpsc::UnboundedReceiver<StateUpdate>,
    ) -> StoreSync<F> {
        let (own, state) = (BTreeMap::new(), BTreeMap::new());
        StoreSync {
            store,
            url,
            host,
            send,
            updates,
            own,
            model: Arc::default(),
            state,
            seen: None,
        }
    }

    /// Follows the store until the agent stops.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        self.report(false, None);
        loop {
            let problem = match self.follow().await {
                Ok(()) => return,
                Err(problem) => problem,
            };
            tracing::warn!(problem, "the store is away; forwarding goes on");
            let was_connected = self.report(false, Some(problem));
            pause = if was_connected {
                RETRY_FIRST
            } else {
                (pause * 2).min(RETRY_MAX)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads everything, says everything, then follows the changes. Ends well only when the agent stops.
    async fn follow(&mut self) -> Result<(), String> {
        let contents = self.store.read().await.map_err(|error| error.to_string())?;
        let mut sequence = contents.sequence;
        self.take_contents(contents)?;
        self.say_all().await?;
        let mut events = self
            .store
            .watch(sequence)
            .await
            .map_err(|error| error.to_string())?;
        self.report(true, None);
        loop {
            tokio::select! {
                event = events.next() => {
                    let event = event.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
                    sequence = sequence.max(event.sequence());
                    self.take_event(event)?;
                }
                update = self.updates.recv() => match update {
                    None => return Ok(()),
                    Some(update) => self.say(update).await?,
                },
            }
        }
    }

    fn take_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Reset(contents) => self.take_contents(*contents),
            Event::Change(change) => self.take_change(change),
        }
    }

    fn take_contents(&mut self, contents: Contents) -> Result<(), String> {
        let identity = contents.store.to_string();
        if let Some((seen, revision)) = &self.seen {
            if *seen != identity {
                return Err(format!(
                    "store {identity} answers where store {seen} was: refused; restart weftd to take it"
                ));
            }
            if contents.revision < *revision {
                let found = contents.revision;
                return Err(format!(
                    "the store is at revision {found}, but {revision} was seen: refused"
                ));
            }
        }
        let model = contents
            .model()
            .map_err(|invalid| format!("the store's topology contradicts itself: {invalid:?}"))?;
        self.seen = Some((identity, contents.revision));
        self.model = Arc::new(model);
        let old = std::mem::take(&mut self.state);
        let mut changes: Vec<StateChange> = Vec::new();
        for owned in contents.state {
            self.give_up(&owned);
            changes.push(StateChange::Put(owned.clone()));
            self.state.insert(owned.entry.key(), owned);
        }
        changes.extend(
            old.into_iter()
                .filter(|(key, _)| !self.state.contains_key(key))
                .map(|(_, owned)| StateChange::Remove(owned)),
        );
        self.send_topology();
        (self.send)(Message::State(changes));
        Ok(())
    }

    fn take_change(&mut self, change: Change) -> Result<(), String> {
        let mut is_topology = !change.operations.is_empty();
        if is_topology {
            let mut model = self.model.apply(&change.operations).map_err(|invalid| {
                format!(
                    "change {} doesn't fit what was seen before: {invalid:?}",
                    change.sequence
                )
            })?;
            model.revision = change.revision;
            self.model = Arc::new(model);
        }
        let (activity, learned): (Vec<_>, Vec<_>) = change.state.into_iter().partition(is_activity);
        is_topology |= !activity.is_empty();
        for change in activity.iter().chain(&learned) {
            match change {
                StateChange::Put(owned) => {
                    self.give_up(owned);
                    self.state.insert(owned.entry.key(), owned.clone())
                }
                StateChange::Remove(owned) => self.state.remove(&owned.entry.key()),
            };
        }
        if let Some((_, revision)) = &mut self.seen {
            *revision = change.revision;
        }
        if is_topology {
            self.send_topology();
        }
        if !learned.is_empty() {
            (self.send)(Message::State(learned));
        }
        Ok(())
    }

    /// What another host says now is no longer said again by this one.
    fn give_up(&mut self, owned: &OwnedState) {
        if owned.owner != self.host {
            self.own.remove(&owned.entry.key());
        }
    }

    fn send_topology(&self) {
        let mut activity = Activity::default();
        for owned in self.state.values() {
            match &owned.entry {
                StateEntry::PortActivity {
                    port,
                    host,
                    tunnel_key,
                } => {
                    activity.ports.insert(*port, (*host, *tunnel_key));
                }
                StateEntry::FloodActivity {
                    bridge,
                    host,
                    tunnel_key,
                } => {
                    activity.floods.insert((*bridge, *host), *tunnel_key);
                }
                StateEntry::Mac { .. } | StateEntry::Neighbour { .. } => {}
            }
        }
        (self.send)(Message::Topology(Arc::clone(&self.model), activity));
    }

    /// Writes all that this host says. What an earlier agent of this host said and this one doesn't goes away
    /// with the first such update after the packet thread has had its say.
    async fn say_all(&mut self) -> Result<(), String> {
        // The packet thread answers the topology within a poll; what it says is one update then.
        tokio::time::sleep(Duration::from_millis(100)).await;
        while let Ok(update) = self.updates.try_recv() {
            self.note(&update);
        }
        let update = StateUpdate {
            put: self.own.values().cloned().collect(),
            remove: Vec::new(),
            replace: true,
        };
        self.store
            .update_state(&self.host, update)
            .await
            .map_err(|error| error.to_string())
    }

    async fn say(&mut self, update: StateUpdate) -> Result<(), String> {
        self.note(&update);
        self.store
            .update_state(&self.host, update)
            .await
            .map_err(|error| error.to_string())
    }

    fn note(&mut self, update: &StateUpdate) {
        for entry in &update.remove {
            self.own.remove(&entry.key());
        }
        for entry in &update.put {
            self.own.insert(entry.key(), entry.clone());
        }
    }

    /// Tells the packet thread; returns whether there was a picture of the store before.
    fn report(&self, connected: bool, problem: Option<String>) -> bool {
        (self.send)(Message::Store(StoreHealth {
            url: self.url.clone(),
            connected,
            problem,
        }));
        self.seen.is_some()
    }
}

fn is_activity(change: &StateChange) -> bool {
    let (StateChange::Put(owned) | StateChange::Remove(owned)) = change;
    matches!(
        owned.entry,
        StateEntry::PortActivity { .. } | StateEntry::FloodActivity { .. }
    )
}
