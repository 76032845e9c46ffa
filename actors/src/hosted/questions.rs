//! What people answered to handlers' questions.

use std::collections::BTreeMap;

use events::api::{Problem, ProblemKind};
use events::domain::DomainEvent;
use events::domain::task::{Answer, Event, State};
use events::{EntityKind, Position, StreamId, Version};
use link::{InputKind, InputRequest};
use serde_json::Value;

use crate::core::Core;

/// Events of a task that are read at a time.
const BATCH_EVENTS: usize = 200;

/// The answers to all questions of a task that were answered, by key, as the handler gets them.
pub(crate) async fn answers(
    core: &Core,
    id: &str,
    state: &State,
) -> Result<BTreeMap<String, link::Answer>, Problem> {
    let answered = || {
        state.questions.iter().filter_map(|(key, question)| Some((key.as_str(), question.answer.as_ref()?)))
    };
    if answered().next().is_none() {
        return Ok(BTreeMap::new());
    }
    let positions = positions(core, id).await?;
    Ok(answered().map(|(key, answer)| (key.to_owned(), wire(answer, positions.get(key).copied()))).collect())
}

/// Where each answer is in the log.
async fn positions(core: &Core, id: &str) -> Result<BTreeMap<String, Position>, Problem> {
    let stream = StreamId::new(EntityKind::Task, id);
    let (mut found, mut after) = (BTreeMap::new(), Version(0));
    loop {
        let batch = core.store.read_stream(&stream, after, BATCH_EVENTS).await?;
        let Some(last) = batch.last() else { return Ok(found) };
        after = last.version;
        for event in &batch {
            if let Ok(Event::InputAnswered(answered)) =
                Event::decode(&event.kind, event.schema, &event.payload)
            {
                found.insert(answered.key, event.position);
            }
        }
    }
}

fn wire(answer: &Answer, position: Option<Position>) -> link::Answer {
    link::Answer {
        action: match answer.action.as_str() {
            "accept" => link::Action::Accept,
            "timeout" => link::Action::Timeout,
            _ => link::Action::Decline,
        },
        content: Some(answer.content.clone()).filter(|content| !content.is_null()),
        by: Some(answer.by.clone()),
        position: position.map(|position| position.0),
    }
}

/// What is answered, in the form that was asked for: one of the choices, or a text. What a form's schema says of an answer is
/// for the handler to judge, who wrote it.
///
/// # Errors
/// When it is none of the choices, or nothing where a text is asked for.
pub(crate) fn fit(asked: &Value, content: Value) -> Result<Value, Problem> {
    // What cannot be read was not written by this version, and is answered as it is.
    let Ok(asked) = serde_json::from_value::<InputRequest>(asked.clone()) else { return Ok(content) };
    let invalid = |expected: String| {
        Err(Problem::new(ProblemKind::Invalid, format!("`content`: found `{content}`, expected {expected}")))
    };
    match asked.kind {
        InputKind::Choice if !asked.choices.is_empty() && !asked.choices.contains(&content) => {
            let choices: Vec<String> = asked.choices.iter().map(|choice| format!("`{choice}`")).collect();
            invalid(format!("one of {}", choices.join(", ")))
        }
        InputKind::Text if content.is_null() => invalid("a text".to_owned()),
        // Whoever types 12 means the text.
        InputKind::Text if !content.is_string() => Ok(Value::String(content.to_string())),
        _ => Ok(content),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_what_was_asked_for() {
        let choice = json!({"kind": "choice", "title": "which?", "choices": ["red", 2]});
        assert_eq!(fit(&choice, json!("red")).expect("a choice"), json!("red"));
        assert_eq!(fit(&choice, json!(2)).expect("a choice"), json!(2));
        let refused = fit(&choice, json!("purple")).expect_err("no choice");
        assert_eq!(refused.detail, "`content`: found `\"purple\"`, expected one of `\"red\"`, `2`");
        let text = json!({"kind": "text", "title": "what?"});
        assert_eq!(fit(&text, json!(12)).expect("a text"), json!("12"));
        assert!(fit(&text, Value::Null).is_err());
        let form = json!({"kind": "form", "title": "all of it", "schema": {"type": "object"}});
        assert_eq!(fit(&form, json!({"n": 1})).expect("a form"), json!({"n": 1}));
    }
}
