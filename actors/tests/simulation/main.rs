//! The platform under a virtual clock, with sandboxes, runners and handlers played by a seed, killed and started again
//! at any moment over a log that fails; at the end the laws are checked.
//!
//! `HYPERCODE_SIM_SEEDS` says how many seeds are played, `HYPERCODE_SIM_SEED` plays one alone.

#![allow(
    unreachable_pub,
    reason = "nothing outside reaches a test; what its modules share is public among them"
)]

mod claim;
mod dice;
mod gateway;
mod handler;
mod laws;
mod life;
mod runner;
mod scene;
mod snapshots;
mod takeover;
mod user;
mod wire;
mod world;

use events::invariant::Law;
use scene::{play, play_on};
use wire::Sabotage;

/// As in the program: most of what a play does is to make and drop small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}=`{text}`: expected a number")))
}

#[test]
fn the_laws_hold_over_many_seeds() {
    if let Some(seed) = number("HYPERCODE_SIM_SEED") {
        let outcome = play(seed, Sabotage::None);
        outcome.log.iter().for_each(|event| println!("{}", laws::line(event)));
        println!("seed {seed}: log {}", outcome.hash);
        assert!(holds(seed, outcome.broken.as_ref()), "seed {seed} breaks a law");
        return;
    }
    let seeds = number("HYPERCODE_SIM_SEEDS").unwrap_or(20);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let broken: Vec<u64> = std::thread::scope(|scope| {
        let play_some = |first| {
            let mine = (first..seeds).step_by(threads as usize);
            mine.filter(|&seed| !holds(seed, play(seed, Sabotage::None).broken.as_ref())).collect::<Vec<_>>()
        };
        let players: Vec<_> = (0..threads).map(|first| scope.spawn(move || play_some(first))).collect();
        players.into_iter().flat_map(|player| player.join().expect("a play does not panic")).collect()
    });
    assert!(broken.is_empty(), "{} of {seeds} seeds break a law: {broken:?}", broken.len());
}

/// Says how to play a seed again that broke a law.
fn holds(seed: u64, broken: Option<&laws::Broken>) -> bool {
    if let Some(law) = broken {
        println!(
            "seed {seed} breaks {law}\nplay it again: HYPERCODE_SIM_SEED={seed} cargo test -p hypercode-actors \
             --test simulation the_laws -- --nocapture\n"
        );
    }
    broken.is_none()
}

#[test]
fn the_laws_hold_on_three_nodes_of_which_some_die_and_some_stand_still() {
    let seeds = number("HYPERCODE_SIM_CLUSTER_SEEDS").unwrap_or(4);
    let only = number("HYPERCODE_SIM_CLUSTER_SEED");
    let broken: Vec<String> = only
        .map_or(0..seeds, |seed| seed..seed + 1)
        .filter_map(|seed| {
            let outcome = play_on(3, seed, Sabotage::None);
            if only.is_some() {
                outcome.log.iter().for_each(|event| println!("{}", laws::line(event)));
            }
            outcome.broken.map(|law| format!("HYPERCODE_SIM_CLUSTER_SEED={seed} breaks {law}"))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Counted from the death, at any moment between two renewals, with a database that is in no hurry.
#[test]
fn the_shards_of_a_node_that_dies_are_anothers_within_the_lease_time() {
    for seed in 0..20 {
        let (took, lease) = takeover::of_a_dead_node(seed);
        assert!(took <= lease, "seed {seed}: {} ms after the death", took.as_millis());
    }
}

/// SB-1 to SB-3, SV-1, SV-2, TK-1 and TK-2 hold whoever dies between two steps of a claim.
#[test]
fn the_laws_hold_whoever_dies_at_any_point_of_a_claim() {
    let seeds = number("HYPERCODE_SIM_CLAIM_SEEDS").unwrap_or(1);
    let plays = (0..seeds).flat_map(|seed| claim::points().map(move |point| (point, seed)));
    let broken: Vec<String> = plays
        .filter_map(|(point, seed)| {
            let broken = claim::dies_at(point, seed).err()?;
            Some(format!("{point:?} with seed {seed} breaks {broken}"))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What agents, spawner, supervisor and watchdog do has a cause in the log, and belongs to what somebody outside asked for.
#[test]
fn whatever_follows_says_from_what() {
    let unexplained = |play: scene::Outcome| -> Vec<String> {
        play.log.iter().filter(|event| !is_explained(event)).map(laws::line).collect()
    };
    for seed in 0..10 {
        assert_eq!(unexplained(play(seed, Sabotage::None)), [""; 0], "seed {seed}");
    }
    assert_eq!(unexplained(play_on(2, 0, Sabotage::None)), [""; 0]);
}

/// Whether an event was asked for by somebody outside, or says what it follows from and what it belongs together with.
fn is_explained(event: &events::Recorded) -> bool {
    let meta = &event.meta;
    let follows = meta.causation_id.is_some() && meta.correlation_id.is_some();
    follows || meta.principal.as_str().starts_with("user:")
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..3 {
        assert_eq!(play(seed, Sabotage::None).hash, play(seed, Sabotage::None).hash, "seed {seed}");
    }
    assert_ne!(play(0, Sabotage::None).hash, play(1, Sabotage::None).hash);
}

#[test]
fn entities_come_back_from_snapshots_and_not_from_those_of_another_log() {
    let plays: Vec<_> = (0..10).map(|seed| play(seed, Sabotage::None)).collect();
    assert!(plays.iter().any(|play| play.snapshots.0 > 0), "no entity came back from a snapshot");
    assert!(plays.iter().any(|play| play.snapshots.1 > 0), "no snapshot was forged");
    assert!(
        plays.iter().all(|play| play.broken.is_none()),
        "a snapshot of another log was taken for the entity"
    );
}

/// Whether some seed shows the sabotage by the law, and shows nothing without the sabotage.
fn is_caught(sabotage: Sabotage, law: Law) -> bool {
    let breaks = |seed, sabotage| play(seed, sabotage).broken.is_some_and(|broken| broken.law == law);
    (0..40).any(|seed| breaks(seed, sabotage) && !breaks(seed, Sabotage::None))
}

#[test]
fn a_store_that_gives_events_out_of_order_is_caught() {
    assert!(is_caught(Sabotage::Order, Law::Es1));
}

#[test]
fn a_store_that_forgets_which_commands_it_has_taken_is_caught() {
    assert!(is_caught(Sabotage::Dedupe, Law::Es5));
}

#[test]
fn results_that_pass_without_their_fence_are_caught() {
    assert!(is_caught(Sabotage::Fencing, Law::Tk2));
}
