//! Why the gateway did not do what the platform asked of it.

use std::path::PathBuf;
use std::sync::Arc;

use events::SandboxId;

/// Why the gateway did not do what the platform asked of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sandbox was never opened, or is closed.
    #[error("find sandbox `{sandbox}`: it is not open at this gateway")]
    UnknownSandbox {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The sandbox serves somebody else already (law SB-1).
    #[error("bind sandbox `{sandbox}`: it serves another incarnation already")]
    Bound {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The sandbox is nobody's yet.
    #[error("use sandbox `{sandbox}`: no agent is bound to it yet")]
    Unbound {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// The task's id is none of the platform's.
    #[error("send a task to sandbox `{sandbox}`: its id is not one of the platform's")]
    NotOurs {
        /// The sandbox.
        sandbox: SandboxId,
    },
    /// There is no key to sign the agent's token with.
    #[error("give sandbox `{sandbox}` its token: {reason}")]
    NoToken {
        /// The sandbox.
        sandbox: SandboxId,
        /// What is missing.
        reason: String,
    },
    /// The socket could not be made.
    #[error("open the socket `{}`: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        source: Arc<std::io::Error>,
    },
    /// The frame is larger, or nested deeper, than a link carries.
    #[error("send a frame to sandbox `{sandbox}`: {reason}; put more into an artifact")]
    TooLarge {
        /// The sandbox.
        sandbox: SandboxId,
        /// What is too large.
        reason: String,
    },
    /// Too much waits for the sandbox already. Nothing was sent.
    #[error("send to sandbox `{sandbox}`: {waiting} frames wait for it already; try again")]
    Full {
        /// The sandbox.
        sandbox: SandboxId,
        /// How many wait.
        waiting: usize,
    },
    /// What the frame refers to could not be made readable for the crew.
    #[error("let sandbox `{sandbox}` read what the frame refers to: {reason}")]
    Grant {
        /// The sandbox.
        sandbox: SandboxId,
        /// What went wrong.
        reason: String,
    },
}
