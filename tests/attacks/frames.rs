//! What agents say over their own links.

use serde_json::{Value, json};

use crate::stage::Stage;
use crate::told::{head, recorded, says, text, told, told_without};

/// A crew in which the lead may talk to the worker, and nobody to the loner. Who falls takes all others with it.
pub(crate) const CREW: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: deeds}
spec:
  handler: {command: [python3, deeds.py], source: ./deeds, concurrency: 8, grace: 2s}
  env: {CONCURRENCY: "8", DIARY: "@DIARY@"}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: troupe}
spec:
  entry: lead
  members:
    - {name: lead, profile: deeds}
    - {name: worker, profile: deeds}
    - {name: loner, profile: deeds}
  channels:
    - {from: lead, to: worker, kinds: [task, message], rate: 20/s}
  supervision: {strategy: one_for_all}
  liveness: {heartbeat: 500ms, missed: 60}
"#;

pub(crate) async fn stage() -> Stage {
    let stage = Stage::empty().await;
    stage.assemble(CREW).await.ok();
    stage
}

/// Gives a member of a crew something to do.
pub(crate) async fn give(stage: &Stage, crew: &str, member: &str, deed: &Value, key: &str) -> String {
    let body = json!({"crew": crew, "to": member, "input": deed});
    let done = stage.api.insist("/v1/tasks", &body, key).await.done();
    text(&done, "id").to_owned()
}

/// What the platform answers to a call of the lead's.
pub(crate) async fn call(stage: &Stage, method: &str, params: &Value, key: &str) -> Value {
    let task =
        give(stage, "troupe", "lead", &json!({"do": "call", "method": method, "params": params}), key).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    ended["output"]["parts"][0]["data"].clone()
}

/// The position that a refusal names, at which there is such an event.
async fn position(stage: &Stage, error: &Value, kind: &str) -> u64 {
    let data = &error["data"];
    let position = data["position"].as_u64();
    let position = position.unwrap_or_else(|| panic!("no position in {error:#}"));
    assert_eq!(stage.json(&["audit", "show", &position.to_string()]).await["kind"], kind, "{error:#}");
    position
}

async fn messages(stage: &Stage) -> usize {
    stage.api.list("/v1/audit?kind=message_sent").await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_may_not_say_is_refused() {
    let stage = stage().await;

    let other = "kind: Crew\nmetadata: {name: others}";
    stage.assemble(&CREW.replace("kind: Crew\nmetadata: {name: troupe}", other)).await.ok();
    let agents = stage.api.list("/v1/agents").await;
    let crew = stage.json(&["crew", "show", "others"]).await;
    let foreign =
        agents.iter().find(|agent| agent["crew"] == crew["id"]).expect("an agent of the other crew");
    let (mut answers, mut last) = (Vec::new(), 0);
    for to in ["loner", "nobody", text(foreign, "id"), "ag_00000000000000000000000000000000"] {
        let answer =
            call(&stage, "message/send", &json!({"to": to, "text": "psst"}), &format!("t02-{to}")).await;
        last = position(&stage, &answer["error"], "message_denied").await;
        answers.push((answer["error"]["code"].clone(), answer["error"]["data"]["type"].clone()));
    }
    assert_eq!(answers[0].1, "channel_denied");
    assert_eq!(answers[1].1, "unknown_member");
    assert_eq!(answers[2], answers[3], "whether a foreign agent exists is nobody's business");
    assert_eq!(messages(&stage).await, 0);
    told(
        "T02",
        "messages past the channels, to strangers and to another crew",
        "channel_denied, unknown_member",
        last,
    );

    let long = "w".repeat(10 * 1024);
    let addresses = ["*", ">", "worker.>", "wor ker", "worker\r\nX: y", "worker\0", "worker[*", "[0]", &long];
    for (number, to) in addresses.into_iter().enumerate() {
        let answer =
            call(&stage, "message/send", &json!({"to": to, "text": "x"}), &format!("t03-{number}")).await;
        assert!(answer["error"].is_object(), "{to:?} went through: {answer:#}");
    }
    assert_eq!(messages(&stage).await, 0);
    told_without(
        "T03",
        "wildcards, control characters and 10 KiB as addresses",
        "as malformed",
        "nothing was understood",
    );

    for (number, method) in
        ["message/subscribe", "message/list", "crew/subscribe", "inbox/read"].into_iter().enumerate()
    {
        let answer = call(&stage, method, &json!({"subject": "crew.>"}), &format!("t04-{number}")).await;
        assert!(answer["error"].is_object(), "{method}: {answer:#}");
    }
    told_without("T04", "to listen to others", "no such method", "there is no way to ask for it");

    let before = messages(&stage).await;
    let task =
        give(&stage, "troupe", "lead", &json!({"do": "resend", "to": "worker", "times": 16}), "t05").await;
    let ended = stage.ended(&task).await;
    let ids = &ended["output"]["parts"][0]["data"]["ids"];
    assert!(ids.as_array().is_none_or(|ids| ids.len() == 1), "{ended:#}");
    let since = recorded(&stage, 0, "message_sent", |_| true).await;
    assert_eq!(messages(&stage).await, before + 1, "{ended:#}");
    told("T05", "the same message 16 times at once", "all but one", since);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_is_bounded_and_others_answer() {
    let stage = stage().await;
    let after = head(&stage).await;
    let deed = json!({"do": "chatter", "to": "worker", "for": stage.home.path("enough")});
    let flood = give(&stage, "troupe", "lead", &deed, "flood").await;
    let position = recorded(&stage, after, "message_denied", |event| says(event, "(rate)")).await;
    for number in 0..5 {
        let task =
            give(&stage, "troupe", "loner", &json!({"do": "echo"}), &format!("neighbour-{number}")).await;
        assert_eq!(stage.ended(&task).await["status"], "completed");
    }
    stage.home.write("enough", "");
    stage.ended(&flood).await;
    told("T07", "messages without end", "rate_limited; others answer", position);
    stage.leave().await;
}
