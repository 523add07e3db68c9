//! Whether packets as large as the way to a host should carry do come through, and if not, how large ones do.
//! Pure: time is passed in. All sizes are bytes of the outer IP packet.

use super::history::TIMEOUT_MS;

/// Between two checks of a size that is known to work, or not to.
const CHECK_EVERY_MS: u64 = 10_000;
/// Losses in a row, while small probes are answered, that mean "too large".
const LOSSES_MAX: u32 = 3;
/// The same in a search, which goes on to be checked.
const LOSSES_IN_SEARCH_MAX: u32 = 2;

/// A large probe that is under way.
struct Attempt {
    sequence: u64,
    size: u16,
    at_ms: u64,
}

/// See the module's text.
pub struct MtuSearch {
    /// What route and interface say.
    goal: u16,
    /// Smallest probe there is: it is known to come through while the host is up.
    least: u16,
    /// Largest size that came through.
    works: Option<u16>,
    /// Smallest size that didn't.
    fails: Option<u16>,
    attempt: Option<Attempt>,
    losses: u32,
    /// Whether the next check is of what works: it may have become less.
    checks_works: bool,
    next_ms: u64,
}

impl MtuSearch {
    /// Nothing is known. `least` is the size of the smallest probe.
    pub fn new(least: u16) -> MtuSearch {
        MtuSearch {
            goal: 0,
            least,
            works: None,
            fails: None,
            attempt: None,
            losses: 0,
            checks_works: false,
            next_ms: 0,
        }
    }

    /// The size to probe now, if any. `is_alive`: small probes are answered; else a loss says nothing about sizes.
    pub fn next(&mut self, now_ms: u64, goal: u16, is_alive: bool) -> Option<u16> {
        if goal != self.goal {
            *self = MtuSearch {
                goal,
                ..MtuSearch::new(self.least)
            };
        }
        if let Some(attempt) = &self.attempt {
            if now_ms.saturating_sub(attempt.at_ms) < TIMEOUT_MS {
                return None;
            }
            let size = attempt.size;
            self.attempt = None;
            if is_alive {
                self.lost(size, now_ms);
            }
        }
        if !is_alive || goal <= self.least {
            return None;
        }
        self.wanted(now_ms)
    }

    fn wanted(&self, now_ms: u64) -> Option<u16> {
        let low = self.works.unwrap_or(self.least);
        match self.fails {
            // A size in between, until the two meet.
            Some(fails) if fails - low > 1 => Some(low + (fails - low) / 2),
            // From time to time, whether it has become better or worse.
            _ if now_ms < self.next_ms => None,
            Some(_) if self.checks_works => Some(low),
            Some(fails) => Some(fails),
            None => Some(self.goal),
        }
    }

    fn lost(&mut self, size: u16, now_ms: u64) {
        self.losses += 1;
        let is_search = self.fails.is_some() && self.limit().is_none();
        let losses_max = if is_search {
            LOSSES_IN_SEARCH_MAX
        } else {
            LOSSES_MAX
        };
        if self.losses < losses_max {
            return;
        }
        self.losses = 0;
        if self.limit().is_some_and(|limit| size > limit) {
            // It still carries no more.
            self.checks_works = true;
            return;
        }
        self.fails = Some(size);
        if self.works.is_some_and(|works| works >= size) {
            self.works = None;
        }
        self.checks_works = false;
        if self.limit().is_some() {
            self.next_ms = now_ms + CHECK_EVERY_MS;
        }
    }

    /// A probe of that size goes out.
    pub fn sent(&mut self, sequence: u64, size: u16, now_ms: u64) {
        self.attempt = Some(Attempt {
            sequence,
            size,
            at_ms: now_ms,
        });
    }

    /// Its answer came. False when it is none of these.
    pub fn answered(&mut self, sequence: u64, now_ms: u64) -> bool {
        let Some(attempt) = self.attempt.take_if(|it| it.sequence == sequence) else {
            return false;
        };
        self.losses = 0;
        self.checks_works = false;
        self.works = Some(self.works.map_or(attempt.size, |it| it.max(attempt.size)));
        if self.fails.is_some_and(|fails| fails <= attempt.size) {
            self.fails = None;
            self.next_ms = now_ms;
        }
        if self.works == Some(self.goal) || self.limit().is_some() {
            self.next_ms = now_ms + CHECK_EVERY_MS;
        }
        true
    }

    /// Largest size that came through.
    pub fn works(&self) -> Option<u16> {
        self.works
    }

    /// What the way really carries, once that is known to be less than it should.
    pub fn limit(&self) -> Option<u16> {
        let low = self.works.unwrap_or(self.least);
        self.fails.filter(|fails| fails - low <= 1).map(|_| low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `secs` seconds of a way that carries `carried` bytes. Returns how many large probes went out.
    fn run(search: &mut MtuSearch, now_ms: &mut u64, secs: u64, carried: u16) -> u32 {
        let mut probes = 0;
        for _ in 0..secs {
            if let Some(size) = search.next(*now_ms, 1500, true) {
                probes += 1;
                search.sent(*now_ms, size, *now_ms);
                if size <= carried {
                    assert!(search.answered(*now_ms, *now_ms));
                }
            }
            *now_ms += 1000;
        }
        probes
    }

    #[test]
    fn a_way_that_carries_what_it_should_is_checked_now_and_then() {
        let (mut search, mut now) = (MtuSearch::new(98), 0);
        assert_eq!(run(&mut search, &mut now, 30, 1500), 3);
        assert_eq!((search.works(), search.limit()), (Some(1500), None));
    }

    #[test]
    fn the_size_that_does_come_through_is_found_exactly() {
        for carried in [98, 99, 576, 1280, 1458, 1498, 1499] {
            let (mut search, mut now) = (MtuSearch::new(98), 0);
            run(&mut search, &mut now, 90, carried);
            assert_eq!(search.limit(), Some(carried));
            // And it is told when the way has become as it should be again.
            run(&mut search, &mut now, 20, 1500);
            assert_eq!((search.works(), search.limit()), (Some(1500), None));
            // Or worse.
            run(&mut search, &mut now, 90, 700);
            assert_eq!(search.limit(), Some(700));
        }
    }

    #[test]
    fn a_way_that_becomes_narrower_still_is_found_out() {
        let (mut search, mut now) = (MtuSearch::new(98), 0);
        run(&mut search, &mut now, 90, 1400);
        assert_eq!(search.limit(), Some(1400));
        run(&mut search, &mut now, 200, 1300);
        assert_eq!(search.limit(), Some(1300));
    }

    #[test]
    fn losses_while_nothing_is_answered_say_nothing_about_sizes() {
        let mut search = MtuSearch::new(98);
        for second in 0..20 {
            let alive = second % 4 == 0;
            if let Some(size) = search.next(second * 1000, 1500, alive) {
                search.sent(second, size, second * 1000);
            }
        }
        for second in 20..60 {
            assert_eq!(search.next(second * 1000, 1500, false), None);
        }
        assert_eq!(search.limit(), None);
        assert!(!search.answered(999, 0));
    }

    #[test]
    fn another_goal_starts_anew() {
        let (mut search, mut now) = (MtuSearch::new(98), 0);
        run(&mut search, &mut now, 100, 1400);
        assert_eq!(search.next(now, 1600, true), Some(1600));
        assert_eq!((search.works(), search.limit()), (None, None));
    }
}
