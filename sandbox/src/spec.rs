//! What a sandbox is asked to be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Id};

/// Longest path of a Unix socket, in bytes: `sun_path` has 108, the last one a zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Fewest open files with which a runner can serve a handler.
const OPEN_FILES_MIN: u32 = 16;

/// Least memory with which a runner starts, in bytes.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// One sandbox to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The sandbox's id, never used before.
    pub id: Id,
    /// For whom it is, for people and for recovery; it decides nothing.
    pub labels: Labels,
    /// The Unix socket that the gateway has bound for this sandbox; absolute, at most 107 bytes.
    pub socket: PathBuf,
    /// The image that its files come from, as its kind names images. `None`: the kind's default, or the host's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The runtime that is to run it, as its kind names runtimes. `None`: the kind's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// What the sandbox may use. [`crate::Isolation`] says what of it a provider holds.
    pub resources: Resources,
    /// How long the runner works on without a link before it ends, in milliseconds.
    pub orphan_grace_ms: u64,
    /// What is started in it.
    pub runner: Runner,
}

impl Spec {
    /// Finds what no provider could run.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first fault.
    pub fn check(&self) -> Result<(), Error> {
        let socket = self.socket.as_os_str();
        if !self.socket.is_absolute() || socket.len() > SOCKET_PATH_BYTES_MAX {
            let right = format!("an absolute path of at most {SOCKET_PATH_BYTES_MAX} bytes");
            return Err(Error::invalid("socket", &socket.to_string_lossy(), right));
        }
        let Resources { memory_bytes, open_files, .. } = self.resources;
        if memory_bytes < MEMORY_BYTES_MIN {
            let right = format!("at least {MEMORY_BYTES_MIN} bytes");
            return Err(Error::invalid("memory", &memory_bytes.to_string(), right));
        }
        if open_files < OPEN_FILES_MIN {
            let right = format!("at least {OPEN_FILES_MIN}");
            return Err(Error::invalid("number of open files", &open_files.to_string(), right));
        }
        Ok(())
    }
}

/// For whom a sandbox was made. Empty while it stands by in a pool (SB-2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The agent's id.
    pub agent: Option<String>,
    /// Which of the agent's lives.
    pub incarnation: Option<u64>,
    /// The pool it was made for.
    pub pool: Option<String>,
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of one process.
    pub open_files: u32,
    /// Size of the work directory, in bytes.
    pub work_bytes: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu_millis: 1000, memory_bytes: 512 << 20, pids: 256, open_files: 1024, work_bytes: 256 << 20 }
    }
}

/// The program that runs in a sandbox.
///
/// It is started as `argv0 --socket S --sandbox ID --work DIR --orphan-grace-ms N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The file to execute.
    pub program: PathBuf,
    /// The name it is told; the `hypercode` binary is the runner when this ends in `hypercode-runner`.
    pub argv0: String,
}

impl Runner {
    /// The name by which the `hypercode` binary knows that it is to be the runner.
    pub const ARGV0: &'static str = "hypercode-runner";

    /// The runner inside `program`, the `hypercode` binary.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, argv0: Self::ARGV0.to_owned() }
    }
}
