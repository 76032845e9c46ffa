//! From bytes to the fields of a command. Whatever is wrong with them is a problem.

use std::fmt;

use bytes::Bytes;
use events::api::{Problem, ProblemKind};
use events::domain::kinds;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::problem::Refusal;

/// A request for an operation, as a door took it in.
pub(crate) struct Request {
    /// The media type of the body, in lower case and without parameters.
    pub(crate) media_type: Option<String>,
    /// Fields that stand elsewhere than in the body.
    pub(crate) fields: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Bytes,
}

/// What an operation reads.
pub(crate) enum Input {
    /// Its fields.
    Fields(Map<String, Value>),
    /// The text of a manifest, and no fields.
    Text(Bytes),
}

impl Request {
    /// Reads the body as its media type says. An empty one is read as `{}`.
    pub(super) fn read(self, takes_yaml: bool) -> Result<Input, Refusal> {
        let media_type = self.media_type.as_deref();
        let mut fields = match media_type {
            _ if self.body.is_empty() => Map::new(),
            Some(found) if is_json(found) => object(&self.body)?,
            Some("application/yaml" | "application/x-yaml" | "text/yaml") if takes_yaml => {
                return Ok(Input::Text(self.body));
            }
            found if takes_yaml => return Err(unsupported(found, "application/json` or `application/yaml")),
            found => return Err(unsupported(found, "application/json")),
        };
        for (name, value) in self.fields {
            if fields.contains_key(&name) {
                return Err(Refusal::invalid(format!(
                    "`{name}`: it stands in the path, and must not stand in the body"
                )));
            }
            fields.insert(name, value.into());
        }
        Ok(Input::Fields(fields))
    }
}

/// A media type in lower case, without parameters.
pub(crate) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(crate) fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

/// A refusal for a body that is of another media type than those that are taken.
pub(crate) fn unsupported(found: Option<&str>, expected: &str) -> Refusal {
    let found =
        found.map_or_else(|| "no content type".to_owned(), |found| format!("`{}`", found.escape_debug()));
    let detail = format!("found {found}, expected a body of `{expected}`");
    Refusal::with_status(415, Problem::new(ProblemKind::Invalid, detail))
}

/// The fields of an object, each of which stands there once: of two somebody else might read the other.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut found: A) -> Result<Unique, A::Error> {
                let mut fields = Map::new();
                while let Some(name) = found.next_key::<String>()? {
                    if fields.contains_key(&name) {
                        let shown: String = name.chars().take(80).collect();
                        return Err(A::Error::custom(format_args!(
                            "`{}` stands there twice",
                            shown.escape_debug()
                        )));
                    }
                    fields.insert(name, found.next_value()?);
                }
                Ok(Unique(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Reads a JSON object; a fault carries its line and column. Nesting deeper than 128 levels is a fault too, and so is a
/// field that stands there twice.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(bytes).map(|Unique(fields)| fields).map_err(|error| {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        let (line, column) = (error.line(), error.column());
        let what = if error.is_data() { "no JSON object" } else { "not JSON" };
        let mut problem = Problem::new(
            ProblemKind::Invalid,
            format!("the body is {what}: line {line}, column {column}: {message}"),
        );
        problem.faults.push(json!({"message": message, "line": line, "column": column}));
        problem.into()
    })
}

/// The fields as what an operation takes; a fault carries the path to it.
pub(crate) fn fields<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        let place = if path == "." { String::new() } else { format!("`{path}`: ") };
        let mut problem = Problem::new(
            ProblemKind::Invalid,
            format!("the request is not as described by `/openapi.json`: {place}{message}"),
        );
        let fault =
            if path == "." { json!({"message": message}) } else { json!({"message": message, "path": path}) };
        problem.faults.push(fault);
        problem.into()
    })
}

/// A value of a type that is read from text, such as an id; says which field it is not fit for.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(format!("`{field}`: {error}")))
}

