//! What handlers take: bodies, queries, path segments and the caller. Whatever is wrong with them is a problem.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as RawBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use events::api::{Caller, Problem, ProblemKind};
use events::projection::Within;
use events::{CrewId, Tenant};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use identity::Sight;
use serde::de::DeserializeOwned;
use serde_json::Map;

use super::Api;
use crate::api::{self, Admitted, Headers, Refusal, fields, is_json, object, unsupported};

impl Headers for HeaderMap {
    fn header(&self, name: &str) -> Option<&str> {
        self.get(name)?.to_str().ok()
    }

    fn has(&self, name: &str) -> bool {
        self.contains_key(name)
    }
}

/// The request's media type and its body, which is not too large.
pub(super) async fn body(request: Request, api: &Api) -> Result<(Option<String>, Bytes), Refusal> {
    let media_type = request.headers().header(header::CONTENT_TYPE.as_str()).map(api::media_type);
    Ok((media_type, read(request.into_body(), api).await?))
}

/// A JSON body. An empty one is read as `{}`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Refusal> {
        let (media_type, bytes) = body(request, api).await?;
        if bytes.is_empty() {
            return fields(Map::new()).map(Self);
        }
        match media_type.as_deref() {
            Some(found) if is_json(found) => fields(object(&bytes)?).map(Self),
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
        let (media_type, bytes) = body(request, api).await?;
        match media_type.as_deref() {
            Some(found) if is_json(found) => fields(object(&bytes)?).map(Self::Json),
            Some("application/yaml" | "application/x-yaml" | "text/yaml") => Ok(Self::Text(bytes)),
            found => Err(unsupported(found, "application/json` or `application/yaml")),
        }
    }
}

async fn read(body: RawBody, api: &Api) -> Result<Bytes, Refusal> {
    let limits = api.service.limits();
    let (most, limit) = (limits.body_bytes_max, Duration::from_millis(limits.request_ms));
    match tokio::time::timeout(limit, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large(most as u64)),
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body ended early: {error}"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} ms", limit.as_millis());
            Err(Refusal::with_status(408, Problem::new(ProblemKind::Timeout, detail)))
        }
    }
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

/// Who asks, with what they are to the platform.
pub(super) struct Known(pub(super) Admitted);

impl FromRequestParts<Arc<Api>> for Known {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Refusal> {
        admitted(parts).map(Self)
    }
}

fn admitted(parts: &Parts) -> Result<Admitted, Refusal> {
    let nobody = || {
        Problem::new(ProblemKind::Internal, "the route has no permission and so nobody to ask for it").into()
    };
    parts.extensions.get::<Admitted>().cloned().ok_or_else(nobody)
}

/// Who asks, and under which key, about what is of the whole tenant: nobody whose sight is confined to some crews gets by.
pub(super) struct Asker(pub(super) Caller);

impl FromRequestParts<Arc<Api>> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Refusal> {
        let Admitted { caller, sight, .. } = admitted(parts)?;
        match sight {
            Sight::All => Ok(Self(caller)),
            Sight::Crews(_) | Sight::Nothing => {
                let detail = "this is of the whole tenant, and takes a role in it";
                Err(Problem::new(ProblemKind::Denied, detail).into())
            }
        }
    }
}

/// Who asks, and what of the tenant they see.
pub(super) struct Seer {
    pub(super) tenant: Tenant,
    pub(super) sight: Sight,
}

impl Seer {
    /// What queries in their name are about.
    pub(super) fn within(&self) -> Within<'_> {
        Within { tenant: &self.tenant, crews: self.sight.crews() }
    }

    /// The crew that a text names, where they see it.
    pub(super) async fn crew(&self, api: &Api, text: &str) -> Result<CrewId, Refusal> {
        api::crew_id(&*api.store, &self.tenant, &self.sight, text).await
    }
}

impl FromRequestParts<Arc<Api>> for Seer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Refusal> {
        let Admitted { caller, sight, .. } = admitted(parts)?;
        Ok(Self { tenant: caller.tenant, sight })
    }
}
