//! Tables of chains: what is written when, and what holds when it can't be.

use super::policy_seen::{TO_NEAR, stateful};
use super::*;
use weft_common::acl::NOT_COMPILED;

#[test]
fn equal_chains_share_a_table_and_a_change_raises_the_epoch() {
    let mut rig = Rig::judged();
    let (near, other) = (rig.index("web/near"), rig.index("db/near"));
    let first = rig.datapath().policy(near);
    assert_eq!(first.ingress, 0);
    assert_eq!(rig.datapath().policy(other).egress, first.egress);
    rig.topology();
    assert_eq!(rig.datapath().policy(near), first, "nothing changed");
    let mut rules = stateful();
    rules.remove(1);
    rig.chain(rules);
    rig.topology();
    let second = rig.datapath().policy(near);
    assert_ne!(second.egress, first.egress);
    assert!(second.epoch > first.epoch);
    // The one before goes when no packet can be on its way with it.
    assert!(rig.datapath().fake.acls.contains_key(&first.egress));
    rig.engine.retire_acls(60);
    assert!(!rig.datapath().fake.acls.contains_key(&first.egress));
    rig.change("web/near", |port| port.egress.clear());
    rig.topology();
    let none = rig.datapath().policy(near);
    assert_eq!((none.ingress, none.egress), (0, 0));
    assert!(
        none.epoch > second.epoch,
        "what was admitted stays known as old"
    );
}

#[test]
fn what_cannot_be_written_is_tried_again_and_lets_nothing_pass() {
    let mut rig = Rig::judged();
    let (near, far) = (rig.index("web/near"), rig.index("db/guest"));
    let before = rig.datapath().policy(near);
    rig.datapath().refuses_acls = true;
    let mut rules = stateful();
    rules.remove(0);
    rig.chain(rules);
    rig.change("db/guest", |port| port.ingress = vec![TO_NEAR]);
    rig.topology();
    assert_eq!(
        rig.datapath().policy(near),
        before,
        "the earlier chains hold"
    );
    assert_eq!(rig.datapath().policy(far).ingress, NOT_COMPILED);
    rig.engine.retire_acls(60);
    let is_there = rig.datapath().fake.acls.contains_key(&before.egress);
    assert!(is_there, "packets still go by it");
    rig.datapath().refuses_acls = false;
    rig.engine.tick();
    let after = rig.datapath().policy(near);
    assert_ne!(after.egress, before.egress);
    assert_eq!(rig.datapath().policy(far).ingress, after.egress);
    rig.engine.retire_acls(120);
    assert!(!rig.datapath().fake.acls.contains_key(&before.egress));
}
