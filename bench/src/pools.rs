//! The pools of a bench's platform: what stands by in them, and when they are at rest.

use std::time::Duration;

use events::api::Command;
use hypercode::platform::Platform;

use crate::Result;
use crate::rig::execute;

/// How long the pools may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(20);

/// A pool that always has so many.
pub(crate) struct Pool {
    pub(crate) name: &'static str,
    pub(crate) target: usize,
    /// Whether the handler's process is up before the claim.
    pub(crate) ahead: bool,
    /// Whether what stands by stands still.
    pub(crate) paused: bool,
    /// How many may wait while nothing stands by.
    pub(crate) queue: usize,
}

impl Pool {
    /// Sandboxes that are made at once.
    pub(crate) const AT_ONCE: usize = 4;

    /// Sandboxes that run, whose handlers are up before the claim.
    pub(crate) fn ahead(target: usize) -> Self {
        Self { name: "ahead", target, ahead: true, paused: false, queue: 100 }
    }

    /// Its manifest, with the line that divides it from the next.
    pub(crate) fn manifest(&self) -> String {
        let Self { name, target, ahead, paused, queue } = self;
        let ahead = if *ahead { "  prestart: worker\n" } else { "" };
        let standby = if *paused { "paused" } else { "running" };
        format!(
            "---\napiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {{name: {name}}}\nspec:\n  \
             size: {{min: 0, max: 1000, target: {target}}}\n  standby: {standby}\n{ahead}  \
             refill: {{concurrency: {}}}\n  queue: {{whenEmpty: cold, length: {queue}, deadline: 10s}}\n---\n",
            Self::AT_ONCE
        )
    }
}

/// Waits until every pool is full, and nothing else runs than that and so many agents.
pub(crate) async fn at_rest(platform: &Platform, agents: usize) -> Result<()> {
    let rest = async {
        loop {
            let pools = platform.pools();
            let is_full = pools.iter().all(|pool| pool.ready == pool.target && pool.warming == 0);
            let standing: u64 = pools.iter().map(|pool| pool.ready).sum();
            if is_full && platform.provider.list().await?.len() as u64 == standing + agents as u64 {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.map_err(|_| "the pools do not come to rest")?
}

/// Has nothing stand by any more.
pub(crate) async fn drain(platform: &Platform) -> Result<()> {
    for pool in platform.pools() {
        let drain = Command::PoolDrain { name: pool.name, reason: "the bench is over".to_owned() };
        execute(platform, None, drain).await?;
    }
    let rest = async {
        while platform.pools().iter().any(|pool| pool.ready + pool.warming + pool.claimed > 0)
            || !platform.provider.list().await?.is_empty()
        {
            tokio::time::sleep(LOOK).await;
        }
        Result::Ok(())
    };
    tokio::time::timeout(PATIENCE, rest).await.map_err(|_| "the pools do not come to rest")?
}
