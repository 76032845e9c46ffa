use std::collections::BTreeMap;

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

/// A heartbeat that says this of a task.
fn pulse(number: u8, idle_ms: u64, lease_ms: u64) -> Sign {
    Sign::Heartbeat(Beat { tasks: vec![Pulse { task: task(number), idle_ms, lease_ms }], ..Beat::default() })
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
    assert_eq!(scene.sign(Sign::Busy { task: task(1), for_ms: PROGRESS_MS }), []);
    assert_eq!(scene.silence(2 * PROGRESS_MS - 500), []);
    assert_eq!(scene.silence(500), [SILENT]);
    assert_eq!(scene.sign(pulse(1, PROGRESS_MS, 60_000)), [Finding::Recovered]);
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
    assert_eq!(scene.sign(pulse(1, 60_000, 0)), []);
    assert_eq!(scene.silence(PROGRESS_MS - 60_500), []);
    assert_eq!(scene.silence(500), [SILENT]);
}

#[test]
fn an_open_input_is_waiting_not_hanging() {
    let mut scene = Scene::busy();
    let (opened, closed) = (Sign::InputOpened { task: task(1) }, Sign::InputClosed { task: task(1) });
    assert_eq!(scene.sign(opened.clone()), [Finding::Waiting]);
    assert_eq!(scene.sign(opened), []);
    assert_eq!(scene.silence(3 * PROGRESS_MS), []);
    assert_eq!(scene.sign(closed.clone()), []);
    assert_eq!(scene.sign(closed), [Finding::Recovered]);
}

#[test]
fn of_several_tasks_only_the_silent_one_is_hung() {
    let mut scene = Scene::busy();
    assert_eq!(scene.sign(Sign::TaskStarted { task: task(2), frames: true }), []);
    let hung = Finding::TaskHung { task: task(2) };
    let mut findings = Vec::new();
    for _ in 0..PROGRESS_MS / 60_000 {
        findings.extend(scene.silence(60_000));
        findings.extend(scene.sign(Sign::Frame));
        findings.extend(scene.sign(pulse(1, 0, 0)));
    }
    assert_eq!(findings, [hung], "whose frame it was, the heartbeats tell");
    // Where none of them gets on, it is the handler.
    assert_eq!(scene.silence(PROGRESS_MS), [SILENT]);
    assert_eq!(scene.sign(Sign::TaskEnded { task: task(2) }), []);
    assert_eq!(scene.sign(Sign::Frame), [Finding::Recovered]);
}

#[test]
fn a_lease_or_a_question_of_one_task_excuses_no_other() {
    for excuse in [Sign::Busy { task: task(1), for_ms: 3 * PROGRESS_MS }, Sign::InputOpened { task: task(1) }]
    {
        let mut scene = Scene::busy();
        scene.sign(Sign::TaskStarted { task: task(2), frames: true });
        scene.sign(excuse);
        assert_eq!(scene.silence(PROGRESS_MS), [Finding::TaskHung { task: task(2) }]);
        assert_eq!(scene.silence(PROGRESS_MS), [], "that is said once");
    }
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
    let exited = Sign::SandboxExited { reason: "signal 9".to_owned(), oom: false };
    assert_eq!(scene.sign(exited.clone()), [Finding::Dead { reason: "signal 9".to_owned(), oom: false }]);
    assert_eq!(scene.sign(exited), []);
    assert_eq!(scene.sign(Sign::Linked), []);
    assert_eq!(scene.pass(60_000, false), []);
}

#[test]
fn a_death_by_want_of_memory_is_said_to_be_one() {
    let mut scene = Scene::new();
    let exited = Sign::SandboxExited { reason: "signal 9".to_owned(), oom: true };
    assert_eq!(scene.sign(exited), [Finding::Dead { reason: "signal 9".to_owned(), oom: true }]);
}

