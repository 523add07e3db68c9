//! What can go wrong between agent and kernel, with what was being done.

use std::io;

/// Why the datapath refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a program or the object is damaged.
    #[error("{what}: {detail}")]
    Program {
        /// What was being done.
        what: String,
        /// The chain of causes.
        detail: String,
    },
    /// A map refused.
    #[error("map {map}: {detail}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// The chain of causes.
        detail: String,
    },
    /// Another agent uses the folder of pins.
    #[error("{0} is in use by another weftd: each needs a [bpf] pin of its own")]
    PinInUse(String),
    /// The interface doesn't exist.
    #[error("interface {0} doesn't exist")]
    NoInterface(String),
    /// A table is full.
    #[error("{what} are full: all {limit} are in use")]
    Full {
        /// Which table, in plural.
        what: &'static str,
        /// Its bound.
        limit: u64,
    },
    /// The kernel is too old.
    #[error("this kernel is Linux {found}; weftd needs Linux {needed} or later")]
    OldKernel {
        /// The running kernel's release.
        found: String,
        /// The oldest that will do.
        needed: String,
    },
}

impl Error {
    /// A system call failed while `what` was being done.
    pub fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Io {
            what: what.into(),
            source: source.into(),
        }
    }

    /// aya failed while `what` was being done; its whole chain of causes is kept.
    pub fn program(what: impl Into<String>, source: &dyn std::error::Error) -> Error {
        Error::Program {
            what: what.into(),
            detail: chain(source),
        }
    }

    /// A map operation failed.
    pub fn map(map: &'static str, source: &dyn std::error::Error) -> Error {
        Error::Map {
            map,
            detail: chain(source),
        }
    }
}

/// An error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
