//! What all parts of the gateway share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use events::store::Epoch;
use events::{CrewId, SandboxId};

use crate::auth::Authenticator;
use crate::crew::Crew;
use crate::error::Error;
use crate::host::{Host, Peer};
use crate::journal::Journal;
use crate::options::Options;
use crate::sandbox::Sandbox;

/// The gateway's inside.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) journal: Journal,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) host: Weak<dyn Host>,
    pub(crate) sandboxes: Mutex<HashMap<SandboxId, Arc<Sandbox>>>,
    pub(crate) crews: Mutex<HashMap<CrewId, Arc<Crew>>>,
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

    /// A sandbox is an agent's from now on.
    pub(crate) fn peer_bound(&self, _sandbox: &Sandbox, _peer: &Peer) {}

    /// A link ended.
    pub(crate) fn link_down(&self, _sandbox: &Sandbox) {}

    /// A receiver answered a delivery. False: that was no delivery of ours.
    pub(crate) fn message_acked(&self, _peer: &Peer, _ack: &link::MessageAck) -> bool {
        false
    }

    /// The lease under which the crew's events are appended.
    pub(crate) fn epoch(&self, crew: &CrewId) -> Option<Epoch> {
        self.crew(crew)?.policy().epoch
    }
}
