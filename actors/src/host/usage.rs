//! What handlers say that they used of models: counted at once, written at most once per task and second.

use std::collections::BTreeMap;
use std::sync::Arc;

use events::TaskId;
use events::domain::spending::Usage;
use events::domain::task::Command;
use gateway::Peer;

use super::Host;
use super::coalesce::Noted;
use crate::core::Core;
use crate::hosted;

/// Models that one event tells apart; what is used of others is summed up under the empty name.
const MODELS_MAX: usize = 16;
/// Characters of a model's name that are kept.
const MODEL_CHARS_MAX: usize = 100;

/// Usage by model.
pub(super) struct Reported(BTreeMap<String, Usage>);

impl Reported {
    fn new(note: &link::Usage) -> Self {
        let model = note.model.iter().flat_map(|model| model.chars()).take(MODEL_CHARS_MAX).collect();
        let said = Usage {
            input_tokens: note.input_tokens,
            output_tokens: note.output_tokens,
            cost_micros: note.cost_micros,
        };
        // As a sum it counts no further than sums do.
        Self(BTreeMap::from([(model, Usage::default().and(said))]))
    }

    fn add(&mut self, model: String, usage: Usage) {
        let has_room = self.0.len() < MODELS_MAX || self.0.contains_key(&model);
        let sum = self.0.entry(if has_room { model } else { String::new() }).or_default();
        *sum = sum.and(usage);
    }
}

impl Noted for Reported {
    fn and(mut self, later: Self) -> Self {
        later.0.into_iter().for_each(|(model, usage)| self.add(model, usage));
        self
    }

    async fn write(self, core: &Arc<Core>, peer: &Peer, task: &TaskId) {
        let command = Command::Report { agent: peer.agent.clone(), models: self.0 };
        let (command_id, meta) = (core.clock.fresh_command(), core.agent_meta(peer));
        if let Err(problem) = core.command(&core.tasks, task.as_str(), command, command_id, meta).await {
            tracing::warn!(%task, %problem, "usage is not recorded");
        }
    }
}

impl Host {
    /// Counts what a handler says that it used for a task in its hands.
    pub(super) async fn take_usage(&self, peer: &Peer, note: &link::Usage) {
        let core = &self.core;
        let task = match &note.task_id {
            Some(task) => task.as_str().parse::<TaskId>().ok(),
            None => core.rosters.place(&peer.crew, &peer.agent, |place| place.only_task()).flatten(),
        };
        let reported = Reported::new(note);
        let tokens = reported.0.values().map(Usage::tokens).sum();
        let Some(task) = task.filter(|_| reported.0.values().any(|usage| !usage.is_nothing())) else {
            return;
        };
        core.meters.add(&peer.crew, tokens);
        self.usage.take(core, peer, &task, reported).await;
        if hosted::is_out_of_tokens(core, &peer.crew).await {
            // The log says first what was used, then that it was too much.
            self.usage.flush(core, peer, &task).await;
            hosted::check_tokens(core, &peer.crew).await;
        }
    }
}
