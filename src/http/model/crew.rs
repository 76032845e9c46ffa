//! Crews as the API shows them.

use std::collections::BTreeMap;

use events::domain::crew;
use events::projection::CrewView;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::budget::{BudgetModel, SpentModel};
use super::{KilledModel, some};

/// A crew.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct CrewModel {
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
    /// `assembling`, `running`, `paused`, `draining`, `disbanding`, `disbanded` or `failed`.
    status: &'static str,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// By whom it was killed, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    killed: Option<KilledModel>,
    /// The member that gets the crew's tasks.
    entry: String,
    /// Agents that it has.
    agents: usize,
    /// Agents of it that are ready.
    agents_ready: u32,
    /// Tasks of it that have not ended.
    tasks_open: u32,
    /// What it may use up; absent where nothing is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetModel>,
    /// What it has used up.
    spent: SpentModel,
    /// Its agents in start order; only where one crew is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    seats: Vec<SeatModel>,
    /// Its specification in normal form; only where one crew is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
    created: u64,
    created_at: String,
    updated: u64,
    updated_at: String,
}

/// An agent's place in a crew.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SeatModel {
    agent: String,
    member: String,
    replica: u32,
    profile: String,
    profile_version: u32,
    incarnation: u64,
    /// `quarantined`, `removed` or `killed`, where the crew no longer counts on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<&'static str>,
}

impl CrewModel {
    pub(in crate::http) fn brief(view: CrewView) -> Self {
        Self { seats: Vec::new(), spec: None, ..Self::full(view) }
    }

    pub(in crate::http) fn full(view: CrewView) -> Self {
        let CrewView { id, lifespan, state, agents_ready, tasks_open, spent } = view;
        let budget = BudgetModel::of(&state);
        let seats: Vec<SeatModel> = state.seats.iter().map(SeatModel::of).collect();
        let started = state.started;
        let (name, labels, entry, spec) = started
            .map(|started| (started.name, started.labels, started.entry, Some(started.spec)))
            .unwrap_or_default();
        Self {
            id: id.to_string(),
            name,
            labels,
            status: state.status.as_str(),
            reason: some(&state.reason),
            killed: state.killed.map(KilledModel::from),
            entry,
            agents: seats.iter().filter(|seat| seat.given_up.is_none()).count(),
            agents_ready,
            tasks_open,
            budget,
            spent: spent.into(),
            seats,
            spec,
            created: lifespan.created.0,
            created_at: lifespan.created_at.rfc3339(),
            updated: lifespan.updated.0,
            updated_at: lifespan.updated_at.rfc3339(),
        }
    }
}

impl SeatModel {
    fn of(held: &crew::Held) -> Self {
        let seat = &held.seat;
        Self {
            agent: seat.agent.to_string(),
            member: seat.member.clone(),
            replica: seat.replica,
            profile: seat.profile.clone(),
            profile_version: seat.profile_version,
            incarnation: held.incarnation.0,
            given_up: held.given_up.map(|given_up| match given_up {
                _ if held.killed.is_some() => "killed",
                crew::GivenUp::Quarantined => "quarantined",
                crew::GivenUp::Removed => "removed",
            }),
        }
    }
}
