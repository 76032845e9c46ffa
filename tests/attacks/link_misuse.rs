//! Links that are used in ways that are no offence each, and would cost others something.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::frames::{CREW, call, give};
use crate::links::{is_root, said, taken_over};
use crate::stage::Stage;
use crate::support::PATIENCE;
use crate::told::{head, recorded, says, text, told, told_without};

/// Memory that a platform may gain from one who never reads, in KiB: what is queued is far less.
const GROWTH_KIB_MAX: u64 = 96 * 1024;
/// The platform waits thirty seconds for one who reads nothing, if not so much waits before.
const CUT: Duration = Duration::from_secs(30).saturating_add(PATIENCE);

/// The memory that a process has, in KiB.
fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_cut_off_and_costs_nobody_else_anything() {
    if !is_root() {
        return;
    }
    let stage = Stage::empty().await;
    stage.assemble(&CREW.replace("one_for_all", "one_for_one")).await.ok();
    let loner = stage.agent("loner", "ready", |agent| agent["status"] == "ready").await;
    let (before, after) = (resident_kib(stage.up.pid()), head(&stage).await);
    let mut link = taken_over(&stage, &loner).await;
    let mut calls = 0u64;
    let flood = async {
        loop {
            let call = json!({"t": "call", "id": calls, "method": "x".repeat(16_000), "params": {}});
            if link.write_all(&said(&call.to_string())).await.is_err() {
                return;
            }
            calls += 1;
        }
    };
    let others = async {
        for number in 0..5 {
            let key = format!("neighbour-{number}");
            let task = give(&stage, "troupe", "lead", &json!({"do": "echo"}), &key).await;
            assert_eq!(stage.ended(&task).await["status"], "completed");
        }
    };
    let (cut, ()) = tokio::join!(tokio::time::timeout(CUT, flood), others);
    cut.expect("the link is cut");
    let grown = resident_kib(stage.up.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for {calls} calls whose answers nobody read");
    // Cut off, it is nobody's: its agent is lost, since its runner says nothing either.
    let position = recorded(&stage, after, "agent_unhealthy", |event| says(event, "lost")).await;
    stage.agent("loner", "recovered", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    let tried = format!("never to read the answers to {calls} calls");
    told("T08", &tried, "the link is cut, and the agent recovered; others answer", position);
    stage.leave().await;
}

/// Every event that has this text in one of its columns.
async fn saying(stage: &Stage, words: &str) -> Vec<String> {
    let log = stage.home.log().await.read(events::Position(0), 100_000).await.expect("the log can be read");
    let events = log.into_iter().map(|event| format!("{event:?}"));
    events.filter(|event| event.contains(words)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_of_traces_leads_nothing() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const FORGED: &str = "deadbeefdeadbeefdeadbeefdeadbeef";
    let stage = crate::frames::stage().await;
    let forged = format!("00-{FORGED}-00f067aa0ba902b7-01");
    let baggage = format!("who={}", "forged-baggage".repeat(600));
    assert!(baggage.len() > 8 * 1024);
    let with = |mut params: Value| {
        params["traceparent"] = json!(forged);
        params["tracestate"] = json!(baggage);
        params["baggage"] = json!(baggage);
        params
    };
    // An agent that says it in each of its calls, in a task of a trace of its caller's.
    let mut answers = Vec::new();
    for (method, params) in [
        ("message/send", json!({"to": "worker", "text": "hello"})),
        ("state/put", json!({"key": "k", "value": 1})),
        ("artifact/put", json!({"text": "kept", "name": "kept", "mediaType": "text/plain"})),
    ] {
        let deed = json!({"do": "call", "here": true, "method": method, "params": with(params)});
        let body = json!({"crew": "troupe", "to": "lead", "input": deed});
        let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let task = stage.api.post_traced("/v1/tasks", &body, &traceparent).await.expect("an answer").done();
        let ended = stage.ended(text(&task, "id")).await;
        answers.push(ended["output"]["parts"][0]["data"].clone());
    }
    let delegated = json!({"to": "worker", "input": {"do": "echo"}, "key": "child"});
    let deed = json!({"do": "call", "here": true, "method": "task/delegate", "params": with(delegated)});
    let task = give(&stage, "troupe", "lead", &deed, "delegate").await;
    answers.push(stage.ended(&task).await["output"]["parts"][0]["data"].clone());
    // Who may come in may name a trace; nothing of 8 KiB, and nothing that is none.
    for (number, header) in
        [baggage.as_str(), &forged.to_uppercase(), &format!("{forged}-{forged}")].iter().enumerate()
    {
        let body = json!({"crew": "troupe", "to": "lead", "input": {"do": "echo", "ms": number}});
        let answer = stage.api.post_traced("/v1/tasks", &body, header).await.expect("an answer");
        assert!(answer.is_ok() || answer.status == 431, "{answer:?}");
    }
    let _ = call(&stage, "message/send", &with(json!({"to": "worker", "text": "x"})), "no-task").await;

    // The task's own input holds what the agent was told to say; beyond that it is nowhere.
    let is_input = |event: &String| event.contains("\"do\\\":");
    for words in [FORGED, "forged-baggage"] {
        let found: Vec<String> =
            saying(&stage, words).await.into_iter().filter(|event| !is_input(event)).collect();
        assert!(found.is_empty(), "{found:#?}; answers: {answers:#?}");
    }
    for event in saying(&stage, "message_sent").await {
        assert!(!event.contains(FORGED), "{event}");
    }
    told_without(
        "T09",
        "8 KiB of forged trace context, in each call of an agent and in requests",
        "it leads no span and is kept nowhere",
        "it is no offence",
    );
    stage.leave().await;
}
