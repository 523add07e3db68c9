//! What every store does: one suite, run for the embedded store and for a remote one that speaks
//! to an embedded one over a unix socket.

mod file;
mod over_http;
mod stores;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ipnet::IpNet;
use std::net::IpAddr;
use stores::{GROUP, Rig, bridge, host, mac, operations, policies, port_live, tenant};
use weft_api::types::{Event, OwnedState, StateChange, StateUpdate};
use weft_common::limits::ADDRESS_GROUP_MEMBERS_MAX;
use weft_store::{Store, StoreError};
use weft_vnet::{Kind, Object, Operation};

/// Runs each function for each kind of store, as tests of their own.
macro_rules! contract {
    ($($name:ident)+) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Rig::embedded().await).await;
            })+
        }
        mod remote {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Rig::remote().await).await;
            })+
        }
    };
}

contract! {
    a_new_store_is_empty
    a_transaction_is_read_back
    a_transaction_is_all_or_nothing
    a_bad_operation_is_pointed_at
    another_revision_is_a_conflict
    of_racing_transactions_one_wins
    no_operations_change_nothing
    a_watch_sees_each_change_in_order
    a_watch_from_the_past_gets_what_it_missed
    a_watch_that_lags_is_reset
    a_watch_from_the_future_is_reset
    state_has_owners
    state_of_a_host_that_starts_is_replaced
    state_that_is_so_already_is_no_change
    a_restart_keeps_everything
    many_watchers_see_the_same
    members_of_a_large_group_are_changed_one_by_one
}

type Watch = BoxStream<'static, weft_store::Result<Event>>;

async fn next(watch: &mut Watch) -> Event {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    event
        .expect("an event in time")
        .expect("an event")
        .expect("no error")
}

/// Nothing more comes, for as long as anything could reasonably take.
async fn nothing_more(watch: &mut Watch) {
    let event = tokio::time::timeout(Duration::from_millis(200), watch.next()).await;
    assert!(event.is_err(), "{event:?}");
}

async fn state_of(store: &dyn Store) -> Vec<OwnedState> {
    store.read().await.unwrap().state
}

/// Chains, groups and the chains of a port are kept, and a change of a large group is as small as what it says.
async fn members_of_a_large_group_are_changed_one_by_one(mut rig: Rig) {
    let all = (0..ADDRESS_GROUP_MEMBERS_MAX as u32)
        .map(|it| IpNet::from(IpAddr::from((0x0a00_0000 + it).to_be_bytes())));
    let mut operations = operations();
    operations.extend(policies(all.collect()).into_iter().map(Operation::Put));
    rig.store.transact(None, operations).await.unwrap();
    let mut watch = rig.store.watch(1).await.unwrap();
    let new: IpNet = "fd00::1/128".parse().unwrap();
    let gone: IpNet = "10.0.0.7/32".parse().unwrap();
    let change = vec![Operation::Members {
        group: GROUP,
        add: vec![new],
        remove: vec![gone],
    }];
    assert_eq!(rig.store.transact(None, change.clone()).await.unwrap(), 2);
    let Event::Change(seen) = next(&mut watch).await else {
        panic!("a change");
    };
    assert_eq!(seen.operations, change);
    drop(watch);
    let before = rig.store.read().await.unwrap();
    rig.restart().await;
    let after = rig.store.read().await.unwrap();
    assert_eq!(after, before);
    let model = after.model().unwrap();
    let members = &model.policy.address_groups[&GROUP].prefixes;
    assert_eq!(members.len(), ADDRESS_GROUP_MEMBERS_MAX);
    assert!(members.contains(&new) && !members.contains(&gone));
    assert_eq!(
        (model.policy.chains.len(), model.policy.port_groups.len()),
        (1, 1)
    );
    assert!(model.ports.values().all(|port| port.egress.len() == 1));
    let kind = Kind::AddressGroup;
    let delete = Operation::Delete { kind, id: GROUP.0 };
    let refused = rig.store.transact(None, vec![delete]).await.unwrap_err();
    assert!(
        refused.to_string().contains("chain to-web refers to it"),
        "{refused}"
    );
    // With its members: the next one of the same id has none.
    let Object::Chain(mut chain) = policies(Vec::new()).remove(1) else {
        panic!("a chain");
    };
    chain.rules.clear();
    let id = GROUP.0;
    let group = policies(Vec::new()).remove(0);
    let chain = Operation::Put(Object::Chain(chain));
    let delete = Operation::Delete { kind, id };
    rig.store.transact(None, vec![chain, delete]).await.unwrap();
    rig.store
        .transact(None, vec![Operation::Put(group)])
        .await
        .unwrap();
    rig.restart().await;
    let model = rig.store.read().await.unwrap().model().unwrap();
    assert_eq!(model.policy.address_groups[&GROUP].prefixes, []);
}

