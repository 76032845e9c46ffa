//! A crew that is given a secret from every source, and says it wherever it can.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::stage::{IMAGE, Stage};
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
    pub(crate) fn digests(&self) -> Value {
        self.0.iter().map(|(name, value)| (*name, hex::encode(Sha256::digest(value)))).collect()
    }

    pub(crate) fn of(&self, source: &str) -> &str {
        &self.0[source]
    }
}

/// A platform that lets profiles have the canaries, and has the crew's manifests in a file.
pub(crate) async fn stage(home: Home, canaries: &Canaries) -> (Stage, String) {
    stage_with(home, canaries, "").await
}

/// The same with more in the platform's environment, and in containers where the home's agents are in them.
pub(crate) async fn stage_with(home: Home, canaries: &Canaries, more: &str) -> (Stage, String) {
    let file = home.write("secrets/file", format!("{}\n", canaries.of("FROM_FILE")));
    let vault = home.write(
        "secrets/vault",
        format!("#!/bin/sh\n[ \"$1\" = team/key ] && echo {}\n", canaries.of("FROM_VAULT")),
    );
    std::fs::set_permissions(&vault, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    home.write("holder/holder.py", HOLDER);
    let mut manifests = MANIFESTS.replace("@FILE@", file.to_str().expect("text"));
    if home.is_in_containers() {
        manifests = manifests.replace("spec:\n  handler", &format!("spec:\n  image: {IMAGE}\n  handler"));
    }
    let crew = home.write("crew.yaml", manifests).to_str().expect("text").to_owned();
    let line = format!(
        "export TEST_CANARY={} HYPERCODE_SECRET_ENV=TEST_* HYPERCODE_SECRET_COMMAND={} HYPERCODE_LOG=debug {more}",
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
