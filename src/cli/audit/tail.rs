//! Showing events.

use std::ops::ControlFlow;

use clap::Args;
use events::api::{Problem, ProblemKind};
use events::projection::summarize;
use serde_json::json;

use crate::cli::evidence;
use crate::cli::session::Session;
use crate::cli::sse::{self, Query};
use crate::http::Envelope;
use crate::output::harmless;

#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    /// Go on with what comes.
    #[arg(long, short)]
    follow: bool,
    /// Look at the last so many events.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: u64,
    /// Only events of these kinds, parted by commas.
    #[arg(long)]
    kind: Option<String>,
    /// Only events of entities of this kind, such as `task`.
    #[arg(long)]
    entity: Option<String>,
    /// Only events of this crew: its name or id.
    #[arg(long)]
    crew: Option<String>,
    /// Only events of this task.
    #[arg(long)]
    task: Option<String>,
}

impl Tail {
    pub(super) async fn run(self, session: &Session) -> Result<(), Problem> {
        let head = evidence::head(&session.client).await?.position.0;
        let fields = [("kind", self.kind), ("entity", self.entity), ("crew", self.crew), ("task", self.task)];
        let query = Query {
            after: head.saturating_sub(self.lines),
            until: (!self.follow).then_some(head),
            filter: fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        };
        sse::follow(&session.client, query, |event| {
            session.output.item(&json!(event), |_| line(&event))?;
            Ok(ControlFlow::Continue(()))
        })
        .await
    }
}

/// An event on one line: what it says, not all that it holds.
pub(in crate::cli) fn line(event: &Envelope) -> String {
    let Envelope { position, recorded_at, principal, kind, stream, .. } = event;
    let (outcome, summary) = summarize(kind, event.payload.get());
    let outcome = if outcome == "ok" { String::new() } else { format!("{} ", outcome.to_uppercase()) };
    harmless(&format!("{position:>6}  {recorded_at}  {principal}  {stream}  {kind}: {outcome}{summary}"))
}

pub(super) async fn show(session: &Session, position: u64) -> Result<(), Problem> {
    let head = evidence::head(&session.client).await?.position.0;
    let missing = || {
        let detail = format!("the log has no event at position {position}: it ends at {head}");
        Problem::new(ProblemKind::NotFound, detail)
    };
    // The feed would wait for it.
    if position > head {
        return Err(missing());
    }
    let query = Query { after: position.saturating_sub(1), until: Some(position), filter: Vec::new() };
    let mut found = None;
    sse::follow(&session.client, query, |event| {
        found = Some(event).filter(|event| event.position == position);
        Ok(ControlFlow::Break(()))
    })
    .await?;
    session.output.details(&json!(found.ok_or_else(missing)?))
}
