//! The supervisor against children that panic, fail, are killed, freeze and do not start.

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorStatus};
use tokio::sync::watch;
use tokio::time::timeout;

use events::supervision::{Backoff, Budget, ChildKind, Exit, OnExhausted, Policy, Strategy};
use hypercode_actors::supervisor::{
    self, ChildId, ChildSpec, ChildState, Counters, Entry, Error, Handle, Journal, JournalError, Options,
};

/// Longer than anything here takes; on the paused clock it costs nothing.
const BOUND: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
enum Poke {
    Panic,
    Fail,
    Freeze,
    Spin,
    Finish,
}

#[derive(Debug, thiserror::Error)]
#[error("do as told")]
struct Disobeyed;

/// Where the children live, and what they did.
#[derive(Default)]
struct Lab {
    log: watch::Sender<Vec<String>>,
    born: Mutex<HashMap<&'static str, Vec<ActorRef<Poke>>>>,
    start_failures: Mutex<HashMap<&'static str, u32>>,
    /// Ends what spins.
    released: AtomicBool,
}

impl Lab {
    fn say(&self, what: &str, name: &str) {
        self.log.send_modify(|log| log.push(format!("{what} {name}")));
    }

    fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    fn latest(&self, name: &str) -> ActorRef<Poke> {
        let born = self.born.lock().expect("no test panics with it");
        born[name].last().expect("was born").clone()
    }

    fn poke(&self, name: &str, poke: Poke) {
        self.latest(name).cast(poke).expect("the child is up");
    }

    fn alive(&self) -> usize {
        let born = self.born.lock().expect("no test panics with it");
        born.values().flatten().filter(|actor| actor.get_status() != ActorStatus::Stopped).count()
    }

    fn fail_starts(&self, name: &'static str, times: u32) {
        self.start_failures.lock().expect("no test panics with it").insert(name, times);
    }

    fn child(self: &Arc<Self>, name: &'static str, kind: ChildKind) -> ChildSpec {
        let lab = self.clone();
        ChildSpec::new(name, kind, move |parent| {
            let lab = lab.clone();
            async move {
                let (actor, _) =
                    Actor::spawn_linked(None, Probe { name, lab: lab.clone() }, (), parent).await?;
                let mut born = lab.born.lock().expect("no test panics with it");
                born.entry(name).or_default().push(actor.clone());
                Ok(actor.get_cell())
            }
        })
    }
}

struct Probe {
    name: &'static str,
    lab: Arc<Lab>,
}

#[ractor::async_trait]
impl Actor for Probe {
    type Msg = Poke;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Poke>, (): ()) -> Result<(), ActorProcessingErr> {
        let mut failures = self.lab.start_failures.lock().expect("no test panics with it");
        match failures.get_mut(self.name) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(Disobeyed.into())
            }
            _ => {
                self.lab.say("start", self.name);
                Ok(())
            }
        }
    }

    async fn handle(&self, me: ActorRef<Poke>, poke: Poke, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match poke {
            Poke::Panic => panic!("told to panic"),
            Poke::Fail => Err(Disobeyed.into()),
            Poke::Freeze => pending().await,
            Poke::Spin => {
                self.lab.say("spin", self.name);
                // Its worker's other work moves on: a task that sits in the slot beside a running one is given to no
                // other worker, and which task that is, is chance.
                tokio::task::block_in_place(|| {
                    while !self.lab.released.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                });
                Ok(())
            }
            Poke::Finish => {
                me.stop(None);
                Ok(())
            }
        }
    }

    async fn post_stop(&self, _: ActorRef<Poke>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        self.lab.say("stop", self.name);
        Ok(())
    }
}

/// A journal that remembers.
#[derive(Default)]
struct Memory(watch::Sender<Vec<Entry>>);

#[async_trait]
impl Journal for Memory {
    async fn record(&self, entry: Entry) -> Result<(), JournalError> {
        self.0.send_modify(|entries| entries.push(entry));
        Ok(())
    }
}

impl Memory {
    /// Waits for an entry, and answers with all so far.
    async fn until(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut entries = self.0.subscribe();
        let found = entries.wait_for(|entries| entries.iter().any(&wanted));
        timeout(BOUND, found).await.expect("the entry is recorded").expect("the journal lives").clone()
    }

    fn exits(&self, name: &str) -> Vec<Exit> {
        let exit = |entry: &Entry| match entry {
            Entry::ChildExited { child, exit, .. } if child.as_str() == name => Some(*exit),
            _ => None,
        };
        self.0.borrow().iter().filter_map(exit).collect()
    }

