//! What a command that was carried out is answered with.

use events::api::Reply;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What a command led to.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Done {
    /// The kind of the entity.
    pub(crate) kind: &'static str,
    /// Its id.
    pub(crate) id: String,
    /// The position to which a reader must have read to see the outcome; give it as `minPosition`.
    position: u64,
    /// The entity as it is now.
    body: Value,
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        Self { kind: reply.kind.as_str(), id: reply.id, position: reply.position.0, body: reply.body }
    }
}
