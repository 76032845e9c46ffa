use serde_json::Value;

use super::retry::{Ended, RetryPolicy};
use super::{
    Answer, Attempt, AttemptEnded, AttemptStarted, CHILDREN_MAX, CancelRequested, Canceled, Checkpointed,
    ChildDelegated, Command, Completed, Context, DeadLettered, Event, Failed, INPUTS_MAX, InputAnswered,
    InputRequested, Outcome, Placement, Progressed, Rejected, Rejection, ResultRefused, Retried, State,
    Status, Submitted, UsageReported,
};

pub(super) fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
    if let Command::Submit { submitted, placement } = command {
        return submit(state, submitted, placement.as_ref(), context);
    }
    let Some(submitted) = &state.submitted else { return Err(Rejection::Unknown) };
    match command {
        Command::Submit { .. } => Ok(Vec::new()),
        Command::Start { placement } => start(state, placement, context),
        Command::Result { attempt, fence, outcome } => {
            result(state, &submitted.retry, *attempt, *fence, outcome, context)
        }
        Command::End { fence, ended, detail } => {
            let Some(attempt) = live(state, *fence) else { return Ok(Vec::new()) };
            Ok(end(state, &submitted.retry, attempt, *ended, detail, None, context))
        }
        Command::Progress { fence, message, progress, total } => {
            guard(state, *fence)?;
            Ok(vec![Progressed { message: message.clone(), progress: *progress, total: *total }.into()])
        }
        Command::Checkpoint { fence, data } => {
            let attempt = guard(state, *fence)?;
            Ok(vec![Checkpointed { attempt: attempt.number, data: data.clone() }.into()])
        }
        Command::Delegate { fence, key, child, digest, to, siblings } => {
            guard(state, *fence)?;
            let (key, child, to) = (key.clone(), child.clone(), to.clone());
            delegate(state, ChildDelegated { key, child, digest: *digest, to }, *siblings)
        }
        Command::Ask { fence, key, request, expires_at_ms } => {
            guard(state, *fence)?;
            ask(state, key, request, *expires_at_ms)
        }
        Command::Answer { key, answer } => self::answer(state, key, answer),
        Command::Report { agent, models } => Ok(vec![
            UsageReported { crew: submitted.crew.clone(), agent: agent.clone(), models: models.clone() }
                .into(),
        ]),
        Command::Cancel { reason, by_parent } => cancel(state, reason, *by_parent),
        Command::CancelNow => cancel_now(state),
        Command::Expire => expire(state, context),
        Command::Retry => retry(state),
        Command::Revive => Ok(revive(state)),
    }
}

fn submit(
    state: &State,
    submitted: &Submitted,
    placement: Option<&Placement>,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    match &state.submitted {
        Some(earlier) if earlier.request_digest == submitted.request_digest => Ok(Vec::new()),
        Some(_) => Err(Rejection::KeyConflict { key: submitted.task.to_string() }),
        None => {
            let mut events: Vec<Event> = vec![submitted.clone().into()];
            events.extend(placement.map(|placement| started(state, placement, context)));
            Ok(events)
        }
    }
}

fn started(state: &State, placement: &Placement, context: &Context) -> Event {
    AttemptStarted {
        attempt: if state.parked { state.attempts } else { state.attempts + 1 },
        fence: state.fence + 1,
        agent: placement.agent.clone(),
        incarnation: placement.incarnation,
        at_ms: context.now.millis(),
    }
    .into()
}

fn start(state: &State, placement: &Placement, context: &Context) -> Result<Vec<Event>, Rejection> {
    if state.status.is_terminal() {
        return Err(Rejection::Final { status: state.status });
    }
    let ready = state.status == Status::Submitted && state.attempt.is_none() && state.cancel.is_none();
    if !ready || context.now.millis() < state.not_before_ms {
        return Err(Rejection::Illegal { status: state.status, verb: "be started" });
    }
    Ok(vec![started(state, placement, context)])
}

fn live(state: &State, fence: u64) -> Option<&Attempt> {
    state.attempt.as_ref().filter(|attempt| attempt.fence == fence)
}

fn guard(state: &State, fence: u64) -> Result<&Attempt, Rejection> {
    live(state, fence).ok_or(Rejection::Fenced { found: fence, newest: state.fence })
}

