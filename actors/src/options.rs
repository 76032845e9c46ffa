//! What the actors' side of the platform can be told.

use std::path::PathBuf;

use crate::admission;
use crate::keeper::Leasing;

/// What the actors' side of the platform is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's name, for leases and events.
    pub node: String,
    /// The program that is started as runner and keeper: normally this one.
    pub program: PathBuf,
    /// How the node keeps its leases.
    pub leasing: Leasing,
    /// Limits of queues, waits and retries.
    pub limits: Limits,
    /// How much may wait before the mailboxes.
    pub admission: admission::Limits,
}

/// Limits of queues, waits and retries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tasks that wait for one member; a further one is refused as busy.
    pub member_queue_tasks_max: usize,
    /// A crew's members must be ready within this time, beside their handlers' own start timeouts.
    pub assembly_ms: u64,
    /// After this time without use an entity is put out of memory.
    pub passivate_idle_ms: u64,
    /// After this time without use an ended entity is put out of memory.
    pub passivate_ended_ms: u64,
    /// After so many events the state of an entity whose stream grows long is saved, so that it need not be folded anew.
    pub snapshot_every_events: u64,
    /// How often idle entities are looked for.
    pub passivate_every_ms: u64,
    /// How often agents are looked for that have had nothing to do for long enough to hibernate.
    pub hibernate_every_ms: u64,
    /// Bytes of the end of an incarnation's log that are kept when it ends.
    pub log_kept_bytes_max: u64,
    /// How often what should run is compared with what runs.
    pub reconcile_every_ms: u64,
    /// The first wait before an unanswered command is given again.
    pub effect_retry_initial_ms: u64,
    /// The longest such wait.
    pub effect_retry_max_ms: u64,
    /// How long a handler has to end by itself when it is told to.
    pub grace_ms: u64,
    /// After a restart of the platform a running sandbox has this time to link again before it counts as lost.
    pub adopt_ms: u64,
    /// A starting sandbox has this time to link, beside its handler's start timeout.
    pub link_ms: u64,
    /// How often a pool looks whether it has too many or too few, beside every claim.
    pub pool_look_ms: u64,
    /// How often a runner that stands by is heard.
    pub standby_heartbeat_ms: u64,
    /// How long a command waits for a shard that is being taken over by another node.
    pub route_ms: u64,
    /// How often it looks whose the shard is meanwhile.
    pub route_retry_ms: u64,
    /// How long another node may work at a command that was handed over to it.
    pub handed_over_ms: u64,
    /// Most commands of other nodes at once; a further one is refused as busy.
    pub handed_over_max: usize,
    /// How long the platform waits for work in hand when it is told to end.
    pub shutdown_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            member_queue_tasks_max: 1_000,
            assembly_ms: 30_000,
            passivate_idle_ms: 60_000,
            passivate_ended_ms: 2_000,
            snapshot_every_events: 200,
            passivate_every_ms: 1_000,
            hibernate_every_ms: 1_000,
            log_kept_bytes_max: 64 * 1024,
            reconcile_every_ms: 30_000,
            effect_retry_initial_ms: 20,
            effect_retry_max_ms: 2_000,
            grace_ms: 10_000,
            adopt_ms: 10_000,
            link_ms: 10_000,
            pool_look_ms: 1_000,
            standby_heartbeat_ms: 5_000,
            route_ms: 20_000,
            route_retry_ms: 100,
            handed_over_ms: 600_000,
            handed_over_max: 1_000,
            shutdown_ms: 10_000,
        }
    }
}
