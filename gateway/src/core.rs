//! What all parts of the gateway share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use events::artifact::ArtifactStore;
use events::store::Epoch;
use events::{CrewId, SandboxId};
use identity::AgentKeys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::crew::Crew;
use crate::error::Error;
use crate::grant::Grants;
use crate::host::{Host, Peer};
use crate::journal::Journal;
use crate::options::Options;
use crate::sandbox::Sandbox;
use crate::state::States;

/// The gateway's inside.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) journal: Journal,
    pub(crate) artifacts: Arc<dyn ArtifactStore>,
    pub(crate) keys: Arc<AgentKeys>,
    pub(crate) host: Weak<dyn Host>,
    pub(crate) sandboxes: Mutex<HashMap<SandboxId, Arc<Sandbox>>>,
    pub(crate) crews: Mutex<HashMap<CrewId, Arc<Crew>>>,
    pub(crate) grants: Grants,
    pub(crate) states: States,
    /// What runs for no sandbox.
    pub(crate) tracker: TaskTracker,
    /// The platform shuts down: no connection is accepted any more.
    pub(crate) stopped: CancellationToken,
}

impl Core {
    /// The platform behind the gateway.
    pub(crate) fn host(&self) -> Result<Arc<dyn Host>, link::Error> {
        self.host
            .upgrade()
            .ok_or_else(|| link::Error::new(link::ErrorType::Unavailable, "the platform is shutting down"))
    }

    /// An open sandbox.
    pub(crate) fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Error> {
        let sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        sandboxes.get(id).cloned().ok_or_else(|| Error::UnknownSandbox { sandbox: id.clone() })
    }

    /// A crew.
    pub(crate) fn crew(&self, id: &CrewId) -> Option<Arc<Crew>> {
        self.crews.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// A crew whose channels are known.
    pub(crate) fn known_crew(&self, id: &CrewId) -> Result<Arc<Crew>, link::Error> {
        let message = "the crew's channels are not known here";
        self.crew(id).ok_or_else(|| link::Error::new(link::ErrorType::Unavailable, message))
    }

    /// A crew, known from now on.
    pub(crate) fn crew_or_new(&self, id: &CrewId) -> Arc<Crew> {
        let mut crews = self.crews.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Crew::new(id.clone(), &self.options.limits));
        crews.entry(id.clone()).or_insert_with(new).clone()
    }

    /// A sandbox is an agent's from now on.
    pub(crate) fn peer_bound(self: &Arc<Self>, sandbox: &Sandbox, peer: &Arc<Peer>) {
        let crew = self.crew_or_new(&peer.crew);
        let dead = crew.attach(peer, &sandbox.wake);
        self.bury(&crew, dead);
        if sandbox.state().link.is_some() {
            crew.set_linked(peer, true);
        }
    }

    /// A sandbox's link is up, or down.
    pub(crate) fn set_linked(&self, sandbox: &Sandbox, linked: bool) {
        if let Some((peer, crew)) = sandbox.peer().and_then(|peer| Some((peer, self.crew(&peer.crew)?))) {
            crew.set_linked(peer, linked);
        }
    }

    /// The lease under which the crew's events are appended.
    pub(crate) fn epoch(&self, crew: &CrewId) -> Option<Epoch> {
        self.crew(crew)?.policy().epoch
    }
}