fn result(
    state: &State,
    policy: &RetryPolicy,
    number: u32,
    fence: u64,
    outcome: &Outcome,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let Some(attempt) = live(state, fence) else {
        // The runner sends a result until it is acknowledged: the one that was accepted is no news.
        if state.result_fence == Some(fence) {
            return Ok(Vec::new());
        }
        return Ok(vec![ResultRefused { attempt: number, fence, newest: state.fence }.into()]);
    };
    match outcome {
        Outcome::Completed { output, artifacts } => {
            let completed =
                Completed { attempt: number, fence, output: output.clone(), artifacts: artifacts.clone() };
            Ok(vec![completed.into()])
        }
        Outcome::Rejected { message } => Ok(vec![Rejected { message: message.clone() }.into()]),
        Outcome::Canceled => {
            let reason = state.cancel.clone().unwrap_or_else(|| "the handler canceled it".to_owned());
            Ok(vec![Canceled { reason }.into()])
        }
        Outcome::InputRequired { questions, checkpoint } => {
            let end = |why: &str| end(state, policy, attempt, Ended::Permanent, why, None, context);
            Ok(park(state, attempt, questions, checkpoint.as_ref()).unwrap_or_else(|why| end(&why)))
        }
        Outcome::Crashed { message } => Ok(end(state, policy, attempt, Ended::Crash, message, None, context)),
        Outcome::Failed { transient, retry_after_ms, message } => {
            let transient = transient.unwrap_or(policy.unclassified_is_transient);
            let ended = if transient { Ended::Transient } else { Ended::Permanent };
            Ok(end(state, policy, attempt, ended, message, *retry_after_ms, context))
        }
    }
}

/// The attempt waits outside its agent for answers; or the reason why it would wait for ever.
fn park(
    state: &State,
    attempt: &Attempt,
    questions: &[(String, Value, Option<i64>)],
    checkpoint: Option<&Value>,
) -> Result<Vec<Event>, String> {
    if questions.is_empty() {
        return Err("the handler wants answers but asks nothing".to_owned());
    }
    let added = questions.iter().filter(|(key, ..)| !state.questions.contains_key(key)).count();
    if state.questions.len() + added > INPUTS_MAX {
        return Err(Rejection::TooMany { what: "questions", most: INPUTS_MAX }.to_string());
    }
    let mut events: Vec<Event> = Vec::new();
    events.extend(checkpoint.map(|data| Checkpointed { attempt: attempt.number, data: data.clone() }.into()));
    events.extend(questions.iter().map(|(key, request, expires_at_ms)| {
        InputRequested {
            key: key.clone(),
            request: request.clone(),
            expires_at_ms: *expires_at_ms,
            parks: true,
        }
        .into()
    }));
    Ok(events)
}

/// An attempt ended without a result: what follows for the task.
fn end(
    state: &State,
    policy: &RetryPolicy,
    attempt: &Attempt,
    ended: Ended,
    detail: &str,
    retry_after_ms: Option<u64>,
    context: &Context,
) -> Vec<Event> {
    let before = state.ended.get(&ended).copied().unwrap_or(0);
    let wait_ms = policy.next_wait_ms(ended, before, retry_after_ms).filter(|_| state.cancel.is_none());
    let attempt_ended = AttemptEnded {
        attempt: attempt.number,
        fence: attempt.fence,
        ended,
        detail: detail.to_owned(),
        retry_at_ms: wait_ms.map(|ms| context.now.plus_ms(ms).millis()),
    };
    let mut events: Vec<Event> = vec![attempt_ended.into()];
    if let Some(reason) = &state.cancel {
        // Children end first; then the task is told that it can.
        if state.children.is_empty() {
            events.push(Canceled { reason: reason.clone() }.into());
        }
    } else if wait_ms.is_none() && RetryPolicy::dead_letters(ended) {
        events.push(DeadLettered { ended, message: detail.to_owned() }.into());
    } else if wait_ms.is_none() {
        events.push(Failed { message: detail.to_owned() }.into());
    }
    events
}

