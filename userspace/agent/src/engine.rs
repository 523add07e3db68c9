//! The packet thread's state: everything that decides and installs, owned by one thread, without locks.
//!
//! | file | what it does |
//! |---|---|
//! | [`misses`] | a packet came up: decide, send it on, install the flow |
//! | [`flows`] | flows with their tags; what a change concerns is decided again |
//! | [`choices`] | groups of next hops |
//! | [`adoption`] | what an earlier agent left goes on and is decided again |
//! | [`swap`] | what one of another ABI left goes on until its flows are rebuilt beside it |
//! | [`ports`] | bound ports: keys, interfaces that come and go |
//! | [`acls`] | chains of ports in the kernel, compiled |
//! | [`connections`] | what the kernel tracks: expiry, quotas |
//! | [`rule_counts`] | what rules counted, over tables and connections that went |
//! | [`neighbours`] | what the kernel answers by itself |
//! | [`underlay`] | records of remote hosts |
//! | [`probes`] | whether they answer, how fast, how large packets may be |
//! | [`refusals`] | packets that go no further, and what their senders are told |
//! | [`floods`] | flood lists and flood sets |
//! | [`audit`] | compares flows and the kernel's maps with what they should be |
//! | [`waiting`] | packets that wait for a next hop |
//! | [`advertisements`] | what routers say of themselves, unasked |
//! | [`watches`] | what ports show of marked packets, for `weft ping` |
//! | [`report`], [`policy_report`], [`tracing_packets`], [`ping`] | what the API asks |
//!
//! The store, the API and netlink talk to it by messages; it talks back by [`StateUpdate`]s. It never waits.

pub mod acls;
mod adoption;
pub mod advertisements;
pub mod audit;
pub mod choices;
pub mod connections;
pub mod floods;
pub mod flows;
mod indices;
pub mod misses;
pub mod neighbours;
pub mod ping;
pub mod policy_report;
pub mod ports;
pub mod probes;
pub mod refusals;
pub mod report;
pub mod rule_counts;
pub mod swap;
pub mod tracing_packets;
pub mod underlay;
pub mod waiting;
pub mod watches;

use crate::store_sync::StoreHealth;
use acls::Acls;
use adoption::Adoption;
use advertisements::Advertisements;
use audit::Audit;
use connections::Connections;
use floods::Floods;
use flows::{Decisions, is_learned};
use misses::MadeSlots;
use neighbours::Neighbours;
use ports::Ports;
use probes::Probes;
use refusals::Refusals;
use rule_counts::RuleCounts;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use swap::Swap;
use tokio::sync::{mpsc, watch};
use underlay::Peers;
pub use underlay::TunnelOptions;
use waiting::Waiting;
use watches::Watches;
use weft_api::{OwnedState, StateChange, StateUpdate};
use weft_common::{DropReason, Slot};
use weft_datapath::network::HostNetwork;
use weft_datapath::{Datapath, FlowTable, PortTable, XdpUse};
use weft_vnet::{
    Activity, FlowState, HostId, Model, Outcome, Packet, Placement, PortId, Snapshot, StateEntry,
    Tag, TraceSink, changed_tags, compile, simulate,
};

/// This host's id while the topology doesn't name it.
const NO_HOST: HostId = HostId(uuid::Uuid::nil());

/// A question to the engine; whoever asks gets the answer by its own means.
pub type Question<D> = Box<dyn FnOnce(&mut Engine<D>) + Send>;

/// What other threads tell the packet thread.
pub enum Message<D> {
    /// The topology is now this, and ports are live there.
    Topology(Arc<Model>, Activity),
    /// Learned addresses changed in the store.
    State(Vec<StateChange>),
    /// The host's network looks like this now.
    Network(HostNetwork),
    /// The store can, or can't, be reached.
    Store(StoreHealth),
    /// A question, answered by whoever made the closure.
    Ask(Question<D>),
}

/// What the engine is told at its start.
pub struct EngineConfig {
    /// Name of this host.
    pub host: String,
    /// Underlay interfaces.
    pub underlay_interfaces: Vec<String>,
    /// Whether they have XDP.
    pub xdp: XdpUse,
    /// How packets are put into tunnels.
    pub tunnel_options: TunnelOptions,
    /// Most flows.
    pub flows_max: Option<usize>,
    /// Seconds without a packet after which a flow goes.
    pub flow_idle_secs: Option<u64>,
}

