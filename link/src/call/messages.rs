//! Messages to other members.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Address, ArtifactUrl, Body, Content, Id, Part};

/// `message/send`. On the wire the content is `parts`, or `text`, or any JSON as `data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SendWire", into = "SendWire")]
pub struct MessageSend {
    /// Who shall get it.
    pub to: Address,
    /// What it holds.
    pub content: Content,
    /// Same key, same message.
    pub key: Option<String>,
    /// The task that it is about.
    pub task_id: Option<Id>,
    /// The conversation that it belongs to.
    pub context_id: Option<Id>,
    /// The message that it answers.
    pub reply_to: Option<Id>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SendWire {
    to: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<Part>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<Id>,
}

impl TryFrom<SendWire> for MessageSend {
    type Error = &'static str;

    fn try_from(wire: SendWire) -> Result<Self, Self::Error> {
        let content = match (wire.parts, wire.text, wire.data) {
            (Some(parts), _, None) => Content { parts },
            (None, Some(text), None) => Content::text(text),
            (None, None, Some(data)) => Content::data(data),
            _ => return Err("a message has `parts`, or `text`, or `data`"),
        };
        let SendWire { to, key, task_id, context_id, reply_to, .. } = wire;
        Ok(Self { to, content, key, task_id, context_id, reply_to })
    }
}

impl From<MessageSend> for SendWire {
    fn from(send: MessageSend) -> Self {
        let MessageSend { to, content, key, task_id, context_id, reply_to } = send;
        Self { to, parts: Some(content.parts), text: None, data: None, key, task_id, context_id, reply_to }
    }
}

/// Result of `message/send`: the message is in the log; it may not be delivered yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    /// The message.
    pub message_id: Id,
    /// Where its event is in the log.
    pub position: u64,
    /// How many agents it goes to.
    pub recipients: u32,
}

impl MessageSend {
    /// The content's text parts joined, as a receiver's `text`.
    pub fn text(&self) -> String {
        self.content.joined_text()
    }

    /// References to artifacts in the content.
    pub fn artifacts(&self) -> impl Iterator<Item = &ArtifactUrl> {
        self.content.parts.iter().filter_map(|part| match &part.body {
            Body::Url(url) => Some(url),
            _ => None,
        })
    }
}