fn delegate(state: &State, delegated: ChildDelegated, siblings: usize) -> Result<Vec<Event>, Rejection> {
    match state.children.get(&delegated.key) {
        Some(child) if child.digest == delegated.digest => Ok(Vec::new()),
        Some(_) => Err(Rejection::KeyConflict { key: delegated.key }),
        None if state.cancel.is_some() => Err(Rejection::Illegal { status: state.status, verb: "delegate" }),
        None if state.children.len() >= CHILDREN_MAX => {
            Err(Rejection::TooMany { what: "children", most: CHILDREN_MAX })
        }
        None if state.children.len() != siblings => Err(Rejection::Overtaken),
        None => Ok(vec![delegated.into()]),
    }
}

fn ask(
    state: &State,
    key: &str,
    request: &Value,
    expires_at_ms: Option<i64>,
) -> Result<Vec<Event>, Rejection> {
    match state.questions.get(key) {
        Some(question) if question.request == *request => Ok(Vec::new()),
        Some(_) => Err(Rejection::KeyConflict { key: key.to_owned() }),
        None if state.questions.len() >= INPUTS_MAX => {
            Err(Rejection::TooMany { what: "questions", most: INPUTS_MAX })
        }
        None => {
            let requested =
                InputRequested { key: key.to_owned(), request: request.clone(), expires_at_ms, parks: false };
            Ok(vec![requested.into()])
        }
    }
}

fn answer(state: &State, key: &str, answer: &Answer) -> Result<Vec<Event>, Rejection> {
    let no_question = || Rejection::NoQuestion { key: key.to_owned() };
    let question = state.questions.get(key).ok_or_else(no_question)?;
    match &question.answer {
        Some(given) if given == answer => Ok(Vec::new()),
        Some(_) => Err(no_question()),
        None if state.status.is_terminal() => Err(Rejection::Final { status: state.status }),
        None => Ok(vec![InputAnswered { key: key.to_owned(), answer: answer.clone() }.into()]),
    }
}

fn cancel(state: &State, reason: &str, by_parent: bool) -> Result<Vec<Event>, Rejection> {
    if state.status == Status::Canceled || (state.cancel.is_some() && !state.status.is_terminal()) {
        return Ok(Vec::new());
    }
    if state.status.is_terminal() {
        return Err(Rejection::Final { status: state.status });
    }
    let mut events: Vec<Event> = vec![CancelRequested { reason: reason.to_owned(), by_parent }.into()];
    if state.attempt.is_none() && state.children.is_empty() {
        events.push(Canceled { reason: reason.to_owned() }.into());
    }
    Ok(events)
}

fn cancel_now(state: &State) -> Result<Vec<Event>, Rejection> {
    match &state.cancel {
        Some(reason) if state.attempt.is_none() && !state.status.is_terminal() => {
            Ok(vec![Canceled { reason: reason.clone() }.into()])
        }
        _ => Ok(Vec::new()),
    }
}

fn expire(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let due = state.submitted.as_ref().and_then(|submitted| submitted.deadline_ms);
    if state.status.is_terminal() || due.is_none_or(|at_ms| context.now.millis() < at_ms) {
        return Ok(Vec::new());
    }
    let message = "its deadline passed".to_owned();
    let mut events: Vec<Event> = Vec::new();
    if let Some(attempt) = &state.attempt {
        let ended = AttemptEnded {
            attempt: attempt.number,
            fence: attempt.fence,
            ended: Ended::Deadline,
            detail: message.clone(),
            retry_at_ms: None,
        };
        events.push(ended.into());
    }
    events.push(Failed { message }.into());
    Ok(events)
}

fn retry(state: &State) -> Result<Vec<Event>, Rejection> {
    match state.status {
        Status::Failed | Status::DeadLettered if state.is_erased() => Err(Rejection::Erased),
        Status::Failed | Status::DeadLettered => Ok(vec![Retried {}.into()]),
        status => Err(Rejection::Illegal { status, verb: "be retried" }),
    }
}

/// Only what was called off with its parent; a child that came to an end of its own, or by a person, keeps it.
fn revive(state: &State) -> Vec<Event> {
    let is_revived = state.status == Status::Canceled && state.is_canceled_by_parent && !state.is_erased();
    if is_revived { vec![Retried {}.into()] } else { Vec::new() }
}
