//! When a measurement counts: after its warm-up, for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long a measurement warms up, and how long it counts.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Load that isn't counted.
    pub warm_up: Duration,
    /// Load that is.
    pub time: Duration,
}

/// The time in which one measurement counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Its begin.
    pub from: Instant,
    /// Its end, and the load's.
    pub until: Instant,
}

impl Timing {
    /// The window of a load that begins now.
    pub fn begin(self) -> Window {
        let from = Instant::now() + self.warm_up;
        Window {
            from,
            until: from + self.time,
        }
    }
}

impl Window {
    /// Whether something that began and ended then counts.
    pub fn holds(&self, begin: Instant, end: Instant) -> bool {
        self.from <= begin && end <= self.until
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.until - self.from).as_secs_f64()
    }

    /// Reads a counter at begin and end; what it grew by in a second.
    pub fn rate_of(&self, mut counter: impl FnMut() -> Result<u64>) -> Result<f64> {
        let mut read_at = |at: Instant| -> Result<(Instant, u64)> {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            // On a busy machine the thread wakes late; the time that counts is when it reads.
            Ok((Instant::now(), counter()?))
        };
        let (begin, before) = read_at(self.from)?;
        let (end, after) = read_at(self.until)?;
        Ok(after.saturating_sub(before) as f64 / (end - begin).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_in_the_warm_up_or_ends_late_does_not_count() {
        let window = Timing {
            warm_up: Duration::from_secs(1),
            time: Duration::from_secs(2),
        }
        .begin();
        let at = |tenths: u32| {
            window.from - Duration::from_secs(1) + Duration::from_millis(100) * tenths
        };
        assert!(window.holds(at(10), at(30)));
        assert!(!window.holds(at(9), at(11)));
        assert!(!window.holds(at(29), at(31)));
        assert_eq!(window.seconds(), 2.0);
    }
}
