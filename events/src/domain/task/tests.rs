use proptest::collection::vec;
use proptest::prelude::{Just, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy;
use serde_json::json;

use super::*;
use crate::domain::driven::Driven;

/// Something that happens to a task, told relative to where it stands.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        placed: bool,
        again: bool,
    },
    Start,
    /// A result, under the newest fence or one that is older by so many.
    Result {
        behind: u64,
        outcome: Outcome,
    },
    End {
        behind: u64,
        ended: Ended,
    },
    Progress {
        behind: u64,
    },
    Checkpoint {
        behind: u64,
    },
    Delegate {
        behind: u64,
        key: u8,
        other: bool,
    },
    Ask {
        behind: u64,
        key: u8,
        other: bool,
    },
    Answer {
        key: u8,
    },
    Cancel,
    CancelNow,
    Expire,
    Retry,
    Wait {
        ms: i64,
    },
}

const ENDS: [Ended; 9] = [
    Ended::Transient,
    Ended::Permanent,
    Ended::Timeout,
    Ended::Hung,
    Ended::Crash,
    Ended::Lost,
    Ended::Canceled,
    Ended::Deadline,
    Ended::Abandoned,
];

fn submitted(digest: &[u8], deadline_ms: Option<i64>) -> Submitted {
    Submitted {
        task: TaskId::derive(&["t"]),
        tenant: Tenant::default(),
        crew: CrewId::derive(&["c"]),
        member: "analyst".into(),
        replica: None,
        input: json!({ "parts": [{ "text": "count" }] }),
        context: "cx".into(),
        from: "user:ada".into(),
        from_member: None,
        parent: None,
        depth: 0,
        deadline_ms,
        attempt_timeout_ms: Some(60_000),
        retry: RetryPolicy::default(),
        subject: None,
        request_digest: Digest::of(digest),
        traceparent: None,
    }
}

fn placement() -> Placement {
    Placement { agent: AgentId::derive(&["a"]), incarnation: Incarnation(1) }
}

fn submit(placed: bool) -> Command {
    Command::Submit { submitted: submitted(b"", None), placement: placed.then(placement) }
}

fn completed() -> Outcome {
    Outcome::Completed { output: json!({ "parts": [] }), artifacts: json!([]) }
}

fn question(key: &str) -> (String, Value, Option<i64>) {
    (key.to_owned(), json!({ "message": key }), None)
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    let failed =
        |transient, retry_after_ms| Outcome::Failed { transient, retry_after_ms, message: "no".into() };
    prop_oneof![
        2 => Just(completed()),
        1 => Just(Outcome::Rejected { message: "not mine".into() }),
        1 => Just(Outcome::Canceled),
        1 => vec(0u8..3, 0..3).prop_map(|keys| Outcome::InputRequired {
            questions: keys.iter().map(|key| question(&format!("k{key}"))).collect(),
            checkpoint: Some(json!(7)),
        }),
        3 => (prop::option::of(any::<bool>()), prop::option::of(0u64..5_000))
            .prop_map(move |(transient, after)| failed(transient, after)),
    ]
}

fn behind() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0u64), 1 => 1u64..3]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => any::<(bool, bool)>().prop_map(|(placed, again)| Step::Submit { placed, again }),
        6 => Just(Step::Start),
        4 => (behind(), outcomes()).prop_map(|(behind, outcome)| Step::Result { behind, outcome }),
        4 => (behind(), prop::sample::select(ENDS.to_vec())).prop_map(|(behind, ended)| Step::End { behind, ended }),
        1 => behind().prop_map(|behind| Step::Progress { behind }),
        1 => behind().prop_map(|behind| Step::Checkpoint { behind }),
        1 => (behind(), 0u8..3, any::<bool>()).prop_map(|(behind, key, other)| Step::Delegate { behind, key, other }),
        2 => (behind(), 0u8..3, any::<bool>()).prop_map(|(behind, key, other)| Step::Ask { behind, key, other }),
        2 => (0u8..3).prop_map(|key| Step::Answer { key }),
        1 => Just(Step::Cancel),
        1 => Just(Step::CancelNow),
        1 => Just(Step::Expire),
        2 => Just(Step::Retry),
        3 => (0i64..40_000).prop_map(|ms| Step::Wait { ms }),
    ];
    vec(step, 0..80)
}

impl Driven<Task> {
    fn fence(&self, behind: u64) -> u64 {
        self.state.fence.saturating_sub(behind)
    }

