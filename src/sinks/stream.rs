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

#[async_trait]
impl<B: Bus + Streams> Sink for Stream<B> {
    fn name(&self) -> &str {
        "nats:HYPERCODE_CHECKPOINTS"
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
    }
}
