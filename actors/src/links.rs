//! What the actors ask of the gateway, so that a simulation can stand in for sockets and runners.

use std::path::PathBuf;

use async_trait::async_trait;
use events::domain::message::Pending;
use events::{AgentId, CrewId, SandboxId};
use gateway::{CrewPolicy, Gateway, Origin, Peer, Withdrawn};

/// Why an attempt was not handed to its runner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// It may be tried again when the link is back.
    #[error("{0}")]
    Yet(String),
    /// It cannot be sent as it is.
    #[error("{0}")]
    Ever(String),
}

/// The links to the sandboxes.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// Binds the sandbox's socket, anew after a restart of the platform, and says where it is.
    async fn open(&self, sandbox: &SandboxId) -> Result<PathBuf, String>;
    /// Ends the link and takes the socket away: nothing is accepted from the sandbox any more.
    async fn close(&self, sandbox: &SandboxId);
    /// Says whose an open sandbox is; `assigned` if its runner was told so by an earlier run of the platform.
    fn bind_peer(&self, sandbox: &SandboxId, peer: Peer, assigned: bool) -> Result<(), String>;
    /// The incarnation in the sandbox has ended: nothing of it is accepted any more. `close` follows.
    fn revoke(&self, sandbox: &SandboxId);
    /// Lets a sandbox read what it is about to be assigned, so that `assign` does not wait. Whose it is must be known.
    async fn grant(&self, sandbox: &SandboxId, assign: &link::Assign) -> Result<(), String>;
    /// Assigns a sandbox that stands by, now or as soon as its link is up, and gives it its token. Whose it is must be known.
    async fn assign(&self, sandbox: &SandboxId, assign: link::Assign) -> Result<(), String>;
    /// Hands an attempt to the runner, and says what led to it where that is known. `Ok` says that it will be sent
    /// while this link lives.
    async fn send_task(
        &self,
        sandbox: &SandboxId,
        frame: link::TaskFrame,
        origin: Option<Origin>,
    ) -> Result<(), NotSent>;
    /// Takes an attempt back that was not sent yet, or has the runner stop it.
    async fn cancel_task(&self, sandbox: &SandboxId, frame: link::CancelFrame) -> Result<Withdrawn, String>;
    /// Has the runner end its handler when its work in hand is done.
    async fn drain(&self, sandbox: &SandboxId, frame: link::DrainFrame) -> Result<(), String>;
    /// Who of the crew may send what to whom.
    fn set_crew(&self, crew: &CrewId, policy: CrewPolicy);
    /// How many messages the crew has sent before, as the log tells.
    fn know_sent(&self, crew: &CrewId, sent: u64);
    /// The crew is gone: nothing crosses in it any more, and what was not delivered never will be.
    fn remove_crew(&self, crew: &CrewId);
    /// The crew is another node's from now on, with what was not delivered.
    fn forget_crew(&self, crew: &CrewId);
    /// Puts back messages that were not settled, to be delivered once their crews are set.
    async fn restore(&self, pending: Vec<Pending>);
    /// Whether a message waits for the agent, or it has one in hand.
    fn has_messages(&self, crew: &CrewId, agent: &AgentId) -> bool;
    /// Whether messages to the agent are to be delivered now.
    fn set_ready(&self, agent: &AgentId, ready: bool);
}

#[async_trait]
impl Links for Gateway {
    async fn open(&self, sandbox: &SandboxId) -> Result<PathBuf, String> {
        self.open(sandbox).await.map_err(|error| error.to_string())
    }

    async fn close(&self, sandbox: &SandboxId) {
        self.close(sandbox).await;
    }

    fn bind_peer(&self, sandbox: &SandboxId, peer: Peer, assigned: bool) -> Result<(), String> {
        let bound = if assigned { self.adopt_peer(sandbox, peer) } else { self.bind_peer(sandbox, peer) };
        bound.map_err(|error| error.to_string())
    }

    fn revoke(&self, sandbox: &SandboxId) {
        self.revoke(sandbox);
    }

    async fn grant(&self, sandbox: &SandboxId, assign: &link::Assign) -> Result<(), String> {
        self.grant(sandbox, assign).await.map_err(|error| error.to_string())
    }

    async fn assign(&self, sandbox: &SandboxId, assign: link::Assign) -> Result<(), String> {
        self.assign(sandbox, assign).await.map_err(|error| error.to_string())
    }

    async fn send_task(
        &self,
        sandbox: &SandboxId,
        frame: link::TaskFrame,
        origin: Option<Origin>,
    ) -> Result<(), NotSent> {
        self.send_task(sandbox, frame, origin).await.map_err(|error| match error {
            gateway::Error::TooLarge { .. } => NotSent::Ever(error.to_string()),
            error => NotSent::Yet(error.to_string()),
        })
    }

    async fn cancel_task(&self, sandbox: &SandboxId, frame: link::CancelFrame) -> Result<Withdrawn, String> {
        self.cancel_task(sandbox, frame).await.map_err(|error| error.to_string())
    }

    async fn drain(&self, sandbox: &SandboxId, frame: link::DrainFrame) -> Result<(), String> {
        self.drain(sandbox, frame).await.map_err(|error| error.to_string())
    }

    fn set_crew(&self, crew: &CrewId, policy: CrewPolicy) {
        self.set_crew(crew, policy);
    }

    fn know_sent(&self, crew: &CrewId, sent: u64) {
        self.know_sent(crew, sent);
    }

    fn remove_crew(&self, crew: &CrewId) {
        self.remove_crew(crew);
    }

    fn forget_crew(&self, crew: &CrewId) {
        self.forget_crew(crew);
    }

    async fn restore(&self, pending: Vec<Pending>) {
        self.restore(pending).await;
    }

    fn has_messages(&self, crew: &CrewId, agent: &AgentId) -> bool {
        self.has_messages(crew, agent)
    }

    fn set_ready(&self, agent: &AgentId, ready: bool) {
        self.set_ready(agent, ready);
    }
}
