//! Bytes by their SHA-256.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::Digest;
use events::api::{Problem, ProblemKind};
use events::artifact::{ARTIFACT_BYTES_MAX, ArtifactError};
use futures_util::TryStreamExt as _;
use schemars::JsonSchema;
use serde::Serialize;
use tokio_util::io::StreamReader;

use super::Api;
use super::extract::{Known, Segments};
use crate::api::Refusal;

/// What is kept.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// The SHA-256 of the bytes: 64 hex digits.
    digest: String,
    /// `artifact:sha256:<digest>`, as content refers to it.
    url: String,
    /// How many bytes.
    size: u64,
}

impl From<ArtifactError> for Refusal {
    fn from(error: ArtifactError) -> Self {
        let kind = match &error {
            ArtifactError::TooLarge => return Refusal::too_large(ARTIFACT_BYTES_MAX),
            ArtifactError::Interrupted { .. } => ProblemKind::Invalid,
            ArtifactError::Damaged { .. } => ProblemKind::Internal,
            _ => ProblemKind::Unavailable,
        };
        Problem::new(kind, error.to_string()).into()
    }
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
    request: Request,
) -> Result<(StatusCode, Json<Kept>), Refusal> {
    let stream = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut source = StreamReader::new(stream);
    let kept = api.artifacts.put_from(&mut source).await?;
    api.service.keep_artifact(&admitted.caller, kept).await?;
    let digest = kept.digest.to_string();
    let url = format!("artifact:sha256:{digest}");
    Ok((StatusCode::CREATED, Json(Kept { digest, url, size: kept.size })))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
    Segments(digest): Segments<String>,
) -> Result<Response, Refusal> {
    let none = || Problem::new(ProblemKind::NotFound, "there is no artifact of this digest");
    let digest: Digest = digest.parse().map_err(|_| none())?;
    if !api.service.may_read_artifact(&admitted, digest).await? {
        return Err(none().into());
    }
    let bytes = api.artifacts.get(digest).await?.ok_or_else(none)?;
    // What agents wrote is never shown by a browser as a page of this server.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, Body::from(bytes)).into_response())
}
