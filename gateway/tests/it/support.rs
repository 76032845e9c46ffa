//! A platform and runners for tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use events::artifact::ArtifactStore;
use events::domain::DomainEvent;
use events::domain::message::Recipient;
use events::domain::platform::{self, Tampered};
use events::store::{Faults, Memory};
use events::{AgentId, CommandId, CrewId, EventStore, Incarnation, Position, SandboxId, Tenant};
use futures_util::{SinkExt, StreamExt};
use hypercode_gateway::{
    Activity, Channel, CrewPolicy, Gateway, Host, HostCall, Kind, Linked, Member, Options, Origin, Peer,
    Process, Seams,
};
use identity::{AgentKeys, Bearer, KeySet, SigningKey};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

/// Longer than anything takes that goes right.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn error(kind: link::ErrorType) -> link::Error {
    link::Error::new(kind, "as the test wants it")
}

/// What the host was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Linked { assigned: bool, hello: link::Hello },
    Ready(link::Ready),
    Failed(link::Failed),
    Exited(link::Exited),
    Drained,
    Refused(String, link::Error),
    Heartbeat(link::Heartbeat),
    Activity(Activity),
    Lost,
    Result(CommandId, link::TaskResultFrame),
    Note(link::Note),
    Spent(u64),
    Spoofed(u32),
}

/// A call that waits for the test's answer.
pub(crate) struct Asked {
    pub(crate) peer: Peer,
    pub(crate) command: CommandId,
    pub(crate) call: HostCall,
    pub(crate) answer: oneshot::Sender<Result<Value, link::Error>>,
}

type Planned<T> = Mutex<Vec<Result<T, link::Error>>>;

/// A host that remembers, and answers as it is told.
pub(crate) struct FakeHost {
    seen: Mutex<Vec<(SandboxId, Seen)>>,
    news: Notify,
    calls: mpsc::UnboundedSender<Asked>,
    asked: tokio::sync::Mutex<mpsc::UnboundedReceiver<Asked>>,
    /// The answers to the next `hello`s; then the default.
    pub(crate) linked: Planned<Linked>,
    /// The answers to the next results; then `Ok`.
    pub(crate) results: Planned<()>,
    /// Nobody is admitted any more.
    pub(crate) is_closed: std::sync::atomic::AtomicBool,
}

impl FakeHost {
    fn new() -> Arc<Self> {
        let (calls, asked) = mpsc::unbounded_channel();
        Arc::new(Self {
            seen: Mutex::default(),
            news: Notify::new(),
            calls,
            asked: tokio::sync::Mutex::new(asked),
            linked: Mutex::default(),
            results: Mutex::default(),
            is_closed: std::sync::atomic::AtomicBool::default(),
        })
    }

    fn saw(&self, sandbox: &SandboxId, what: Seen) {
        self.seen.lock().unwrap().push((sandbox.clone(), what));
        self.news.notify_waiters();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().map(|(_, what)| what.clone()).collect()
    }

    fn seen_of(&self, sandbox: &SandboxId) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(of, _)| of == sandbox).map(|(_, what)| what.clone()).collect()
    }

    /// Waits until so many things were seen that `wanted` picks, and gives them.
    pub(crate) async fn wait<T>(&self, count: usize, wanted: impl Fn(Seen) -> Option<T>) -> Vec<T> {
        self.waited(count, || self.seen(), wanted).await
    }

    async fn waited<T>(
        &self,
        count: usize,
        seen: impl Fn() -> Vec<Seen>,
        wanted: impl Fn(Seen) -> Option<T>,
    ) -> Vec<T> {
        let waiting = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                let found: Vec<T> = seen().into_iter().filter_map(&wanted).collect();
                if found.len() >= count {
                    return found;
                }
                news.await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("seen only {:?}", self.seen()))
    }

    /// The next call of a handler.
    pub(crate) async fn call(&self) -> Asked {
        timeout(PATIENCE, async { self.asked.lock().await.recv().await.unwrap() })
            .await
            .expect("no call came")
    }
}

#[async_trait]
impl Host for FakeHost {
    async fn admits(&self, _: &SandboxId, process: Process) -> Option<bool> {
        let is_closed = self.is_closed.load(std::sync::atomic::Ordering::Relaxed);
        Some(process.pid == std::process::id() && !is_closed)
    }

