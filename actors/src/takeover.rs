//! Letting go of shards: what this node had of them in memory and in sandboxes is put away, without an event. Whoever
//! takes them over ends their incarnations as lost.

use std::collections::HashSet;
use std::sync::Arc;

use events::lease::shard_of;
use events::{CrewId, SandboxId};

use crate::core::Core;
use crate::hosted;
use crate::shards::Tenure;

/// Forgets what was lost, and has its sandboxes removed.
pub(crate) fn let_go(core: &Arc<Core>, lost: &[Arc<Tenure>]) {
    forget(core, lost);
    let (worker, lost) = (Arc::clone(core), lost.to_vec());
    core.spawn_always(async move { remove_sandboxes(&worker, &lost).await });
}

/// Forgets who of the shards' crews is ready and what each has in hand.
pub(crate) fn forget(core: &Core, tenures: &[Arc<Tenure>]) {
    let shards: HashSet<u8> = tenures.iter().map(|tenure| tenure.epoch.shard).collect();
    let is_in = |crew: &CrewId| shards.contains(&shard_of(crew.as_str()));
    for crew in core.rosters.remove_where(is_in) {
        core.links().forget_crew(&crew);
    }
    core.tallies.remove_where(is_in);
    core.meters.remove_where(is_in);
}

/// The sandboxes of these shards' pools that nobody has claimed.
fn standbys(core: &Core, shards: &HashSet<u8>) -> Vec<SandboxId> {
    core.shelves.remove_where(|pool| shards.contains(&shard_of(pool.as_str())))
}

/// Removes the sandboxes that serve agents of these shards.
pub(crate) async fn remove_sandboxes(core: &Arc<Core>, lost: &[Arc<Tenure>]) {
    let shards: HashSet<u8> = lost.iter().map(|tenure| tenure.epoch.shard).collect();
    let mut sandboxes = core.posts.sandboxes_where(|crew| shards.contains(&shard_of(crew.as_str())));
    sandboxes.extend(standbys(core, &shards));
    let removals = sandboxes.iter().map(|sandbox| hosted::destroy(core, sandbox));
    futures_util::future::join_all(removals).await;
}
