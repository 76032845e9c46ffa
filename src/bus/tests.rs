//! Both doors give the same answer to the same question.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nats::{Bus as _, Message, Subject};
use reqwest::Method;
use serde_json::{Value, json};

use super::*;
use crate::api::OPERATIONS;
use crate::http::double::{BODY_BYTES_MAX, Server, crew};

const PATIENCE: Duration = Duration::from_secs(20);

/// A platform with both doors.
struct House {
    server: Server,
    bus: nats::Memory,
    joined: Arc<Joined>,
}

impl House {
    /// A house whose requests may take as long as any test's.
    async fn open() -> Self {
        Self::open_for(1_000).await
    }

    /// A house whose requests may take so many milliseconds.
    async fn open_for(request_ms: u64) -> Self {
        let (server, bus) = (Server::start_for(request_ms).await, nats::Memory::new());
        let parts = Parts {
            service: Arc::clone(&server.service),
            store: server.log(),
            node: "node-1".to_owned(),
            relay: relay::Options::default(),
            limits: Limits { commands_max: 2, presence_ms: 50, ..Limits::default() },
        };
        let joined = Joined::join(&bus, parts);
        // Commands are taken when one that does not exist is refused.
        let question = Message::new(Subject::of_command("no", "thing"), "");
        while bus.request(question.clone(), PATIENCE).await.is_err() {
            tokio::task::yield_now().await;
        }
        Self { server, bus, joined }
    }

    /// The command over NATS: status and body.
    async fn by_subject(&self, asked: &Asked) -> (u16, Value) {
        let mut message =
            Message::new(Subject::of_command(asked.entity, asked.verb), asked.body(true).into_bytes());
        for (name, value) in asked.headers(&self.server) {
            message = message.with(name, value);
        }
        let answer = self.bus.request(message, PATIENCE).await.expect("an answer");
        let header = |name: &str| answer.headers.get(name).map(str::to_owned);
        let status = header("Hypercode-Status").expect("a status").parse().expect("a number");
        let is_problem = status >= 400;
        assert_eq!(header("Nats-Service-Error-Code").is_some(), is_problem);
        let media_type = if is_problem { "application/problem+json" } else { "application/json" };
        assert_eq!(header("Content-Type").as_deref(), Some(media_type));
        (status, serde_json::from_slice(&answer.body).expect("JSON"))
    }

