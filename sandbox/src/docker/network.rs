//! The network of a sandbox that cannot be handed the platform's socket: its own, with a relay on it and nobody else.
//!
//! ```text
//! agent …3 ──TCP──> …2:7400 relay ──> /run/hypercode/s, the platform's socket for this sandbox
//! ```
//!
//! The host has no address on it, so that none of its services can be spoken to, and nothing leads out of it. The
//! relay is a container as hardened as the agent's; it alone sees the socket.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect,
    NetworkingConfig,
};

use super::hardened::Drift;
use super::labels;
use super::subnet::Subnet;
use crate::{Id, Instance};

/// Where a relay listens.
const PORT: u16 = 7400;

/// What a network is asked to be. The last is for daemons that know it, which heed the second of it no more.
const OPTIONS: [(&str, &str); 3] = [
    ("com.docker.network.bridge.enable_ip_masquerade", "false"),
    (INHIBIT, "true"),
    ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
];
/// Has the host take no address on the network.
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
/// The name of the host's device.
const BRIDGE: &str = "com.docker.network.bridge.name";

/// What a container is in its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: it has no network.
    Alone,
    /// What runs the agent, beside a relay.
    Agent(Subnet),
    /// The relay.
    Relay(Subnet),
}

impl Part {
    /// The network that it is on.
    pub(super) fn subnet(self) -> Option<Subnet> {
        match self {
            Self::Alone => None,
            Self::Agent(subnet) | Self::Relay(subnet) => Some(subnet),
        }
    }

    /// Its place on the network of this sandbox.
    pub(super) fn place(self, id: &Id) -> Option<NetworkingConfig> {
        let address = match self {
            Self::Alone => return None,
            Self::Agent(subnet) => subnet.agent(),
            Self::Relay(subnet) => subnet.relay(),
        };
        let ipam =
            EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..EndpointIpamConfig::default() };
        let endpoint = EndpointSettings { ipam_config: Some(ipam), ..EndpointSettings::default() };
        Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(id.to_string(), endpoint)])) })
    }
}

/// Where the relay of this network is spoken to.
pub(super) fn door(subnet: Subnet) -> SocketAddr {
    SocketAddr::new(subnet.relay().into(), PORT)
}

/// The network that is to be made for a sandbox; its name is the sandbox's id.
pub(super) fn request(id: &Id, subnet: Subnet, instance: &Instance) -> NetworkCreateRequest {
    let mut options: HashMap<_, _> =
        OPTIONS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    options.insert(BRIDGE.to_owned(), subnet.bridge());
    let range = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest {
        name: id.to_string(),
        driver: Some("bridge".to_owned()),
        internal: Some(true),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam { config: Some(vec![range]), ..Ipam::default() }),
        options: Some(options),
        labels: Some(labels::of_network(id, subnet, instance)),
        ..NetworkCreateRequest::default()
    }
}

/// Has the host hear nothing that comes from the network, where this user may. Without an address of the host on it no
/// answer finds back; but who names the device and no route (`SO_BINDTODEVICE`, `MSG_DONTROUTE`) could still send a
/// datagram to any address of the host, and a strict reverse path (RFC 3704) drops that.
pub(super) fn deafen(subnet: Subnet) -> io::Result<()> {
    let bridge = subnet.bridge();
    fs::write(format!("/proc/sys/net/ipv4/conf/{bridge}/rp_filter"), "1")?;
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
    // A kernel without IPv6 has nothing to disable.
    if Path::new(&ipv6).exists() { fs::write(ipv6, "1") } else { Ok(()) }
}

/// Where a network is not what it must be, or somebody is on it who is none of these containers.
pub(super) fn drifts(network: &NetworkInspect, members: &[&str]) -> Vec<Drift> {
    let is = |name: &str, right: &str| {
        network.options.as_ref().and_then(|options| options.get(name)).is_some_and(|found| found == right)
    };
    let drift = |field: &str, found: String, right| Drift { field: field.to_owned(), found, right };
    let mut found = Vec::new();
    if network.internal != Some(true) {
        found.push(drift("Network.Internal", "false".to_owned(), "true"));
    }
    if network.enable_ipv6 == Some(true) {
        found.push(drift("Network.EnableIPv6", "true".to_owned(), "false"));
    }
    if !is(INHIBIT, "true") {
        found.push(drift("Network.Options", "an address of the host".to_owned(), "without one"));
    }
    let others = network.containers.iter().flat_map(HashMap::keys);
    let others = others.filter(|container| !members.contains(&container.as_str()));
    found.extend(others.map(|other| {
        drift("Network.Containers", other.chars().take(100).collect(), "the sandbox and its relay alone")
    }));
    found
}

#[cfg(test)]
mod tests {
    use bollard::models::EndpointResource;

    use super::*;

    fn made() -> NetworkInspect {
        let id = Id::new("one").unwrap();
        let asked = request(&id, "10.81.0.8/29".parse().unwrap(), &Instance::new("00c0ffee").unwrap());
        let members = ["agent", "relay"].map(|name| (name.to_owned(), EndpointResource::default()));
        NetworkInspect {
            internal: asked.internal,
            enable_ipv6: asked.enable_ipv6,
            options: asked.options,
            containers: Some(HashMap::from(members)),
            ..NetworkInspect::default()
        }
    }

    #[test]
    fn what_is_asked_for_is_right_and_whatever_opens_it_is_named() {
        let members = ["agent", "relay"];
        assert_eq!(drifts(&made(), &members), []);
        let open = NetworkInspect { internal: Some(false), ..made() };
        assert_eq!(drifts(&open, &members)[0].field, "Network.Internal");
        let six = NetworkInspect { enable_ipv6: Some(true), ..made() };
        assert_eq!(drifts(&six, &members)[0].field, "Network.EnableIPv6");
        let reachable = NetworkInspect { options: None, ..made() };
        assert_eq!(drifts(&reachable, &members)[0].field, "Network.Options");
        assert_eq!(drifts(&made(), &["agent"])[0].field, "Network.Containers", "somebody else is on it");
    }
}
