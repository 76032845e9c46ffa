//! A replayed registry in the API's own words.

use std::collections::BTreeMap;

use events::replay::Registry;
use serde::Serialize;
use serde_json::{Value, json};

use super::SandboxKind;
use super::model::{AgentModel, CrewModel, ProfileModel, TaskModel};
use super::pools::PoolModel;

/// The lists of a registry by their names, each item as the API would have shown it; but in what kind of sandbox an agent
/// ran is no part of what replay folds.
pub(crate) fn registry(registry: &Registry) -> BTreeMap<&'static str, Vec<Value>> {
    let unknown = SandboxKind::default();
    let agent = |view| {
        let mut agent = value(AgentModel::new(view, &unknown));
        if let Some(fields) = agent.as_object_mut() {
            fields.retain(|name, _| name != "sandboxKind" && name != "isolation");
        }
        agent
    };
    BTreeMap::from([
        ("profiles", registry.profiles().map(|view| value(ProfileModel::from(view))).collect()),
        ("pools", registry.pools().iter().map(|view| value(PoolModel::brief(view, &[]))).collect()),
        ("crews", registry.crews().into_iter().map(|view| value(CrewModel::brief(view))).collect()),
        ("agents", registry.agents().into_iter().map(agent).collect()),
        ("tasks", registry.tasks().into_iter().map(|view| value(TaskModel::brief(view))).collect()),
    ])
}

fn value(model: impl Serialize) -> Value {
    json!(model)
}
