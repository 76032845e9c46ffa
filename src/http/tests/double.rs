//! A server over the memory log, real views, and commands that only write down what they were told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::api::{Caller, Command, Commands, Problem, ProblemKind, Reply};
use events::audit;
use events::domain::crew::name_reservation;
use events::projection::{self, Views};
use events::store::{AppendRequest, Expected, Memory};
use events::{
    CrewId, Digest, EntityKind, EventStore, NewEvent, Position, Principal, SandboxId, StreamId, TaskId,
    Tenant, Timestamp,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Service, Token};
use crate::http::{self, Bodies, Limits, Logs, Parts, Pools, SandboxKind};

/// The largest body that the server takes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// A manifest of a crew.
pub(crate) fn crew() -> Value {
    json!({
        "apiVersion": "hypercode.dev/v1", "kind": "Crew", "metadata": {"name": "pair"},
        "spec": {"entry": "writer", "members": [{"name": "writer", "profile": "writer"}]},
    })
}

/// A client that trusts so.
fn client(tls: tokio_rustls::rustls::ClientConfig) -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap()
}

/// A server and a client of it.
pub(crate) struct Server {
    pub(crate) stop: CancellationToken,
    pub(crate) service: Arc<Service>,
    store: Arc<Memory>,
    base: String,
    client: reqwest::Client,
    token: Token,
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(1_000, None).await
    }

    /// A server whose requests may take so many milliseconds.
    pub(crate) async fn start_for(request_ms: u64) -> Self {
        Self::start_with(request_ms, None).await
    }

    /// A server that shows this certificate.
    pub(crate) async fn start_with(request_ms: u64, certificate: Option<crate::tls::Files>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::new());
        let log: Arc<dyn EventStore> = Arc::clone(&store) as Arc<dyn EventStore>;
        let views =
            Views::open(directory.path(), Arc::clone(&log), projection::Options::default()).await.unwrap();
        let ledger = audit::Ledger::open(directory.path()).await.unwrap();
        let signer = audit::Signer::generate("hypercode/test");
        let options = audit::Options::default();
        let audit =
            audit::Tailer::start(Arc::clone(&log), ledger, signer, Vec::new(), options).await.unwrap();
        let (token, stop) = (Token::random(), CancellationToken::new());
        let limits = Limits { wait_ms_max: 200, catch_up_ms: 5_000, keep_alive_ms: 50, ..Limits::default() };
        let bounds = api::Limits { request_ms, body_bytes_max: BODY_BYTES_MAX, ..api::Limits::default() };
        let commands = Arc::new(Double { store: Arc::clone(&log) });
        let service = Arc::new(Service::new(commands, Arc::clone(&log), token.clone(), bounds));
        let router = http::router(Parts {
            service: Arc::clone(&service),
            store: log,
            leases: Arc::clone(&store) as Arc<dyn events::lease::Leases>,
            views,
            artifacts: Arc::new(events::artifact::Memory::new()),
            audit,
            bodies: Arc::new(Inline),
            logs: Arc::new(Inline),
            pools: Arc::new(Inline),
            sandbox: SandboxKind {
                kind: "process".to_owned(),
                isolation: "none".to_owned(),
                ..SandboxKind::default()
            },
            room: None,
            dependencies: Vec::new(),
            limits: limits.clone(),
            stop: stop.clone(),
        });
        let trusting = match &certificate {
            Some(files) => crate::tls::client(Some(&files.cert)).unwrap(),
            None => crate::tls::none(),
        };
        let listener = http::bind("127.0.0.1:0".parse().unwrap(), certificate).await.unwrap();
        let base = listener.url().unwrap();
        let end = stop.clone();
        tokio::spawn(
            async move { http::serve(listener, router, &limits, end, Duration::from_secs(1)).await },
        );
        let client = client(trusting);
        Self { stop, service, store, base, client, token, _directory: directory }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The log.
    pub(crate) fn log(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store) as Arc<dyn EventStore>
    }

    /// What an administrator shows.
    pub(crate) fn token(&self) -> &str {
        self.token.expose()
    }

    /// A request without anything.
    pub(crate) fn plain(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.expose())
    }

    pub(crate) async fn anonymous(&self, method: Method, path: &str) -> reqwest::Response {
        self.client.request(method, format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> Value {
        let response = self.request(Method::POST, path).json(body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    pub(crate) async fn send_with_key(&self, path: &str, body: &Value, key: &str) -> reqwest::Response {
        self.request(Method::POST, path).header("Idempotency-Key", key).json(body).send().await.unwrap()
    }

    /// Has the crew of [`crew`] assembled.
    pub(crate) async fn assemble(&self) -> Value {
        self.send("/v1/crews/assemble", &json!({"manifest": crew()})).await
    }

    /// Appends an event that no entity folds.
    pub(crate) async fn note(&self, text: &str) {
        let stream = StreamId::new(EntityKind::Platform, "test");
        self.store
            .append(request(stream, &admin(None), "platform_noted", &json!({ "text": text })))
            .await
            .unwrap();
    }
}

fn admin(key: Option<&str>) -> Caller {
    Caller {
        tenant: Tenant::default(),
        principal: Principal::user("admin"),
        idempotency_key: key.map(Arc::from),
        traceparent: None,
    }
}

fn request(stream: StreamId, caller: &Caller, kind: &str, payload: &Value) -> AppendRequest {
    let payload = payload.to_string();
    AppendRequest {
        stream,
        expected: Expected::Any,
        command_id: caller.command_id(),
        command_digest: Some(Digest::of(payload.as_bytes())),
        epoch: None,
        meta: caller.meta(),
        recorded_at: Timestamp::now(),
        events: vec![NewEvent { kind: kind.into(), schema: 1, payload: payload.into() }],
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

struct Inline;

impl Pools for Inline {
    fn figures(&self) -> Vec<actors::PoolFigures> {
        Vec::new()
    }
}

#[async_trait]
impl Logs for Inline {
    async fn log(
        &self,
        _: Option<&str>,
        sandbox: &SandboxId,
        bytes_max: u64,
    ) -> Result<Option<String>, Problem> {
        Ok(Some(format!("the last {bytes_max} bytes of {sandbox}")))
    }

    fn deltas(&self, _: &TaskId) -> broadcast::Receiver<Arc<str>> {
        broadcast::channel(1).1
    }
}

#[async_trait]
impl Bodies for Inline {
    async fn body(&self, kept: &Value) -> Result<Value, Problem> {
        Ok(kept.clone())
    }
}

/// Commands that only write down what they were told.
struct Double {
    store: Arc<dyn EventStore>,
}

#[async_trait]
impl Commands for Double {
    async fn execute(&self, caller: &Caller, command: Command) -> Result<Reply, Problem> {
        let reply = |kind, id: &str, position, body| Ok(Reply { kind, id: id.to_owned(), position, body });
        match command {
            Command::CrewAssemble { name, labels, spec } => {
                let crew = CrewId::derive(&["test", &name]);
                let stream = StreamId::new(EntityKind::Crew, crew.as_str());
                let started = events::domain::crew::AssemblyStarted {
                    crew: crew.clone(),
                    tenant: caller.tenant.clone(),
                    name: name.clone(),
                    labels,
                    spec,
                    entry: "writer".to_owned(),
                    policy: events::supervision::Policy::default(),
                    seats: Vec::new(),
                    ready_by_ms: 0,
                    expires_at_ms: None,
                    allowance: events::domain::crew::Allowance::default(),
                };
                let mut append = request(stream, caller, "crew_assembly_started", &json!(started));
                append.reserve = vec![name_reservation(&caller.tenant, &name)];
                let appended = self.store.append(append).await?;
                reply(EntityKind::Crew, crew.as_str(), appended.position, json!({ "name": name }))
            }
            Command::CrewPause { crew } => reply(EntityKind::Crew, crew.as_str(), Position(1), json!({})),
            Command::CrewResume { .. } => std::future::pending().await,
            Command::CrewDrain { .. } => panic!("the double panics when it is told to"),
            Command::TaskSubmit { crew, to, input, context, deadline_ms, .. } => {
                let task = TaskId::derive(&["test", caller.idempotency_key.as_deref().unwrap_or_default()]);
                let stream = StreamId::new(EntityKind::Platform, "tasks");
                let told = json!({"crew": crew, "to": to, "input": input, "context": context, "deadlineMs": deadline_ms});
                let appended = self.store.append(request(stream, caller, "task_told", &told)).await?;
                let body =
                    json!({"input": input, "principal": caller.principal, "key": caller.idempotency_key});
                reply(EntityKind::Task, task.as_str(), appended.position, body)
            }
            other => Err(Problem::new(ProblemKind::Internal, format!("the double does not know {other:?}"))),
        }
    }
}
