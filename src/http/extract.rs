//! What handlers take: bodies, queries, path segments and the caller. Whatever is wrong with them is a problem.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use events::api::{Caller, Problem, ProblemKind};
use events::{Principal, Tenant};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Api;
use super::problem::Refusal;

/// A JSON body. An empty one is read as `{}`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refusal> {
        let media_type = media_type(request.headers());
        let bytes = read(request.into_body(), api).await?;
        if bytes.is_empty() {
            return json_from(b"{}").map(Self);
        }
        match media_type.as_deref() {
            Some(found) if is_json(found) => json_from(&bytes).map(Self),
            found => Err(unsupported(found, "application/json")),
        }
    }
}

/// A manifest: JSON `{"manifest": …}` or the text itself as YAML, as the content type says.
pub(super) enum ManifestBody<T> {
    /// The body as JSON.
    Json(T),
    /// The text of a file.
    Text(Bytes),
}

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for ManifestBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refusal> {
        let media_type = media_type(request.headers());
        let bytes = read(request.into_body(), api).await?;
        match media_type.as_deref() {
            Some(found) if is_json(found) => json_from(&bytes).map(Self::Json),
            Some("application/yaml" | "application/x-yaml" | "text/yaml") => Ok(Self::Text(bytes)),
            found => Err(unsupported(found, "application/json` or `application/yaml")),
        }
    }
}

/// A request's media type in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

fn unsupported(found: Option<&str>, expected: &str) -> Refusal {
    let found =
        found.map_or_else(|| "no content type".to_owned(), |found| format!("`{}`", found.escape_debug()));
    let detail = format!("found {found}, expected a body of `{expected}`");
    Refusal::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, Problem::new(ProblemKind::Invalid, detail))
}

/// A refusal for a body of more than `most` bytes.
pub(super) fn too_large(most: u64) -> Refusal {
    let detail = format!("the body has more than {most} bytes");
    Refusal::with_status(StatusCode::PAYLOAD_TOO_LARGE, Problem::new(ProblemKind::Invalid, detail))
}

async fn read(body: RawBody, api: &Api) -> Result<Bytes, Refusal> {
    let most = api.limits.body_bytes_max;
    let limit = Duration::from_millis(api.limits.request_ms);
    match tokio::time::timeout(limit, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most as u64)),
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body ended early: {error}"))),
        Err(_) => Err(Refusal::with_status(
            StatusCode::REQUEST_TIMEOUT,
            Problem::new(
                ProblemKind::Timeout,
                format!("the body did not arrive within {} ms", limit.as_millis()),
            ),
        )),
    }
}

/// Reads JSON; a fault carries its line and column. Nesting deeper than 128 levels is a fault too.
fn json_from<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        let (line, column) = (error.line(), error.column());
        let what = match error.is_data() {
            true => "the body is not as described by `/openapi.json`",
            false => "the body is not JSON",
        };
        let mut problem =
            Problem::new(ProblemKind::Invalid, format!("{what}: line {line}, column {column}: {message}"));
        problem.faults.push(json!({"message": message, "line": line, "column": column}));
        problem.into()
    })
}

/// The query.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Refusal> {
        Query::<T>::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(|error| {
            Refusal::invalid(format!(
                "the query is not as described by `/openapi.json`: {}",
                error.body_text()
            ))
        })
    }
}

/// The variable segments of the path.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Api>> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        Path::<T>::from_request_parts(parts, api)
            .await
            .map(|Path(segments)| Self(segments))
            .map_err(|error| Refusal::invalid(format!("the path is not legal: {}", error.body_text())))
    }
}

/// Who asks, and under which key.
pub(super) struct Asker(pub(super) Caller);

impl FromRequestParts<Arc<Api>> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Refusal> {
        let principal = parts.extensions.get::<Principal>().cloned().ok_or_else(|| {
            Problem::new(ProblemKind::Internal, "the route has no permission and so nobody to ask for it")
        })?;
        let idempotency_key = idempotency_key(&parts.headers, api.limits.key_bytes_max)?;
        let traceparent =
            text(&parts.headers, "traceparent").filter(|text| is_traceparent(text)).map(Arc::from);
        Ok(Self(Caller { tenant: Tenant::default(), principal, idempotency_key, traceparent }))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn idempotency_key(headers: &HeaderMap, most: usize) -> Result<Option<Arc<str>>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let legal = |key: &&str| (1..=most).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    match value.to_str().ok().filter(legal) {
        Some(key) => Ok(Some(key.into())),
        None => Err(Refusal::invalid(format!("`Idempotency-Key` has 1 to {most} visible ASCII characters"))),
    }
}

/// Whether the text is a trace context of version 00 (W3C Trace Context §3.2). One that is not is passed over, as the
/// standard asks.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2)
        && trace.bytes().any(|b| b != b'0') && span.bytes().any(|b| b != b'0'))
}

/// A value of a type that is read from text, such as an id; says which field it is not fit for.
pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(format!("`{field}`: {error}")))
}

/// Content of any of the forms that a handler may give, in its full form.
pub(super) fn content(field: &str, value: Value) -> Result<Value, Refusal> {
    let faulty = |error: serde_json::Error| Refusal::invalid(format!("`{field}`: {error}"));
    serde_json::from_value::<link::Content>(value).and_then(serde_json::to_value).map_err(faulty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_context_is_passed_on() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf9-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn a_fault_in_json_has_its_place() {
        let refusal = json_from::<Value>(b"{\n  \"a\": }").unwrap_err();
        assert!(format!("{refusal:?}").contains("line 2, column 8"), "{refusal:?}");
        let deep = "[".repeat(10_000);
        assert!(
            format!("{:?}", json_from::<Value>(deep.as_bytes()).unwrap_err()).contains("recursion limit")
        );
    }
}
