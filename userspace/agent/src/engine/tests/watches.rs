//! Questions of other agents about marked packets.

use super::*;
use weft_common::port::Delivery;
use weft_common::probe::{
    PROBE_FORMAT, PROBE_MAGIC, PROBE_SEEN, PROBE_WATCH, SEEN_ANSWERED, SEEN_BUSY, SEEN_DELIVERED,
    SEEN_NO_PORT, SEEN_VISIBLY, WATCH_BEGIN, WATCH_END, WATCH_VISIBLY, WatchPayload,
};
use weft_datapath::Sighting;
use zerocopy::{FromBytes, IntoBytes};

impl Rig {
    fn control(&mut self, kind: u8, sender: [u8; 4], payload: &[u8]) {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[26..30].copy_from_slice(&sender);
        frame.resize(42 + 14, 0);
        frame.extend_from_slice(payload);
        self.engine.handle_misses(vec![Miss {
            port: 0,
            generation: kind,
            reason: MissReason::Probe as u8,
            packet: HeldPacket::made(frame),
        }]);
    }

    /// What `h2` is told when it asks about a port.
    fn asked(&mut self, key: TunnelKey, token: u32, flags: u8) -> WatchPayload {
        self.injected();
        let question = WatchPayload {
            magic: PROBE_MAGIC,
            format: PROBE_FORMAT,
            flags: if flags & WATCH_END == 0 {
                flags | WATCH_BEGIN
            } else {
                flags
            },
            question: 7,
            token: token.to_be_bytes(),
            key: key.bits().to_be_bytes(),
            ..WatchPayload::default()
        };
        self.control(PROBE_WATCH, [172, 30, 2, 1], question.as_bytes());
        let sent = self.injected();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].slot.unwrap().tunnel_key, u32::from(PROBE_SEEN));
        let (answer, _) = WatchPayload::read_from_prefix(&sent[0].packet.frame[14..]).unwrap();
        assert_eq!((answer.token, answer.question), (question.token, 7));
        answer
    }

    fn bound_key(&self, path: &str) -> TunnelKey {
        self.engine.ports.bound[&self.id(path)].key
    }

    fn shows(&mut self, sighting: Sighting) {
        *self.datapath().fake.sighting.lock().unwrap() = sighting;
    }
}

const UP: Sighting = Sighting {
    went_out: false,
    was_answered: false,
    is_up: true,
};

#[test]
fn another_host_is_told_what_a_port_shows() {
    let mut rig = Rig::new();
    rig.shows(UP);
    let key = rig.bound_key("web/near");
    assert_eq!(rig.asked(key, 5, 0).seen, 0);
    let was_answered = true;
    rig.shows(Sighting { was_answered, ..UP });
    assert_eq!(rig.asked(key, 5, 0).seen, SEEN_ANSWERED);
    let index = rig.index("web/near");
    let drops = vec![(DropReason::OutputFailed, 1)];
    rig.datapath().dropped.insert(index, drops);
    let dropped = rig.asked(key, 5, WATCH_END).dropped;
    assert_eq!(dropped, DropReason::OutputFailed as u8);
    // It is over, and no question after the packet begins another.
    assert_eq!(rig.asked(key, 5, WATCH_END).seen, SEEN_BUSY);
    // The next watch doesn't count what was dropped before it.
    assert_eq!(rig.asked(key, 6, 0).dropped, 0);
    let old = TunnelKey {
        generation: key.generation + 1,
        ..key
    };
    assert_eq!(rig.asked(old, 5, 0).seen, SEEN_NO_PORT);
}

#[test]
fn delivery_is_visible_while_somebody_asks_and_no_longer() {
    let mut rig = Rig::new();
    let went_out = true;
    rig.shows(Sighting { went_out, ..UP });
    let index = rig.index("web/near");
    let key = rig.bound_key("web/near");
    let usual = rig.record("web/near");
    assert_eq!(usual.delivery, Delivery::Peer as u8);
    let seen = rig.asked(key, 5, WATCH_VISIBLY).seen;
    assert_eq!(seen, SEEN_VISIBLY | SEEN_DELIVERED);
    let visible = PortRecord {
        delivery: Delivery::Plain as u8,
        flags: 0,
        ..usual
    };
    assert_eq!(rig.record("web/near"), visible);
    rig.look();
    assert_eq!(rig.record("web/near"), visible);
    // Two ask: it stays for the second.
    rig.asked(key, 6, WATCH_VISIBLY);
    rig.asked(key, 5, WATCH_VISIBLY | WATCH_END);
    assert_eq!(rig.record("web/near"), visible);
    rig.pass(4);
    rig.engine.tick();
    assert_eq!(rig.record("web/near"), usual);
    assert!(!rig.engine.watches.is_visible(index));
}

#[test]
fn watches_are_few_and_those_that_nobody_asks_about_end() {
    let mut rig = Rig::new();
    rig.shows(UP);
    let key = rig.bound_key("web/near");
    for token in 0..4 {
        assert_eq!(rig.asked(key, token, 0).seen, 0);
    }
    assert_eq!(rig.asked(key, 4, 0).seen, SEEN_BUSY);
    assert_eq!(rig.asked(key, 3, 0).seen, 0);
    rig.pass(4);
    rig.engine.tick();
    assert_eq!(rig.asked(key, 4, 0).seen, 0);
}

#[test]
fn nobody_else_asks_or_answers() {
    let mut rig = Rig::new();
    rig.injected();
    let payload = WatchPayload::default();
    rig.control(PROBE_WATCH, [172, 30, 9, 9], payload.as_bytes());
    rig.control(PROBE_SEEN, [172, 30, 2, 1], payload.as_bytes());
    assert_eq!(rig.injected(), []);
    let unasked = (None, DropReason::UnaskedProbe);
    assert_eq!(rig.engine.drops.get(&unasked), Some(&2));
    rig.control(PROBE_WATCH, [172, 30, 2, 1], &payload.as_bytes()[..20]);
    let bad = (None, DropReason::BadProbe);
    assert_eq!(rig.engine.drops.get(&bad), Some(&1));
}

#[test]
fn an_answer_reaches_who_asked_if_it_is_to_that_question() {
    let mut rig = Rig::new();
    let question = crate::engine::watches::Question {
        host: rig.host("h2"),
        key: key(9, 1),
        token: 5,
        flags: 0,
        number: 1,
    };
    rig.injected();
    let mut answered = rig.engine.ask_about(question);
    let sent = rig.injected().remove(0);
    assert_eq!(sent.slot.unwrap().tunnel_key, u32::from(PROBE_WATCH));
    let (mut answer, _) = WatchPayload::read_from_prefix(&sent.packet.frame[14..]).unwrap();
    answer.seen = SEEN_DELIVERED;
    answer.question = 2;
    rig.control(PROBE_SEEN, [172, 30, 2, 1], answer.as_bytes());
    assert!(answered.try_recv().is_err());
    answer.question = 1;
    rig.control(PROBE_SEEN, [172, 30, 2, 1], answer.as_bytes());
    assert_eq!(answered.try_recv().unwrap().seen, SEEN_DELIVERED);
}
