//! What a simulation tells while it goes: one step a decision, for `weft trace`.
//!
//! No state but what a sink keeps. Written by the walk and the devices, read by the API.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One decision on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who decided: `bridge web`, `router core`, `port web/web-1`.
    pub device: String,
    /// What, and because of what.
    pub text: String,
}

/// Where steps go. A step is only made when somebody listens.
pub trait TraceSink {
    /// Takes the next step.
    fn step(&mut self, step: impl FnOnce() -> Step);
}

/// Nobody listens: the packet path.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl TraceSink for NoTrace {
    fn step(&mut self, _step: impl FnOnce() -> Step) {}
}

impl TraceSink for Vec<Step> {
    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.push(step());
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.device, self.text)
    }
}
