//! The one place that decides whether an append happens; every store asks it.
//!
//! A [`Batch`] judges requests one after another against what is [`Known`] of the log and what the batch
//! itself has already accepted. Nothing is changed until the store has made the batch durable and calls
//! [`Known::absorb`]; so a batch that fails leaves no trace.

use std::collections::{HashMap, HashSet};

use super::{AppendError, AppendRequest, Appended, Expected, Head, Reservation};
use crate::chain;
use crate::event::Recorded;
use crate::id::{CommandId, Digest, EventId, Position, StreamId, Timestamp, Version};

/// What is known of a command that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) digest: Option<Digest>,
    pub(crate) position: Position,
    pub(crate) version: Version,
}

impl Command {
    pub(crate) fn first_outcome(self) -> Appended {
        Appended { position: self.position, version: self.version, repeated: true }
    }
}

/// What is known of the log. What is absent counts as never having happened.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) head: Head,
    pub(crate) streams: HashMap<StreamId, Version>,
    pub(crate) commands: HashMap<CommandId, Command>,
    pub(crate) names: HashMap<Reservation, StreamId>,
    pub(crate) epochs: [u64; 256],
}

impl Known {
    pub(crate) fn empty() -> Self {
        Self {
            head: Head::EMPTY,
            streams: HashMap::new(),
            commands: HashMap::new(),
            names: HashMap::new(),
            epochs: [0; 256],
        }
    }

    /// Judges `requests`, which were checked before, one after another.
    pub(crate) fn judge<'a>(&self, requests: impl Iterator<Item = &'a AppendRequest>) -> Judged {
        let mut batch = Batch::new(self);
        let verdicts = requests.map(|request| batch.admit(request)).collect();
        (verdicts, batch.into_changes())
    }

    /// The streams of `requests` whose versions are not in the cache.
    pub(crate) fn unknown_streams<'a>(
        &self,
        requests: impl Iterator<Item = &'a AppendRequest>,
    ) -> HashSet<&'a StreamId> {
        requests.map(|request| &request.stream).filter(|stream| !self.streams.contains_key(stream)).collect()
    }

    /// Keeps what is remembered within `keys_max`. Names are looked up whenever they are needed.
    pub(crate) fn forget(&mut self, keys_max: usize) {
        self.names.clear();
        if self.streams.len() > keys_max {
            self.streams.clear();
        }
        if self.commands.len() > keys_max {
            self.commands.clear();
        }
    }

    /// Takes over what a batch changed, once it is durable.
    pub(crate) fn absorb(&mut self, changes: Changes) {
        self.head = changes.head;
        self.streams.extend(changes.streams);
        self.commands.extend(changes.commands);
        for (name, holder) in changes.names {
            match holder {
                Some(stream) => self.names.insert(name, stream),
                None => self.names.remove(&name),
            };
        }
    }
}

/// What the accepted requests of a batch change.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) head: Head,
    pub(crate) events: Vec<Recorded>,
    pub(crate) streams: HashMap<StreamId, Version>,
    pub(crate) commands: HashMap<CommandId, Command>,
    /// The holder of each name that was touched; `None` if it is free again.
    pub(crate) names: HashMap<Reservation, Option<StreamId>>,
    /// Names that were taken before the batch and given back in it.
    pub(crate) freed: Vec<Reservation>,
}

/// A batch's verdicts, in the order of its requests, and what they change.
pub(crate) type Judged = (Vec<Result<Appended, AppendError>>, Changes);

