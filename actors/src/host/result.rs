//! Results of attempts.

use events::CommandId;
use events::domain::task::{Command, Event, Outcome};
use gateway::Peer;
use link::handler::{Executed, State};
use link::{Error, ErrorType, Retry};
use serde_json::Value;

use super::{Host, wire_error};
use crate::contents;
use crate::entity::Request;
use crate::hosted;

impl Host {
    pub(super) async fn take_result(
        &self,
        peer: &Peer,
        command_id: CommandId,
        frame: link::TaskResultFrame,
    ) -> Result<(), Error> {
        let core = &self.core;
        let id = frame.task_id.as_str().to_owned();
        if let Ok(task) = id.parse() {
            self.usage.flush(core, peer, &task).await;
        }
        let state = core.tasks.read(&id).await.map_err(|problem| wire_error(&problem))?;
        let Some(submitted) = &state.submitted else {
            return Err(Error::new(ErrorType::UnknownTask, format!("task `{id}` does not exist")));
        };
        let theirs = submitted.crew == peer.crew
            && state.attempt.as_ref().is_none_or(|live| {
                live.fence != frame.fence
                    || (live.placement.agent == peer.agent && live.placement.incarnation == peer.incarnation)
            });
        if !theirs {
            return Err(Error::new(ErrorType::Fenced, format!("task `{id}` is not this agent's")));
        }
        let outcome = self.outcome(frame.outcome).await?;
        let request = Request {
            command: Command::Result { attempt: frame.attempt, fence: frame.fence, outcome },
            command_id,
            digest: None,
            meta: self.core.agent_meta(peer),
            is_first: false,
        };
        let answer = core.tasks.execute(&id, request).await;
        // Accepted or not: the handler is no longer at it.
        hosted::let_go(core, &peer.crew, &peer.agent, &submitted.task, frame.fence);
        let answer = answer.map_err(|problem| match problem.kind {
            kind if kind.is_retryable() => Error::new(ErrorType::Unavailable, &problem.detail),
            _ => wire_error(&problem),
        })?;
        let refused = answer.events.iter().any(|event| matches!(event, Event::ResultRefused(_)));
        if refused {
            let message = format!("fence {} of task `{id}` is over", frame.fence);
            return Err(Error::new(ErrorType::Fenced, message).with("position", answer.position.0));
        }
        Ok(())
    }

    async fn outcome(&self, outcome: Result<Executed, Error>) -> Result<Outcome, Error> {
        let executed = match outcome {
            Ok(executed) => executed,
            Err(error) => {
                let transient = match error.retry() {
                    Some(Retry::Transient) => Some(true),
                    Some(Retry::Permanent) => Some(false),
                    None if matches!(error.code, 429 | 503) => Some(true),
                    None => None,
                };
                let message = error.message.chars().take(contents::MESSAGE_CHARS_MAX).collect();
                if transient.is_none() && error.kind == Some(ErrorType::Crash) {
                    return Ok(Outcome::Crashed { message });
                }
                return Ok(Outcome::Failed { transient, retry_after_ms: error.retry_after_ms(), message });
            }
        };
        let message = executed.message.clone().unwrap_or_default();
        Ok(match executed.state {
            State::Completed | State::Submitted | State::Working => {
                let output = executed.output.map_or(Value::Null, contents::wire);
                let artifacts = contents::wire(executed.artifacts);
                Outcome::Completed {
                    output: contents::put(&self.core, output).await.map_err(|p| wire_error(&p))?,
                    artifacts: contents::put(&self.core, artifacts).await.map_err(|p| wire_error(&p))?,
                }
            }
            State::Failed => Outcome::Failed { transient: None, retry_after_ms: None, message },
            State::Rejected => Outcome::Rejected { message },
            State::Canceled => Outcome::Canceled,
            State::InputRequired => {
                if let Some(fault) = executed.requests.values().find_map(link::InputRequest::fault) {
                    let message = format!("a question of its result cannot be asked: {fault}");
                    return Ok(Outcome::Failed { transient: Some(false), retry_after_ms: None, message });
                }
                let now = self.core.clock.now();
                let questions = executed.requests.into_iter().map(|(key, request)| {
                    let expires = request.timeout_ms.map(|ms| now.plus_ms(ms).millis());
                    (key, contents::wire(request), expires)
                });
                let checkpoint = match executed.checkpoint {
                    Some(data) => Some(contents::put(&self.core, data).await.map_err(|p| wire_error(&p))?),
                    None => None,
                };
                Outcome::InputRequired { questions: questions.collect(), checkpoint }
            }
        })
    }
}
