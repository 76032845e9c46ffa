//! Checkpoints in a JetStream stream of their own, where consumers of the events find them.

use async_trait::async_trait;
use events::audit::{Note, Sink, SinkError};
use nats::{Bus, BusError, Message, StreamSpec, Streams, Subject};

/// The stream's name.
const STREAM: &str = "HYPERCODE_CHECKPOINTS";
/// The subjects of all checkpoints; each log's are at `hypercode.checkpoint.<origin>`.
const SUBJECTS: &str = "hypercode.checkpoint.>";

/// For how long the stream knows a checkpoint again, in milliseconds.
const DUPLICATE_MS: u64 = 120_000;
/// How often a checkpoint is sent again because another node's came before it.
const RACES_MAX: usize = 10;

/// A stream of checkpoints, shared by all logs of a server.
pub struct Stream<B> {
    bus: B,
    subject: Subject,
    spec: StreamSpec,
}

impl<B: Bus + Streams> Stream<B> {
    /// The stream on `bus`, for checkpoints of the log `origin`; so many servers of a cluster keep it.
    pub fn new(bus: B, origin: &str, replicas: usize) -> Self {
        let spec = StreamSpec {
            name: STREAM.into(),
            subjects: SUBJECTS.parse().expect("the pattern is legal"),
            description: "Signed checkpoints of HyperCode's logs (C2SP tlog-checkpoint)".into(),
            replicas,
            duplicate_ms: DUPLICATE_MS,
        };
        Self { bus, subject: Subject::of(["hypercode", "checkpoint", origin]), spec }
    }

    async fn append(&self, note: &Note) -> Result<(), BusError> {
        let id = format!("{} {}", note.checkpoint().origin, note.checkpoint().size);
        let message = Message::new(self.subject.clone(), note.as_str().to_owned())
            .with("Content-Type", "text/plain; charset=utf-8");
        let mut races = 0;
        loop {
            let after = self.bus.open_stream(&self.spec).await?.last;
            let sent = self.bus.append(&self.spec.name, message.clone(), &id, after).await;
            let kept = match sent {
                Ok(acknowledged) => acknowledged.await,
                Err(error) => Err(error),
            };
            match kept {
                Err(BusError::Moved { .. }) if races < RACES_MAX => races += 1,
                kept => return kept.map(|_| ()),
            }
        }
    }
}

impl<B: Bus + Streams> Stream<B> {
    /// Whether a checkpoint is there, which was sent last or, with an answer that was lost, last but one: a log's are at
    /// a subject of its own, so that the newest tells.
    async fn find(&self, note: &Note) -> Result<bool, BusError> {
        self.bus.open_stream(&self.spec).await?;
        let newest = self.bus.newest(&self.spec.name, &self.subject).await?;
        let newest = newest.and_then(|message| Note::parse(std::str::from_utf8(&message.body).ok()?).ok());
        Ok(newest.is_some_and(|newest| newest.checkpoint().size >= note.checkpoint().size))
    }
}

#[async_trait]
impl<B: Bus + Streams> Sink for Stream<B> {
    fn name(&self) -> &str {
        "nats:HYPERCODE_CHECKPOINTS"
    }

    async fn has(&self, note: &Note) -> Result<bool, SinkError> {
        let failed = |error: BusError| SinkError { sink: self.name().to_owned(), reason: error.to_string() };
        self.find(note).await.map_err(failed)
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |error: BusError| SinkError { sink: self.name().to_owned(), reason: error.to_string() };
        self.append(note).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use events::Digest;
    use events::audit::{Checkpoint, Signer};
    use nats::server::Server;
    use nats::{Connection, Nats};

    use super::*;

    async fn connect(server: &Server) -> Nats {
        let bus = Nats::connect(nats::Options::new(server.url().parse().expect("an address")));
        let mut connection = bus.connection();
        connection.wait_for(|now| *now == Connection::Up).await.expect("the server is there");
        bus
    }

    #[tokio::test]
    async fn checkpoints_of_several_logs_are_kept_once_each() {
        let server = Server::start();
        let bus = connect(&server).await;
        let note = |origin: &str, size| {
            Signer::generate(origin).sign(&Checkpoint { origin: origin.into(), size, root: Digest::ZERO })
        };
        let (one, two) = (Stream::new(bus.clone(), "one/1", 1), Stream::new(bus.clone(), "two/2", 1));
        let notes = [note("one/1", 1), note("two/2", 1), note("one/1", 2)];
        one.put(&notes[0]).await.expect("kept");
        two.put(&notes[1]).await.expect("kept");
        one.put(&notes[2]).await.expect("kept");
        one.put(&notes[2]).await.expect("the same again is no harm");
        let kept = bus.read(STREAM, 0, 10).await.expect("the stream can be read");
        let found: Vec<&[u8]> = kept.iter().map(|(_, message)| &message.body[..]).collect();
        assert_eq!(found, notes.each_ref().map(|note| note.as_str().as_bytes()));
        assert_eq!(kept[0].1.subject.as_str(), "hypercode.checkpoint.one%2F1");
        for number in 2..50 {
            two.put(&note("two/2", number)).await.expect("kept");
        }
        for sent in [&notes[0], &notes[2]] {
            assert_eq!(one.has(sent).await, Ok(true), "however many of others came after it");
        }
        assert_eq!(one.has(&note("one/1", 3)).await, Ok(false));
        assert_eq!(Stream::new(bus, "three/3", 1).has(&note("three/3", 1)).await, Ok(false));
    }

    #[tokio::test]
    async fn a_stream_that_was_wiped_gets_all_checkpoints_again() {
        let mut server = Server::start();
        let bus = connect(&server).await;
        let dir = tempfile::tempdir().expect("a directory");
        let log = events::store::Memory::new();
        let ledger = events::audit::Ledger::open(dir.path()).await.expect("a ledger");
        let sink: std::sync::Arc<dyn Sink> = std::sync::Arc::new(Stream::new(bus.clone(), "one/1", 1));
        let options = events::audit::Options {
            checkpoint_events: 1,
            retry_ms: 50,
            ..events::audit::Options::default()
        };
        let tailer = events::audit::Tailer::start(
            std::sync::Arc::new(log.clone()),
            ledger,
            Signer::generate("one/1"),
            vec![sink],
            options,
        );
        let tailer = tailer.await.expect("it starts");
        let append = async || {
            let stream = events::store::conformance::stream("s");
            let request = events::store::conformance::request(&stream, events::store::Expected::Any, &["1"]);
            events::EventStore::append(&log, request).await.expect("appended");
        };
        let kept = async |wanted: usize| {
            let reached = async {
                loop {
                    let kept = bus.read(STREAM, 0, 10).await.unwrap_or_default().len();
                    if kept == wanted {
                        return;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            let reached = tokio::time::timeout(std::time::Duration::from_secs(60), reached).await;
            reached.unwrap_or_else(|_| panic!("the stream never had {wanted} checkpoints"));
        };
        append().await;
        append().await;
        kept(2).await;
        server.kill();
        server.wipe();
        server.resume();
        append().await;
        kept(3).await;
        tailer.close().await;
    }
}
