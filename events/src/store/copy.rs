//! Carrying a whole log over to another database: events, command digests, names, epochs, artifacts and keys.
//!
//! Events are inserted behind the target's head, which stays where it is until everything is there and was verified.
//! So a target that is copied to by half cannot be opened by a platform, and a copy that was interrupted at any moment
//! goes on after the last event that is durable there.

mod place;

use std::sync::Arc;

use async_trait::async_trait;

use super::{EventStore, Head, ReadError, Reservation, postgres, sqlite};
use crate::artifact::{ArtifactError, ArtifactStore};
use crate::chain::{Broken, Verifier};
use crate::event::Recorded;
use crate::id::{CommandId, Digest, Position, StreamId};
use crate::seal::{self, SealError};

pub use place::{InvalidPlace, Place};

/// Events that are carried over in one commit.
const EVENTS: usize = 500;
/// Command digests that are carried over in one commit.
const DIGESTS: usize = 5_000;
/// Names that are carried over in one commit.
const NAMES: usize = 5_000;
/// Artifacts that are listed at once.
const ARTIFACTS: usize = 1_000;

/// What is being done, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Artifacts that the target has.
    Artifacts(u64),
    /// An artifact of the source is damaged there, and is left out.
    Damaged(Digest),
    /// Events that the target has, of so many.
    Events(Position, Position),
    /// Events of the target whose hashes were computed again, of so many.
    Verified(Position, Position),
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where both logs end.
    pub head: Head,
    /// Events that were carried over now; the others were there before.
    pub events: u64,
    /// Artifacts that the source has.
    pub artifacts: u64,
    /// Artifacts that were carried over now.
    pub artifacts_carried: u64,
    /// Artifacts that are damaged at the source, and that the target does not have.
    pub artifacts_damaged: u64,
    /// Artifacts that an earlier copy had brought and that are deleted at the source since.
    pub artifacts_deleted: u64,
    /// Command digests.
    pub digests: u64,
    /// Names that are taken.
    pub names: u64,
    /// Keys of data subjects.
    pub keys: u64,
}

