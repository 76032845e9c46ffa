//! What is beside the container of a sandbox that comes to the platform over TCP: its network, and its relay.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{ContainerInspectResponse, NetworkInspect};

use super::hardened::Drift;
use super::network::{self, Part};
use super::subnet::{Subnet, Subnets};
use super::{Inner, RELAY, labels, resolve, view};
use crate::{Error, Id, Resources, Runner, Spec};

/// How many networks are tried, of which others may have each.
const TRIES: usize = 64;

/// What a relay may use: it copies bytes.
const RESOURCES: Resources =
    Resources { cpu_millis: 1_000, memory_bytes: 64 << 20, pids: 16, open_files: 512, work_bytes: 1 << 20 };

/// What is beside a container.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// What the container is in its sandbox, as far as it needs others.
    subnet: Option<Subnet>,
    pub(super) relay: Option<Box<ContainerInspectResponse>>,
    network: Option<Box<NetworkInspect>>,
}

impl Around {
    /// Whether its way to the platform is gone.
    pub(super) fn is_cut_off(&self) -> bool {
        let relay_runs = self.relay.as_deref().is_some_and(|relay| view::phase(relay) == view::Phase::Runs);
        self.subnet.is_some() && !(relay_runs && self.network.is_some())
    }

    /// Where the network is not what it must be.
    pub(super) fn drifts(&self, container: &ContainerInspectResponse) -> Vec<Drift> {
        let own = [Some(container), self.relay.as_deref()];
        let members: Vec<&str> = own.into_iter().flatten().map(view::container_id).collect();
        self.network.as_ref().map(|network| network::drifts(network, &members)).unwrap_or_default()
    }
}

/// The name of a sandbox's relay; no sandbox has a dot in its id.
fn relay_name(id: &Id) -> String {
    format!("{id}.relay")
}

impl Inner {
    /// Looks at what is beside a container of ours.
    pub(super) async fn around(
        &self,
        id: &Id,
        container: &ContainerInspectResponse,
    ) -> Result<Around, Error> {
        let Part::Agent(subnet) = labels::part(&view::labels(container)) else {
            return Ok(Around::default());
        };
        let name = relay_name(id);
        // Apart from the rest, as few sandboxes have anything beside them.
        let both = Box::pin(async {
            tokio::try_join!(self.daemon.inspect(&name), self.daemon.network(id.as_str()))
        });
        let (relay, network) = both.await?;
        let relay = relay.filter(|relay| labels::beside(&view::labels(relay)).as_ref() == Some(id));
        Ok(Around { subnet: Some(subnet), relay: relay.map(Box::new), network: network.map(Box::new) })
    }

    /// Makes a network for a sandbox, and a relay on it that runs.
    pub(super) async fn prepare(
        &self,
        spec: &Spec,
        subnets: Subnets,
        program: &Path,
    ) -> Result<Subnet, Error> {
        // An attempt that was interrupted may have left some of it.
        self.sweep(&spec.id).await?;
        let relay = Spec {
            image: None,
            // It has the socket, which is what other runtimes cannot do.
            runtime: None,
            resources: RESOURCES,
            runner: Runner { program: program.to_owned(), argv0: RELAY.to_owned() },
            ..spec.clone()
        };
        let image = &self.options.image;
        let image = resolve::resolve(&self.daemon, image, self.options.limits.image_bytes_max).await?;
        let subnet = self.make_network(&spec.id, subnets).await?;
        let name = relay_name(&spec.id);
        let container = self.make_container(&name, &relay, &image, Part::Relay(subnet)).await?;
        match self.daemon.start(&container).await? {
            Ok(()) => Ok(subnet),
            Err(refusal) => {
                self.sweep(&spec.id).await?;
                Err(Error::Start {
                    id: spec.id.clone(),
                    reason: format!("its relay does not start: {refusal}"),
                })
            }
        }
    }

    /// Makes a network of addresses that no other has.
    async fn make_network(&self, id: &Id, subnets: Subnets) -> Result<Subnet, Error> {
        let mut last = String::new();
        for subnet in subnets.shuffled(id).take(TRIES) {
            let request = network::request(id, subnet, &self.options.instance);
            match self.daemon.create_network(request).await? {
                Ok(()) => {
                    if let Err(error) = network::deafen(subnet) {
                        tracing::debug!(sandbox = %id, %error, "the host's device of a network is left as it is");
                    }
                    return Ok(subnet);
                }
                Err(refusal) => last = refusal.to_string(),
            }
        }
        let reason = format!("no network can be made of {subnets}, which `docker_subnets` names: {last}");
        Err(Error::Start { id: id.clone(), reason })
    }

    /// Removes what is, or was, beside the container of a sandbox. Whoever calls has its gate.
    pub(super) async fn sweep(&self, id: &Id) -> Result<(), Error> {
        let is_ours = |map: &HashMap<String, String>| {
            labels::is_of(map, &self.options.instance) && labels::beside(map).as_ref() == Some(id)
        };
        let name = relay_name(id);
        if self.daemon.inspect(&name).await?.is_some_and(|relay| is_ours(&view::labels(&relay))) {
            self.remove_container(id, &name).await?;
        }
        let network = self.daemon.network(id.as_str()).await?;
        let Some(network) = network.filter(|network| network.labels.as_ref().is_some_and(is_ours)) else {
            return Ok(());
        };
        // Who was joined to it by hand does not keep it.
        for container in network.containers.iter().flat_map(|members| members.keys()) {
            self.daemon.disconnect(id.as_str(), container).await?;
        }
        self.daemon.remove_network(id.as_str()).await?;
        Ok(())
    }
}
