//! The reference store: everything in memory, deterministic, with faults on demand.

mod leases;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use self::leases::Book;
use super::judge::{Batch, Known};
use super::{AppendError, AppendRequest, Appended, EventStore, Head, ReadError, Reservation, request};
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};

/// What is to go wrong with an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written; the answer is [`AppendError::Unavailable`], as on a full disk.
    NotAppended,
    /// The events are written, but the answer is [`AppendError::Unknown`].
    LostAck,
    /// Nothing is written; the answer is [`AppendError::Full`].
    Full,
    /// The events are written at once, and the answer comes late.
    SlowAck(Duration),
}

#[derive(Debug, Default)]
struct Plan {
    appends: VecDeque<Option<Fault>>,
    down: bool,
    failing_reads: usize,
}

/// The knobs of a [`Memory`] store's faults. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// The next append that has no fault planned meets this one.
    pub fn next_append(&self, fault: Fault) {
        self.plan().appends.push_back(Some(fault));
    }
    /// The next append that has no fault planned goes well.
    pub fn spare_append(&self) {
        self.plan().appends.push_back(None);
    }
    /// While down, every append and every read is refused.
    pub fn set_down(&self, down: bool) {
        self.plan().down = down;
    }
    /// The next `count` reads fail.
    pub fn fail_reads(&self, count: usize) {
        self.plan().failing_reads = count;
    }
    /// Forgets every fault.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn of_append(&self) -> Option<Fault> {
        let mut plan = self.plan();
        if plan.down { Some(Fault::NotAppended) } else { plan.appends.pop_front().flatten() }
    }
    fn of_read(&self) -> Result<(), ReadError> {
        let mut plan = self.plan();
        if plan.down || plan.failing_reads > 0 {
            plan.failing_reads = plan.failing_reads.saturating_sub(1);
            return Err(ReadError::Unavailable { reason: "a fault was asked for".into() });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Log {
    events: Vec<Recorded>,
    /// Of each stream, where its events stand in `events`.
    streams: HashMap<StreamId, Vec<usize>>,
    known: Known,
    leases: Book,
}

/// An event store in memory. Clones are handles to the same log.
#[derive(Clone, Debug)]
pub struct Memory {
    log: Arc<Mutex<Log>>,
    head: watch::Sender<Position>,
    faults: Faults,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty log.
    pub fn new() -> Self {
        let log =
            Log { events: Vec::new(), streams: HashMap::new(), known: Known::empty(), leases: Book::new() };
        Self {
            log: Arc::new(Mutex::new(log)),
            head: watch::Sender::new(Position::default()),
            faults: Faults::default(),
        }
    }

    /// The events after a position, whatever goes wrong with reads: for who looks on from outside.
    pub fn events_after(&self, position: Position) -> Vec<Recorded> {
        let after = usize::try_from(position.0).unwrap_or(usize::MAX);
        self.log().events.iter().skip(after).cloned().collect()
    }

    /// The knobs for what is to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, request: &AppendRequest) -> Result<Appended, AppendError> {
        let mut log = self.log();
        let mut batch = Batch::new(&log.known);
        let appended = batch.admit(request)?;
        let mut changes = batch.into_changes();
        for event in std::mem::take(&mut changes.events) {
            let place = log.events.len();
            log.streams.entry(event.stream.clone()).or_default().push(place);
            log.events.push(event);
        }
        log.known.absorb(changes);
        self.head.send_replace(log.known.head.position);
        Ok(appended)
    }
}

#[async_trait]
impl EventStore for Memory {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        request::check(&request)?;
        match self.faults.of_append() {
            None => self.write(&request),
            Some(Fault::NotAppended) => {
                Err(AppendError::Unavailable { reason: "a fault was asked for".into() })
            }
            Some(Fault::Full) => Err(AppendError::Full),
            Some(Fault::LostAck) => {
                self.write(&request)?;
                Err(AppendError::Unknown { reason: "a lost answer was asked for".into() })
            }
            Some(Fault::SlowAck(delay)) => {
                let appended = self.write(&request);
                tokio::time::sleep(delay).await;
                appended
            }
        }
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.faults.of_read()?;
        Ok(self.log().known.commands.get(&id).map(|command| command.first_outcome()))
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.faults.of_read()?;
        let after = usize::try_from(after.0).unwrap_or(usize::MAX);
        Ok(self.log().events.iter().skip(after).take(limit).cloned().collect())
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.faults.of_read()?;
        let log = self.log();
        let places = log.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let after = usize::try_from(after.0).unwrap_or(usize::MAX);
        Ok(places.iter().skip(after).take(limit).map(|&place| log.events[place].clone()).collect())
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.faults.of_read()?;
        Ok(self.log().known.names.get(name).cloned())
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.faults.of_read()?;
        Ok(self.log().known.head)
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expected;
    use crate::store::conformance::{Fixture, log, request, stream};

    #[async_trait]
    impl Fixture for Memory {
        fn store(&self) -> Arc<dyn EventStore> {
            Arc::new(self.clone())
        }
        async fn restart(&mut self) {}
    }

    impl crate::lease::conformance::Fixture for Memory {
        fn leases(&self) -> Arc<dyn crate::lease::Leases> {
            Arc::new(self.clone())
        }
    }

    crate::event_store_conformance!(async { Memory::new() });

    mod leases {
        crate::lease_conformance!(async { super::Memory::new() });
    }

    #[tokio::test(start_paused = true)]
    async fn faults_come_in_their_order_and_say_the_truth() {
        let memory = Memory::new();
        let append = || memory.append(request(&stream("s"), Expected::Any, &["1"]));
        for fault in [Fault::NotAppended, Fault::Full, Fault::LostAck] {
            memory.faults().next_append(fault);
        }
        memory.faults().spare_append();
        memory.faults().next_append(Fault::SlowAck(Duration::from_secs(3_600)));
        assert!(matches!(append().await, Err(AppendError::Unavailable { .. })));
        assert_eq!(append().await, Err(AppendError::Full));
        assert_eq!(log(&memory).await, []);
        assert!(matches!(append().await, Err(AppendError::Unknown { .. })));
        assert_eq!(log(&memory).await.len(), 1);
        assert_eq!(append().await.expect("it is spared").version, Version(2));
        let before = tokio::time::Instant::now();
        assert_eq!(append().await.expect("it is late").version, Version(3));
        assert_eq!(before.elapsed(), Duration::from_secs(3_600));
    }

    #[tokio::test]
    async fn a_store_that_is_down_refuses_until_it_is_up() {
        let memory = Memory::new();
        let append = || memory.append(request(&stream("s"), Expected::Any, &["1"]));
        memory.faults().set_down(true);
        assert!(append().await.is_err());
        assert!(memory.head().await.is_err());
        assert!(crate::lease::Leases::table(&memory).await.is_err());
        memory.faults().clear();
        append().await.expect("it is up");
        memory.faults().fail_reads(1);
        assert!(memory.read(Position(0), 1).await.is_err());
        assert_eq!(memory.read(Position(0), 9).await.expect("one read fails").len(), 1);
    }
}
