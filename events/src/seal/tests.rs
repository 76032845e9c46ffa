use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::artifact::{self, ArtifactStore as _};
use crate::body::{self, BodyError, Stored};
use crate::chain;
use crate::event::{Meta, NewEvent, Principal, Recorded};
use crate::id::{AgentId, CommandId, Digest, EntityKind, Position, TaskId, Tenant, Timestamp, Version};
use crate::store::copy::Place;
use crate::store::postgres::server::{Server, execute};
use crate::store::postgres::{Database, Postgres};
use crate::store::{AppendError, AppendRequest, EventStore, Expected, Memory};

const WORDS: &str = "my knee hurts";

struct Scene {
    log: Arc<Memory>,
    seal: Seal,
    clear: Sealing,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn over(common: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let master = directory.path().join(MASTER_FILE);
        let keys = match common {
            false => Keys::open(directory.path(), &master).await,
            true => {
                let url = Server::shared().database().await;
                Keys::open_common(&url.parse().expect("a URL"), &master).await
            }
        };
        let (log, seal) = (Arc::new(Memory::new()), Seal::new(keys.expect("the keys open")));
        let clear = Sealing::new(Arc::clone(&log) as Arc<dyn EventStore>, seal.clone());
        Self { log, seal, clear, _directory: directory }
    }

    async fn append(&self, stream: &StreamId, expected: Expected, kind: &str, payload: Value) {
        self.clear.append(request(stream, expected, kind, &payload)).await.expect("it is appended");
    }

    async fn submit(
        &self,
        name: &str,
        subject: Option<&str>,
        parent: Option<&TaskId>,
        input: Value,
    ) -> StreamId {
        let stream = StreamId::new(EntityKind::Task, TaskId::derive(&[name]).as_str());
        let payload = json!({"input": input, "subject": subject, "parent": parent,
            "request_digest": Digest::of(input.to_string().as_bytes())});
        self.append(&stream, Expected::NONE, "task_submitted", payload).await;
        stream
    }

    async fn stored(&self) -> Vec<Recorded> {
        self.log.read(Position(0), 100).await.expect("it is read")
    }

    async fn opened(&self, stream: &StreamId) -> Vec<Value> {
        let events = self.clear.read_stream(stream, Version(0), 100).await.expect("it is read");
        events.iter().map(|event| serde_json::from_str(&event.payload).expect("JSON")).collect()
    }

    async fn trace(&self, artifacts: &artifact::Memory, subject: &str) -> Trace {
        let key = self.key(subject).await;
        let mut tracer = Tracer::new(&*self.log, &self.seal, artifacts, &key).await.expect("a tracer");
        tracer.read_on().await.expect("read");
        tracer.found().await.expect("found")
    }

    async fn key(&self, subject: &str) -> KeyId {
        let found = self.seal.keys().find_subject(&Tenant::default(), subject).await;
        found.expect("keys").expect("the subject has a key")
    }
}

