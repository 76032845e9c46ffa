//! Whoever asks too much is told to wait, and nobody else notices.

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::json;

use crate::stage::{CREW, Stage, nothing_is_left};
use crate::support::{Api, Home, Up};
use crate::told::{head, recorded, says, text, told};

/// A platform that lets each ask ten times a second, and looks at two strangers.
async fn strict() -> Stage {
    let home = Home::new();
    let line = "export HYPERCODE_REQUESTS_PER_SECOND=10 HYPERCODE_STRANGERS_PER_SECOND=2";
    let (api, mut up) = (Api::of(&home), Up::spawn_after(line, &home));
    up.ready(&api).await;
    Stage { home, api, up }
}

struct Door {
    client: Client,
    url: String,
}

impl Door {
    fn of(stage: &Stage) -> Self {
        let client = Client::builder().no_proxy().tls_backend_preconfigured(hypercode::tls::none());
        let address = std::fs::read_to_string(stage.home.data().join("http.address")).expect("an address");
        Self { client: client.build().expect("a client"), url: format!("http://{}", address.trim()) }
    }

    /// The statuses of so many requests at once, and whether all that were refused say when to come again.
    async fn flood(&self, path: &str, token: &str, times: usize) -> Vec<u16> {
        let ask = || async {
            let answer = self.client.get(format!("{}{path}", self.url)).bearer_auth(token).send().await;
            let answer = answer.expect("an answer");
            let is_refused = answer.status() == 429;
            assert!(
                !is_refused || answer.headers().contains_key("retry-after"),
                "it says when to come again"
            );
            answer.status().as_u16()
        };
        join_all((0..times).map(|_| ask())).await
    }
}

async fn secret(stage: &Stage, role: &str) -> String {
    let minted = stage.json(&["token", "mint", "--role", role, "--purpose", "to flood"]).await;
    text(&minted["body"], "secret").to_owned()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|found| **found == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_told_to_wait_and_nobody_else() {
    let stage = strict().await;
    let (eve, adam) = (secret(&stage, "viewer").await, secret(&stage, "auditor").await);
    let (door, after) = (Door::of(&stage), head(&stage).await);
    // Both are recognised from now on.
    assert_eq!(door.flood("/v1/crews", &eve, 1).await, [200]);
    assert_eq!(door.flood("/v1/crews", &adam, 1).await, [200]);
    let statuses = door.flood("/v1/crews", &eve, 200).await;
    assert!(count(&statuses, 200) >= 10 && count(&statuses, 429) >= 100, "{statuses:?}");
    assert_eq!(count(&statuses, 200) + count(&statuses, 429), 200, "{statuses:?}");
    assert_eq!(door.flood("/v1/crews", &adam, 1).await, [200], "it is no affair of others");
    let by_eve =
        |event: &serde_json::Value| event["principal"] == "user:viewer" && says(event, "times a second");
    let position = recorded(&stage, after, "access_denied", by_eve).await;
    let denials = stage.api.list("/v1/audit?kind=access_denied").await;
    assert!(
        denials.iter().filter(|event| by_eve(event)).count() <= 3,
        "a flood of refusals is no flood of events"
    );
    let metrics = stage.api.get("/metrics").await.expect("an answer").done();
    let mut lines = metrics.as_str().expect("text").lines();
    let limited = lines.find_map(|line| line.strip_prefix("hypercode_requests_limited_total "));
    let limited: u64 = limited.and_then(|count| count.parse().ok()).expect("a count");
    assert!(limited >= 100, "{limited}");
    println!(
        "limits  tried 200 requests at once by one principal  refused 429  recorded at position {position}"
    );

    // Strangers with a token's id and a wrong secret, which has to be hashed to know.
    let unused = secret(&stage, "approver").await;
    let wrong = format!("{}{}", &unused[..unused.len() - 4], "0000");
    let statuses = door.flood("/v1/crews", &wrong, 60).await;
    assert_eq!(count(&statuses, 401) + count(&statuses, 429), 60, "{statuses:?}");
    assert!(count(&statuses, 429) >= 30, "not all of them were looked at: {statuses:?}");
    assert_eq!(door.flood("/v1/crews", &adam, 1).await, [200], "who is known comes in meanwhile");
    // The kill switch is there for whoever has asked too much, too.
    let admin = std::fs::read_to_string(stage.home.data().join("admin.token")).expect("a token");
    door.flood("/v1/crews", admin.trim(), 60).await;
    let kill = door.client.post(format!("{}/v1/crews/nosuch/kill", door.url)).bearer_auth(admin.trim());
    let kill = kill.header("Content-Type", "application/json").body("{}").send().await.expect("an answer");
    assert_eq!(kill.status(), 404, "it was looked at");
    // There is no crew to take leave of, and who would ask for one has to wait.
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    nothing_is_left(&home).await;
}

/// T48: a crew whose queue is full, and whose agents are busy, costs other crews nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_that_is_flooded_costs_no_other() {
    let stage = Stage::with_crew().await;
    let busy = CREW.replace("name: troupe", "name: flooded");
    stage.assemble(&busy).await.ok();
    let never = json!({"do": "wait", "for": stage.home.path("never")});
    let body = json!({"crew": "flooded", "input": never});
    let mut refused = None;
    for round in 0..12 {
        let keys: Vec<String> = (0..100).map(|number| format!("flood-{round}-{number}")).collect();
        let answers = join_all(keys.iter().map(|key| stage.api.post("/v1/tasks", &body, Some(key)))).await;
        refused = answers.into_iter().flatten().find(|answer| answer.status == 429);
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a queue has an end");
    let after = head(&stage).await;
    for _ in 0..5 {
        let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": {"do": "echo"}})).await;
        assert_eq!(stage.ended(&task).await["status"], "completed");
    }
    let position = recorded(&stage, after, "task_completed", |_| true).await;
    told("T48", "more tasks than a crew's queue holds", "429; another crew's task completed", position);
    assert!(text(&refused.body, "detail").contains("wait"), "{refused:?}");
    stage.hypercode(&["kill", "crew", "flooded"]).await.ok();
    stage.leave().await;
}
