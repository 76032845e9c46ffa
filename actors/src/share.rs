//! Which node gets which shards: an equal share each, reached by what is free and by what can move without a stop.
//!
//! A shard moves only while nothing runs in it, so a new node gets its share as idle shards are handed to it, and takes
//! over at once what a dead node leaves. A node that holds more than its share because its crews live long keeps them.

use events::lease::{SHARDS, Table};
use events::store::Epoch;

/// What a node does about its share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// How many shards it claims.
    pub(crate) claim: usize,
    /// The leases that it gives back.
    pub(crate) give: Vec<Epoch>,
    /// Whether it holds less than its share, and more will be given to it.
    pub(crate) is_short: bool,
}

/// What `node`, which holds `held`, is to do; at most `give_max` shards are given back at a time, and of them only
/// those that are idle.
pub(crate) fn plan(
    node: &str,
    table: &Table,
    held: &[Epoch],
    give_max: usize,
    is_idle: impl Fn(u8) -> bool,
) -> Plan {
    let own = |shard: u8| held.iter().any(|held| held.shard == shard);
    let is_free = |holder: Option<&str>, shard| holder.is_none_or(|holder| holder == node) && !own(shard);
    let free = table.leases.iter().filter(|lease| is_free(lease.holder.as_deref(), lease.shard)).count();
    let live = table.live().count().max(1);
    let (least, most) = (SHARDS / live, SHARDS.div_ceil(live));
    let claim = most.saturating_sub(held.len()).min(free);
    let others = table.live().filter(|other| *other.id != *node);
    let lacking: usize = others.map(|other| least.saturating_sub(table.held_by(&other.id))).sum();
    let give = held.len().saturating_sub(least).min(lacking.saturating_sub(free)).min(give_max);
    let idle = held.iter().rev().filter(|held| is_idle(held.shard));
    Plan { claim, give: idle.take(give).copied().collect(), is_short: held.len() + claim < least }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use events::Timestamp;
    use events::lease::{Lease, Node, NodeState};

    use super::*;

    /// A cluster of nodes that plan in turns.
    struct Cluster(Table);

    impl Cluster {
        fn new(nodes: &[&str]) -> Self {
            let lease = |shard| Lease { shard, epoch: 0, holder: None, lasts: std::time::Duration::ZERO };
            let mut cluster = Self(Table { nodes: Vec::new(), leases: (0..=u8::MAX).map(lease).collect() });
            nodes.iter().for_each(|node| cluster.join(node));
            cluster
        }

        fn join(&mut self, id: &str) {
            let (joined_at, seen_at) = (Timestamp(1), Timestamp(1));
            self.0.nodes.push(Node { id: id.into(), state: NodeState::Live, joined_at, seen_at });
        }

        fn die(&mut self, id: &str) {
            self.0.nodes.retain(|node| *node.id != *id);
            for lease in self.0.leases.iter_mut().filter(|lease| lease.holder.as_deref() == Some(id)) {
                lease.holder = None;
            }
        }

        fn turn(&mut self, id: &str, is_idle: impl Fn(u8) -> bool) -> Plan {
            let mine = self.0.leases.iter().filter(|lease| lease.holder.as_deref() == Some(id));
            let held: Vec<Epoch> =
                mine.map(|lease| Epoch { shard: lease.shard, epoch: lease.epoch }).collect();
            let plan = plan(id, &self.0, &held, 32, is_idle);
            let holder: Arc<str> = id.into();
            for given in &plan.give {
                self.0.leases[usize::from(given.shard)].holder = None;
            }
            let free = self.0.leases.iter_mut().filter(|lease| lease.holder.is_none());
            for lease in free.take(plan.claim) {
                (lease.holder, lease.epoch) = (Some(Arc::clone(&holder)), lease.epoch + 1);
            }
            plan
        }

        fn held(&self) -> Vec<usize> {
            self.0.nodes.iter().map(|node| self.0.held_by(&node.id)).collect()
        }
    }

    #[test]
    fn a_node_alone_holds_all_at_once_and_then_does_nothing() {
        let mut cluster = Cluster::new(&["a"]);
        assert_eq!(cluster.turn("a", |_| true).claim, SHARDS);
        assert_eq!(cluster.turn("a", |_| true), Plan::default());
    }

    #[test]
    fn a_new_node_gets_its_share_step_by_step_and_then_nothing_moves() {
        let mut cluster = Cluster::new(&["a"]);
        cluster.turn("a", |_| true);
        for (node, shares) in [("b", vec![128, 128]), ("c", vec![86, 85, 85])] {
            cluster.join(node);
            for _ in 0..20 {
                let nodes: Vec<_> = cluster.0.nodes.iter().map(|node| Arc::clone(&node.id)).collect();
                for node in nodes {
                    assert!(cluster.turn(&node, |_| true).give.len() <= 32);
                }
            }
            let mut held = cluster.held();
            held.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(held, shares);
        }
        for node in ["a", "b", "c"] {
            assert_eq!(cluster.turn(node, |_| true), Plan::default());
        }
    }

    #[test]
    fn shards_in_which_something_runs_stay_where_they_are() {
        let mut cluster = Cluster::new(&["a"]);
        cluster.turn("a", |_| true);
        cluster.join("b");
        for _ in 0..20 {
            cluster.turn("a", |shard| shard < 100);
            assert!(cluster.turn("b", |_| true).is_short);
        }
        assert_eq!(cluster.held(), [156, 100]);
    }

    #[test]
    fn what_a_dead_node_leaves_is_shared_among_the_others_at_once() {
        let mut cluster = Cluster::new(&["a", "b", "c"]);
        for node in ["a", "b", "c"] {
            cluster.turn(node, |_| true);
        }
        assert_eq!(cluster.held(), [86, 86, 84]);
        cluster.die("b");
        cluster.turn("a", |_| false);
        cluster.turn("c", |_| false);
        assert_eq!(cluster.held(), [128, 128]);
    }

    #[test]
    fn a_node_takes_what_the_store_says_is_its_own_from_an_earlier_life() {
        let mut cluster = Cluster::new(&["a", "b"]);
        cluster.turn("a", |_| true);
        cluster.turn("b", |_| true);
        assert_eq!(plan("a", &cluster.0, &[], 32, |_| true).claim, 128);
    }
}
