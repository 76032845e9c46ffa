//! The bus over NATS: one connection, made and made again in the background.

mod address;
mod convert;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, RawMessageErrorKind};
use async_nats::{Client, ConnectOptions, Event, Request, ServerInfo as Info};
use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bus::{
    Acknowledgement, Bus, BusError, Connection, StreamSpec, StreamState, Streams, Subscription,
};
use crate::message::Message;
use crate::subject::{Pattern, Subject};

pub use address::{Address, InvalidAddress};

/// How the platform shows the server who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all, or by user and password in the address.
    #[default]
    None,
    /// By the seed of an nkey, in this file.
    Nkey(PathBuf),
    /// By a JWT and its seed, in this credentials file.
    File(PathBuf),
}

/// How the connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whether a server that does not encrypt is refused. An address `tls://…` asks for it too.
    pub required: bool,
    /// The certificates in this file are trusted, and no others; without it, the system's.
    pub authorities: Option<PathBuf>,
    /// The platform's own certificate and its key, where the server wants them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How the server is reached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is.
    pub address: Address,
    /// The connection's name, for people who look at the server.
    pub name: String,
    /// Who the platform is.
    pub credentials: Credentials,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// How long an attempt to connect may take, in milliseconds.
    pub connect_ms: u64,
    /// How long is waited between attempts, in milliseconds.
    pub retry_ms: u64,
    /// How long an answer of the server itself may take, in milliseconds.
    pub answer_ms: u64,
    /// How often a silent connection is tried, in milliseconds; after two tries without an answer it is lost.
    pub ping_ms: u64,
    /// Messages that wait for one subscriber; further ones are dropped.
    pub queue_messages: usize,
    /// Appends that wait for their acknowledgement at once.
    pub appends_max: usize,
}

impl Options {
    /// The usual bounds, for this server.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            name: "hypercode".to_owned(),
            credentials: Credentials::None,
            tls: Tls::default(),
            connect_ms: 5_000,
            retry_ms: 500,
            answer_ms: 5_000,
            ping_ms: 5_000,
            queue_messages: 1_024,
            appends_max: 4_096,
        }
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Whether it keeps streams, for the platform's account.
    pub has_jetstream: bool,
    /// Largest message that it takes, in bytes.
    pub payload_bytes_max: usize,
}

/// A bus over NATS. Clones share the connection, which ends with the last of them.
#[derive(Clone)]
pub struct Nats {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    answer: Duration,
    _stop: DropGuard,
}

/// What the task that connects shares with those that use the connection.
struct Link {
    client: OnceLock<(Client, Context)>,
    connection: watch::Sender<Connection>,
}

impl Nats {
    /// Begins to connect, and goes on trying. What is asked meanwhile is refused with the reason of the last failure.
    pub fn connect(options: Options) -> Self {
        let down = Connection::Down { reason: "it is being connected to".into() };
        let link = Arc::new(Link { client: OnceLock::new(), connection: watch::Sender::new(down) });
        let (stop, answer) = (CancellationToken::new(), Duration::from_millis(options.answer_ms));
        let connecting = stop.clone().run_until_cancelled_owned(Arc::clone(&link).connect(options));
        tokio::spawn(connecting);
        Self { inner: Arc::new(Inner { link, answer, _stop: stop.drop_guard() }) }
    }

    /// What the server says of itself; `None` while it cannot be reached.
    pub fn server(&self) -> Option<Server> {
        let info = self.reach().ok()?.0.server_info();
        let Info { version, jetstream, max_payload, .. } = info;
        Some(Server { version, has_jetstream: jetstream, payload_bytes_max: max_payload })
    }

    fn reach(&self) -> Result<&(Client, Context), BusError> {
        match (&*self.inner.link.connection.borrow(), self.inner.link.client.get()) {
            (Connection::Up, Some(client)) => Ok(client),
            (Connection::Down { reason }, _) => Err(BusError::unavailable(Arc::clone(reason))),
            (Connection::Up, None) => Err(BusError::unavailable("it is being connected to")),
        }
    }
}

/// The server refuses larger messages by closing the connection, so they never get there.
fn check_size(client: &Client, message: &Message) -> Result<(), BusError> {
    // What the client adds: the version of the headers and those of the stream.
    const ADDED: usize = 512;
    let (bytes, most) = (message.size() + ADDED, client.max_payload());
    match bytes > most {
        true => Err(BusError::TooLarge { subject: message.subject.clone(), bytes, most }),
        false => Ok(()),
    }
}

