//! Calls to the Docker daemon: each with a time limit, and with errors that say what was asked.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error as Answer;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerUpdateBody, EventMessage,
    ImageInspect, NetworkCreateRequest, NetworkDisconnectRequest, NetworkInspect, SystemVersion,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, StreamExt, future, stream};
use tokio::time::{Instant, sleep, timeout};

use super::Limits;
use crate::Error;

/// How long a stream of bytes from the daemon may be silent, beside the limit of a call, in seconds; it only has to
/// be longer than any of ours.
const CLIENT_SECONDS: u64 = 3_600;
/// The first wait before a daemon that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(50);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(2);

const NOT_MODIFIED: u16 = 304;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// The daemon of this host.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    docker: Docker,
    socket: PathBuf,
    limits: Limits,
}

/// What became of a call that another one may have overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It was done now.
    Now,
    /// There is nothing (any more) to do it to, or it was done before.
    Before,
}

/// Some daemons answer with a fault of their own (500) to who asks for a container to stand still, or to go on, that does.
fn is_so_already(error: &Answer) -> bool {
    let Answer::DockerResponseServerError { message, .. } = error else { return false };
    message.ends_with("is not paused") || message.ends_with("is already paused")
}

impl Daemon {
    /// Connects, and agrees on a version of the API.
    pub(super) async fn connect(socket: &Path, limits: Limits) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Daemon {
            action: "reach",
            socket: socket.to_owned(),
            reason,
            is_away: true,
        };
        let path = socket.to_str().ok_or_else(|| unreachable("its path is not UTF-8".to_owned()))?;
        let docker = Docker::connect_with_unix(path, CLIENT_SECONDS, API_DEFAULT_VERSION)
            .map_err(|error| unreachable(error.to_string()))?;
        let call = Duration::from_millis(limits.call_ms);
        let docker = timeout(call, docker.negotiate_version())
            .await
            .map_err(|_| unreachable(format!("it does not answer within {} ms", limits.call_ms)))?
            .map_err(|error| unreachable(plain(&error)))?;
        Ok(Self { docker, socket: socket.to_owned(), limits })
    }

    /// Waits until the daemon answers, as after a restart of it.
    pub(super) async fn await_answer(&self) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_millis(self.limits.daemon_ms);
        let mut pause = RETRY;
        loop {
            match self.call("answer a ping", self.docker.ping()).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() + pause >= deadline => return Err(error),
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    pub(super) async fn version(&self) -> Result<SystemVersion, Error> {
        self.call("tell its version", self.docker.version()).await
    }

    /// The runtimes that it can run containers with.
    pub(super) async fn runtimes(&self) -> Result<Vec<String>, Error> {
        let info = self.call("tell about itself", self.docker.info()).await?;
        let mut names: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        names.sort();
        Ok(names)
    }

    /// The container of this name or id.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<ContainerInspectResponse>, Error> {
        self.find("inspect a container", self.docker.inspect_container(name, None)).await
    }

    pub(super) async fn image(&self, name: &str) -> Result<Option<ImageInspect>, Error> {
        self.find("inspect an image", self.docker.inspect_image(name)).await
    }

    /// Makes an image of a tar archive; `settings` are lines of a Dockerfile. Answers with its id.
    pub(super) async fn import(
        &self,
        name: &str,
        archive: Vec<u8>,
        settings: &[&str],
    ) -> Result<String, Error> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(settings.iter().map(|line| (*line).to_owned()).collect())
            .build();
        let body = bollard::body_full(archive.into());
        let import = async {
            let mut progress = self.docker.create_image(Some(options), Some(body), None);
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok(())
        };
        let limit = Duration::from_millis(self.limits.start_ms);
        match timeout(limit, import).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.failed("import an image", plain(&error))),
            Err(_) => return Err(self.silent("import an image", self.limits.start_ms)),
        }
        let image = self.image(name).await?.and_then(|image| image.id);
        image.ok_or_else(|| self.failed("import an image", "it is not there afterwards".to_owned()))
    }

    /// The labels of all containers with this label, whether they run or not.
    pub(super) async fn list(&self, label: &str) -> Result<Vec<HashMap<String, String>>, Error> {
        let found = self.labelled(vec![label]).await?;
        Ok(found.into_iter().filter_map(|container| container.labels).collect())
    }

    /// The id of a container with all of these labels, if there is one.
    pub(super) async fn seek(&self, labels: Vec<&str>) -> Result<Option<String>, Error> {
        Ok(self.labelled(labels).await?.into_iter().find_map(|container| container.id))
    }

    async fn labelled(&self, labels: Vec<&str>) -> Result<Vec<ContainerSummary>, Error> {
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.call("list containers", self.docker.list_containers(Some(options))).await
    }

    /// The labels of all networks with this label.
    pub(super) async fn list_networks(&self, label: &str) -> Result<Vec<HashMap<String, String>>, Error> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = self.call("list networks", self.docker.list_networks(Some(options))).await?;
        Ok(found.into_iter().filter_map(|network| network.labels).collect())
    }

    pub(super) async fn create_network(
        &self,
        request: NetworkCreateRequest,
    ) -> Result<Result<(), Refusal>, Error> {
        let limit = Duration::from_millis(self.limits.call_ms);
        let answer = timeout(limit, self.docker.create_network(request)).await;
        Ok(self.refusable("create a network", answer)?.map(drop))
    }

    /// The network of this name.
    pub(super) async fn network(&self, name: &str) -> Result<Option<NetworkInspect>, Error> {
        self.find("inspect a network", self.docker.inspect_network(name, None)).await
    }

    /// Takes a container off a network, whatever it says.
    pub(super) async fn disconnect(&self, network: &str, container: &str) -> Result<Done, Error> {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        self.done("clear a network", self.docker.disconnect_network(network, request)).await
    }

    pub(super) async fn remove_network(&self, name: &str) -> Result<Done, Error> {
        self.done("remove a network", self.docker.remove_network(name)).await
    }

    /// Makes a container and answers with its id; `None` where the name is taken.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<Result<String, Refusal>, Error> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let limit = Duration::from_millis(self.limits.start_ms);
        let answer = timeout(limit, self.docker.create_container(Some(options), body)).await;
        Ok(self.refusable("create a container", answer)?.map(|created| created.id))
    }

    pub(super) async fn start(&self, id: &str) -> Result<Result<(), Refusal>, Error> {
        let limit = Duration::from_millis(self.limits.start_ms);
        let answer = timeout(limit, self.docker.start_container(id, None)).await;
        self.refusable("start a container", answer)
    }

    pub(super) async fn kill(&self, id: &str, signal: &str) -> Result<Done, Error> {
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.done("signal a container", self.docker.kill_container(id, Some(options))).await
    }

    pub(super) async fn pause(&self, id: &str) -> Result<Done, Error> {
        self.done("pause a container", self.docker.pause_container(id)).await
    }

    pub(super) async fn unpause(&self, id: &str) -> Result<Done, Error> {
        self.done("unpause a container", self.docker.unpause_container(id)).await
    }

    pub(super) async fn update(&self, id: &str, limits: ContainerUpdateBody) -> Result<Done, Error> {
        self.done("change the limits of a container", self.docker.update_container(id, limits)).await
    }

    /// Removes a container with its volumes, whether it runs or not.
    pub(super) async fn remove(&self, id: &str) -> Result<Done, Error> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.done("remove a container", self.docker.remove_container(id, Some(options))).await
    }

    /// The end of what a container wrote to stderr, at most so many lines.
    pub(super) async fn log(&self, id: &str, lines_max: u32) -> Result<String, Error> {
        let lines = lines_max.to_string();
        let options = LogsOptionsBuilder::default().stderr(true).tail(&lines).build();
        let read = async {
            let mut text = Vec::new();
            let mut chunks = self.docker.logs(id, Some(options));
            while let Some(chunk) = chunks.next().await {
                text.extend_from_slice(&chunk?.into_bytes());
            }
            Ok(text)
        };
        let text = self.find("tell the log of a container", read).await?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What happens to containers with this label, and which containers are joined to networks, from `since` on, in
    /// seconds of the daemon's clock.
    pub(super) fn events(
        &self,
        label: &str,
        since: u64,
    ) -> impl Stream<Item = Result<EventMessage, Answer>> + Unpin + use<> {
        let own = HashMap::from([
            ("type", vec!["container"]),
            ("label", vec![label]),
            ("event", vec!["die", "exec_create", "start", "unpause"]),
        ]);
        // A network has no label of a container.
        let joined = HashMap::from([("type", vec!["network"]), ("event", vec!["connect"])]);
        let stream = |filters: &HashMap<&str, Vec<&str>>| {
            let options = EventsOptionsBuilder::default().since(&since.to_string()).filters(filters).build();
            // One that ends is to end both.
            Box::pin(self.docker.events(Some(options)).map(Some).chain(stream::once(async { None })))
        };
        let both = stream::select(stream(&own), stream(&joined));
        Box::pin(both.take_while(|event| future::ready(event.is_some())).filter_map(future::ready))
    }

    async fn call<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, Answer>>,
    ) -> Result<T, Error> {
        match timeout(Duration::from_millis(self.limits.call_ms), call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.answered(action, &error)),
            Err(_) => Err(self.silent(action, self.limits.call_ms)),
        }
    }

    async fn find<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, Answer>>,
    ) -> Result<Option<T>, Error> {
        let call = async {
            match call.await {
                Err(error) if status(&error) == Some(NOT_FOUND) => Ok(None),
                answer => answer.map(Some),
            }
        };
        self.call(action, call).await
    }

    async fn done(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<impl Sized, Answer>>,
    ) -> Result<Done, Error> {
        let call = async {
            match call.await {
                Ok(_) => Ok(Done::Now),
                Err(error) if matches!(status(&error), Some(NOT_MODIFIED | NOT_FOUND | CONFLICT)) => {
                    Ok(Done::Before)
                }
                Err(error) if is_so_already(&error) => Ok(Done::Before),
                Err(error) => Err(error),
            }
        };
        self.call(action, call).await
    }

    fn refusable<T>(
        &self,
        action: &'static str,
        answer: Result<Result<T, Answer>, tokio::time::error::Elapsed>,
    ) -> Result<Result<T, Refusal>, Error> {
        match answer {
            Ok(Ok(value)) => Ok(Ok(value)),
            Ok(Err(Answer::DockerResponseServerError { status_code: CONFLICT, .. })) => {
                Ok(Err(Refusal::Taken))
            }
            Ok(Err(Answer::DockerResponseServerError { message, .. })) => {
                Ok(Err(Refusal::Impossible(message)))
            }
            Ok(Err(error)) => Err(self.answered(action, &error)),
            Err(_) => Err(self.silent(action, self.limits.start_ms)),
        }
    }

    fn silent(&self, action: &'static str, limit_ms: u64) -> Error {
        let reason = format!("it does not answer within {limit_ms} ms");
        Error::Daemon { action, socket: self.socket.clone(), reason, is_away: true }
    }

    /// What came instead of an answer that could be used.
    fn answered(&self, action: &'static str, error: &Answer) -> Error {
        let was_asked = matches!(
            error,
            Answer::DockerResponseServerError { .. }
                | Answer::DockerStreamError { .. }
                | Answer::JsonDataError { .. }
                | Answer::JsonSerdeError { .. }
        );
        Error::Daemon { action, socket: self.socket.clone(), reason: plain(error), is_away: !was_asked }
    }

    fn failed(&self, action: &'static str, reason: String) -> Error {
        Error::Daemon { action, socket: self.socket.clone(), reason, is_away: false }
    }
}

/// Why the daemon does not do what it understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The name is taken.
    Taken,
    /// It cannot be done, in the daemon's words.
    Impossible(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("the daemon has a conflict"),
            Self::Impossible(reason) => f.write_str(reason),
        }
    }
}

fn status(error: &Answer) -> Option<u16> {
    match error {
        Answer::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// An error with its causes: hyper's own words alone say nothing.
fn plain(error: &Answer) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        let more = below.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = below.source();
    }
    text
}
