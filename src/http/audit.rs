//! What proves that the log is what it was: checkpoints, tiles and proofs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Reply;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use events::api::{Problem, ProblemKind};
use events::audit::{CutError, Entry, Format, Local, Note, Proof};
use events::domain::platform::AuditExported;
use events::projection::{AuditFilter, PageRequest, Within};
use events::{Digest, Position};
use identity::is_permitted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::extract::{Asker, Json, Known, Params, Segments};
use crate::acts;
use crate::api::{Admitted, Refusal};

/// Checkpoints on one page.
const PAGE_CHECKPOINTS: usize = 1_000;

/// A signed checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointModel {
    /// Events that it covers: the position of the last.
    pub size: u64,
    /// When it was cut.
    pub cut_at: String,
    /// The signed note (C2SP `tlog-checkpoint`).
    pub note: String,
}

impl From<Entry> for CheckpointModel {
    fn from(entry: Entry) -> Self {
        Self { size: entry.size, cut_at: entry.cut_at.rfc3339(), note: entry.note }
    }
}

/// The newest checkpoint, and how the audit stands.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandingModel {
    /// Which log it is.
    pub origin: String,
    /// The newest checkpoint; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<CheckpointModel>,
    /// The public keys that have signed, the oldest first.
    pub keys: Vec<String>,
    /// Why nothing is signed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why nothing is signed at the moment; it is tried again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delayed: Option<String>,
    /// Where checkpoints go, each with what went wrong there last.
    pub sinks: BTreeMap<String, Option<String>>,
}

/// A part of the checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPage {
    /// The checkpoints, the smallest first; none if there are no more.
    pub items: Vec<CheckpointModel>,
}

fn problem(error: &CutError) -> Problem {
    let kind = match error {
        CutError::Fork(_) => ProblemKind::Failed,
        CutError::Empty => ProblemKind::NotFound,
        _ => ProblemKind::Unavailable,
    };
    Problem::new(kind, error.to_string())
}

pub(super) async fn standing(State(api): State<Arc<Api>>) -> Result<Reply<StandingModel>, Refusal> {
    let (standing, ledger) = (api.audit.standing(), api.audit.ledger());
    let newest = ledger.newest().await.map_err(Problem::from)?;
    Ok(Reply(StandingModel {
        origin: api.audit.origin().to_owned(),
        newest: newest.map(CheckpointModel::from),
        keys: ledger.keys().await.map_err(Problem::from)?,
        refused: standing.refused,
        delayed: standing.delayed,
        sinks: standing.sinks,
    }))
}

pub(super) async fn cut(State(api): State<Arc<Api>>) -> Result<Reply<StandingModel>, Refusal> {
    api.audit.cut().await.map_err(|error| problem(&error))?;
    standing(State(api)).await
}

/// Which checkpoints.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Above {
    /// Those of more events than this.
    #[serde(default)]
    above: u64,
}

pub(super) async fn checkpoints(
    State(api): State<Arc<Api>>,
    Params(Above { above }): Params<Above>,
) -> Result<Reply<CheckpointPage>, Refusal> {
    let entries = api.audit.ledger().checkpoints(above, PAGE_CHECKPOINTS).await.map_err(Problem::from)?;
    Ok(Reply(CheckpointPage { items: entries.into_iter().map(CheckpointModel::from).collect() }))
}

pub(super) async fn tile(
    State(api): State<Arc<Api>>,
    Segments((level, number)): Segments<(u8, u64)>,
) -> Result<impl IntoResponse, Refusal> {
    let tile = api.audit.ledger().tile(level, number).await.map_err(Problem::from)?;
    let none = || Problem::new(ProblemKind::NotFound, format!("level {level} has no tile {number}"));
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], tile.ok_or_else(none)?))
}

/// Which events are taken out as evidence.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exports {
    /// The position of the first event; 1 by default.
    #[serde(default)]
    from: Option<u64>,
    /// The position of the last event; by default that of the event that records this export.
    #[serde(default)]
    to: Option<u64>,
    /// In what form: `jsonl`, `cloudevents` or `ocsf`.
    format: String,
}

/// An export that was recorded, and is covered by a checkpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exported {
    /// The position of the first event.
    from: u64,
    /// The position of the last event.
    to: u64,
    /// The position of the event that records the export.
    position: u64,
    /// Events that the newest checkpoint covers.
    size: u64,
    /// The newest checkpoint among the events that each witness has cosigned, as signed notes.
    cosigned: Vec<String>,
}

