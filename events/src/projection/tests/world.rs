//! A small log, and the views that are made of it.

use super::*;

/// A small log in which something of everything happened.
pub(super) struct World {
    pub(super) store: Memory,
    pub(super) tenant: Tenant,
    pub(super) crew: CrewId,
    pub(super) agents: [AgentId; 2],
    pub(super) task: TaskId,
    pub(super) message: MessageId,
}

/// The log of such a world.
pub(crate) async fn world() -> Memory {
    World::new().await.store
}

impl World {
    pub(super) async fn new() -> Self {
        let world = Self {
            store: Memory::new(),
            tenant: Tenant::default(),
            crew: CrewId::derive(&["crew"]),
            agents: [AgentId::derive(&["0"]), AgentId::derive(&["1"])],
            task: TaskId::derive(&["task"]),
            message: MessageId::of(CommandId::derive(&["message"])),
        };
        world.happen().await;
        world
    }

    pub(super) async fn append(&self, kind: EntityKind, id: &str, events: Vec<NewEvent>) {
        let head = self.store.head().await.expect("head").position;
        let request = AppendRequest {
            stream: StreamId::new(kind, id),
            expected: Expected::Any,
            command_id: CommandId::derive(&[&head.to_string()]),
            command_digest: None,
            epoch: None,
            meta: Meta {
                tenant: self.tenant.clone(),
                principal: Principal::system("test"),
                correlation_id: Some("one-story".into()),
                causation_id: None,
                traceparent: None,
            },
            recorded_at: Timestamp(1_000_000 * (1 + head.0 as i64)),
            events,
            reserve: Vec::new(),
            release: Vec::new(),
        };
        self.store.append(request).await.expect("it is appended");
    }

    pub(super) async fn happens<E: DomainEvent>(
        &self,
        kind: EntityKind,
        id: &str,
        events: impl IntoIterator<Item = E>,
    ) {
        self.append(kind, id, events.into_iter().map(|event| event.encode()).collect()).await;
    }

    fn seat(&self, replica: usize) -> crew::Seat {
        crew::Seat {
            agent: self.agents[replica].clone(),
            member: "analyst".to_owned(),
            replica: replica as u32,
            profile: "analyst".to_owned(),
            profile_version: 1,
            profile_digest: Digest::of(b"analyst"),
            restart: ChildKind::default(),
        }
    }

    fn party(&self, replica: usize) -> Party {
        let agent = self.agents[replica].clone();
        Party { agent, member: "analyst".into(), replica: replica as u32, incarnation: Incarnation(1) }
    }

    async fn happen(&self) {
        for version in 1..=2 {
            let applied = profile::Applied {
                tenant: self.tenant.clone(),
                name: "analyst".to_owned(),
                version,
                digest: Digest::of(b"analyst"),
                spec: json!({"ratio": 0.30000000000000004, "limit": 1.7e308}),
                bundle: None,
                image: None,
            };
            self.happens(EntityKind::Profile, "default.analyst", [profile::Event::from(applied)]).await;
        }
        let started = crew::AssemblyStarted {
            crew: self.crew.clone(),
            tenant: self.tenant.clone(),
            name: "code-health".to_owned(),
            labels: [("team".to_owned(), "platform".to_owned())].into(),
            spec: json!({}),
            entry: "analyst".to_owned(),
            policy: Policy::default(),
            seats: vec![self.seat(0), self.seat(1)],
            ready_by_ms: 60_000,
            expires_at_ms: None,
            allowance: crew::Allowance::default(),
        };
        self.happens(EntityKind::Crew, self.crew.as_str(), [crew::Event::from(started)]).await;
        for replica in 0..2 {
            self.agent_comes_up(replica).await;
        }
        self.happens(
            EntityKind::Crew,
            self.crew.as_str(),
            [crew::Event::from(crew::Assembled { at_ms: None })],
        )
        .await;
        self.pool_is_filled().await;
        self.task_runs().await;
        self.message_is_sent().await;
    }

    async fn agent_comes_up(&self, replica: usize) {
        let seat = self.seat(replica);
        let incarnation = Incarnation(1);
        let requested = agent::Requested {
            agent: seat.agent.clone(),
            tenant: self.tenant.clone(),
            crew: self.crew.clone(),
            member: seat.member,
            replica: seat.replica,
            profile: seat.profile,
            profile_version: 1,
            profile_digest: seat.profile_digest,
        };
        let claimed = agent::SandboxClaimed {
            incarnation,
            sandbox: SandboxId::derive(&[seat.agent.as_str()]),
            sandbox_kind: "process".to_owned(),
            isolation: "none".to_owned(),
            node: None,
            pool: None,
        };
        let id = seat.agent.as_str();
        self.happens::<agent::Event>(EntityKind::Agent, id, [requested.into(), claimed.into()]).await;
        let ready = [
            agent::Warming { incarnation, container: None }.into(),
            agent::Ready { incarnation, concurrency: 1 }.into(),
        ];
        self.happens::<agent::Event>(EntityKind::Agent, id, ready).await;
    }

    async fn pool_is_filled(&self) {
        let (sandbox, template) = (SandboxId::derive(&["standby"]), Digest::of(b"template"));
        let size = pool::Size { min: 1, max: 4, target: None };
        let (tenant, name) = (self.tenant.clone(), "small".to_owned());
        let applied = pool::Applied {
            tenant,
            name,
            version: 1,
            template,
            size,
            prestart: None,
            spec: json!({}),
            image: None,
        };
        let requested = pool::Requested {
            sandbox: sandbox.clone(),
            template,
            sandbox_kind: "process".to_owned(),
            isolation: "none".to_owned(),
            node: "node-1".to_owned(),
            at_ms: 0,
        };
        let ready = pool::Ready { sandbox, took_ms: 12 };
        let id = PoolId::of(&self.tenant, "small");
        for event in [pool::Event::from(applied), requested.into(), ready.into()] {
            self.happens(EntityKind::Pool, id.as_str(), [event]).await;
        }
    }

