//! How a container comes and goes. Whoever calls has its sandbox's gate.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use tokio::time::{Instant, sleep};

use super::around::Around;
use super::daemon::Refusal;
use super::network::Part;
use super::resolve::Image;
use super::watch::Known;
use super::{
    Candidate, Drift, Inner, Link, Mine, RUNTIME_CLASS, assert_hardened, is_listed, is_named, labels,
    profile, resolve, view,
};
use crate::{Breach, Container, Error, Exit, Id, Running, Spec, Tampering};

/// How often it is looked whether a container that was removed is gone.
const GONE_PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    pub(super) async fn create(self: &Arc<Self>, spec: &Spec) -> Result<Running, Error> {
        let id = &spec.id;
        let used = || Error::Used { id: id.clone() };
        let place = self.creates.acquire().await;
        let _place = place.expect("nobody closes it");
        let mine = match self.mine(id).await {
            Err(Error::Daemon { .. }) => {
                self.daemon.await_answer().await?;
                self.mine(id).await?
            }
            mine => mine?,
        };
        let (container, part) = match mine {
            Mine::No => return Err(used()),
            Mine::Absent if self.used.has(id) => return Err(used()),
            Mine::Absent => self.make(spec).await?,
            Mine::Yes(container) => match view::phase(&container) {
                view::Phase::Made if is_named(&container, id) => {
                    (view::container_id(&container).to_owned(), labels::part(&view::labels(&container)))
                }
                view::Phase::Runs => return self.running_now(id, &container).await,
                // What only says that it is this one's, and never ran, was not made here.
                view::Phase::Made | view::Phase::Ended => return Err(used()),
            },
        };
        self.start(spec, &container, part).await
    }

    /// Makes the container, with its network and relay where it has them, if it is what the profile says.
    async fn make(&self, spec: &Spec) -> Result<(String, Part), Error> {
        let spec = &self.chosen(spec).await?;
        let name = spec.image.as_deref().unwrap_or(&self.options.image);
        let image = resolve::resolve(&self.daemon, name, self.options.limits.image_bytes_max).await?;
        let part = match &self.options.link {
            Link::Socket => Part::Alone,
            Link::Tcp { subnets, relay } => Part::Agent(Box::pin(self.prepare(spec, *subnets, relay)).await?),
        };
        Ok((self.make_container(spec.id.as_str(), spec, &image, part).await?, part))
    }

    /// The specification with the runtime that it does not name, or names rightly.
    async fn chosen(&self, spec: &Spec) -> Result<Spec, Error> {
        if let Some(runtime) = &spec.runtime {
            is_listed(&self.daemon, RUNTIME_CLASS, runtime).await?;
        }
        let runtime = spec.runtime.clone().or_else(|| self.options.runtime.clone());
        Ok(Spec { runtime, ..spec.clone() })
    }

    /// Makes one container of the sandbox under this name, if it is what the profile says.
    pub(super) async fn make_container(
        &self,
        name: &str,
        spec: &Spec,
        image: &Image,
        part: Part,
    ) -> Result<String, Error> {
        let request = profile::request(spec, image, &self.options.instance, part)?;
        let refused = match assert_hardened(&Candidate::asked(&request)) {
            Err(drifts) => less_shut_off(&spec.id, &in_words(&drifts)),
            Ok(()) => match self.daemon.create(name, request).await? {
                Ok(container) => return Ok(container),
                Err(Refusal::Taken) => Error::Used { id: spec.id.clone() },
                Err(Refusal::Impossible(reason)) => Error::Start { id: spec.id.clone(), reason },
            },
        };
        self.used.mark(&spec.id)?;
        if part != Part::Alone {
            Box::pin(self.sweep(&spec.id)).await?;
        }
        Err(refused)
    }

    /// Starts a container that never ran, and looks at what the daemon made of it.
    async fn start(self: &Arc<Self>, spec: &Spec, container: &str, part: Part) -> Result<Running, Error> {
        let id = &spec.id;
        // From here on it may run: nothing else ever does under this id.
        self.used.mark(id)?;
        if let Err(refusal) = self.daemon.start(container).await? {
            self.remove(id, container, part).await?;
            return Err(Error::Start { id: id.clone(), reason: refusal.to_string() });
        }
        let Some(made) = self.daemon.inspect(container).await? else {
            return Err(Error::Start { id: id.clone(), reason: "it was removed at once".to_owned() });
        };
        let around = self.around(id, &made).await?;
        if let Some((what, detail)) = self.fault(id, &made, &around, None) {
            self.report(id, &made, what, &detail);
            self.remove(id, container, part).await?;
            return Err(less_shut_off(id, &detail));
        }
        let runner = view::pid(&made);
        self.watch.add(id.clone(), known(&made, &around));
        // It may have ended before anybody knew of it.
        if view::phase(&made) == view::Phase::Ended {
            self.settle(id).await;
        }
        Ok(Running { id: id.clone(), runner, work: profile::work() })
    }

    /// Answers with what runs, for a create that is repeated.
    async fn running_now(
        self: &Arc<Self>,
        id: &Id,
        container: &ContainerInspectResponse,
    ) -> Result<Running, Error> {
        match self.judge(id, container, None).await {
            Some(detail) => Err(less_shut_off(id, &detail)),
            None => Ok(Running { id: id.clone(), runner: view::pid(container), work: profile::work() }),
        }
    }

    /// Looks at a sandbox again: what is not what it must be is killed at once, and what has ended is announced.
    /// `seen` is what is known to have been done to it. Whoever calls has its gate.
    pub(super) async fn look(self: &Arc<Self>, id: &Id, seen: Option<Tampering>) {
        match self.mine(id).await {
            Ok(Mine::Yes(container)) if view::phase(&container) == view::Phase::Runs => {
                self.judge(id, &container, seen).await;
            }
            Ok(_) => self.settle(id).await,
            Err(error) => tracing::warn!(sandbox = %id, %error, "a sandbox cannot be looked at yet"),
        }
    }

    /// Judges a container that runs: it is known from now on, or is killed and it is said why. Whoever calls has its
    /// gate.
    pub(super) async fn judge(
        &self,
        id: &Id,
        container: &ContainerInspectResponse,
        seen: Option<Tampering>,
    ) -> Option<String> {
        let around = match self.around(id, container).await {
            Ok(around) => around,
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "what is beside a sandbox cannot be looked at yet");
                return None;
            }
        };
        let detail = match self.fault(id, container, &around, seen) {
            Some((what, detail)) => {
                self.watch.change(id, |known| known.is_spoilt = true);
                self.report(id, container, what, &detail);
                detail
            }
            None if around.is_cut_off() => {
                tracing::warn!(sandbox = %id, "the relay of a sandbox has ended; the sandbox ends with it");
                "its relay has ended".to_owned()
            }
            // It could not be killed for what was seen, and that is not undone by being seen no more.
            None if self.watch.get(id).is_some_and(|known| known.is_spoilt) => {
                "it was tampered with".to_owned()
            }
            None => {
                if self.watch.get(id).is_none() {
                    self.watch.add(id.clone(), known(container, &around));
                }
                return None;
            }
        };
        if let Err(error) = self.kill(id, container).await {
            tracing::error!(sandbox = %id, %error, "a sandbox that was tampered with is not killed yet");
        }
        Some(detail)
    }

    /// Why a container that runs, or what is beside it, cannot be trusted, if so.
    fn fault(
        &self,
        id: &Id,
        container: &ContainerInspectResponse,
        around: &Around,
        seen: Option<Tampering>,
    ) -> Option<(Tampering, String)> {
        let own = [Some(container), around.relay.as_deref()];
        if own.into_iter().flatten().any(view::has_lived_before) {
            return Some((Tampering::Started, "it had ended, and somebody started it again".to_owned()));
        }
        if seen == Some(Tampering::Executed) || own.into_iter().flatten().any(view::has_execs) {
            return Some((Tampering::Executed, "somebody had something executed in it".to_owned()));
        }
        let is_still = self.watch.get(id).is_some_and(|known| known.is_still);
        if is_still && !view::is_paused(container) {
            return Some((
                Tampering::Unpaused,
                "it was to stand still, and somebody had it go on".to_owned(),
            ));
        }
        let judged = own.into_iter().flatten().map(|one| assert_hardened(&Candidate::made(one)));
        let mut drifts: Vec<Drift> = judged.filter_map(Result::err).flatten().collect();
        drifts.extend(around.drifts(container));
        (!drifts.is_empty()).then(|| (Tampering::Drifted, in_words(&drifts)))
    }

    fn report(&self, id: &Id, container: &ContainerInspectResponse, what: Tampering, detail: &str) {
        let labels = labels::read(&view::labels(container));
        self.watch.report(Breach { id: id.clone(), labels, what, detail: detail.to_owned() });
    }

    pub(super) async fn destroy(self: &Arc<Self>, id: &Id) -> Result<(), Error> {
        let container = match self.mine(id).await? {
            Mine::No => return Ok(()),
            Mine::Absent => None,
            Mine::Yes(container) => Some(container),
        };
        // First of all: a create that comes late must not start what is being removed.
        self.used.mark(id)?;
        if let Some(container) = &container {
            self.kill(id, container).await?;
        }
        self.settle(id).await;
        match container {
            Some(container) => {
                let part = labels::part(&view::labels(&container));
                self.remove(id, view::container_id(&container), part).await
            }
            // Its making may have been interrupted.
            None => Box::pin(self.sweep(id)).await,
        }
    }

    /// Kills what runs in the container, and waits until the daemon knows that it has ended.
    pub(super) async fn kill(&self, id: &Id, container: &ContainerInspectResponse) -> Result<(), Error> {
        let name = view::container_id(container);
        if view::is_paused(container) {
            self.daemon.unpause(name).await?;
        }
        if view::phase(container) == view::Phase::Runs {
            self.daemon.kill(name, "SIGKILL").await?;
        }
        self.wait(id, name, |container| {
            container.is_none_or(|found| view::phase(&found) != view::Phase::Runs)
        })
        .await
    }

    /// Removes the container and what is beside it, and makes sure that it is gone.
    async fn remove(&self, id: &Id, container: &str, part: Part) -> Result<(), Error> {
        self.watch.take(id);
        self.remove_container(id, container).await?;
        if part == Part::Alone { Ok(()) } else { Box::pin(self.sweep(id)).await }
    }

    pub(super) async fn remove_container(&self, id: &Id, container: &str) -> Result<(), Error> {
        self.daemon.remove(container).await?;
        self.wait(id, container, |container| container.is_none()).await
    }

    pub(super) async fn wait(
        &self,
        id: &Id,
        container: &str,
        is_done: impl Fn(Option<ContainerInspectResponse>) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_millis(self.options.limits.gone_ms);
        while !is_done(self.daemon.inspect(container).await?) {
            if Instant::now() >= deadline {
                let pids = view::processes(container);
                return Err(Error::StillRunning { id: id.clone(), pids });
            }
            sleep(GONE_PAUSE).await;
        }
        Ok(())
    }

    /// Announces the exit of a sandbox that is known to have run and does no more. Whoever calls has its gate.
    pub(super) async fn settle(self: &Arc<Self>, id: &Id) {
        let Some(known) = self.watch.get(id) else { return };
        let exit = match self.daemon.inspect(&known.container.id).await {
            Ok(Some(container)) if view::phase(&container) == view::Phase::Runs => return,
            Ok(Some(container)) => self.exit(id, &container).await,
            // It was removed by somebody else, and nobody saw how it ended.
            Ok(None) => Exit { id: id.clone(), code: None, signal: None, oom: false, log: String::new() },
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the end of a sandbox cannot be read yet");
                return;
            }
        };
        if self.watch.take(id) {
            self.watch.announce(exit);
        }
    }

    pub(super) async fn exit(&self, id: &Id, container: &ContainerInspectResponse) -> Exit {
        let log = self.daemon.log(view::container_id(container), self.options.limits.log_lines).await;
        let log = log.unwrap_or_else(|error| {
            tracing::warn!(sandbox = %id, %error, "the log of a sandbox cannot be read");
            String::new()
        });
        view::exit(id, container, &log)
    }
}

/// What is to be remembered of a container that runs.
fn known(container: &ContainerInspectResponse, around: &Around) -> Known {
    let speaker = around.relay.as_deref().unwrap_or(container);
    Known {
        speaker: view::container_id(speaker).to_owned(),
        container: Container {
            id: view::container_id(container).to_owned(),
            image: view::image(container).to_owned(),
        },
        is_still: view::is_paused(container),
        is_spoilt: false,
    }
}

pub(super) fn in_words(drifts: &[Drift]) -> String {
    let all: Vec<String> = drifts.iter().map(Drift::to_string).collect();
    all.join("; ")
}

pub(super) fn less_shut_off(id: &Id, detail: &str) -> Error {
    Error::Start { id: id.clone(), reason: format!("it is less shut off than it must be: {detail}") }
}