async fn a_new_store_is_empty(rig: Rig) {
    let contents = rig.store.read().await.unwrap();
    assert_eq!((contents.revision, contents.sequence), (0, 0));
    assert!(contents.objects.is_empty() && contents.state.is_empty());
    assert!(!contents.store.is_nil());
    assert!(rig.store.status().connected);
}

async fn a_transaction_is_read_back(rig: Rig) {
    let operations = operations();
    assert_eq!(
        rig.store.transact(None, operations.clone()).await.unwrap(),
        1
    );
    let contents = rig.store.read().await.unwrap();
    assert_eq!((contents.revision, contents.sequence), (1, 1));
    let objects: Vec<Operation> = contents
        .objects
        .iter()
        .cloned()
        .map(Operation::Put)
        .collect();
    assert_eq!(objects, operations);
    assert_eq!(contents.model().unwrap().revision, 1);
    let delete = Operation::Delete {
        kind: Kind::Bridge,
        id: bridge(1).id(),
    };
    assert_eq!(rig.store.transact(None, vec![delete]).await.unwrap(), 2);
    let contents = rig.store.read().await.unwrap();
    assert!(
        contents
            .objects
            .iter()
            .all(|object| object.kind() != Kind::Bridge)
    );
    assert!(
        contents
            .objects
            .iter()
            .all(|object| object.kind() != Kind::Port)
    );
}

async fn a_transaction_is_all_or_nothing(rig: Rig) {
    let before = rig.store.read().await.unwrap();
    let missing = Operation::Delete {
        kind: Kind::Host,
        id: host(9).id(),
    };
    let operations = vec![Operation::Put(tenant()), missing];
    let error = rig.store.transact(None, operations).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
    assert_eq!(rig.store.read().await.unwrap(), before);
}

async fn a_bad_operation_is_pointed_at(rig: Rig) {
    let mut operations = operations();
    for operation in &mut operations {
        if let Operation::Put(Object::Port(port)) = operation {
            port.addresses.push("10.0.1.77/24".parse().unwrap());
        }
    }
    let index = operations.len() - 1;
    let error = rig.store.transact(None, operations).await.unwrap_err();
    let StoreError::Invalid(invalid) = error else {
        panic!("{error:?}")
    };
    assert_eq!(invalid.len(), 1);
    assert_eq!(
        (invalid[0].operation, invalid[0].pointer.as_str()),
        (index, "/addresses/1")
    );
    assert!(invalid[0].message.contains("10.0.1.77"), "{invalid:?}");
}

async fn another_revision_is_a_conflict(rig: Rig) {
    assert_eq!(rig.store.transact(Some(0), operations()).await.unwrap(), 1);
    let error = rig
        .store
        .transact(Some(0), vec![Operation::Put(bridge(2))])
        .await
        .unwrap_err();
    let StoreError::Conflict { expected, actual } = error else {
        panic!("{error:?}")
    };
    assert_eq!((expected, actual), (0, 1));
    assert_eq!(
        rig.store
            .transact(Some(1), vec![Operation::Put(bridge(2))])
            .await
            .unwrap(),
        2
    );
}

