//! What agents were denied, and frames that were refused: recorded, and under a flood counted.

use std::sync::Arc;
use std::time::Duration;

use events::domain::DomainEvent;
use events::domain::message::{Denial, Event, Party};
use events::{EntityKind, Position, StreamId};
use tokio::time::Instant;

use crate::core::Core;
use crate::host::Peer;
use crate::journal;
use crate::policy::Kind;
use crate::sandbox::Sandbox;
use crate::throttle::Verdict;

/// Kinds of occurrences that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Something was denied.
    Denied(Kind, Denial),
    /// A frame named its own sender.
    IdentityField,
}

/// A peer as it stands in events.
pub(crate) fn party(peer: &Peer) -> Party {
    Party {
        agent: peer.agent.clone(),
        member: peer.member.as_str().into(),
        replica: peer.replica,
        incarnation: peer.incarnation,
    }
}

/// The stream of what an agent does in one of its lives.
pub(crate) fn outbox(peer: &Peer) -> StreamId {
    StreamId::new(EntityKind::Outbox, format!("{}/{}", peer.agent, peer.incarnation))
}

/// Records one occurrence and says where. `None`: it was one of too many and is counted into the next record, which
/// comes within a second. `make` gives the event for so many occurrences.
pub(crate) async fn record(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    what: What,
    make: impl FnOnce(u64) -> Event + Send + 'static,
) -> Option<Position> {
    let verdict = sandbox.state().denials.happened(what, Instant::now());
    match verdict {
        Verdict::Record(count) => append(core, peer, make(count)).await,
        Verdict::Counted => None,
        Verdict::First => {
            let (core, later, peer) = (core.clone(), sandbox.clone(), peer.clone());
            sandbox.tracker.spawn(async move {
                let closed = later.closed.clone();
                closed.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
                let count = later.state().denials.take(&what);
                if count > 0 {
                    append(&core, &peer, make(count)).await;
                }
            });
            None
        }
    }
}

async fn append(core: &Core, peer: &Peer, event: Event) -> Option<Position> {
    let epoch = core.epoch(&peer.crew);
    let request = journal::by_agent(peer, epoch, outbox(peer), vec![event.encode()]);
    match core.journal.append(&request).await {
        Ok(appended) => Some(appended.position),
        Err(error) => {
            tracing::error!(agent = %peer.agent, kind = event.kind(), %error, "a denial could not be recorded");
            None
        }
    }
}
