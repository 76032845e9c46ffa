//! How a pool does, for people and their graphs.

use events::PoolId;

use super::{Shelf, Shelves, Stage};

/// What was counted since the pool was taken up here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Claims that got a sandbox that stood by, at once or in their turn.
    pub warm: u64,
    /// Claims that started cold.
    pub cold: u64,
    /// Claims that were refused since too many waited.
    pub refused: u64,
    /// Claims whose turn did not come in time.
    pub late: u64,
    /// How long claims waited for their turn, all together, in milliseconds.
    pub waited_ms: u64,
}

/// How a pool does.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolFigures {
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// How many should stand by.
    pub target: u64,
    /// How many can be claimed now.
    pub ready: u64,
    /// How many come up.
    pub warming: u64,
    /// How many serve agents.
    pub claimed: u64,
    /// Claims that wait.
    pub waiting: u64,
    /// Claims of late, a second.
    pub claims_per_second: f64,
    /// How long a sandbox takes to come up, in milliseconds.
    pub refill_ms: f64,
    /// What was counted.
    pub counts: Counts,
}

impl Shelves {
    /// The pools' figures.
    pub(crate) fn figures(&self, now_ms: i64) -> Vec<PoolFigures> {
        let inner = self.inner();
        let of = |(id, shelf): (&PoolId, &Shelf)| {
            let stages = |wanted: Stage| {
                let own = inner.slots.values().filter(|(pool, slot)| pool == id && slot.stage == wanted);
                own.count() as u64
            };
            PoolFigures {
                tenant: shelf.tenant.to_string(),
                name: shelf.name.clone(),
                target: shelf.target(now_ms).into(),
                ready: stages(Stage::Ready),
                warming: stages(Stage::Warming) + stages(Stage::Returning),
                claimed: stages(Stage::Claimed) + stages(Stage::Taken),
                waiting: shelf.waiting.len() as u64,
                claims_per_second: shelf.demand.per_second(now_ms),
                refill_ms: shelf.demand.cold_ms(),
                counts: shelf.counts,
            }
        };
        inner.shelves.iter().map(of).collect()
    }
}
