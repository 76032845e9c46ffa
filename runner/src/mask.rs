//! What a sandbox's secrets look like in text, and how they are kept out of it.
//!
//! A value is known by its bytes, by what JSON makes of them, by their base64 and hex, and, where it has several lines, by each
//! of them: loggers put something before every line. What a handler itself makes of it is not known.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use link::limits::SECRET_BYTES_MIN;
use serde_json::Value;

/// What stands where a secret was.
const MASK: &[u8] = b"***";
/// A line of a value that is shorter may be anybody's, such as the end of an encoded key.
const LINE_BYTES_MIN: usize = 16;
/// Fields of frames, and of the params in them, that the protocol itself fills: their values are checked elsewhere.
const PROTOCOL_FIELDS: [&str; 13] = [
    "t",
    "id",
    "re",
    "taskId",
    "taskIds",
    "messageId",
    "method",
    "state",
    "stage",
    "scope",
    "mode",
    "kind",
    "level",
];
/// How deep those are.
const PROTOCOL_DEPTH: usize = 2;

/// The secrets of this sandbox. Cheap to clone; what is hidden by one clone is hidden by all.
#[derive(Clone, Default)]
pub(crate) struct Mask(Arc<RwLock<Forms>>);

struct Forms {
    /// The longest first, so that one that begins like another is masked whole.
    forms: Vec<Vec<u8>>,
    /// The bytes with which one of them begins.
    first: [bool; 256],
}

impl Default for Forms {
    fn default() -> Self {
        Self { forms: Vec::new(), first: [false; 256] }
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(…)")
    }
}

impl Mask {
    /// From now on these values are masked. Those that are too short would mask half of all text, and are not.
    pub(crate) fn hide(&self, values: impl IntoIterator<Item = String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.forms.extend(values.into_iter().flat_map(|value| forms(&value)));
        known.forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        known.forms.dedup();
        for first in known.forms.iter().map(|form| usize::from(form[0])).collect::<Vec<_>>() {
            known.first[first] = true;
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Forms> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes without the secrets, and how many of them that covers: all, or with `more` to come all but an end that
    /// could begin a secret.
    pub(crate) fn bytes(&self, bytes: &[u8], more: bool) -> (Vec<u8>, usize) {
        let known = self.known();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if more && known.may_begin_in(rest) {
                break;
            }
            match known.at_start_of(rest) {
                Some(length) => {
                    out.extend_from_slice(MASK);
                    at += length;
                }
                None => {
                    out.push(rest[0]);
                    at += 1;
                }
            }
        }
        (out, at)
    }

    /// A text without the secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes(), false).0).into_owned()
    }

    /// A frame's JSON without the secrets, whatever the handler put into it.
    pub(crate) fn frame(&self, text: String) -> String {
        let is_free = {
            let known = self.known();
            let bytes = text.as_bytes();
            (0..bytes.len()).all(|at| known.at_start_of(&bytes[at..]).is_none())
        };
        if is_free {
            return text;
        }
        let mut frame: Value = serde_json::from_str(&text).expect("a frame is JSON");
        self.value(&mut frame, 0);
        frame.to_string()
    }

    fn value(&self, value: &mut Value, depth: usize) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, depth)),
            Value::Object(fields) => {
                let masked = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                    let is_protocol = depth < PROTOCOL_DEPTH && PROTOCOL_FIELDS.contains(&name.as_str());
                    if !is_protocol {
                        self.value(&mut value, depth + 1);
                    }
                    (self.text(&name), value)
                });
                *fields = masked.collect();
            }
            Value::Number(number) => {
                let text = number.to_string();
                if self.known().forms.iter().any(|form| form == text.as_bytes()) {
                    *value = Value::from(String::from_utf8_lossy(MASK));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

impl Forms {
    /// The length of the secret with which the bytes begin.
    fn at_start_of(&self, bytes: &[u8]) -> Option<usize> {
        let first = *bytes.first()?;
        if !self.first[usize::from(first)] {
            return None;
        }
        self.forms.iter().find(|form| bytes.starts_with(form)).map(Vec::len)
    }

    /// Whether the bytes are the beginning of a secret that is longer.
    fn may_begin_in(&self, bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| self.first[usize::from(*first)])
            && self.forms.iter().any(|form| form.len() > bytes.len() && form.starts_with(bytes))
    }
}

/// How a value looks in text.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let json = Value::from(value).to_string();
    let lines = value.lines().filter(|line| line.len() >= LINE_BYTES_MIN && line.len() < value.len());
    let mut forms: Vec<String> = lines.map(str::to_owned).collect();
    forms.extend([
        value.to_owned(),
        json[1..json.len() - 1].to_owned(),
        STANDARD_NO_PAD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
        hex::encode(value),
    ]);
    match value.len() {
        ..SECRET_BYTES_MIN => Vec::new(),
        _ => forms.into_iter().map(String::into_bytes).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let mask = Mask::default();
        mask.hide(values.iter().map(|value| (*value).to_owned()));
        mask
    }

    #[test]
    fn a_value_is_known_in_each_of_its_forms() {
        let mask = mask(&["hun\"ter-2", "tiny"]);
        let text = format!(
            "hun\"ter-2 hun\\\"ter-2 {} {} tiny",
            STANDARD_NO_PAD.encode("hun\"ter-2"),
            hex::encode("hun\"ter-2")
        );
        assert_eq!(mask.text(&text), "*** *** *** *** tiny");
    }

    #[test]
    fn the_lines_of_a_value_are_known_but_for_short_ones() {
        let mask = mask(&["-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n=end\n"]);
        assert_eq!(mask.text("1: MIIEvQIBADANBgkqhkiG\n2: =end"), "1: ***\n2: =end");
    }

    #[test]
    fn frames_lose_what_handlers_put_in_and_keep_what_the_protocol_does() {
        let mask = mask(&["completed", "hunter2"]);
        let frame = json!({"t": "task.result", "id": 7, "taskId": "completed", "result": {
            "state": "completed",
            "output": {"parts": [{"data": {"state": "completed", "hunter2": ["x hunter2", 1]}}]},
        }});
        let masked: Value = serde_json::from_str(&mask.frame(frame.to_string())).unwrap();
        assert_eq!(
            masked,
            json!({"t": "task.result", "id": 7, "taskId": "completed", "result": {
                "state": "completed",
                "output": {"parts": [{"data": {"state": "***", "***": ["x ***", 1]}}]},
            }})
        );
        let other = json!({"t": "heartbeat", "n": 1}).to_string();
        assert_eq!(mask.frame(other.clone()), other);
    }

    #[test]
    fn a_secret_that_is_a_number_is_masked_as_one() {
        let masked = mask(&["12345678"]).frame(json!({"params": {"data": [12345678, 1234567]}}).to_string());
        assert_eq!(masked, json!({"params": {"data": ["***", 1234567]}}).to_string());
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_any_frame(secret in "[ -~]{6,12}", words in prop::collection::vec("[ -~]{0,12}", 0..6)) {
            let text = words.join(&secret);
            let frame = json!({"t": "call", "params": {"input": &text, &text: [&secret]}}).to_string();
            let masked = mask(&[&secret]).frame(frame);
            let read: Value = serde_json::from_str(&masked).unwrap();
            // What is left may be made of the mask and what stood around it.
            prop_assume!(!secret.contains('*'));
            for text in read["params"].as_object().unwrap().keys() {
                prop_assert!(!text.contains(&secret), "{masked}");
            }
        }
    }
}
