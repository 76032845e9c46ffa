//! Tasks: durable units of work, with attempts, retries, deadline, cancellation, children and open questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::spending::Usage;
use crate::domain::{Context, Decider};
use crate::id::{AgentId, CrewId, Digest, EntityKind, Incarnation, TaskId, Tenant};

mod decide;
mod event;
mod rejection;
pub mod retry;
#[cfg(test)]
mod tests;

pub use event::{
    AttemptEnded, AttemptStarted, CancelRequested, Canceled, Checkpointed, ChildDelegated, Completed,
    DeadLettered, Event, Failed, InputAnswered, InputRequested, Progressed, Rejected, ResultRefused, Retried,
    Submitted, UsageReported,
};
pub use rejection::Rejection;
pub use retry::{Ended, RetryPolicy};

/// Most open questions of one task.
pub const INPUTS_MAX: usize = 32;
/// Most children of one task.
pub const CHILDREN_MAX: usize = 1_000;

/// Where a task stands; the names follow A2A 1.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, waiting for an agent.
    #[default]
    Submitted,
    /// An attempt is under way.
    Working,
    /// It waits for an answer from outside.
    InputRequired,
    /// Done.
    Completed,
    /// It cannot be done.
    Failed,
    /// It was called off.
    Canceled,
    /// The handler would not do it.
    Rejected,
    /// It was tried as often as allowed; a person may retry it.
    DeadLettered,
}

impl Status {
    /// Its name in events, tables and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Rejected => "rejected",
            Self::DeadLettered => "dead_lettered",
        }
    }

    /// Whether nothing more happens to the task by itself.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Rejected | Self::DeadLettered)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An agent's incarnation that is given an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The agent.
    pub agent: AgentId,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// One try at a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1, 2, 3 …; stays the same when the attempt is parked for an answer and executed again.
    pub number: u32,
    /// Rises with every start: a result under an older one is refused (TK-2).
    pub fence: u64,
    /// Who has it.
    pub placement: Placement,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: i64,
}

/// A child task and the key under which its parent asked for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// The child.
    pub task: TaskId,
    /// The digest of what was asked.
    pub digest: Digest,
    /// The member or agent that was asked.
    #[serde(default)]
    pub to: String,
}

/// An open or answered question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked, as the handler put it.
    pub request: Value,
    /// It counts as declined, or as its default, from this moment on, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<i64>,
    /// The answer, once there is one.
    pub answer: Option<Answer>,
}

/// What was answered, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// `accept`, `decline` or `timeout`.
    pub action: String,
    /// What was answered.
    pub content: Value,
    /// Who answered.
    pub by: String,
}

/// A task as its events left it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What was asked for; `None` before it was.
    pub submitted: Option<Submitted>,
    /// Where it stands.
    pub status: Status,
    /// The live attempt.
    pub attempt: Option<Attempt>,
    /// The number of the newest attempt.
    pub attempts: u32,
    /// The newest fence.
    pub fence: u64,
    /// The fence under which a result was accepted.
    pub result_fence: Option<u64>,
    /// How often attempts ended, by how.
    pub ended: BTreeMap<Ended, u32>,
    /// How the last attempt ended that brought no result, since it was last retried by somebody.
    #[serde(default)]
    pub last_end: Option<Ended>,
    /// The next attempt must not start before this, in milliseconds since the Unix epoch.
    pub not_before_ms: i64,
    /// Whether the last attempt was parked for answers and goes on under its number.
    pub parked: bool,
    /// What the last attempt wrote down for the next.
    pub checkpoint: Option<Value>,
    /// Children by key.
    pub children: BTreeMap<String, Child>,
    /// Questions by key.
    pub questions: BTreeMap<String, Question>,
    /// Why it is being called off.
    pub cancel: Option<String>,
    /// Whether that is only because its parent is over or no longer wants it.
    #[serde(default)]
    pub is_canceled_by_parent: bool,
    /// What came out.
    pub output: Option<Value>,
    /// The artifacts that came out.
    pub artifacts: Value,
    /// Why it did not come to a good end.
    pub error: Option<String>,
    /// What its attempts used of models, as their handlers said.
    #[serde(default)]
    pub usage: Usage,
}