/// See the module's text.
pub struct Engine<D> {
    host_name: String,
    host: HostId,
    datapath: D,
    table: FlowTable,
    snapshot: Arc<Snapshot>,
    state: FlowState,
    placement: Placement,
    network: HostNetwork,
    store: StoreHealth,
    decisions: Decisions,
    ports: Ports,
    acls: Acls,
    connections: Connections,
    rule_counts: RuleCounts,
    neighbours: Neighbours,
    peers: Peers,
    tunnel_options: TunnelOptions,
    probes: Probes,
    watches: Watches,
    floods: Floods,
    waiting: Waiting,
    advertisements: Advertisements,
    adoption: Adoption,
    swap: Swap,
    refusals: Refusals,
    made_slots: MadeSlots,
    /// What this host has published, by key.
    published: BTreeMap<String, StateEntry>,
    /// When a flow last used an address that this host learned, in seconds.
    learned_used: HashMap<String, u64>,
    updates: mpsc::UnboundedSender<StateUpdate>,
    remotes: watch::Sender<Vec<IpAddr>>,
    /// Drops that the agent itself decided on, by port and reason.
    drops: BTreeMap<(Option<PortId>, DropReason), u64>,
    /// What the batch of misses in hand taught.
    learned_in_batch: BTreeSet<Tag>,
    /// Why the last flow that should have been installed wasn't.
    install_problem: Option<String>,
    /// Why what an earlier agent left can't be taken over.
    take_over_problem: Option<String>,
    misses: u64,
    /// Flows that were decided again because of a change.
    redecided: u64,
    /// Flows that had to make room for others.
    evicted: u64,
    audit: Audit,
    has_topology: bool,
    has_network: bool,
    /// Whether what an earlier agent left has been gone through. Until then its flows go on forwarding.
    is_ready: bool,
    /// Whether all that was in the kernel is gone, and stays gone.
    is_released: bool,
    started: Instant,
}

impl<D: Datapath> Engine<D> {
    /// An engine that decides nothing until it gets a topology.
    pub fn new(
        config: EngineConfig,
        datapath: D,
        mut table: FlowTable,
        port_table: PortTable,
        updates: mpsc::UnboundedSender<StateUpdate>,
        remotes: watch::Sender<Vec<IpAddr>>,
    ) -> Engine<D> {
        if let Some(limit) = config.flows_max {
            table.flows_max = table.flows_max.min(limit);
        }
        if let Some(secs) = config.flow_idle_secs {
            table.idle_timeout_secs = secs;
        }
        Engine {
            host_name: config.host,
            host: NO_HOST,
            datapath,
            table,
            snapshot: Arc::new(Snapshot::build(
                Arc::new(Model::default()),
                Activity::default(),
            )),
            state: FlowState::default(),
            placement: Placement::default(),
            network: HostNetwork::default(),
            store: StoreHealth::default(),
            decisions: Decisions::default(),
            ports: Ports::new(port_table, config.underlay_interfaces, config.xdp),
            acls: Acls::default(),
            connections: Connections::default(),
            rule_counts: RuleCounts::default(),
            neighbours: Neighbours::default(),
            peers: Peers::default(),
            tunnel_options: config.tunnel_options,
            probes: Probes::default(),
            watches: Watches::default(),
            floods: Floods::default(),
            waiting: Waiting::default(),
            advertisements: Advertisements::default(),
            adoption: Adoption::default(),
            swap: Swap::default(),
            refusals: Refusals::default(),
            made_slots: MadeSlots::default(),
            published: BTreeMap::new(),
            learned_used: HashMap::new(),
            updates,
            remotes,
            drops: BTreeMap::new(),
            learned_in_batch: BTreeSet::new(),
            install_problem: None,
            take_over_problem: None,
            misses: 0,
            redecided: 0,
            evicted: 0,
            audit: Audit::default(),
            has_topology: false,
            has_network: false,
            is_ready: false,
            is_released: false,
            started: Instant::now(),
        }
    }

    /// Takes one message.
    pub fn handle(&mut self, message: Message<D>) {
        match message {
            Message::Topology(..) | Message::State(_) | Message::Network(_) if self.is_released => {
            }
            Message::Topology(model, activity) => self.take_topology(model, activity),
            Message::State(changes) => self.take_state(changes),
            Message::Network(network) => self.take_network(network),
            Message::Store(health) => self.store = health,
            Message::Ask(question) => question(self),
        }
    }

    /// What must happen about once a second.
    pub fn tick(&mut self) {
        if self.is_released {
            return;
        }
        let now = self.now_secs();
        self.sweep_flows(now);
        self.retire_made_slots(now);
        self.retry_waiting(now);
        self.advertise_routers(now);
        self.refusals.forget_full(self.now_ms());
        self.forget_idle_addresses(now);
        self.floods.free_lists(now);
        self.peers.free_indices(now);
        self.retire_acls(now);
        self.expire_connections();
        self.retry_attachments();
        self.retry_xdp();
        self.retry_swap();
        self.end_watches();
        self.audit(now);
    }

    /// Takes all that it put into the kernel out again. From here on it does nothing more.
    ///
    /// # Errors
    /// What the kernel keeps, in words.
    pub fn release(&mut self) -> Result<(), String> {
        self.is_released = true;
        self.is_ready = false;
        self.datapath.release().map_err(|error| error.to_string())
    }

