//! When weftd started lately, and how it ended: an agent that can't stay up says so, and why, while it is up.
//!
//! One small file beside what else weftd remembers. A file that can't be read or written counts as none: it is for
//! people, and nothing depends on it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Starts that are remembered.
const STARTS_MAX: usize = 16;
/// So many starts within [`WINDOW_SECS`] are too many.
const STARTS_TOO_MANY: usize = 3;
/// Seconds.
const WINDOW_SECS: u64 = 60;
/// An agent that stayed up for so long is over it.
const OVER_IT: Duration = Duration::from_secs(300);
/// What stands for an end that nobody wrote down.
const NO_WORD: &str = "without a word: it was killed, or crashed";

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Seconds since 1970, oldest first.
    starts: Vec<u64>,
    /// How the last run ended; none while it lasts, and if it ended without a word.
    end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// It was asked to.
    Asked,
    /// By itself, because of this.
    Failed(String),
}

/// This run among the earlier ones.
pub struct Runs {
    path: PathBuf,
    record: Record,
    started: Instant,
    problem: Option<String>,
}

impl Runs {
    /// Notes that a run starts.
    pub fn start(folder: &Path, host: &str) -> Runs {
        let path = folder.join(format!("{host}.runs.json"));
        let text = std::fs::read(&path).unwrap_or_default();
        let mut record: Record = serde_json::from_slice(&text).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let problem = record.next(now.unwrap_or_default().as_secs());
        if let Some(problem) = &problem {
            tracing::warn!(problem, "weftd doesn't stay up");
        }
        let runs = Runs {
            path,
            record,
            started: Instant::now(),
            problem,
        };
        runs.save();
        runs
    }

    /// What is wrong with the last runs, for as long as this one isn't old.
    pub fn problem(&self) -> Option<&str> {
        let problem = self.problem.as_deref();
        problem.filter(|_| self.started.elapsed() < OVER_IT)
    }

    /// Notes how the run ends.
    pub fn end(mut self, result: &anyhow::Result<()>) {
        self.record.end = Some(match result {
            Ok(()) => End::Asked,
            Err(error) => End::Failed(format!("{error:#}")),
        });
        self.save();
    }

    fn save(&self) {
        let written = self.path.parent().map(std::fs::create_dir_all);
        let text = serde_json::to_vec(&self.record).unwrap_or_default();
        if let Err(error) = written
            .unwrap_or(Ok(()))
            .and_then(|()| std::fs::write(&self.path, text))
        {
            tracing::debug!(%error, path = %self.path.display(), "this run isn't noted");
        }
    }
}

impl Record {
    /// Adds a start. Says what is wrong, if the runs before didn't last.
    fn next(&mut self, now_secs: u64) -> Option<String> {
        let last = match self.end.take() {
            Some(End::Asked) => None,
            Some(End::Failed(why)) => Some(why),
            None => (!self.starts.is_empty()).then(|| NO_WORD.to_owned()),
        };
        self.starts.push(now_secs);
        let superfluous = self.starts.len().saturating_sub(STARTS_MAX);
        self.starts.drain(..superfluous);
        let is_recent = |start: &&u64| now_secs.abs_diff(**start) <= WINDOW_SECS;
        let recent = self.starts.iter().filter(is_recent).count();
        let last = last.filter(|_| recent >= STARTS_TOO_MANY)?;
        Some(format!(
            "weftd started {recent} times within {WINDOW_SECS} s; the last time it ended {last}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_do_not_last_are_a_problem() {
        let mut record = Record::default();
        assert_eq!((record.next(100), record.next(110)), (None, None));
        let problem = record.next(120).unwrap();
        assert!(
            problem.contains("3 times") && problem.ends_with(NO_WORD),
            "{problem}"
        );
        record.end = Some(End::Failed("because of X".into()));
        assert!(record.next(130).unwrap().ends_with("because of X"));
        // An operator may restart it as often as they like.
        record.end = Some(End::Asked);
        assert_eq!(record.next(131), None);
        assert_eq!(record.next(300), None, "long after");
        for second in 0..100 {
            record.next(400 + second);
        }
        assert_eq!(record.starts.len(), STARTS_MAX);
    }
}
