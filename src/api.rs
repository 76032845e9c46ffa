//! The command API as every door offers it: HTTP and NATS take requests apart and put answers together, and all that
//! lies between is here.
//!
//! [`OPERATIONS`] is the one table of commands. An operation reads its fields from a JSON object, whichever way they
//! came in: over NATS they all stand in the body, over HTTP some stand in the path. So both doors have the same
//! validation, permission, idempotency, bounds and errors.

mod access;
mod answer;
mod artifacts;
mod bodies;
mod caller;
mod crews;
mod denials;
mod input;
mod keys;
mod kill;
mod manifests;
mod operation;
mod problem;
mod rates;
mod reach;
mod secrets;
mod service;
mod token;

pub(crate) use answer::Done;
pub(crate) use caller::{Headers, TENANT};
pub(crate) use crews::crew_id;
pub(crate) use input::{Request, event_kind, fields, is_json, media_type, object, parse, unsupported};
pub(crate) use manifests::{Source, crew_and_profiles, read};
pub(crate) use operation::{OPERATIONS, Operation, Pace, SchemaOf, schema_of};
pub use problem::{Details, MEDIA_TYPE as PROBLEM_MEDIA_TYPE};
pub(crate) use problem::{Refusal, late};
pub(crate) use rates::Rates;
pub(crate) use service::Admitted;
pub use service::{Limits, Service};
pub use token::{Token, TokenError};
