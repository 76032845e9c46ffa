//! Messages: from a runner's socket through every check of the gateway to the append, which refuses; beside a socket that
//! echoes and a bus that answers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Client;
use events::{AgentId, CrewId, Incarnation, SandboxId, Tenant};
use futures_util::{SinkExt as _, StreamExt as _};
use gateway::{Channel, CrewPolicy, Gateway, Host, Kind, Member, Options, Origin, Peer, Seams};
use identity::{AgentKeys, KeySet, SigningKey};
use nats::server::Server;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::ends::{Log, Nobody};
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup};

/// Messages of one turn, one at a time, and with others.
const ALONE: u64 = 1_000;
const TOGETHER: u64 = 4_000;
/// Messages that wait for their answer, where many are sent.
const WINDOW: u64 = 32;
/// Before anything is measured, so many turns are taken.
const WARM_UP: usize = 1;
/// At most so many times the bare way.
const GOAL: f64 = 2.0;
/// A rate that bounds nothing here.
const UNBOUNDED: u32 = 1_000_000_000;
/// The subject of the bus.
const SUBJECT: &str = "bench.hop";

/// When what was sent arrived.
type Arrivals = UnboundedReceiver<Instant>;
type Arrived = UnboundedSender<Instant>;

/// What is between a sender and the place where a message arrives.
enum Way {
    Socket(Box<WebSocketStream<UnixStream>>),
    Bus(Client),
}

/// One way of a message, and how long it took.
struct Hop {
    what: &'static str,
    way: Way,
    arrivals: Arrivals,
    there: Samples,
    together: Duration,
    count: u64,
    next: u64,
}

impl Hop {
    fn new(what: &'static str, way: Way, arrivals: Arrivals) -> Self {
        Self { what, way, arrivals, there: Samples::default(), together: Duration::ZERO, count: 0, next: 1 }
    }

    /// The same frame on every way.
    fn frame(&mut self) -> String {
        let id = self.next;
        self.next += 1;
        json!({
            "t": "call", "id": id, "method": "message/send",
            "params": {"to": "receiver[0]", "text": "x".repeat(100)},
        })
        .to_string()
    }

    async fn turn(&mut self) -> Result<()> {
        for _ in 0..ALONE {
            let frame = self.frame();
            let start = Instant::now();
            match &mut self.way {
                Way::Socket(socket) => {
                    socket.send(Message::text(frame)).await?;
                    answer(socket).await?;
                }
                Way::Bus(client) => drop(client.request(SUBJECT, frame.into()).await?),
            }
            let arrived = self.arrivals.recv().await.ok_or("nothing arrives any more")?;
            self.there.push(arrived - start);
        }
        let start = Instant::now();
        self.many().await?;
        self.together += start.elapsed();
        self.count += TOGETHER;
        for _ in 0..TOGETHER {
            self.arrivals.recv().await.ok_or("nothing arrives any more")?;
        }
        Ok(())
    }

    async fn many(&mut self) -> Result<()> {
        let frames: Vec<String> = (0..TOGETHER).map(|_| self.frame()).collect();
        match &mut self.way {
            Way::Socket(socket) => {
                for (frame, sent) in frames.into_iter().zip(0..) {
                    if sent >= WINDOW {
                        answer(socket).await?;
                    }
                    socket.send(Message::text(frame)).await?;
                }
                for _ in 0..WINDOW {
                    answer(socket).await?;
                }
            }
            Way::Bus(client) => {
                let requests = frames.into_iter().map(|frame| client.request(SUBJECT, frame.into()));
                let mut answers = futures_util::stream::iter(requests).buffer_unordered(WINDOW as usize);
                while let Some(answer) = answers.next().await {
                    answer?;
                }
            }
        }
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.count as f64 / self.together.as_secs_f64()
    }

    fn forget(&mut self) {
        (self.there, self.together, self.count) = (Samples::default(), Duration::ZERO, 0);
    }
}

pub(super) async fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (echo, echoing) = echo(&directory.path().join("echo.sock")).await?;
    let server = Server::start();
    let (bus, answering) = bus(&server).await?;
    let host: Arc<dyn Host> = Arc::new(Nobody);
    let (gateway, ours) = ours(directory.path(), &host).await?;
    let mut hops = [echo, bus, ours];
    for _ in 0..WARM_UP {
        for hop in &mut hops {
            hop.turn().await?;
            hop.forget();
        }
    }
    let until = Instant::now() + Duration::from_secs(setup.seconds);
    while hops[0].count == 0 || Instant::now() < until {
        for hop in &mut hops {
            hop.turn().await?;
        }
    }
    show(table, &hops);
    drop(hops);
    gateway.shutdown().await;
    echoing.abort();
    answering.abort();
    Ok(())
}

fn show(table: &mut Table, [echo, bus, ours]: &[Hop; 3]) {
    let p50 = |hop: &Hop| hop.there.p50().as_secs_f64();
    for hop in [echo, bus] {
        table.row(Row::new(hop.what).samples(&hop.there).rate(hop.rate()));
    }
    for (bare, name) in [(echo, "bare WebSocket"), (bus, "NATS")] {
        let ratio = p50(ours) / p50(bare);
        let row = Row::new(ours.what).samples(&ours.there).rate(ours.rate()).ratio(ratio);
        table.row(row.goal(format!("<= {GOAL} of {name}"), ratio <= GOAL));
    }
    table.note(format!(
        "messages: p50 and p99 from before the send until the other end has it, one at a time; the rate until it is answered, {WINDOW} in flight; ratios of p50"
    ));
    table.note("ours: the frame decoded, whose link it is, task and artifacts named, channel, depth, rate, size, budget, fan-out and places, the event made; the log then refuses at once, and the sender is told; the same frame on all ways, Unix sockets, NATS over loopback");
}

