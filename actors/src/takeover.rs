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
    let standbys = forget(core, lost);
    let (worker, lost) = (Arc::clone(core), lost.to_vec());
    core.spawn_always(async move { remove_sandboxes(&worker, &lost, standbys).await });
}

/// The same, and waits until the sandboxes are removed.
pub(crate) async fn put_away(core: &Arc<Core>, lost: &[Arc<Tenure>]) {
    let standbys = forget(core, lost);
    remove_sandboxes(core, lost, standbys).await;
}

/// Forgets who of the shards' crews is ready and what each has in hand, and what stands by in their pools: sandboxes that
/// nobody has claimed are handed out, to be removed. All of it at once, for the shards may be taken again before those are.
pub(crate) fn forget(core: &Core, tenures: &[Arc<Tenure>]) -> Vec<SandboxId> {
    let shards = shards(tenures);
    let is_in = |crew: &CrewId| shards.contains(&shard_of(crew.as_str()));
    for crew in core.rosters.remove_where(is_in) {
        core.links().forget_crew(&crew);
    }
    core.tallies.remove_where(is_in);
    core.meters.remove_where(is_in);
    core.shelves.remove_where(|pool| shards.contains(&shard_of(pool.as_str())))
}

fn shards(tenures: &[Arc<Tenure>]) -> HashSet<u8> {
    tenures.iter().map(|tenure| tenure.epoch.shard).collect()
}

/// Removes the sandboxes that serve agents of these shards, and these beside.
async fn remove_sandboxes(core: &Arc<Core>, lost: &[Arc<Tenure>], mut sandboxes: Vec<SandboxId>) {
    let shards = shards(lost);
    sandboxes.extend(core.posts.sandboxes_where(|crew| shards.contains(&shard_of(crew.as_str()))));
    let removals = sandboxes.iter().map(|sandbox| hosted::destroy(core, sandbox));
    futures_util::future::join_all(removals).await;
}
