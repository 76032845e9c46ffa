//! The gateway of one life of the platform, without sockets: who is bound to which sandbox, and who has linked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use events::domain::message::Pending;
use events::{AgentId, CrewId, SandboxId};
use gateway::{CrewPolicy, Host, Origin, Peer, Withdrawn};
use hypercode_actors::{Links, NotSent};
use tokio::sync::mpsc;

use super::life::Life;
use super::wire::Sabotage;

/// Frames that may wait in front of one runner.
const FRAMES_MAX: usize = 1_024;

/// What goes to a runner.
pub enum Frame {
    Assign(Box<link::Assign>),
    Task(Box<link::TaskFrame>),
    Cancel(link::CancelFrame),
    Drain,
}

#[derive(Default)]
struct Socket {
    peer: Option<Peer>,
    runner: Option<mpsc::Sender<Frame>>,
}

/// Stands in for the gateway.
pub struct Gateway {
    pub life: Life,
    pub host: Arc<dyn Host>,
    pub sabotage: Sabotage,
    sockets: Mutex<BTreeMap<SandboxId, Socket>>,
    /// Who was given the newest attempt of each task.
    newest: Mutex<BTreeMap<link::Id, (u32, u64, Peer)>>,
}

impl Gateway {
    pub fn new(life: Life, host: Arc<dyn Host>, sabotage: Sabotage) -> Self {
        Self { life, host, sabotage, sockets: Mutex::default(), newest: Mutex::default() }
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Socket>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner links; none where its socket is not there, or is nobody's yet although the sandbox was made for somebody.
    pub fn accept(&self, sandbox: &SandboxId, stands_by: bool) -> Option<mpsc::Receiver<Frame>> {
        if self.life.is_over() {
            return None;
        }
        let mut sockets = self.sockets();
        let socket = sockets.get_mut(sandbox)?;
        if socket.peer.is_none() && !stands_by {
            return None;
        }
        let (runner, frames) = mpsc::channel(FRAMES_MAX);
        socket.runner = Some(runner);
        Some(frames)
    }

    /// Whose the sandbox is.
    pub fn peer(&self, sandbox: &SandboxId) -> Option<Peer> {
        self.sockets().get(sandbox).and_then(|socket| socket.peer.clone())
    }

    /// A result as it is passed on; with its fence and sender forged where fencing is switched off.
    pub fn stamp(&self, peer: Peer, mut frame: link::TaskResultFrame) -> (Peer, link::TaskResultFrame) {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match newest.get(&frame.task_id) {
            Some((attempt, fence, owner)) if self.sabotage == Sabotage::Fencing => {
                (frame.attempt, frame.fence) = (*attempt, *fence);
                (owner.clone(), frame)
            }
            _ => (peer, frame),
        }
    }

    /// The runner's link has ended.
    pub fn hang_up(&self, sandbox: &SandboxId, reason: &str) {
        let linked = self.sockets().get_mut(sandbox).and_then(|socket| socket.runner.take()).is_some();
        if linked && !self.life.is_over() {
            self.host.link_lost(sandbox, reason);
        }
    }

    fn send(&self, sandbox: &SandboxId, frame: Frame) -> Result<(), String> {
        let runner = self.sockets().get(sandbox).and_then(|socket| socket.runner.clone());
        let runner = runner.ok_or_else(|| format!("sandbox {sandbox} has no link"))?;
        runner.try_send(frame).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Links for Gateway {
    async fn open(&self, sandbox: &SandboxId) -> Result<PathBuf, String> {
        self.life.within(async {}).await;
        self.sockets().entry(sandbox.clone()).or_default();
        Ok(PathBuf::from("/simulated/s"))
    }

    async fn close(&self, sandbox: &SandboxId) {
        self.life.within(async {}).await;
        self.sockets().remove(sandbox);
    }

    fn bind_peer(&self, sandbox: &SandboxId, peer: Peer, _: bool) -> Result<(), String> {
        let mut sockets = self.sockets();
        let socket = sockets.get_mut(sandbox).ok_or_else(|| format!("sandbox {sandbox} is not open"))?;
        socket.peer = Some(peer);
        Ok(())
    }

    fn revoke(&self, sandbox: &SandboxId) {
        self.sockets().remove(sandbox);
    }

    async fn grant(&self, _: &SandboxId, _: &link::Assign) -> Result<(), String> {
        self.life.within(async {}).await;
        Ok(())
    }

    async fn assign(&self, sandbox: &SandboxId, assign: link::Assign) -> Result<(), String> {
        let send = async {
            // A runner without a link is told when it links.
            let _ = self.send(sandbox, Frame::Assign(Box::new(assign)));
        };
        self.life.step("assign", send).await;
        Ok(())
    }

    async fn send_task(
        &self,
        sandbox: &SandboxId,
        frame: link::TaskFrame,
        _: Option<Origin>,
    ) -> Result<(), NotSent> {
        self.life.within(async {}).await;
        if let Some(peer) = self.sockets().get(sandbox).and_then(|socket| socket.peer.clone()) {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            newest.insert(frame.params.task_id.clone(), (frame.attempt, frame.fence, peer));
        }
        self.send(sandbox, Frame::Task(Box::new(frame))).map_err(NotSent::Yet)
    }

    async fn cancel_task(&self, sandbox: &SandboxId, frame: link::CancelFrame) -> Result<Withdrawn, String> {
        let sent = self.life.within(async { self.send(sandbox, Frame::Cancel(frame)) }).await;
        sent.map(|()| Withdrawn::Asked)
    }

    async fn drain(&self, sandbox: &SandboxId, _: link::DrainFrame) -> Result<(), String> {
        self.life.within(async { self.send(sandbox, Frame::Drain) }).await
    }

    fn set_crew(&self, _: &CrewId, _: CrewPolicy) {}

    fn know_sent(&self, _: &CrewId, _: u64) {}

    fn remove_crew(&self, _: &CrewId) {}

    fn forget_crew(&self, _: &CrewId) {}

    async fn restore(&self, _: Vec<Pending>) {}

    fn has_messages(&self, _: &CrewId, _: &AgentId) -> bool {
        false
    }

    fn set_ready(&self, _: &AgentId, _: bool) {}
}
