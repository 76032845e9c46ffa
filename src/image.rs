//! Images for containers, made without a registry: of this host's own files.

use std::io;
use std::path::Path;

use sandbox::Docker;
use sandbox::docker::{Options, image};

/// What an image is to hold beside the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// What the runner's program needs, and nothing else.
    Minimal,
    /// A shell, everyday programs, and this host's Python.
    Python,
}

impl Base {
    /// The image's name at the daemon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimal => Options::IMAGE,
            Self::Python => "hypercode/python:latest",
        }
    }
}

/// Makes the image, in place of the one that has its name. Answers with its id.
///
/// # Errors
/// Where a file cannot be read, or the daemon does not take it.
pub async fn build(docker: &Docker, runner: &Path, base: Base) -> Result<String, sandbox::Error> {
    let runner = runner.to_owned();
    let packed = tokio::task::spawn_blocking(move || pack(&runner, base)).await;
    let files = packed.map_err(io::Error::other).flatten().map_err(|source| sandbox::Error::Io {
        action: "pack the image",
        path: base.name().into(),
        source: source.into(),
    })?;
    // Not the work directory: in a sandbox it is empty, whatever an image has there.
    docker.import(base.name(), files, &["USER 10001:10001", "WORKDIR /app"]).await
}

fn pack(runner: &Path, base: Base) -> io::Result<image::Files> {
    let mut files = match base {
        Base::Minimal => image::Files::new(),
        Base::Python => image::python()?,
    };
    // The program itself is put into every container; what it is linked with must be there.
    files.libraries(runner)?;
    Ok(files)
}