/// Reads the next answer.
async fn answer(socket: &mut WebSocketStream<UnixStream>) -> Result<String> {
    loop {
        match socket.next().await.ok_or("the other end hung up")?? {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Close(frame) => return Err(format!("the other end closed: {frame:?}").into()),
            _ => {}
        }
    }
}

/// A socket that gives back what comes.
async fn echo(path: &Path) -> Result<(Hop, JoinHandle<()>)> {
    let (arrived, arrivals) = unbounded_channel();
    let listener = UnixListener::bind(path)?;
    let (connected, accepted) = tokio::join!(UnixStream::connect(path), listener.accept());
    let (connected, (accepted, _)) = (connected?, accepted?);
    let client = tokio_tungstenite::client_async("ws://sandbox/link/v1", connected);
    let (client, served) = tokio::join!(client, tokio_tungstenite::accept_async(accepted));
    let ((client, _), mut served) = (client?, served?);
    let echoing = tokio::spawn(async move {
        while let Some(Ok(message)) = served.next().await {
            if arrived.send(Instant::now()).is_err() || served.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok((Hop::new("bare WebSocket", Way::Socket(Box::new(client)), arrivals), echoing))
}

/// A bus with somebody who answers.
async fn bus(server: &Server) -> Result<(Hop, JoinHandle<()>)> {
    let (arrived, arrivals) = unbounded_channel();
    let (asking, answering) =
        (async_nats::connect(server.url()).await?, async_nats::connect(server.url()).await?);
    let mut requests = answering.subscribe(SUBJECT).await?;
    answering.flush().await?;
    let answering = tokio::spawn(async move {
        while let Some(message) = requests.next().await {
            let Some(reply) = message.reply else { continue };
            if arrived.send(Instant::now()).is_err()
                || answering.publish(reply, message.payload).await.is_err()
            {
                return;
            }
        }
    });
    Ok((Hop::new("bare NATS request", Way::Bus(asking), arrivals), answering))
}

/// A gateway with a crew of two, and the link of the one that sends.
async fn ours(directory: &Path, host: &Arc<dyn Host>) -> Result<(Gateway, Hop)> {
    let (arrived, arrivals): (Arrived, Arrivals) = unbounded_channel();
    let mut options = Options::new(directory.join("run"));
    (options.limits.sends_per_second_max, options.limits.sends_burst) = (UNBOUNDED, UNBOUNDED);
    let (keys, signing) = (AgentKeys::default(), SigningKey::generate());
    let accepted = vec![(signing.public().clone(), None)];
    keys.set(KeySet { issuer: "urn:bench".to_owned(), signing: Some(signing.into()), accepted });
    let seams = Seams {
        store: Arc::new(Log::new(arrived)),
        artifacts: Arc::new(events::artifact::Memory::default()),
        keys: Arc::new(keys),
        host: Arc::downgrade(host),
    };
    let gateway = Gateway::new(options, seams);
    let (sender, receiver) = (AgentId::derive(&["sender"]), AgentId::derive(&["receiver"]));
    let crew = CrewId::derive(&["crew"]);
    gateway.set_crew(&crew, policy(&sender, &receiver));
    gateway.set_ready(&receiver, true);
    let peer = Peer {
        tenant: Tenant::default(),
        crew,
        member: "sender".to_owned(),
        replica: 0,
        sandbox: SandboxId::derive(&["sandbox"]),
        agent: sender,
        incarnation: Incarnation(1),
        origin: Origin { event: "agent/of-the-bench@1".into(), correlation: None },
    };
    let path = gateway.open(&peer.sandbox).await?;
    gateway.bind_peer(&peer.sandbox, peer.clone())?;
    let mut socket = link(&path).await?;
    gateway.assign(&peer.sandbox, assign(&peer)?).await?;
    let assigned: Value = serde_json::from_str(&answer(&mut socket).await?)?;
    let ready = json!({"t": "ready", "re": assigned["id"]}).to_string();
    socket.send(Message::text(ready)).await?;
    Ok((
        gateway,
        Hop::new("hypercode, every check before the append", Way::Socket(Box::new(socket)), arrivals),
    ))
}

fn policy(sender: &AgentId, receiver: &AgentId) -> CrewPolicy {
    let member = |name: &str, agent: &AgentId| Member { name: name.into(), agents: vec![(0, agent.clone())] };
    let channel = Channel {
        from: "sender".into(),
        to: "receiver".into(),
        kinds: vec![Kind::Message],
        max_depth: 8,
        fan_out: 8,
        rate_per_second: f64::from(UNBOUNDED),
    };
    CrewPolicy {
        members: vec![member("sender", sender), member("receiver", receiver)],
        channels: vec![channel],
        messages_max: Some(u64::MAX),
        ..CrewPolicy::default()
    }
}

/// The link of a runner, up to its welcome.
async fn link(path: &Path) -> Result<WebSocketStream<UnixStream>> {
    let mut request = "ws://sandbox/link/v1".into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "hypercode.link.v1".parse()?);
    let (mut socket, _) = tokio_tungstenite::client_async(request, UnixStream::connect(path).await?).await?;
    let hello = json!({"t": "hello", "v": [1], "runner": "bench"}).to_string();
    socket.send(Message::text(hello)).await?;
    answer(&mut socket).await?;
    Ok(socket)
}

fn assign(peer: &Peer) -> Result<link::Assign> {
    let agent = json!({
        "id": peer.agent, "crew": "crew", "member": peer.member, "replica": peer.replica,
        "incarnation": peer.incarnation,
    });
    let handler = json!({"protocol": "stdio", "command": ["handler"]});
    Ok(serde_json::from_value(json!({"id": "as_1", "agent": agent, "handler": handler, "token": ""}))?)
}
