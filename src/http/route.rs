//! The table of routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, MethodRouter, on};
use events::api::{Problem, ProblemKind};
use schemars::JsonSchema;

use super::extract::{Known, Segments};
use super::guard::{self, Guard};
use super::{
    Api, SandboxKind, access, artifacts, audit, commands, feed, keys, model, nodes, operations, page, plan,
    pools, projections, queries, secrets, tenants,
};
use crate::api::{Done, OPERATIONS, Operation, Pace, Refusal, SchemaOf, schema_of};

/// What a body or an answer is made of.
pub(super) struct Shape {
    /// Its media type.
    pub(super) media_type: &'static str,
    /// Its schema, where it is JSON.
    pub(super) schema: Option<SchemaOf>,
}

impl Shape {
    const fn json(schema: SchemaOf) -> Self {
        Self { media_type: "application/json", schema: Some(schema) }
    }

    const fn plain(media_type: &'static str) -> Self {
        Self { media_type, schema: None }
    }
}

/// One thing that can be asked.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Its name in the OpenAPI document and in metrics.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    /// What who asks must be allowed to do; `None` for what anybody may ask.
    pub(super) permission: Option<&'static str>,
    pub(super) query: Option<SchemaOf>,
    pub(super) bodies: Vec<Shape>,
    pub(super) status: StatusCode,
    pub(super) answer: Shape,
    pub(super) pace: Pace,
    handler: MethodRouter<Arc<Api>>,
}

impl Route {
    fn new<H, T>(
        method: Method,
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Api>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("the table has standard methods");
        Self {
            method,
            path,
            name,
            summary,
            permission: None,
            query: None,
            bodies: Vec::new(),
            status: StatusCode::OK,
            answer: Shape::json(schema_of::<serde_json::Value>),
            pace: Pace::Usual,
            handler: on(filter, handler),
        }
    }

    fn get<H: Handler<T, Arc<Api>>, T: 'static>(
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(Method::GET, path, name, summary, handler)
    }

    fn post<H: Handler<T, Arc<Api>>, T: 'static>(
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        Self::new(Method::POST, path, name, summary, handler)
    }

    /// An operation, at its path.
    fn of(operation: &'static Operation) -> Self {
        let perform = async move |State(api): State<Arc<Api>>,
                                  Known(admitted): Known,
                                  Segments(fields): Segments<Vec<(String, String)>>,
                                  request: Request| {
            commands::perform(operation, api, admitted, fields, request).await
        };
        let Operation { path, name, summary, permission, pace, .. } = *operation;
        let mut route =
            Self::post(path, name, summary, perform).needs(permission).answers::<Done>().pace(pace);
        route.bodies.push(Shape::json(operation.schema));
        if operation.takes_yaml {
            route = route.takes_plain("application/yaml");
        }
        if operation.creates { route.created() } else { route }
    }

    fn needs(self, permission: &'static str) -> Self {
        Self { permission: Some(permission), ..self }
    }

    fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.bodies.push(Shape::json(schema_of::<T>));
        self
    }

    fn takes_plain(mut self, media_type: &'static str) -> Self {
        self.bodies.push(Shape::plain(media_type));
        self
    }

    fn answers<T: JsonSchema>(self) -> Self {
        Self { answer: Shape::json(schema_of::<T>), ..self }
    }

    fn answers_plain(self, media_type: &'static str) -> Self {
        Self { answer: Shape::plain(media_type), ..self }
    }

    fn created(self) -> Self {
        Self { status: StatusCode::CREATED, ..self }
    }

    fn pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }
}

/// Everything that can be asked.
pub(super) fn routes() -> Vec<Route> {
    let commands = OPERATIONS.iter().map(Route::of).collect();
    [commands, crew_routes(), work_routes(), log_routes(), audit_routes(), operations_routes()]
        .into_iter()
        .flatten()
        .collect()
}

