//! Why a call of the API failed, in words that say what to look at.

use std::io;

use super::endpoint::Endpoint;
use crate::problem::Problem;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("cannot reach weftd at {endpoint}: {reason}\n  check: {check}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        reason: String,
        /// What to look at.
        check: String,
    },
    /// Connected, but no answer within the time for it.
    #[error("weftd at {endpoint} did not answer within {seconds} s")]
    Timeout {
        /// Where.
        endpoint: Endpoint,
        /// How long it was given.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection to weftd at {endpoint} broke: {reason}")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// How.
        reason: String,
    },
    /// weftd refused or failed, and says why.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// An answer that is none of ours.
    #[error(
        "what answers at {endpoint} doesn't speak this version's API: {reason}\n  \
         check: that it is weftd, and of the same version as this program"
    )]
    Answer {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The problem document, if weftd answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether the same call may succeed later, unchanged.
    pub fn is_temporary(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::Timeout { .. }
            | ClientError::Broken { .. } => true,
            ClientError::Problem(problem) => problem.status == 503,
            ClientError::Answer { .. } => false,
        }
    }

    pub(crate) fn connect(endpoint: &Endpoint, error: &io::Error) -> Self {
        let check = match (endpoint, error.kind()) {
            (Endpoint::Unix(_), io::ErrorKind::NotFound) => {
                "is weftd running on this host, and is this its `[api] unix`? (--endpoint or \
                 WEFT_ENDPOINT names another one)"
            }
            (Endpoint::Unix(_), io::ErrorKind::ConnectionRefused) => {
                "the socket is left from a weftd that no longer runs: start weftd"
            }
            (Endpoint::Unix(_), io::ErrorKind::PermissionDenied) => {
                "the socket belongs to the user that weftd runs as, usually root"
            }
            (Endpoint::Http(_), io::ErrorKind::ConnectionRefused) => {
                "is weftd running there, with this address as its `[api] listen`?"
            }
            (Endpoint::Http(_), _) => "the name, the route to it, and firewalls in between",
            (Endpoint::Unix(_), _) => "the path of the socket: weftd's `[api] unix`",
        };
        ClientError::Connect {
            endpoint: endpoint.clone(),
            reason: plain(error),
            check: check.into(),
        }
    }

    pub(crate) fn broken(endpoint: &Endpoint, error: impl std::fmt::Display) -> Self {
        ClientError::Broken {
            endpoint: endpoint.clone(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn answer(endpoint: &Endpoint, reason: impl Into<String>) -> Self {
        ClientError::Answer {
            endpoint: endpoint.clone(),
            reason: reason.into(),
        }
    }
}

/// The system's words, without "(os error 2)" behind them.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
