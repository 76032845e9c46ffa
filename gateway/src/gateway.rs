//! The handle by which the platform uses its gateway.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use events::artifact::ArtifactStore;
use events::domain::message::Pending;
#[cfg(doc)]
use events::domain::message::Undelivered;
use events::{AgentId, CrewId, EventStore, SandboxId};
use identity::AgentKeys;
use link::{Assign, CancelFrame, DrainFrame, TaskFrame, TaskRef, ToRunner};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::Core;
use crate::error::Error;
use crate::grant::Grants;
use crate::host::{HeldTask, Host, Origin, Peer};
use crate::journal::Journal;
use crate::options::Options;
use crate::outlet::Keep;
use crate::policy::CrewPolicy;
use crate::sandbox::Sandbox;
use crate::session::text;
use crate::state::States;
use crate::{auth, bootstrap, server, socket};

/// How long what runs for a sandbox may take to end when it is closed.
const CLOSE: Duration = Duration::from_secs(5);

/// What the gateway stands on.
#[derive(Clone)]
pub struct Seams {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Large bodies, and what agents keep.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// What makes and checks agents' tokens.
    pub keys: Arc<AgentKeys>,
    /// The platform behind the gateway. Weak, for it holds the gateway: see [`Arc::new_cyclic`].
    pub host: Weak<dyn Host>,
}

/// What became of a task that is to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It was never sent, and is taken back: no result of it will come.
    Unsent,
    /// The runner was told; the result follows.
    Asked,
}

/// The platform's end of all links. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    core: Arc<Core>,
}

impl Gateway {
    /// A gateway without any sandbox yet.
    pub fn new(options: Options, seams: Seams) -> Self {
        let journal = Journal::new(seams.store, &options.limits);
        let Seams { artifacts, keys, host, .. } = seams;
        let core = Core {
            options,
            journal,
            artifacts,
            keys,
            host,
            sandboxes: std::sync::Mutex::default(),
            crews: std::sync::Mutex::default(),
            grants: Grants::default(),
            states: States::default(),
            tracker: TaskTracker::new(),
            stopped: CancellationToken::new(),
        };
        Self { core: Arc::new(core) }
    }

    /// Opens a sandbox's socket and serves it; answers its path. Opening it again changes nothing; after a restart of
    /// the platform it comes back at the same path.
    pub async fn open(&self, sandbox: &SandboxId) -> Result<PathBuf, Error> {
        let run_dir = &self.core.options.run_dir;
        let directory = socket::directory(run_dir, sandbox);
        let path = socket::path(&directory);
        let (opened, listener) = {
            let mut sandboxes = self.core.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
            if sandboxes.contains_key(sandbox) {
                return Ok(path);
            }
            let listener = socket::bind(run_dir, &directory, sandbox, self.core.options.peer_uid)
                .map_err(|source| Error::Socket { path: path.clone(), source: Arc::new(source) })?;
            if self.core.options.bootstrap {
                bootstrap::make_directory(&directory)
                    .map_err(|source| Error::Socket { path: path.clone(), source: Arc::new(source) })?;
            }
            let opened = Arc::new(Sandbox::new(sandbox.clone(), directory, &self.core.options.limits));
            sandboxes.insert(sandbox.clone(), opened.clone());
            (opened, listener)
        };
        let tracker = opened.tracker.clone();
        if self.core.options.bootstrap {
            tracker.spawn(bootstrap::keep(self.core.clone(), opened.clone()));
        }
        tracker.spawn(server::serve(self.core.clone(), opened, listener));
        Ok(path)
    }

