use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy;

use super::*;

const PAUSE_MS: u64 = 1_000;

fn subject(number: u64) -> Subject {
    Subject { agent: format!("ag_{number}").parse().expect("legal"), incarnation: Incarnation(1) }
}

fn task(number: u8) -> TaskId {
    format!("tk_{number}").parse().expect("legal")
}

fn started(frames: bool) -> Sign {
    Sign::TaskStarted { task: task(1), frames }
}

fn beat() -> Sign {
    Sign::Heartbeat(Beat::default())
}

/// One agent under watch, with heartbeats every second for as long as nothing else is said.
struct Scene {
    watchdog: Watchdog,
    now_ms: u64,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self { watchdog: Watchdog::new(0, PAUSE_MS), now_ms: 0 };
        assert_eq!(scene.sign(Sign::Adopted(Liveness::default())), []);
        assert_eq!(scene.sign(Sign::Linked), []);
        scene
    }

    fn busy() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.sign(started(true)), []);
        scene
    }

    fn sign(&mut self, sign: Sign) -> Vec<Finding> {
        let verdicts = self.watchdog.step(self.now_ms, Signal::Of(subject(1), sign));
        verdicts.into_iter().map(|verdict| verdict.finding).collect()
    }

    /// Lets time pass in ticks of half a second, with or without heartbeats.
    fn pass(&mut self, ms: u64, beats: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        for _ in 0..ms / 500 {
            self.now_ms += 500;
            if beats {
                findings.extend(self.sign(beat()));
            }
            let verdicts = self.watchdog.step(self.now_ms, Signal::Tick);
            findings.extend(verdicts.into_iter().map(|verdict| verdict.finding));
        }
        findings
    }

    /// Silence, but for heartbeats.
    fn silence(&mut self, ms: u64) -> Vec<Finding> {
        self.pass(ms, true)
    }
}

const PROGRESS_MS: u64 = 15 * 60 * 1_000;
const SILENT: Finding = Finding::Hung { reason: HungReason::Silent };

#[test]
fn a_busy_handler_that_falls_silent_is_hung_once_and_recovers_by_a_frame() {
    let mut scene = Scene::busy();
    assert_eq!(scene.silence(PROGRESS_MS - 500), []);
    assert_eq!(scene.silence(500), [SILENT]);
    assert_eq!(scene.silence(PROGRESS_MS), []);
    assert_eq!(scene.sign(Sign::Frame), [Finding::Recovered]);
    assert_eq!(scene.silence(PROGRESS_MS), [SILENT]);
}

#[test]
fn an_idle_handler_may_be_silent() {
    let mut scene = Scene::new();
    assert_eq!(scene.silence(2 * PROGRESS_MS), []);
    assert_eq!(scene.sign(started(true)), [], "the clock starts with the task");
    assert_eq!(scene.silence(PROGRESS_MS - 500), []);
    assert_eq!(scene.sign(Sign::TaskEnded { task: task(1) }), []);
    assert_eq!(scene.silence(2 * PROGRESS_MS), []);
}

#[test]
fn a_carrier_without_frames_may_be_silent() {
    let mut scene = Scene::new();
    assert_eq!(scene.sign(started(false)), []);
    assert_eq!(scene.silence(3 * PROGRESS_MS), []);
}

#[test]
fn the_clock_stands_still_while_a_call_is_pending() {
    let mut scene = Scene::busy();
    assert_eq!(scene.sign(Sign::CallOpened), []);
    assert_eq!(scene.silence(3 * PROGRESS_MS), []);
    assert_eq!(scene.sign(Sign::CallClosed), []);
    assert_eq!(scene.silence(PROGRESS_MS - 500), []);
    assert_eq!(scene.silence(500), [SILENT]);
}

#[test]
fn a_busy_lease_excuses_silence_until_it_ends() {
    let mut scene = Scene::busy();
    assert_eq!(scene.sign(Sign::Busy { for_ms: PROGRESS_MS }), []);
    assert_eq!(scene.silence(2 * PROGRESS_MS - 500), []);
    assert_eq!(scene.silence(500), [SILENT]);
    let leased = Beat { lease_ms: 60_000, ..Beat::default() };
    assert_eq!(scene.sign(Sign::Heartbeat(leased)), [Finding::Recovered]);
}