fn request(stream: &StreamId, expected: Expected, kind: &str, payload: &Value) -> AppendRequest {
    AppendRequest {
        stream: stream.clone(),
        expected,
        command_id: CommandId::fresh(),
        command_digest: Some(Digest::of(payload.to_string().as_bytes())),
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::user("admin"),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp::now(),
        events: vec![NewEvent { kind: kind.into(), schema: 1, payload: payload.to_string().into() }],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

async fn what_was_sealed_is_gone_with_its_key(common: bool) {
    let scene = Scene::over(common).await;
    let task = scene.submit("one", Some("anna"), None, json!({"parts": [{"text": WORDS}]})).await;
    scene.append(&task, Expected::Any, "task_completed", json!({"output": WORDS, "artifacts": []})).await;
    let id = task.id.to_string();
    let outbox = StreamId::new(EntityKind::Outbox, "ag/1");
    let body = json!({"task": id, "body": {"inline": [{"text": WORDS}]}});
    scene.append(&outbox, Expected::Any, "message_sent", body.clone()).await;
    let kept = StreamId::new(EntityKind::State, "crew.cr_1");
    let value = json!({"in_hand": ["tk_0", id], "value": {"inline": WORDS}});
    scene.append(&kept, Expected::Any, "state_put", value.clone()).await;
    let child = scene.submit("two", None, Some(&id.parse().expect("an id")), json!(WORDS)).await;
    let other = scene.submit("three", Some("ben"), None, json!("hello")).await;
    scene.submit("four", None, None, json!("nobody's")).await;

    let stored = scene.stored().await;
    let text = format!("{stored:?}");
    assert!(!text.contains(WORDS) && !text.contains("anna") && !text.contains("ben"), "{text}");
    assert!(text.contains("nobody's"));
    assert!(!text.contains(&Digest::of(json!(WORDS).to_string().as_bytes()).to_string()));
    assert_eq!(scene.opened(&outbox).await, [body]);
    assert_eq!(scene.opened(&kept).await, [value]);
    let opened = scene.opened(&task).await;
    assert_eq!(opened[0]["subject"], "anna");
    assert_eq!(opened[0]["request_digest"], json!(Digest::of(opened[0]["input"].to_string().as_bytes())));
    assert_eq!(opened[1]["output"], WORDS);
    assert_eq!(scene.opened(&child).await[0]["input"], WORDS);

    let verified = chain::verify(&*scene.log).await.expect("the chain holds");
    scene.seal.keys().destroy(&scene.key("anna").await).await.expect("keys");
    assert_eq!(chain::verify(&*scene.log).await.expect("the chain holds"), verified);
    assert_eq!(scene.stored().await, stored, "nothing of the log has changed");
    assert_eq!(scene.opened(&task).await[0]["input"], ERASED);
    assert_eq!(scene.opened(&outbox).await[0]["body"]["inline"], ERASED);
    assert_eq!(scene.opened(&child).await[0]["input"], ERASED);
    assert_eq!(scene.opened(&other).await[0]["input"], "hello");

    // What still comes is not kept, in these tasks nor in children of theirs.
    scene.append(&task, Expected::Any, "task_progressed", json!({"message": WORDS})).await;
    let late = scene.submit("late", Some("anna"), Some(&id.parse().expect("an id")), json!(WORDS)).await;
    assert_eq!(scene.opened(&late).await[0]["input"], ERASED);
    assert!(!format!("{:?}", scene.stored().await).contains(WORDS));
    assert_eq!(scene.seal.keys().find_subject(&Tenant::default(), "anna").await, Ok(None));
}

#[tokio::test]
async fn what_was_sealed_is_gone_with_its_key_in_a_file() {
    what_was_sealed_is_gone_with_its_key(false).await;
}

#[tokio::test]
async fn what_was_sealed_is_gone_with_its_key_in_postgres() {
    what_was_sealed_is_gone_with_its_key(true).await;
}

#[tokio::test]
async fn the_same_command_is_known_again() {
    let scene = Scene::over(false).await;
    let stream = StreamId::new(EntityKind::Task, "tk_1");
    let payload = json!({"input": WORDS, "subject": "anna"});
    let first = request(&stream, Expected::NONE, "task_submitted", &payload);
    assert!(!scene.clear.append(first.clone()).await.expect("appended").repeated);
    assert!(scene.clear.append(first.clone()).await.expect("appended").repeated);
    let other = AppendRequest { command_digest: Some(Digest::of(b"other")), ..first };
    let refused = scene.clear.append(other).await;
    assert!(matches!(refused, Err(AppendError::KeyConflict { .. })), "{refused:?}");
}

#[tokio::test]
async fn only_the_stream_that_it_was_sealed_in_opens_a_text() {
    let scene = Scene::over(false).await;
    scene.submit("one", Some("anna"), None, json!(WORDS)).await;
    let stored: Value = serde_json::from_str(&scene.stored().await[0].payload).expect("JSON");
    let stolen = scene.submit("two", None, None, stored["input"].clone()).await;
    assert_eq!(scene.opened(&stolen).await[0]["input"], stored["input"]);
    let view = scene.seal.open(&stolen, stored["input"].clone()).await.expect("keys");
    assert_eq!(view, stored["input"]);
}

#[tokio::test]
async fn another_master_key_neither_opens_nor_seals() {
    let scene = Scene::over(false).await;
    let task = scene.submit("one", Some("anna"), None, json!(WORDS)).await;
    let directory = scene._directory.path();
    let keys = Keys::open(directory, &directory.join("other.key")).await.expect("it opens");
    assert!(matches!(keys.check().await, Err(SealError::Master { .. })));
    let clear = Sealing::new(Arc::clone(&scene.log) as Arc<dyn EventStore>, Seal::new(keys));
    assert!(matches!(clear.read_stream(&task, Version(0), 1).await, Err(ReadError::Unavailable { .. })));
    let stream = StreamId::new(EntityKind::Task, "tk_2");
    let refused =
        clear.append(request(&stream, Expected::NONE, "task_submitted", &json!({"subject": "anna"}))).await;
    assert!(matches!(refused, Err(AppendError::Unavailable { .. })), "{refused:?}");

    std::fs::write(directory.join("other.key"), "short").expect("written");
    let refused = Keys::open(directory, &directory.join("other.key")).await.expect_err("no key");
    assert!(refused.to_string().contains("64 hex digits"), "{refused}");
}

#[tokio::test]
async fn artifacts_of_a_subject_alone_are_traced() {
    let scene = Scene::over(false).await;
    let artifacts = artifact::Memory::new();
    let mut kept = Vec::new();
    for text in ["own", "shared", "nested", "elsewhere"] {
        kept.push(artifacts.put(text.into()).await.expect("kept").digest);
    }
    let body = artifacts.put(json!({"url": format!("sha256:{}", kept[2])}).to_string().into()).await;
    let body = body.expect("kept").digest;
    let task = scene.submit("one", Some("anna"), None, json!({"parts": [kept[0], kept[1]]})).await;
    let output = json!({"output": {"$artifact": body, "bytes": 9}, "artifacts": []});
    scene.append(&task, Expected::Any, "task_completed", output).await;
    scene.submit("two", Some("ben"), None, json!([kept[1], kept[3]])).await;
    let granted = StreamId::new(EntityKind::State, "artifacts.cr_1");
    scene.append(&granted, Expected::Any, "artifact_granted", json!({"digest": kept[0]})).await;

    let traced = scene.trace(&artifacts, "anna").await;
    assert!(traced.artifacts.is_superset(&[kept[0], kept[2], body].into()), "{traced:?}");
    assert!(!traced.artifacts.contains(&kept[1]) && !traced.artifacts.contains(&kept[3]), "{traced:?}");
    assert_eq!(traced.tasks, [task.id.parse().expect("an id")].into());
}

/// The keys go with their log, under the same master key; what was destroyed here is destroyed there.
#[tokio::test]
async fn keys_are_carried_over_wrapped_as_they_are() {
    let tenant = Tenant::default();
    let directory = || tempfile::tempdir().expect("a directory");
    let (home, back, strange) = (directory(), directory(), directory());
    let place = |dir: &tempfile::TempDir| -> Place {
        format!("sqlite:{}", dir.path().display()).parse().expect("a place")
    };
    let url = Server::shared().database().await;
    let (from, to): (Place, Place) = (place(&home), url.parse().expect("a place"));
    assert_eq!(carry(&from, &to).await, Ok(0), "there are none yet");
    let master = home.path().join(MASTER_FILE);
    let keys = Keys::open(home.path(), &master).await.expect("they open");
    let (kept, _) = keys.of_subject(&tenant, "patient/1").await.expect("it is made");
    let (gone, _) = keys.of_subject(&tenant, "patient/2").await.expect("it is made");
    assert_eq!(carry(&from, &to).await, Ok(2));
    let there = Keys::open_common(&url.parse().expect("a URL"), &master).await.expect("they open");
    assert!(there.find(&kept).await.expect("it is unwrapped").is_some());
    assert_eq!(there.find_subject(&tenant, "patient/1").await, Ok(Some(kept.clone())));

    keys.destroy(&gone).await.expect("it is destroyed");
    assert_eq!(carry(&from, &to).await, Ok(1));
    assert_eq!((there.has(&kept).await, there.has(&gone).await), (Ok(true), Ok(false)));
    assert_eq!(carry(&to, &place(&back)).await, Ok(1));

    let other = Keys::open(strange.path(), &strange.path().join(MASTER_FILE)).await.expect("they open");
    other.of_subject(&tenant, "patient/3").await.expect("it is made");
    let refused = carry(&place(&strange), &to).await;
    assert!(matches!(refused, Err(SealError::Master { .. })), "{refused:?}");
}

/// What was said with the data of two in hand goes with the first of them that is erased.
#[tokio::test]
async fn what_is_about_two_subjects_goes_with_either() {
    for (gone, stays) in [("anna", "ben"), ("ben", "anna")] {
        let scene = Scene::over(false).await;
        let one = scene.submit("one", Some("anna"), None, json!(WORDS)).await;
        let two = scene.submit("two", Some("ben"), None, json!("hello")).await;
        let kept = StreamId::new(EntityKind::State, "crew.cr_1");
        let value = json!({"in_hand": ["tk_0", &*one.id, &*two.id], "value": {"inline": WORDS}});
        scene.append(&kept, Expected::Any, "state_put", value.clone()).await;
        let child =
            scene.submit("three", Some("ben"), Some(&one.id.parse().expect("an id")), json!(WORDS)).await;
        assert!(!format!("{:?}", scene.stored().await).contains(WORDS));
        assert_eq!(scene.opened(&kept).await, [value]);
        let opened = scene.opened(&child).await;
        assert_eq!((&opened[0]["input"], &opened[0]["subject"]), (&json!(WORDS), &json!("ben")));
        assert_eq!(opened[0]["request_digest"], json!(Digest::of(json!(WORDS).to_string().as_bytes())));

        let artifacts = artifact::Memory::new();
        let key = scene.key(gone).await;
        let traced = scene.trace(&artifacts, gone).await;
        assert!(traced.tasks.contains(&child.id.parse().expect("an id")), "{traced:?}");
        scene.seal.keys().destroy(&key).await.expect("keys");
        assert_eq!(scene.opened(&kept).await[0]["value"]["inline"], ERASED);
        assert_eq!(scene.opened(&child).await[0]["input"], ERASED);
        let other = if stays == "anna" { (&one, WORDS) } else { (&two, "hello") };
        assert_eq!(scene.opened(other.0).await[0]["input"], other.1);
    }
}

/// Anybody can write the id of a key.
#[tokio::test]
async fn what_only_names_a_key_is_not_the_subjects() {
    let scene = Scene::over(false).await;
    let own = scene.submit("one", Some("anna"), None, json!(WORDS)).await;
    let key = scene.key("anna").await;
    let artifacts = artifact::Memory::new();
    let shared = artifacts.put("shared".into()).await.expect("kept").digest;
    scene.append(&own, Expected::Any, "task_completed", json!({"output": shared, "artifacts": []})).await;
    let stored: Value = serde_json::from_str(&scene.stored().await[0].payload).expect("JSON");
    for (name, input) in [
        ("named", json!([key, shared])),
        ("forged", json!(format!("sealed:1:{key}:AAAA"))),
        ("stolen", stored["input"].clone()),
    ] {
        scene.submit(name, None, None, input).await;
    }
    let traced = scene.trace(&artifacts, "anna").await;
    assert_eq!(traced.tasks, [own.id.parse().expect("an id")].into());
    assert!(!traced.artifacts.contains(&shared), "somebody else refers to it: {traced:?}");
}

/// What agents of a crew that worked for the subject wrote may be about it; what others wrote is not.
#[tokio::test]
async fn logs_of_the_crews_concerned_are_traced() {
    let golden = |name: &str| -> Value {
        let path = format!("{}/testdata/golden/{name}.v1.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("a payload")).expect("JSON")
    };
    let scene = Scene::over(false).await;
    let artifacts = artifact::Memory::new();
    let mut kept = Vec::new();
    for (crew, text) in [("cr_1", "one"), ("cr_2", "two"), ("cr_1", "both"), ("cr_2", "both")] {
        let agent = format!("ag_{crew}_{text}");
        let mut assembly = golden("crew_assembly_started");
        (assembly["crew"], assembly["seats"][0]["agent"]) = (crew.into(), agent.clone().into());
        let stream = StreamId::new(EntityKind::Crew, crew);
        scene.append(&stream, Expected::Any, "crew_assembly_started", assembly).await;
        let digest = artifacts.put(text.into()).await.expect("kept").digest;
        let stream = StreamId::new(EntityKind::Agent, &agent);
        let log = json!({"incarnation": 1, "digest": digest, "bytes": text.len()});
        scene.append(&stream, Expected::Any, "agent_log_kept", log).await;
        kept.push((agent.parse::<AgentId>().expect("an id"), digest));
    }
    let mut submitted = golden("task_submitted");
    (submitted["crew"], submitted["subject"], submitted["parent"]) =
        ("cr_1".into(), "anna".into(), Value::Null);
    let stream = StreamId::new(EntityKind::Task, TaskId::derive(&["one"]).as_str());
    scene.append(&stream, Expected::NONE, "task_submitted", submitted).await;
    let traced = scene.trace(&artifacts, "anna").await;
    assert_eq!(traced.agents, [kept[0].0.clone(), kept[2].0.clone()].into());
    assert_eq!(traced.artifacts, [kept[0].1].into(), "what another crew wrote as well stays");
}

/// A role that may not write the table anew leaves the destruction to be finished.
#[tokio::test]
async fn a_destruction_that_fails_is_finished_later() {
    let url = Server::shared().database().await;
    let role = format!("node_{}", CommandId::fresh().0.simple());
    let directory = tempfile::tempdir().expect("a directory");
    execute(&url, &format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA hypercode_keys AUTHORIZATION {role}"))
        .await;
    let own = url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let keys = Keys::open_common(&own.parse().expect("a URL"), &directory.path().join(MASTER_FILE)).await;
    let keys = keys.expect("they open");
    let (key, _) = keys.of_subject(&Tenant::default(), "anna").await.expect("it is made");
    let table = "hypercode_keys.subject_keys";
    execute(&url, &format!("ALTER TABLE {table} OWNER TO postgres; GRANT ALL ON {table} TO {role}")).await;
    let refused = keys.destroy(&key).await.expect_err("it is not wiped out");
    assert!(refused.to_string().contains("roles.sql"), "{refused}");
    assert_eq!((keys.has(&key).await, keys.find(&key).await.expect("keys").is_none()), (Ok(false), true));
    execute(&url, &format!("ALTER TABLE {table} OWNER TO {role}")).await;
    let left = |number: u8| {
        format!("DO $$ BEGIN ASSERT (SELECT count(*) = {number} FROM hypercode_keys.doomed_keys); END $$")
    };
    execute(&url, &left(1)).await;
    keys.finish().await.expect("it is finished");
    execute(&url, &left(0)).await;
    keys.close().await;
    execute(&url, &format!("DROP SCHEMA hypercode_keys CASCADE; DROP ROLE {role}")).await;
}

/// What is too large for an event goes with the key as what is in it does.
async fn large_bodies_are_gone_with_the_key(common: bool) {
    let scene = Scene::over(common).await;
    let artifacts = artifact::Memory::new();
    let text = json!([{"text": WORDS}]).to_string();
    let (input, sent) = (
        body::keep(&artifacts, text.as_bytes()).await.expect("kept"),
        body::keep(&artifacts, text.as_bytes()).await.expect("kept"),
    );
    let task = scene.submit("one", Some("anna"), None, input.clone().reference()).await;
    let outbox = StreamId::new(EntityKind::Outbox, "ag/1");
    let message = json!({"task": task.id, "body": {"stored": sent}});
    scene.append(&outbox, Expected::Any, "message_sent", message).await;
    let open = async || {
        let (task, message) = (scene.opened(&task).await, scene.opened(&outbox).await);
        let sent: Stored = serde_json::from_value(message[0]["body"]["stored"].clone()).expect("a body");
        (task[0]["input"].clone(), sent)
    };
    let (found, message) = open().await;
    let found = Stored::referred_to_by(&found).expect("a reference");
    assert_eq!((&found, &message), (&input, &sent));
    assert_eq!(found.load(&artifacts).await.as_deref(), Ok(text.as_bytes()));
    let key = serde_json::to_value(&sent).expect("JSON")["key"].as_str().expect("a key").to_owned();
    assert!(!format!("{:?}", scene.stored().await).contains(&key), "the log has no key in clear");
    let traced = scene.trace(&artifacts, "anna").await;
    assert_eq!(traced.artifacts, [input.digest, sent.digest].into());

    scene.seal.keys().destroy(&scene.key("anna").await).await.expect("keys");
    let (found, message) = open().await;
    assert_eq!(found, ERASED);
    assert_eq!(message.load(&artifacts).await, Err(BodyError::Erased));
    for digest in [input.digest, sent.digest] {
        let kept = artifacts.get(digest).await.expect("read").expect("nobody has deleted it");
        assert!(!String::from_utf8_lossy(&kept).contains(WORDS));
    }
    // What is said afterwards has no key either.
    let late = body::keep(&artifacts, text.as_bytes()).await.expect("kept");
    let message = json!({"task": task.id, "body": {"stored": late}});
    scene.append(&outbox, Expected::Any, "message_sent", message).await;
    let opened = scene.opened(&outbox).await;
    assert_eq!(opened[1]["body"]["stored"]["key"], ERASED);
    assert_eq!(opened[1]["body"]["stored"]["digest"], json!(late.digest));
}

#[tokio::test]
async fn large_bodies_are_gone_with_the_key_in_a_file() {
    large_bodies_are_gone_with_the_key(false).await;
}

#[tokio::test]
async fn large_bodies_are_gone_with_the_key_in_postgres() {
    large_bodies_are_gone_with_the_key(true).await;
}

/// Older versions kept bodies in clear, and nothing of a message with such a body is sealed.
#[tokio::test]
async fn bodies_in_clear_are_traced_by_the_task_that_they_are_about() {
    let scene = Scene::over(false).await;
    let artifacts = artifact::Memory::new();
    let own = scene.submit("one", Some("anna"), None, json!("x")).await;
    let other = scene.submit("two", Some("ben"), None, json!("x")).await;
    let mut kept = Vec::new();
    for (name, tasks) in [("a", vec![&own]), ("b", vec![&other]), ("c", vec![&other, &own])] {
        let digest = artifacts.put(name.into()).await.expect("kept").digest;
        let ids: Vec<&str> = tasks.iter().map(|task| &*task.id).collect();
        let value = json!({"in_hand": ids, "value": {"stored": {"digest": digest, "bytes": 1}}});
        let stream = StreamId::new(EntityKind::State, name);
        scene.append(&stream, Expected::Any, "state_put", value).await;
        kept.push(digest);
    }
    assert_eq!(scene.trace(&artifacts, "anna").await.artifacts, [kept[0], kept[2]].into());
}

/// Between the beginning of an erasure and its end nothing is kept, and no task of the subject is taken; then its next
/// task has a new key.
async fn a_retired_key_seals_nothing(common: bool) {
    let scene = Scene::over(common).await;
    let task = scene.submit("one", Some("anna"), None, json!(WORDS)).await;
    let key = scene.key("anna").await;
    let say = async || {
        scene.append(&task, Expected::Any, "task_progressed", json!({"message": WORDS})).await;
    };
    let until = async |over: &std::cell::Cell<bool>| {
        while !over.get() {
            say().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        say().await;
    };
    let over = std::cell::Cell::new(false);
    let retire = async {
        say().await;
        scene.seal.keys().retire(&key, &*scene.log).await.expect("retired");
        let head = scene.log.head().await.expect("a head").position;
        over.set(true);
        head
    };
    let (head, ()) = tokio::join!(retire, until(&over));
    let later = scene.log.read(head, 100).await.expect("read");
    assert!(!later.is_empty());
    for event in later {
        assert!(event.payload.contains(ERASED), "nothing is sealed after {head}: {event:?}");
    }
    let opened = scene.opened(&task).await;
    assert_eq!((&opened[0]["input"], &opened[1]["message"]), (&json!(WORDS), &json!(WORDS)));

    let stream = StreamId::new(EntityKind::Task, "tk_2");
    let next =
        request(&stream, Expected::NONE, "task_submitted", &json!({"subject": "anna", "input": WORDS}));
    let refused = scene.clear.append(next.clone()).await.expect_err("it is being erased");
    assert!(refused.to_string().contains("being erased"), "{refused}");
    let child = scene.submit("child", None, Some(&task.id.parse().expect("an id")), json!(WORDS)).await;
    assert_eq!(scene.opened(&child).await[0]["input"], ERASED);

    scene.seal.keys().destroy(&key).await.expect("destroyed");
    scene.clear.append(next).await.expect("it is another's data now");
    assert_ne!(scene.key("anna").await, key);
    assert_eq!(scene.opened(&stream).await[0]["input"], WORDS);
    assert_eq!(scene.opened(&task).await[0]["input"], ERASED);
}

#[tokio::test]
async fn a_retired_key_seals_nothing_in_a_file() {
    a_retired_key_seals_nothing(false).await;
}

#[tokio::test]
async fn a_retired_key_seals_nothing_in_postgres() {
    a_retired_key_seals_nothing(true).await;
}

/// A node of two over one database, with keys that it remembers as they were.
async fn node(database: &Database, master: &Path) -> (Arc<Postgres>, Seal, Sealing) {
    let log = Postgres::open(database, Default::default()).await.expect("the log opens");
    let (log, seal) =
        (Arc::new(log), Seal::new(Keys::open_common(database, master).await.expect("they open")));
    (Arc::clone(&log), seal.clone(), Sealing::new(log, seal))
}

/// A node that still believes that it may seal with a key is refused by the log, seals nothing, and says what it has to
/// say all the same.
#[tokio::test]
async fn a_retired_key_seals_nothing_on_other_nodes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (url, master) = (Server::shared().database().await, directory.path().join(MASTER_FILE));
    let database = url.parse().expect("a URL");
    let (log, seal, here) = node(&database, &master).await;
    let (other_log, other_seal, there) = node(&database, &master).await;
    let begun = |name: &str, subject| {
        let stream = StreamId::new(EntityKind::Task, TaskId::derive(&[name]).as_str());
        let payload = json!({"subject": subject, "input": WORDS});
        request(&stream, Expected::NONE, "task_submitted", &payload)
    };
    let said = |to: &AppendRequest| {
        request(&to.stream, Expected::Any, "task_progressed", &json!({"message": WORDS}))
    };
    let (annas, bens) = (begun("anna", "anna"), begun("ben", "ben"));
    for task in [&annas, &bens] {
        here.append(task.clone()).await.expect("appended");
        there.append(said(task)).await.expect("appended");
    }
    let key = seal.keys().find_subject(&Tenant::default(), "anna").await.expect("keys").expect("a key");
    seal.keys().retire(&key, &*log).await.expect("retired");
    let head = log.head().await.expect("a head").position;
    let believed = other_seal.keys().find(&key).await.expect("keys").expect("it is there");
    assert!(!believed.is_retired, "it has looked before");
    // Its first append takes over the raised fence with nothing of hers.
    there.append(said(&bens)).await.expect("appended");
    there.append(said(&annas)).await.expect("what is said is recorded, and not kept");
    let refused = there.append(begun("late", "anna")).await.expect_err("it is being erased");
    assert!(refused.to_string().contains("being erased"), "{refused}");
    let sealed = other_log.append_sealed(said(&annas), vec![key.clone()]).await;
    assert_eq!(sealed, Err(AppendError::Retired { key }));
    let later = log.read(head, 100).await.expect("read");
    let is_erased: Vec<bool> = later.iter().map(|event| event.payload.contains(ERASED)).collect();
    assert_eq!(is_erased, [false, true], "{later:?}");
    for log in [log, other_log] {
        log.close().await;
    }
}