    fn attempt(&self, attempt: u32, replica: usize) -> task::Event {
        let agent = self.agents[replica].clone();
        task::AttemptStarted { attempt, fence: attempt.into(), agent, incarnation: Incarnation(1), at_ms: 0 }
            .into()
    }

    async fn task_runs(&self) {
        let submitted = task::Submitted {
            task: self.task.clone(),
            tenant: self.tenant.clone(),
            crew: self.crew.clone(),
            member: "analyst".to_owned(),
            replica: None,
            input: json!([{"text": "count"}]),
            context: "conversation".to_owned(),
            from: "user:admin".to_owned(),
            from_member: None,
            parent: None,
            depth: 0,
            deadline_ms: None,
            attempt_timeout_ms: None,
            retry: RetryPolicy::default(),
            subject: None,
            request_digest: Digest::of(b"request"),
            traceparent: None,
        };
        let ended = task::AttemptEnded {
            attempt: 1,
            fence: 1,
            ended: Ended::Crash,
            detail: "signal 9".to_owned(),
            retry_at_ms: Some(0),
        };
        let id = self.task.as_str();
        self.happens(EntityKind::Task, id, [submitted.into(), self.attempt(1, 0)]).await;
        let models =
            [("small".to_owned(), Usage { input_tokens: 7, output_tokens: 2, cost_micros: 5 })].into();
        let reported = task::UsageReported { crew: self.crew.clone(), agent: self.agents[0].clone(), models };
        self.happens::<task::Event>(EntityKind::Task, id, [reported.into(), ended.into()]).await;
        self.happens(EntityKind::Task, id, [self.attempt(2, 1)]).await;
    }

    pub(super) async fn task_completes(&self) {
        let completed = task::Completed { attempt: 2, fence: 2, output: json!([0.1]), artifacts: json!([]) };
        self.happens(EntityKind::Task, self.task.as_str(), [task::Event::from(completed)]).await;
    }

    async fn message_is_sent(&self) {
        let sent = message::Sent {
            message: self.message.clone(),
            crew: self.crew.clone(),
            from: self.party(0),
            to: "editor".to_owned(),
            recipients: vec![self.agents[1].clone()],
            waits_for: Some("editor".into()),
            depth: 0,
            body: Body::Inline(json!([{"text": "hi"}])),
            context: None,
            task: None,
            in_hand: Vec::new(),
            reply_to: None,
        };
        let denied = message::Denied {
            crew: self.crew.clone(),
            from: self.party(0),
            to: "scout".to_owned(),
            reason: message::Denial::NoChannel,
            rule: "no channel leads from analyst to scout".to_owned(),
            count: 3,
        };
        let outbox = format!("{}/1", self.agents[0]);
        self.happens::<message::Event>(EntityKind::Outbox, &outbox, [sent.into(), denied.into()]).await;
        let (taken, unhandled) = (vec![self.message.clone()], Vec::new());
        let acked = message::Acked { crew: self.crew.clone(), by: self.party(1), taken, unhandled };
        let inbox = format!("{}/1", self.agents[1]);
        self.happens(EntityKind::Inbox, &inbox, [message::Event::from(acked)]).await;
    }

    pub(super) async fn views(&self, home: &Home, batch_events_max: usize) -> Views {
        let subscription = subscription::Options { batch_events_max, poll_ms: 20 };
        let options = Options { subscription, retry_ms: 5, ..Options::default() };
        let store = Arc::new(self.store.clone());
        let views = match home {
            Home::File(directory) => Views::open(directory, store, options).await,
            Home::Common(url) => Views::open_common(&url.parse().expect("a URL"), store, options).await,
        };
        let views = views.expect("they open");
        self.caught_up(&views).await;
        views
    }

    /// Something of which every event changes rows.
    pub(super) async fn task_is_talked_about(&self, events: u32) {
        for number in 0..events {
            let progressed = NewEvent {
                kind: "task_progressed".into(),
                schema: 1,
                payload: format!(r#"{{"message":"{number}"}}"#).into(),
            };
            self.append(EntityKind::Task, self.task.as_str(), vec![progressed]).await;
        }
    }

    pub(super) async fn caught_up(&self, views: &Views) {
        let head = self.store.head().await.expect("head").position;
        views.wait_for(head, PATIENCE).await.expect("they catch up");
    }
}

/// What views are kept in.
pub(super) enum Home {
    File(TempDir),
    Common(String),
}

impl Home {
    pub(super) async fn file() -> Self {
        Self::File(tempfile::tempdir().expect("a directory"))
    }
    pub(super) async fn common() -> Self {
        Self::Common(Server::shared().database().await)
    }
    /// Executes statements over the views.
    pub(super) async fn execute(&self, sql: &str) {
        match self {
            Self::File(directory) => {
                let db = rusqlite::Connection::open(directory.path().join(VIEWS_FILE)).expect("it opens");
                db.busy_timeout(PATIENCE).and_then(|()| db.execute_batch(sql)).expect("executed");
            }
            Self::Common(url) => execute(url, &format!("SET search_path = hypercode_views; {sql}")).await,
        }
    }
    /// Another of the same kind.
    pub(super) async fn another(&self) -> Self {
        match self {
            Self::File(_) => Self::file().await,
            Self::Common(_) => Self::common().await,
        }
    }
}
