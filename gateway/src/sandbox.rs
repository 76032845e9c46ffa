//! One sandbox as the gateway knows it: who it is, what waits for it, what it has asked.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use events::{Digest, SandboxId};
use link::{CloseCode, ErrorType};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bootstrap::Tokens;
use crate::calls::Calls;
use crate::core::Core;
use crate::error::Error;
use crate::hand::Hand;
use crate::host::{Origin, Peer};
use crate::options::Limits;
use crate::outlet::{Keep, Outlet};
use crate::request;
use crate::send::{self, Send};
use crate::throttle::Throttle;

/// For how long a frame that named its own sender is held against its agent.
const SPOOFS_WINDOW: Duration = Duration::from_secs(60);

/// A sandbox whose socket is open.
pub(crate) struct Sandbox {
    pub(crate) id: SandboxId,
    /// The directory of its socket.
    pub(crate) directory: PathBuf,
    /// Something may be ready to be sent.
    pub(crate) wake: Arc<Notify>,
    /// When the token is to be replaced was set anew.
    pub(crate) renewal: Notify,
    /// The sandbox's time is over.
    pub(crate) closed: CancellationToken,
    /// It has a link, or none any more.
    pub(crate) relinked: Notify,
    /// All that runs for it.
    pub(crate) tracker: TaskTracker,
    /// Artifact requests at once.
    pub(crate) door: Arc<Semaphore>,
    peer: OnceLock<Arc<Peer>>,
    sends: OnceLock<mpsc::Sender<Send>>,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) outlet: Outlet,
    pub(crate) calls: Calls,
    pub(crate) results: Calls,
    pub(crate) hand: Hand,
    pub(crate) denials: Throttle,
    /// What lets its runner in before it is assigned, where that comes over a network.
    pub(crate) bootstrap: Tokens,
    /// It cannot be told any more who speaks for it: nobody does.
    pub(crate) is_spoilt: bool,
    /// The runner holds its assignment, so that a link without its token is somebody else's.
    pub(crate) token_held: bool,
    /// The assignment was sent, or the token shown.
    pub(crate) assigned: bool,
    /// When its token is to be replaced; `None` while this run of the platform has neither given nor seen one.
    pub(crate) renew_at: Option<Instant>,
    /// When its frames named their own sender, within the last minute.
    pub(crate) spoofs: VecDeque<Instant>,
    /// The bundle of the handler to start before the sandbox is anybody's: all that it may read until then.
    pub(crate) ahead: Option<Digest>,
    /// The id of the `drain` that was sent.
    pub(crate) draining: Option<link::Id>,
}

impl State {
    /// A frame named its own sender; says how many did within the last minute.
    pub(crate) fn spoofed(&mut self, now: Instant) -> u32 {
        self.spoofs.push_back(now);
        while self.spoofs.front().is_some_and(|at| now - *at >= SPOOFS_WINDOW) {
            self.spoofs.pop_front();
        }
        u32::try_from(self.spoofs.len()).unwrap_or(u32::MAX)
    }
}

/// A link that is up.
pub(crate) struct Link {
    /// Its name.
    pub(crate) id: String,
    /// It shall end, or has.
    pub(crate) cut: CancellationToken,
    /// Nothing of it runs any more.
    pub(crate) ended: CancellationToken,
    reason: OnceLock<(Option<CloseCode>, String)>,
    heard: Mutex<(Instant, u64)>,
}

impl Link {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id,
            cut: CancellationToken::new(),
            ended: CancellationToken::new(),
            reason: OnceLock::new(),
            heard: Mutex::new((Instant::now(), link::Liveness::default().heartbeat_ms)),
        }
    }

    /// Ends the link; the first reason counts. Without a code nothing is said to the peer.
    pub(crate) fn end(&self, code: Option<CloseCode>, reason: impl Into<String>) {
        let _ = self.reason.set((code, reason.into()));
        self.cut.cancel();
    }

    /// Why it ends.
    pub(crate) fn reason(&self) -> (Option<CloseCode>, &str) {
        self.reason.get().map_or((None, "the link was lost"), |(code, reason)| (*code, reason))
    }

    /// A frame came.
    pub(crate) fn heard(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
    }

    /// The runner was told to send a heartbeat so often.
    pub(crate) fn beats_every(&self, heartbeat_ms: u64) {
        // From now on: before it was told, it was not late.
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), heartbeat_ms);
    }

    /// Whether so many heartbeats are missing.
    fn silent(&self, missed: u32) -> bool {
        let (heard, heartbeat_ms) = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.elapsed() > Duration::from_millis(heartbeat_ms.saturating_mul(missed.into()))
    }
}