#[test]
fn bytes_that_move_are_progress() {
    let mut scene = Scene::busy();
    assert_eq!(scene.silence(PROGRESS_MS - 500), []);
    assert_eq!(scene.sign(Sign::BytesMoved), []);
    assert_eq!(scene.silence(PROGRESS_MS - 500), []);
}

#[test]
fn the_runner_knows_best_when_it_last_heard_the_handler() {
    let mut scene = Scene::busy();
    scene.silence(PROGRESS_MS - 500);
    let heard = Beat { idle_ms: Some(60_000), ..Beat::default() };
    assert_eq!(scene.sign(Sign::Heartbeat(heard)), []);
    assert_eq!(scene.silence(PROGRESS_MS - 60_500), []);
    assert_eq!(scene.silence(500), [SILENT]);
}

#[test]
fn an_open_input_is_waiting_not_hanging() {
    let mut scene = Scene::busy();
    assert_eq!(scene.sign(Sign::InputOpened), [Finding::Waiting]);
    assert_eq!(scene.sign(Sign::InputOpened), []);
    assert_eq!(scene.silence(3 * PROGRESS_MS), []);
    assert_eq!(scene.sign(Sign::InputClosed), []);
    assert_eq!(scene.sign(Sign::InputClosed), [Finding::Recovered]);
}

#[test]
fn a_stopped_process_is_hung_at_once() {
    let mut scene = Scene::new();
    let stopped = Sign::Heartbeat(Beat { stopped: true, ..Beat::default() });
    assert_eq!(scene.sign(stopped.clone()), [Finding::Hung { reason: HungReason::Stopped }]);
    assert_eq!(scene.sign(stopped), []);
    assert_eq!(scene.sign(beat()), [Finding::Recovered]);
}

#[test]
fn a_ping_without_answer_is_hung() {
    let mut scene = Scene::new();
    let ping = |ping_ms| Sign::Heartbeat(Beat { ping_ms, ..Beat::default() });
    assert_eq!(scene.sign(ping(agent::PING_MS_MAX - 1)), []);
    assert_eq!(scene.sign(ping(agent::PING_MS_MAX)), [Finding::Hung { reason: HungReason::Ping }]);
}

#[test]
fn missed_heartbeats_are_lost_and_the_next_one_recovers() {
    let mut scene = Scene::busy();
    assert_eq!(scene.sign(Sign::LinkLost), [], "the runner may come back");
    assert_eq!(scene.pass(2_500, false), []);
    assert_eq!(scene.pass(500, false), [Finding::Lost]);
    assert_eq!(scene.pass(60_000, false), []);
    assert_eq!(scene.sign(Sign::Linked), [Finding::Recovered]);
}

#[test]
fn silence_without_a_link_is_not_the_handlers() {
    let mut scene = Scene::busy();
    scene.silence(PROGRESS_MS - 1_000);
    scene.sign(Sign::LinkLost);
    assert_eq!(scene.pass(2_500, false), []);
    assert_eq!(scene.sign(Sign::Linked), []);
    assert_eq!(scene.silence(500), []);
    assert_eq!(scene.silence(500), [SILENT]);
}

#[test]
fn death_is_the_last_word() {
    let mut scene = Scene::busy();
    scene.pass(3_000, false);
    let exited = Sign::SandboxExited { reason: "signal 9".to_owned() };
    assert_eq!(scene.sign(exited.clone()), [Finding::Dead { reason: "signal 9".to_owned() }]);
    assert_eq!(scene.sign(exited), []);
    assert_eq!(scene.sign(Sign::Linked), []);
    assert_eq!(scene.pass(60_000, false), []);
}