    /// The command over HTTP: status and body.
    async fn by_path(&self, asked: &Asked) -> (u16, Value) {
        let operation =
            OPERATIONS.iter().find(|known| (known.entity, known.verb) == (asked.entity, asked.verb));
        let mut path = operation.expect("an operation").path.to_owned();
        for (name, value) in &asked.segments {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let mut request = self.server.plain(Method::POST, &path).body(asked.body(false));
        for (name, value) in asked.headers(&self.server) {
            request = request.header(name, value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }
}

/// A command, however it is sent.
struct Asked {
    entity: &'static str,
    verb: &'static str,
    /// What stands in the path, where there is one.
    segments: Vec<(&'static str, String)>,
    fields: Value,
    /// Sent instead of the fields.
    raw: Option<String>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Asked {
    fn new(
        entity: &'static str,
        verb: &'static str,
        segments: &[(&'static str, &str)],
        fields: Value,
    ) -> Self {
        let segments = segments.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { entity, verb, segments, fields, raw: None, headers: Vec::new() }
    }

    fn raw(verb: &'static str, raw: impl Into<String>, headers: &[(&'static str, &'static str)]) -> Self {
        let entity = if verb == "submit" { "task" } else { "crew" };
        Self { raw: Some(raw.into()), headers: headers.to_vec(), ..Self::new(entity, verb, &[], Value::Null) }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(&self, with_segments: bool) -> String {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut fields = self.fields.clone();
        if with_segments {
            for (name, value) in &self.segments {
                fields[*name] = value.as_str().into();
            }
        }
        fields.to_string()
    }

    fn headers(&self, server: &Server) -> Vec<(&'static str, String)> {
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let has = |headers: &[(&str, String)], name| headers.iter().any(|(known, _)| *known == name);
        if !has(&headers, "Authorization") {
            headers.push(("Authorization", format!("Bearer {}", server.token())));
        }
        if !has(&headers, "Content-Type") {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        headers
    }
}

/// Good and bad questions, to every command that there is.
fn questions() -> Vec<Asked> {
    let mut questions = vec![
        Asked::new("crew", "assemble", &[], json!({"manifest": crew()})).with("Idempotency-Key", "k-1"),
        Asked::raw(
            "assemble",
            crew().to_string(),
            &[("Content-Type", "application/yaml"), ("Idempotency-Key", "k-2")],
        ),
        Asked::raw("assemble", "kind: Crew\nspec: {memebrs: []}", &[("Content-Type", "application/yaml")]),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": "x"}))
            .with("Idempotency-Key", "k-3"),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": "y"}))
            .with("Idempotency-Key", "k-3"),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": 1, "to": "a b"})),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": 1, "context": ""})),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": 1, "deadlineMs": "soon"})),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": 1, "extra": true})),
        Asked::new("task", "submit", &[], json!({"crew": "nobody", "input": 1})),
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": 1})).with("Idempotency-Key", "a b"),
        Asked::new("task", "submit", &[], json!({"crew": "pair"})).with("Authorization", "Bearer wrong"),
        Asked::new("task", "submit", &[], json!({"crew": "pair"})).with("Authorization", "Basic x"),
        Asked::new("profile", "apply", &[], json!({"manifest": crew()})),
        Asked::new("profile", "apply", &[], json!({"manifest": {}, "bundle": "12"})),
        Asked::new("task", "answer", &[("task", "tk_1"), ("key", "k")], json!({"action": "maybe"})),
        Asked::new("task", "cancel", &[("task", "tk_1")], json!({"reason": 7})),
    ];
    for raw in ["", "{", "[]", "null", "{\"crew\": \"pair\", \"input\": }", "{}"] {
        questions.push(Asked::raw("submit", raw, &[]));
    }
    questions.push(Asked::raw("submit", "crew: pair", &[("Content-Type", "application/yaml")]));
    questions.push(Asked::raw("submit", "[".repeat(100_000), &[]));
    questions.push(Asked::raw("submit", "x".repeat(BODY_BYTES_MAX + 1), &[]));
    for operation in &OPERATIONS {
        // Every command, with names that are known to nobody, and with one field too many.
        let segments: Vec<(&str, &str)> = operation
            .path
            .split('/')
            .filter_map(|part| Some((part.strip_prefix('{')?.strip_suffix('}')?, "pair")))
            .collect();
        for fields in [json!({}), json!({"surplus": 1})] {
            questions.push(Asked::new(operation.entity, operation.verb, &segments, fields));
        }
    }
    questions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_answer_alike() {
    // Long enough for a fault's backtrace to be written on a machine that has much to do.
    let house = House::open_for(10_000).await;
    let mut statuses = std::collections::BTreeSet::new();
    for asked in questions() {
        let (by_path, by_subject) = tokio::join!(house.by_path(&asked), house.by_subject(&asked));
        let what = format!(
            "{}.{} {}",
            asked.entity,
            asked.verb,
            asked.body(true).chars().take(80).collect::<String>()
        );
        let strip = |(status, mut body): (u16, Value)| {
            // Without a key the second is a command of its own, at a position of its own.
            body.as_object_mut().map(|body| body.remove("position"));
            (status, body)
        };
        let (by_path, by_subject) = (strip(by_path), strip(by_subject));
        assert_eq!(by_path, by_subject, "{what}");
        statuses.insert(by_path.0);
    }
    for status in [200, 201, 400, 401, 404, 413, 415, 422, 500, 504] {
        assert!(statuses.contains(&status), "no question was answered with {status}: {statuses:?}");
    }
}

#[tokio::test]
async fn every_command_of_http_has_a_subject_and_conversely() {
    let house = House::open().await;
    let paths = crate::http::openapi()["paths"].clone();
    for operation in &OPERATIONS {
        assert_eq!(paths[operation.path]["post"]["operationId"], operation.name);
        let asked = Asked::new(operation.entity, operation.verb, &[], json!({"surplus": 1}));
        let (status, problem) = house.by_subject(&asked).await;
        assert_eq!(status, 400, "{}: {problem}", operation.name);
    }
    // What else is posted is no command to an entity.
    let others = ["planCrew", "putArtifact", "rebuildProjections", "cutCheckpoint", "exportAudit"];
    for (path, methods) in paths.as_object().expect("paths") {
        let Some(name) = methods["post"]["operationId"].as_str() else { continue };
        let is_command = OPERATIONS.iter().any(|operation| operation.name == name);
        assert!(is_command || others.contains(&name), "`{name}` at `{path}` has no subject");
    }
    let (status, problem) = house.by_subject(&Asked::new("crew", "dance", &[], json!({}))).await;
    assert_eq!((status, &problem["type"]), (404, &json!("urn:hypercode:problem:not_found")));
}

#[test]
fn every_command_is_described_with_its_fields() {
    let page = include_str!("../../docs/nats.md");
    for operation in &OPERATIONS {
        let subject = Subject::of_command(operation.entity, operation.verb);
        let row = page.lines().find(|line| line.starts_with(&format!("| `{subject}` |")));
        let row = row.unwrap_or_else(|| panic!("`{subject}` is not described"));
        let schema = (operation.schema)(
            &mut schemars::generate::SchemaSettings::default()
                .with(|settings| settings.inline_subschemas = true)
                .into_generator(),
        );
        let fields = schema.get("properties").and_then(Value::as_object).expect("an operation takes fields");
        for field in fields.keys() {
            assert!(row.contains(&format!("`{field}`")), "`{field}` of `{subject}` is not described");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_is_the_same_command_at_both_doors() {
    let house = House::open().await;
    let asked =
        || Asked::new("crew", "assemble", &[], json!({"manifest": crew()})).with("Idempotency-Key", "once");
    let (first, again) = (house.by_path(&asked()).await, house.by_subject(&asked()).await);
    assert_eq!(first, again);
    let task = |input: &str| {
        Asked::new("task", "submit", &[], json!({"crew": "pair", "input": input}))
            .with("Idempotency-Key", "task-1")
    };
    let (first, other) = (house.by_subject(&task("a")).await, house.by_path(&task("b")).await);
    assert_eq!((first.0, other.0), (201, 422));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_commands_are_refused_and_stopping_waits_for_those_begun() {
    let house = House::open_for(3_000).await;
    house.server.assemble().await;
    // The double never answers these: two of them take both places until their time is up.
    let resume = Asked::new("crew", "resume", &[("crew", "pair")], json!({}));
    let mut three: FuturesUnordered<_> = (0..3).map(|_| house.by_subject(&resume)).collect();
    let (status, problem) = three.next().await.expect("an answer");
    assert_eq!((status, &problem["retryable"]), (429, &json!(true)));
    let ((), rest) = tokio::join!(house.joined.leave(), three.collect::<Vec<_>>());
    let statuses: Vec<u16> = rest.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses, [504, 504], "both are answered, though it was told to stop meanwhile");
    let unheard = house.bus.request(Message::new(Subject::of_command("crew", "pause"), ""), PATIENCE).await;
    assert!(matches!(unheard, Err(nats::BusError::Unheard { .. })), "{unheard:?}");
}

#[tokio::test]
async fn a_node_says_that_it_is_there_and_that_it_goes() {
    let house = House::open().await;
    let pattern = Subject::of_presence("node-1").into();
    let mut heard = house.bus.subscribe(pattern, None).await.expect("it is subscribed");
    let next = async |heard: &mut nats::Subscription| -> Value {
        let message =
            tokio::time::timeout(PATIENCE, heard.next()).await.expect("in time").expect("a message");
        serde_json::from_slice(&message.body).expect("JSON")
    };
    let there = next(&mut heard).await;
    assert_eq!((&there["node"], &there["state"]), (&json!("node-1"), &json!("running")));
    house.joined.leave().await;
    while next(&mut heard).await["state"] != "stopping" {}
}

#[tokio::test]
async fn a_bus_that_is_away_is_a_trouble_and_nothing_more() {
    let house = House::open().await;
    let wait = async |what: fn(&Option<String>) -> bool| {
        while !what(&house.joined.trouble()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    wait(Option::is_none).await;
    house.bus.set_down(Some("pulled out"));
    let trouble = house.joined.trouble().expect("it is away");
    assert!(trouble.contains("pulled out") && trouble.contains("published"), "{trouble}");
    house.server.note("meanwhile").await;
    house.bus.set_down(None);
    wait(Option::is_none).await;
    while house.joined.gauges()[0].2 < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
