//! What a running platform gives to its HTTP API.

use std::sync::Arc;

use events::api::Problem;
use tokio_util::sync::CancellationToken;

use super::Platform;
use crate::api::Service;
use crate::config::Config;
use crate::http::{self, Limits, Parts};
use crate::room::Room;
use crate::sinks::Standing;

impl Parts {
    /// The parts of this platform's API, as it is configured.
    pub fn of(
        platform: &Arc<Platform>,
        config: &Config,
        service: Arc<Service>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            service,
            store: Arc::clone(&platform.store),
            leases: Arc::clone(&platform.leases),
            views: platform.views.clone(),
            artifacts: Arc::clone(&platform.artifacts),
            audit: platform.audit.clone(),
            bodies: Arc::clone(platform) as Arc<dyn http::Bodies>,
            logs: Arc::clone(platform) as Arc<dyn http::Logs>,
            pools: Arc::clone(platform) as Arc<dyn http::Pools>,
            sandbox: http::SandboxKind::of(&*platform.provider),
            room: config.database_url.is_none().then(|| Room::of(&config.data_dir)),
            dependencies: vec![
                Arc::new(Standing(platform.audit.clone())),
                Arc::new(http::Stopped(platform.views.clone())),
            ],
            limits: Limits::from(config),
            stop,
        }
    }
}

#[async_trait::async_trait]
impl http::Bodies for Platform {
    async fn body(&self, kept: &serde_json::Value) -> Result<serde_json::Value, Problem> {
        Platform::body(self, kept).await
    }
}

impl http::Pools for Platform {
    fn figures(&self) -> Vec<actors::PoolFigures> {
        self.pools()
    }
}

#[async_trait::async_trait]
impl http::Logs for Platform {
    async fn log(
        &self,
        node: Option<&str>,
        sandbox: &events::SandboxId,
        bytes_max: u64,
    ) -> Result<Option<String>, Problem> {
        Platform::log(self, node, sandbox, bytes_max).await
    }

    fn deltas(&self, task: &events::TaskId) -> tokio::sync::broadcast::Receiver<Arc<str>> {
        Platform::deltas(self, task)
    }
}
