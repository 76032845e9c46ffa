//! The relay: publishes the log to a stream, every event once and in order.
//!
//! ```text
//!   log       1  2  3  4  5  6            head = 6
//!   stream    1  2  3  4                  last = 4: the relay goes on with 5
//! ```
//!
//! A message's number in the stream is its event's position in the log, and the stream takes a message only behind
//! the one that comes before it. So the stream's end is the relay's cursor, wherever and whenever a relay starts; a
//! lost acknowledgement, a second relay or a stream that was lost can neither repeat nor reorder anything.
//!
//! Each node of a platform runs a relay, and one of them publishes. Who finds that another one was faster stands by:
//! it watches the stream grow, and publishes itself when it no longer does although there is more in the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use events::store::ReadError;
use events::subscription::{self, Subscription};
use events::{EventStore, Position};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bus::{Acknowledgement, Bus, BusError, Connection, StreamSpec, Streams};
use crate::{cloud_event, subject};

/// The stream's name.
pub const STREAM: &str = "HYPERCODE_EVENTS";

/// Every bound of the relay.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many servers of a cluster keep the stream.
    pub replicas: usize,
    /// Events that are read at once.
    pub batch_events_max: usize,
    /// Events that wait for their acknowledgement at once.
    pub in_flight_max: usize,
    /// How long is waited after a failure, and how often a relay that stands by looks at the stream, in milliseconds.
    pub retry_ms: u64,
    /// How often the stream is looked at, in milliseconds: one that was lost is noticed so, even if nothing happens.
    pub look_ms: u64,
    /// How often the log is looked at when no hint comes, in milliseconds.
    pub poll_ms: u64,
    /// How long an event may be in the log before the stream that lacks it is called behind, in milliseconds.
    pub behind_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 1,
            batch_events_max: 500,
            in_flight_max: 1_024,
            retry_ms: 500,
            look_ms: 5_000,
            poll_ms: 250,
            behind_ms: 3_000,
        }
    }
}

/// How the relay stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Every event up to this position is in the stream.
    pub position: Position,
    /// What it does.
    pub state: State,
}

/// What the relay does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not reached the stream yet.
    Starting,
    /// It publishes what there is, or sees another relay of the same log do so.
    Following,
    /// It gets on, but the stream has lacked something for longer than [`Options::behind_ms`].
    Behind {
        /// How many events of the log are not in the stream yet.
        events: u64,
    },
    /// It does not get on, and tries again.
    Interrupted {
        /// Why.
        reason: Arc<str>,
    },
    /// It will not get on until somebody does something, and looks from time to time.
    Refused {
        /// Why, and what to do.
        reason: Arc<str>,
    },
}

/// What ends a session of the relay with the stream.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(
        "publish to the stream `{STREAM}`: it ends at {found}, though it had {expected}; it is filled again"
    )]
    Lost { expected: u64, found: u64 },
    #[error(
        "publish to the stream `{STREAM}`: {0}; use another server or account, or delete the stream to have it filled from this log"
    )]
    OtherLog(String),
}

/// Publishes a log to a stream.
pub struct Relay<B> {
    store: Arc<dyn EventStore>,
    bus: B,
    options: Options,
    status: watch::Sender<Status>,
}

impl<B: Bus + Streams> Relay<B> {
    /// A relay from this log to the stream of this bus.
    pub fn new(store: Arc<dyn EventStore>, bus: B, options: Options) -> Self {
        let status = Status { position: Position(0), state: State::Starting };
        Self { store, bus, options, status: watch::Sender::new(status) }
    }

    /// How it stands, and every change of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Publishes until `stop`. Whatever goes wrong, it tries again.
    pub async fn run(self, stop: CancellationToken) {
        let running = async {
            loop {
                let fault = match self.round().await {
                    Ok(()) => continue,
                    Err(fault) => fault,
                };
                self.tell(&fault);
                self.rest(&fault).await;
            }
        };
        let relaying = async { tokio::join!(running, self.measure()) };
        stop.run_until_cancelled(relaying).await;
    }

    /// Publishes until another relay is faster, and then stands by for as long as that one gets on.
    async fn round(&self) -> Result<(), Fault> {
        let cursor = self.reconcile().await?;
        let Err(fault) = self.session(cursor).await;
        let has_got_on = self.status.borrow().position > cursor;
        match fault {
            // The stream was only elsewhere than it was believed to be: there is nothing to wait for.
            Fault::Bus(BusError::Moved { .. }) if has_got_on => Ok(()),
            Fault::Bus(BusError::Moved { .. }) => self.stand_by().await,
            fault => Err(fault),
        }
    }

    /// Watches the stream, until for a whole look it has not grown though the log had more.
    async fn stand_by(&self) -> Result<(), Fault> {
        tracing::debug!("another relay publishes the log; this one stands by");
        let mut before = None;
        loop {
            let last = self.reconcile().await?;
            self.stand_at(last);
            let head = self.store.head().await?.position;
            if before.is_some_and(|(seen, due)| seen == last && due > last) {
                return Ok(());
            }
            before = Some((last, head));
            tokio::time::sleep(Duration::from_millis(self.options.retry_ms)).await;
        }
    }

    /// Publishes from where the stream ends, until something goes wrong.
    async fn session(&self, cursor: Position) -> Result<Infallible, Fault> {
        tracing::debug!(position = %cursor, "the relay follows the log");
        self.stand_at(cursor);
        let (sent, acks) = mpsc::channel(self.options.in_flight_max);
        tokio::select! {
            ended = self.send(cursor, sent) => ended,
            ended = self.settle(cursor, acks) => ended,
            ended = self.look() => ended,
        }
    }