/// Requests that are judged together and become durable together.
pub(crate) struct Batch<'a> {
    known: &'a Known,
    changes: Changes,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(known: &'a Known) -> Self {
        let changes = Changes {
            head: known.head,
            events: Vec::new(),
            streams: HashMap::new(),
            commands: HashMap::new(),
            names: HashMap::new(),
            freed: Vec::new(),
        };
        Self { known, changes }
    }

    /// Judges `request`, which was checked before, and accepts its events if nothing stands against it.
    pub(crate) fn admit(&mut self, request: &AppendRequest) -> Result<Appended, AppendError> {
        if let Some(command) = self.command(request.command_id) {
            return match (command.digest, request.command_digest) {
                (Some(first), Some(now)) if first != now => {
                    Err(AppendError::KeyConflict { command_id: request.command_id })
                }
                _ => Ok(command.first_outcome()),
            };
        }
        self.judge_epoch(request)?;
        let version = self.judge_version(request)?;
        self.judge_names(request)?;
        Ok(self.accept(request, version))
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    fn command(&self, id: CommandId) -> Option<Command> {
        self.changes.commands.get(&id).or_else(|| self.known.commands.get(&id)).copied()
    }

    fn version(&self, stream: &StreamId) -> Version {
        let version = self.changes.streams.get(stream).or_else(|| self.known.streams.get(stream));
        version.copied().unwrap_or_default()
    }

    fn holder(&self, name: &Reservation) -> Option<&StreamId> {
        match self.changes.names.get(name) {
            Some(holder) => holder.as_ref(),
            None => self.known.names.get(name),
        }
    }

    fn judge_epoch(&self, request: &AppendRequest) -> Result<(), AppendError> {
        let Some(held) = request.epoch else { return Ok(()) };
        let current = self.known.epochs[usize::from(held.shard)];
        if held.epoch == current {
            return Ok(());
        }
        Err(AppendError::Fenced { shard: held.shard, held: held.epoch, current })
    }

    fn judge_version(&self, request: &AppendRequest) -> Result<Version, AppendError> {
        let actual = self.version(&request.stream);
        match request.expected {
            Expected::Exact(expected) if expected != actual => {
                Err(AppendError::WrongVersion { stream: request.stream.clone(), expected, actual })
            }
            _ => Ok(actual),
        }
    }

    fn judge_names(&self, request: &AppendRequest) -> Result<(), AppendError> {
        for (i, name) in request.reserve.iter().enumerate() {
            let taken = match self.holder(name) {
                Some(holder) => *holder != request.stream || !request.release.contains(name),
                None => false,
            };
            if taken || request.reserve[..i].contains(name) {
                let Reservation { namespace, key } = name.clone();
                return Err(AppendError::Taken { namespace, key });
            }
        }
        Ok(())
    }

    fn accept(&mut self, request: &AppendRequest, mut version: Version) -> Appended {
        for (ordinal, new) in (0..).zip(&request.events) {
            version = version.next();
            let mut event = Recorded {
                position: self.changes.head.position.next(),
                stream: request.stream.clone(),
                version,
                kind: new.kind.clone(),
                schema: new.schema,
                event_id: event_id(request.command_id, ordinal, request.recorded_at),
                command_id: request.command_id,
                ordinal,
                meta: request.meta.clone(),
                recorded_at: request.recorded_at,
                epoch: request.epoch.map_or(0, |held| held.epoch),
                payload: new.payload.clone(),
                hash: Digest::ZERO,
            };
            event.hash = chain::hash(self.changes.head.hash, &event);
            self.changes.head = Head { position: event.position, hash: event.hash };
            self.changes.events.push(event);
        }
        let position = self.changes.head.position;
        let command = Command { digest: request.command_digest, position, version };
        self.changes.streams.insert(request.stream.clone(), version);
        self.changes.commands.insert(request.command_id, command);
        self.change_names(request);
        Appended { position, version, repeated: false }
    }

    /// A name is given back only by the stream that holds it.
    fn change_names(&mut self, request: &AppendRequest) {
        for name in &request.release {
            if self.holder(name) != Some(&request.stream) {
                continue;
            }
            let touched = self.changes.names.insert(name.clone(), None).is_some();
            if !touched && self.known.names.contains_key(name) {
                self.changes.freed.push(name.clone());
            }
        }
        for name in &request.reserve {
            self.changes.names.insert(name.clone(), Some(request.stream.clone()));
        }
    }
}

/// A UUIDv7 whose random part is derived from the command, so that every store, and every repetition of a
/// simulated run, gives an event the same id.
fn event_id(command: CommandId, ordinal: u32, at: Timestamp) -> EventId {
    let mut seed = [0; 20];
    seed[..16].copy_from_slice(command.0.as_bytes());
    seed[16..].copy_from_slice(&ordinal.to_be_bytes());
    let digest = Digest::of(&seed).0;
    let random = digest.first_chunk::<10>().expect("a digest has 32 bytes");
    let millis = u64::try_from(at.millis()).unwrap_or_default();
    EventId(uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid())
}