impl Link {
    async fn connect(self: Arc<Self>, options: Options) {
        let retry = Duration::from_millis(options.retry_ms);
        loop {
            match self.attempt(&options).await {
                Ok(client) => {
                    let context = ContextBuilder::new()
                        .timeout(Duration::from_millis(options.answer_ms))
                        .max_ack_inflight(options.appends_max)
                        .build(client.clone());
                    // The first and only time: from now on the client itself connects again.
                    let _ = self.client.set((client, context));
                    self.connection.send_replace(Connection::Up);
                    return;
                }
                Err(reason) => {
                    self.set_down(&format!("connect to {}: {reason}", options.address));
                    tokio::time::sleep(retry).await;
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, options: &Options) -> Result<Client, String> {
        let link = Arc::downgrade(self);
        let heard = move |event| {
            let link = link.upgrade();
            async move { link.iter().for_each(|link| link.hear(&event)) }
        };
        let retry = Duration::from_millis(options.retry_ms);
        let mut connect = ConnectOptions::new()
            .name(&options.name)
            .connection_timeout(Duration::from_millis(options.connect_ms))
            .request_timeout(Some(Duration::from_millis(options.answer_ms)))
            .ping_interval(Duration::from_millis(options.ping_ms))
            .subscription_capacity(options.queue_messages)
            .reconnect_delay_callback(move |attempts| if attempts <= 1 { Duration::ZERO } else { retry })
            .event_callback(heard)
            .require_tls(options.tls.required);
        let read = async |path: &PathBuf| {
            tokio::fs::read_to_string(path)
                .await
                .map_err(|error| format!("read `{}`: {error}", path.display()))
        };
        if let Some((user, password)) = options.address.login() {
            connect = connect.user_and_password(user, password);
        }
        connect = match &options.credentials {
            Credentials::None => connect,
            Credentials::Nkey(path) => connect.nkey(read(path).await?.trim().to_owned()),
            Credentials::File(path) => connect
                .credentials(&read(path).await?)
                .map_err(|error| format!("use the credentials in `{}`: {error}", path.display()))?,
        };
        if let Some(path) = &options.tls.authorities {
            read(path).await?;
            connect = connect.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &options.tls.identity {
            connect = connect.add_client_certificate(certificate.clone(), key.clone());
        }
        connect.connect(options.address.servers()).await.map_err(|error| explain(&error))
    }

    fn hear(&self, event: &Event) {
        match event {
            // The first time there is no client yet to be used.
            Event::Connected if self.client.get().is_none() => {}
            Event::Connected => {
                self.connection.send_replace(Connection::Up);
            }
            Event::Disconnected => self.set_down("the connection was lost"),
            Event::ClientError(error) => self.set_down(&error.to_string()),
            Event::Closed => self.set_down("the connection is closed"),
            Event::ServerError(error) => tracing::warn!(%error, "the bus refuses"),
            Event::SlowConsumer(_) => {
                tracing::warn!("messages of the bus are lost: a subscriber is too slow")
            }
            Event::LameDuckMode | Event::Draining => tracing::info!(%event, "the bus is about to close"),
        }
    }

    fn set_down(&self, reason: &str) {
        self.connection.send_replace(Connection::Down { reason: reason.into() });
    }
}

/// Why a connection was not made, in words that say what to mend.
fn explain(error: &async_nats::ConnectError) -> String {
    let said = error.to_string();
    match said.contains("InvalidContentType") {
        true => "it does not speak TLS, which is asked for".to_owned(),
        false => said,
    }
}

#[async_trait]
impl Bus for Nats {
    async fn publish(&self, message: Message) -> Result<(), BusError> {
        let (client, _) = self.reach()?;
        check_size(client, &message)?;
        let (subject, headers) = (message.subject.to_string(), convert::headers(&message.headers)?);
        let sent = match message.reply {
            Some(reply) => {
                let reply = reply.to_string();
                client.publish_with_reply_and_headers(subject, reply, headers, message.body).await
            }
            None => client.publish_with_headers(subject, headers, message.body).await,
        };
        sent.map_err(|error| BusError::unavailable(error.to_string()))
    }

    async fn request(&self, message: Message, limit: Duration) -> Result<Message, BusError> {
        let (client, _) = self.reach()?;
        check_size(client, &message)?;
        let headers = convert::headers(&message.headers)?;
        let request = Request::new().headers(headers).payload(message.body).timeout(Some(limit));
        let answer = client.send_request(message.subject.to_string(), request).await;
        convert::message(answer.map_err(|error| convert::request_error(&error, message.subject, limit))?)
    }

    async fn subscribe(&self, pattern: Pattern, group: Option<&str>) -> Result<Subscription, BusError> {
        let (client, _) = self.reach()?;
        let subscribed = match group {
            Some(group) => client.queue_subscribe(pattern.to_string(), group.to_owned()).await,
            None => client.subscribe(pattern.to_string()).await,
        };
        let messages = subscribed.map_err(|error| BusError::unavailable(error.to_string()))?;
        // The subscription is there once the server has answered what came after it.
        client.flush().await.map_err(|error| BusError::unavailable(error.to_string()))?;
        // What has no legal subject can only be an answer of the server's, which nobody here waits for.
        let legal = messages.filter_map(|message| std::future::ready(convert::message(message).ok()));
        Ok(Subscription::new(legal.boxed()))
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.inner.link.connection.subscribe()
    }
}

#[async_trait]
impl Streams for Nats {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError> {
        let (_, context) = self.reach()?;
        let config = Config {
            name: spec.name.to_string(),
            subjects: vec![spec.subjects.to_string()],
            description: Some(spec.description.to_string()),
            num_replicas: spec.replicas,
            duplicate_window: Duration::from_millis(spec.duplicate_ms),
            // A number is an event's place in the log: none may be taken out of the middle.
            deny_delete: true,
            deny_purge: true,
            allow_direct: true,
            ..Config::default()
        };
        let opened = context.get_or_create_stream(config).await;
        let stream = opened.map_err(|error| convert::stream_error(&error))?;
        let last = stream.cached_info().state.last_sequence;
        let message = match stream.get_raw_message(last).await {
            _ if last == 0 => None,
            Ok(message) => Some(convert::kept(message.subject.as_str(), &message.headers, message.payload)?),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => None,
            Err(error) => return Err(BusError::unavailable(error.to_string())),
        };
        Ok(StreamState { last, message })
    }

    async fn append(
        &self,
        stream: &str,
        message: Message,
        id: &str,
        after: u64,
    ) -> Result<Acknowledgement, BusError> {
        let (client, context) = self.reach()?;
        check_size(client, &message)?;
        let publish = PublishMessage::build()
            .headers(convert::headers(&message.headers)?)
            .payload(message.body)
            .message_id(id)
            .expected_stream(stream)
            .expected_last_sequence(after);
        let sent = context.send_publish(message.subject.to_string(), publish).await;
        let (stream, subject, limit) = (Arc::<str>::from(stream), message.subject, self.inner.answer);
        match sent {
            Ok(ack) => Ok(Box::pin(async move {
                let kept =
                    ack.await.map_err(|error| convert::append_error(&error, &stream, subject, limit))?;
                Ok(kept.sequence)
            })),
            Err(error) => Err(convert::append_error(&error, &stream, subject, limit)),
        }
    }

    async fn read(&self, stream: &str, after: u64, limit: usize) -> Result<Vec<(u64, Message)>, BusError> {
        let (_, context) = self.reach()?;
        let opened = context.get_stream_no_info(stream).await;
        let opened = opened.map_err(|error| BusError::unavailable(error.to_string()))?;
        let (mut read, mut after) = (Vec::new(), after);
        while read.len() < limit {
            let next = opened.raw_message_builder().sequence(after.saturating_add(1)).next_by_subject(">");
            let message = match next.send().await {
                Ok(message) => message,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                Err(error) => return Err(BusError::unavailable(error.to_string())),
            };
            after = message.sequence;
            read.push((after, convert::kept(message.subject.as_str(), &message.headers, message.payload)?));
        }
        Ok(read)
    }

    async fn newest(&self, stream: &str, subject: &Subject) -> Result<Option<Message>, BusError> {
        let (_, context) = self.reach()?;
        let opened = context.get_stream_no_info(stream).await;
        let opened = opened.map_err(|error| BusError::unavailable(error.to_string()))?;
        match opened.get_last_raw_message_by_subject(subject.as_str()).await {
            Ok(message) => {
                convert::kept(message.subject.as_str(), &message.headers, message.payload).map(Some)
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(BusError::unavailable(error.to_string())),
        }
    }
}
