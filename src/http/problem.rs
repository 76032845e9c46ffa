//! Problem details (RFC 9457): the one form of every error.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
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
    fn new(problem: Problem, status: StatusCode) -> Self {
        let kind = problem.kind;
        Self {
            problem_type: format!("{TYPE}{}", kind.as_str()),
            title: title(kind).to_owned(),
            status: status.as_u16(),
            detail: problem.detail,
            retryable: kind.is_retryable(),
            faults: problem.faults,
            position: problem.position.map(|position| position.0),
        }
    }
}

impl From<Problem> for Details {
    fn from(problem: Problem) -> Self {
        let status = status(problem.kind);
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

fn status(kind: ProblemKind) -> StatusCode {
    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
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

/// A problem as an answer. HTTP knows some refusals more closely than [`ProblemKind`] does: these have a status of
/// their own.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Box<Problem>,
    status: StatusCode,
}

impl Refusal {
    /// A refusal that HTTP has a status of its own for.
    pub(crate) fn with_status(status: StatusCode, problem: Problem) -> Self {
        Self { problem: Box::new(problem), status }
    }

    /// A request that is malformed.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(ProblemKind::Invalid, detail).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::with_status(status(problem.kind), problem)
    }
}

impl From<events::store::ReadError> for Refusal {
    fn from(error: events::store::ReadError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = self.problem.kind;
        let mut response = (self.status, Json(Details::new(*self.problem, self.status))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if kind == ProblemKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if kind.is_retryable() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