    fn delays(&self) -> Vec<u64> {
        let delay = |entry: &Entry| match entry {
            Entry::RestartScheduled { delay_ms, .. } => Some(*delay_ms),
            _ => None,
        };
        self.0.borrow().iter().filter_map(delay).collect()
    }
}

fn restarted(name: &'static str) -> impl Fn(&Entry) -> bool {
    move |entry| matches!(entry, Entry::Restarted { child, .. } if child.as_str() == name)
}

fn gave_up(entry: &Entry) -> bool {
    matches!(entry, Entry::GaveUp { .. })
}

fn policy(strategy: Strategy) -> Policy {
    let backoff = Backoff { initial_ms: 100, max_ms: 1_000, jitter: 0.0 };
    Policy { strategy, max_restarts: 3, within_ms: 10_000, backoff, ..Policy::default() }
}

struct Bench {
    lab: Arc<Lab>,
    journal: Arc<Memory>,
    options: Options,
}

impl Bench {
    fn new(policy: Policy, children: &[(&'static str, ChildKind)]) -> Self {
        let (lab, journal) = (Arc::new(Lab::default()), Arc::new(Memory::default()));
        let mut options = Options::new(policy, journal.clone());
        options.children = children.iter().map(|&(name, kind)| lab.child(name, kind)).collect();
        Self { lab, journal, options }
    }

    fn permanent(strategy: Strategy, names: &[&'static str]) -> Self {
        let children: Vec<_> = names.iter().map(|&name| (name, ChildKind::Permanent)).collect();
        Self::new(policy(strategy), &children)
    }

    async fn run(self) -> (Handle, Arc<Lab>, Arc<Memory>) {
        let handle = supervisor::spawn(self.options).await.expect("the supervisor starts");
        // The list is answered after the first children were started.
        handle.children().await.expect("the supervisor runs");
        (handle, self.lab, self.journal)
    }
}

/// Makes one child end in some way; how that was counted and recorded.
async fn one_end(kind: ChildKind, poke: Poke) -> (Counters, Vec<Exit>, Vec<String>) {
    let (handle, lab, journal) = Bench::new(policy(Strategy::OneForOne), &[("a", kind)]).run().await;
    lab.poke("a", poke);
    journal.until(restarted("a")).await;
    (handle.counters(), journal.exits("a"), lab.log())
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_recorded_and_restarted() {
    let (counters, exits, log) = one_end(ChildKind::Transient, Poke::Panic).await;
    assert_eq!(counters, Counters { panics: 1, restarts: 1, ..Counters::default() });
    assert_eq!(exits, [Exit::Panicked]);
    assert_eq!(log, ["start a", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_counted_recorded_and_restarted() {
    let (counters, exits, _) = one_end(ChildKind::Transient, Poke::Fail).await;
    assert_eq!(counters, Counters { errors: 1, restarts: 1, ..Counters::default() });
    assert_eq!(exits, [Exit::Failed]);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_child_that_finishes_is_restarted() {
    let (counters, exits, _) = one_end(ChildKind::Permanent, Poke::Finish).await;
    assert_eq!(counters, Counters { restarts: 1, ..Counters::default() });
    assert_eq!(exits, [Exit::Done]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_transient_child_is_restarted() {
    let bench = Bench::new(policy(Strategy::OneForOne), &[("a", ChildKind::Transient)]);
    let (handle, lab, journal) = bench.run().await;
    lab.latest("a").kill();
    journal.until(restarted("a")).await;
    assert_eq!(handle.counters(), Counters { kills: 1, restarts: 1, ..Counters::default() });
    assert_eq!(journal.exits("a"), [Exit::Killed]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_not_restarted_is_forgotten() {
    let children = [("finishes", ChildKind::Transient), ("panics", ChildKind::Temporary)];
    let (handle, lab, journal) = Bench::new(policy(Strategy::OneForOne), &children).run().await;
    lab.poke("finishes", Poke::Finish);
    lab.poke("panics", Poke::Panic);
    journal.until(|entry| matches!(entry, Entry::ChildExited { exit: Exit::Panicked, .. })).await;
    journal.until(|entry| matches!(entry, Entry::ChildExited { exit: Exit::Done, .. })).await;
    assert_eq!(handle.children().await, Ok(vec![]));
    assert_eq!(handle.counters(), Counters { panics: 1, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn a_frozen_child_is_killed_after_the_bound_and_restarted() {
    let (handle, lab, journal) = Bench::permanent(Strategy::OneForOne, &["a"]).run().await;
    let frozen = lab.latest("a");
    lab.poke("a", Poke::Freeze);
    assert_eq!(handle.replace("a".into(), Exit::Hung).await, Ok(true));
    assert_eq!(frozen.get_status(), ActorStatus::Stopped);
    journal.until(restarted("a")).await;
    assert_eq!(handle.counters(), Counters { kills: 1, replaced: 1, restarts: 1, ..Counters::default() });
    assert_eq!(journal.exits("a"), [Exit::Hung]);
    assert_eq!(handle.replace("nobody".into(), Exit::Hung).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_child_that_never_awaits_does_not_hold_up_its_supervisor() {
    let mut bench = Bench::permanent(Strategy::OneForOne, &["a"]);
    (bench.options.limits.stop_ms, bench.options.limits.kill_ms) = (10, 10);
    let (handle, lab, journal) = bench.run().await;
    let spinning = lab.latest("a");
    lab.poke("a", Poke::Spin);
    let spins = |log: &Vec<String>| log.iter().any(|said| said == "spin a");
    timeout(BOUND, lab.log.subscribe().wait_for(spins)).await.expect("it spins").expect("the lab lives");
    assert_eq!(handle.replace("a".into(), Exit::Hung).await, Ok(true));
    journal.until(restarted("a")).await;
    assert_eq!(handle.counters().kills, 1);
    assert_eq!(journal.exits("a"), [Exit::Hung]);
    lab.released.store(true, Ordering::SeqCst);
    spinning.wait(Some(BOUND)).await.expect("it takes the kill when it awaits");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_tried_again_with_growing_waits() {
    let bench = Bench::permanent(Strategy::OneForOne, &["a", "b"]);
    bench.lab.fail_starts("a", 2);
    let (handle, lab, journal) = bench.run().await;
    journal.until(restarted("a")).await;
    assert_eq!(handle.counters(), Counters { start_failures: 2, restarts: 1, ..Counters::default() });
    assert_eq!(journal.exits("a"), [Exit::StartFailed, Exit::StartFailed]);
    assert_eq!(journal.delays(), [100, 200]);
    assert_eq!(lab.log(), ["start b", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_panics_or_never_ends_is_a_start_that_failed() {
    let (handle, _, journal) = Bench::permanent(Strategy::OneForOne, &[]).run().await;
    let panics = ChildSpec::new("panics", ChildKind::Permanent, |_| async { panic!("told to panic") });
    let hangs = ChildSpec::new("hangs", ChildKind::Permanent, |_| pending());
    for (name, spec) in [("panics", panics), ("hangs", hangs)] {
        let refused = handle.add(spec).await;
        assert!(matches!(refused, Err(Error::StartFailed { .. })), "{refused:?}");
        journal
            .until(|entry| matches!(entry, Entry::ChildExited { child, .. } if child.as_str() == name))
            .await;
        assert_eq!(journal.exits(name), [Exit::StartFailed]);
    }
    assert_eq!(handle.counters(), Counters { start_failures: 2, ..Counters::default() });
    assert_eq!(handle.children().await, Ok(vec![]), "what does not come up is not added");
}

#[tokio::test(start_paused = true)]
async fn a_storm_spends_the_budget_and_quarantines_the_child_alone() {
    let bench = Bench::permanent(Strategy::OneForOne, &["a", "b"]);
    bench.lab.fail_starts("a", u32::MAX);
    let (handle, _, journal) = bench.run().await;
    journal.until(gave_up).await;
    assert_eq!(handle.counters(), Counters { start_failures: 4, gave_up: 1, ..Counters::default() });
    assert_eq!(journal.delays(), [100, 200, 400]);
    let states = handle.children().await.expect("the supervisor goes on");
    assert_eq!(states, [("a".into(), ChildState::Quarantined), ("b".into(), ChildState::Up)]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_spent_before_stays_spent() {
    let mut bench = Bench::permanent(Strategy::OneForOne, &["a"]);
    let mut budget: Budget<ChildId> = Budget::default();
    (0..3).for_each(|at_ms| budget.restarted(&bench.options.policy, &"a".into(), at_ms));
    (bench.options.budget, bench.options.now_ms) = (budget, 5_000);
    let (handle, lab, journal) = bench.run().await;
    lab.poke("a", Poke::Panic);
    journal.until(gave_up).await;
    assert_eq!(handle.counters(), Counters { panics: 1, gave_up: 1, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn a_stable_child_starts_over_with_the_shortest_wait() {
    let (_handle, lab, journal) = Bench::permanent(Strategy::OneForOne, &["a"]).run().await;
    for failures in 1..=2 {
        lab.poke("a", Poke::Panic);
        let count = |log: &Vec<String>| log.len() == failures + 1;
        lab.log.subscribe().wait_for(count).await.expect("the lab lives");
        // The supervisor hears of the start right after the child does.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(Policy::default().stable_after_ms)).await;
    lab.poke("a", Poke::Panic);
    lab.log.subscribe().wait_for(|log| log.len() == 4).await.expect("the lab lives");
    assert_eq!(journal.delays(), [100, 200, 100]);
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_restarts_those_started_later_in_order() {
    let (handle, lab, journal) = Bench::permanent(Strategy::RestForOne, &["a", "b", "c", "d"]).run().await;
    lab.poke("b", Poke::Panic);
    journal.until(restarted("d")).await;
    assert_eq!(lab.log()[4..], ["stop d", "stop c", "start b", "start c", "start d"]);
    assert_eq!(handle.counters(), Counters { panics: 1, restarts: 3, ..Counters::default() });
    assert_eq!(journal.exits("d"), [Exit::Drained]);
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_starts_nothing_on_top_of_a_child_that_is_not_up() {
    let bench = Bench::permanent(Strategy::RestForOne, &["a", "b", "c"]);
    bench.lab.fail_starts("b", 1);
    let (handle, lab, journal) = bench.run().await;
    journal.until(restarted("c")).await;
    assert_eq!(lab.log(), ["start a", "start b", "start c"]);
    assert_eq!(handle.counters(), Counters { start_failures: 1, restarts: 2, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn one_for_all_restarts_all_in_order() {
    let (handle, lab, journal) = Bench::permanent(Strategy::OneForAll, &["a", "b", "c"]).run().await;
    lab.poke("b", Poke::Fail);
    journal.until(restarted("c")).await;
    assert_eq!(lab.log()[3..], ["stop c", "stop a", "start a", "start b", "start c"]);
    assert_eq!(handle.counters(), Counters { errors: 1, restarts: 3, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_escalates_is_restarted_by_its_parent() {
    let (lab, inner_journal) = (Arc::new(Lab::default()), Arc::new(Memory::default()));
    let inner_policy =
        Policy { max_restarts: 0, on_exhausted: OnExhausted::Escalate, ..policy(Strategy::OneForOne) };
    let nested = {
        let (lab, journal) = (lab.clone(), inner_journal.clone());
        ChildSpec::new("inner", ChildKind::Permanent, move |parent| {
            let mut options = Options::new(inner_policy.clone(), journal.clone());
            options.children = ["a", "b"].map(|name| lab.child(name, ChildKind::Permanent)).into();
            async move { Ok(supervisor::spawn_under(parent, options).await?.1) }
        })
    };
    let mut bench = Bench::permanent(Strategy::OneForOne, &[]);
    bench.options.children = vec![nested];
    let (handle, _, journal) = bench.run().await;
    lab.log.subscribe().wait_for(|log| log.len() == 2).await.expect("the lab lives");
    tokio::task::yield_now().await;
    lab.poke("a", Poke::Panic);
    journal.until(restarted("inner")).await;
    lab.log.subscribe().wait_for(|log| log.len() == 5).await.expect("the lab lives");
    assert_eq!(lab.log()[2..], ["stop b", "start a", "start b"]);
    assert_eq!(handle.counters(), Counters { errors: 1, restarts: 1, ..Counters::default() });
    assert_eq!(journal.exits("inner"), [Exit::Failed]);
    inner_journal.until(gave_up).await;
    assert!(handle.stop(60_000).await);
    assert_eq!(lab.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_disbands_stops_all_and_ends() {
    let mut bench = Bench::permanent(Strategy::OneForOne, &["a", "b", "c"]);
    bench.options.policy.max_restarts = 0;
    bench.options.policy.on_exhausted = OnExhausted::Disband;
    let (handle, lab, journal) = bench.run().await;
    lab.poke("b", Poke::Panic);
    assert!(handle.stopped(60_000).await);
    assert_eq!(lab.log()[3..], ["stop c", "stop a"]);
    assert_eq!(lab.alive(), 0);
    assert_eq!(handle.counters(), Counters { panics: 1, gave_up: 1, ..Counters::default() });
    journal.until(gave_up).await;
    assert_eq!(handle.children().await, Err(Error::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_stopping_supervisor_stops_in_reverse_order_and_kills_what_hangs() {
    let (handle, lab, journal) = Bench::permanent(Strategy::OneForOne, &["a", "b", "c"]).run().await;
    lab.poke("b", Poke::Freeze);
    assert!(handle.stop(60_000).await);
    assert_eq!(lab.log()[3..], ["stop c", "stop a"], "a killed child runs no `post_stop`");
    assert_eq!(lab.alive(), 0);
    assert_eq!(handle.counters(), Counters { kills: 1, ..Counters::default() });
    let exits = ["c", "b", "a"].map(|name| journal.exits(name));
    assert_eq!(exits, [vec![Exit::Drained], vec![Exit::Killed], vec![Exit::Drained]]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_leaves_no_child() {
    let (handle, lab, _) = Bench::permanent(Strategy::OneForOne, &["a", "b"]).run().await;
    lab.poke("b", Poke::Freeze);
    assert!(!handle.stop(1_000).await, "a frozen child takes longer than that");
    assert!(handle.stopped(1_000).await);
    for name in ["a", "b"] {
        timeout(BOUND, lab.latest(name).wait(None)).await.expect("it ends").expect("no bound of its own");
    }
    assert_eq!(lab.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn children_come_and_go() {
    let (handle, lab, journal) = Bench::permanent(Strategy::OneForOne, &["a"]).run().await;
    handle.add(lab.child("b", ChildKind::Permanent)).await.expect("b starts");
    let twice = handle.add(lab.child("b", ChildKind::Permanent)).await;
    assert_eq!(twice, Err(Error::Duplicate("b".into())));
    assert_eq!(handle.remove("a".into()).await, Ok(true));
    assert_eq!(handle.remove("a".into()).await, Ok(false));
    assert_eq!(handle.children().await, Ok(vec![("b".into(), ChildState::Up)]));
    assert_eq!(lab.log(), ["start a", "start b", "stop a"]);
    assert_eq!(lab.alive(), 1);
    lab.poke("b", Poke::Panic);
    journal.until(restarted("b")).await;
    assert_eq!(handle.counters(), Counters { panics: 1, restarts: 1, ..Counters::default() });
}

#[tokio::test(start_paused = true)]
async fn a_child_removed_while_it_waits_is_not_started_again() {
    let (handle, lab, journal) = Bench::permanent(Strategy::OneForOne, &["a", "b"]).run().await;
    lab.poke("a", Poke::Panic);
    journal.until(|entry| matches!(entry, Entry::RestartScheduled { .. })).await;
    assert_eq!(handle.remove("a".into()).await, Ok(true));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(lab.log(), ["start a", "start b"]);
    assert_eq!(handle.counters(), Counters { panics: 1, ..Counters::default() });
}

/// A journal that never records.
enum Broken {
    Fails,
    Panics,
    Hangs,
}

#[async_trait]
impl Journal for Broken {
    async fn record(&self, _: Entry) -> Result<(), JournalError> {
        match self {
            Self::Fails => Err(JournalError("disk full".to_owned())),
            Self::Panics => panic!("told to panic"),
            Self::Hangs => pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_journal_is_survived_and_its_losses_are_counted() {
    for broken in [Broken::Fails, Broken::Panics, Broken::Hangs] {
        let mut bench = Bench::permanent(Strategy::OneForOne, &["a"]);
        bench.options.journal = Arc::new(broken);
        bench.options.limits.journal_entries_max = 2;
        let (handle, lab, _) = bench.run().await;
        lab.poke("a", Poke::Panic);
        let again = |log: &Vec<String>| log.len() == 2;
        timeout(BOUND, lab.log.subscribe().wait_for(again)).await.expect("restarted").expect("the lab lives");
        assert!(handle.stop(60_000).await);
        // Exit, schedule, restart and the exit by the stop: each is lost in the queue or after its tries.
        let all_lost = async {
            while handle.counters().journal_lost < 4 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(BOUND, all_lost).await.expect("each loss is counted");
        assert_eq!(
            handle.counters(),
            Counters { panics: 1, restarts: 1, journal_lost: 4, ..Counters::default() }
        );
    }
}