async fn of_racing_transactions_one_wins(rig: Rig) {
    rig.store
        .transact(None, vec![Operation::Put(tenant())])
        .await
        .unwrap();
    let attempts = (10..18).map(|number| {
        let store = rig.store.clone();
        tokio::spawn(async move {
            store
                .transact(Some(1), vec![Operation::Put(bridge(number))])
                .await
        })
    });
    let mut won = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(revision) => won += revision - 1,
            Err(StoreError::Conflict {
                expected: 1,
                actual: 2,
            }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((won, rig.store.read().await.unwrap().objects.len()), (1, 2));
}

async fn no_operations_change_nothing(rig: Rig) {
    rig.store.transact(None, operations()).await.unwrap();
    let before = rig.store.read().await.unwrap();
    assert_eq!(rig.store.transact(Some(1), Vec::new()).await.unwrap(), 1);
    assert_eq!(rig.store.read().await.unwrap(), before);
    let error = rig.store.transact(Some(7), Vec::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
}

async fn a_watch_sees_each_change_in_order(rig: Rig) {
    let mut watch = rig.store.watch(0).await.unwrap();
    rig.store.transact(None, operations()).await.unwrap();
    let update = StateUpdate {
        put: vec![mac(1)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h1", update).await.unwrap();
    for number in 2..30 {
        rig.store
            .transact(None, vec![Operation::Put(bridge(number))])
            .await
            .unwrap();
    }
    let Event::Change(first) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!((first.sequence, first.revision), (1, 1));
    assert_eq!((first.operations, first.state), (operations(), Vec::new()));
    let Event::Change(second) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!((second.sequence, second.revision), (2, 1));
    let owned = OwnedState {
        owner: "h1".into(),
        entry: mac(1),
    };
    assert_eq!(
        (second.operations, second.state),
        (Vec::new(), vec![StateChange::Put(owned)])
    );
    for number in 2..30 {
        let Event::Change(change) = next(&mut watch).await else {
            panic!("a change")
        };
        assert_eq!(
            (change.sequence, change.revision),
            (number as u64 + 1, number as u64)
        );
        assert_eq!(change.operations, [Operation::Put(bridge(number))]);
    }
    nothing_more(&mut watch).await;
}

async fn a_watch_from_the_past_gets_what_it_missed(rig: Rig) {
    rig.store.transact(None, operations()).await.unwrap();
    rig.store
        .transact(None, vec![Operation::Put(bridge(2))])
        .await
        .unwrap();
    let mut watch = rig.store.watch(1).await.unwrap();
    let Event::Change(change) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!(
        (change.sequence, change.operations),
        (2, vec![Operation::Put(bridge(2))])
    );
    nothing_more(&mut watch).await;
}

/// The rigs keep 64 changes.
async fn a_watch_that_lags_is_reset(rig: Rig) {
    rig.store.transact(None, operations()).await.unwrap();
    for number in 2..90 {
        rig.store
            .transact(None, vec![Operation::Put(bridge(number))])
            .await
            .unwrap();
    }
    let mut watch = rig.store.watch(1).await.unwrap();
    let Event::Reset(contents) = next(&mut watch).await else {
        panic!("a reset")
    };
    assert_eq!(*contents, rig.store.read().await.unwrap());
    rig.store
        .transact(None, vec![Operation::Put(bridge(90))])
        .await
        .unwrap();
    let Event::Change(change) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!(change.sequence, contents.sequence + 1);
}

async fn a_watch_from_the_future_is_reset(rig: Rig) {
    rig.store.transact(None, operations()).await.unwrap();
    let mut watch = rig.store.watch(1000).await.unwrap();
    let Event::Reset(contents) = next(&mut watch).await else {
        panic!("a reset")
    };
    assert_eq!(contents.sequence, 1);
}

async fn state_has_owners(rig: Rig) {
    let put = |entry| StateUpdate {
        put: vec![entry],
        ..StateUpdate::default()
    };
    let remove = |entry| StateUpdate {
        remove: vec![entry],
        ..StateUpdate::default()
    };
    let owned = |owner: &str, entry| {
        vec![OwnedState {
            owner: owner.into(),
            entry,
        }]
    };
    rig.store
        .update_state("h1", put(port_live(1, 7)))
        .await
        .unwrap();
    assert_eq!(state_of(&*rig.store).await, owned("h1", port_live(1, 7)));
    // The port moves: the entry changes hands, and the old host can't take it away any more.
    rig.store
        .update_state("h2", put(port_live(2, 9)))
        .await
        .unwrap();
    assert_eq!(state_of(&*rig.store).await, owned("h2", port_live(2, 9)));
    rig.store
        .update_state("h1", remove(port_live(1, 7)))
        .await
        .unwrap();
    rig.store
        .update_state("h1", remove(port_live(2, 9)))
        .await
        .unwrap();
    assert_eq!(state_of(&*rig.store).await, owned("h2", port_live(2, 9)));
    // Nor can a late removal of an older value.
    rig.store
        .update_state("h2", remove(port_live(2, 8)))
        .await
        .unwrap();
    assert_eq!(state_of(&*rig.store).await, owned("h2", port_live(2, 9)));
    rig.store
        .update_state("h2", remove(port_live(2, 9)))
        .await
        .unwrap();
    assert_eq!(state_of(&*rig.store).await, []);
    let error = rig
        .store
        .update_state(&"x".repeat(64), put(mac(1)))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
}

async fn state_of_a_host_that_starts_is_replaced(rig: Rig) {
    let put = StateUpdate {
        put: vec![mac(1), mac(2)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h1", put).await.unwrap();
    let put = StateUpdate {
        put: vec![mac(3)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h2", put).await.unwrap();
    let mut watch = rig.store.watch(2).await.unwrap();
    let replace = StateUpdate {
        put: vec![mac(2), mac(4)],
        remove: Vec::new(),
        replace: true,
    };
    rig.store.update_state("h1", replace).await.unwrap();
    let owned = |owner: &str, entry| OwnedState {
        owner: owner.into(),
        entry,
    };
    let Event::Change(change) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!(
        change.state,
        [
            StateChange::Remove(owned("h1", mac(1))),
            StateChange::Put(owned("h1", mac(4)))
        ]
    );
    let expected = [
        owned("h1", mac(2)),
        owned("h2", mac(3)),
        owned("h1", mac(4)),
    ];
    assert_eq!(state_of(&*rig.store).await, expected);
}

async fn state_that_is_so_already_is_no_change(rig: Rig) {
    let put = StateUpdate {
        put: vec![mac(1)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h1", put.clone()).await.unwrap();
    let replace = StateUpdate {
        replace: true,
        ..put
    };
    rig.store.update_state("h1", replace).await.unwrap();
    rig.store
        .update_state("h1", StateUpdate::default())
        .await
        .unwrap();
    assert_eq!(rig.store.read().await.unwrap().sequence, 1);
}

async fn a_restart_keeps_everything(mut rig: Rig) {
    rig.store.transact(None, operations()).await.unwrap();
    let put = StateUpdate {
        put: vec![mac(1), port_live(1, 7)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h1", put).await.unwrap();
    let remove = StateUpdate {
        remove: vec![mac(1)],
        ..StateUpdate::default()
    };
    rig.store.update_state("h1", remove).await.unwrap();
    let delete = Operation::Delete {
        kind: Kind::Port,
        id: stores::port().id(),
    };
    rig.store.transact(None, vec![delete]).await.unwrap();
    let before = rig.store.read().await.unwrap();
    assert_eq!((before.revision, before.sequence), (2, 4));
    rig.restart().await;
    assert_eq!(rig.store.read().await.unwrap(), before);
    // Whoever had seen everything goes on without a reset.
    let mut watch = rig.store.watch(before.sequence).await.unwrap();
    assert_eq!(
        rig.store
            .transact(Some(2), vec![Operation::Put(bridge(2))])
            .await
            .unwrap(),
        3
    );
    let Event::Change(change) = next(&mut watch).await else {
        panic!("a change")
    };
    assert_eq!((change.sequence, change.revision), (5, 3));
}

async fn many_watchers_see_the_same(rig: Rig) {
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(rig.store.watch(0).await.unwrap());
    }
    rig.store.transact(None, operations()).await.unwrap();
    let first = next(&mut watches[0]).await;
    for watch in &mut watches[1..] {
        assert_eq!(next(watch).await, first);
    }
}
