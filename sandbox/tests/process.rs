//! The process sandbox: the laws of the seam, and what only it can get wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hypercode_sandbox::conformance::Factory;
use hypercode_sandbox::{Instance, Options, Process, sandbox_conformance};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("sandboxes")
    }
}

#[async_trait]
impl Factory for Place {
    type Provider = Process;

    async fn open(&self, instance: &Instance) -> Process {
        let mut options = Options::new(self.root(), instance.clone());
        options.keeper = PathBuf::from(env!("CARGO_BIN_EXE_sandbox-stub"));
        Process::open(options).await.unwrap()
    }

    fn scratch(&self) -> &Path {
        self.0.path()
    }
}

sandbox_conformance!(Place::new());
