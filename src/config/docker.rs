//! What can be set about Docker.

use std::path::PathBuf;

use sandbox::docker::Subnets;

use super::setting::{Setting, one_of, path};

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
    /// How runners come to the platform.
    pub link: Link,
    /// The addresses of the networks of sandboxes that come over TCP.
    pub subnets: Subnets,
}

/// How a runner in a container comes to the platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// By a socket that is mounted into the container, which has no network.
    #[default]
    Socket,
    /// Over TCP, on a network of the container's own, by a relay.
    Tcp,
}

/// The ways, by name.
const LINKS: [(&str, Link); 2] = [("socket", Link::Socket), ("tcp", Link::Tcp)];

impl Default for Docker {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(sandbox::docker::SOCKET),
            image: sandbox::docker::Options::IMAGE.to_owned(),
            runtime: None,
            runner: None,
            link: Link::default(),
            subnets: Subnets::DEFAULT,
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

pub(super) const LINK: Setting = Setting {
    key: "docker_link",
    form: "`socket` or `tcp`",
    default: "`socket`",
    meaning: "How the runners in containers come to the platform. `socket`: a socket is mounted into each container, which has no network. `tcp`: for runtimes into which none can be mounted; each container has a network of its own, with a relay on it.",
    set: |config, text| one_of(text, &LINKS).map(|link| config.docker.link = link),
};

pub(super) const SUBNETS: Setting = Setting {
    key: "docker_subnets",
    form: "private IPv4 network",
    default: "`10.81.0.0/16`",
    meaning: "Where the addresses of those networks are taken from, eight for each container. No host that containers must not reach may be in it.",
    set: |config, text| {
        text.parse()
            .map(|subnets| config.docker.subnets = subnets)
            .map_err(|error| format!("failed to {error}"))
    },
};

fn name(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err("expected a name".to_owned()),
        false => Ok(text.to_owned()),
    }
}
