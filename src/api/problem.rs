//! Problem details (RFC 9457): the one form of every error.

use std::time::Duration;

use events::Position;
use events::api::{Problem, ProblemKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of problem details.
pub const MEDIA_TYPE: &str = "application/problem+json";

const TYPE: &str = "urn:hypercode:problem:";

/// A problem on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// `urn:hypercode:problem:<kind>`.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The class of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, where, and what to do.
    pub detail: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Single faults, each with a `message` and, where there is one, its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Value>,
    /// The position of the event that records the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

impl Details {
    fn new(problem: Problem, status: u16) -> Self {
        let kind = problem.kind;
        Self {
            problem_type: format!("{TYPE}{}", kind.as_str()),
            title: title(kind).to_owned(),
            status,
            detail: problem.detail,
            retryable: kind.is_retryable(),
            faults: problem.faults,
            position: problem.position.map(|position| position.0),
        }
    }
}

impl From<Problem> for Details {
    fn from(problem: Problem) -> Self {
        let status = problem.kind.status();
        Self::new(problem, status)
    }
}

impl From<Details> for Problem {
    fn from(details: Details) -> Self {
        let name = details.problem_type.strip_prefix(TYPE).unwrap_or_default();
        let kind = serde_json::from_value(Value::from(name)).unwrap_or(ProblemKind::Internal);
        let position = details.position.map(Position);
        Self { kind, detail: details.detail, faults: details.faults, position }
    }
}

fn title(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Invalid => "The request is not valid",
        ProblemKind::Unauthenticated => "It is not known who asks",
        ProblemKind::Denied => "This is not allowed",
        ProblemKind::NotFound => "It does not exist",
        ProblemKind::Conflict => "It is not in a state in which this can be done",
        ProblemKind::KeyConflict => "The idempotency key was used for something else",
        ProblemKind::Busy => "Too much at once",
        ProblemKind::Unavailable => "Something that is needed cannot be reached",
        ProblemKind::Timeout => "The wait ran out",
        ProblemKind::Failed => "It was tried and failed",
        ProblemKind::Internal => "A fault of the platform",
    }
}

/// A problem as an answer. Some refusals are known more closely than [`ProblemKind`] does: these have a status of
/// their own, which is HTTP's at every door.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Box<Problem>,
    status: u16,
}

impl Refusal {
    /// A refusal that HTTP has a status of its own for.
    pub(crate) fn with_status(status: u16, problem: Problem) -> Self {
        Self { problem: Box::new(problem), status }
    }

    /// What is wrong.
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// A request that is malformed.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(ProblemKind::Invalid, detail).into()
    }

    /// A body of more than `most` bytes.
    pub(crate) fn too_large(most: u64) -> Self {
        let detail = format!("the body has more than {most} bytes");
        Self::with_status(413, Problem::new(ProblemKind::Invalid, detail))
    }

    /// Its class.
    pub(crate) fn kind(&self) -> ProblemKind {
        self.problem.kind
    }

    /// Its status, as HTTP has it.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// As it goes over the wire.
    pub(crate) fn details(self) -> Details {
        Details::new(*self.problem, self.status)
    }
}

/// An answer that took longer than it may.
pub(crate) fn late(limit: Duration) -> Refusal {
    let detail = format!(
        "the answer took longer than {} ms; what was begun goes on: ask for its state, or repeat the request with its `Idempotency-Key`",
        limit.as_millis()
    );
    Problem::new(ProblemKind::Timeout, detail).into()
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::with_status(problem.kind.status(), problem)
    }
}

impl From<events::store::ReadError> for Refusal {
    fn from(error: events::store::ReadError) -> Self {
        Problem::from(error).into()
    }
}
