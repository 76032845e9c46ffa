//! A bus within one process: the reference that the others are held to, with knobs for faults.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::bus::{
    Acknowledgement, Bus, BusError, Connection, StreamSpec, StreamState, Streams, Subscription,
};
use crate::message::Message;
use crate::subject::{Pattern, Subject};

/// Messages that wait for one subscriber.
const QUEUE_MESSAGES: usize = 1_024;

/// A bus in memory. Clones are the same bus.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
    connection: watch::Sender<Connection>,
}

#[derive(Default)]
struct Inner {
    subscribers: Vec<Subscriber>,
    streams: HashMap<Arc<str>, Kept>,
    /// Answers that were asked for: for their subjects, and for turns within groups.
    counter: u64,
    /// Acknowledgements that will be lost, though what they are for is kept.
    acks_lost: u32,
    /// How long each acknowledgement takes from when it is asked for.
    ack_delay: Duration,
}

struct Subscriber {
    pattern: Pattern,
    group: Option<String>,
    queue: mpsc::Sender<Message>,
}

struct Kept {
    spec: StreamSpec,
    last: u64,
    messages: BTreeMap<u64, Message>,
    ids: HashMap<String, (u64, Instant)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty bus.
    pub fn new() -> Self {
        Self { inner: Arc::default(), connection: watch::Sender::new(Connection::Up) }
    }

    /// Cuts the bus off, or joins it again.
    pub fn set_down(&self, reason: Option<&str>) {
        self.connection.send_replace(match reason {
            Some(reason) => Connection::Down { reason: reason.into() },
            None => Connection::Up,
        });
    }

    /// Forgets a stream, as if nobody had ever made it.
    pub fn delete_stream(&self, name: &str) {
        self.lock().streams.remove(name);
    }

    /// Loses the next acknowledgements; what they are for is kept.
    pub fn lose_acks(&self, count: u32) {
        self.lock().acks_lost = count;
    }

    /// Lets each acknowledgement take so long from when it is waited for, in milliseconds.
    pub fn slow_acks(&self, ms: u64) {
        self.lock().ack_delay = Duration::from_millis(ms);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, BusError> {
        match &*self.connection.borrow() {
            Connection::Up => Ok(self.lock()),
            Connection::Down { reason } => Err(BusError::unavailable(Arc::clone(reason))),
        }
    }
}

impl Inner {
    /// Hands a message to all who listen; says how many do.
    fn send(&mut self, message: &Message) -> usize {
        self.subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        let hears: Vec<_> = self
            .subscribers
            .iter()
            .filter(|subscriber| subscriber.pattern.matches(&message.subject))
            .collect();
        let mut groups: BTreeMap<&str, Vec<&Subscriber>> = BTreeMap::new();
        for subscriber in &hears {
            match &subscriber.group {
                Some(group) => groups.entry(group).or_default().push(subscriber),
                // A queue that is full loses what does not fit (law B-5).
                None => drop(subscriber.queue.try_send(message.clone())),
            }
        }
        for members in groups.values() {
            let turn = usize::try_from(self.counter).unwrap_or_default() % members.len();
            drop(members[turn].queue.try_send(message.clone()));
        }
        self.counter += 1;
        hears.len()
    }

    fn subscribe(&mut self, pattern: Pattern, group: Option<&str>) -> mpsc::Receiver<Message> {
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
        self.subscribers.push(Subscriber { pattern, group: group.map(str::to_owned), queue });
        messages
    }
}

impl Kept {
    fn append(&mut self, message: Message, id: &str, after: u64) -> Result<u64, BusError> {
        let window = Duration::from_millis(self.spec.duplicate_ms);
        self.ids.retain(|_, (_, when)| when.elapsed() < window);
        if self.last != after {
            let reason = format!("expected {after}, found {}", self.last);
            return Err(BusError::Moved { stream: Arc::clone(&self.spec.name), reason: reason.into() });
        }
        if let Some((number, _)) = self.ids.get(id) {
            return Ok(*number);
        }
        self.last += 1;
        self.messages.insert(self.last, message);
        self.ids.insert(id.to_owned(), (self.last, Instant::now()));
        Ok(self.last)
    }
}

fn missing(stream: &str) -> BusError {
    BusError::Refused { reason: format!("there is no stream `{stream}`").into() }
}

#[async_trait]
impl Bus for Memory {
    async fn publish(&self, message: Message) -> Result<(), BusError> {
        self.reach()?.send(&message);
        Ok(())
    }

    async fn request(&self, mut message: Message, limit: Duration) -> Result<Message, BusError> {
        let mut answers = {
            let mut inner = self.reach()?;
            let inbox = Subject::of(["_INBOX", &inner.counter.to_string()]);
            let answers = inner.subscribe(inbox.clone().into(), None);
            message.reply = Some(inbox);
            if inner.send(&message) == 0 {
                return Err(BusError::Unheard { subject: message.subject });
            }
            answers
        };
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match tokio::time::timeout(limit, answers.recv()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(BusError::Timeout { subject: message.subject, ms }),
        }
    }

    async fn subscribe(&self, pattern: Pattern, group: Option<&str>) -> Result<Subscription, BusError> {
        let messages = self.reach()?.subscribe(pattern, group);
        let next = async |mut messages: mpsc::Receiver<Message>| Some((messages.recv().await?, messages));
        Ok(Subscription::new(Box::pin(stream::unfold(messages, next))))
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}

#[async_trait]
impl Streams for Memory {
    async fn open_stream(&self, spec: &StreamSpec) -> Result<StreamState, BusError> {
        let mut inner = self.reach()?;
        let kept = inner.streams.entry(Arc::clone(&spec.name)).or_insert_with(|| Kept {
            spec: spec.clone(),
            last: 0,
            messages: BTreeMap::new(),
            ids: HashMap::new(),
        });
        Ok(StreamState { last: kept.last, message: kept.messages.get(&kept.last).cloned() })
    }

    async fn append(
        &self,
        stream: &str,
        message: Message,
        id: &str,
        after: u64,
    ) -> Result<Acknowledgement, BusError> {
        let mut inner = self.reach()?;
        let subject = message.subject.clone();
        // Who listens hears it, whether the stream keeps it or not.
        inner.send(&message);
        let kept = inner.streams.get_mut(stream).ok_or_else(|| missing(stream))?;
        let mut outcome = kept.append(message, id, after);
        if outcome.is_ok() && inner.acks_lost > 0 {
            inner.acks_lost -= 1;
            outcome = Err(BusError::Timeout { subject, ms: 0 });
        }
        let delay = inner.ack_delay;
        Ok(Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            outcome
        }))
    }

    async fn read(&self, stream: &str, after: u64, limit: usize) -> Result<Vec<(u64, Message)>, BusError> {
        let inner = self.reach()?;
        let kept = inner.streams.get(stream).ok_or_else(|| missing(stream))?;
        let above = kept.messages.range(after.saturating_add(1)..).take(limit);
        Ok(above.map(|(number, message)| (*number, message.clone())).collect())
    }

    async fn newest(&self, stream: &str, subject: &Subject) -> Result<Option<Message>, BusError> {
        let inner = self.reach()?;
        let kept = inner.streams.get(stream).ok_or_else(|| missing(stream))?;
        Ok(kept.messages.values().rev().find(|message| message.subject == *subject).cloned())
    }
}