    async fn linked(
        &self,
        sandbox: &SandboxId,
        hello: &link::Hello,
        assigned: bool,
    ) -> Result<Linked, link::Error> {
        self.saw(sandbox, Seen::Linked { assigned, hello: hello.clone() });
        let mut planned = self.linked.lock().unwrap();
        if planned.is_empty() {
            Ok(Linked { heartbeat_ms: 1_000, ..Linked::default() })
        } else {
            planned.remove(0)
        }
    }
    async fn ready(&self, sandbox: &SandboxId, ready: link::Ready) {
        self.saw(sandbox, Seen::Ready(ready));
    }
    async fn failed(&self, sandbox: &SandboxId, failed: link::Failed) {
        self.saw(sandbox, Seen::Failed(failed));
    }
    async fn exited(&self, sandbox: &SandboxId, exited: link::Exited) {
        self.saw(sandbox, Seen::Exited(exited));
    }
    async fn drained(&self, sandbox: &SandboxId) {
        self.saw(sandbox, Seen::Drained);
    }
    async fn refused(&self, sandbox: &SandboxId, re: link::Id, error: link::Error) {
        self.saw(sandbox, Seen::Refused(re.to_string(), error));
    }
    fn heartbeat(&self, sandbox: &SandboxId, beat: &link::Heartbeat) {
        self.saw(sandbox, Seen::Heartbeat(beat.clone()));
    }
    fn activity(&self, sandbox: &SandboxId, what: Activity) {
        self.saw(sandbox, Seen::Activity(what));
    }
    fn link_lost(&self, sandbox: &SandboxId, _: &str) {
        self.saw(sandbox, Seen::Lost);
    }
    async fn task_result(
        &self,
        peer: &Peer,
        command: CommandId,
        result: link::TaskResultFrame,
    ) -> Result<(), link::Error> {
        self.saw(&peer.sandbox, Seen::Result(command, result));
        let mut planned = self.results.lock().unwrap();
        if planned.is_empty() { Ok(()) } else { planned.remove(0) }
    }
    async fn call(&self, peer: &Peer, command: CommandId, call: HostCall) -> Result<Value, link::Error> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Asked { peer: peer.clone(), command, call, answer }).unwrap();
        answered.await.unwrap_or_else(|_| Err(error(link::ErrorType::Unavailable)))
    }
    fn posted(&self, _: &CrewId, _: &[Recipient]) {}
    async fn messages_spent(&self, peer: &Peer, sent: u64) {
        self.saw(&peer.sandbox, Seen::Spent(sent));
    }
    async fn spoofed(&self, peer: &Peer, times: u32) {
        self.saw(&peer.sandbox, Seen::Spoofed(times));
    }
    async fn note(&self, peer: &Peer, note: link::Note) {
        self.saw(&peer.sandbox, Seen::Note(note));
    }
}

