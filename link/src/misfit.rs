//! What does not fit of what a handler wrote: where it is, what was found and what would be right, in the protocol's
//! words rather than in those of a parser.

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::IntoDeserializer as _};
use serde_json::Value;

use crate::{Error, ErrorType, limits::ID_CHARS_MAX, parse::brief};

/// Reads what a handler gave as `what`, such as "the params of `busy`".
///
/// Errors: `invalid_params`, which begins with `what`. For an unknown field, `data.field` is the nearest known one; for
/// a missing one, that one.
pub fn params<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = brief(&error.path().to_string());
        let misfit =
            Misfit { what, path: Some(path).filter(|path| path != "."), said: error.inner().to_string() };
        misfit.error()
    })
}

/// For `#[serde(deserialize_with)]` on a field that holds one of a few words: whatever is there instead, they are named.
pub(crate) fn word<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(shown(&Value::deserialize(deserializer)?).as_str().into_deserializer())
}

/// A text as it is, anything else as its JSON, which is never a word of the protocol.
pub(crate) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| brief(&value.to_string()), brief)
}

/// What serde said, and of which place.
struct Misfit<'a> {
    what: &'a str,
    /// None: of the whole.
    path: Option<String>,
    said: String,
}

impl Misfit<'_> {
    fn error(&self) -> Error {
        let said = self.said.as_str();
        let mut names = self.said.split('`').skip(1).step_by(2);
        let first = names.next().unwrap_or_default();
        let invalid = |message: String| {
            Error::new(ErrorType::InvalidParams, format_args!("{}: {}", self.what, brief(&message)))
        };
        if said.starts_with("unknown field") {
            let path = self.path.as_deref().unwrap_or(first);
            let known: Vec<&str> = names.collect();
            let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let invalid = invalid(format!("unknown field `{path}`, there are {list}"));
            return match known.into_iter().min_by_key(|known| edit_distance(first, known)) {
                Some(nearest) => invalid.with("field", nearest),
                None => invalid,
            };
        }
        if said.starts_with("missing field") {
            let within = self.path.as_deref().map_or_else(String::new, |path| format!("{path}."));
            return invalid(format!("`{within}{first}` is missing")).with("field", first);
        }
        let place = self.path.as_deref().map(|path| format!("`{path}`"));
        let mismatch = ["invalid type: ", "invalid value: ", "unknown variant "]
            .iter()
            .find_map(|kind| said.strip_prefix(kind)?.rsplit_once(", expected "));
        invalid(match (mismatch, place) {
            (Some((found, expected)), place) => {
                let place = place.as_deref().unwrap_or("this");
                format!("{place} is {}, not {}", right(expected), wrong(&brief(found)))
            }
            (None, Some(place)) => format!("{place}: {said}"),
            (None, None) => said.to_owned(),
        })
    }
}

/// What serde expects.
fn right(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" => "a text",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" => "a whole number from 0 up",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a map" => "an object",
        expected if expected.starts_with("struct ") => "an object",
        expected => expected,
    }
}

/// What serde found.
fn wrong(found: &str) -> String {
    match found.split_once(' ') {
        Some(("integer", number)) => format!("the number {number}"),
        Some(("floating", number)) => format!("the number {}", number.trim_start_matches("point ")),
        Some(("string", text)) => format!("the text {text}"),
        Some(("boolean", value)) => value.to_owned(),
        _ => match found {
            "map" => "an object".to_owned(),
            "sequence" => "a list".to_owned(),
            "unit value" => "null".to_owned(),
            found => found.to_owned(),
        },
    }
}

/// Levenshtein's distance, for names of a few characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    // More of a wrong field's name says nothing about which field was meant.
    for (i, x) in a.chars().take(ID_CHARS_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Call, Note, handler::Executed};

    #[test]
    fn what_does_not_fit_is_said_in_the_protocols_words() {
        for (result, said) in [
            (
                json!({"state": 1}),
                "`state` is one of `completed`, `failed`, `rejected`, `canceled`, `input_required`, not `1`",
            ),
            (json!({"state": "working"}), "`input_required`, not `working`"),
            (json!({"message": 1}), "`message` is a text, not the number `1`"),
            (json!({"message": {}}), "`message` is a text, not an object"),
            (json!({"artifacts": "x"}), "`artifacts` is a list, not the text \"x\""),
            (
                json!({"artifacts": [{"name": true, "path": "a"}]}),
                "`artifacts[0].name` is a text, not `true`",
            ),
            (json!({"artifacts": [{"path": "a"}]}), "`artifacts[0].name` is missing"),
            (json!({"artifacts": [{"name": "a"}]}), "`artifacts[0]`: "),
            (json!({"output": {"parts": [{"text": 1.5}]}}), "`[0].text` is a text, not the number `1.5`"),
            (json!({"outptu": 1}), "unknown field `outptu`, there are `state`, `output`"),
            (json!("done"), "this is an object, not the text \"done\""),
            (json!(null), "this is an object, not null"),
        ] {
            let error = Executed::parse(result.clone()).unwrap_err();
            assert!(error.message.starts_with("the result of `task/execute`: "), "{error}");
            assert!(error.message.contains(said), "{result}: {error}");
        }
        for (method, params, said) in [
            (
                "busy",
                json!({"taskId": "tk_1", "forMs": -1}),
                "`forMs` is a whole number from 0 up, not the number `-1`",
            ),
            (
                "task/delegate",
                json!({"taskId": "tk_1", "to": 1, "input": 1}),
                "`to` is a text, not the number `1`",
            ),
            ("task/await", json!({"taskIds": [], "mode": {}}), "`mode` is `all` or `any`, not `{}`"),
            (
                "state/get",
                json!({"key": "k", "scope": "team"}),
                "`scope` is one of `agent`, `context`, `crew`, not `team`",
            ),
            ("input/request", json!({"title": "?"}), "`kind` is missing"),
        ] {
            let is_note = Note::METHODS.contains(&method);
            let error =
                if is_note { Note::parse(method, params).err() } else { Call::parse(method, params).err() };
            let error = error.unwrap();
            assert!(error.message.contains(said), "{error}");
            assert!(error.message.starts_with(&format!("the params of `{method}`: ")), "{error}");
        }
    }

    #[test]
    fn the_nearest_field_is_named() {
        let error = Executed::parse(json!({"artifacts": [{"name": "a", "pth": "b"}]})).unwrap_err();
        assert_eq!((error.data["field"].as_str(), error.code), (Some("path"), -32602));
        assert!(error.message.contains("unknown field `artifacts[0].pth`"), "{error}");
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        assert_eq!(edit_distance("taskid", "taskId"), 1);
        assert_eq!(edit_distance("", "key"), 3);
        assert_eq!(edit_distance("inptu", "input"), 2);
    }
}
