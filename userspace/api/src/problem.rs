//! Errors of the API: RFC 9457 problem documents, each field error with a JSON pointer (RFC 6901)
//! into the request's body.

use std::fmt;

use serde::{Deserialize, Serialize};
use weft_vnet::{Invalid, Operation};

/// Media type of a problem document.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// An error, as the API answers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of [`kind`].
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The same in words.
    #[serde(default)]
    pub title: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong in this very case.
    #[serde(default)]
    pub detail: String,
    /// Fields of the request that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The topology's revision, where another one was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The one that was expected then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// One wrong field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer into the request's body: "/operations/3/put/addresses/0".
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// The kinds of problems: values of a problem's `type`.
pub mod kind {
    /// The request can't be read.
    pub const MALFORMED: &str = "urn:weft:problem:malformed";
    /// Operations that contradict the topology or themselves.
    pub const INVALID: &str = "urn:weft:problem:invalid";
    /// The topology is at another revision than `If-Match` says.
    pub const REVISION_CONFLICT: &str = "urn:weft:problem:revision-conflict";
    /// There is no such thing.
    pub const NOT_FOUND: &str = "urn:weft:problem:not-found";
    /// The bearer token is missing or wrong.
    pub const UNAUTHORIZED: &str = "urn:weft:problem:unauthorized";
    /// What the answer needs can't be reached now.
    pub const UNAVAILABLE: &str = "urn:weft:problem:unavailable";
    /// A mistake of ours.
    pub const INTERNAL: &str = "urn:weft:problem:internal";
}

impl Problem {
    fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Problem {
            kind: kind.into(),
            title: title.into(),
            status,
            detail: detail.into(),
            ..Problem::default()
        }
    }

    /// 400: the request can't be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Problem::new(400, kind::MALFORMED, "the request can't be read", detail)
    }

    /// 401: the bearer token is missing or wrong.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new(401, kind::UNAUTHORIZED, "not authorized", detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(404, kind::NOT_FOUND, "not found", detail)
    }

    /// 412: the topology is at another revision than expected.
    pub fn revision_conflict(expected: u64, actual: u64) -> Self {
        let detail = format!("expected revision {expected}, the topology is at {actual}");
        let title = "the topology changed in between";
        let problem = Problem::new(412, kind::REVISION_CONFLICT, title, detail);
        Problem {
            revision: Some(actual),
            expected_revision: Some(expected),
            ..problem
        }
    }

    /// 422: what the model refuses of a transaction, with pointers into its body.
    pub fn invalid_transaction(operations: &[Operation], invalid: &[Invalid]) -> Self {
        Problem::invalid(invalid, |invalid| match operations.get(invalid.operation) {
            Some(Operation::Delete { .. }) => format!("/operations/{}/delete", invalid.operation),
            Some(Operation::Members { .. }) => {
                format!(
                    "/operations/{}/members{}",
                    invalid.operation, invalid.pointer
                )
            }
            _ => format!("/operations/{}/put{}", invalid.operation, invalid.pointer),
        })
    }

    /// 422: what the model refuses of a single object, with pointers into it.
    pub fn invalid_object(invalid: &[Invalid]) -> Self {
        Problem::invalid(invalid, |invalid| invalid.pointer.clone())
    }

    fn invalid(invalid: &[Invalid], pointer: impl Fn(&Invalid) -> String) -> Self {
        let errors: Vec<FieldError> = invalid
            .iter()
            .map(|invalid| FieldError {
                pointer: pointer(invalid),
                detail: invalid.message.clone(),
            })
            .collect();
        let detail = match errors.as_slice() {
            [one] => one.detail.clone(),
            many => format!("{} errors, nothing was changed", many.len()),
        };
        let problem = Problem::new(422, kind::INVALID, "the change is refused", detail);
        Problem { errors, ..problem }
    }

    /// 503: what the answer needs can't be reached now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Problem::new(503, kind::UNAVAILABLE, "not available now", detail)
    }

    /// 500: a mistake of ours.
    pub fn internal(detail: impl Into<String>) -> Self {
        Problem::new(500, kind::INTERNAL, "internal error", detail)
    }

    /// Whether the topology was at another revision than expected.
    pub fn is_revision_conflict(&self) -> bool {
        self.kind == kind::REVISION_CONFLICT
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)?;
        let told = |error: &FieldError| error.detail == self.detail;
        for error in self.errors.iter().filter(|error| !told(error)) {
            write!(f, "\n  {}: {}", error.pointer, error.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
