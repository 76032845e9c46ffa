//! Commands: the operations of [`crate::api`] at their HTTP paths.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::extract::body;
use crate::api::{self, Admitted, Done, Operation, Refusal};

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        axum::Json(self).into_response()
    }
}

/// Takes a request for an operation; the variables of its path are fields of what it takes.
pub(super) async fn perform(
    operation: &'static Operation,
    api: Arc<Api>,
    admitted: Admitted,
    fields: Vec<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let (media_type, body) = body(request, &api).await?;
    let done = api.service.perform(operation, admitted, api::Request { media_type, fields, body }).await?;
    if !operation.creates {
        return Ok(done.into_response());
    }
    let location = HeaderValue::try_from(format!("/v1/{}s/{}", done.kind, done.id));
    let mut response = (StatusCode::CREATED, done).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