/// How a handler says that an attempt came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done.
    Completed {
        /// Content.
        output: Value,
        /// A list of artifacts.
        artifacts: Value,
    },
    /// It would not do it.
    Rejected {
        /// Why.
        message: String,
    },
    /// It was called off, and has stopped.
    Canceled,
    /// It needs answers; the attempt is parked until they are there.
    InputRequired {
        /// The questions by key, each with the moment at which it expires.
        questions: Vec<(String, Value, Option<i64>)>,
        /// What the attempt is to go on from.
        checkpoint: Option<Value>,
    },
    /// The process that served the attempt alone was ended by a signal; the agent lives on.
    Crashed {
        /// By which.
        message: String,
    },
    /// It failed.
    Failed {
        /// `Some(true)` transient, `Some(false)` permanent, `None` unclassified.
        transient: Option<bool>,
        /// Not before so many milliseconds.
        retry_after_ms: Option<u64>,
        /// Why.
        message: String,
    },
}

/// What may be asked of a task.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "commands are few at a time")]
pub enum Command {
    /// Be, and start at once if there is a place.
    Submit {
        /// What is asked for.
        submitted: Submitted,
        /// A free place, if there is one.
        placement: Option<Placement>,
    },
    /// Start an attempt.
    Start {
        /// Where.
        placement: Placement,
    },
    /// The handler answered.
    Result {
        /// The attempt's number.
        attempt: u32,
        /// The attempt's fence.
        fence: u64,
        /// How it came out.
        outcome: Outcome,
    },
    /// The attempt ended without an answer.
    End {
        /// The attempt's fence.
        fence: u64,
        /// How it ended.
        ended: Ended,
        /// What was seen.
        detail: String,
    },
    /// The handler says how far it is.
    Progress {
        /// The attempt's fence.
        fence: u64,
        /// What it says.
        message: Option<String>,
        /// How far.
        progress: Option<f64>,
        /// Of how much.
        total: Option<f64>,
    },
    /// The handler writes down what the next attempt is to go on from.
    Checkpoint {
        /// The attempt's fence.
        fence: u64,
        /// What it writes down.
        data: Value,
    },
    /// The handler asks for a child task.
    Delegate {
        /// The attempt's fence.
        fence: u64,
        /// The key that makes the child the same in every attempt.
        key: String,
        /// The child's id.
        child: TaskId,
        /// The digest of what is asked.
        digest: Digest,
        /// The member or agent that is asked.
        to: String,
        /// How many children the task had when it was found that it may have one more.
        siblings: usize,
    },
    /// The handler asks a question and waits.
    Ask {
        /// The attempt's fence.
        fence: u64,
        /// The key that makes the question the same in every attempt.
        key: String,
        /// What it asks.
        request: Value,
        /// When it expires, in milliseconds since the Unix epoch.
        expires_at_ms: Option<i64>,
    },
    /// A question is answered.
    Answer {
        /// Its key.
        key: String,
        /// The answer.
        answer: Answer,
    },
    /// The handler says what it used of models, at whatever moment that comes to be known.
    Report {
        /// The agent that says so.
        agent: AgentId,
        /// What it used, by model.
        models: BTreeMap<String, Usage>,
    },
    /// Call it off.
    Cancel {
        /// Why.
        reason: String,
        /// Whether only because its parent is over or no longer wants it.
        by_parent: bool,
    },
    /// Its children are cancelled and no attempt is live: it can end.
    CancelNow,
    /// Its deadline has passed.
    Expire,
    /// Try it again although it ended in failure.
    Retry,
    /// Its parent, at work again, asks for it again although it was called off with it.
    Revive,
}