pub(super) async fn export(
    State(api): State<Arc<Api>>,
    Asker(caller): Asker,
    Json(Exports { from, to, format }): Json<Exports>,
) -> Result<Reply<Exported>, Refusal> {
    if !Format::ALL.iter().any(|known| known.as_str() == format) {
        return Err(Refusal::invalid("`format`: expected `jsonl`, `cloudevents` or `ocsf`"));
    }
    let from = from.unwrap_or(1);
    let exported = AuditExported { from, to, format };
    let position = acts::record_export(&*api.store, &caller, exported).await?.position.0;
    let size = api.audit.cut().await.map_err(|error| problem(&error))?.checkpoint().size;
    let to = to.unwrap_or(position);
    let cosigned = api.audit.cosigned(from..=to).await.iter().map(Note::to_string).collect();
    Ok(Reply(Exported { from, to, position, size, cosigned }))
}

/// The proof of one event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProofModel {
    /// The event's position; its leaf's index is one less.
    position: u64,
    /// Events in the tree that the checkpoint signs.
    size: u64,
    /// The event's hash: the leaf.
    #[schemars(with = "String")]
    leaf: Digest,
    /// The hash of the event before it.
    #[schemars(with = "String")]
    previous: Digest,
    /// The way from the leaf to the root (RFC 6962 §2.1.1).
    #[schemars(with = "Vec<String>")]
    hashes: Vec<Digest>,
    /// The signed note.
    checkpoint: String,
    /// All of it in one text (C2SP `tlog-proof`), with the event.
    text: String,
}

impl From<&Proof> for ProofModel {
    fn from(proof: &Proof) -> Self {
        Self {
            position: proof.event.position.0,
            size: proof.note.checkpoint().size,
            leaf: proof.event.hash,
            previous: proof.previous,
            hashes: proof.hashes.clone(),
            checkpoint: proof.note.to_string(),
            text: proof.text(),
        }
    }
}

/// Refuses an event that whoever asks does not see, as if it did not exist: a proof shows the event itself.
async fn check_event(api: &Api, admitted: &Admitted, position: u64) -> Result<(), Refusal> {
    let Admitted { caller, identity, at, sight } = admitted;
    let events = api.store.read(Position(position.saturating_sub(1)), 1).await?;
    let event = events.first().filter(|event| event.position.0 == position);
    let is_seen = match event {
        Some(_) if at.is_platform() && is_permitted(&identity.grants, "log:read", at) => true,
        Some(event) if event.meta.tenant == caller.tenant => match sight.crews() {
            Some(_) => is_of_crews(api, admitted, event.position).await?,
            None => true,
        },
        _ => false,
    };
    let none = || Problem::new(ProblemKind::NotFound, format!("the log has no event at position {position}"));
    if is_seen { Ok(()) } else { Err(none().into()) }
}

/// Whether the event is of a crew that whoever asks sees; while the views are behind, none is known to be.
async fn is_of_crews(
    api: &Api,
    Admitted { caller, sight, .. }: &Admitted,
    position: Position,
) -> Result<bool, Refusal> {
    api.settle(Some(position.0)).await?;
    let within = Within { tenant: &caller.tenant, crews: sight.crews() };
    let cursor = Some(Position(position.0.saturating_sub(1)));
    let page = PageRequest { items_max: 1, cursor, ..PageRequest::default() };
    let lines = api.views.audit(within, AuditFilter::default(), page).await.map_err(Problem::from)?;
    Ok(lines.items.first().is_some_and(|line| line.position == position))
}

pub(super) async fn proof(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
    Segments(position): Segments<u64>,
) -> Result<Reply<ProofModel>, Refusal> {
    check_event(&api, &admitted, position).await?;
    let ledger = api.audit.ledger();
    let newest = ledger.newest().await.map_err(Problem::from)?;
    let covers = newest.filter(|entry| entry.size >= position).map(|entry| Note::parse(&entry.note));
    let note = match covers {
        Some(Ok(note)) => note,
        _ => api.audit.cut().await.map_err(|error| problem(&error))?,
    };
    Ok(Reply(ProofModel::from(&Local::prove(&*api.store, ledger, Position(position), note).await?)))
}
