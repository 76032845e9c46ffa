//! Making projections again beside those that serve queries.
//!
//! A session of its own has temporary tables under the names of the views' own, so the statements that write the views
//! fill these. When they have come as far as the views, one transaction puts their rows in place of the old ones. Until
//! it commits everybody reads the old rows, and then the new ones. Temporary tables end with their session: a crash
//! leaves nothing behind, and the old rows where they are.

use std::sync::{Arc, PoisonError};

use tokio::sync::watch;

use super::database::Writer;
use super::projector::{self, Running};
use super::{Home, NAMES, Tasks, ViewError, Views, common, file, origin};
use crate::id::Position;
use crate::store::EventStore;

/// How far behind the views it may be when the last transaction begins, in events.
const GAP: u64 = 1_000;

/// A rebuild that runs or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilding {
    /// What is made again.
    pub names: Vec<&'static str>,
    /// The last event that was applied to it.
    pub position: Position,
    /// How it ended, if it did; after a failure the old rows are still there.
    pub ended: Option<Result<(), ViewError>>,
}

/// What a rebuild needs.
struct Rebuild {
    home: Home,
    place: Arc<str>,
    store: Arc<dyn EventStore>,
    batch_events_max: usize,
    progress: watch::Sender<Option<Rebuilding>>,
}

impl Rebuild {
    /// Makes `projections` again from the beginning of the log.
    async fn make(&self, mut projections: Vec<Running>) -> Result<(), ViewError> {
        let failed = |error: sqlx::Error| self.failed(&error);
        let db = match &self.home {
            Home::File(file) => file::beside(file).await,
            Home::Common(database) => common::beside(database).await,
        };
        let mut db = db.map_err(failed)?;
        for running in &projections {
            db.shadow(running.tables()).await.map_err(failed)?;
        }
        loop {
            let goal = origin::source(&mut db).await.map_err(failed)?.position;
            while position(&projections) < goal {
                db.begin_beside().await.map_err(failed)?;
                self.apply(&mut db, &mut projections, goal).await?;
                db.commit().await.map_err(failed)?;
            }
            let now = origin::source(&mut db).await.map_err(failed)?.position;
            if now.0.saturating_sub(goal.0) <= GAP {
                break;
            }
        }
        db.begin_alone().await.map_err(failed)?;
        let goal = origin::source(&mut db).await.map_err(failed)?.position;
        // From here on nobody else makes the views, but another version of the program may have made them before.
        let is_ours = match &self.home {
            Home::File(_) => true,
            Home::Common(_) => common::is_ours(&mut db).await.map_err(failed)?,
        };
        if !is_ours || goal < position(&projections) {
            let reason = "they were made anew meanwhile, so there is nothing to rebuild".into();
            return Err(ViewError::Unavailable { place: Arc::clone(&self.place), reason });
        }
        while position(&projections) < goal {
            self.apply(&mut db, &mut projections, goal).await?;
        }
        for running in &projections {
            db.replace(running.tables()).await.map_err(failed)?;
        }
        projector::save(&mut db, &projections).await.map_err(failed)?;
        db.commit().await.map_err(failed)?;
        db.close().await.map_err(failed)
    }

    /// Applies the next batch, within the transaction that is open and not beyond `goal`.
    async fn apply(
        &self,
        db: &mut Writer,
        projections: &mut [Running],
        goal: Position,
    ) -> Result<(), ViewError> {
        let at = position(projections);
        let wanted = usize::try_from(goal.0 - at.0).unwrap_or(usize::MAX).min(self.batch_events_max);
        let events = self.store.read(at, wanted).await?;
        let Some(last) = events.last() else {
            let reason = format!("the log ends at {at}, the views are at {goal}").into();
            return Err(ViewError::Unavailable { place: Arc::clone(&self.place), reason });
        };
        for running in projections {
            running.status =
                running.advance(db, &events, false).await.map_err(|error| self.failed(&error))?;
            if let Some(error) = &running.status.error {
                let name = running.status.name.clone();
                return Err(ViewError::Stopped { name, reason: error.as_str().into() });
            }
        }
        self.progress.send_modify(|rebuilding| {
            if let Some(rebuilding) = rebuilding {
                rebuilding.position = last.position;
            }
        });
        Ok(())
    }

    fn failed(&self, error: &sqlx::Error) -> ViewError {
        ViewError::unavailable(&self.place, error)
    }
}

/// Writes down how a rebuild ended, once it was dropped without having come to its end too.
struct Ending {
    progress: watch::Sender<Option<Rebuilding>>,
    ended: Result<(), ViewError>,
}

impl Ending {
    fn with(mut self, ended: Result<(), ViewError>) {
        self.ended = ended;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Err(error) = &self.ended {
            tracing::error!(%error, "a rebuild was given up; the old views stay");
        }
        let ended = std::mem::replace(&mut self.ended, Ok(()));
        self.progress.send_modify(|rebuilding| {
            if let Some(rebuilding) = rebuilding {
                rebuilding.ended = Some(ended);
            }
        });
    }
}

/// How far all of them have come.
fn position(projections: &[Running]) -> Position {
    projections.iter().map(|running| running.status.position).min().unwrap_or_default()
}

impl Views {
    /// Begins to make a projection again from the beginning of the log, or all of them, beside those that serve; what
    /// becomes of it is told by [`Views::rebuilding`] and [`Views::rebuilt`]. One rebuild runs at a time on a node.
    pub fn rebuild(&self, name: Option<&str>) -> Result<(), ViewError> {
        let projections = projector::all(name);
        if projections.is_empty() {
            return Err(ViewError::UnknownProjection { name: name.unwrap_or_default().to_owned() });
        }
        let shared = &self.shared;
        let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Tasks { rebuild: task, .. }) = &mut *tasks else {
            return Err(self.unavailable("they were closed"));
        };
        let names = NAMES.iter().copied().filter(|known| name.is_none_or(|name| name == *known)).collect();
        let begun = shared.rebuilding.send_if_modified(|rebuilding| {
            let is_free = rebuilding.as_ref().is_none_or(|rebuilding| rebuilding.ended.is_some());
            if is_free {
                *rebuilding = Some(Rebuilding { names, position: Position(0), ended: None });
            }
            is_free
        });
        if !begun {
            return Err(ViewError::Busy);
        }
        let rebuild = Rebuild {
            home: shared.home.clone(),
            place: Arc::clone(&shared.place),
            store: Arc::clone(&shared.store),
            batch_events_max: shared.options.subscription.batch_events_max,
            progress: shared.rebuilding.clone(),
        };
        let closed = Err(self.unavailable("they were closed"));
        let ending = Ending { progress: shared.rebuilding.clone(), ended: closed };
        *task = Some(tokio::spawn(async move { ending.with(rebuild.make(projections).await) }));
        Ok(())
    }

    /// The rebuild that was begun last on this node.
    pub fn rebuilding(&self) -> Option<Rebuilding> {
        self.shared.rebuilding.borrow().clone()
    }

    /// Waits until the rebuild that was begun last on this node has ended, and says how.
    pub async fn rebuilt(&self) -> Result<(), ViewError> {
        let mut rebuilding = self.shared.rebuilding.subscribe();
        let ended = |rebuilding: &Option<Rebuilding>| rebuilding.as_ref().is_none_or(|it| it.ended.is_some());
        match rebuilding.wait_for(ended).await.ok().and_then(|ended| ended.clone()) {
            Some(Rebuilding { ended: Some(ended), .. }) => ended,
            _ => Ok(()),
        }
    }
}
