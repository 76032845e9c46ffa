//! Labels: what a container tells of itself.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::{Id, Instance, Labels, Spec};

/// The platform instance that owns the container.
pub(super) const INSTANCE: &str = "hypercode.instance";
const SANDBOX: &str = "hypercode.sandbox";
const AGENT: &str = "hypercode.agent";
const INCARNATION: &str = "hypercode.incarnation";
const POOL: &str = "hypercode.pool";
/// The socket, as the host sees it.
const SOCKET: &str = "hypercode.socket";
/// The runner's file, as the host sees it.
const RUNNER: &str = "hypercode.runner";

type Map = HashMap<String, String>;

/// The labels of the container that is made for `spec`.
pub(super) fn of(spec: &Spec, runner: &str, instance: &Instance) -> Map {
    let Labels { agent, incarnation, pool } = &spec.labels;
    let mut map = Map::from([
        (INSTANCE.to_owned(), instance.to_string()),
        (SANDBOX.to_owned(), spec.id.to_string()),
        (SOCKET.to_owned(), spec.socket.to_string_lossy().into_owned()),
        (RUNNER.to_owned(), runner.to_owned()),
    ]);
    let optional = [
        (AGENT, agent.clone()),
        (INCARNATION, incarnation.map(|life| life.to_string())),
        (POOL, pool.clone()),
    ];
    map.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    map
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
