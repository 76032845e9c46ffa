//! What stands before every handler: the count, the clock, and who asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Api;
use super::route::Route;
use crate::api::{Refusal, late};

/// What the guard of one route knows.
#[derive(Clone)]
pub(super) struct Guard {
    api: Arc<Api>,
    name: &'static str,
    permission: Option<&'static str>,
    limit: Option<Duration>,
}

impl Guard {
    pub(super) fn new(api: &Arc<Api>, route: &Route) -> Self {
        Self {
            api: Arc::clone(api),
            name: route.name,
            permission: route.permission,
            limit: api.service.limit(route.pace),
        }
    }

    async fn admit(&self, mut request: Request, next: Next) -> Result<Response, Refusal> {
        if let Some(permission) = self.permission {
            let admitted = self.api.service.admit(request.headers(), permission).await?;
            request.extensions_mut().insert(admitted);
        }
        let Some(limit) = self.limit else { return Ok(next.run(request).await) };
        tokio::time::timeout(limit, next.run(request)).await.map_err(|_| late(limit))
    }
}

/// Lets a request through to its handler, or refuses it.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let response = guard.admit(request, next).await.unwrap_or_else(Refusal::into_response);
    guard.api.metrics.count(guard.name, response.status(), begun.elapsed());
    response
}