    /// Closes a sandbox's link (4005) and socket. Calls of it that still wait are dropped, nothing more is accepted,
    /// and no token of it is good for anything (law ID-1). Of one that was never opened here, the socket that an
    /// earlier platform left is removed.
    pub async fn close(&self, sandbox: &SandboxId) {
        let closed = self.core.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox);
        let Some(closed) = closed else {
            if let Err(error) = socket::remove_left(&self.core.options.run_dir, sandbox) {
                tracing::warn!(%sandbox, %error, "cannot remove the socket that an earlier platform left");
            }
            return;
        };
        closed.closed.cancel();
        closed.wake.notify_one();
        closed.tracker.close();
        if tokio::time::timeout(CLOSE, closed.tracker.wait()).await.is_err() {
            tracing::warn!(%sandbox, "what ran for a closed sandbox takes long to end");
        }
        if let Err(error) = socket::remove(&closed.directory) {
            tracing::warn!(%sandbox, %error, "cannot remove the socket of a closed sandbox");
        }
    }

    /// Says that the incarnation in a sandbox has ended: from now on no frame and no request of it is accepted, whatever
    /// it shows (law ID-1). [`Gateway::close`] follows.
    pub fn revoke(&self, sandbox: &SandboxId) {
        if let Ok(found) = self.core.sandbox(sandbox) {
            found.closed.cancel();
        }
    }

    /// Gives every agent another token, over the links that are up: the keys have changed.
    pub fn renew_tokens(&self) {
        let sandboxes: Vec<_> = {
            let sandboxes = self.core.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
            sandboxes.values().cloned().collect()
        };
        let had_one = |sandbox: &&Arc<Sandbox>| sandbox.state().renew_at.is_some();
        sandboxes.iter().filter(had_one).for_each(|sandbox| sandbox.renew_at(Instant::now()));
    }

    /// Says who a sandbox is, before it is assigned. From its first `ready` on, its links must show the token.
    ///
    /// Errors: [`Error::Bound`] if it is somebody else already (law SB-1).
    pub fn bind_peer(&self, sandbox: &SandboxId, peer: Peer) -> Result<(), Error> {
        let found = self.core.sandbox(sandbox)?;
        let peer = found.bind(peer)?;
        self.core.peer_bound(&found, peer);
        Ok(())
    }

    /// Says who a sandbox is that was assigned before the platform was restarted: its links must show the token.
    pub fn adopt_peer(&self, sandbox: &SandboxId, peer: Peer) -> Result<(), Error> {
        self.bind_peer(sandbox, peer)?;
        self.core.sandbox(sandbox)?.state().token_held = true;
        Ok(())
    }

    /// Lets a sandbox read what it is about to be assigned, so that its assignment does not wait for the log. The peer must
    /// be bound.
    pub async fn grant(&self, sandbox: &SandboxId, assign: &Assign) -> Result<(), Error> {
        let found = self.bound(sandbox)?;
        self.core.give_source(&found, assign).await.map_err(|error| grant_failed(sandbox, &error))
    }

    /// Assigns a sandbox that waits, now or as soon as its link is up. The peer must be bound; its token is made here.
    pub async fn assign(&self, sandbox: &SandboxId, mut assign: Assign) -> Result<(), Error> {
        self.grant(sandbox, &assign).await?;
        let found = self.bound(sandbox)?;
        if let Some(peer) = found.peer() {
            (assign.token, _) = auth::issue(&self.core, &found, peer)?;
        }
        let heartbeat_ms = assign.liveness.heartbeat_ms;
        let frame = self.frame(sandbox, &ToRunner::Assign(Box::new(assign)))?;
        {
            let mut state = found.state();
            state.outlet.assign(frame);
            // A link that is not up yet is told by its welcome.
            if let Some(link) = &state.link {
                link.beats_every(heartbeat_ms);
            }
        }
        found.wake.notify_one();
        Ok(())
    }

    /// Sends a task as soon as the runner welcomes one. The same attempt is held once.
    pub async fn send_task(
        &self,
        sandbox: &SandboxId,
        task: TaskFrame,
        origin: Option<Origin>,
    ) -> Result<(), Error> {
        let found = self.bound(sandbox)?;
        let held = HeldTask {
            task: task
                .params
                .task_id
                .as_str()
                .parse()
                .map_err(|_| Error::NotOurs { sandbox: sandbox.clone() })?,
            attempt: task.attempt,
            fence: task.fence,
            depth: task.params.depth,
            context: task.params.context_id.to_string(),
            traceparent: task.params.traceparent.clone(),
            origin,
        };
        if let Some(peer) = found.peer() {
            let origin = held.origin.as_ref().unwrap_or(&peer.origin);
            let given = self.core.give(peer, origin, &task.params.input).await;
            given.map_err(|error| grant_failed(sandbox, &error))?;
        }
        let frame = self.frame(sandbox, &ToRunner::Task(Box::new(task)))?;
        let held = {
            let mut state = found.state();
            state.outlet.hold(held, frame).map_err(|_| state.outlet.waiting())
        };
        found.wake.notify_one();
        held.map_err(|waiting| Error::Full { sandbox: sandbox.clone(), waiting })
    }

    /// Takes back a task that was not sent yet, or tells the runner to stop it.
    pub async fn cancel_task(&self, sandbox: &SandboxId, cancel: CancelFrame) -> Result<Withdrawn, Error> {
        let found = self.bound(sandbox)?;
        let task = TaskRef { task_id: cancel.task_id.clone(), attempt: cancel.attempt };
        let withdrawn = found.state().outlet.withdraw(&task);
        if withdrawn {
            return Ok(Withdrawn::Unsent);
        }
        found.push(self.frame(sandbox, &ToRunner::TaskCancel(cancel))?, Keep::Yes);
        Ok(Withdrawn::Asked)
    }

    /// Tells the runner to end its handler and itself; [`Host::drained`] follows.
    pub async fn drain(&self, sandbox: &SandboxId, drain: DrainFrame) -> Result<(), Error> {
        let found = self.core.sandbox(sandbox)?;
        found.state().draining = Some(drain.id.clone());
        found.push(self.frame(sandbox, &ToRunner::Drain(drain))?, Keep::Yes);
        Ok(())
    }

    /// Says who of a crew may send what to whom, from now on. Messages for agents that left go to another of their
    /// member where they were sent to the member, and are dead letters otherwise.
    pub fn set_crew(&self, crew: &CrewId, policy: CrewPolicy) {
        let crew = self.core.crew_or_new(crew);
        let dead = crew.set_policy(policy);
        self.core.bury(&crew, dead);
    }

    /// Says how many messages a crew has sent before, as the log tells.
    pub fn know_sent(&self, crew: &CrewId, sent: u64) {
        self.core.crew_or_new(crew).state().know_sent(sent);
    }

    /// Forgets a crew: nothing crosses in it any more, and what was not delivered is a dead letter.
    pub fn remove_crew(&self, crew: &CrewId) {
        let removed = self.core.crews.lock().unwrap_or_else(PoisonError::into_inner).remove(crew);
        if let Some(crew) = removed {
            let dead = crew.clear();
            self.core.bury(&crew, dead);
        }
    }

    /// Forgets a crew that another node has taken over, with the messages that are not delivered: the other knows them
    /// from the log.
    pub fn forget_crew(&self, crew: &CrewId) {
        self.core.crews.lock().unwrap_or_else(PoisonError::into_inner).remove(crew);
    }

    /// Whether a message waits for the agent, or it has one in hand.
    pub fn has_messages(&self, crew: &CrewId, agent: &AgentId) -> bool {
        self.core.crew(crew).is_some_and(|crew| crew.state().board.has_messages(agent))
    }

    /// Says whether an agent takes work: messages to its member go to agents that do.
    pub fn set_ready(&self, agent: &AgentId, ready: bool) {
        let crews: Vec<_> = {
            let crews = self.core.crews.lock().unwrap_or_else(PoisonError::into_inner);
            crews.values().cloned().collect()
        };
        crews.iter().for_each(|crew| crew.set_ready(agent, ready));
    }

    /// Puts back the messages that were not settled when the platform ended: see [`Undelivered`]. They are delivered
    /// once their crews are set.
    pub async fn restore(&self, pending: Vec<Pending>) {
        for pending in pending {
            let crew = self.core.crew_or_new(&pending.sent.crew);
            let origin = self.core.journal.origin_at(pending.position).await;
            let dead = crew.restore(pending, origin);
            self.core.bury(&crew, dead);
        }
    }

    /// Lets go of all links without ending any incarnation, and records what is still to be recorded. The runners come
    /// back to the next platform.
    pub async fn shutdown(&self) {
        self.core.stopped.cancel();
        let sandboxes: Vec<_> = {
            let mut sandboxes = self.core.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
            sandboxes.drain().map(|(_, sandbox)| sandbox).collect()
        };
        for sandbox in &sandboxes {
            if let Some(link) = &sandbox.state().link {
                link.end(None, "the platform is shutting down");
            }
        }
        self.core.tracker.close();
        if tokio::time::timeout(CLOSE, self.core.tracker.wait()).await.is_err() {
            tracing::warn!("not all acknowledgements could be recorded: those messages are delivered again");
        }
    }

    fn bound(&self, sandbox: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let found = self.core.sandbox(sandbox)?;
        match found.peer() {
            Some(_) => Ok(found),
            None => Err(Error::Unbound { sandbox: sandbox.clone() }),
        }
    }

    fn frame(&self, sandbox: &SandboxId, frame: &ToRunner) -> Result<Arc<str>, Error> {
        let text = text(frame);
        let unfit = |error: link::Error| Error::TooLarge { sandbox: sandbox.clone(), reason: error.message };
        link::check_frame(&text).map_err(unfit)?;
        Ok(text)
    }
}

fn grant_failed(sandbox: &SandboxId, error: &link::Error) -> Error {
    Error::Grant { sandbox: sandbox.clone(), reason: error.message.clone() }
}
