//! The audit: it finds nothing where nothing was touched, and mends what was.

use super::*;
use weft_common::SlotRef;
use weft_datapath::Family;

/// A rig with three flows, in whose audit a whole round has found nothing.
fn audited() -> Rig {
    let mut rig = Rig::new();
    let (near, far, db) = (rig.mac("web/near"), rig.mac("web/far"), rig.mac("db/near"));
    rig.send("web/near", &rig.raw(near, far, 1));
    rig.send("web/near", &rig.raw(near, STRANGER, 1));
    rig.send("db/near", &rig.raw(db, STRANGER, 1));
    assert_eq!(rig.engine.table.len(), 3);
    round(&mut rig);
    assert_eq!(drift(&rig), (1, 0, 0));
    rig
}

/// Lets a round begin and end.
fn round(rig: &mut Rig) {
    let now = rig.engine.audit.report().rounds * 60 + 60;
    rig.engine.audit(now);
}

fn drift(rig: &Rig) -> (u64, u64, u64) {
    let report = rig.engine.report_status().audit;
    (report.rounds, report.drift, report.repaired)
}

fn a_flow(rig: &Rig) -> (FlowKey, SlotRef) {
    let flow = rig.engine.table.iter().min_by_key(|flow| flow.id).unwrap();
    (flow.masked, flow.target)
}

#[test]
fn a_key_that_went_is_published_again() {
    let mut rig = audited();
    let (key, _) = a_flow(&rig);
    rig.engine.datapath.withdraw(Family::V4, &key).unwrap();
    round(&mut rig);
    assert_eq!(drift(&rig), (2, 1, 1));
    let flow = a_flow(&rig);
    let published = rig.engine.datapath.published(Family::V4, &flow.0).unwrap();
    assert_eq!(published, Some(flow.1));
    round(&mut rig);
    assert_eq!(drift(&rig), (3, 0, 1));
}

#[test]
fn a_slot_that_was_changed_is_replaced() {
    let mut rig = audited();
    let (_, target) = a_flow(&rig);
    let mut slot = rig.engine.datapath.read_slot(target.slot).unwrap();
    slot.tunnel_key += 1;
    rig.engine.datapath.write_slot(target.slot, &slot).unwrap();
    round(&mut rig);
    assert_eq!(drift(&rig), (2, 1, 1));
    let (_, now) = a_flow(&rig);
    let mended = rig.engine.datapath.read_slot(now.slot).unwrap();
    assert_eq!(
        (mended.tunnel_key + 1, mended.generation),
        (slot.tunnel_key, now.generation)
    );
}

#[test]
fn keys_of_nobody_masks_and_sets_are_mended() {
    let mut rig = audited();
    let mut stray = FlowKey::default();
    stray.head.port = 77;
    rig.engine
        .datapath
        .publish(Family::V4, &stray, SlotRef::default())
        .unwrap();
    let masks = rig.engine.table.masks_in_use();
    let (family, number, bits, _) = masks[0];
    rig.engine
        .datapath
        .write_mask(family, number, &FlowKey::default())
        .unwrap();
    let index = rig.index("web/near");
    let record = rig.engine.datapath.read_port(index).unwrap();
    let emptied = PortRecord {
        masks_v4: 0,
        ..record
    };
    rig.engine.datapath.write_port(index, &emptied).unwrap();
    round(&mut rig);
    assert_eq!(drift(&rig), (2, 3, 3));
    let datapath = &rig.engine.datapath;
    assert_eq!(datapath.published(Family::V4, &stray).unwrap(), None);
    assert_eq!(datapath.read_mask(family, number).unwrap(), bits);
    assert_eq!(datapath.read_port(index).unwrap(), record);
}

#[test]
fn a_decision_that_nobody_revised_is_found() {
    let mut rig = audited();
    // A change that reaches the snapshot and not the flows: a mistake that revalidation could make.
    rig.change("web/far", |port| port.admin_up = false);
    let model = Arc::new(rig.model.clone());
    rig.engine.snapshot = Arc::new(weft_vnet::Snapshot::build(model, rig.activity.clone()));
    round(&mut rig);
    let (_, drift, repaired) = drift(&rig);
    assert!(drift >= 1 && drift == repaired, "{drift} {repaired}");
    let (near, far) = (rig.mac("web/near"), rig.mac("web/far"));
    let frame = rig.raw(near, far, 1);
    let slot = rig.forward("web/near", &frame).unwrap();
    assert_eq!(slot.drop_reason, DropReason::PortDown as u8);
}
