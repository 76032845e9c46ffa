//! The bus seam: what every implementation promises.
//!
//! Laws: B-1 what one sender sends to one stream keeps its order. B-2 what was acknowledged is in the stream. B-3 a
//! message whose id the stream has had lately is not stored again. B-4 a reader that stops and resumes misses and
//! repeats nothing. B-5 a slow subscriber holds up nobody: what is beyond its queue is dropped, for it alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::message::Message;
use crate::subject::{Pattern, Subject};

/// Why the bus did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The server cannot be reached, or does not do what is asked.
    #[error("reach the bus: {reason}")]
    Unavailable {
        /// What is wrong.
        reason: Arc<str>,
    },
    /// Nobody hears the subject.
    #[error("send to `{subject}`: nobody listens there")]
    Unheard {
        /// The subject.
        subject: Subject,
    },
    /// No answer came in time. What was sent may have arrived.
    #[error("send to `{subject}`: no answer within {ms} ms")]
    Timeout {
        /// The subject.
        subject: Subject,
        /// How long was waited, in milliseconds.
        ms: u64,
    },
    /// The message is larger than the server takes.
    #[error("send to `{subject}`: the message has {bytes} bytes, the server takes {most}")]
    TooLarge {
        /// The subject.
        subject: Subject,
        /// The message's size.
        bytes: usize,
        /// What the server takes.
        most: usize,
    },
    /// The stream's last message is another one than the sender believed.
    #[error("append to the stream `{stream}`: its last message is another one: {reason}")]
    Moved {
        /// The stream.
        stream: Arc<str>,
        /// What the server said.
        reason: Arc<str>,
    },
    /// The server refuses it, and would again.
    #[error("use the bus: {reason}")]
    Refused {
        /// What the server said.
        reason: Arc<str>,
    },
}

impl BusError {
    /// A bus that cannot be reached, for this reason.
    pub fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

/// Whether the server is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is.
    Up,
    /// It is not; it is tried again and again.
    Down {
        /// Why.
        reason: Arc<str>,
    },
}

/// Sends to all who listen now: at most once, and kept for nobody.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Sends a message. That it was sent does not mean that anybody heard it.
    async fn publish(&self, message: Message) -> Result<(), BusError>;
    /// Sends a message and waits for one answer.
    async fn request(&self, message: Message, limit: Duration) -> Result<Message, BusError>;
    /// Hears what is sent from now on. Of all subscriptions in one `group` each message reaches one.
    async fn subscribe(&self, pattern: Pattern, group: Option<&str>) -> Result<Subscription, BusError>;
    /// Whether the server is there, and every change of it.
    fn connection(&self) -> watch::Receiver<Connection>;
}

/// Messages as they come, through a bounded queue.
pub struct Subscription(BoxStream<'static, Message>);

impl Subscription {
    pub(crate) fn new(messages: BoxStream<'static, Message>) -> Self {
        Self(messages)
    }

    /// The next message; `None` when the bus has closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Message> {
        self.0.next().await
    }
}

/// A stream that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: Arc<str>,
    /// What it keeps.
    pub subjects: Pattern,
    /// What it is for, for people who find it on the server.
    pub description: Arc<str>,
    /// How many servers of a cluster keep it.
    pub replicas: usize,
    /// For how long an id is not taken twice, in milliseconds.
    pub duplicate_ms: u64,
}

/// Where a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// The number of the last message that it ever had; 0 if it never had one.
    pub last: u64,
    /// That message, where it is still kept.
    pub message: Option<Message>,
}

/// The number that a message was given in its stream, when the server says so.
pub type Acknowledgement = BoxFuture<'static, Result<u64, BusError>>;

/// Streams that keep messages, numbered 1, 2, 3 ….
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// Where the stream stands; it is made if it is not there.
    async fn open_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError>;
    /// Sends a message that is to follow the one with number `after`, and no other. The answer is that it was sent,
    /// in the order of the calls; the acknowledgement says later that it is kept, or that the stream has
    /// [`BusError::Moved`]. With one that fails, all that were sent behind it fail.
    async fn append(
        &self,
        stream: &str,
        message: Message,
        id: &str,
        after: u64,
    ) -> Result<Acknowledgement, BusError>;
    /// Up to `limit` messages with numbers above `after`, in order; none if there are no more.
    async fn read(&self, stream: &str, after: u64, limit: usize) -> Result<Vec<(u64, Message)>, BusError>;
    /// The newest message at this subject that the stream keeps.
    async fn newest(&self, stream: &str, subject: &Subject) -> Result<Option<Message>, BusError>;
}
