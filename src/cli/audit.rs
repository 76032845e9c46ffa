//! `hypercode audit`: the log of everything that happened.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use events::api::{Problem, ProblemKind};
use events::chain::{Broken, Verifier};
use events::store::{Head, sqlite};
use events::{Digest, Position, Recorded};
use serde_json::{Value, json};

use super::session::{self, Session};
use super::sse::{self, Query};
use super::{Global, Outcome};
use crate::http::Envelope;
use crate::output::{Output, harmless};

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Show the last events, and with --follow those that come.
    Tail(Tail),
    /// Show one event whole.
    Show {
        /// Its position.
        position: u64,
    },
    /// Recompute the hash chain and say whether it holds.
    Verify {
        /// Read the data directory itself instead of asking a platform; none may be running on it.
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Tail {
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

impl Audit {
    pub(super) async fn run(self, global: &Global, output: Output) -> Outcome {
        match self {
            Self::Verify { offline: true } => {
                verified(output, offline(&session::config(global, Vec::new())?.data_dir).await?);
            }
            Self::Verify { offline: false } => {
                verified(output, online(&Session::open(global, output)?).await?)
            }
            Self::Tail(tail) => tail.run(&Session::open(global, output)?).await?,
            Self::Show { position } => show(&Session::open(global, output)?, position).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Tail {
    async fn run(self, session: &Session) -> Result<(), Problem> {
        let head = head(session).await?.position.0;
        let fields = [("kind", self.kind), ("entity", self.entity), ("crew", self.crew), ("task", self.task)];
        let query = Query {
            after: head.saturating_sub(self.lines),
            until: (!self.follow).then_some(head),
            filter: fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        };
        sse::follow(&session.client, query, |event| {
            session.output.item(&json!(event), |_| line(&event));
            Ok(ControlFlow::Continue(()))
        })
        .await
    }
}

/// An event on one line.
pub(super) fn line(event: &Envelope) -> String {
    const PAYLOAD_CHARS_MAX: usize = 160;
    let payload = event.payload.get();
    let mut shown: String = payload.chars().take(PAYLOAD_CHARS_MAX).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    let Envelope { position, recorded_at, principal, kind, stream, .. } = event;
    harmless(&format!("{position:>6}  {recorded_at}  {principal}  {kind}  {stream}  {shown}"))
}

async fn show(session: &Session, position: u64) -> Result<(), Problem> {
    let query = Query { after: position.saturating_sub(1), until: Some(position), filter: Vec::new() };
    let mut found = None;
    sse::follow(&session.client, query, |event| {
        found = Some(event).filter(|event| event.position == position);
        Ok(ControlFlow::Break(()))
    })
    .await?;
    let event = found.ok_or_else(|| {
        Problem::new(ProblemKind::NotFound, format!("the log has no event at position {position} yet"))
    })?;
    session.output.details(&json!(event));
    Ok(())
}

async fn head(session: &Session) -> Result<Head, Problem> {
    let log = session.client.get("/v1/log", &[]).await?;
    let position = log["position"].as_u64();
    let hash = log["hash"].as_str().and_then(|hash| hash.parse::<Digest>().ok());
    match (position, hash) {
        (Some(position), Some(hash)) => Ok(Head { position: Position(position), hash }),
        _ => Err(Problem::new(
            ProblemKind::Unavailable,
            "the platform's answer does not say where the log ends",
        )),
    }
}

/// Recomputes the chain from the events themselves: the platform's word is not taken for anything.
async fn online(session: &Session) -> Result<Head, Problem> {
    let head = head(session).await?;
    let mut verifier = Verifier::after(Head::EMPTY);
    let broken = |error: &Broken| Problem::new(ProblemKind::Failed, error.to_string());
    if head.position > Position(0) {
        let query = Query { after: 0, until: Some(head.position.0), filter: Vec::new() };
        sse::follow(&session.client, query, |event| {
            let event = Recorded::try_from(&event)
                .map_err(|error| Problem::new(ProblemKind::Failed, error.to_string()))?;
            verifier.check(&event).map_err(|error| broken(&error))?;
            Ok(ControlFlow::Continue(()))
        })
        .await?;
    }
    match verifier.head() == head {
        true => Ok(head),
        false => Err(broken(&Broken::Head { head: head.position, last: verifier.head().position })),
    }
}

async fn offline(directory: &Path) -> Result<Head, Problem> {
    let file = directory.join(sqlite::LOG_FILE);
    if !file.is_file() {
        let detail =
            format!("`{}` does not exist; name the data directory with `--data-dir`", file.display());
        return Err(Problem::new(ProblemKind::NotFound, detail));
    }
    let store = sqlite::Sqlite::open(directory, sqlite::Options::default())
        .await
        .map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
    let outcome = events::chain::verify(&store).await;
    store.close().await;
    outcome.map_err(|error| Problem::new(ProblemKind::Failed, error.to_string()))
}

fn verified(output: Output, head: Head) {
    let report: Value = json!({"ok": true, "position": head.position, "hash": head.hash});
    output.value(&report, |_| format!("the chain holds: {} events, hash {}", head.position, head.hash));
}