    /// Where the stream ends, if it is a stream of this log.
    async fn reconcile(&self) -> Result<Position, Fault> {
        let stream = self.bus.open_stream(&self.stream()).await?;
        let head = self.store.head().await?;
        if stream.last > head.position.0 {
            let found = format!("it has {} messages, and the log only {} events", stream.last, head.position);
            return Err(Fault::OtherLog(found));
        }
        let Some(message) = stream.message else { return Ok(Position(stream.last)) };
        let own = self.store.read(Position(stream.last.saturating_sub(1)), 1).await?;
        let hash = own.first().map(|event| event.hash.to_string());
        match hash.as_deref() == message.headers.get(cloud_event::HASH) {
            true => Ok(Position(stream.last)),
            false => {
                let found =
                    format!("its message {} is not the event at that position of this log", stream.last);
                Err(Fault::OtherLog(found))
            }
        }
    }

    fn stream(&self) -> StreamSpec {
        StreamSpec {
            name: STREAM.into(),
            subjects: subject::EVENTS.parse().expect("the pattern is legal"),
            description: "the log of HyperCode; a message's number is its event's position".into(),
            replicas: self.options.replicas,
            duplicate_ms: 120_000,
        }
    }

    /// Sends every event after `cursor`, without waiting for what became of the one before.
    async fn send(&self, cursor: Position, acks: mpsc::Sender<Acknowledgement>) -> Result<Infallible, Fault> {
        let Options { batch_events_max, poll_ms, .. } = self.options;
        let options = subscription::Options { batch_events_max, poll_ms };
        let mut log = Subscription::after(Arc::clone(&self.store), cursor, options);
        loop {
            for event in log.next().await? {
                let (message, id) = (cloud_event::encode(&event), event.event_id.to_string());
                let ack = self.bus.append(STREAM, message, &id, event.position.0 - 1).await?;
                // The other end goes only when the session does.
                let _ = acks.send(ack).await;
            }
        }
    }

    /// Takes the acknowledgements in order.
    async fn settle(
        &self,
        cursor: Position,
        mut acks: mpsc::Receiver<Acknowledgement>,
    ) -> Result<Infallible, Fault> {
        let mut expected = cursor.0;
        while let Some(ack) = acks.recv().await {
            let found = ack.await?;
            expected += 1;
            if found != expected {
                return Err(Fault::Lost { expected, found });
            }
            self.status.send_modify(|status| status.position = Position(expected));
        }
        std::future::pending().await
    }

    /// Looks at the connection and, from time to time, at the stream.
    async fn look(&self) -> Result<Infallible, Fault> {
        let mut connection = self.bus.connection();
        let look = Duration::from_millis(self.options.look_ms);
        loop {
            let down = connection.wait_for(|now| matches!(now, Connection::Down { .. }));
            if let Ok(Ok(now)) = tokio::time::timeout(look, down).await
                && let Connection::Down { reason } = &*now
            {
                return Err(BusError::unavailable(Arc::clone(reason)).into());
            }
            let expected = self.status.borrow().position.0;
            let found = self.bus.open_stream(&self.stream()).await?.last;
            if found < expected {
                return Err(Fault::Lost { expected, found });
            }
        }
    }

    /// Says now and then how far the stream is behind: it is when it lacks what the log had a look ago.
    async fn measure(&self) -> Infallible {
        let mut due = Position(0);
        loop {
            tokio::time::sleep(Duration::from_millis(self.options.behind_ms)).await;
            // A log that cannot be read is told by who reads it to get on.
            let Ok(head) = self.store.head().await else { continue };
            self.status.send_if_modified(|status| {
                let is_behind = status.position < due;
                let events = head.position.0.saturating_sub(status.position.0);
                let state = match status.state {
                    State::Following | State::Behind { .. } if is_behind => State::Behind { events },
                    State::Behind { .. } => State::Following,
                    _ => return false,
                };
                if status.state == State::Following {
                    tracing::warn!(events, "the relay is behind the log, and catches up");
                }
                let is_new = status.state != state;
                status.state = state;
                is_new
            });
            due = head.position;
        }
    }

    /// Notes where the stream ends, and that it can be written.
    fn stand_at(&self, position: Position) {
        self.status.send_modify(|status| {
            if position < status.position {
                tracing::warn!(had = %status.position, ends = %position, "the stream lost its end and is filled again");
            }
            status.position = position;
            if !matches!(status.state, State::Behind { .. }) {
                status.state = State::Following;
            }
        });
    }

    /// Says what went wrong, once.
    fn tell(&self, fault: &Fault) {
        let reason: Arc<str> = fault.to_string().into();
        let state = match fault {
            Fault::OtherLog(_) => State::Refused { reason },
            _ => State::Interrupted { reason },
        };
        self.status.send_if_modified(|status| {
            let is_new = status.state != state;
            if is_new {
                tracing::warn!(error = %fault, "the relay does not get on");
                status.state = state;
            }
            is_new
        });
    }

    /// Waits until it is worth trying again.
    async fn rest(&self, fault: &Fault) {
        let ms = match fault {
            Fault::OtherLog(_) => self.options.look_ms,
            Fault::Lost { .. } => 0,
            _ => self.options.retry_ms,
        };
        tokio::time::sleep(Duration::from_millis(ms)).await;
        // Ends only with the bus itself, and then nothing is left to be done.
        let _ = self.bus.connection().wait_for(|now| *now == Connection::Up).await;
    }
}
