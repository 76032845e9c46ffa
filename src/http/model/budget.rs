//! What crews may use up and what they have, as the API shows it.

use events::domain::crew::{self, OnBreach};
use events::domain::spending::{Spent, Usage};
use schemars::JsonSchema;
use serde::Serialize;

/// What was used of models, as handlers reported it: nobody has checked that.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageModel {
    input_tokens: u64,
    output_tokens: u64,
    /// Cost in millionths of the currency unit.
    cost_micros: u64,
    /// Who says so: `reported` by the handlers.
    source: &'static str,
}

impl UsageModel {
    /// `None` where nothing was reported.
    pub(super) fn of(usage: Usage) -> Option<Self> {
        let Usage { input_tokens, output_tokens, cost_micros } = usage;
        (!usage.is_nothing()).then_some(Self { input_tokens, output_tokens, cost_micros, source: "reported" })
    }
}

/// What a crew has used up.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SpentModel {
    /// Messages that its agents sent; one to several agents is one.
    messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageModel>,
}

impl From<Spent> for SpentModel {
    fn from(spent: Spent) -> Self {
        Self { messages: spent.messages, usage: UsageModel::of(spent.usage) }
    }
}

/// What a crew may use up; what is absent is not limited.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BudgetModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// Milliseconds since it was assembled.
    #[serde(skip_serializing_if = "Option::is_none")]
    wall_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
    /// What follows when something is used up: `suspend` or `disband`.
    on_breach: &'static str,
    /// What is used up: `tokens`, `wall_time` or `messages`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exhausted: Vec<&'static str>,
}

impl BudgetModel {
    /// `None` where nothing is limited.
    pub(super) fn of(state: &crew::State) -> Option<Self> {
        let allowance = state.allowance;
        (!allowance.is_unlimited()).then(|| Self {
            tokens: allowance.tokens,
            wall_time_ms: allowance.wall_ms,
            messages: allowance.messages,
            on_breach: match allowance.on_breach {
                OnBreach::Suspend => "suspend",
                OnBreach::Disband => "disband",
            },
            exhausted: state.exhausted.keys().map(|what| what.as_str()).collect(),
        })
    }
}