fn crew_routes() -> Vec<Route> {
    use model::{AgentModel, CrewModel, ProfileModel};
    use page::Items;
    vec![
        Route::post(
            "/v1/crews/plan",
            "planCrew",
            "What assembling a crew would do, and who may say what to whom",
            plan::plan,
        )
        .needs("profile:read")
        .takes::<plan::PlanCrew>()
        .takes_plain("application/yaml"),
        Route::get("/v1/profiles", "listProfiles", "The newest version of every profile", queries::profiles)
            .needs("profile:read")
            .query::<queries::Profiles>()
            .answers::<Items<ProfileModel>>(),
        Route::get("/v1/profiles/{name}", "readProfile", "A version of a profile", queries::profile)
            .needs("profile:read")
            .query::<queries::ProfileVersion>()
            .answers::<ProfileModel>(),
        Route::get("/v1/pools", "listPools", "Warm pools", pools::list)
            .needs("pool:read")
            .query::<pools::PoolList>()
            .answers::<Items<pools::PoolModel>>(),
        Route::get("/v1/pools/{pool}", "readPool", "A warm pool and its sandboxes, by its name", pools::read)
            .needs("pool:read")
            .query::<queries::One>()
            .answers::<pools::PoolModel>(),
        Route::get("/v1/crews", "listCrews", "Crews", queries::crews)
            .needs("crew:read")
            .query::<queries::Crews>()
            .answers::<Items<CrewModel>>(),
        Route::get(
            "/v1/crews/{crew}",
            "readCrew",
            "A crew, by its id, or by its name while it lives",
            queries::crew,
        )
        .needs("crew:read")
        .query::<queries::One>()
        .answers::<CrewModel>(),
        Route::get("/v1/agents", "listAgents", "Agents", queries::agents)
            .needs("agent:read")
            .query::<queries::Agents>()
            .answers::<Items<AgentModel>>(),
        Route::get("/v1/agents/{agent}", "readAgent", "An agent", queries::agent)
            .needs("agent:read")
            .query::<queries::One>()
            .answers::<AgentModel>(),
        Route::get(
            "/v1/agents/{agent}/logs",
            "readAgentLog",
            "The end of what an agent's handler has written",
            queries::agent_log,
        )
        .needs("agent:read")
        .query::<queries::LogEnd>()
        .answers::<queries::AgentLog>(),
    ]
}

fn work_routes() -> Vec<Route> {
    use model::{ApprovalModel, MessageModel, TaskModel};
    use page::Items;
    vec![
        Route::get("/v1/tasks", "listTasks", "Tasks", queries::tasks)
            .needs("task:read")
            .query::<queries::Tasks>()
            .answers::<Items<TaskModel>>(),
        Route::get("/v1/tasks/{task}", "readTask", "A task; waits for its end if asked to", queries::task)
            .needs("task:read")
            .query::<queries::OneTask>()
            .answers::<TaskModel>(),
        Route::get("/v1/approvals", "listApprovals", "What waits for a person's answer", queries::approvals)
            .needs("approval:read")
            .query::<queries::Approvals>()
            .answers::<Items<ApprovalModel>>(),
        Route::get(
            "/v1/messages",
            "listMessages",
            "Messages between agents, and what became of them",
            queries::messages,
        )
        .needs("message:read")
        .query::<queries::Messages>()
        .answers::<Items<MessageModel>>(),
        Route::get(
            "/v1/messages/{message}",
            "readMessage",
            "A message with its whole body",
            queries::message,
        )
        .needs("message:read")
        .query::<queries::One>()
        .answers::<MessageModel>(),
    ]
}

fn log_routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/artifacts",
            "putArtifact",
            "Keeps the body's bytes, at most 64 MiB, by their SHA-256",
            artifacts::put,
        )
        .needs("artifact:write")
        .takes_plain("application/octet-stream")
        .answers::<artifacts::Kept>()
        .created()
        .pace(Pace::Long),
        Route::get("/v1/artifacts/{digest}", "getArtifact", "The bytes of this SHA-256", artifacts::get)
            .needs("artifact:read")
            .answers_plain("application/octet-stream")
            .pace(Pace::Long),
        Route::get("/v1/audit", "listAudit", "Who did what, when and why", queries::audit)
            .needs("audit:read")
            .query::<queries::AuditLines>()
            .answers::<page::Items<model::AuditModel>>(),
        Route::get(
            "/v1/tokens",
            "listTokens",
            "The tokens that were made, without their secrets",
            access::tokens,
        )
        .needs("token:read")
        .answers::<access::Tokens>(),
        Route::get("/v1/roles", "listRoles", "Who has which roles, now or at some time", access::roles)
            .needs("role:read")
            .query::<access::RolesQuery>()
            .answers::<access::Roles>(),
        Route::get(
            "/v1/keys",
            "listKeys",
            "The keys that sign agents' tokens, without their secret halves",
            keys::list,
        )
        .needs("key:read")
        .answers::<keys::Keys>(),
        Route::get(
            "/v1/secrets",
            "listSecrets",
            "The secrets that are stored, without their values",
            secrets::list,
        )
        .needs("secret:read")
        .answers::<secrets::Secrets>(),
        Route::get(
            "/v1/nodes",
            "listNodes",
            "The nodes that share the log, and what each holds",
            nodes::list,
        )
        .needs("node:read")
        .answers::<nodes::Nodes>(),
        Route::get("/v1/projections", "listProjections", "Where the views stand", projections::status)
            .needs("projection:read")
            .answers::<projections::Projections>(),
        Route::post(
            "/v1/projections/rebuild",
            "rebuildProjections",
            "Makes views again from the log",
            projections::rebuild,
        )
        .needs("projection:rebuild")
        .takes::<projections::Rebuild>()
        .answers::<projections::Projections>(),
        Route::get(
            "/v1/log",
            "readLogHead",
            "Where the log ends, and the hash of its chain there",
            feed::head,
        )
        .needs("audit:read")
        .answers::<feed::LogHead>(),
        Route::get(
            "/v1/events",
            "followEvents",
            "The live feed of events, resumable by `Last-Event-ID`",
            feed::follow,
        )
        .needs(feed::PERMISSION)
        .query::<feed::Filter>()
        .answers_plain("text/event-stream")
        .pace(Pace::Endless),
    ]
}