#[test]
fn other_incarnations_and_removed_agents_concern_nobody() {
    let mut scene = Scene::new();
    let later = Subject { incarnation: Incarnation(2), ..subject(1) };
    let exited = Sign::SandboxExited { reason: String::new(), oom: false };
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
    let exited = Sign::SandboxExited { reason: String::new(), oom: false };
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
    linked: bool,
    beat: Beat,
    tasks: BTreeMap<TaskId, ModelTask>,
    calls: u32,
    dead: bool,
    known: Option<Finding>,
}

#[derive(Clone, Default)]
struct ModelTask {
    frames: bool,
    silent_ms: u64,
    lease_ms: u64,
    inputs: u32,
    told: bool,
}

const MODEL_LIVENESS: Liveness = Liveness { heartbeat_ms: 10, missed: 3, progress_ms: 50 };
const MODEL_PAUSE_MS: u64 = 40;

impl ModelAgent {
    fn waits_for(&self, task: &ModelTask) -> bool {
        self.linked && task.frames && task.inputs == 0 && (self.calls == 0 || self.tasks.len() > 1)
    }

    fn pass(&mut self, ms: u64) {
        if ms > MODEL_PAUSE_MS {
            self.tasks.values_mut().for_each(|task| task.lease_ms = task.lease_ms.saturating_sub(ms));
            if self.known != Some(Finding::Lost) {
                self.unheard_ms = 0;
            }
            return;
        }
        for _ in 0..ms {
            let waited_for: Vec<bool> = self.tasks.values().map(|task| self.waits_for(task)).collect();
            for (task, waited_for) in self.tasks.values_mut().zip(waited_for) {
                task.silent_ms += u64::from(waited_for && task.lease_ms == 0);
                task.lease_ms = task.lease_ms.saturating_sub(1);
            }
            self.unheard_ms += 1;
        }
    }

    fn heard(&mut self) {
        self.unheard_ms = 0;
        if self.tasks.len() == 1 {
            self.tasks.values_mut().for_each(|task| task.silent_ms = 0);
        }
    }

    fn take_in(&mut self, sign: Sign) {
        match sign {
            Sign::Adopted(_) => *self = Self { watched: true, ..Self::default() },
            Sign::Removed => self.watched = false,
            Sign::Linked => (self.linked, self.unheard_ms) = (true, 0),
            Sign::LinkLost => self.linked = false,
            Sign::Heartbeat(beat) => {
                for pulse in &beat.tasks {
                    self.tasks.entry(pulse.task.clone()).and_modify(|task| {
                        task.silent_ms = task.silent_ms.min(pulse.idle_ms);
                        task.lease_ms = task.lease_ms.max(pulse.lease_ms);
                    });
                }
                (self.beat, self.unheard_ms) = (beat, 0);
            }
            Sign::Frame => self.heard(),
            Sign::BytesMoved => {
                self.unheard_ms = 0;
                self.tasks.values_mut().for_each(|task| task.silent_ms = 0);
            }
            Sign::Busy { task, for_ms } => {
                self.unheard_ms = 0;
                self.tasks.entry(task).and_modify(|task| {
                    task.silent_ms = 0;
                    task.lease_ms = task.lease_ms.max(for_ms);
                });
            }
            Sign::CallOpened => {
                self.heard();
                self.calls += 1;
            }
            Sign::CallClosed => self.calls = self.calls.saturating_sub(1),
            Sign::SandboxExited { .. } => self.dead = true,
            Sign::TaskStarted { task, frames } => {
                self.tasks.insert(task, ModelTask { frames, ..ModelTask::default() });
            }
            Sign::TaskEnded { task } => {
                self.tasks.remove(&task);
                if self.tasks.is_empty() {
                    self.calls = 0;
                }
            }
            Sign::InputOpened { task } => drop(self.tasks.entry(task).and_modify(|task| task.inputs += 1)),
            Sign::InputClosed { task } => {
                drop(self.tasks.entry(task).and_modify(|task| task.inputs = task.inputs.saturating_sub(1)));
            }
        }
    }

