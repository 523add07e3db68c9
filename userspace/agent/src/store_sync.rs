//! Keeps the packet thread's picture of the store, and the store's picture of this host.
//!
//! Runs on the runtime. Whatever happens to the store, the packet thread goes on with what it had. That a store
//! which comes back as another one, or older than what was seen, is refused by name is `weft_store`'s part.

use crate::engine::Message;
use crate::memory::{Memory, Remembered};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;
use weft_api::{Change, Contents, Event, OwnedState, StateChange, StateUpdate};
use weft_common::TunnelKey;
use weft_datapath::Datapath;
use weft_store::{Store, StoreError};
use weft_vnet::{Activity, Model, StateEntry};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How long the packet thread may take until it knows what it has to say.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two questions whether it does.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How long a store may take at the start until what is remembered of it is used.
const RECALL_AFTER: Duration = Duration::from_secs(2);
/// Between two looks whether there is something new to remember, or a store that could not be written.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Looks at a store that can't be written, for each try to write.
const PROBE_EVERY: u32 = 5;
/// Updates that are written as one.
const UPDATES_MERGED_MAX: usize = 1024;

/// Whether the store can be reached, and if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Where it is.
    pub url: String,
    /// Whether changes arrive.
    pub connected: bool,
    /// Why they don't.
    pub problem: Option<String>,
    /// Why the topology is not remembered on disk.
    pub save_problem: Option<String>,
}

/// See the module's text.
pub struct StoreSync<D, F> {
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
    /// Whether this is the first that this agent sees of the store.
    is_new: bool,
    memory: Memory,
    /// What was remembered at the start, until the store answers or took too long.
    remembered: Option<Remembered>,
    /// Revision of the remembered topology, while that is what is decided by.
    recalled: Option<u64>,
    /// Identity and sequence of the store; none before it was seen.
    seen: Option<(Uuid, u64)>,
    /// The last generation of each index that this host gave out.
    generations: BTreeMap<u16, u8>,
    is_saved: bool,
    saving: Option<JoinHandle<anyhow::Result<()>>>,
    /// Why the last try to remember failed.
    save_problem: Option<String>,
    datapath: PhantomData<fn(D)>,
}

