//! Labels: what a container tells of itself.

use std::collections::HashMap;
use std::path::PathBuf;

use super::network::Part;
use super::subnet::Subnet;
use crate::{Id, Instance, Labels, Spec};

/// The platform instance that owns the container.
pub(super) const INSTANCE: &str = "hypercode.instance";
/// The sandbox whose container it is.
pub(super) const SANDBOX: &str = "hypercode.sandbox";
const AGENT: &str = "hypercode.agent";
const INCARNATION: &str = "hypercode.incarnation";
const POOL: &str = "hypercode.pool";
/// The socket, as the host sees it.
const SOCKET: &str = "hypercode.socket";
/// The runner's file, as the host sees it.
const RUNNER: &str = "hypercode.runner";
/// The runtime that was asked for, if not the daemon's default.
const RUNTIME: &str = "hypercode.runtime";
/// The sandbox whose relay it is, or whose network.
const RELAY: &str = "hypercode.relay";
/// The addresses of the sandbox's network.
const SUBNET: &str = "hypercode.subnet";

type Map = HashMap<String, String>;

/// The labels of a container that is made for `spec`.
pub(super) fn of(spec: &Spec, runner: &str, instance: &Instance, runtime: Option<&str>, part: Part) -> Map {
    let Labels { agent, incarnation, pool } = &spec.labels;
    let whose = if matches!(part, Part::Relay(_)) { RELAY } else { SANDBOX };
    let mut map = Map::from([
        (INSTANCE.to_owned(), instance.to_string()),
        (whose.to_owned(), spec.id.to_string()),
        (SOCKET.to_owned(), spec.socket.to_string_lossy().into_owned()),
        (RUNNER.to_owned(), runner.to_owned()),
    ]);
    let optional = [
        (AGENT, agent.clone()),
        (INCARNATION, incarnation.map(|life| life.to_string())),
        (POOL, pool.clone()),
        (RUNTIME, runtime.map(str::to_owned)),
        (SUBNET, part.subnet().map(|subnet| subnet.to_string())),
    ];
    map.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    map
}

/// The labels of a sandbox's network.
pub(super) fn of_network(id: &Id, subnet: Subnet, instance: &Instance) -> Map {
    Map::from([
        (INSTANCE.to_owned(), instance.to_string()),
        (RELAY.to_owned(), id.to_string()),
        (SUBNET.to_owned(), subnet.to_string()),
    ])
}

/// What it was made for, as its labels say.
pub(super) fn read(map: &Map) -> Labels {
    Labels {
        agent: map.get(AGENT).cloned(),
        incarnation: map.get(INCARNATION).and_then(|life| life.parse().ok()),
        pool: map.get(POOL).cloned(),
    }
}

/// The sandbox that it is.
pub(super) fn sandbox(map: &Map) -> Option<Id> {
    Id::new(map.get(SANDBOX)?.as_str()).ok()
}

/// The sandbox that it belongs to without being it: it is the relay, or the network.
pub(super) fn beside(map: &Map) -> Option<Id> {
    Id::new(map.get(RELAY)?.as_str()).ok()
}

/// What it is in its sandbox.
pub(super) fn part(map: &Map) -> Part {
    match map.get(SUBNET).and_then(|subnet| subnet.parse().ok()) {
        None => Part::Alone,
        Some(subnet) if map.contains_key(RELAY) => Part::Relay(subnet),
        Some(subnet) => Part::Agent(subnet),
    }
}

/// The runtime that was asked for, if not the daemon's default.
pub(super) fn runtime(map: &Map) -> Option<&str> {
    map.get(RUNTIME).map(String::as_str)
}

/// Its socket, as the host sees it.
pub(super) fn socket(map: &Map) -> Option<PathBuf> {
    map.get(SOCKET).map(PathBuf::from)
}

/// Its runner's file, as the host sees it.
pub(super) fn runner(map: &Map) -> Option<&str> {
    map.get(RUNNER).map(String::as_str)
}

/// Whether it belongs to this instance.
pub(super) fn is_of(map: &Map, instance: &Instance) -> bool {
    map.get(INSTANCE).is_some_and(|owner| owner == instance.as_str())
}
