//! One suite that every implementation of [`Leases`] passes.

use std::sync::Arc;
use std::time::Duration;

use super::{Leases, NodeState, SHARDS, Table};
use crate::id::Timestamp;
use crate::store::conformance::{Fixture as Store, events_of, request, stream};
use crate::store::{AppendError, Epoch, Expected};

/// Long enough that no lease runs out during a test.
const LONG: Duration = Duration::from_secs(600);
/// Short enough that a test can wait for the end of a lease.
const SHORT: Duration = Duration::from_millis(100);

/// A store with leases under test.
pub trait Fixture: Store {
    /// The leases of its log.
    fn leases(&self) -> Arc<dyn Leases>;
}

/// Expands to one test per law, over the fixture that the expression makes.
#[macro_export]
macro_rules! lease_conformance {
    ($fixture:expr) => {
        $crate::lease_conformance! { $fixture;
            a_shard_has_one_holder,
            es_8_a_stale_epoch_is_refused,
            a_renewed_lease_is_not_taken_and_one_that_ran_out_is,
            a_late_renewal_keeps_what_nobody_took,
            what_is_given_back_is_free_at_once,
            a_node_takes_its_own_anew_and_first,
            claims_at_the_same_moment_win_a_shard_once,
            the_table_says_who_lives_and_who_holds_what,
            nodes_share_a_secret_that_stays,
        }
    };
    ($fixture:expr; $($law:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $law() {
                $crate::lease::conformance::$law($fixture.await).await;
            }
        )+
    };
}

async fn claim(leases: &dyn Leases, node: &str, most: usize) -> Vec<Epoch> {
    leases.claim(node, &[], most, LONG).await.expect("the leases can be claimed")
}

async fn table(leases: &dyn Leases) -> Table {
    leases.table().await.expect("the leases can be read")
}

/// Waits until nobody holds the shard.
async fn ran_out(leases: &dyn Leases, shard: u8) {
    let over = async {
        while table(leases).await.holder(shard).is_some() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(LONG / 20, over).await.expect("a lease that is not renewed runs out");
}

/// All shards go to who asks first; nobody else gets one.
pub async fn a_shard_has_one_holder(fixture: impl Fixture) {
    let leases = fixture.leases();
    let all = claim(&*leases, "a", SHARDS + 1).await;
    let shards: Vec<usize> = all.iter().map(|held| usize::from(held.shard)).collect();
    assert_eq!(shards, (0..SHARDS).collect::<Vec<_>>());
    assert!(all.iter().all(|held| held.epoch == 1));
    assert_eq!(claim(&*leases, "b", SHARDS).await, []);
    assert_eq!(leases.renew("b", &all, LONG).await, Ok(Vec::new()), "what is another's cannot be renewed");
    assert_eq!(leases.claim("a", &all, SHARDS, LONG).await, Ok(Vec::new()), "what is held is left alone");
}

/// The epoch grows with every claim, and appends under an older one are refused (ES-8).
pub async fn es_8_a_stale_epoch_is_refused(mut fixture: impl Fixture) {
    let under = |epoch| {
        let mut request = request(&stream("leased"), Expected::Any, &["1"]);
        request.epoch = Some(epoch);
        request
    };
    let mut before: Option<Epoch> = None;
    for epoch in 1..4 {
        let leases = fixture.leases();
        let held = *claim(&*leases, "a", 1).await.first().expect("a shard is free");
        assert_eq!(held, Epoch { shard: 0, epoch });
        fixture.store().append(under(held)).await.expect("the holder may append");
        if let Some(stale) = before {
            let refused = fixture.store().append(under(stale)).await;
            let expected = AppendError::Fenced { shard: 0, held: stale.epoch, current: epoch };
            assert_eq!(refused, Err(expected));
        }
        leases.release("a", &[held]).await.expect("it is given back");
        before = Some(held);
        fixture.restart().await;
    }
    let never_given = fixture.store().append(under(Epoch { shard: 8, epoch: 1 })).await;
    assert_eq!(never_given, Err(AppendError::Fenced { shard: 8, held: 1, current: 0 }));
    let events = events_of(&*fixture.store(), &stream("leased")).await;
    assert!(events.iter().map(|event| event.epoch).eq([1, 2, 3]));
}

/// A node keeps what it renews; what it does not renew is another's in the end.
pub async fn a_renewed_lease_is_not_taken_and_one_that_ran_out_is(fixture: impl Fixture) {
    let leases = fixture.leases();
    let held = leases.claim("a", &[], 2, SHORT).await.expect("shards are free");
    assert_eq!(leases.renew("a", &held[..1], LONG).await, Ok(held[..1].to_vec()));
    ran_out(&*leases, 1).await;
    let taken = leases.claim("b", &[], 2, LONG).await.expect("they can be claimed");
    assert_eq!(taken, [Epoch { shard: 1, epoch: 2 }, Epoch { shard: 2, epoch: 1 }]);
    assert_eq!(leases.renew("a", &held, LONG).await, Ok(held[..1].to_vec()), "it learns what it lost");
    assert_eq!(table(&*leases).await.holder(1).map(|holder| &**holder), Some("b"));
}

/// A lease that ran out while nobody wanted it goes on under its epoch.
pub async fn a_late_renewal_keeps_what_nobody_took(fixture: impl Fixture) {
    let leases = fixture.leases();
    let held = leases.claim("a", &[], 1, SHORT).await.expect("a shard is free");
    ran_out(&*leases, 0).await;
    assert_eq!(leases.renew("a", &held, LONG).await, Ok(held));
    assert_eq!(claim(&*leases, "b", 1).await, [Epoch { shard: 1, epoch: 1 }]);
}

/// Nobody has to wait for the end of a lease that was given back, and only its holder can give it back.
pub async fn what_is_given_back_is_free_at_once(fixture: impl Fixture) {
    let leases = fixture.leases();
    let held = claim(&*leases, "a", 3).await;
    leases.release("b", &held).await.expect("nothing happens");
    let older = Epoch { shard: 0, epoch: 0 };
    leases.release("a", &[older, held[1]]).await.expect("one is given back");
    let holders: Vec<_> = table(&*leases).await.leases[..3].iter().map(|it| it.holder.is_some()).collect();
    assert_eq!(holders, [true, false, true]);
    assert_eq!(claim(&*leases, "b", 1).await, [Epoch { shard: 1, epoch: 2 }]);
    leases.leave("a").await.expect("it leaves");
    let taken = leases.claim("b", &[Epoch { shard: 1, epoch: 2 }], 2, LONG).await.expect("they are free");
    assert_eq!(taken, [Epoch { shard: 0, epoch: 2 }, Epoch { shard: 2, epoch: 2 }]);
}

/// A node that was started again need not wait for the end of its own leases, and prefers what it had.
pub async fn a_node_takes_its_own_anew_and_first(fixture: impl Fixture) {
    let leases = fixture.leases();
    let other = claim(&*leases, "b", 2).await;
    assert_eq!(claim(&*leases, "a", 2).await.len(), 2);
    leases.release("b", &other).await.expect("they are given back");
    let again = claim(&*leases, "a", 3).await;
    let expected = [(0, 2), (2, 2), (3, 2)].map(|(shard, epoch)| Epoch { shard, epoch });
    assert_eq!(again, expected);
}

/// Nodes that claim at once share the shards: each has one holder.
pub async fn claims_at_the_same_moment_win_a_shard_once(fixture: impl Fixture) {
    let leases = fixture.leases();
    let claims = (0..8).map(|node| {
        let leases = Arc::clone(&leases);
        tokio::spawn(async move { claim(&*leases, &format!("n{node}"), 40).await })
    });
    let mut won = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        let shards = claim.await.expect("a claim does not panic");
        assert!(shards.len() <= 40);
        won.extend(shards);
    }
    won.sort_by_key(|held| held.shard);
    let all: Vec<Epoch> = (0..=u8::MAX).map(|shard| Epoch { shard, epoch: 1 }).collect();
    assert_eq!(won, all);
}

