//! How a pool does, for people and their graphs.

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
