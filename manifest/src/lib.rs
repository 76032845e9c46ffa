//! Parsing and checking of manifests, all faults at once.
//!
//! A manifest is YAML or JSON with `apiVersion: hypercode.dev/v1` and a `kind`. The types of this
//! crate are its checked form: a value of [`Crew`], [`Profile`] or [`Pool`] that came from a manifest obeys
//! every limit that is documented on its fields. Serialised it is the normalised manifest.

mod check;
mod crew;
mod decode;
mod fault;
mod manifest;
mod name;
mod nearest;
mod parse;
mod path;
mod plan;
mod pool;
mod profile;
mod schema;
mod source;
mod text;
mod tree;
mod units;
mod yaml;

pub use crew::{
    Backoff, Budget, Channel, ChannelKind, Crew, CrewSpec, Gym, Hibernate, Liveness, Member, OnBreach,
    OnExhausted, Restart, SandboxChoice, Strategy, Supervision,
};
pub use fault::{Code, Fault, Location, Severity};
pub use manifest::{ApiVersion, Kind, Manifest, Metadata};
pub use name::{Name, NameError};
pub use nearest::nearest;
pub use parse::{Parsed, parse};
pub use plan::{Edge, Matrix, Plan, PlannedMember, ProfileSummary, Total, plan, unknown_profile};
pub use pool::{Pool, PoolSize, PoolSpec, Queue, Refill, Standby, WhenEmpty};
pub use profile::{
    Handler, Model, Profile, ProfileSpec, Protocol, Resources, Response, Retry, RetryClass, Secret,
    SecretForm, SecretSource, Stdin, Stdout, ToolServer,
};
pub use schema::schema;
pub use source::Source;
pub use units::{Bytes, Cpu, Millis, Quantity, Rate, UnitError};
