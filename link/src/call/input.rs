//! Questions to people.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Id, misfit};

/// What kind of answer a person is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// Yes or no.
    Approval,
    /// One of some choices.
    Choice,
    /// A form with a schema.
    Form,
    /// Free text.
    Text,
}

/// What happens when nobody answers in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It counts as declined.
    #[default]
    Decline,
    /// It counts as answered with the default.
    Default,
}

/// `input/request`: ask a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputRequest {
    /// The task in hand; not given inside a result's `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Id>,
    /// The same key after a restart returns the recorded answer; not given inside a result's `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What kind of answer.
    #[serde(deserialize_with = "misfit::word")]
    pub kind: InputKind,
    /// The question.
    pub title: String,
    /// More of it, shown verbatim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// JSON Schema 2020-12 of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The choices, for a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Value>,
    /// How long to wait for the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What happens then.
    #[serde(default, deserialize_with = "misfit::word")]
    pub on_timeout: OnTimeout,
    /// The answer that counts then, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

impl InputRequest {
    /// Why it cannot be asked; `None` if it can. A default is an answer that nobody gives: it must be one that somebody
    /// could give.
    pub fn fault(&self) -> Option<String> {
        if self.kind == InputKind::Choice && self.choices.is_empty() {
            return Some("`choices` is empty, and the kind is `choice`".to_owned());
        }
        match (&self.default, self.on_timeout) {
            (None, OnTimeout::Default) => {
                Some("`onTimeout` is `default`, and there is no `default`".to_owned())
            }
            (None, OnTimeout::Decline) => None,
            (Some(default), _) => match self.kind {
                InputKind::Approval if !default.is_boolean() => {
                    Some("`default` of an approval is `true` or `false`".to_owned())
                }
                InputKind::Choice if !self.choices.contains(default) => {
                    Some("`default` is none of the `choices`".to_owned())
                }
                InputKind::Text if !default.is_string() => Some("`default` of a text is a text".to_owned()),
                _ => None,
            },
        }
    }
}

/// How an input request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// With content.
    Accept,
    /// With a no.
    Decline,
    /// Not in time.
    Timeout,
}

/// Result of `input/request`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// How it was answered.
    pub action: Action,
    /// The answer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// The principal who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where its event is in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}