impl<D: Datapath + 'static, F: Fn(Message<D>) + Send> StoreSync<D, F> {
    /// Nothing is known yet.
    pub fn new(
        store: Arc<dyn Store>,
        url: String,
        host: String,
        send: F,
        updates: mpsc::UnboundedReceiver<StateUpdate>,
        memory: Memory,
        remembered: Option<Remembered>,
    ) -> StoreSync<D, F> {
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
            is_new: true,
            memory,
            generations: remembered
                .as_ref()
                .map(|it| it.generations.clone())
                .unwrap_or_default(),
            remembered,
            recalled: None,
            seen: None,
            is_saved: true,
            saving: None,
            save_problem: None,
            datapath: PhantomData,
        }
    }

    /// Follows the store until the agent stops.
    pub async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        let mut told = String::new();
        self.report(false, None);
        self.recall().await;
        loop {
            let since = Instant::now();
            let problem = match self.follow().await {
                Ok(()) => return,
                Err(problem) => problem,
            };
            let was_well = since.elapsed() > RETRY_MAX;
            if was_well || told != problem {
                tracing::warn!(problem, "the store is away; forwarding goes on");
            }
            told.clone_from(&problem);
            self.report(false, Some(problem));
            pause = if was_well { RETRY_FIRST } else { pause };
            if !self.rest(pause).await {
                return;
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Decides by what is remembered, when the store doesn't answer.
    async fn recall(&mut self) {
        let Some(remembered) = self.remembered.take() else {
            return;
        };
        let answer = tokio::time::timeout(RECALL_AFTER, self.store.read()).await;
        if matches!(answer, Ok(Ok(_))) {
            return;
        }
        let revision = remembered.contents.revision;
        match self.take_contents(remembered.contents) {
            Ok(()) => {
                tracing::warn!(
                    revision,
                    from = %self.memory.path().display(),
                    "the store doesn't answer: decisions follow what is remembered of it"
                );
                self.recalled = Some(revision);
            }
            Err(problem) => tracing::warn!(problem, "what is remembered can't be used"),
        }
        // What the store itself says is new all the same.
        (self.is_new, self.seen, self.is_saved) = (true, None, true);
    }

    /// Waits, and notes what the packet thread says, so that nothing piles up while the store is away. Returns
    /// false when the agent stops.
    async fn rest(&mut self, pause: Duration) -> bool {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return true,
                update = self.updates.recv() => match update {
                    None => return false,
                    Some(update) => self.note(&update),
                },
            }
        }
    }

    /// Reads everything, says everything, then follows the changes. Ends well only when the agent stops.
    async fn follow(&mut self) -> Result<(), String> {
        let contents = self.store.read().await;
        let contents = contents.map_err(|error| self.in_words(error))?;
        let mut sequence = contents.sequence;
        self.take_contents(contents)?;
        self.recalled = None;
        self.say_all().await?;
        let events = self.store.watch(sequence).await;
        let mut events = events.map_err(|error| self.in_words(error))?;
        self.report(true, None);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unwritable = 0;
        loop {
            tokio::select! {
                _ = housekeeping.tick() => {
                    self.save().await;
                    unwritable = if self.store.status().connected { 0 } else { unwritable + 1 };
                    if unwritable == PROBE_EVERY {
                        // Says nothing new, but shows whether it could.
                        self.write(StateUpdate::default()).await?;
                        unwritable = 0;
                    }
                }
                event = events.next() => {
                    let event = event.ok_or("the watch ended")?;
                    let event = event.map_err(|error| self.in_words(error))?;
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

    /// Remembers what is new, one write at a time.
    async fn save(&mut self) {
        if let Some(saving) = self.saving.take_if(|saving| saving.is_finished()) {
            let problem = match saving.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(error) => Some(error.to_string()),
            };
            if problem.is_some() && problem != self.save_problem {
                tracing::warn!(
                    problem,
                    "the topology is not remembered for a restart without a store"
                );
            }
            self.is_saved &= problem.is_none();
            if problem != self.save_problem {
                self.save_problem = problem;
                self.report(true, None);
            }
        }
        let Some((store, sequence)) = self.seen.filter(|_| !self.is_saved) else {
            return;
        };
        if self.saving.is_some() {
            return;
        }
        let contents = Contents {
            store,
            sequence,
            revision: self.model.revision,
            objects: self.model.objects().collect(),
            state: self.state.values().cloned().collect(),
        };
        let url = self.url.clone();
        let remembered = Remembered::new(url, contents, self.generations.clone());
        let memory = self.memory.clone();
        self.is_saved = true;
        self.saving = Some(tokio::task::spawn_blocking(move || {
            memory.save(&remembered)
        }));
    }

    fn in_words(&self, error: StoreError) -> String {
        match error {
            StoreError::WentBack { url, reason, .. } => StoreError::WentBack {
                url,
                reason,
                remembered: self.memory.path().display().to_string(),
            }
            .to_string(),
            error => error.to_string(),
        }
    }

    fn take_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Reset(contents) => self.take_contents(*contents),
            Event::Change(change) => self.take_change(change),
        }
    }

    fn take_contents(&mut self, contents: Contents) -> Result<(), String> {
        let model = contents
            .model()
            .map_err(|invalid| format!("the store's topology contradicts itself: {invalid:?}"))?;
        self.model = Arc::new(model);
        self.seen = Some((contents.store, contents.sequence));
        self.is_saved = false;
        let old = std::mem::take(&mut self.state);
        let mut changes: Vec<StateChange> = Vec::new();
        for owned in contents.state {
            self.give_up(&owned);
            if self.is_new {
                self.take_back(&owned);
            }
            changes.push(StateChange::Put(owned.clone()));
            self.state.insert(owned.entry.key(), owned);
        }
        changes.extend(
            old.into_iter()
                .filter(|(key, _)| !self.state.contains_key(key))
                .map(|(_, owned)| StateChange::Remove(owned)),
        );
        self.is_new = false;
        self.send_topology();
        (self.send)(Message::State(changes));
        Ok(())
    }

    fn take_change(&mut self, change: Change) -> Result<(), String> {
        let mut is_topology = !change.operations.is_empty();
        self.seen = self.seen.map(|(store, _)| (store, change.sequence));
        self.is_saved = false;
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
                    self.take_back(owned);
                    self.state.insert(owned.entry.key(), owned.clone())
                }
                StateChange::Remove(owned) => self.state.remove(&owned.entry.key()),
            };
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

    /// What this host learned is its own still: an earlier agent said it, or another host did in between. Where
    /// it says something newer, that is on its way.
    fn take_back(&mut self, owned: &OwnedState) {
        if owned.owner == self.host && is_learned(&owned.entry) {
            let key = owned.entry.key();
            self.own.entry(key).or_insert_with(|| owned.entry.clone());
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

    /// Writes all that this host says. What an earlier agent of this host said and this one doesn't goes away.
    async fn say_all(&mut self) -> Result<(), String> {
        self.hear_out().await?;
        while let Ok(update) = self.updates.try_recv() {
            self.note(&update);
        }
        let update = StateUpdate {
            put: self.own.values().cloned().collect(),
            remove: Vec::new(),
            replace: true,
        };
        self.write(update).await
    }

    /// Waits until the packet thread has acted on what it was sent. Before that it has nothing to say, and whoever
    /// believed so would withdraw ports that are live.
    async fn hear_out(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < READY_WAIT_MAX {
            let (answer, answered) = oneshot::channel();
            (self.send)(Message::Ask(Box::new(move |engine| {
                // Whoever asked may have stopped.
                let _ = answer.send(engine.is_ready());
            })));
            match answered.await {
                Ok(true) => return Ok(()),
                Ok(false) => tokio::time::sleep(READY_PAUSE).await,
                Err(_) => return Err("the packet thread has stopped".to_owned()),
            }
        }
        Err("the host's network isn't known yet".to_owned())
    }

    /// Writes an update, and those that came with it: an address that goes to and fro is one write, not many.
    async fn say(&mut self, first: StateUpdate) -> Result<(), String> {
        let mut put = BTreeMap::new();
        let mut remove = Vec::new();
        let mut next = Some(first);
        let mut room = UPDATES_MERGED_MAX;
        while let Some(update) = next {
            self.note(&update);
            for entry in update.remove {
                put.remove(&entry.key());
                remove.push(entry);
            }
            put.extend(update.put.into_iter().map(|entry| (entry.key(), entry)));
            room -= 1;
            next = (room > 0).then(|| self.updates.try_recv().ok()).flatten();
        }
        self.write(StateUpdate {
            put: put.into_values().collect(),
            remove,
            replace: false,
        })
        .await
    }

    async fn write(&self, update: StateUpdate) -> Result<(), String> {
        let written = self.store.update_state(&self.host, update).await;
        written.map_err(|error| self.in_words(error))
    }

    fn note(&mut self, update: &StateUpdate) {
        for entry in &update.remove {
            self.own.remove(&entry.key());
        }
        for entry in &update.put {
            if let StateEntry::PortActivity { tunnel_key, .. }
            | StateEntry::FloodActivity { tunnel_key, .. } = entry
            {
                let key = TunnelKey::from_bits(*tunnel_key);
                self.generations.insert(key.index, key.generation);
            }
            self.own.insert(entry.key(), entry.clone());
        }
    }

    fn report(&self, connected: bool, problem: Option<String>) {
        let recalled = self
            .recalled
            .map(|revision| format!("decisions follow revision {revision}, which is remembered"));
        let problem = match (problem, recalled) {
            (Some(problem), Some(recalled)) => Some(format!("{problem}; {recalled}")),
            (problem, recalled) => problem.or(recalled),
        };
        (self.send)(Message::Store(StoreHealth {
            url: self.url.clone(),
            connected,
            problem,
            save_problem: self.save_problem.clone(),
        }));
    }
}

fn is_learned(entry: &StateEntry) -> bool {
    match entry {
        StateEntry::Mac { .. } | StateEntry::Neighbour { .. } => true,
        StateEntry::PortActivity { .. } | StateEntry::FloodActivity { .. } => false,
    }
}

fn is_activity(change: &StateChange) -> bool {
    let (StateChange::Put(owned) | StateChange::Remove(owned)) = change;
    !is_learned(&owned.entry)
}

#[cfg(test)]
mod tests;