/// A kind of events that there is.
pub(crate) fn event_kind<'a>(field: &str, kind: &'a str) -> Result<&'a str, Refusal> {
    if kinds().any(|known| known == kind) {
        return Ok(kind);
    }
    let shown: String = kind.chars().take(80).collect();
    let hint = match manifest::nearest(kind, kinds()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the kinds are {}", kinds().collect::<Vec<_>>().join(", ")),
    };
    Err(Refusal::invalid(format!("`{field}`: no events are of kind `{}`; {hint}", shown.escape_debug())))
}

/// Content of any of the forms that a handler may give, in its full form.
pub(super) fn content(field: &str, value: Value) -> Result<Value, Refusal> {
    let faulty = |error: serde_json::Error| Refusal::invalid(format!("`{field}`: {error}"));
    shallow(field, &value)?;
    serde_json::from_value::<link::Content>(value).and_then(serde_json::to_value).map_err(faulty)
}

/// Refuses what no frame could carry to a handler.
pub(super) fn shallow(field: &str, value: &Value) -> Result<(), Refusal> {
    let (depth, most) = (link::depth(value), link::limits::CONTENT_DEPTH_MAX);
    if depth <= most {
        return Ok(());
    }
    let what = "arrays and objects are nested";
    Err(Refusal::invalid(format!(
        "`{field}`: {what} {depth} deep: at most {most} fit; put deeper ones into an artifact"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_cannot_carry_is_refused() {
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(content("input", nested(link::limits::CONTENT_DEPTH_MAX)).is_ok());
        let refused = content("input", nested(link::limits::CONTENT_DEPTH_MAX + 1));
        assert!(refused.is_err_and(|refusal| format!("{refusal:?}").contains("`input`: arrays")));
    }

    #[test]
    fn a_fault_in_json_has_its_place() {
        let refusal = object(b"{\n  \"a\": }").unwrap_err();
        assert!(format!("{refusal:?}").contains("line 2, column 8"), "{refusal:?}");
        let deep = "[".repeat(10_000);
        let refusal = object(format!("{{\"a\":{deep}").as_bytes()).unwrap_err();
        assert!(format!("{refusal:?}").contains("recursion limit"), "{refusal:?}");
        assert!(format!("{:?}", object(b"[1]").unwrap_err()).contains("no JSON object"));
        assert!(format!("{:?}", object(br#"{"a":1,"a":2}"#).unwrap_err()).contains("`a` stands there twice"));
    }

    #[test]
    fn a_fault_in_a_field_has_its_path() {
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[allow(dead_code, reason = "only its type is looked at")]
            inner: Vec<u32>,
        }
        let input = object(br#"{"inner": [1, "x"]}"#).unwrap();
        let text = format!("{:?}", fields::<Outer>(input).unwrap_err());
        assert!(text.contains("`inner[1]`") && text.contains("expected u32"), "{text}");
    }

    #[test]
    fn a_kind_that_is_none_is_refused_with_the_nearest() {
        assert_eq!(event_kind("kind", "task_completed").unwrap(), "task_completed");
        let near = format!("{:?}", event_kind("kind", "task_complete").unwrap_err());
        assert!(near.contains("did you mean `task_completed`?"), "{near}");
        let far = format!("{:?}", event_kind("kind", "nosuch").unwrap_err());
        assert!(far.contains("`nosuch`") && far.contains("crew_assembled"), "{far}");
    }

    #[test]
    fn a_field_stands_in_one_place() {
        let request = |body: &'static str| Request {
            media_type: Some("application/json".to_owned()),
            fields: vec![("crew".to_owned(), "a".to_owned())],
            body: Bytes::from_static(body.as_bytes()),
        };
        let Ok(Input::Fields(read)) = request("").read(false) else { panic!("an empty body is no fault") };
        assert_eq!(Value::Object(read), json!({"crew": "a"}));
        assert!(request(r#"{"crew": "b"}"#).read(false).is_err());
    }
}
