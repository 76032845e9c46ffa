//! What a task can go through: children, cancellation, deadlines, questions, dead letters.

use std::collections::BTreeSet;

use events::{Position, Recorded};
use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_delegates_and_gets_the_child_s_result() {
    let stage = Stage::with_crew().await;
    let child = json!({"do": "echo", "text": "from the worker"});
    let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": child})).await;
    let ended = stage.ended(&task).await;
    let output = &ended["output"]["parts"][0]["data"];
    assert_eq!(output["state"], "completed", "{ended:#}");
    let child = stage.json(&["task", "show", output["child"].as_str().expect("a child")]).await;
    assert_eq!((&child["parent"], &child["member"]), (&json!(task), &json!("worker")), "{child:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_is_told_whom_it_may_reach_and_what_they_do() {
    let stage = Stage::empty().await;
    stage
        .assemble(&CREW.replace("spec:\n  handler", "spec:\n  description: does deeds\n  handler"))
        .await
        .ok();
    let task = stage.submit(&json!({"do": "peers"})).await;
    let told = stage.ended(&task).await["output"]["parts"][0]["data"]["peers"].clone();
    assert_eq!(
        told,
        json!([{"member": "worker", "kinds": ["task", "message"], "description": "does deeds"}])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_task_ends_its_children_too() {
    let stage = Stage::with_crew().await;
    let child = wait_for(&stage.home, "never");
    let parent = stage.submit(&json!({"do": "delegate", "to": "worker", "input": child})).await;
    let child = eventually("the child", async || {
        let diary = stage.home.diary();
        diary.iter().find(|entry| entry["member"] == "worker").map(|entry| entry["task"].clone())
    })
    .await;
    let child = child.as_str().expect("an id").to_owned();
    stage.hypercode(&["task", "cancel", &parent, "--reason", "no longer wanted"]).await.ok();
    for task in [&child, &parent] {
        assert_eq!(stage.ended(task).await["status"], "canceled", "{task}");
    }
    let heard = |entry: &Value| entry["task"] == child.as_str() && entry["deed"] == "cancel";
    eventually("the handler hears of it", async || stage.home.diary().iter().any(heard).then_some(())).await;
    // What has ended stays so.
    stage.hypercode(&["task", "cancel", &parent]).await.ok();
    stage.hypercode(&["task", "retry", &parent]).await.refused(1);
    stage.leave().await;
}

/// What a task waits for ends with it, though a child of it, or a person, takes their time.
#[tokio::test(flavor = "multi_thread")]
async fn open_calls_of_a_cancelled_task_end() {
    let stage = Stage::with_crew().await;
    let file = stage.home.path("heard").display().to_string();
    let child = json!({"do": "deaf", "for": file});
    let waits = [
        json!({"do": "delegate", "to": "worker", "input": child}),
        json!({"do": "ask", "title": "may it go on?"}),
    ];
    for deed in waits {
        let task = stage.submit(&deed).await;
        eventually("it waits", async || {
            let shown = stage.json(&["task", "show", &task]).await;
            let has_child = stage.home.diary().iter().any(|entry| entry["deed"] == "deaf");
            (shown["status"] == "input_required" || has_child).then_some(())
        })
        .await;
        stage.hypercode(&["task", "cancel", &task]).await.ok();
        let refused = |entry: &Value| entry["task"] == task.as_str() && entry["deed"] == "refused";
        let told = eventually("its call ends", async || stage.home.diary().into_iter().find(refused)).await;
        assert_eq!(told["type"], "canceled", "{told}");
        stage.home.write("heard", "");
        assert_eq!(stage.ended(&task).await["status"], "canceled");
    }
    stage.leave().await;
}

/// However many ask at once, no more children are open than the channel allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_s_fan_out_holds_for_delegations_that_are_made_at_once() {
    let stage = Stage::empty().await;
    stage.assemble(&CREW.replace("kinds: [task, message]", "kinds: [task], maxFanOut: 3")).await.ok();
    let child = wait_for(&stage.home, "never");
    let task = stage.submit(&json!({"do": "spread", "to": "worker", "times": 20, "input": child})).await;
    let ended = stage.ended(&task).await;
    let refused = ended["output"]["parts"][0]["data"]["refused"].as_array().expect("a list").clone();
    assert_eq!(refused, vec![json!("fanout_limited"); 17], "{ended:#}");
    let children = stage.api.list("/v1/tasks").await;
    let children = children.iter().filter(|other| other["parent"] == task.as_str());
    assert_eq!(children.count(), 3);
    stage.leave().await;
}

/// Nobody waits for the child of a task that failed; when the task is retried, it has it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_fails_takes_its_children_along() {
    let stage = Stage::with_crew().await;
    let input = wait_for(&stage.home, "go");
    let parent = stage.submit(&json!({"do": "leave", "to": "worker", "input": input})).await;
    assert_eq!(stage.ended(&parent).await["status"], "failed");
    let child = eventually("the child", async || {
        let tasks = stage.api.list("/v1/tasks").await;
        tasks.into_iter().find(|task| task["parent"] == parent.as_str())
    })
    .await;
    let child = child["id"].as_str().expect("an id").to_owned();
    assert_eq!(stage.ended(&child).await["status"], "canceled");
    stage.home.write("go", "");
    stage.hypercode(&["task", "retry", &parent]).await.ok();
    let ended = eventually("the end of the retried task", async || {
        let found = stage.ended(&parent).await;
        (found["status"] == "completed").then_some(found)
    })
    .await;
    assert_eq!(ended["output"]["parts"][0]["text"], "completed", "{ended:#}");
    assert_eq!(stage.ended(&child).await["status"], "completed");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_fails_at_its_deadline() {
    let stage = Stage::with_crew().await;
    let input = wait_for(&stage.home, "never").to_string();
    let submit = ["task", "submit", "troupe", "--input", &input, "--deadline", "500ms", "--wait"];
    let said = stage.hypercode(&submit).await.refused(1);
    assert!(said.contains("failed") && said.contains("deadline"), "{said}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_a_person_s_answer() {
    let stage = Stage::with_crew().await;
    for (verb, action) in [("approve", "accept"), ("reject", "decline")] {
        let task = stage.submit(&json!({"do": "ask", "title": "may I?"})).await;
        let question = eventually("the question", async || {
            let list = stage.json(&["approval", "list"]).await;
            let questions = list["items"].as_array()?.clone();
            questions.into_iter().find(|question| question["task"] == task.as_str())
        })
        .await;
        assert_eq!(question["request"]["title"], "may I?", "{question:#}");
        let agent = stage.agent("lead", "waiting", |agent| agent["status"] == "waiting").await;
        let shown = stage.json(&["agent", "show", agent["id"].as_str().expect("an id")]).await;
        let waits_for = json!([{"key": "question", "title": "may I?"}]);
        assert_eq!(shown["inHand"][0]["waitsFor"], waits_for, "{shown:#}");
        let table = stage.hypercode(&["approval", "list"]).await.ok();
        assert!(table.contains("may I?") && table.contains(&task), "{table}");
        stage.hypercode(&["approval", verb, &task, "question"]).await.ok();
        let ended = stage.ended(&task).await;
        assert_eq!(ended["output"]["parts"][0]["data"]["action"], action, "{ended:#}");
    }
    stage.leave().await;
}

/// A task that cannot go on without answers is put down, and goes on with them in the same attempt; as often as it asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_task_goes_on_with_its_answers() {
    let stage = Stage::with_crew().await;
    let questions = json!({
        "colour": {"kind": "choice", "title": "which colour?", "choices": ["red", "green"]},
        "name": {"kind": "text", "title": "which name?"},
    });
    let task = stage.submit(&json!({"do": "park", "questions": questions})).await;
    for (key, wrong, right) in [("colour", Some("purple"), "red"), ("name", None, "12")] {
        eventually(&format!("the question `{key}`"), async || {
            let list = stage.json(&["approval", "list"]).await;
            let is_it = |question: &Value| question["task"] == task.as_str() && question["key"] == key;
            list["items"].as_array()?.iter().any(is_it).then_some(())
        })
        .await;
        if let Some(wrong) = wrong {
            let said = stage.hypercode(&["approval", "answer", &task, key, wrong]).await.refused(2);
            assert!(said.contains("expected one of"), "{said}");
        }
        stage.hypercode(&["approval", "answer", &task, key, right]).await.ok();
    }
    let ended = stage.ended(&task).await;
    let output = &ended["output"]["parts"][0]["data"];
    assert_eq!(output["attempt"], 1, "{ended:#}");
    for (key, answer) in [("colour", "red"), ("name", "12")] {
        assert_eq!(output["answers"][key]["content"], answer, "{ended:#}");
        let position = output["answers"][key]["position"].as_u64().expect("a position");
        let shown = stage.json(&["audit", "show", &position.to_string()]).await;
        assert_eq!(shown["kind"], "input_answered", "{shown:#}");
    }
    stage.leave().await;
}

/// What no frame could carry is refused before it is anybody's task.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_too_deep_is_refused_at_once() {
    let stage = Stage::with_crew().await;
    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let body = |levels| json!({"crew": "troupe", "input": {"do": "echo", "text": nested(levels)}});
    // The deed's own object is a level too.
    let most = link::limits::CONTENT_DEPTH_MAX - 1;
    let refused = stage.api.post("/v1/tasks", &body(most + 1), None).await.expect("an answer");
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains("deep")), "{refused:?}");
    let task = stage.api.insist("/v1/tasks", &body(most), "deep").await.done();
    let ended = stage.ended(task["id"].as_str().expect("an id")).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let task = stage.submit(&json!({"do": "deep", "levels": link::limits::DEPTH_MAX - 4})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().is_some_and(|error| error.contains("deep")), "{ended:#}");
    stage.leave().await;
}