fn audit_routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/audit/checkpoint",
            "readCheckpoint",
            "The newest signed checkpoint, the keys, and how the audit stands",
            audit::standing,
        )
        .needs("log:read")
        .answers::<audit::StandingModel>(),
        Route::post(
            "/v1/audit/checkpoint",
            "cutCheckpoint",
            "Signs a checkpoint now, over everything that the log has",
            audit::cut,
        )
        .needs("audit:checkpoint")
        .answers::<audit::StandingModel>(),
        Route::post(
            "/v1/audit/exports",
            "exportAudit",
            "Records that evidence is taken out, and signs a checkpoint that covers it",
            audit::export,
        )
        .needs("audit:export")
        .takes::<audit::Exports>()
        .answers::<audit::Exported>(),
        Route::get(
            "/v1/audit/checkpoints",
            "listCheckpoints",
            "Signed checkpoints by size",
            audit::checkpoints,
        )
        .needs("log:read")
        .query::<audit::Above>()
        .answers::<audit::CheckpointPage>(),
        Route::get(
            "/v1/audit/tiles/{level}/{number}",
            "readTile",
            "256 neighbouring hashes of the Merkle tree, fewer at its right edge",
            audit::tile,
        )
        .needs("log:read")
        .answers_plain("application/octet-stream"),
        Route::get(
            "/v1/audit/proofs/{position}",
            "readProof",
            "The proof that the event at a position is in the signed log",
            audit::proof,
        )
        .needs("audit:read")
        .answers::<audit::ProofModel>(),
    ]
}

fn operations_routes() -> Vec<Route> {
    vec![
        Route::get("/v1/whoami", "whoAmI", "Who asks, by the token that was shown", operations::whoami)
            .needs("identity:read")
            .answers::<operations::Identity>(),
        Route::get(
            "/v1/tenants",
            "listTenants",
            "The tenants of which whoever asks sees crews",
            tenants::list,
        )
        .needs("identity:read")
        .answers::<tenants::Tenants>(),
        Route::get(
            "/v1/isolation",
            "readIsolation",
            "What the agents of the node that answers run in, and what that holds them to",
            operations::isolation,
        )
        .needs("agent:read")
        .answers::<SandboxKind>(),
        Route::get("/healthz", "health", "Answers while the process lives", operations::health)
            .answers::<operations::Health>(),
        Route::get(
            "/readyz",
            "readiness",
            "Answers 200 when commands and queries can be served",
            operations::readiness,
        )
        .answers::<operations::Health>(),
        Route::get(
            "/.well-known/jwks.json",
            "readJwks",
            "The public keys with which agents' tokens can be checked (RFC 7517)",
            keys::jwks,
        ),
        Route::get("/metrics", "metrics", "Counters in the text format of Prometheus", operations::metrics)
            .needs("metrics:read")
            .answers_plain("text/plain; version=0.0.4"),
        Route::get("/openapi.json", "openApi", "This document", operations::openapi),
    ]
}

/// The router of the whole table; whatever is not in it is a problem too.
pub(super) fn router(api: Arc<Api>) -> Router {
    let mut paths: BTreeMap<&'static str, MethodRouter<Arc<Api>>> = BTreeMap::new();
    for route in routes() {
        let guard = Guard::new(&api, &route);
        let handler = route.handler.layer(axum::middleware::from_fn_with_state(guard, guard::guard));
        let entry = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, entry.merge(handler));
    }
    let mut router = Router::new();
    for (path, handlers) in paths {
        router = router.route(path, handlers);
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(not_found).with_state(api)
}

async fn not_found(uri: axum::http::Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        ProblemKind::NotFound,
        format!("there is nothing at `{path}`; `/openapi.json` lists what there is"),
    )
    .into()
}

async fn method_not_allowed(method: Method, uri: axum::http::Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("`{path}` does not take {method}; the header `Allow` says what it takes");
    Refusal::with_status(405, Problem::new(ProblemKind::Invalid, detail))
}
