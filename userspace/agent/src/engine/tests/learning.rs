//! Addresses that packets teach: shared with the other hosts, taken from them, moved, forgotten.

use super::*;
use weft_common::limits::MAC_IDLE_TIMEOUT_SECS;
use weft_common::slot::Output;

fn learned(rig: &Rig, mac: Mac, path: &str) -> StateEntry {
    StateEntry::Mac {
        bridge: rig.bridge_id("lab"),
        mac,
        port: rig.id(path),
    }
}

#[test]
fn a_learned_mac_is_published_once() {
    let mut rig = Rig::new();
    let frames = [1, 2].map(|number| rig.raw(STRANGER, FRIEND, number));
    for frame in &frames {
        rig.send("lab/one", frame);
    }
    let update = rig.published();
    assert_eq!(update.put, [learned(&rig, STRANGER, "lab/one")]);
    assert_eq!(update.remove, []);
}

#[test]
fn what_another_host_learned_moves_flows() {
    let mut rig = Rig::new();
    let frame = rig.raw(FRIEND, STRANGER, 1);
    rig.send("lab/one", &frame);
    let before = rig.forward("lab/one", &frame).unwrap();
    assert_eq!(before.output, Output::Flood as u8);
    rig.heard(&learned(&rig, STRANGER, "lab/far"));
    let after = rig.forward("lab/one", &frame).unwrap();
    assert_eq!(
        (after.output, after.tunnel_key),
        (Output::Tunnel as u8, key(10, 1).bits())
    );
}

#[test]
fn a_mac_that_moves_here_moves_flows() {
    let mut rig = Rig::new();
    rig.heard(&learned(&rig, STRANGER, "lab/far"));
    let frame = rig.raw(FRIEND, STRANGER, 1);
    rig.send("lab/one", &frame);
    rig.send("lab/two", &rig.raw(STRANGER, FRIEND, 2));
    let slot = rig.forward("lab/one", &frame).unwrap();
    assert_eq!(
        (slot.output, slot.port),
        (Output::Local as u8, rig.index("lab/two"))
    );
    assert!(
        rig.published()
            .put
            .contains(&learned(&rig, STRANGER, "lab/two"))
    );
}

#[test]
fn a_mac_that_was_away_and_comes_back_is_published_again() {
    let mut rig = Rig::new();
    let frame = rig.raw(STRANGER, FRIEND, 1);
    rig.send("lab/one", &frame);
    rig.settle();
    rig.heard(&learned(&rig, STRANGER, "lab/far"));
    assert_eq!(rig.forward("lab/one", &frame), None, "nothing to learn");
    rig.send("lab/one", &frame);
    assert_eq!(rig.published().put, [learned(&rig, STRANGER, "lab/one")]);
}

#[test]
fn an_older_word_of_its_own_does_not_undo_what_this_host_learned_since() {
    let mut rig = Rig::new();
    rig.send("lab/one", &rig.raw(STRANGER, FRIEND, 1));
    rig.send("lab/two", &rig.raw(STRANGER, FRIEND, 2));
    let first = learned(&rig, STRANGER, "lab/one");
    rig.state(StateChange::Put(owned("h1", &first)));
    let known = rig.engine.state.mac(rig.bridge_id("lab"), STRANGER);
    assert_eq!(known, Some(rig.id("lab/two")));
}

#[test]
fn an_address_that_no_flow_uses_is_forgotten_and_withdrawn() {
    let mut rig = Rig::new();
    let frame = rig.raw(STRANGER, FRIEND, 1);
    rig.send("lab/one", &frame);
    rig.settle();
    // As long as its flow is used.
    for _ in 0..3 {
        rig.forward("lab/one", &frame);
        rig.pass(MAC_IDLE_TIMEOUT_SECS);
        rig.engine.tick();
        assert_eq!(rig.published(), StateUpdate::default());
    }
    rig.pass(60);
    rig.engine.tick();
    rig.pass(MAC_IDLE_TIMEOUT_SECS);
    rig.engine.tick();
    assert_eq!(rig.published().remove, [learned(&rig, STRANGER, "lab/one")]);
    assert_eq!(rig.engine.state.mac(rig.bridge_id("lab"), STRANGER), None);
    assert!(rig.engine.learned_used.is_empty());
}

#[test]
fn what_another_host_took_over_is_not_kept_in_mind() {
    let mut rig = Rig::new();
    rig.send("lab/one", &rig.raw(STRANGER, FRIEND, 1));
    rig.settle();
    rig.heard(&learned(&rig, STRANGER, "lab/far"));
    rig.pass(10 * MAC_IDLE_TIMEOUT_SECS);
    rig.engine.tick();
    assert_eq!(rig.published(), StateUpdate::default());
    assert!(rig.engine.learned_used.is_empty());
}
