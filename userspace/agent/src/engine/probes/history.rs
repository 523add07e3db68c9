//! What the last probes to one host say: up, degraded or down, since when, round trips, loss. Pure: time is passed in.

use std::collections::VecDeque;
use weft_api::HostState;

/// Probes that are looked at: about a minute's.
pub const WINDOW: usize = 60;
/// A probe without an answer after that time counts as lost; its answer may still come.
pub const TIMEOUT_MS: u64 = 2000;
/// Probes in a row without an answer that mean "down".
const DOWN_AFTER: usize = 3;
/// Loss that means "degraded", of so many probes at least, and when it isn't a single one that was lost.
const DEGRADED_LOSS_PERCENT: u32 = 10;
const DEGRADED_PROBES_MIN: u32 = 10;
const DEGRADED_LOST_MIN: u32 = 2;

/// A probe that was sent.
struct Sent {
    sequence: u64,
    at_ms: u64,
    rtt_us: Option<u64>,
    /// Whether it says anything of now. Its answer may still come, and is no stranger's then.
    counts: bool,
}

/// See the module's text.
pub struct History {
    sent: VecDeque<Sent>,
    state: HostState,
    since_ms: u64,
}

/// Figures of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Probes that were answered or are lost.
    pub probes: u32,
    /// Those that are lost.
    pub lost: u32,
    /// Smallest round trip in microseconds.
    pub rtt_min_us: Option<u64>,
    /// Mean round trip.
    pub rtt_avg_us: Option<u64>,
    /// Last round trip.
    pub rtt_last_us: Option<u64>,
}

impl Summary {
    /// Loss in percent, rounded down.
    pub fn loss_percent(&self) -> u32 {
        (self.lost * 100).checked_div(self.probes).unwrap_or(0)
    }

    fn is_lossy(&self) -> bool {
        self.probes >= DEGRADED_PROBES_MIN
            && self.lost >= DEGRADED_LOST_MIN
            && self.loss_percent() >= DEGRADED_LOSS_PERCENT
    }
}

impl History {
    /// No probe yet.
    pub fn new(now_ms: u64) -> History {
        History {
            sent: VecDeque::new(),
            state: HostState::Unknown,
            since_ms: now_ms,
        }
    }

    /// The state at the last [`History::judge`].
    pub fn state(&self) -> HostState {
        self.state
    }

    /// Since when it is so. Of a host that is down: when the first probe went unanswered.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// A probe goes out, or would if there were a way.
    pub fn sent(&mut self, sequence: u64, now_ms: u64) {
        if self.sent.len() == WINDOW {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            sequence,
            at_ms: now_ms,
            rtt_us: None,
            counts: true,
        });
    }

    /// Its answer came. False when no such probe is known.
    pub fn answered(&mut self, sequence: u64, rtt_us: u64) -> bool {
        let sent = self.sent.iter_mut().find(|it| it.sequence == sequence);
        sent.map(|sent| sent.rtt_us = Some(rtt_us)).is_some()
    }

    /// Whether the newest probe that must have been answered by now was.
    pub fn is_alive(&self, now_ms: u64) -> bool {
        let newest = self.due(now_ms).next_back();
        newest.is_some_and(|sent| sent.rtt_us.is_some())
    }

    /// Comes to a new state; returns it when it is another one. `is_narrow`: large probes don't come through.
    pub fn judge(&mut self, now_ms: u64, is_narrow: bool) -> Option<HostState> {
        if self.state == HostState::Unknown {
            self.forget_the_beginning();
        }
        let unanswered = self.due(now_ms).rev();
        let unanswered = unanswered.take_while(|sent| sent.rtt_us.is_none());
        let first_lost = unanswered.enumerate().last();
        let first_lost = first_lost.map(|(index, sent)| (index + 1, sent.at_ms));
        let summary = self.summary(now_ms);
        let (state, since_ms) = match first_lost {
            Some((lost, at_ms)) if lost >= DOWN_AFTER => (HostState::Down, at_ms),
            _ if summary.probes == summary.lost => (HostState::Unknown, now_ms),
            _ if self.state == HostState::Down => {
                // The loss of the time when it was down says nothing of now.
                let since_ms = self.since_ms;
                self.sent.retain(|it| {
                    it.at_ms >= since_ms && (it.rtt_us.is_some() || !is_late(it, now_ms))
                });
                (HostState::Up, now_ms)
            }
            _ if is_narrow || summary.is_lossy() => (HostState::Degraded, now_ms),
            _ => (HostState::Up, now_ms),
        };
        if state == self.state {
            return None;
        }
        self.state = state;
        self.since_ms = since_ms;
        Some(state)
    }

    /// Probes before the first that was answered say nothing of now: the way to the host was still being resolved, or
    /// the host itself was just starting.
    fn forget_the_beginning(&mut self) {
        let is_answered = |sent: &Sent| sent.rtt_us.is_some();
        if let Some(first) = self.sent.iter().position(is_answered) {
            let before = self.sent.iter_mut().take(first);
            before.for_each(|sent| sent.counts = false);
        }
    }

    /// Figures over the probes that are answered or lost by now.
    pub fn summary(&self, now_ms: u64) -> Summary {
        let mut summary = Summary::default();
        let mut sum = 0;
        for sent in self.due(now_ms) {
            summary.probes += 1;
            let Some(rtt) = sent.rtt_us else {
                summary.lost += 1;
                continue;
            };
            sum += rtt;
            summary.rtt_min_us = Some(summary.rtt_min_us.map_or(rtt, |least| least.min(rtt)));
            summary.rtt_last_us = Some(rtt);
        }
        let answered = u64::from(summary.probes - summary.lost);
        summary.rtt_avg_us = sum.checked_div(answered);
        summary
    }

    fn due(&self, now_ms: u64) -> impl DoubleEndedIterator<Item = &Sent> {
        let is_due =
            move |sent: &&Sent| sent.counts && (sent.rtt_us.is_some() || is_late(sent, now_ms));
        self.sent.iter().filter(is_due)
    }
}