    fn take(&mut self, step: &Step) -> Result<Vec<Event>, Rejection> {
        let text = |key: &u8, other: &bool| json!({ "message": format!("k{key}"), "other": other });
        let command = match step.clone() {
            Step::Submit { placed, again } => Command::Submit {
                submitted: submitted(if again { b"" } else { b"other" }, Some(1_300_000)),
                placement: placed.then(placement),
            },
            Step::Start => Command::Start { placement: placement() },
            Step::Result { behind, outcome } => {
                Command::Result { attempt: self.state.attempts, fence: self.fence(behind), outcome }
            }
            Step::End { behind, ended } => {
                Command::End { fence: self.fence(behind), ended, detail: "seen".into() }
            }
            Step::Progress { behind } => Command::Progress {
                fence: self.fence(behind),
                message: None,
                progress: Some(0.5),
                total: None,
            },
            Step::Checkpoint { behind } => {
                Command::Checkpoint { fence: self.fence(behind), data: json!({ "line": 3 }) }
            }
            Step::Delegate { behind, key, other } => Command::Delegate {
                fence: self.fence(behind),
                key: format!("k{key}"),
                child: TaskId::derive(&["t", &key.to_string()]),
                digest: Digest::of(text(&key, &other).to_string().as_bytes()),
                to: "editor".into(),
                siblings: self.state.children.len(),
            },
            Step::Ask { behind, key, other } => Command::Ask {
                fence: self.fence(behind),
                key: format!("k{key}"),
                request: text(&key, &other),
                expires_at_ms: Some(self.now_ms + 1_000),
            },
            Step::Answer { key } => {
                let answer = Answer { action: "accept".into(), content: json!(1), by: "user:ada".into() };
                Command::Answer { key: format!("k{key}"), answer }
            }
            Step::Cancel => Command::Cancel { reason: "enough".into(), by_parent: true },
            Step::CancelNow => Command::CancelNow,
            Step::Expire => Command::Expire,
            Step::Retry => Command::Retry,
            Step::Wait { ms } => {
                self.now_ms += ms;
                return Ok(Vec::new());
            }
        };
        self.give(&command)
    }

    /// What is true of a task at every moment.
    fn assert_sound(&self) {
        let state = &self.state;
        let mut obliged = Task::obligations(state);
        if state.submitted.is_none() || state.status.is_terminal() {
            // Whoever waited for its children does so no more.
            obliged.retain(|effect| !(state.abandons_children() && matches!(effect, Effect::Abandon { .. })));
            assert_eq!(obliged, [], "work for a task that is {}", state.status);
            assert_eq!(state.attempt, None);
            return;
        }
        // Somebody always has something to do, or an answer is awaited: nothing is forgotten.
        let has = |wanted: fn(&Effect) -> bool| obliged.iter().any(wanted);
        assert_eq!(has(|effect| matches!(effect, Effect::Dispatch(_))), state.attempt.is_some());
        assert_eq!(has(|effect| matches!(effect, Effect::Stop { .. })), state.cancel.is_some());
        let queued = has(|effect| matches!(effect, Effect::Queue { .. }));
        let asked = state.open_questions().next().is_some();
        match state.status {
            Status::Working => assert!(state.attempt.is_some()),
            Status::InputRequired => assert!(asked, "it waits for an answer to no question"),
            _ => assert!(state.attempt.is_none() && (queued || state.cancel.is_some())),
        }
    }
}

fn is_end(event: &Event) -> bool {
    use Event as E;
    matches!(event, E::Completed(_) | E::Failed(_) | E::Canceled(_) | E::Rejected(_) | E::DeadLettered(_))
}

/// The task's lives: from its submission or a retry to the next.
fn lives(history: &[Event]) -> Vec<&[Event]> {
    history.chunk_by(|_, next| !matches!(next, Event::Retried(_))).collect()
}

fn run(steps: &[Step]) -> Driven<Task> {
    let mut task = Driven::<Task>::new();
    task.assert_sound();
    for step in steps {
        let fence = task.state.fence;
        let accepted = task.state.result_fence;
        let live = task.state.attempt.clone();
        let answer = task.take(step);
        assert!(task.state.fence >= fence, "fences never fall");
        if let (Step::Result { behind, .. }, Ok(events)) = (step, &answer) {
            let found = fence.saturating_sub(*behind);
            if live.is_none_or(|live| live.fence != found) {
                let refused = matches!(events.as_slice(), [Event::ResultRefused(_)]);
                let repeated = events.is_empty() && accepted == Some(found);
                assert!(refused || repeated, "TK-2: a stale result led to {events:?}");
            }
        }
        task.assert_sound();
    }
    task.assert_folds_the_same();
    task
}