impl Sandbox {
    pub(crate) fn new(id: SandboxId, directory: PathBuf, limits: &Limits) -> Self {
        let kept = (limits.answers_kept_max, limits.answers_kept_bytes_max);
        let tasks_max = link::limits::CONCURRENCY_MAX as usize;
        let state = State {
            link: None,
            outlet: Outlet::new(limits.frames_queued_max, limits.tasks_queued_max),
            calls: Calls::new(limits.calls_in_flight_max, kept.0, kept.1),
            results: Calls::new(tasks_max, tasks_max, kept.1),
            hand: Hand::default(),
            denials: Throttle::new(limits.denials_recorded_per_second),
            bootstrap: Tokens::default(),
            is_spoilt: false,
            token_held: false,
            assigned: false,
            renew_at: None,
            spoofs: VecDeque::new(),
            ahead: None,
            draining: None,
        };
        Self {
            id,
            directory,
            wake: Arc::new(Notify::new()),
            renewal: Notify::new(),
            closed: CancellationToken::new(),
            relinked: Notify::new(),
            tracker: TaskTracker::new(),
            door: Arc::new(Semaphore::new(limits.door_requests_max)),
            peer: OnceLock::new(),
            sends: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// Its state, for a moment.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who it is, if it is somebody yet.
    pub(crate) fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.get()
    }

    /// What led to an act of its agent for this task, or for what it has in hand.
    pub(crate) fn origin(&self, peer: &Peer, task: Option<&str>) -> Origin {
        self.state().hand.origin(task).unwrap_or(&peer.origin).clone()
    }

    /// It is this peer's from now on, and nobody else's ever (law SB-1).
    pub(crate) fn bind(&self, peer: Peer) -> Result<&Arc<Peer>, Error> {
        let peer = Arc::new(peer);
        let bound = self.peer.get_or_init(|| peer.clone());
        if bound.is(&peer) { Ok(bound) } else { Err(Error::Bound { sandbox: self.id.clone() }) }
    }

    /// Has its token replaced at this time.
    pub(crate) fn renew_at(&self, at: Instant) {
        self.state().renew_at = Some(at);
        self.renewal.notify_one();
    }

    /// Queues a message to be sent, in order. There is room for as many as calls may be in flight.
    pub(crate) fn send(self: &Arc<Self>, core: &Arc<Core>, peer: &Arc<Peer>, send: Send) {
        let id = send.0;
        let sends = self.sends.get_or_init(|| send::start(core, self, peer));
        if sends.try_send(send).is_err() {
            let error =
                link::Error::new(ErrorType::RateLimited, "too many messages are on their way already");
            request::finish(core, self, id, Err(error));
        }
    }

    /// Queues a frame. An answer without a link is not kept: its runner asks again. A link whose peer does not read
    /// is ended.
    pub(crate) fn push(&self, frame: Arc<str>, keep: Keep) {
        let mut state = self.state();
        if state.link.is_none() && keep == Keep::No {
            return;
        }
        let full = state.outlet.push(frame, keep).is_err();
        if let (true, Some(link)) = (full, &state.link) {
            link.end(Some(CloseCode::Rate), "frames wait that the runner does not read");
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Makes `link` the sandbox's link. Where there is one already, it is given a moment to end by itself, and is
    /// ended where it was silent for long; otherwise `None`: a second link is refused.
    pub(crate) async fn claim(&self, link: &Arc<Link>, limits: &Limits) -> Option<()> {
        loop {
            let old = {
                let mut state = self.state();
                match &state.link {
                    None => {
                        state.link = Some(link.clone());
                        self.relinked.notify_one();
                        return Some(());
                    }
                    Some(old) => old.clone(),
                }
            };
            if old.silent(limits.takeover_missed_heartbeats) {
                old.end(Some(CloseCode::SecondLink), "silent for too long, and another link came");
            }
            tokio::time::timeout(Duration::from_millis(limits.takeover_ms), old.ended.cancelled())
                .await
                .ok()?;
        }
    }

    /// The link is no longer the sandbox's.
    pub(crate) fn release(&self, link: &Arc<Link>) {
        let mut state = self.state();
        if state.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            state.link = None;
            state.outlet.link_lost();
        }
        drop(state);
        self.relinked.notify_one();
        link.ended.cancel();
    }
}