/// A gateway with its log, its host and a directory for its sockets.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) host: Arc<FakeHost>,
    pub(crate) store: Arc<Memory>,
    pub(crate) faults: Faults,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    pub(crate) keys: Arc<AgentKeys>,
    home: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::with_keys(AgentKeys::default(), change)
    }

    /// A platform whose tokens live so long, in seconds.
    pub(crate) fn with_tokens_of(lifetime_s: u64) -> Self {
        Self::with_keys(AgentKeys::living(lifetime_s), |_| {})
    }

    fn with_keys(keys: AgentKeys, change: impl FnOnce(&mut Options)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Memory::new());
        let faults = store.faults().clone();
        let host = FakeHost::new();
        let artifacts: Arc<dyn ArtifactStore> = Arc::new(events::artifact::Memory::default());
        let keys = Arc::new(keys);
        keys.set(key_set(&[&Arc::new(SigningKey::generate())]));
        let gateway = gateway(home.path(), &store, &artifacts, &keys, &host, change);
        Self { gateway, host, store, faults, artifacts, keys, home }
    }

    /// A token that the platform has made for this peer.
    pub(crate) fn token(&self, peer: &Peer) -> String {
        self.token_made_at(peer, now_s())
    }

    pub(crate) fn token_made_at(&self, peer: &Peer, made_s: u64) -> String {
        self.keys.mint(&bearer(peer), made_s).unwrap().text.to_string()
    }

    /// The platform dies and comes back: the same log and directory, and nothing else.
    pub(crate) fn restarted(self) -> Self {
        let host = FakeHost::new();
        let gateway = gateway(self.home.path(), &self.store, &self.artifacts, &self.keys, &host, |_| {});
        Self { gateway, host, ..self }
    }

    /// An agent in its first life, its runner linked, assigned and ready.
    pub(crate) async fn agent(&self, member: &str, replica: u32) -> Runner {
        self.start(peer(member, replica, 1)).await
    }

    /// This life of an agent, its runner linked, assigned and ready.
    pub(crate) async fn start(&self, peer: Peer) -> Runner {
        let sandbox = peer.sandbox.clone();
        let path = self.gateway.open(&sandbox).await.unwrap();
        self.gateway.bind_peer(&sandbox, peer.clone()).unwrap();
        let mut runner = Runner::connect(&path, None).await;
        runner.peer = Some(peer.clone());
        runner.hello().await;
        self.gateway.assign(&sandbox, assign(&peer)).await.unwrap();
        let assigned = runner.expect("assign").await;
        runner.token = assigned["token"].as_str().map(str::to_owned);
        runner.send(json!({"t": "ready", "re": assigned["id"]})).await;
        let ready = |seen| matches!(seen, Seen::Ready(_)).then_some(());
        self.host.waited(1, || self.host.seen_of(&sandbox), ready).await;
        runner
    }

    /// The events of this entity in the log, with their positions.
    pub(crate) async fn events<E: DomainEvent>(&self) -> Vec<(Position, E)> {
        let recorded = self.store.read(Position(0), 10_000).await.unwrap();
        let decoded = recorded.iter().filter_map(|event| {
            let decoded = E::decode(&event.kind, event.schema, &event.payload).ok()?;
            Some((event.position, decoded))
        });
        decoded.collect()
    }

    /// Waits until so many acts against sandboxes are recorded.
    pub(crate) async fn tampered(&self, count: usize) -> Vec<Tampered> {
        self.log(count, |event| match event {
            platform::Event::Tampered(tampered) => Some(tampered),
            _ => None,
        })
        .await
    }

    /// Waits until the log has so many events that `wanted` picks.
    pub(crate) async fn log<E: DomainEvent, T>(
        &self,
        count: usize,
        wanted: impl Fn(E) -> Option<T>,
    ) -> Vec<T> {
        let mut head = self.store.watch();
        let waiting = async {
            loop {
                head.borrow_and_update();
                let found: Vec<T> = self.events().await.into_iter().filter_map(|(_, e)| wanted(e)).collect();
                if found.len() >= count {
                    return found;
                }
                head.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, waiting).await.expect("the log never got that far")
    }
}

fn gateway(
    home: &Path,
    store: &Arc<Memory>,
    artifacts: &Arc<dyn ArtifactStore>,
    keys: &Arc<AgentKeys>,
    host: &Arc<FakeHost>,
    change: impl FnOnce(&mut Options),
) -> Gateway {
    let mut options = Options::new(home.join("run"));
    change(&mut options);
    let host: Arc<dyn Host> = host.clone();
    let seams = Seams {
        store: store.clone(),
        artifacts: artifacts.clone(),
        keys: keys.clone(),
        host: Arc::downgrade(&host),
    };
    Gateway::new(options, seams)
}

pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The keys of a platform of which the first signs.
pub(crate) fn key_set(keys: &[&Arc<SigningKey>]) -> KeySet {
    KeySet {
        issuer: "urn:test".to_owned(),
        signing: keys.first().map(|key| Arc::clone(key)),
        accepted: keys.iter().map(|key| (key.public().clone(), None)).collect(),
    }
}

pub(crate) fn bearer(peer: &Peer) -> Bearer {
    Bearer {
        tenant: peer.tenant.clone(),
        crew: peer.crew.clone(),
        agent: peer.agent.clone(),
        incarnation: peer.incarnation,
        sandbox: peer.sandbox.clone(),
    }
}

pub(crate) fn crew() -> CrewId {
    CrewId::derive(&["crew"])
}

pub(crate) fn agent_id(member: &str, replica: u32) -> AgentId {
    AgentId::derive(&[member, &replica.to_string()])
}

pub(crate) fn peer(member: &str, replica: u32, incarnation: u64) -> Peer {
    let agent = agent_id(member, replica);
    Peer {
        tenant: Tenant::default(),
        crew: crew(),
        member: member.to_owned(),
        replica,
        sandbox: SandboxId::derive(&[agent.as_str(), &incarnation.to_string()]),
        agent,
        incarnation: Incarnation(incarnation),
        origin: Origin { event: "agent/of-the-test@1".into(), correlation: None },
    }
}

/// A channel that allows much.
pub(crate) fn channel(from: &str, to: &str, kind: Kind) -> Channel {
    Channel {
        from: from.into(),
        to: to.into(),
        kinds: vec![kind],
        max_depth: 8,
        fan_out: 100,
        rate_per_second: 100_000.0,
    }
}

