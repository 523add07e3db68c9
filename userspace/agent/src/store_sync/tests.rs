//! Tests of the sync between a real engine over a fake datapath and a real store in a file.

use super::*;
use crate::engine::{Engine, EngineConfig};
use std::sync::mpsc as thread_mpsc;
use tokio::sync::watch;
use uuid::Uuid;
use weft_common::TunnelKey;
use weft_datapath::network::HostNetwork;
use weft_datapath::{Fake, FlowTable, PortTable};
use weft_store::EmbeddedStore;
use weft_vnet::policy::AddressGroup;
use weft_vnet::{
    AddressGroupId, Binding, Bridge, BridgeId, DeviceId, Host, HostId, Mac, Object, Operation,
    Port, PortId, Snapshot, Tenant, TenantId,
};

const BRIDGE: BridgeId = BridgeId(Uuid::from_u128(3));
const KEY: TunnelKey = TunnelKey {
    index: 7,
    generation: 3,
};

/// A store with a host `h1`, a bridge, and port 10 on that host's interface `tap0`.
async fn store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    let (tenant, host) = (TenantId(Uuid::from_u128(1)), HostId(Uuid::from_u128(2)));
    let name = |name: &str| name.to_owned();
    let objects = [
        Object::Tenant(Tenant {
            id: tenant,
            name: name("acme"),
        }),
        Object::Host(Host {
            id: host,
            name: name("h1"),
            zones: BTreeMap::new(),
        }),
        Object::Bridge(Bridge {
            id: BRIDGE,
            tenant,
            name: name("web"),
        }),
        Object::Port(Port {
            id: port(10),
            device: DeviceId::Bridge(BRIDGE),
            name: name("p"),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            admin_up: true,
            addresses: Vec::new(),
            binding: Some(Binding {
                host,
                interface: name("tap0"),
                tunnel_key: None,
            }),
            peer: None,
            ingress: Vec::new(),
            egress: Vec::new(),
        }),
    ];
    let store = EmbeddedStore::open(&folder.path().join("store")).await;
    let store = store.unwrap();
    let operations = objects.into_iter().map(Operation::Put).collect();
    store.transact(None, operations).await.unwrap();
    Arc::new(store)
}

fn port(number: u128) -> PortId {
    PortId(Uuid::from_u128(number))
}

fn activity(number: u128) -> StateEntry {
    StateEntry::PortActivity {
        port: port(number),
        host: HostId(Uuid::from_u128(2)),
        tunnel_key: KEY.bits(),
    }
}

fn mac(last: u8, number: u128) -> StateEntry {
    StateEntry::Mac {
        bridge: BRIDGE,
        mac: Mac([2, 9, 9, 9, 9, last]),
        port: port(number),
    }
}

fn put(entries: &[StateEntry]) -> StateUpdate {
    StateUpdate {
        put: entries.to_vec(),
        ..StateUpdate::default()
    }
}

fn remove(entry: StateEntry) -> StateUpdate {
    StateUpdate {
        remove: vec![entry],
        ..StateUpdate::default()
    }
}

/// Keys of the state that a store holds.
async fn entries(store: &Arc<dyn Store>) -> Vec<StateEntry> {
    let state = store.read().await.unwrap().state;
    state.into_iter().map(|owned| owned.entry).collect()
}

/// A sync whose packet thread hears nothing.
fn deaf(store: &Arc<dyn Store>) -> (Sync, mpsc::UnboundedSender<StateUpdate>) {
    heard(store, Box::new(drop), None)
}

/// A sync whose messages go to `send`, and that remembers something.
fn heard(
    store: &Arc<dyn Store>,
    send: Box<dyn Fn(Message<Fake>) + Send>,
    remembered: Option<Remembered>,
) -> (Sync, mpsc::UnboundedSender<StateUpdate>) {
    let (updates, updates_out) = mpsc::unbounded_channel();
    let sync = StoreSync::new(
        Arc::clone(store),
        "embedded".into(),
        "h1".into(),
        send,
        updates_out,
        Memory::new(std::path::Path::new("/nowhere"), "h1"),
        remembered,
    );
    (sync, updates)
}

