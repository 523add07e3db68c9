//! The judge of one interface: frames that nobody expected fail the scenario.
//!
//! Helpers declare what they cause *before* they cause it; a frame that arrives and fits no declaration, or
//! one too many, is kept with its description. State: declarations and counts, under one lock. Fed by
//! [`watch`](super::watch) and [`tap`](super::tap), asked by [`Run`](super::Run) at the end.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::packet::{Content, Frame};

/// Unexpected frames that are described one by one; more are only counted.
const DESCRIBED_MAX: usize = 12;

/// ICMPv6 types (RFC 3810, RFC 4861).
pub const MLD_REPORT: u8 = 143;
/// See [`MLD_REPORT`].
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// See [`MLD_REPORT`].
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// See [`MLD_REPORT`].
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Which way a frame went, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It arrived.
    Received,
    /// It was sent.
    Sent,
}

/// Says whether a frame is meant.
pub type Matcher = Box<dyn Fn(&Frame) -> bool + Send + Sync>;

/// Something that was declared, and how often it was seen.
pub struct Declared {
    what: String,
    matches: Matcher,
    /// Frames that it allows; for a tally, which allows none, not used.
    at_most: u64,
    seen: AtomicU64,
}

impl Declared {
    /// Frames that fitted.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Takes a frame if it fits and isn't one too many.
    fn takes(&self, frame: &Frame) -> bool {
        // Only the judge calls this, under its lock.
        if self.seen() >= self.at_most || !(self.matches)(frame) {
            return false;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl fmt::Debug for Declared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at_most {
            u64::MAX => write!(out, "{} ({})", self.what, self.seen()),
            at_most => write!(out, "{} ({} of {at_most})", self.what, self.seen()),
        }
    }
}

/// Judges the frames of one interface.
pub struct Judge {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    expected: Vec<Arc<Declared>>,
    tallies: Vec<(Direction, Arc<Declared>)>,
    unexpected: Vec<String>,
    unexpected_count: u64,
}

impl Judge {
    /// A judge that expects nothing.
    pub fn new(name: &str) -> Judge {
        Judge {
            name: name.into(),
            state: Mutex::default(),
        }
    }

    /// Whom it judges.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allows frames that fit to arrive, `at_most` of them.
    pub fn expect(
        &self,
        what: impl Into<String>,
        at_most: u64,
        matches: impl Fn(&Frame) -> bool + Send + Sync + 'static,
    ) -> Arc<Declared> {
        let declared = declare(what.into(), at_most, Box::new(matches));
        self.lock().expected.push(declared.clone());
        declared
    }

    /// Allows what every station sees: ARP that asks for this address, or answers it.
    pub fn expect_own_arp(&self, own: Ipv4Addr) {
        self.expect(
            format!("ARP to {own}"),
            u64::MAX,
            move |frame| matches!(frame.content, Content::Arp { target, .. } if target == own),
        );
    }

    /// Allows what every station with IPv6 hears: of groups (RFC 3810), of routers, and neighbour discovery to one of
    /// its own addresses. Not solicitations to groups: those for known addresses are answered by the network.
    pub fn expect_discovery(&self, own: Option<Ipv6Addr>) {
        self.expect("MLD and router advertisements", u64::MAX, |frame| {
            frame
                .icmpv6()
                .is_some_and(|(_, _, kind)| kind == MLD_REPORT || kind == ROUTER_ADVERTISEMENT)
        });
        self.expect("neighbour discovery", u64::MAX, move |frame| {
            frame.icmpv6().is_some_and(|(_, destination, kind)| {
                let is_own = Some(destination) == own || destination.is_unicast_link_local();
                is_own && (kind == NEIGHBOUR_SOLICITATION || kind == NEIGHBOUR_ADVERTISEMENT)
            })
        });
    }

    /// Counts frames of one direction that fit, and allows none of them.
    pub fn tally(
        &self,
        direction: Direction,
        what: impl Into<String>,
        matches: impl Fn(&Frame) -> bool + Send + Sync + 'static,
    ) -> Arc<Declared> {
        let declared = declare(what.into(), u64::MAX, Box::new(matches));
        self.lock().tallies.push((direction, declared.clone()));
        declared
    }

    /// Looks at one frame.
    pub fn see(&self, direction: Direction, bytes: &[u8]) {
        let Some(frame) = Frame::parse(bytes) else {
            return;
        };
        let mut state = self.lock();
        for (_, tally) in state
            .tallies
            .iter()
            .filter(|(wanted, _)| *wanted == direction)
        {
            tally.takes(&frame);
        }
        // The newest declaration is the most likely one.
        if direction == Direction::Sent || state.expected.iter().rev().any(|one| one.takes(&frame))
        {
            return;
        }
        state.unexpected_count += 1;
        if state.unexpected.len() < DESCRIBED_MAX {
            let mut text = frame.to_string();
            if let Some(full) = state.expected.iter().find(|one| (one.matches)(&frame)) {
                text += &format!(" (one too many: {full:?})");
            }
            state.unexpected.push(text);
        }
    }

    /// Descriptions of the frames that nobody expected; empty if there were none.
    pub fn unexpected(&self) -> Vec<String> {
        let state = self.lock();
        let mut lines: Vec<String> = state
            .unexpected
            .iter()
            .map(|line| format!("{}: {line}", self.name))
            .collect();
        let more = state.unexpected_count - state.unexpected.len() as u64;
        if more > 0 {
            lines.push(format!("{}: and {more} more", self.name));
        }
        lines
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A matcher that panicked left counts that are still good enough to report.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn declare(what: String, at_most: u64, matches: Matcher) -> Arc<Declared> {
    Arc::new(Declared {
        what,
        matches,
        at_most,
        seen: AtomicU64::new(0),
    })
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Builder, Mac};
    use super::*;

    fn probe(label: &str) -> Vec<u8> {
        Builder {
            source: Mac([2; 6]),
            destination: Mac::BROADCAST,
        }
        .probe(label)
    }

    #[test]
    fn what_was_declared_passes_and_one_more_does_not() {
        let judge = Judge::new("web-1");
        let twice = judge.expect("two probes", 2, |frame| frame.is_probe("a"));
        judge.see(Direction::Received, &probe("a"));
        judge.see(Direction::Sent, &probe("b"));
        judge.see(Direction::Received, &probe("a"));
        assert_eq!((twice.seen(), judge.unexpected()), (2, Vec::new()));
        judge.see(Direction::Received, &probe("a"));
        judge.see(Direction::Received, &probe("b"));
        let lines = judge.unexpected();
        assert!(
            lines[0].contains("one too many: two probes (2 of 2)"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("web-1: ") && lines[1].ends_with("probe \"b\""),
            "{lines:?}"
        );
    }

    #[test]
    fn a_tally_counts_and_allows_nothing() {
        let judge = Judge::new("web-1");
        let sent = judge.tally(Direction::Sent, "sent", |_| true);
        let received = judge.tally(Direction::Received, "received", |_| true);
        judge.see(Direction::Sent, &probe("a"));
        judge.see(Direction::Received, &probe("a"));
        assert_eq!(
            (sent.seen(), received.seen(), judge.unexpected().len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_storm_is_counted_and_not_printed() {
        let judge = Judge::new("web-1");
        (0..100).for_each(|_| judge.see(Direction::Received, &probe("storm")));
        let lines = judge.unexpected();
        assert_eq!(lines.len(), DESCRIBED_MAX + 1);
        assert_eq!(lines[DESCRIBED_MAX], "web-1: and 88 more");
    }
}
