//! Where a log is replayed from: the files of a data directory, a database, an evidence bundle, or a platform over HTTP.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use events::api::{Problem, ProblemKind};
use events::audit::{Evidence, Local, Next};
use events::replay::Registry;
use events::store::sqlite::LOG_FILE;
use events::subscription::{self, Subscription};
use events::{EventStore, Position, Recorded, domain};
use tempfile::TempDir;

use super::moment::Moment;
use crate::cli::Global;
use crate::cli::evidence::{self, Online};
use crate::cli::session::{self, Session};
use crate::client::Client;
use crate::output::{Output, harmless, remark};

/// A log that is replayed.
pub(super) struct Source {
    evidence: Box<dyn Evidence>,
    waiting: VecDeque<Recorded>,
    first: u64,
    live: Live,
    /// Whether an event that cannot be read is passed over.
    skips: bool,
    _scratch: Option<TempDir>,
}

/// How what comes after the end is heard of.
enum Live {
    Never,
    Store(Arc<dyn EventStore>),
    Online(Client),
}

impl Source {
    /// Opens what `path` names; without a path the data directory if it has a log, unless a server is named. An event that
    /// this version cannot read ends the replay, since what it did is not known, unless such are to be passed over (`skips`).
    pub(super) async fn open(
        path: Option<&Path>,
        skips: bool,
        global: &Global,
        output: Output,
    ) -> Result<Self, Problem> {
        let source = Self::find(path, global, output).await?;
        Ok(Self { skips, ..source })
    }

    async fn find(path: Option<&Path>, global: &Global, output: Output) -> Result<Self, Problem> {
        let mut config = session::config(global, Vec::new())?;
        if let Some(path) = path {
            if let Some(database) = evidence::database(path)? {
                config.database_url = Some(database);
                return Self::of(evidence::configured(&config).await?).await;
            }
            return match path.is_dir() && path.join(LOG_FILE).is_file()
                || path.is_file() && !evidence::is_tar(path)?
            {
                true => Self::of(Arc::new(evidence::open(path).await?)).await,
                false => Self::bundle(path),
            };
        }
        let has_log = config.database_url.is_some() || config.data_dir.join(LOG_FILE).is_file();
        match global.server.is_none() && has_log {
            true => Self::of(evidence::configured(&config).await?).await,
            false => Self::online(&Session::open(global, output)?.client).await,
        }
    }

    fn new(evidence: Box<dyn Evidence>, live: Live) -> Self {
        Self { evidence, waiting: VecDeque::new(), first: 1, live, skips: false, _scratch: None }
    }

    async fn of(store: Arc<dyn EventStore>) -> Result<Self, Problem> {
        let local = Local::after(Arc::clone(&store), None, Position(0)).await?;
        Ok(Self::new(Box::new(local), Live::Store(store)))
    }

    async fn online(client: &Client) -> Result<Self, Problem> {
        let head = evidence::head(client).await?;
        let online = Online::of_tenant(client, Position(0), Some(head.position));
        Ok(Self::new(Box::new(online), Live::Online(client.clone())))
    }

    fn bundle(path: &Path) -> Result<Self, Problem> {
        let scratch = tempfile::tempdir().map_err(|error| {
            Problem::new(ProblemKind::Unavailable, format!("make a temporary directory: {error}"))
        })?;
        let bundle = evidence::bundle(path, scratch.path())?;
        let first = bundle.manifest().from;
        let source = Self::new(Box::new(bundle), Live::Never);
        Ok(Self { first, _scratch: Some(scratch), ..source })
    }

    /// Refuses a part of a log: what was before its first event is not known.
    pub(super) fn must_be_whole(&self) -> Result<(), Problem> {
        if self.first == 1 {
            return Ok(());
        }
        let detail = format!(
            "the bundle begins with position {}, and what was before is not in it; `--entity` shows what it has",
            self.first
        );
        Err(Problem::new(ProblemKind::Invalid, detail))
    }

    /// The next event of the log as it was when it was opened.
    pub(super) async fn next(&mut self) -> Result<Option<Recorded>, Problem> {
        if self.waiting.is_empty() {
            match self.evidence.next().await? {
                Next::Events(events) => self.waiting.extend(events),
                Next::End => {}
                Next::Damaged { position, reason } => {
                    let detail = format!(
                        "the event at position {position} cannot be read: {reason}; `hypercode audit verify` says more"
                    );
                    return Err(Problem::new(ProblemKind::Failed, detail));
                }
            }
        }
        Ok(self.waiting.pop_front())
    }