    /// Name of this host.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Whether it has acted on a topology and a look at the host's network: what it published is whole.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The datapath, for the thread that reads misses from it.
    pub fn datapath_mut(&mut self) -> &mut D {
        &mut self.datapath
    }

    fn now_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn take_topology(&mut self, model: Arc<Model>, activity: Activity) {
        self.has_topology = true;
        let host = model
            .hosts
            .values()
            .find(|host| host.name == self.host_name)
            .map(|host| host.id);
        let host = host.unwrap_or(NO_HOST);
        let new = self.snapshot.update(model, activity);
        let new = Arc::new(new.with_overlay_mtu(self.overlay_mtu()));
        let mut dirty = changed_tags(&self.snapshot, &new);
        if host != self.host {
            // What was said of the old one would be withdrawn under the wrong name later.
            self.unbind_all(&mut dirty);
            self.release_flood_sets();
            self.host = host;
        }
        self.snapshot = new;
        self.reconcile(&mut dirty);
        self.redecide(&dirty);
        self.wake_waiting(&dirty);
    }

    fn take_network(&mut self, network: HostNetwork) {
        self.network = network;
        self.has_network = true;
        // Without a store, too: what is pinned goes on, by this agent's programs.
        self.attach_underlay_interfaces();
        let mut dirty = BTreeSet::new();
        self.reconcile(&mut dirty);
        self.redecide(&dirty);
        self.wake_waiting(&dirty);
    }

    /// Brings the kernel's records in line with the topology and the host's network. What moved is added to
    /// `dirty`.
    fn reconcile(&mut self, dirty: &mut BTreeSet<Tag>) {
        if !self.has_topology || !self.has_network {
            return;
        }
        let is_whole = self.ask_for_paths();
        if !self.is_ready && !is_whole {
            return;
        }
        if !self.is_ready {
            self.take_over_problem = self.begin_adoption().err().map(|error| error.to_string());
            if let Some(problem) = &self.take_over_problem {
                tracing::error!(
                    problem,
                    "nothing is decided: what an earlier weftd left can't be read"
                );
                return;
            }
        }
        self.reconcile_underlay(dirty);
        self.reconcile_ports(dirty);
        self.reconcile_floods(dirty);
        if !self.is_ready {
            self.forget_earlier_ports();
            self.is_ready = true;
        }
    }

    fn take_state(&mut self, changes: Vec<StateChange>) {
        let mut dirty = BTreeSet::new();
        for change in changes {
            let tag = match change {
                StateChange::Put(owned) => self.take_entry(owned),
                StateChange::Remove(owned) => {
                    let key = owned.entry.key();
                    if is_learned(&owned.entry) && self.published.get(&key) == Some(&owned.entry) {
                        self.published.remove(&key);
                        self.learned_used.remove(&key);
                    }
                    self.state.remove(&owned.entry)
                }
            };
            dirty.extend(tag);
        }
        self.redecide(&dirty);
        self.wake_waiting(&dirty);
    }

    /// What the store says is so, by whoever said it last.
    fn take_entry(&mut self, owned: OwnedState) -> Option<Tag> {
        let OwnedState { owner, entry } = owned;
        let key = entry.key();
        if owner != self.host_name {
            // Another host has learned it since: what this one said is no longer its own.
            self.published.remove(&key);
            self.learned_used.remove(&key);
        } else if is_learned(&entry) {
            let said = self.published.entry(key).or_insert_with(|| entry.clone());
            if *said != entry {
                // This host said something newer, which is on its way through the store.
                return None;
            }
        }
        self.state.apply(&entry)
    }

    /// Decides on a packet by what is known now.
    fn decide(&self, packet: &Packet<'_>, trace: &mut impl TraceSink) -> Outcome {
        simulate(&self.snapshot, &self.state, packet, self.now_ms(), trace)
    }

    /// What the kernel of this host is to do for a decision.
    fn slot_for(&self, outcome: &Outcome) -> Slot {
        compile(outcome, &self.snapshot, self.host, &self.placement)
    }

    /// Tells the other hosts.
    fn publish(&mut self, entry: StateEntry) {
        let key = entry.key();
        if self.published.get(&key) == Some(&entry) {
            return;
        }
        self.published.insert(key, entry.clone());
        self.update(StateUpdate {
            put: vec![entry],
            ..StateUpdate::default()
        });
    }

    fn withdraw(&mut self, key: &str) {
        if let Some(entry) = self.published.remove(key) {
            self.update(StateUpdate {
                remove: vec![entry],
                ..StateUpdate::default()
            });
        }
    }

    fn update(&mut self, update: StateUpdate) {
        // A closed channel means that the agent is stopping.
        let _ = self.updates.send(update);
    }

    /// Counts a drop that never reached the kernel.
    fn count_drop(&mut self, port: Option<PortId>, reason: DropReason) {
        *self.drops.entry((port, reason)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
