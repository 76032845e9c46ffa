//! What agents were denied, and frames that were refused: recorded, and under a flood counted.

use std::sync::Arc;
use std::time::Duration;

use events::domain::DomainEvent;
use events::domain::message::{Denial, Event, Party};
use events::domain::platform::{self, Tampered, Tampering};
use events::{AppendRequest, EntityKind, Position, Principal, StreamId, Tenant};
use tokio::time::Instant;

use crate::core::Core;
use crate::host::{Peer, Process};
use crate::journal;
use crate::policy::Kind;
use crate::sandbox::Sandbox;
use crate::throttle::Verdict;

/// Kinds of occurrences that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Something was denied towards this member. `None` stands for whatever is no member of the crew, so that there are
    /// no more of these than the crew has members, however many names an agent makes up.
    Denied(Kind, Denial, Option<Arc<str>>),
    /// A frame named its own sender.
    IdentityField,
    /// A process that is not of the sandbox connected.
    ForeignPeer,
    /// A token that lets a runner in was shown again, or by another sandbox.
    ReusedToken,
    /// A token was shown that is not one of the sandbox's agent.
    ForeignToken,
    /// Another link came while there was one.
    SecondLink,
}

/// The part of the platform that sandboxes are.
const SANDBOXES: &str = "sandboxes";

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

/// Records that somebody who is not of the sandbox spoke from its socket.
pub(crate) async fn foreign_peer(core: &Arc<Core>, sandbox: &Arc<Sandbox>, process: Process) {
    let detail = format!("process {} of user {}", process.pid, process.uid);
    tampered(core, sandbox, What::ForeignPeer, Tampering::ForeignPeer, detail).await;
}

/// Records that a token of `owner` was shown in this sandbox's place, or again in its own.
pub(crate) async fn reused_token(core: &Arc<Core>, sandbox: &Arc<Sandbox>, owner: &Sandbox) {
    let detail = format!("it was shown a token that let in, or was to let in, the runner of `{}`", owner.id);
    tampered(core, sandbox, What::ReusedToken, Tampering::ReusedToken, detail).await;
}

/// Records that a token was refused, and why.
pub(crate) async fn foreign_token(core: &Arc<Core>, sandbox: &Arc<Sandbox>, fault: String) {
    tracing::warn!(sandbox = %sandbox.id, fault, "refused a token");
    tampered(core, sandbox, What::ForeignToken, Tampering::ForeignToken, fault).await;
}

/// Records that another link came while the sandbox had one: its token may be in other hands.
pub(crate) async fn second_link(core: &Arc<Core>, sandbox: &Arc<Sandbox>) {
    let detail = "its own link is up".to_owned();
    tracing::error!(sandbox = %sandbox.id, "a second link came while the first is up");
    tampered(core, sandbox, What::SecondLink, Tampering::SecondLink, detail).await;
}

/// Records what was done to a sandbox from outside.
async fn tampered(core: &Arc<Core>, sandbox: &Arc<Sandbox>, kind: What, what: Tampering, detail: String) {
    let (id, peer) = (sandbox.id.clone(), sandbox.peer().cloned());
    let make = move |count| {
        let agent = peer.as_ref().map(|peer| peer.agent.to_string());
        let tampered = Tampered { sandbox: id, agent, what, detail, count };
        let tenant = peer.as_ref().map_or_else(Tenant::default, |peer| peer.tenant.clone());
        let stream = StreamId::new(EntityKind::Platform, SANDBOXES);
        let events = vec![platform::Event::from(tampered).encode()];
        let request = journal::request(&tenant, Principal::system("gateway"), None, stream, events);
        journal::following(request, peer.map(|peer| peer.origin.clone()))
    };
    throttled(core, sandbox, kind, make).await;
}

/// Records one occurrence of what an agent did, and says where. `None`: it was one of too many and is counted into the
/// next record, which comes within a second. `make` gives the event for so many occurrences.
pub(crate) async fn record(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    task: Option<&str>,
    what: What,
    make: impl FnOnce(u64) -> Event + Send + 'static,
) -> Option<Position> {
    let (epoch, peer, origin) = (core.epoch(&peer.crew), peer.clone(), sandbox.origin(peer, task));
    let make =
        move |count| journal::by_agent(&peer, origin, epoch, outbox(&peer), vec![make(count).encode()]);
    throttled(core, sandbox, what, make).await
}

/// Appends what `make` gives for so many occurrences: at once, or counted with others within a second.
async fn throttled(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    what: What,
    make: impl FnOnce(u64) -> AppendRequest + Send + 'static,
) -> Option<Position> {
    let verdict = sandbox.state().denials.happened(what.clone(), Instant::now());
    match verdict {
        Verdict::Record(count) => append(core, sandbox, &make(count)).await,
        Verdict::Counted => None,
        Verdict::First => {
            let (core, later) = (core.clone(), sandbox.clone());
            sandbox.tracker.spawn(async move {
                let closed = later.closed.clone();
                closed.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
                let count = later.state().denials.take(&what);
                if count > 0 {
                    append(&core, &later, &make(count)).await;
                }
            });
            None
        }
    }
}

async fn append(core: &Core, sandbox: &Sandbox, request: &AppendRequest) -> Option<Position> {
    match core.journal.append(request).await {
        Ok(appended) => Some(appended.position),
        Err(error) => {
            tracing::error!(sandbox = %sandbox.id, stream = %request.stream, %error, "a denial could not be recorded");
            None
        }
    }
}