/// Why a log was not copied. What was carried over until then stays, and the next copy goes on after it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Both ends are one.
    #[error("copy the log: `{place}` is the source and the target")]
    Same {
        /// The place.
        place: Place,
    },
    /// There is no log to copy.
    #[error("copy the log: `{place}` holds none")]
    Missing {
        /// The source.
        place: Place,
    },
    /// A data directory cannot be used.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// A database cannot be used.
    #[error(transparent)]
    Postgres(Box<postgres::OpenError>),
    /// A platform works on one of the ends.
    #[error(
        "copy the log: `{place}` is in use by {nodes}; stop it first, and wait {wait_s} s if it was killed: what it \
         appends meanwhile would be in one log and not in the other, and both would go on from there"
    )]
    InUse {
        /// The source or the target.
        place: Place,
        /// Who uses it.
        nodes: String,
        /// When they count as gone at the latest, if they are, in seconds.
        wait_s: u64,
    },
    /// The source was opened to be written to while it was copied.
    #[error("copy the log: a platform has opened `{place}` meanwhile; stop it and copy again")]
    Moved {
        /// The source or the target.
        place: Place,
    },
    /// Another copy into the same target is under way.
    #[error("copy the log: another copy into `{place}` is under way")]
    Busy {
        /// The target.
        place: Place,
    },
    /// The target holds events that the source does not have.
    #[error(
        "copy the log: `{target}` holds a different log: its event at position {position} is not the source's; \
         choose an empty target"
    )]
    Different {
        /// The target.
        target: Place,
        /// Where the target ends.
        position: Position,
    },
    /// One of the logs is damaged.
    #[error("copy the log: in `{place}`: {broken}")]
    Broken {
        /// Where.
        place: Place,
        /// What is wrong.
        broken: Broken,
    },
    /// What was carried over is not what the source has.
    #[error("copy the log: {what} in `{target}` are not those of the source; choose an empty target")]
    Unequal {
        /// The target.
        target: Place,
        /// What differs.
        what: &'static str,
    },
    /// One of the logs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The target cannot be written to.
    #[error("copy the log: write to `{target}`: {reason}")]
    Write {
        /// The target.
        target: Place,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The keys of data subjects cannot be carried over.
    #[error(transparent)]
    Keys(#[from] SealError),
    /// An artifact cannot be carried over.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

impl From<postgres::OpenError> for CopyError {
    fn from(error: postgres::OpenError) -> Self {
        Self::Postgres(Box::new(error))
    }
}

impl From<CopyError> for crate::api::Problem {
    fn from(error: CopyError) -> Self {
        use crate::api::ProblemKind;
        let kind = match error {
            CopyError::Same { .. } => ProblemKind::Invalid,
            CopyError::Missing { .. } => ProblemKind::NotFound,
            CopyError::Different { .. } | CopyError::Broken { .. } | CopyError::Unequal { .. } => {
                ProblemKind::Failed
            }
            _ => ProblemKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

/// What of a log changes in place, and is small: it is carried over along with the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    /// Grows whenever somebody opens the log to write to it.
    pub(super) fence: i64,
    /// The epochs of all shards.
    pub(super) epochs: Vec<u64>,
}

/// One end of a copy.
#[async_trait]
pub(super) trait Side: Send + Sync {
    /// The log, to be read. Also what stands behind its head.
    fn log(&self) -> &dyn EventStore;
    /// The artifacts.
    fn artifacts(&self) -> &dyn ArtifactStore;
    /// The last event, wherever the head is.
    async fn last(&self) -> Result<Head, ReadError>;
    /// Up to `limit` command digests after a command, in order.
    async fn digests(
        &self,
        after: Option<CommandId>,
        limit: usize,
    ) -> Result<Vec<(CommandId, Digest)>, ReadError>;
    /// Up to `limit` names that are taken, and by which stream, after one of them, in an order of the place's own.
    async fn names(
        &self,
        after: Option<Reservation>,
        limit: usize,
    ) -> Result<Vec<(Reservation, StreamId)>, ReadError>;
    /// What changes in place.
    async fn rest(&self) -> Result<Rest, ReadError>;
    /// Inserts events behind the last one; durable when it answers.
    async fn insert_events(&mut self, events: Vec<Recorded>) -> Result<(), CopyError>;
    /// Inserts command digests; those that are there stay.
    async fn insert_digests(&mut self, digests: Vec<(CommandId, Digest)>) -> Result<(), CopyError>;
    /// Sets names aside for [`Side::finish`].
    async fn set_aside(&mut self, names: Vec<(Reservation, StreamId)>) -> Result<(), CopyError>;
    /// Takes over the names that were set aside and the rest, and moves the head, all or nothing: now the target is a log.
    async fn finish(&mut self, head: Head, rest: Rest) -> Result<(), CopyError>;
}

/// Copies the log at `from`, which nobody may be using, to `to`, which must hold nothing or a beginning of it; then
/// verifies the target from its first event. `report` is told how far it has come.
pub async fn copy(
    from: &Place,
    to: &Place,
    mut report: impl FnMut(Progress) + Send,
) -> Result<Copied, CopyError> {
    if from.is_same(to) {
        return Err(CopyError::Same { place: from.clone() });
    }
    let mut work =
        Copy { source: from.source().await?, target: to.target().await?, from, to, report: &mut report };
    let (head, rest) = (work.source.log().head().await?, work.source.rest().await?);
    let before = work.agreed(head).await?;
    let Carried { artifacts, carried, damaged } = work.carry_artifacts().await?;
    let artifacts_deleted = work.delete_artifacts().await?;
    work.carry_events(before, head).await?;
    let digests = work.carry_digests().await?;
    let names = work.carry_names().await?;
    let keys = seal::carry(from, to).await?;
    work.verify(head).await?;
    work.compare_digests().await?;
    // Whoever opens a log raises its fence, so equality means that nobody has, and that the names are the same too.
    if work.source.rest().await? != rest || work.source.log().head().await? != head {
        return Err(CopyError::Moved { place: from.clone() });
    }
    work.target.finish(head, rest.clone()).await?;
    work.compare_rest(head, &names, &rest).await?;
    let events = head.position.0 - before.position.0;
    Ok(Copied {
        head,
        events,
        artifacts,
        artifacts_carried: carried,
        artifacts_damaged: damaged,
        artifacts_deleted,
        digests,
        names: names.count,
        keys,
    })
}

/// A set of names, whatever order they come in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    count: u64,
    /// The digests of all, combined by exclusive or: no name is in it twice.
    sum: [u8; 32],
}

impl Names {
    fn add(&mut self, (name, stream): &(Reservation, StreamId)) {
        // Texts in quotes, so that no two triples read alike.
        let digest = Digest::of(format!("{:?}", (&name.namespace, &name.key, stream.to_string())).as_bytes());
        self.sum = std::array::from_fn(|index| self.sum[index] ^ digest.0[index]);
        self.count += 1;
    }

    /// The names of a log.
    async fn of(side: &dyn Side) -> Result<Self, CopyError> {
        let (mut names, mut last) = (Self::default(), None);
        loop {
            let page = side.names(last, NAMES).await?;
            let Some((end, _)) = page.last() else { return Ok(names) };
            page.iter().for_each(|name| names.add(name));
            last = Some(end.clone());
        }
    }
}

/// What became of the source's artifacts.
#[derive(Default)]
struct Carried {
    artifacts: u64,
    carried: u64,
    damaged: u64,
}

/// A copy under way.
struct Copy<'a> {
    source: Box<dyn Side>,
    target: Box<dyn Side>,
    from: &'a Place,
    to: &'a Place,
    report: &'a mut (dyn FnMut(Progress) + Send),
}

impl Copy<'_> {
    /// The target's last event, which the source must have too.
    async fn agreed(&self, head: Head) -> Result<Head, CopyError> {
        let last = self.target.last().await?;
        let Some(before) = last.position.0.checked_sub(1) else { return Ok(last) };
        let ours = self.source.log().read(Position(before), 1).await?;
        let is_ours =
            ours.first().is_some_and(|event| (event.position, event.hash) == (last.position, last.hash));
        match is_ours && last.position <= head.position {
            true => Ok(last),
            false => Err(CopyError::Different { target: self.to.clone(), position: last.position }),
        }
    }

    /// Artifacts come first, so that no event of the target ever names one that is not there.
    async fn carry_artifacts(&mut self) -> Result<Carried, CopyError> {
        let (from, to) = (self.source.artifacts(), self.target.artifacts());
        let (mut came, mut last) = (Carried::default(), None);
        loop {
            let page = from.after(last, ARTIFACTS).await?;
            let Some(end) = page.last() else { return Ok(came) };
            last = Some(*end);
            for digest in page {
                came.artifacts += 1;
                let there = to.size(digest).await?;
                if there.is_none() || there != from.size(digest).await? {
                    match from.get(digest).await {
                        Ok(Some(bytes)) => {
                            to.put(bytes).await?;
                            came.carried += 1;
                        }
                        // It cannot be read there either, and the rest of the log can.
                        Err(ArtifactError::Damaged { .. }) | Ok(None) => {
                            came.damaged += 1;
                            (self.report)(Progress::Damaged(digest));
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                (self.report)(Progress::Artifacts(came.artifacts));
            }
        }
    }

    /// What an earlier copy brought and the source has deleted since goes from the target too, or an erasure at the source
    /// would not hold here.
    async fn delete_artifacts(&self) -> Result<u64, CopyError> {
        let (from, to) = (self.source.artifacts(), self.target.artifacts());
        let (mut deleted, mut last) = (0, None);
        loop {
            let page = to.after(last, ARTIFACTS).await?;
            let Some(end) = page.last() else { return Ok(deleted) };
            last = Some(*end);
            for digest in page {
                if !from.has(digest).await? && to.delete(digest).await? {
                    deleted += 1;
                }
            }
        }
    }

    async fn carry_events(&mut self, before: Head, head: Head) -> Result<(), CopyError> {
        let mut verifier = Verifier::after(before);
        while verifier.head() != head {
            let broken = |broken| CopyError::Broken { place: self.from.clone(), broken };
            let (at, end) = (verifier.head().position, head.position);
            let wanted = usize::try_from(end.0.saturating_sub(at.0)).unwrap_or(EVENTS).min(EVENTS);
            let events = self.source.log().read(at, wanted).await?;
            if events.is_empty() {
                return Err(broken(Broken::Head { head: end, last: at }));
            }
            events.iter().try_for_each(|event| verifier.check(event)).map_err(broken)?;
            self.target.insert_events(events).await?;
            (self.report)(Progress::Events(verifier.head().position, end));
        }
        Ok(())
    }

    async fn carry_digests(&mut self) -> Result<u64, CopyError> {
        let (mut all, mut last) = (0, None);
        loop {
            let page = self.source.digests(last, DIGESTS).await?;
            let Some((end, _)) = page.last() else { return Ok(all) };
            last = Some(*end);
            all += page.len() as u64;
            self.target.insert_digests(page).await?;
        }
    }

    async fn carry_names(&mut self) -> Result<Names, CopyError> {
        let (mut names, mut last) = (Names::default(), None);
        loop {
            let page = self.source.names(last, NAMES).await?;
            let Some((end, _)) = page.last() else { return Ok(names) };
            page.iter().for_each(|name| names.add(name));
            last = Some(end.clone());
            self.target.set_aside(page).await?;
        }
    }

    /// Computes the target's chain again, from its first event to where the source's ends.
    async fn verify(&mut self, head: Head) -> Result<(), CopyError> {
        let broken = |broken| CopyError::Broken { place: self.to.clone(), broken };
        let mut verifier = Verifier::after(Head::EMPTY);
        loop {
            let events = self.target.log().read(verifier.head().position, EVENTS).await?;
            if events.is_empty() {
                break;
            }
            events.iter().try_for_each(|event| verifier.check(event)).map_err(broken)?;
            (self.report)(Progress::Verified(verifier.head().position, head.position));
        }
        if verifier.head() != head {
            return Err(broken(Broken::Head { head: head.position, last: verifier.head().position }));
        }
        Ok(())
    }

    /// Compares the commands' digests, which the chain does not cover.
    async fn compare_digests(&self) -> Result<(), CopyError> {
        let mut last = None;
        loop {
            let ours = self.source.digests(last, DIGESTS).await?;
            if ours != self.target.digests(last, DIGESTS).await? {
                return self.unequal("the commands' digests");
            }
            let Some((end, _)) = ours.last() else { return Ok(()) };
            last = Some(*end);
        }
    }

    /// Compares what was carried over last.
    async fn compare_rest(&self, head: Head, names: &Names, rest: &Rest) -> Result<(), CopyError> {
        let found = self.target.rest().await?;
        if Names::of(&*self.target).await? != *names {
            return self.unequal("the names that are taken");
        }
        if found.epochs.iter().zip(&rest.epochs).any(|(found, carried)| found < carried) {
            return self.unequal("the epochs");
        }
        match self.target.log().head().await? == head {
            true => Ok(()),
            false => self.unequal("the last events"),
        }
    }

    fn unequal(&self, what: &'static str) -> Result<(), CopyError> {
        Err(CopyError::Unequal { target: self.to.clone(), what })
    }
}

#[cfg(test)]
mod tests;