#[test]
fn other_incarnations_and_removed_agents_concern_nobody() {
    let mut scene = Scene::new();
    let later = Subject { incarnation: Incarnation(2), ..subject(1) };
    let exited = Sign::SandboxExited { reason: String::new() };
    assert_eq!(scene.watchdog.step(0, Signal::Of(later, exited.clone())), []);
    assert_eq!(scene.sign(Sign::Removed), []);
    assert_eq!(scene.pass(60_000, false), []);
    assert_eq!(scene.sign(exited), []);
    assert_eq!(scene.watchdog.next_check_ms(), None, "nothing is kept of it");
}

fn crowd(size: u64) -> Watchdog {
    let mut watchdog = Watchdog::new(0, PAUSE_MS);
    for number in 0..size {
        for sign in [Sign::Adopted(Liveness::default()), Sign::Linked, started(true)] {
            assert_eq!(watchdog.step(0, Signal::Of(subject(number), sign)), []);
        }
    }
    watchdog
}

#[test]
fn a_pause_of_the_watchdog_itself_condemns_nobody() {
    let mut watchdog = crowd(100);
    let away_ms = 60 * 60 * 1_000;
    assert_eq!(watchdog.step(away_ms, Signal::Tick), []);
    // One period of grace, no more: those heard within it stay, the others are lost.
    for number in 0..99 {
        assert_eq!(watchdog.step(away_ms + 500, Signal::Of(subject(number), beat())), []);
    }
    let mut verdicts = Vec::new();
    for passed_ms in (1_000..=3_000).step_by(500) {
        verdicts.extend(watchdog.step(away_ms + passed_ms, Signal::Tick));
    }
    assert_eq!(verdicts, [Verdict { subject: subject(99), finding: Finding::Lost }]);
}

#[test]
fn a_pause_of_those_who_pass_signals_on_condemns_nobody() {
    let mut watchdog = crowd(2);
    let (mut verdicts, mut now_ms) = (Vec::new(), 0);
    let mut pass = |watchdog: &mut Watchdog, ms: u64, pulses: bool| {
        let mut verdicts = Vec::new();
        for _ in 0..ms / 500 {
            now_ms += 500;
            verdicts.extend(watchdog.step(now_ms, if pulses { Signal::Pulse } else { Signal::Tick }));
        }
        verdicts
    };
    verdicts.extend(pass(&mut watchdog, 1_000, true));
    verdicts.extend(pass(&mut watchdog, 60_000, false));
    verdicts.extend(watchdog.step(61_000, Signal::Of(subject(1), Sign::LinkLost)));
    assert_eq!(verdicts, [], "a deaf watchdog does not judge by silence");
    let exited = Sign::SandboxExited { reason: String::new() };
    let dead = watchdog.step(61_000, Signal::Of(subject(0), exited));
    assert_eq!(dead.len(), 1, "but death is no silence");
    assert_eq!(pass(&mut watchdog, 3_000, true), []);
    assert_eq!(
        pass(&mut watchdog, 500, true),
        [Verdict { subject: subject(1), finding: Finding::Lost }],
        "one period of grace, no more"
    );
}

#[test]
fn a_pause_brings_nobody_back() {
    let mut scene = Scene::busy();
    assert_eq!(scene.pass(3_000, false), [Finding::Lost]);
    scene.now_ms += 60 * 60 * 1_000;
    assert_eq!(scene.pass(10_000, false), []);
}

#[test]
fn ten_thousand_agents_cost_one_planned_look_each() {
    let mut watchdog = crowd(10_000);
    let subjects: Vec<Subject> = (0..10_000).map(subject).collect();
    let mut verdicts = Vec::new();
    for now_ms in (250..=15_000).step_by(250) {
        // Each agent has its own quarter of a second; the first one falls silent after five seconds.
        for (number, subject) in subjects.iter().enumerate().skip(now_ms / 250 % 4).step_by(4) {
            if number > 0 || now_ms <= 5_000 {
                verdicts.extend(watchdog.step(now_ms as u64, Signal::Of(subject.clone(), beat())));
            }
        }
        verdicts.extend(watchdog.step(now_ms as u64, Signal::Tick));
        assert!(watchdog.checks.len() <= subjects.len());
        assert_eq!(verdicts.len(), usize::from(now_ms >= 8_000), "at {now_ms}");
    }
    assert_eq!(verdicts, [Verdict { subject: subject(0), finding: Finding::Lost }]);
}