#[tokio::test]
async fn what_is_remembered_serves_while_the_store_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let contents = store(&folder).await.read().await.unwrap();
    let remembered = Remembered::new("embedded".into(), contents, BTreeMap::from([(7, 3)]));
    // A file where its folder should be.
    let nowhere = folder.path().join("store").join("s");
    let away = weft_store::open(&format!("embedded:{}", nowhere.display()), None, None).unwrap();
    let (said, hears) = thread_mpsc::channel();
    let (mut sync, _updates) = heard(
        &away,
        Box::new(move |message| _ = said.send(message)),
        Some(remembered.clone()),
    );
    sync.recall().await;
    let topology = hears.try_iter().find_map(|message| match message {
        Message::Topology(model, _) => Some(model.revision),
        _ => None,
    });
    assert_eq!(topology, Some(1));
    sync.report(false, Some("away".into()));
    let health = hears.try_iter().find_map(|message| match message {
        Message::Store(health) => health.problem,
        _ => None,
    });
    let problem = health.unwrap();
    assert!(
        problem.contains("away; decisions follow revision 1"),
        "{problem}"
    );
    assert_eq!(sync.generations, remembered.generations);
    // A store that answers is what counts, also where it says less.
    let (said, hears) = thread_mpsc::channel();
    let send = Box::new(move |message| _ = said.send(message));
    let here = store(&tempfile::tempdir().unwrap()).await;
    let (mut sync, _updates) = heard(&here, send, Some(remembered));
    sync.recall().await;
    assert_eq!(hears.try_iter().count(), 0);
}

type Sync = StoreSync<Fake, Box<dyn Fn(Message<Fake>) + Send>>;

#[tokio::test]
async fn a_host_that_restarts_takes_nothing_back_that_is_still_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (gone, learned) = (activity(99), mac(1, 10));
    let earlier = put(&[activity(10), gone.clone(), learned.clone()]);
    store.update_state("h1", earlier).await.unwrap();
    let from = store.read().await.unwrap().sequence;

    let (updates, updates_out) = mpsc::unbounded_channel();
    let (messages, inbox) = thread_mpsc::channel::<Message<Fake>>();
    let mut fake = Fake::default();
    fake.add_interface("tap0", 5);
    let config = EngineConfig {
        host: "h1".into(),
        underlay_interfaces: Vec::new(),
        xdp: weft_datapath::XdpUse::default(),
        tunnel_options: Default::default(),
        flows_max: None,
        flow_idle_secs: None,
    };
    let generation = |index| {
        if index == KEY.index {
            KEY.generation
        } else {
            0
        }
    };
    let (flows, ports) = (FlowTable::new(0), PortTable::new(generation, 0));
    let remotes = watch::channel(Vec::new()).0;
    let mut engine = Engine::new(config, fake, flows, ports, updates, remotes);
    std::thread::spawn(move || inbox.into_iter().for_each(|message| engine.handle(message)));
    let to_engine = messages.clone();
    let send = move |message| _ = to_engine.send(message);
    let memory = Memory::new(folder.path(), "h1");
    let (from_store, url, host) = (Arc::clone(&store), "embedded".into(), "h1".into());
    let sync = StoreSync::new(from_store, url, host, send, updates_out, memory, None);
    let sync = tokio::spawn(sync.run());
    // The look at the network comes late; what isn't known yet isn't withdrawn.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.read().await.unwrap().sequence, from);
    let link = weft_datapath::network::Link {
        ifindex: 5,
        mac: [2, 0, 0, 0, 0, 5],
        mtu: 1500,
        is_up: true,
        has_carrier: true,
        xdp_features: None,
    };
    let mut network = HostNetwork::default();
    network.links.insert("tap0".into(), link);
    messages.send(Message::Network(network)).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut events = store.watch(from).await.unwrap();
    let next = async { events.next().await.unwrap().unwrap() };
    let Event::Change(change) = next.await else {
        panic!("too many changes");
    };
    let removed = change.state.iter().filter_map(|change| match change {
        StateChange::Remove(owned) => Some(&owned.entry),
        StateChange::Put(_) => None,
    });
    assert_eq!(removed.collect::<Vec<_>>(), [&gone]);
    let left = entries(&store).await;
    assert!(
        left.contains(&activity(10)) && left.contains(&learned),
        "{left:?}"
    );
    sync.abort();
}