fn is_late(sent: &Sent, now_ms: u64) -> bool {
    now_ms.saturating_sub(sent.at_ms) >= TIMEOUT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a probe a second from second `from` on; those of `answered` are.
    fn history(answered: &[bool]) -> (History, u64) {
        let mut history = History::new(0);
        for (second, answered) in answered.iter().enumerate() {
            let now = second as u64 * 1000;
            history.sent(second as u64, now);
            if *answered {
                assert!(history.answered(second as u64, 100 + second as u64));
            }
            history.judge(now, false);
        }
        (history, answered.len() as u64 * 1000)
    }

    #[test]
    fn a_host_is_up_when_it_answers_and_down_after_three_losses() {
        let (mut history, mut now) = history(&[true, true]);
        assert_eq!((history.state(), history.since_ms()), (HostState::Up, 0));
        for sequence in 2..7 {
            history.sent(sequence, now);
            history.judge(now, false);
            now += 1000;
        }
        // The probes of seconds 2, 3 and 4 are due, those of 5 and 6 may still be answered.
        assert_eq!(history.state(), HostState::Down);
        assert_eq!(history.since_ms(), 2000);
        assert_eq!(history.judge(now, false), None);
        assert!(history.answered(6, 50));
        assert_eq!(history.judge(now, false), Some(HostState::Up));
        assert_eq!(history.since_ms(), now);
        // Before it was down is past: the window starts anew.
        assert_eq!(history.summary(now).probes, 1);
        assert_eq!(history.judge(now, false), None);
    }

    #[test]
    fn nothing_is_known_before_the_first_answer_or_three_losses() {
        let (history, _) = history(&[false, false, false]);
        assert_eq!(history.state(), HostState::Unknown);
    }

    #[test]
    fn losses_before_the_first_answer_do_not_count() {
        let (mut history, mut now) = history(&[false, false, true]);
        for sequence in 3..5 {
            history.sent(sequence, now);
            history.answered(sequence, 100);
            now += 1000;
            history.judge(now, false);
        }
        let summary = history.summary(now);
        assert_eq!((summary.probes, summary.lost), (3, 0));
        assert_eq!(history.state(), HostState::Up);
        assert!(history.answered(0, 4_000_000), "it was asked for");
    }

    #[test]
    fn a_few_probes_do_not_make_a_degraded_host() {
        for (answered, state) in [
            (&[true, false, true, false, true, true][..], HostState::Up),
            (&[&[true, false][..], &[true; 8]].concat(), HostState::Up),
            (
                &[&[true, false, false][..], &[true; 8]].concat(),
                HostState::Degraded,
            ),
        ] {
            let (mut history, now) = history(answered);
            history.judge(now + TIMEOUT_MS, false);
            assert_eq!(history.state(), state, "{answered:?}");
        }
    }

    #[test]
    fn loss_and_round_trips_are_of_the_window() {
        let mut answered = vec![true; 20];
        answered[3] = false;
        answered[4] = false;
        let (mut history, now) = history(&answered);
        let summary = history.summary(now);
        assert_eq!((summary.probes, summary.lost), (20, 2));
        assert_eq!(summary.rtt_min_us, Some(100));
        assert_eq!(summary.rtt_last_us, Some(119));
        assert_eq!(history.state(), HostState::Degraded);
        // A late answer is an answer.
        assert!(history.answered(3, 3_000_000));
        assert_eq!(history.summary(now).lost, 1);
        assert_eq!(history.judge(now, false), Some(HostState::Up));
        for sequence in 20..20 + WINDOW as u64 {
            history.sent(sequence, sequence * 1000);
            history.answered(sequence, 10);
        }
        let later = history.summary(1_000_000);
        assert_eq!((later.probes, later.lost), (WINDOW as u32, 0));
        assert!(!history.answered(0, 1), "a probe out of the window");
    }

    #[test]
    fn a_way_that_loses_large_packets_is_degraded() {
        let (mut history, now) = history(&[true, true, true]);
        assert_eq!(history.judge(now, true), Some(HostState::Degraded));
        assert_eq!(history.judge(now, false), Some(HostState::Up));
    }
}