/// The same rules told a millisecond at a time, with a look at everybody after every signal.
struct Model {
    agents: Vec<ModelAgent>,
}

#[derive(Default)]
struct ModelAgent {
    watched: bool,
    unheard_ms: u64,
    silent_ms: u64,
    lease_ms: u64,
    linked: bool,
    beat: Beat,
    tasks: BTreeSet<TaskId>,
    frames: BTreeSet<TaskId>,
    calls: u32,
    inputs: u32,
    dead: bool,
    known: Option<Finding>,
}

const MODEL_LIVENESS: Liveness = Liveness { heartbeat_ms: 10, missed: 3, progress_ms: 50 };
const MODEL_PAUSE_MS: u64 = 40;

impl ModelAgent {
    fn pass(&mut self, ms: u64) {
        if ms > MODEL_PAUSE_MS {
            self.lease_ms = self.lease_ms.saturating_sub(ms);
            if self.known != Some(Finding::Lost) {
                self.unheard_ms = 0;
            }
            return;
        }
        for _ in 0..ms {
            let waited_for = self.linked && self.calls == 0 && self.inputs == 0 && !self.frames.is_empty();
            self.silent_ms += u64::from(waited_for && self.lease_ms == 0);
            self.unheard_ms += 1;
            self.lease_ms = self.lease_ms.saturating_sub(1);
        }
    }

    fn take_in(&mut self, sign: Sign) {
        match sign {
            Sign::Adopted(_) => *self = Self { watched: true, ..Self::default() },
            Sign::Removed => self.watched = false,
            Sign::Linked => (self.linked, self.unheard_ms) = (true, 0),
            Sign::LinkLost => self.linked = false,
            Sign::Heartbeat(beat) => {
                (self.beat, self.unheard_ms) = (beat, 0);
                self.lease_ms = self.lease_ms.max(beat.lease_ms);
                self.silent_ms = self.silent_ms.min(beat.idle_ms.unwrap_or(u64::MAX));
            }
            Sign::Frame | Sign::BytesMoved => (self.unheard_ms, self.silent_ms) = (0, 0),
            Sign::Busy { for_ms } => {
                (self.unheard_ms, self.silent_ms) = (0, 0);
                self.lease_ms = self.lease_ms.max(for_ms);
            }
            Sign::CallOpened => (self.unheard_ms, self.silent_ms, self.calls) = (0, 0, self.calls + 1),
            Sign::CallClosed => self.calls = self.calls.saturating_sub(1),
            Sign::SandboxExited { .. } => self.dead = true,
            Sign::TaskStarted { task, frames } => {
                if self.tasks.is_empty() {
                    self.silent_ms = 0;
                }
                self.frames.remove(&task);
                self.frames.extend(frames.then(|| task.clone()));
                self.tasks.insert(task);
            }
            Sign::TaskEnded { task } => {
                self.frames.remove(&task);
                self.tasks.remove(&task);
                if self.tasks.is_empty() {
                    (self.calls, self.inputs, self.lease_ms) = (0, 0, 0);
                }
            }
            Sign::InputOpened => self.inputs += 1,
            Sign::InputClosed => self.inputs = self.inputs.saturating_sub(1),
        }
    }

    fn finding(&mut self) -> Option<Finding> {
        let waited_for = self.linked && self.calls == 0 && self.inputs == 0 && !self.frames.is_empty();
        let is = if self.dead {
            Some(Finding::Dead { reason: String::new() })
        } else if self.unheard_ms >= 30 {
            Some(Finding::Lost)
        } else if self.beat.stopped {
            Some(Finding::Hung { reason: HungReason::Stopped })
        } else if self.beat.ping_ms >= 10_000 {
            Some(Finding::Hung { reason: HungReason::Ping })
        } else if waited_for && self.silent_ms >= 50 && self.lease_ms == 0 {
            Some(SILENT)
        } else {
            (self.inputs > 0).then_some(Finding::Waiting)
        };
        let news = self.watched && self.known != is && !matches!(self.known, Some(Finding::Dead { .. }));
        if !news {
            return None;
        }
        self.known = is.clone();
        Some(is.unwrap_or(Finding::Recovered))
    }
}