proptest! {
    /// TK-1: each life of a task has at most one end, and nothing happens after it but refusals.
    #[test]
    fn tk_1_an_accepted_task_ends_in_exactly_one_terminal_state(steps in steps()) {
        let task = run(&steps);
        for life in lives(&task.history) {
            let end = life.iter().position(is_end).unwrap_or(life.len());
            let after = life.iter().skip(end + 1);
            let refusals = |event: &Event| matches!(event, Event::ResultRefused(_));
            assert!(after.clone().all(refusals), "{:?}", after.collect::<Vec<_>>());
        }
    }

    /// TK-2: of all results in one life at most one is accepted, and it came under the newest fence.
    #[test]
    fn tk_2_at_most_one_result_is_accepted(steps in steps()) {
        let task = run(&steps);
        let mut newest = 0;
        for life in lives(&task.history) {
            let mut accepted = 0;
            for event in life {
                match event {
                    Event::AttemptStarted(started) => {
                        assert_eq!(started.fence, newest + 1, "fences strictly rise");
                        newest = started.fence;
                    }
                    Event::Completed(completed) => {
                        assert_eq!(completed.fence, newest);
                        accepted += 1;
                    }
                    _ => {}
                }
            }
            assert!(accepted <= 1);
        }
    }

    /// How often a task is tried is bounded by its retry policy, whatever happens.
    #[test]
    fn attempts_are_bounded_by_the_retry_policy(steps in steps()) {
        let task = run(&steps);
        for life in lives(&task.history) {
            for ended in ENDS {
                let found = life
                    .iter()
                    .filter(|event| matches!(event, Event::AttemptEnded(it) if it.ended == ended))
                    .count();
                let allowed = match ended {
                    Ended::Crash | Ended::Lost | Ended::Transient => 3,
                    Ended::Hung | Ended::Timeout => 2,
                    _ => 1,
                };
                assert!(found <= allowed, "{found} attempts ended {}", ended.as_str());
            }
        }
    }

    /// Once it is called off, a task ends as soon as its children have and its attempt has.
    #[test]
    fn a_canceled_task_ends_when_its_attempt_has(steps in steps(), ended in prop::sample::select(ENDS.to_vec())) {
        let mut task = run(&steps);
        task.give(&submit(false)).ok();
        task.give(&Command::Cancel { reason: "enough".into(), by_parent: false }).ok();
        let fence = task.state.fence;
        task.give(&Command::End { fence, ended, detail: "stopped".into() }).expect("it is news or none");
        task.give(&Command::CancelNow).expect("it is news or none");
        assert!(task.state.status.is_terminal(), "{:?}", task.state);
        task.assert_folds_the_same();
    }
}

fn started() -> Driven<Task> {
    let mut task = Driven::<Task>::new();
    task.give(&submit(true)).expect("it is new");
    task
}

fn result(task: &Driven<Task>, outcome: Outcome) -> Command {
    Command::Result { attempt: task.state.attempts, fence: task.state.fence, outcome }
}

#[test]
fn a_task_is_submitted_and_started_in_one_append_where_there_is_a_place() {
    let mut task = Driven::<Task>::new();
    let events = task.give(&submit(true)).expect("it is new");
    assert!(matches!(events.as_slice(), [Event::Submitted(_), Event::AttemptStarted(_)]));
    assert_eq!(task.give(&submit(true)), Ok(Vec::new()), "the same again is no news");
    let other = Command::Submit { submitted: submitted(b"other", None), placement: None };
    assert!(matches!(task.give(&other), Err(Rejection::KeyConflict { .. })));
}

#[test]
fn a_late_result_of_a_fenced_attempt_is_refused_and_recorded() {
    let mut task = started();
    let late = result(&task, completed());
    task.give(&Command::End { fence: 1, ended: Ended::Crash, detail: "gone".into() }).expect("it crashed");
    task.give(&Command::Start { placement: placement() }).expect("it is tried again");
    let refused = ResultRefused { attempt: 1, fence: 1, newest: 2 };
    assert_eq!(task.give(&late), Ok(vec![refused.into()]));
    let good = result(&task, completed());
    task.give(&good).expect("it is the live one");
    assert_eq!(task.give(&good), Ok(Vec::new()), "an accepted result that comes again is no news");
}

#[test]
fn crashes_are_tried_three_times_and_then_wait_for_a_person() {
    let mut task = started();
    for fence in 1..=3 {
        task.give(&Command::End { fence, ended: Ended::Crash, detail: "gone".into() }).expect("it crashed");
        task.give(&Command::Start { placement: placement() }).ok();
    }
    assert_eq!((task.state.status, task.state.attempts), (Status::DeadLettered, 3));
    task.give(&Command::Retry).expect("a person retries it");
    task.give(&Command::Start { placement: placement() }).expect("it starts anew");
    assert_eq!((task.state.status, task.state.fence), (Status::Working, 4));
}

