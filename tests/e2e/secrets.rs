//! Secrets on a running platform: they reach the agents that need them, and are found nowhere else.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::stage::Stage;
use crate::support::{Home, Ran, Up, eventually};

/// A holder of one secret from each source, and a bystander with none.
const MANIFESTS: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: holder}
spec:
  handler: {command: [python3, holder.py], source: ./holder, grace: 2s}
  secrets:
    - {name: FROM_ENV, from: {env: TEST_CANARY}}
    - {name: FROM_FILE, from: {file: "@FILE@"}, as: file}
    - {name: FROM_VAULT, from: {vaultCommand: team/key}}
    - {name: FROM_STORE, from: {stored: canary}}
---
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: bystander}
spec:
  handler: {command: [python3, holder.py], source: ./holder, grace: 2s}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: vault}
spec:
  entry: holder
  members:
    - {name: holder, profile: holder}
    - {name: bystander, profile: bystander}
  channels:
    - {from: holder, to: bystander, kinds: [task, message]}
  supervision: {strategy: one_for_one, maxRestarts: 3, within: 60s, backoff: {initial: 100ms, max: 1s}}
"#;

/// Tells by digests what it was given, and says the values themselves wherever a handler can say something.
const HOLDER: &str = r#"
import base64, hashlib, json, os, sys

NAMES = ["FROM_ENV", "FROM_FILE", "FROM_VAULT", "FROM_STORE"]

def held():
    values = {name: os.environ[name] for name in NAMES if name in os.environ}
    if "FROM_FILE" in values:
        with open(values["FROM_FILE"]) as file:
            values["FROM_FILE"] = file.read()
    return values

def said():
    values = list(held().values())
    encoded = [value.encode() for value in values]
    return values + [base64.b64encode(value).decode() for value in encoded] + [value.hex() for value in encoded]

def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

print("holds", *said(), file=sys.stderr, flush=True)
print("noise", *said(), flush=True)
for request in map(json.loads, sys.stdin):
    if request.get("method") != "task/execute":
        if "id" in request and "method" in request:
            send(id=request["id"], error={"code": -32601, "message": "no such method"})
        continue
    task, deed = request["params"], request["params"]["input"]["text"]
    send(method="task/progress", params={"taskId": task["taskId"], "message": " ".join(said())})
    send(method="log", params={"level": "info", "message": " ".join(said())})
    if deed == "tell":
        digests = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in held().items()}
        mode = oct(os.stat(os.environ["FROM_FILE"]).st_mode & 0o7777) if "FROM_FILE" in os.environ else None
        send(id="c1", method="task/checkpoint", params={"taskId": task["taskId"], "data": said()})
        send(id="c2", method="message/send", params={"to": "bystander", "parts": [{"text": " ".join(said())}]})
        send(id="c3", method="state/put", params={"key": "k", "value": said()})
        send(id=request["id"], result={"output": {"digests": digests, "mode": mode, "said": said()}})
    elif deed == "fail":
        send(id=request["id"], error={"code": 500, "message": " ".join(said())})
    else:
        print("dies", *said(), file=sys.stderr, flush=True)
        os._exit(3)
"#;