impl Model {
    fn step(&mut self, passed_ms: u64, signal: Option<(usize, Sign)>) -> Vec<(Subject, Finding)> {
        self.agents.iter_mut().for_each(|agent| agent.pass(passed_ms));
        if let Some((number, sign)) = signal
            && (self.agents[number].watched || matches!(sign, Sign::Adopted(_)))
        {
            self.agents[number].take_in(sign);
        }
        let news =
            |(number, agent): (usize, &mut ModelAgent)| Some((subject(number as u64), agent.finding()?));
        self.agents.iter_mut().enumerate().filter_map(news).collect()
    }
}

fn signs() -> impl Strategy<Value = Sign> {
    let beats = (any::<bool>(), 0u64..12_000, proptest::option::of(0u64..60), 0u64..40).prop_map(
        |(stopped, ping_ms, idle_ms, lease_ms)| {
            let ping_ms = if ping_ms > 9_000 { ping_ms } else { 0 };
            Sign::Heartbeat(Beat { stopped: stopped && ping_ms > 0, ping_ms, idle_ms, lease_ms })
        },
    );
    prop_oneof![
        3 => Just(Sign::Adopted(MODEL_LIVENESS)),
        1 => Just(Sign::Removed),
        4 => Just(Sign::Linked),
        1 => Just(Sign::LinkLost),
        8 => Just(beat()),
        4 => beats,
        2 => Just(Sign::Frame),
        1 => Just(Sign::BytesMoved),
        1 => (0u64..100).prop_map(|for_ms| Sign::Busy { for_ms }),
        1 => Just(Sign::CallOpened),
        2 => Just(Sign::CallClosed),
        1 => Just(Sign::SandboxExited { reason: String::new() }),
        6 => (0u8..3, any::<bool>()).prop_map(|(number, frames)| Sign::TaskStarted { task: task(number), frames }),
        2 => (0u8..3).prop_map(|number| Sign::TaskEnded { task: task(number) }),
        1 => Just(Sign::InputOpened),
        2 => Just(Sign::InputClosed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_watchdog_does_what_the_model_does(
        steps in vec((0u64..50, proptest::option::weighted(0.8, (0usize..3, signs()))), 0..200),
    ) {
        let mut watchdog = Watchdog::new(0, MODEL_PAUSE_MS);
        let mut model = Model { agents: (0..3).map(|_| ModelAgent::default()).collect() };
        let mut now_ms = 0;
        for (passed_ms, sign) in steps {
            now_ms += passed_ms;
            let signal = sign.clone().map_or(Signal::Tick, |(number, sign)| {
                Signal::Of(subject(number as u64), sign)
            });
            let mut verdicts: Vec<_> =
                watchdog.step(now_ms, signal).into_iter().map(|verdict| (verdict.subject, verdict.finding)).collect();
            verdicts.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(verdicts, model.step(passed_ms, sign));
        }
    }

    /// Whatever is signalled and however wildly time runs: findings of one agent alternate, and death ends them.
    #[test]
    fn each_change_is_said_once(
        steps in vec((0u64..200, signs().prop_filter("one life", |sign| !matches!(sign, Sign::Adopted(_)))), 0..100),
    ) {
        let mut watchdog = Watchdog::new(0, MODEL_PAUSE_MS);
        watchdog.step(0, Signal::Of(subject(1), Sign::Adopted(MODEL_LIVENESS)));
        let (mut now_ms, mut last) = (0, Finding::Recovered);
        for (passed_ms, sign) in steps {
            now_ms += passed_ms;
            for verdict in watchdog.step(now_ms, Signal::Of(subject(1), sign)) {
                prop_assert!(verdict.finding != last, "twice {last:?}");
                prop_assert!(!matches!(last, Finding::Dead { .. }), "after death");
                last = verdict.finding;
            }
        }
    }
}