#[tokio::test]
async fn while_the_store_is_away_updates_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (mut sync, updates) = deaf(&store);
    for number in 0..1000 {
        updates.send(put(&[mac(1, number % 2)])).unwrap();
    }
    assert!(sync.rest(Duration::from_millis(20)).await);
    assert!(sync.updates.is_empty());
    assert_eq!(sync.own.into_values().collect::<Vec<_>>(), [mac(1, 1)]);
}

/// Members of a group come in the change's own few words, and the packet thread has them.
#[tokio::test]
async fn members_of_a_group_reach_the_packet_thread() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (said, hears) = thread_mpsc::channel();
    let send = Box::new(move |message| _ = said.send(message));
    let (mut sync, _updates) = heard(&store, send, None);
    let id = AddressGroupId(Uuid::from_u128(20));
    let group = AddressGroup {
        id,
        tenant: TenantId(Uuid::from_u128(1)),
        name: "office".into(),
        prefixes: vec!["10.0.0.0/8".parse().unwrap()],
    };
    let put = Operation::Put(Object::AddressGroup(group));
    store.transact(None, vec![put]).await.unwrap();
    let contents = store.read().await.unwrap();
    let mut events = store.watch(contents.sequence).await.unwrap();
    sync.take_contents(contents).unwrap();
    let change = Operation::Members {
        group: id,
        add: vec!["fd00::/16".parse().unwrap(), "10.0.0.1/32".parse().unwrap()],
        remove: vec!["10.0.0.0/8".parse().unwrap()],
    };
    store.transact(None, vec![change]).await.unwrap();
    sync.take_event(events.next().await.unwrap().unwrap())
        .unwrap();
    let models = hears.try_iter().filter_map(|message| match message {
        Message::Topology(model, activity) => Some(Snapshot::build(model, activity)),
        _ => None,
    });
    let snapshots: Vec<Snapshot> = models.collect();
    let [before, after] = snapshots.as_slice() else {
        panic!("{} topologies", snapshots.len());
    };
    let members: Vec<String> = after.members().map(|(_, it)| it.to_string()).collect();
    assert_eq!(members, ["10.0.0.1/32", "fd00::/16"]);
    let changed = weft_vnet::policy::changed(before, after);
    assert_eq!(
        (changed.come.len(), changed.go.len(), changed.hooks.len()),
        (2, 1, 0)
    );
}

#[tokio::test]
async fn the_end_of_the_agent_ends_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (mut sync, updates) = deaf(&store);
    drop(updates);
    assert!(!sync.rest(Duration::from_secs(60)).await);
}

#[tokio::test]
async fn updates_that_came_together_are_one_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (mut sync, updates) = deaf(&store);
    store.update_state("h1", put(&[mac(1, 1)])).await.unwrap();
    let before = store.read().await.unwrap().sequence;
    let rest = [
        put(&[mac(1, 2), mac(2, 2)]),
        remove(mac(1, 2)),
        put(&[mac(3, 1)]),
        put(&[mac(3, 2)]),
    ];
    rest.into_iter()
        .for_each(|update| updates.send(update).unwrap());
    sync.say(remove(mac(1, 1))).await.unwrap();
    assert_eq!(store.read().await.unwrap().sequence, before + 1);
    assert_eq!(entries(&store).await, [mac(2, 2), mac(3, 2)]);
    let own: Vec<StateEntry> = sync.own.into_values().collect();
    assert_eq!(own, [mac(2, 2), mac(3, 2)]);
}

#[tokio::test]
async fn what_went_to_another_host_and_back_is_said_again_after_a_break() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (mut sync, _updates) = deaf(&store);
    sync.note(&put(&[mac(1, 10)]));
    for (owner, is_own) in [("h2", false), ("h1", true)] {
        let owned = OwnedState {
            owner: owner.into(),
            entry: mac(1, 10),
        };
        let change = Change {
            sequence: 1,
            revision: 1,
            operations: Vec::new(),
            state: vec![StateChange::Put(owned)],
        };
        sync.take_change(change).unwrap();
        assert_eq!(sync.own.len() == 1, is_own, "{owner}");
    }
}