/// What is secret, under the name of where it comes from.
pub(crate) struct Canaries(pub(crate) BTreeMap<&'static str, String>);

impl Canaries {
    pub(crate) fn new() -> Self {
        let sources = ["FROM_ENV", "FROM_FILE", "FROM_VAULT", "FROM_STORE"];
        let value = |source: &str| format!("canary-{source}-{}", uuid::Uuid::new_v4().simple());
        Self(sources.into_iter().map(|source| (source, value(source))).collect())
    }

    /// The digests that a handler tells that was given them all.
    fn digests(&self) -> Value {
        self.0.iter().map(|(name, value)| (*name, hex::encode(Sha256::digest(value)))).collect()
    }

    pub(crate) fn of(&self, source: &str) -> &str {
        &self.0[source]
    }
}

/// A platform that lets profiles have the canaries, and has the crew's manifests in a file.
pub(crate) async fn stage(home: Home, canaries: &Canaries) -> (Stage, String) {
    let file = home.write("secrets/file", format!("{}\n", canaries.of("FROM_FILE")));
    let vault = home.write(
        "secrets/vault",
        format!("#!/bin/sh\n[ \"$1\" = team/key ] && echo {}\n", canaries.of("FROM_VAULT")),
    );
    std::fs::set_permissions(&vault, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    home.write("holder/holder.py", HOLDER);
    let manifests = MANIFESTS.replace("@FILE@", file.to_str().expect("text"));
    let crew = home.write("crew.yaml", manifests).to_str().expect("text").to_owned();
    let line = format!(
        "export TEST_CANARY={} HYPERCODE_SECRET_ENV=TEST_* HYPERCODE_SECRET_COMMAND={} HYPERCODE_LOG=debug",
        canaries.of("FROM_ENV"),
        vault.display()
    );
    let up = Up::spawn_after(&line, &home);
    (Stage::of(home, up).await, crew)
}

pub(crate) async fn set(stage: &Stage, value: &str) -> Ran {
    let file = stage.home.write("secrets/value", format!("{value}\n"));
    stage.hypercode(&["secret", "set", "canary", "--file", file.to_str().expect("text")]).await
}

/// The task of this deed, when it has ended.
pub(crate) async fn done(stage: &Stage, deed: &str) -> Value {
    let task = stage.json(&["task", "submit", "vault", "--input", &json!(deed).to_string()]).await;
    stage.ended(task["id"].as_str().expect("an id")).await
}

pub(crate) async fn holder(stage: &Stage, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("the holder: {what}"), async || {
        let agents = stage.api.list("/v1/agents?crew=vault").await;
        agents.into_iter().find(|agent| agent["member"] == "holder" && is(agent))
    })
    .await
}

/// The `secret_resolved` events, decoded, by name and version.
async fn resolved(stage: &Stage) -> Vec<(String, Value)> {
    let log = stage.home.log().await;
    let events = log.read(events::Position(0), 10_000).await.expect("the log can be read");
    let resolved = events.iter().filter(|event| &*event.kind == "secret_resolved");
    let payloads = resolved.map(|event| serde_json::from_str::<Value>(&event.payload).expect("JSON"));
    payloads.map(|payload| (payload["name"].as_str().expect("a name").to_owned(), payload)).collect()
}

/// What pads a base64 at its end gives nothing away.
fn is_masked(said: &Value) -> bool {
    said.as_str().is_some_and(|said| said.trim_end_matches('=') == "***")
}

async fn secrets_reach_their_agent(stage: &Stage, crew: &str, canaries: &Canaries) {
    set(stage, canaries.of("FROM_STORE")).await.ok();
    stage.hypercode(&["crew", "assemble", crew]).await.ok();
    let task = done(stage, "tell").await;
    let told = &task["output"]["parts"][0]["data"];
    assert_eq!((&told["digests"], &told["mode"]), (&canaries.digests(), &json!("0o400")), "{task:#}");
    let said = told["said"].as_array().expect("a list");
    assert!(said.len() == 12 && said.iter().all(is_masked), "{task:#}");
    let given = resolved(stage).await;
    assert_eq!(given.len(), 4, "{given:?}");
    for (name, payload) in &given {
        let version = (name == "FROM_STORE").then_some(1);
        assert_eq!((&payload["incarnation"], payload["version"].as_u64()), (&json!(1), version), "{payload}");
    }
    let failed = done(stage, "fail").await;
    assert!(failed["status"] == "failed" && failed.to_string().contains("***"), "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_the_agent_that_needs_them_and_the_next_life_gets_the_next_value() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::new(), &canaries).await;
    secrets_reach_their_agent(&stage, &crew, &canaries).await;
    let listed = stage.json(&["secret", "list"]).await;
    assert_eq!(listed["items"][0]["version"], 1, "{listed:#}");
    assert!(!listed.to_string().contains(canaries.of("FROM_STORE")));

    set(&stage, "another-value").await.ok();
    let agent = holder(&stage, "is there", |_| true).await;
    let id = agent["id"].as_str().expect("an id");
    stage.hypercode(&["agent", "restart", id]).await.ok();
    holder(&stage, "lives again", |agent| agent["incarnation"] == 2 && agent["status"] == "ready").await;
    let task = done(&stage, "tell").await;
    let told = &task["output"]["parts"][0]["data"]["digests"]["FROM_STORE"];
    assert_eq!(told, &json!(hex::encode(Sha256::digest("another-value"))), "{task:#}");
    let given = resolved(&stage).await;
    assert!(given.iter().any(|(_, payload)| payload["version"] == 2), "{given:?}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_reach_agents_in_native_sandboxes() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::by_default(), &canaries).await;
    secrets_reach_their_agent(&stage, &crew, &canaries).await;
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_secret_does_not_start_and_the_reason_is_told() {
    let canaries = Canaries::new();
    let (stage, crew) = stage(Home::new(), &canaries).await;
    let said = stage.hypercode(&["crew", "assemble", &crew]).await;
    assert!(said.code != 0, "{said:?}");
    for part in ["FROM_STORE", "holder", "stored `canary`", "hypercode secret set canary"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    set(&stage, canaries.of("FROM_STORE")).await.ok();
    stage.hypercode(&["crew", "assemble", &crew]).await.ok();
    stage.hypercode(&["secret", "delete", "canary", "--reason", "leaked"]).await.ok();
    stage.hypercode(&["secret", "delete", "canary"]).await.refused(4);
    let agent = holder(&stage, "is ready", |agent| agent["status"] == "ready").await;
    stage.hypercode(&["agent", "restart", agent["id"].as_str().expect("an id")]).await.ok();
    let given_up = holder(&stage, "is given up", |agent| agent["status"] == "quarantined").await;
    assert!(given_up.to_string().contains("hypercode secret set canary"), "{given_up:#}");
    let tries = given_up["incarnation"].as_u64().expect("a number");
    assert!((2..=6).contains(&tries), "as often as the crew allows, and no more: {given_up:#}");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_no_argument_and_nobody_is_shown_one() {
    let stage = Stage::empty().await;
    let api = &stage.api;
    let refused = api.insist("/v1/secrets", &json!({"name": "a", "value": "short"}), "k1").await;
    assert_eq!(refused.status, 400, "{refused:?}");
    set(&stage, "a-value-to-keep").await.ok();
    let auditor = stage.json(&["token", "mint", "--role", "auditor"]).await;
    let file = stage.home.write("token", auditor["body"]["secret"].as_str().expect("a secret"));
    let by = ["--token-file", file.to_str().expect("text")];
    let value = stage.home.path("secrets/value");
    let value = value.to_str().expect("text");
    let listed = stage.hypercode(&[&by[..], &["secret", "list"]].concat()).await.ok();
    assert!(listed.contains("canary") && !listed.contains("a-value-to-keep"), "{listed}");
    stage.hypercode(&[&by[..], &["secret", "set", "canary", "--file", value]].concat()).await.refused(3);
    stage.hypercode(&[&by[..], &["secret", "delete", "canary"]].concat()).await.refused(3);
    stage.hypercode(&["secret", "set", "canary", "a-value-to-keep"]).await.refused(2);
    stage.leave().await;
}
