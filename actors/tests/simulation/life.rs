//! One life of the platform's process: from a start to the moment at which it is killed.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::world::World;

/// Who dies at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The platform's process.
    Platform,
    /// Every runner, with its handler.
    Runners,
    /// All of them at once.
    All,
}

/// A moment between two steps of what the platform does to the outside: right before one of them, or right after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The kind of an event that is appended, or what is asked of sandboxes and links.
    pub step: &'static str,
    pub is_after: bool,
    pub victim: Victim,
}

/// Whether the process still lives. Clones are of the same life.
#[derive(Clone, Default)]
pub struct Life {
    over: CancellationToken,
    /// The point at which something dies next, and where.
    armed: Arc<Mutex<Option<(Point, World)>>>,
}

impl Life {
    /// Kills the process: from now on nothing of it reaches the world.
    pub fn end(&self) {
        self.over.cancel();
    }

    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    fn armed(&self) -> MutexGuard<'_, Option<(Point, World)>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has somebody die when this point is reached for the first time.
    pub fn arm(&self, point: Point, world: World) {
        *self.armed() = Some((point, world));
    }

    pub fn disarm(&self) {
        *self.armed() = None;
    }

    /// Whether the point has not been reached yet.
    pub fn is_armed(&self) -> bool {
        self.armed().is_some()
    }

    /// The step is about to be taken.
    pub fn before(&self, step: &str) {
        self.reached(step, false);
    }

    /// The step was taken, and nobody knows of it yet.
    pub fn after(&self, step: &str) {
        self.reached(step, true);
    }

    fn reached(&self, step: &str, is_after: bool) {
        let is_it = |(point, _): &mut (Point, World)| point.step == step && point.is_after == is_after;
        let Some((point, world)) = self.armed().take_if(is_it) else { return };
        if point.victim != Victim::Runners {
            self.end();
            world.set_gateway(None);
        }
        if point.victim != Victim::Platform {
            world.end_all();
        }
    }

    /// What the process itself does: with its death it stops in mid-step, for ever.
    pub async fn within<T>(&self, step: impl Future<Output = T>) -> T {
        match self.or_gone(step).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// The same with a point before it and one after it.
    pub async fn step<T>(&self, name: &str, step: impl Future<Output = T>) -> T {
        self.before(name);
        self.within(async {
            let done = step.await;
            self.after(name);
            done
        })
        .await
    }

    /// What others do with the process: none if it died meanwhile.
    pub async fn or_gone<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over() => None,
            done = step => (!self.is_over()).then_some(done),
        }
    }
}
