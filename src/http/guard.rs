//! What stands before every handler: the count, the clock, and who asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use events::api::{Problem, ProblemKind};

use super::Api;
use super::problem::Refusal;
use super::route::{Pace, Route};

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
        let limit_ms = match route.pace {
            Pace::Usual => Some(api.limits.request_ms),
            Pace::Long => Some(api.limits.long_request_ms),
            Pace::Endless => None,
        };
        Self {
            api: Arc::clone(api),
            name: route.name,
            permission: route.permission,
            limit: limit_ms.map(Duration::from_millis),
        }
    }

    async fn admit(&self, mut request: Request, next: Next) -> Result<Response, Refusal> {
        if self.permission.is_some() {
            let principal = self.api.token.authenticate(request.headers())?;
            request.extensions_mut().insert(principal);
        }
        let Some(limit) = self.limit else { return Ok(next.run(request).await) };
        tokio::time::timeout(limit, next.run(request)).await.map_err(|_| {
            let detail = format!(
                "the answer took longer than {} ms; what was begun goes on: ask for its state, or repeat the request with its `Idempotency-Key`",
                limit.as_millis()
            );
            Problem::new(ProblemKind::Timeout, detail).into()
        })
    }
}

/// Lets a request through to its handler, or refuses it.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let response = guard.admit(request, next).await.unwrap_or_else(Refusal::into_response);
    guard.api.metrics.count(guard.name, response.status(), begun.elapsed());
    response
}
