//! The nodes that share the log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use events::api::Problem;
use schemars::JsonSchema;
use serde::Serialize;

use super::Api;
use crate::api::Refusal;

/// The nodes that share the log.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Nodes {
    /// One entry each.
    items: Vec<Node>,
    /// Shards that nobody holds at the moment: what is in them waits.
    free_shards: usize,
}

/// A node.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Node {
    /// Its name.
    id: String,
    /// `live`, `left` or `silent`.
    state: &'static str,
    /// The shards that it holds.
    shards: Vec<u8>,
    /// Since when it has been live without a gap, as RFC 3339.
    joined_at: String,
    /// When it renewed its leases last, as RFC 3339.
    seen_at: String,
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Nodes>, Refusal> {
    let table = api.leases.table().await.map_err(Problem::from)?;
    let item = |node: &events::lease::Node| Node {
        id: node.id.to_string(),
        state: node.state.as_str(),
        shards: table.shards_of(&node.id).collect(),
        joined_at: node.joined_at.rfc3339(),
        seen_at: node.seen_at.rfc3339(),
    };
    let free_shards = table.leases.iter().filter(|lease| lease.holder.is_none()).count();
    Ok(Json(Nodes { items: table.nodes.iter().map(item).collect(), free_shards }))
}
