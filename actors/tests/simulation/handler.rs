//! Handlers that do what handlers do, and whatever else they should not.

use std::time::Duration;

use gateway::HostCall;
use link::handler::{Execute, Executed, State};
use link::{Content, Error, ErrorType, InputKind, InputRequest, OnTimeout};
use sandbox::Id;
use serde_json::json;
use tokio::time::sleep;

use super::runner::{Held, Line};

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Script {
    Complete,
    Twice,
    Fail(Option<&'static str>),
    Reject,
    Crash,
    CheckpointAndCrash,
    Hang,
    Ask,
    Park,
    Straggle,
    Stubborn,
}

const SCRIPTS: &[(u64, Script)] = &[
    (30, Script::Complete),
    (4, Script::Twice),
    (5, Script::Fail(Some("transient"))),
    (2, Script::Fail(Some("permanent"))),
    (2, Script::Fail(None)),
    (2, Script::Reject),
    (6, Script::Crash),
    (5, Script::CheckpointAndCrash),
    (3, Script::Hang),
    (4, Script::Ask),
    (4, Script::Park),
    (6, Script::Straggle),
    (3, Script::Stubborn),
];

/// Names the execution that made an output: one fence, in one sandbox.
pub fn signature(fence: u64, sandbox: &str) -> String {
    format!("{fence} in {sandbox}")
}

fn output(line: &Line, held: &Held) -> Executed {
    Executed::output(Content::text(signature(held.fence, line.sandbox.as_str())))
}

fn question(held: &Held, timeout_ms: u64) -> InputRequest {
    InputRequest {
        task_id: Some(held.task.clone()),
        key: Some("q".into()),
        kind: InputKind::Text,
        title: "which?".into(),
        detail: None,
        schema: None,
        choices: Vec::new(),
        timeout_ms: Some(timeout_ms),
        on_timeout: OnTimeout::Decline,
        default: None,
    }
}

/// Works on one attempt to its end, or to the handler's.
pub async fn execute(line: &Line, sandbox: &Id, held: &Held, params: Execute, leads: bool) {
    let dice = &line.world.dice;
    let leads = leads && dice.one_in(2);
    let script = if line.world.is_calm() { Script::Complete } else { dice.weighted(SCRIPTS) };
    let stubborn = matches!(script, Script::Stubborn | Script::Hang);
    let done = tokio::select! {
        biased;
        () = held.canceled.cancelled(), if !stubborn => Some(Ok(Executed::ended(State::Canceled, "stopped"))),
        done = work(line, sandbox, held, &params, script, leads) => done,
    };
    if let Some(done) = done {
        line.result(held, done).await;
    }
}

async fn work(
    line: &Line,
    sandbox: &Id,
    held: &Held,
    params: &Execute,
    script: Script,
    leads: bool,
) -> Option<Result<Executed, Error>> {
    let dice = &line.world.dice;
    sleep(dice.up_to_ms(1_500)).await;
    if leads {
        delegate(line, held, dice.one_in(3)).await;
    }
    match script {
        Script::Complete => Some(Ok(output(line, held))),
        Script::Twice => {
            line.result(held, Ok(output(line, held))).await;
            Some(Err(Error::new(ErrorType::HandlerFailed, "on second thoughts")))
        }
        Script::Fail(class) => {
            let error = Error::new(ErrorType::HandlerFailed, "it did not work");
            Some(Err(match class {
                Some(class) => error.with("retry", class),
                None => error,
            }))
        }
        Script::Reject => Some(Ok(Executed::ended(State::Rejected, "not mine"))),
        Script::Crash => {
            line.world.end(sandbox, Some(9));
            None
        }
        Script::CheckpointAndCrash => {
            checkpoint(line, held).await;
            line.world.end(sandbox, Some(11));
            None
        }
        Script::Hang => {
            line.world.calm().await;
            std::future::pending().await
        }
        Script::Ask => {
            let _ = line.call(held, HostCall::InputRequest(question(held, 20_000))).await;
            Some(Ok(output(line, held)))
        }
        Script::Park if params.answers.is_empty() => {
            let request = InputRequest { task_id: None, key: None, ..question(held, 20_000) };
            let requests = [("p".to_owned(), request)].into();
            let checkpoint = Some(json!({ "parked": true }));
            Some(Ok(Executed { state: State::InputRequired, requests, checkpoint, ..Executed::default() }))
        }
        Script::Park => Some(Ok(output(line, held))),
        Script::Straggle => {
            line.straggle(held, Ok(output(line, held)));
            line.world.end(sandbox, Some(9));
            None
        }
        Script::Stubborn => {
            checkpoint(line, held).await;
            sleep(Duration::from_secs(3)).await;
            Some(Ok(output(line, held)))
        }
    }
}

/// Writes something down that nobody else ever writes down.
async fn checkpoint(line: &Line, held: &Held) {
    let data = json!({ "once": format!("{} {}", held.task, signature(held.fence, line.sandbox.as_str())) });
    let call = link::Checkpoint { task_id: held.task.clone(), data };
    let _ = line.call(held, HostCall::Checkpoint(call)).await;
}

async fn delegate(line: &Line, held: &Held, wait: bool) {
    let to: link::Address = "analyst".parse().expect("a member's name is an address");
    for part in 0..2 {
        let call = link::Delegate {
            task_id: held.task.clone(),
            to: to.clone(),
            input: Content::text(format!("part {part}")),
            key: Some(format!("part-{part}")),
            wait: wait || part == 1,
            timeout_ms: None,
            metadata: None,
            repeat: None,
        };
        let call = HostCall::Delegate { call, member: "analyst".into(), agent: None, depth: 1, fan_out: 16 };
        let _ = line.call(held, call).await;
    }
}