    /// Goes on with `registry` until `to`, or to the end; whether `to` was met.
    pub(super) async fn replay(
        &mut self,
        registry: &mut Registry,
        to: Option<&Moment>,
    ) -> Result<bool, Problem> {
        if to.is_some_and(|to| to.ends(registry.position())) {
            return Ok(true);
        }
        while let Some(event) = self.next().await? {
            if to.is_some_and(|to| !to.includes(&event)) {
                self.waiting.push_front(event);
                return Ok(true);
            }
            self.apply(registry, &event)?;
            if to.is_some_and(|to| to.ends(event.position)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on by one event with `registry`.
    pub(super) fn apply(&self, registry: &mut Registry, event: &Recorded) -> Result<(), Problem> {
        registry.apply(event).or_else(|error| self.pass_over(event, &error.to_string()))
    }

    /// Whether this version knows of what kind and schema the event is, so that it can be shown.
    pub(super) fn knows(&self, event: &Recorded) -> Result<bool, Problem> {
        let is_known = domain::knows(event);
        if !is_known {
            self.pass_over(event, "this version does not know that; upgrade the platform")?;
        }
        Ok(is_known)
    }

    fn pass_over(&self, event: &Recorded, why: &str) -> Result<(), Problem> {
        let Recorded { position, kind, schema, .. } = event;
        let detail = format!("the event at position {position}, kind `{kind}`, schema {schema}: {why}");
        if !self.skips {
            let detail = format!("{detail}; or go on without what it did: `--skip-unknown`");
            return Err(Problem::new(ProblemKind::Failed, detail));
        }
        remark(harmless(&format!("{detail}; passed over")));
        Ok(())
    }

    /// Gives `take` every event that comes after `after`, for ever.
    pub(super) async fn follow(
        &self,
        after: Position,
        mut take: impl FnMut(&Recorded) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        match &self.live {
            Live::Never => Ok(()),
            Live::Store(store) => {
                let options = subscription::Options::default();
                let mut subscription = Subscription::after(Arc::clone(store), after, options);
                loop {
                    subscription.next().await?.iter().try_for_each(&mut take)?;
                }
            }
            Live::Online(client) => {
                let mut online = Online::of_tenant(client, after, None);
                loop {
                    online.events().await?.iter().try_for_each(&mut take)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use events::store::Memory;
    use events::store::conformance::request;
    use events::{Expected, NewEvent, StreamId};

    use super::*;

    /// A task of which only a newer version knows what happened to it.
    async fn newer(kind: &str, schema: u16) -> Source {
        let store = Memory::new();
        let stream: StreamId = "task/tk_1".parse().expect("a stream");
        let mut asked = request(&stream, Expected::Any, &[]);
        asked.events.push(NewEvent { kind: kind.into(), schema, payload: "{}".into() });
        store.append(asked).await.expect("appended");
        Source::of(Arc::new(store)).await.expect("a source")
    }

    #[tokio::test]
    async fn what_a_newer_version_wrote_ends_the_replay_unless_it_is_to_be_passed_over() {
        for (kind, schema) in [("task_dreamt", 1), ("task_submitted", 99)] {
            let mut source = newer(kind, schema).await;
            let mut registry = Registry::default();
            let refused = source.replay(&mut registry, None).await.expect_err("it is not known");
            let named = format!("position 1, kind `{kind}`, schema {schema}: ");
            let says = |problem: &Problem| {
                let detail = &problem.detail;
                detail.contains(&named) && detail.contains("upgrade") && detail.contains("--skip-unknown")
            };
            assert!(says(&refused), "{refused:?}");
            let mut source = newer(kind, schema).await;
            let event = source.next().await.expect("readable").expect("an event");
            assert!(says(&source.knows(&event).expect_err("it is not known")));
            let mut source = Source { skips: true, ..newer(kind, schema).await };
            assert!(!source.knows(&event).expect("it is passed over"));
            let mut registry = Registry::default();
            source.replay(&mut registry, None).await.expect("it is passed over");
            assert_eq!(registry.skipped(), 1);
        }
    }
}