/// Identical delegations are told apart by their order, which outlives the platform.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_delegations_are_children_of_their_own_whoever_is_killed() {
    let mut stage = Stage::with_crew().await;
    let go = stage.home.path("go");
    let deed =
        json!({"do": "repeat", "times": 4, "first": 2, "for": go, "to": "worker", "input": {"do": "echo"}});
    let task = stage.submit(&deed).await;
    eventually("two children", async || {
        let tasks = stage.api.list("/v1/tasks").await;
        let of_it = |child: &&Value| child["parent"] == task.as_str() && child["status"] == "completed";
        (tasks.iter().filter(of_it).count() == 2).then_some(())
    })
    .await;
    stage.up.restart(&stage.home).await;
    stage.up.ready(&stage.api).await;
    stage.home.write("go", "");
    let ended = stage.ended(&task).await;
    let children = ended["output"]["parts"][0]["data"]["children"].as_array().expect("children").clone();
    let distinct: BTreeSet<_> = children.iter().map(Value::to_string).collect();
    assert_eq!((children.len(), distinct.len()), (4, 4), "{ended:#}");
    stage.leave().await;
}

/// All that is done for a task is in the trace of who asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_delegations_and_messages() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let stage = Stage::with_crew().await;
    let child = json!({"do": "send", "to": "lead", "text": "hello"});
    let deed = json!({"do": "delegate", "to": "worker", "input": child});
    let back = "  channels:\n    - {from: worker, to: lead, kinds: [message]}";
    let crew = CREW.replace("name: troupe", "name: traced").replace("  channels:", back);
    stage.assemble(&crew).await.ok();
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let body = json!({"crew": "traced", "input": deed});
    let task = stage.api.post_traced("/v1/tasks", &body, &traceparent).await.expect("an answer").done();
    let ended = stage.ended(task["id"].as_str().expect("an id")).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let log = stage.home.log().await.read(Position(0), 1_000).await.expect("the log can be read");
    let traced = |event: &&Recorded| event.meta.traceparent.as_deref().is_some_and(|it| it.contains(TRACE));
    let kinds: Vec<&str> = log.iter().filter(traced).map(|event| &*event.kind).collect();
    for (kind, times) in [("task_submitted", 2), ("child_delegated", 1), ("message_sent", 1)] {
        assert_eq!(kinds.iter().filter(|it| **it == kind).count(), times, "{kind} in {kinds:?}");
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_its_handlers_becomes_a_dead_letter_and_can_be_retried() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&json!({"do": "die_unless", "file": stage.home.path("cured")})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "dead_lettered", "{ended:#}");
    assert_eq!(ended["history"].as_array().map(Vec::len), Some(3), "{ended:#}");
    let dead = stage.json(&["task", "list", "--status", "dead_lettered"]).await;
    assert_eq!(dead["items"][0]["id"], task.as_str(), "{dead:#}");
    stage.hypercode(&["task", "result", &task]).await.refused(1);
    stage.home.write("cured", "");
    stage.hypercode(&["task", "retry", &task]).await.ok();
    let ended = eventually("the end of the retried task", async || {
        let found = stage.ended(&task).await;
        (found["status"] == "completed").then_some(found)
    })
    .await;
    assert_eq!(ended["output"]["parts"][0]["text"], "lived", "{ended:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_one_task_and_no_other() {
    let stage = Stage::with_crew().await;
    let input = json!({"do": "echo", "text": "once"}).to_string();
    let submit = ["task", "submit", "troupe", "--idempotency-key", "k1", "--input"];
    let first = stage.json(&[&submit[..], &[&input]].concat()).await;
    let again = stage.json(&[&submit[..], &[&input]].concat()).await;
    assert_eq!(first["id"], again["id"]);
    let said = stage.hypercode(&[&submit[..], &[r#"{"do": "fail"}"#]].concat()).await;
    assert_ne!(said.code, 0, "another task under the same key: {said:?}");
    assert_eq!(stage.ended(first["id"].as_str().expect("an id")).await["status"], "completed");
    // So it is with every command.
    for (verb, key, status) in
        [("pause", "k2", 200), ("pause", "k2", 200), ("resume", "k2", 422), ("resume", "k3", 200)]
    {
        let path = format!("/v1/crews/troupe/{verb}");
        let answer = stage.api.post(&path, &json!({}), Some(key)).await.expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
    }
    stage.leave().await;
}

/// Bodies over 4 KiB are kept beside the log; handlers do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_reach_handlers_whole() {
    let stage = Stage::with_crew().await;
    let text = "0123456789abcdef".repeat(5_000);
    let task = stage.api.insist("/v1/tasks", &large(&text), "large").await.done();
    let ended = stage.ended(task["id"].as_str().expect("an id")).await;
    let output = &ended["output"]["parts"][0]["data"]["output"]["parts"][0]["text"];
    assert_eq!(output.as_str().map(str::len), Some(text.len()), "through a child and back");
    let task = stage.submit(&json!({"do": "checkpoint", "chars": 50_000})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["output"]["parts"][0]["data"]["kept"], 50_000, "{ended:#}");
    // What no attempt could be given is not taken in.
    let body = json!({"crew": "troupe", "input": {"do": "checkpoint", "chars": 60_000, "ballast": "x".repeat(190_000)}});
    let task = stage.api.insist("/v1/tasks", &body, "ballast").await.done();
    let ended = stage.ended(task["id"].as_str().expect("an id")).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().is_some_and(|error| error.contains("artifact")), "{ended:#}");
    let huge = stage.api.post("/v1/tasks", &large(&"x".repeat(1 << 20)), None).await.expect("an answer");
    assert_eq!(huge.status, 400, "{huge:?}");
    stage.leave().await;
}

fn large(text: &str) -> Value {
    let child = json!({"do": "echo", "text": text});
    json!({"crew": "troupe", "input": {"do": "delegate", "to": "worker", "input": child}})
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_only_where_a_channel_is() {
    let stage = Stage::with_crew().await;
    let task = stage.submit(&json!({"do": "send", "to": "worker", "text": "hello"})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["output"]["parts"][0]["data"]["recipients"], 1, "{ended:#}");
    let message = eventually("the message is settled", async || {
        let messages = stage.api.list("/v1/messages").await;
        messages.into_iter().find(|message| message["deliveries"][0]["status"] == "unhandled")
    })
    .await;
    assert_eq!(
        (&message["from"]["member"], &message["to"]),
        (&json!("lead"), &json!("worker")),
        "{message:#}"
    );

    let back = json!({"do": "send", "to": "lead", "text": "hello"});
    let body = json!({"crew": "troupe", "to": "worker", "input": back});
    let task = stage.api.insist("/v1/tasks", &body, "back").await.done();
    let ended = stage.ended(task["id"].as_str().expect("an id")).await;
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert!(ended["error"].as_str().is_some_and(|error| error.contains("channel")), "{ended:#}");
    let denied = stage.api.list("/v1/audit?outcome=denied").await;
    assert_eq!(denied.len(), 1, "{denied:#?}");
    stage.leave().await;
}

/// What a handler says on the way is for those who watch at the moment, and nowhere in the log.
#[tokio::test(flavor = "multi_thread")]
async fn deltas_reach_those_who_watch_and_are_no_events() {
    let stage = Stage::with_crew().await;
    let deed = json!({"do": "mutter", "text": "word by word", "for": stage.home.path("heard")});
    let task = stage.submit(&deed).await;
    let mut watching = stage.home.start(&["task", "watch", &task]);
    watching.says("word by word").await;
    stage.home.write("heard", "");
    assert!(watching.ends().await.success());
    let events = stage.api.list(&format!("/v1/audit?entity=task/{task}")).await;
    let told = serde_json::to_string(&events).expect("JSON");
    assert!(!told.contains("word by word") && !told.contains("task_progressed"), "{told}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_only_to_a_replica_that_there_is() {
    let stage = Stage::with_crew().await;
    let submit = ["task", "submit", "troupe", "--input", r#"{"do": "echo"}"#, "--wait", "--to"];
    let said = stage.hypercode(&[&submit[..], &["worker[1]"]].concat()).await.refused(4);
    assert!(said.contains("worker[1]"), "{said}");
    assert_eq!(stage.api.list("/v1/tasks").await, Vec::<Value>::new());
    stage.hypercode(&[&submit[..], &["worker[0]"]].concat()).await.ok();
    stage.hypercode(&["crew", "scale", "troupe", "worker=2"]).await.ok();
    stage.hypercode(&[&submit[..], &["worker[1]"]].concat()).await.ok();
    // What was accepted while there was one stays accepted.
    let body = json!({"crew": "troupe", "to": "worker[1]", "input": {"do": "echo"}});
    let first = stage.api.insist("/v1/tasks", &body, "k").await.done();
    stage.ended(first["id"].as_str().expect("an id")).await;
    stage.hypercode(&["crew", "scale", "troupe", "worker=1"]).await.ok();
    let again = stage.api.insist("/v1/tasks", &body, "k").await.done();
    assert_eq!(again["id"], first["id"]);
    stage.hypercode(&[&submit[..], &["worker[1]"]].concat()).await.refused(4);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_many_tasks_is_listed() {
    let stage = Stage::with_crew().await;
    stage.hypercode(&["crew", "pause", "troupe"]).await.ok();
    let mut last = String::new();
    for n in 0..=100 {
        let body = json!({"crew": "troupe", "input": {"do": "echo"}});
        let done = stage.api.insist("/v1/tasks", &body, &format!("k{n}")).await.done();
        last = done["id"].as_str().expect("an id").to_owned();
    }
    let table = stage.hypercode(&["task", "list"]).await.ok();
    assert!(table.lines().last().is_some_and(|line| line.starts_with(&last)), "{last} is not last: {table}");
    stage.hypercode(&["crew", "resume", "troupe"]).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_under_the_longest_key_is_answered() {
    let stage = Stage::with_crew().await;
    let key = "k".repeat(link::limits::KEY_BYTES_MAX);
    let task = stage.submit(&json!({"do": "ask", "title": "may I?", "key": key})).await;
    eventually("the question", async || {
        let list = stage.json(&["approval", "list"]).await;
        (list["items"][0]["key"] == key.as_str()).then_some(())
    })
    .await;
    let said = stage.hypercode(&["task", "result", &task]).await.refused(1);
    assert!(said.contains("has not ended yet"), "{said}");
    stage.hypercode(&["approval", "approve", &task, &key]).await.ok();
    assert_eq!(stage.ended(&task).await["status"], "completed");
    stage.leave().await;
}

/// A handler that goes on with a task whose time is over holds its place until it lets go or is killed: the next task
/// does not go down with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_not_given_to_a_handler_that_does_not_let_go_of_another() {
    let stage = Stage::empty().await;
    let crew = CREW
        .replace("concurrency: 4, grace: 2s}", "concurrency: 1, grace: 1s}\n  retry: {maxAttempts: 1}")
        .replace(r#"CONCURRENCY: "4""#, r#"CONCURRENCY: "1""#);
    stage.assemble(&crew).await.ok();
    let never = stage.home.path("never");
    let deaf = json!({"do": "deaf", "for": never}).to_string();
    let submit = ["task", "submit", "troupe", "--input", &deaf, "--deadline", "1s"];
    let late = stage.json(&submit).await["id"].as_str().expect("an id").to_owned();
    stage.in_hand(&late, 1).await;
    let next = stage.submit(&json!({"do": "echo", "text": "unharmed"})).await;

    let late = stage.ended(&late).await;
    assert_eq!((&late["status"], &late["error"]), (&json!("failed"), &json!("its deadline passed")));
    let next = stage.ended(&next).await;
    assert_eq!((&next["status"], &next["attempts"]), (&json!("completed"), &json!(1)), "{next:#}");
    let lead = stage.agent("lead", "recovered", |agent| agent["incarnation"] == 2).await;
    let why = lead["lastExit"]["detail"].as_str().expect("a detail");
    assert!(why.starts_with("its handler was killed: it did not stop task"), "{why}");
    stage.leave().await;
}
