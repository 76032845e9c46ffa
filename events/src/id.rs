//! Typed identifiers and positions. None of them is ever passed as a bare string or number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The namespace of every UUIDv5 that the platform derives (RFC 9562 §5.5).
pub const NAMESPACE: Uuid = Uuid::from_u128(0x6f0c_1c5e_8a53_5d5b_9a43_0e7b_5f0a_c0de);

/// Longest identifier that the platform accepts from outside, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// A text is not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "identifier `{found}` is not valid: expected 1 to {ID_BYTES_MAX} characters of a-z, A-Z, 0-9, `.`, `_`, `-`"
)]
pub struct InvalidId {
    /// The text as it was found, cut to [`ID_BYTES_MAX`] characters.
    pub found: String,
}

fn check(text: &str) -> Result<(), InvalidId> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > ID_BYTES_MAX || !text.chars().all(legal) {
        return Err(InvalidId { found: text.chars().take(ID_BYTES_MAX).collect() });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> { check(text).map(|()| Self(text.into())) }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> { text.parse() }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self { id.0.as_ref().to_owned() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    };
}

text_id!(
    /// A tenant: the outermost wall between users.
    Tenant
);
text_id!(
    /// A crew: `cr_` and 32 hex digits.
    CrewId
);
text_id!(
    /// An agent: `ag_` and 32 hex digits; stays the same across incarnations.
    AgentId
);
text_id!(
    /// A task: `tk_` and 32 hex digits.
    TaskId
);
text_id!(
    /// A warm pool: `pl_` and 32 hex digits, derived from its tenant and name.
    PoolId
);
text_id!(
    /// A sandbox: `sb-` and 32 hex digits, so that it is a file name and a label; never used twice.
    SandboxId
);

text_id!(
    /// The key of a data subject: `k_` and 32 random hex digits.
    KeyId
);

impl KeyId {
    /// The id of a key that is new.
    pub fn fresh() -> Self {
        Self(format!("k_{}", Uuid::new_v4().simple()).into())
    }
}

/// Derives the hex part of an id from what makes it unique, so that a repeated command makes the same id.
fn derived(parts: &[&str]) -> String {
    let mut name = Vec::with_capacity(128);
    for part in parts {
        name.extend_from_slice(&(part.len() as u32).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).simple().to_string()
}

macro_rules! prefixed_id {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// The id that these parts always lead to (UUIDv5 over the length-prefixed parts).
            pub fn derive(parts: &[&str]) -> Self {
                Self(format!(concat!($prefix, "{}"), derived(parts)).into())
            }
        }
    };
}
prefixed_id!(CrewId, "cr_");
prefixed_id!(AgentId, "ag_");
prefixed_id!(TaskId, "tk_");
prefixed_id!(SandboxId, "sb-");
prefixed_id!(PoolId, "pl_");

impl PoolId {
    /// The tenant's pool of this name.
    pub fn of(tenant: &Tenant, name: &str) -> Self {
        Self::derive(&["pool", tenant.as_str(), name])
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self { Self(self.0 + 1) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

number!(
    /// An event's place in the whole log: 1, 2, 3 …; 0 is "before the first".
    Position
);
number!(
    /// An event's place in its stream: 1, 2, 3 …; 0 is "no event yet".
    Version
);
number!(
    /// One life of an agent: 1, 2, 3 …; 0 is "never started".
    Incarnation
);

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock's time.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
    /// Whole milliseconds since the Unix epoch.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }
    /// This moment and `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000)))
    }
    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        u64::try_from((self.0 - earlier.0) / 1_000).unwrap_or(0)
    }
    /// RFC 3339 in UTC with microseconds: `2026-11-22T21:23:46.000000Z`.
    pub fn rfc3339(self) -> String {
        use time::macros::format_description;
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .ok()
            .and_then(|t| t.format(&format).ok())
            .unwrap_or_else(|| format!("{}us", self.0))
    }
    /// Reads RFC 3339 with any offset.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let t = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(t.unix_timestamp_nanos() / 1_000).ok().map(Self)
    }
}

/// What a stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A profile and its versions.
    Profile,
    /// A crew.
    Crew,
    /// An agent.
    Agent,
    /// A task.
    Task,
    /// A warm pool.
    Pool,
    /// The messages that one incarnation of an agent sent; folded by no entity.
    Outbox,
    /// The messages' acknowledgements of one incarnation; folded by no entity.
    Inbox,
    /// Key-value state of an agent, a context or a crew.
    State,
    /// The platform itself: starts, denials, administrative acts.
    Platform,
}

impl EntityKind {
    /// Every kind, in a stable order.
    pub const ALL: [Self; 9] = [
        Self::Profile,
        Self::Crew,
        Self::Agent,
        Self::Task,
        Self::Pool,
        Self::Outbox,
        Self::Inbox,
        Self::State,
        Self::Platform,
    ];

    /// The kind's name, as in a stream id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Crew => "crew",
            Self::Agent => "agent",
            Self::Task => "task",
            Self::Pool => "pool",
            Self::Outbox => "outbox",
            Self::Inbox => "inbox",
            Self::State => "state",
            Self::Platform => "platform",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntityKind {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::ALL.into_iter().find(|k| k.as_str() == text).ok_or_else(|| InvalidId { found: text.to_owned() })
    }
}

/// A stream's name: `<kind>/<id>`, where the id may have parts of its own (`outbox/<agent>/<incarnation>`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamId {
    /// What the stream is about.
    pub kind: EntityKind,
    /// Which one.
    pub id: std::sync::Arc<str>,
}

impl StreamId {
    /// The stream of the entity `id`.
    pub fn new(kind: EntityKind, id: impl AsRef<str>) -> Self {
        Self { kind, id: id.as_ref().into() }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.id)
    }
}

impl FromStr for StreamId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (kind, id) = text.split_once('/').ok_or_else(|| InvalidId { found: text.to_owned() })?;
        if id.is_empty() || id.len() > 3 * ID_BYTES_MAX {
            return Err(InvalidId { found: text.chars().take(ID_BYTES_MAX).collect() });
        }
        Ok(Self { kind: kind.parse()?, id: id.into() })
    }
}

impl TryFrom<String> for StreamId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<StreamId> for String {
    fn from(id: StreamId) -> Self {
        id.to_string()
    }
}

/// One event's own id (UUIDv7, RFC 9562 §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

/// A command's id: the key of its idempotency (law ES-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl CommandId {
    /// A fresh id for a command that nobody will repeat.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
    /// The id that these parts always lead to.
    pub fn derive(parts: &[&str]) -> Self {
        Self(Uuid::parse_str(&derived(parts)).unwrap_or(Uuid::nil()))
    }
    /// The id of the command that an event of `stream` at `version` causes, `ordinal` counting its effects.
    pub fn of_effect(stream: &StreamId, version: Version, ordinal: u32) -> Self {
        Self::derive(&["effect", &stream.to_string(), &version.to_string(), &ordinal.to_string()])
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 (FIPS 180-4) of some bytes; as text 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// All zero: the hash before the first event.
    pub const ZERO: Self = Self([0; 32]);
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Digest {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| InvalidId { found: text.chars().take(ID_BYTES_MAX).collect() })?;
        Ok(Self(bytes))
    }
}
impl TryFrom<String> for Digest {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}
