//! What a checked handler is answered in place of a platform.

use std::collections::HashMap;

use link::{ArtifactPut, ArtifactUrl, Call, Error, ErrorType, StateGet, StatePut};
use serde_json::{Value, json};

/// A platform in little: state that is kept, children that echo, people that agree.
#[derive(Default)]
pub(super) struct Answers {
    state: HashMap<String, (Value, u64)>,
    children: u64,
}

impl Answers {
    /// Answers a request of the handler, or says what is wrong with it.
    pub(super) fn answer(&mut self, method: &str, params: Value) -> Result<Value, Error> {
        match method {
            "artifact/put" => return put(params),
            "artifact/get" => {
                return Err(Error::new(ErrorType::UnknownArtifact, "the check keeps no artifacts"));
            }
            _ => {}
        }
        match Call::parse(method, params)? {
            Call::Checkpoint(_) => Ok(json!({"position": 1})),
            Call::Delegate(call) => {
                self.children += 1;
                let state = if call.wait { "completed" } else { "submitted" };
                Ok(
                    json!({"taskId": format!("tk_child{}", self.children), "state": state, "output": call.input}),
                )
            }
            Call::Await(call) => {
                let done =
                    |id: &link::Id| json!({"taskId": id, "state": "completed", "output": {"parts": []}});
                Ok(json!({"tasks": call.task_ids.iter().map(done).collect::<Vec<_>>()}))
            }
            Call::CancelChild(_) => Ok(json!({"state": "canceled"})),
            Call::MessageSend(_) => Ok(json!({"messageId": "ms_check", "position": 1, "recipients": 1})),
            Call::InputRequest(call) => {
                let content = call.default.unwrap_or(Value::Null);
                Ok(json!({"action": "accept", "content": content, "by": "user:check", "position": 1}))
            }
            Call::StatePut(call) => self.store(call),
            Call::StateGet(StateGet { key, .. }) => match self.state.get(&key) {
                Some((value, version)) => Ok(json!({"value": value, "version": version})),
                None => Err(Error::new(ErrorType::UnknownKey, format_args!("no value under `{key}`"))),
            },
            Call::ToolList(_) => Ok(json!({"tools": []})),
            Call::ToolCall(call) => Err(Error::new(
                ErrorType::ToolDenied,
                format_args!("the check allows no tool, not `{}` either", call.name),
            )),
        }
    }

    fn store(&mut self, call: StatePut) -> Result<Value, Error> {
        let held = self.state.get(&call.key).map_or(0, |(_, version)| *version);
        if call.if_version.is_some_and(|wanted| wanted != held) {
            return Err(Error::new(
                ErrorType::VersionConflict,
                format_args!("`{}` has version {held}", call.key),
            ));
        }
        self.state.insert(call.key, (call.value, held + 1));
        Ok(json!({"version": held + 1}))
    }
}

fn put(params: Value) -> Result<Value, Error> {
    let call: ArtifactPut = serde_json::from_value(params)
        .map_err(|error| Error::new(ErrorType::InvalidParams, format_args!("`artifact/put`: {error}")))?;
    call.check()?;
    let bytes = match (&call.text, &call.path) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, path) => {
            let path = path.as_deref().unwrap_or_default();
            std::fs::read(path).map_err(|error| {
                Error::new(ErrorType::InvalidParams, format_args!("read `{path}`: {error}"))
                    .with("field", "path")
            })?
        }
    };
    let digest = events::Digest::of(&bytes).to_string();
    let url = ArtifactUrl::of_digest(&digest).map_err(|error| Error::new(ErrorType::InvalidParams, error))?;
    Ok(json!({"url": url, "digest": url.digest(), "size": bytes.len()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_and_its_versions_rise() {
        let mut answers = Answers::default();
        assert_eq!(answers.answer("state/put", json!({"key": "k", "value": 1})), Ok(json!({"version": 1})));
        assert_eq!(answers.answer("state/get", json!({"key": "k"})), Ok(json!({"value": 1, "version": 1})));
        let stale = answers.answer("state/put", json!({"key": "k", "value": 2, "ifVersion": 7})).unwrap_err();
        assert_eq!(stale.kind, Some(ErrorType::VersionConflict));
        let missing = answers.answer("state/get", json!({"key": "other"})).unwrap_err();
        assert_eq!(missing.kind, Some(ErrorType::UnknownKey));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut answers = Answers::default();
        let error = answers.answer("task/delegate", json!({"taskId": "tk_1"})).unwrap_err();
        assert_eq!(error.kind, Some(ErrorType::InvalidParams));
        assert_eq!(
            answers.answer("task/delegat", json!({})).unwrap_err().kind,
            Some(ErrorType::MethodNotFound)
        );
    }
}