/// A crew of these members, each with so many replicas.
pub(crate) fn policy(members: &[(&str, u32)], channels: Vec<Channel>) -> CrewPolicy {
    let member = |(name, replicas): &(&str, u32)| Member {
        name: (*name).into(),
        agents: (0..*replicas).map(|replica| (replica, agent_id(name, replica))).collect(),
    };
    let members = members.iter().map(member).collect();
    CrewPolicy { members, channels, ..CrewPolicy::default() }
}

pub(crate) fn assign(peer: &Peer) -> link::Assign {
    let agent = json!({
        "id": peer.agent, "crew": "crew", "member": peer.member, "replica": peer.replica,
        "incarnation": peer.incarnation,
    });
    let handler = json!({"protocol": "stdio", "command": ["handler"]});
    let assign = json!({"id": "as_1", "agent": agent, "handler": handler, "token": ""});
    serde_json::from_value(assign).unwrap()
}

/// A task of this depth as the platform sends it.
pub(crate) fn task(name: &str, depth: u32) -> link::TaskFrame {
    let params = json!({
        "taskId": name, "attempt": 1, "contextId": "cx_1", "input": "do it", "depth": depth,
        "from": {"kind": "principal", "name": "user:ada"},
    });
    let frame = json!({"id": format!("f_{name}"), "attempt": 1, "fence": 7, "params": params});
    serde_json::from_value(frame).unwrap()
}

/// A runner, as far as the gateway can tell.
pub(crate) struct Runner {
    pub(crate) socket: WebSocketStream<UnixStream>,
    pub(crate) path: PathBuf,
    pub(crate) token: Option<String>,
    pub(crate) peer: Option<Peer>,
    next: u64,
}

impl Runner {
    pub(crate) async fn connect(path: &Path, token: Option<&str>) -> Self {
        let stream = UnixStream::connect(path).await.unwrap();
        let mut request = "ws://sandbox/link/v1".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "hypercode.link.v1".parse().unwrap());
        if let Some(token) = token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        Self { socket, path: path.to_owned(), token: token.map(str::to_owned), peer: None, next: 1 }
    }

    pub(crate) fn sandbox(&self) -> &SandboxId {
        &self.peer.as_ref().unwrap().sandbox
    }

    /// Loses the link and makes a new one, with the token.
    pub(crate) async fn reconnect(self) -> Self {
        let Self { socket, path, token, peer, next } = self;
        drop(socket);
        let mut again = Self::connect(&path, token.as_deref()).await;
        (again.peer, again.next) = (peer, next);
        again.hello().await;
        again
    }

    /// Says hello and gives the welcome.
    pub(crate) async fn hello(&mut self) -> Value {
        self.send(json!({"t": "hello", "v": [1], "runner": "test"})).await;
        self.expect("welcome").await
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        // That the gateway has closed the link already is found out by reading.
        let _ = self.socket.send(Message::text(text)).await;
    }

    /// The next frame, or the code with which the gateway closed.
    pub(crate) async fn next(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("the gateway says nothing") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(text.as_str()).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The next frame, which has this `t`.
    pub(crate) async fn expect(&mut self, t: &str) -> Value {
        let frame = self.next().await.unwrap_or_else(|code| panic!("closed with {code:?}, wanted {t}"));
        assert_eq!(frame["t"], t, "{frame}");
        frame
    }

    /// The code with which the gateway closes, whatever it says before.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }

    pub(crate) async fn credit(&mut self, tasks: u32, messages: u32) {
        self.send(json!({"t": "credit", "tasks": tasks, "messages": messages})).await;
    }

    /// Sends a call and gives its id.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send(json!({"t": "call", "id": id, "method": method, "params": params})).await;
        id
    }

    /// Sends a call and waits for its answer, which is the next frame.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        let id = self.call(method, params).await;
        self.reply(id).await
    }

    /// The answer to a call, which is the next frame.
    pub(crate) async fn reply(&mut self, id: u64) -> Result<Value, Value> {
        let frame = self.expect("reply").await;
        assert_eq!(frame["re"], id, "{frame}");
        match frame.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(frame["result"].clone()),
        }
    }

    /// Proves that the link works and that nothing else was sent before.
    pub(crate) async fn quiet(&mut self) {
        assert_eq!(self.ask("tool/list", json!({})).await, Ok(json!({"tools": []})));
    }

    /// Takes a task into the hand.
    pub(crate) async fn take(&mut self, world: &World, task: link::TaskFrame) {
        self.credit(1, 0).await;
        world.gateway.send_task(self.sandbox(), task, None).await.unwrap();
        self.expect("task").await;
    }
}