    fn findings(&mut self) -> Vec<Finding> {
        if !self.watched || matches!(self.known, Some(Finding::Dead { .. })) {
            return Vec::new();
        }
        let is_hung = |task: &ModelTask| self.waits_for(task) && task.silent_ms >= 50 && task.lease_ms == 0;
        let hung: Vec<TaskId> =
            self.tasks.iter().filter(|(_, task)| is_hung(task)).map(|(name, _)| name.clone()).collect();
        let is = if self.dead {
            Some(Finding::Dead { reason: String::new(), oom: false })
        } else if self.unheard_ms >= 30 {
            Some(Finding::Lost)
        } else if self.beat.stopped {
            Some(Finding::Hung { reason: HungReason::Stopped })
        } else if self.beat.ping_ms >= 10_000 {
            Some(Finding::Hung { reason: HungReason::Ping })
        } else if !hung.is_empty() && hung.len() == self.tasks.len() {
            Some(SILENT)
        } else {
            self.tasks.values().any(|task| task.inputs > 0).then_some(Finding::Waiting)
        };
        let mut findings = Vec::new();
        if is.as_ref().is_none_or(|is| *is == Finding::Waiting) {
            for (name, task) in &mut self.tasks {
                let now = hung.contains(name);
                if now && !task.told {
                    findings.push(Finding::TaskHung { task: name.clone() });
                }
                task.told = now;
            }
        }
        if self.known != is {
            self.known = is.clone();
            findings.push(is.unwrap_or(Finding::Recovered));
        }
        findings
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
        let news = |(number, agent): (usize, &mut ModelAgent)| {
            let findings = agent.findings().into_iter();
            findings.map(|finding| (subject(number as u64), finding)).collect::<Vec<_>>()
        };
        self.agents.iter_mut().enumerate().flat_map(news).collect()
    }
}

fn pulses() -> impl Strategy<Value = Vec<Pulse>> {
    let pulse = (0u8..3, 0u64..60, 0u64..40);
    let pulse = pulse.prop_map(|(number, idle_ms, lease_ms)| Pulse { task: task(number), idle_ms, lease_ms });
    vec(pulse, 0..3)
}

fn signs() -> impl Strategy<Value = Sign> {
    let beats = (any::<bool>(), 0u64..12_000, pulses()).prop_map(|(stopped, ping_ms, tasks)| {
        let ping_ms = if ping_ms > 9_000 { ping_ms } else { 0 };
        Sign::Heartbeat(Beat { stopped: stopped && ping_ms > 0, ping_ms, tasks })
    });
    let tasks = || (0u8..3).prop_map(task);
    prop_oneof![
        3 => Just(Sign::Adopted(MODEL_LIVENESS)),
        1 => Just(Sign::Removed),
        4 => Just(Sign::Linked),
        1 => Just(Sign::LinkLost),
        8 => Just(beat()),
        4 => beats,
        2 => Just(Sign::Frame),
        1 => Just(Sign::BytesMoved),
        1 => (tasks(), 0u64..100).prop_map(|(task, for_ms)| Sign::Busy { task, for_ms }),
        1 => Just(Sign::CallOpened),
        2 => Just(Sign::CallClosed),
        1 => Just(Sign::SandboxExited { reason: String::new(), oom: false }),
        6 => (0u8..3, any::<bool>()).prop_map(|(number, frames)| Sign::TaskStarted { task: task(number), frames }),
        2 => tasks().prop_map(|task| Sign::TaskEnded { task }),
        1 => tasks().prop_map(|task| Sign::InputOpened { task }),
        2 => tasks().prop_map(|task| Sign::InputClosed { task }),
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
                if matches!(verdict.finding, Finding::TaskHung { .. }) {
                    continue;
                }
                prop_assert!(verdict.finding != last, "twice {last:?}");
                prop_assert!(!matches!(last, Finding::Dead { .. }), "after death");
                last = verdict.finding;
            }
        }
    }
}
