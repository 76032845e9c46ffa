//! Containers: plain calls to the Docker daemon, one after the other.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, RestartContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use nix::unistd::{getgid, getuid};
use sandbox::docker::SOCKET;

use crate::{Result, sandboxes};

/// How long a call may take, in seconds.
const CALL_SECONDS: u64 = 60;
/// The label of a run's containers.
const LABEL: &str = "hypercode.bench";
/// Where a container sees this program, and the directory of its socket.
const PROGRAM: &str = "/hypercode/bench";
const DIRECTORY: &str = "/run/hypercode";

/// The daemon of this host.
pub(crate) struct Daemon(Docker);

impl Daemon {
    pub(crate) async fn connect() -> Result<Self> {
        let docker = Docker::connect_with_unix(SOCKET, CALL_SECONDS, API_DEFAULT_VERSION)?;
        Ok(Self(docker.negotiate_version().await?))
    }

    /// Creates and starts a container in which this program greets the socket; answers with its id.
    pub(crate) async fn start(&self, socket: &Path) -> Result<String> {
        let (program, name) = (std::env::current_exe()?, socket.file_name().unwrap_or_default());
        let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
        let greeted = Path::new(DIRECTORY).join(name);
        let body = ContainerCreateBody {
            image: Some(sandboxes::image()),
            user: Some(format!("{}:{}", getuid(), getgid())),
            entrypoint: Some(vec![PROGRAM.to_owned()]),
            cmd: Some(vec!["hello".to_owned(), greeted.display().to_string()]),
            labels: Some(HashMap::from([(LABEL.to_owned(), std::process::id().to_string())])),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                cap_drop: Some(vec!["ALL".to_owned()]),
                readonly_rootfs: Some(true),
                binds: Some(vec![
                    format!("{}:{PROGRAM}:ro", program.display()),
                    format!("{}:{DIRECTORY}:ro", directory.display()),
                ]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let container = self.0.create_container(None::<CreateContainerOptions>, body).await?.id;
        self.0.start_container(&container, None).await?;
        Ok(container)
    }

    pub(crate) async fn pause(&self, container: &str) -> Result<()> {
        Ok(self.0.pause_container(container).await?)
    }

    pub(crate) async fn unpause(&self, container: &str) -> Result<()> {
        Ok(self.0.unpause_container(container).await?)
    }

    /// Kills what runs in the container, and starts it again.
    pub(crate) async fn restart(&self, container: &str) -> Result<()> {
        let at_once = RestartContainerOptionsBuilder::default().t(0).build();
        Ok(self.0.restart_container(container, Some(at_once)).await?)
    }

    pub(crate) async fn remove(&self, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        Ok(self.0.remove_container(container, Some(options)).await?)
    }

    /// Removes all containers that have this label.
    pub(crate) async fn remove_all(&self, label: &str) -> Result<()> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in self.0.list_containers(Some(options)).await? {
            self.remove(&container.id.unwrap_or_default()).await?;
        }
        Ok(())
    }

    /// Removes all containers that this run started by itself.
    pub(crate) async fn remove_own(&self) -> Result<()> {
        self.remove_all(&format!("{LABEL}={}", std::process::id())).await
    }

    /// Removes an image; that there is none is no fault.
    pub(crate) async fn remove_image(&self, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().force(true).build();
        match self.0.remove_image(name, Some(options), None).await {
            Ok(_) | Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
