//! What can be set about Docker.

use std::path::PathBuf;

use super::setting::{Setting, path};

/// How Docker is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Docker {
    /// The daemon's Unix socket.
    pub socket: PathBuf,
    /// The image of agents whose profile names none.
    pub image: String,
    /// The runtime that containers are run with; `None` is the daemon's default.
    pub runtime: Option<String>,
    /// The program that is put into every container to be its runner; `None` is this one.
    pub runner: Option<PathBuf>,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(sandbox::docker::SOCKET),
            image: sandbox::docker::Options::IMAGE.to_owned(),
            runtime: None,
            runner: None,
        }
    }
}

pub(super) const SOCKET: Setting = Setting {
    key: "docker_socket",
    form: "file",
    default: "`/var/run/docker.sock`",
    meaning: "The Unix socket of the Docker daemon of this host.",
    set: |config, text| path(text).map(|socket| config.docker.socket = socket),
};

pub(super) const IMAGE: Setting = Setting {
    key: "docker_image",
    form: "image",
    default: "`hypercode/base:latest`",
    meaning: "The image of agents whose profile names none. The default one is made when it is missing.",
    set: |config, text| name(text).map(|image| config.docker.image = image),
};

pub(super) const RUNTIME: Setting = Setting {
    key: "docker_runtime",
    form: "name",
    default: "the daemon's",
    meaning: "The runtime that containers are run with, one that the daemon lists, such as `runsc`.",
    set: |config, text| name(text).map(|runtime| config.docker.runtime = Some(runtime)),
};

pub(super) const RUNNER: Setting = Setting {
    key: "docker_runner",
    form: "file",
    default: "this program",
    meaning: "The program that is put into every container to be its runner. Linked statically, it runs in any image.",
    set: |config, text| path(text).map(|runner| config.docker.runner = Some(runner)),
};

fn name(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err("expected a name".to_owned()),
        false => Ok(text.to_owned()),
    }
}