/// What people and other nodes are told.
pub async fn the_table_says_who_lives_and_who_holds_what(fixture: impl Fixture) {
    let leases = fixture.leases();
    let empty = table(&*leases).await;
    assert_eq!((empty.nodes.len(), empty.leases.len()), (0, SHARDS));
    assert!(empty.leases.iter().all(|lease| lease.holder.is_none() && lease.epoch == 0));
    for (node, ttl) in [("c", LONG), ("a", LONG), ("b", SHORT)] {
        assert_eq!(leases.renew(node, &[], ttl).await, Ok(Vec::new()));
    }
    claim(&*leases, "a", 2).await;
    leases.leave("c").await.expect("it leaves");
    let silent = async {
        while table(&*leases).await.nodes[1].state != NodeState::Silent {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(LONG / 20, silent).await.expect("a node that does not renew counts as silent");
    let told = table(&*leases).await;
    let nodes: Vec<_> = told.nodes.iter().map(|node| (&*node.id, node.state)).collect();
    assert_eq!(nodes, [("a", NodeState::Live), ("b", NodeState::Silent), ("c", NodeState::Left)]);
    assert_eq!(told.live().count(), 1);
    assert!(told.nodes.iter().all(|node| node.joined_at <= node.seen_at && node.seen_at > Timestamp(0)));
    assert_eq!((told.held_by("a"), told.held_by("b")), (2, 0));
    assert!(told.leases[0].lasts > LONG / 2 && told.leases[0].lasts <= LONG);
    let joined = told.nodes[0].joined_at;
    leases.renew("a", &[], LONG).await.expect("it renews");
    assert_eq!(table(&*leases).await.nodes[0].joined_at, joined);
    leases.renew("c", &[], LONG).await.expect("it comes back");
    let back = table(&*leases).await;
    assert_eq!(back.nodes[2].state, NodeState::Live);
    assert!(back.nodes[2].joined_at >= told.nodes[2].seen_at, "its life begins anew");
}

/// The nodes of one log know each other, also after a restart.
pub async fn nodes_share_a_secret_that_stays(mut fixture: impl Fixture) {
    let secret = fixture.leases().secret().await.expect("it can be read");
    assert_ne!(secret.0, [0; 32]);
    fixture.restart().await;
    assert_eq!(fixture.leases().secret().await, Ok(secret.clone()));
    assert_eq!(format!("{secret:?}"), "Secret");
}
