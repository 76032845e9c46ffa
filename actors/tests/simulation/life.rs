//! One life of the platform's process: from a start to the moment at which it is killed.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Whether the process still lives. Clones are of the same life.
#[derive(Clone, Default)]
pub struct Life(CancellationToken);

impl Life {
    /// Kills the process: from now on nothing of it reaches the world.
    pub fn end(&self) {
        self.0.cancel();
    }

    pub fn is_over(&self) -> bool {
        self.0.is_cancelled()
    }

    pub async fn over(&self) {
        self.0.cancelled().await;
    }

    /// What the process itself does: with its death it stops in mid-step, for ever.
    pub async fn within<T>(&self, step: impl Future<Output = T>) -> T {
        match self.or_gone(step).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
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
