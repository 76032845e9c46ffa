//! Content: what tasks and messages carry, in the shapes of A2A 1.0.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::{Map, Value};

use crate::{
    ArtifactUrl,
    limits::{PARTS_MAX, RAW_BYTES_MAX},
};

/// What a part holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Text.
    Text(String),
    /// Any JSON, `null` included.
    Data(Value),
    /// Bytes in base64 (RFC 4648, padded), at most 64 KiB decoded. Kept as it was written.
    Raw(String),
    /// A stored artifact.
    Url(ArtifactUrl),
}

/// One piece of content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Part {
    /// What it holds.
    pub body: Body,
    /// Its media type.
    pub media_type: Option<String>,
    /// A file name: in a task's input it asks the runner to put the bytes into `in/`.
    pub filename: Option<String>,
    /// The author's own annotations.
    pub metadata: Option<Map<String, Value>>,
}

impl Part {
    /// A part with this body and nothing else.
    pub fn new(body: Body) -> Self {
        Self { body, media_type: None, filename: None, metadata: None }
    }

    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Body::Text(text.into()))
    }

    /// A data part.
    pub fn data(data: Value) -> Self {
        Self::new(Body::Data(data))
    }

    /// The bytes of a `raw` part.
    pub fn raw_bytes(&self) -> Option<Vec<u8>> {
        match &self.body {
            Body::Raw(raw) => STANDARD.decode(raw).ok(),
            _ => None,
        }
    }
}

/// A field that may hold `null` and so must tell "absent" from "null".
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<ArtifactUrl>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
}

fn check_raw(raw: &str) -> Result<(), String> {
    if raw.len() > RAW_BYTES_MAX.div_ceil(3) * 4 {
        return Err(format!("a part's `raw` holds at most {RAW_BYTES_MAX} bytes: put more into an artifact"));
    }
    let bytes = STANDARD.decode(raw).map_err(|error| format!("a part's `raw` is padded base64: {error}"))?;
    if bytes.len() > RAW_BYTES_MAX {
        return Err(format!("a part's `raw` holds at most {RAW_BYTES_MAX} bytes: put more into an artifact"));
    }
    Ok(())
}

impl TryFrom<Wire> for Part {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let body = match (wire.text, wire.data, wire.raw, wire.url) {
            (Some(text), None, None, None) => Body::Text(text),
            (None, Some(data), None, None) => Body::Data(data),
            (None, None, Some(raw), None) => {
                check_raw(&raw)?;
                Body::Raw(raw)
            }
            (None, None, None, Some(url)) => Body::Url(url),
            _ => return Err("a part has exactly one of `text`, `data`, `raw` and `url`".to_owned()),
        };
        Ok(Self { body, media_type: wire.media_type, filename: wire.filename, metadata: wire.metadata })
    }
}

impl From<Part> for Wire {
    fn from(part: Part) -> Self {
        let (mut text, mut data, mut raw, mut url) = (None, None, None, None);
        match part.body {
            Body::Text(value) => text = Some(value),
            Body::Data(value) => data = Some(value),
            Body::Raw(value) => raw = Some(value),
            Body::Url(value) => url = Some(value),
        }
        let Part { media_type, filename, metadata, .. } = part;
        Self { text, data, raw, url, media_type, filename, metadata }
    }
}

/// A list of parts.
///
/// Read permissively, for a handler may give a bare string (one text part) or any JSON value without `parts` (one data
/// part). Written as `{"parts": […]}`; towards a handler with [`Content::serialize_with_text`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// The parts, in order.
    pub parts: Vec<Part>,
}

impl Content {
    /// One text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::text(text)] }
    }

    /// One data part.
    pub fn data(data: Value) -> Self {
        Self { parts: vec![Part::data(data)] }
    }

    /// All text parts joined by newline.
    pub fn joined_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match &part.body {
            Body::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The data, if the content is a single data part.
    pub fn single_data(&self) -> Option<&Value> {
        match self.parts.as_slice() {
            [Part { body: Body::Data(data), .. }] => Some(data),
            _ => None,
        }
    }

    /// Reads what a handler gave; see the type.
    pub fn from_handler(value: Value) -> Result<Self, String> {
        let parts = match value {
            Value::String(text) => return Ok(Self::text(text)),
            Value::Object(mut object) if object.contains_key("parts") => {
                if let Some(extra) = object.keys().find(|key| !matches!(key.as_str(), "parts" | "text")) {
                    return Err(format!("content has `parts` and, for readers, `text`; not `{extra}`"));
                }
                object.remove("parts").unwrap_or_default()
            }
            other => return Ok(Self::data(other)),
        };
        let parts: Vec<Part> = crate::params("`parts`", parts).map_err(|error| error.message)?;
        if parts.len() > PARTS_MAX {
            return Err(format!("content has at most {PARTS_MAX} parts, not {}", parts.len()));
        }
        Ok(Self { parts })
    }

    /// For `#[serde(serialize_with)]` on fields that a handler reads: adds `text`, all text parts joined.
    pub fn serialize_with_text<S: Serializer>(content: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Content", 2)?;
        object.serialize_field("text", &content.joined_text())?;
        object.serialize_field("parts", &content.parts)?;
        object.end()
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Content", 1)?;
        object.serialize_field("parts", &self.parts)?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_handler(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Content, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn a_handler_may_give_a_string_any_json_or_content() {
        assert_eq!(read(json!("hi")).unwrap(), Content::text("hi"));
        for data in [json!({"a": 1}), json!({"text": "hi"}), json!([1, 2]), json!(7), json!(null)] {
            assert_eq!(read(data.clone()).unwrap(), Content::data(data));
        }
        let full = json!({"text": "a\nb", "parts": [{"text": "a"}, {"data": null}, {"text": "b", "filename": "b.txt"}]});
        let content = read(full).unwrap();
        assert_eq!(content.joined_text(), "a\nb");
        assert_eq!(content.parts[1].body, Body::Data(Value::Null));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let url = format!("artifact:sha256:{}", "0a".repeat(32));
        let wire = json!({"parts": [
            {"text": "t", "metadata": {"k": 1}}, {"data": null}, {"raw": "aGk=", "mediaType": "text/plain"},
            {"url": url, "filename": "q3.pdf"},
        ]});
        let content = read(wire.clone()).unwrap();
        assert_eq!(serde_json::to_value(&content).unwrap(), wire);
        assert_eq!(content.parts[2].raw_bytes().as_deref(), Some(b"hi".as_slice()));
    }

    #[test]
    fn a_part_has_exactly_one_body_of_bounded_size() {
        let long = STANDARD.encode(vec![0; RAW_BYTES_MAX + 1]);
        for bad in [
            json!({}),
            json!({"text": "a", "data": 1}),
            json!({"raw": "a"}),
            json!({"raw": long}),
            json!({"url": "http://x"}),
            json!({"text": 1}),
            json!({"text": "a", "kind": "text"}),
            json!("bare"),
        ] {
            assert!(read(json!({"parts": [bad.clone()]})).is_err(), "{bad}");
        }
        assert!(read(json!({"parts": {"text": "a"}})).is_err());
        assert!(read(json!({"parts": vec![json!({"text": ""}); PARTS_MAX + 1]})).is_err());
        let fits = STANDARD.encode(vec![0; RAW_BYTES_MAX]);
        assert!(read(json!({"parts": [{"raw": fits}]})).is_ok());
    }
}