/// What must be true outside for a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It stands in the queue of its member, from this moment on.
    Queue {
        /// Milliseconds since the Unix epoch.
        not_before_ms: i64,
        /// How often it has been started: tells one stay in the queue from the next.
        fence: u64,
    },
    /// The agent's runner was given this attempt.
    Dispatch(Attempt),
    /// Its children, and then its attempt, are called off.
    Stop {
        /// The live attempt, if there is one.
        attempt: Option<Attempt>,
        /// The children.
        children: Vec<TaskId>,
        /// Why.
        reason: String,
    },
    /// Nobody waits for its children any more: they are called off.
    Abandon {
        /// The children.
        children: Vec<TaskId>,
        /// Why.
        reason: String,
    },
    /// It expires when this moment has passed.
    ExpireAt {
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// This attempt is ended when this moment has passed.
    TimeoutAt {
        /// The attempt's fence.
        fence: u64,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// This question is answered by its timeout when this moment has passed.
    AnswerBy {
        /// Its key.
        key: String,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
}

/// The entity `task`.
pub struct Task;

impl State {
    /// The open questions.
    pub fn open_questions(&self) -> impl Iterator<Item = (&String, &Question)> {
        self.questions.iter().filter(|(_, question)| question.answer.is_none())
    }

    /// Whether what it was about was erased with the key of its data subject.
    pub fn is_erased(&self) -> bool {
        let subject = self.submitted.as_ref().and_then(|submitted| submitted.subject.as_deref());
        subject == Some(crate::seal::ERASED)
    }
    /// Whether its children are called off with it: all that is over without a good end takes them along.
    pub fn abandons_children(&self) -> bool {
        self.cancel.is_some() || (self.status.is_terminal() && self.status != Status::Completed)
    }

    fn abandoned(&self) -> Option<Effect> {
        let children: Vec<TaskId> = self.children.values().map(|child| child.task.clone()).collect();
        let reason = self.error.clone().unwrap_or_default();
        (self.abandons_children() && !children.is_empty()).then_some(Effect::Abandon { children, reason })
    }

    fn end_attempt(&mut self, ended: Ended) {
        self.attempt = None;
        *self.ended.entry(ended).or_default() += 1;
        self.last_end = Some(ended);
    }

    fn finish(&mut self, status: Status, error: Option<&str>) {
        self.status = status;
        if let Some(attempt) = self.attempt.take() {
            self.result_fence = Some(attempt.fence);
        }
        self.error = error.map(str::to_owned);
    }
}

impl Decider for Task {
    const KIND: EntityKind = EntityKind::Task;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Effect = Effect;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
        decide::decide(state, command, context)
    }

    fn evolve(mut state: State, event: &Event) -> State {
        match event {
            Event::Submitted(submitted) => state.submitted = Some(submitted.clone()),
            Event::AttemptStarted(started) => start(&mut state, started),
            Event::AttemptEnded(ended) => {
                state.end_attempt(ended.ended);
                if matches!(ended.ended, Ended::Transient | Ended::Permanent) {
                    state.result_fence = Some(ended.fence);
                }
                state.status = Status::Submitted;
                state.not_before_ms = ended.retry_at_ms.unwrap_or(state.not_before_ms);
            }
            Event::Progressed(_) | Event::ResultRefused(_) => {}
            Event::UsageReported(reported) => state.usage = state.usage.and(reported.total()),
            Event::Checkpointed(checkpointed) => state.checkpoint = Some(checkpointed.data.clone()),
            Event::ChildDelegated(delegated) => {
                let child = Child {
                    task: delegated.child.clone(),
                    digest: delegated.digest,
                    to: delegated.to.clone(),
                };
                state.children.insert(delegated.key.clone(), child);
            }
            Event::InputRequested(requested) => ask(&mut state, requested),
            Event::InputAnswered(answered) => answer(&mut state, answered),
            Event::CancelRequested(requested) => {
                state.cancel = Some(requested.reason.clone());
                state.is_canceled_by_parent = requested.by_parent;
            }
            Event::Completed(completed) => {
                state.output = Some(completed.output.clone());
                state.artifacts = completed.artifacts.clone();
                state.finish(Status::Completed, None);
            }
            Event::Failed(failed) => state.finish(Status::Failed, Some(&failed.message)),
            Event::Canceled(canceled) => state.finish(Status::Canceled, Some(&canceled.reason)),
            Event::Rejected(rejected) => state.finish(Status::Rejected, Some(&rejected.message)),
            Event::DeadLettered(dead) => state.finish(Status::DeadLettered, Some(&dead.message)),
            Event::Retried(_) => {
                state.status = Status::Submitted;
                state.ended.clear();
                state.last_end = None;
                state.not_before_ms = 0;
                state.error = None;
                state.cancel = None;
                state.is_canceled_by_parent = false;
            }
        }
        state
    }

    fn obligations(state: &State) -> Vec<Effect> {
        let Some(submitted) = &state.submitted else { return Vec::new() };
        if state.status.is_terminal() {
            return state.abandoned().into_iter().collect();
        }
        let mut effects = Vec::new();
        if let Some(attempt) = &state.attempt {
            effects.push(Effect::Dispatch(attempt.clone()));
            effects.extend(submitted.attempt_timeout_ms.map(|timeout_ms| Effect::TimeoutAt {
                fence: attempt.fence,
                at_ms: attempt.started_ms.saturating_add(i64::try_from(timeout_ms).unwrap_or(i64::MAX)),
            }));
        }
        if let Some(reason) = &state.cancel {
            let children = state.children.values().map(|child| child.task.clone()).collect();
            effects.push(Effect::Stop { attempt: state.attempt.clone(), children, reason: reason.clone() });
        } else if state.attempt.is_none() && state.status == Status::Submitted {
            effects.push(Effect::Queue { not_before_ms: state.not_before_ms, fence: state.fence });
        }
        effects.extend(submitted.deadline_ms.map(|at_ms| Effect::ExpireAt { at_ms }));
        let expiring = state.open_questions().filter_map(|(key, question)| {
            question.expires_at_ms.map(|at_ms| Effect::AnswerBy { key: key.clone(), at_ms })
        });
        effects.extend(expiring);
        effects
    }

    fn is_final(state: &State) -> bool {
        state.status.is_terminal()
    }
}

fn start(state: &mut State, started: &AttemptStarted) {
    state.status = Status::Working;
    state.attempts = started.attempt;
    state.fence = started.fence;
    state.parked = false;
    state.attempt = Some(Attempt {
        number: started.attempt,
        fence: started.fence,
        placement: Placement { agent: started.agent.clone(), incarnation: started.incarnation },
        started_ms: started.at_ms,
    });
}

fn ask(state: &mut State, requested: &InputRequested) {
    state.status = Status::InputRequired;
    if requested.parks {
        state.attempt = None;
        state.parked = true;
        state.result_fence = Some(state.fence);
    }
    let question =
        Question { request: requested.request.clone(), expires_at_ms: requested.expires_at_ms, answer: None };
    state.questions.insert(requested.key.clone(), question);
}

fn answer(state: &mut State, answered: &InputAnswered) {
    if let Some(question) = state.questions.get_mut(&answered.key) {
        question.answer = Some(answered.answer.clone());
    }
    if state.status == Status::InputRequired && state.open_questions().next().is_none() {
        state.status = if state.attempt.is_some() { Status::Working } else { Status::Submitted };
    }
}

/// The crew, tenant and member that a submitted task is for.
impl Submitted {
    /// The id of the child that this task gets under `key`, always the same.
    pub fn child_id(&self, key: &str) -> TaskId {
        TaskId::derive(&["child", self.task.as_str(), key])
    }

    /// The tenant and crew in which it runs.
    pub fn place(&self) -> (&Tenant, &CrewId) {
        (&self.tenant, &self.crew)
    }
}
