//! Router advertisements that nobody asked for (RFC 4861, 6.2.4): to each workload on this host when its port goes
//! live, a few times soon after, and now and then for as long as it lives. What they say is made by `weft_vnet`.

use super::Engine;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use weft_datapath::Datapath;
use weft_vnet::{PortId, advertisements};

/// Advertisements to a port that has just gone live, whose workload may not listen yet
/// (RFC 4861, 10: MAX_INITIAL_RTR_ADVERTISEMENTS).
const INITIAL_COUNT: u32 = 3;
/// Seconds between those (at most MAX_INITIAL_RTR_ADVERT_INTERVAL, 16).
const INITIAL_PAUSE_SECS: u64 = 8;
/// Least seconds between later ones (MinRtrAdvInterval), and how many more it may be, at random, so that they don't
/// come all at once. Several fit into a router's lifetime.
const PAUSE_SECS: u64 = 200;
const PAUSE_SPREAD_SECS: u64 = 100;
/// Ports in one second; the others' turn is in the next one.
const PORTS_PER_TICK_MAX: usize = 256;

/// When each live port is next.
#[derive(Default)]
pub struct Advertisements {
    turns: BTreeMap<PortId, Turn>,
    spread: RandomState,
}

#[derive(Clone, Copy)]
struct Turn {
    at_secs: u64,
    sent: u32,
}

impl Advertisements {
    /// The ports whose turn it is, among those that are live.
    fn due(&mut self, live: impl Fn(&PortId) -> bool, all: &[PortId], now: u64) -> Vec<PortId> {
        self.turns.retain(|port, _| live(port));
        for port in all {
            let at_once = Turn {
                at_secs: now,
                sent: 0,
            };
            self.turns.entry(*port).or_insert(at_once);
        }
        let mut due = Vec::new();
        for (port, turn) in &mut self.turns {
            if turn.at_secs > now || due.len() >= PORTS_PER_TICK_MAX {
                continue;
            }
            due.push(*port);
            turn.sent = turn.sent.saturating_add(1);
            let pause = if turn.sent < INITIAL_COUNT {
                INITIAL_PAUSE_SECS
            } else {
                PAUSE_SECS + self.spread.hash_one((port, turn.sent)) % PAUSE_SPREAD_SECS
            };
            turn.at_secs = now + pause;
        }
        due
    }
}

impl<D: Datapath> Engine<D> {
    /// Advertises routers to the local ports whose turn it is.
    pub(super) fn advertise_routers(&mut self, now: u64) {
        self.tell_overlay_mtu();
        let live = &self.placement.ports;
        let all: Vec<PortId> = live.keys().copied().collect();
        let due = self
            .advertisements
            .due(|port| live.contains_key(port), &all, now);
        for port in due {
            let made = advertisements(&self.snapshot, port);
            self.emit_all(&made, 0);
        }
    }

    /// The snapshot knows what fits into every tunnel: routers advertise it.
    fn tell_overlay_mtu(&mut self) {
        let mtu = self.overlay_mtu();
        if self.snapshot.overlay_mtu() != mtu {
            let snapshot = (*self.snapshot).clone().with_overlay_mtu(mtu);
            self.snapshot = std::sync::Arc::new(snapshot);
        }
    }

    /// Largest packet that every tunnel of this host carries; none without tunnels.
    pub(super) fn overlay_mtu(&self) -> Option<u16> {
        self.placement.peers.values().map(|peer| peer.mtu).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn port(number: u128) -> PortId {
        PortId(Uuid::from_u128(number))
    }

    #[test]
    fn a_new_port_has_its_turn_at_once_then_soon_then_seldom() {
        let mut all = Advertisements::default();
        let mut seconds = Vec::new();
        for now in 100..1000 {
            if !all.due(|_| true, &[port(1)], now).is_empty() {
                seconds.push(now);
            }
        }
        assert_eq!(seconds[..3], [100, 108, 116]);
        for pair in seconds[2..].windows(2) {
            let pause = pair[1] - pair[0];
            assert!((PAUSE_SECS..PAUSE_SECS + PAUSE_SPREAD_SECS).contains(&pause));
        }
        assert!(seconds.len() >= 5, "{seconds:?}");
    }

    #[test]
    fn a_port_that_left_starts_anew() {
        let mut all = Advertisements::default();
        assert_eq!(all.due(|_| true, &[port(1)], 100), [port(1)]);
        assert!(all.due(|_| true, &[port(1)], 101).is_empty());
        assert!(all.due(|_| false, &[], 102).is_empty());
        assert_eq!(all.due(|_| true, &[port(1)], 103), [port(1)]);
    }

    #[test]
    fn many_ports_take_turns() {
        let mut all = Advertisements::default();
        let ports: Vec<PortId> = (0..PORTS_PER_TICK_MAX as u128 + 10).map(port).collect();
        assert_eq!(all.due(|_| true, &ports, 100).len(), PORTS_PER_TICK_MAX);
        assert_eq!(all.due(|_| true, &ports, 101).len(), 10);
    }
}