#[test]
fn a_failure_that_nobody_classified_is_not_tried_again() {
    let mut task = started();
    let failed = Outcome::Failed { transient: None, retry_after_ms: None, message: "no".into() };
    task.give(&result(&task, failed)).expect("it is the live one");
    assert_eq!(task.state.status, Status::Failed);
}

#[test]
fn a_command_that_a_signal_ended_is_tried_again_at_once_though_its_agent_lives_on() {
    let mut task = started();
    task.give(&result(&task, Outcome::Crashed { message: "ended by SIGTERM".into() }))
        .expect("it is the live one");
    task.give(&Command::Start { placement: placement() }).expect("it is not spent");
    assert_eq!((task.state.status, task.state.fence), (Status::Working, 2));
}

#[test]
fn a_transient_failure_waits_before_it_is_tried_again() {
    let mut task = started();
    let failed = Outcome::Failed { transient: Some(true), retry_after_ms: Some(500), message: "busy".into() };
    task.give(&result(&task, failed)).expect("it is the live one");
    let start = Command::Start { placement: placement() };
    assert!(matches!(task.give(&start), Err(Rejection::Illegal { .. })));
    task.now_ms += 500;
    task.give(&start).expect("the wait is over");
}

#[test]
fn a_parked_attempt_goes_on_under_its_number_and_a_new_fence() {
    let mut task = started();
    let asks = Outcome::InputRequired { questions: vec![question("q")], checkpoint: Some(json!(1)) };
    task.give(&result(&task, asks)).expect("it is the live one");
    assert_eq!((task.state.status, task.state.attempt.clone()), (Status::InputRequired, None));
    let answer = Answer { action: "accept".into(), content: json!(true), by: "user:ada".into() };
    task.give(&Command::Answer { key: "q".into(), answer }).expect("it is open");
    task.give(&Command::Start { placement: placement() }).expect("it goes on");
    assert_eq!((task.state.attempts, task.state.fence), (1, 2));
}

/// Whatever a handler makes of its right to ask, its task does not stand still for ever.
#[test]
fn a_result_that_asks_nothing_or_too_much_ends_the_attempt() {
    let many = (0..=INPUTS_MAX).map(|key| question(&key.to_string())).collect();
    for questions in [Vec::new(), many] {
        let mut task = started();
        let asks = Outcome::InputRequired { questions, checkpoint: Some(json!(1)) };
        task.give(&result(&task, asks)).expect("it is the live one");
        assert_eq!(task.state.status, Status::Failed);
    }
}

/// Whether there may be one more was found out before: two that found so at once are not both let through.
#[test]
fn a_child_that_another_has_overtaken_is_asked_for_again() {
    let mut task = started();
    let delegate = |key: &str, siblings| Command::Delegate {
        fence: 1,
        key: key.into(),
        child: TaskId::derive(&[key]),
        digest: Digest::ZERO,
        to: "editor".into(),
        siblings,
    };
    task.give(&delegate("a", 0)).expect("it is the first");
    assert_eq!(task.give(&delegate("b", 0)), Err(Rejection::Overtaken));
    task.give(&delegate("a", 0)).expect("it is the same again");
    task.give(&delegate("b", 1)).expect("it knows of the first");
}

/// Cancellation reaches children first, also where the attempt ended by itself meanwhile.
#[test]
fn a_canceled_task_waits_for_its_children() {
    let mut task = started();
    let child = TaskId::derive(&["child"]);
    let delegate = Command::Delegate {
        fence: 1,
        key: "k".into(),
        child: child.clone(),
        digest: Digest::ZERO,
        to: "editor".into(),
        siblings: 0,
    };
    task.give(&delegate).expect("it is in hand");
    task.give(&Command::Cancel { reason: "enough".into(), by_parent: true }).expect("it is called off");
    task.give(&Command::End { fence: 1, ended: Ended::Crash, detail: "gone".into() }).expect("it crashed");
    let stop = Effect::Stop { attempt: None, children: vec![child], reason: "enough".into() };
    assert_eq!(Task::obligations(&task.state), [stop]);
    task.give(&Command::CancelNow).expect("its children have ended");
    assert_eq!(task.state.status, Status::Canceled);
}

#[test]
fn only_what_was_called_off_with_its_parent_is_revived() {
    for (by_parent, status) in [(true, Status::Submitted), (false, Status::Canceled)] {
        let mut task = started();
        task.give(&Command::Cancel { reason: "enough".into(), by_parent }).expect("it is called off");
        task.give(&result(&task, Outcome::Canceled)).expect("it stops");
        task.give(&Command::Revive).expect("its parent may ask");
        assert_eq!(task.state.status, status);
    }
}
