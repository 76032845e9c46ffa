//! What a crew may use up in its life, and what follows when it has.

use serde_json::{Value, json};

use crate::stage::{CREW, Stage};
use crate::support::{Up, eventually};

/// A platform with a crew that may use so much.
async fn with_budget(budget: &str) -> Stage {
    let stage = Stage::empty().await;
    stage.assemble(&format!("{CREW}  budget: {budget}\n")).await.ok();
    stage
}

impl Stage {
    /// The crew when it is as it is wanted to be.
    async fn crew(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the crew: {what}"), async || {
            let crews = self.api.list("/v1/crews").await;
            let id = crews.first()?["id"].as_str()?.to_owned();
            let crew = self.api.insist_get(&format!("/v1/crews/{id}")).await;
            is(&crew).then_some(crew)
        })
        .await
    }

    /// The platform is killed and comes back.
    async fn dies_and_comes_back(&mut self) {
        self.up.restart(&self.home).await;
        self.up.ready(&self.api).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_handlers_report_are_counted_and_a_crew_that_has_used_them_is_suspended() {
    let mut stage = with_budget("{tokens: 100}").await;
    let task = stage.submit(&json!({"do": "use", "tokens": 60})).await;
    stage.ended(&task).await;
    let shown = stage.json(&["task", "show", &task]).await;
    let usage = json!({"inputTokens": 60, "outputTokens": 0, "costMicros": 0, "source": "reported"});
    assert_eq!(shown["usage"], usage, "{shown:#}");
    let crew = stage.json(&["crew", "show", "troupe"]).await;
    assert_eq!((&crew["spent"]["usage"], &crew["status"]), (&usage, &json!("running")), "{crew:#}");

    // A restart gives nothing back.
    stage.dies_and_comes_back().await;
    let then = json!({"do": "call", "method": "message/send", "params": {"to": "worker", "text": "more"}});
    let over = json!({"do": "use", "tokens": 60, "for": stage.home.path("go"), "then": then});
    let task = stage.submit(&over).await;
    let crew = stage.crew("suspended", |crew| crew["status"] == "paused").await;
    assert_eq!(crew["budget"]["exhausted"], json!(["tokens"]), "{crew:#}");
    // What is in hand goes on, but nothing crosses any more.
    stage.home.write("go", "");
    let refused = &stage.ended(&task).await["output"]["parts"][0]["data"]["error"];
    assert_eq!((&refused["code"], &refused["data"]["type"]), (&json!(402), &json!("budget_exhausted")));

    let waiting = stage.submit(&json!({"do": "echo"})).await;
    let said = stage.hypercode(&["crew", "resume", "troupe"]).await.refused(1);
    assert!(said.contains("120 of 100 tokens"), "{said}");
    stage.dies_and_comes_back().await;
    stage.hypercode(&["crew", "resume", "troupe"]).await.refused(1);
    let shown = stage.json(&["task", "show", &waiting]).await;
    assert_eq!(shown["status"], "submitted", "{shown:#}");
    stage.hypercode(&["crew", "resume", "troupe", "--tokens", "1000"]).await.ok();
    assert_eq!(stage.ended(&waiting).await["status"], "completed");
    let told = stage.api.list("/v1/audit?kind=budget_exhausted").await;
    assert_eq!(told.len(), 1, "{told:#?}");
    stage.leave().await;
}

/// What was noted last is held back for a moment, and written before the platform ends in good order.
#[tokio::test(flavor = "multi_thread")]
async fn what_handlers_noted_last_is_in_the_log_when_the_platform_has_ended() {
    let mut stage = with_budget("{tokens: 1000}").await;
    let last = json!({"do": "use", "tokens": 7, "for": stage.home.path("go")});
    let task = stage.submit(&json!({"do": "use", "tokens": 60, "then": last})).await;
    stage.crew("using", |crew| crew["spent"]["usage"]["inputTokens"] == 60).await;
    let status = stage.up.stop().await;
    assert!(status.success(), "the platform ended with {status}");
    stage.up = Up::start(&stage.home).await;
    stage.crew("having used all", |crew| crew["spent"]["usage"]["inputTokens"] == 67).await;
    stage.home.write("go", "");
    stage.ended(&task).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crew_that_has_sent_its_messages_may_be_told_to_disband() {
    let mut stage = with_budget("{messages: 2, onBreach: disband}").await;
    let send = json!({"do": "send", "to": "worker", "text": "hello"});
    for number in 0..2 {
        let task = stage.submit(&send).await;
        assert_eq!(stage.ended(&task).await["status"], "completed", "{number}");
        stage.dies_and_comes_back().await;
    }
    let third = stage.submit(&send).await;
    stage.ended(&third).await;
    let crew = stage.crew("gone", |crew| crew["status"] == "disbanded").await;
    assert_eq!(crew["reason"], "its budget is used up: 2 of 2 messages", "{crew:#}");
    assert_eq!(crew["spent"]["messages"], 2, "{crew:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crew_s_time_runs_out_also_while_the_platform_is_away() {
    let mut stage = with_budget("{wallTime: 2s}").await;
    stage.dies_and_comes_back().await;
    let crew = stage.crew("suspended", |crew| crew["status"] == "paused").await;
    assert_eq!(crew["budget"]["exhausted"], json!(["wall_time"]), "{crew:#}");
    let told = stage.api.list("/v1/audit?kind=budget_exhausted").await;
    assert_eq!(told.len(), 1, "{told:#?}");
    stage.hypercode(&["crew", "resume", "troupe", "--wall-time", "1h"]).await.ok();
    stage.leave().await;
}
