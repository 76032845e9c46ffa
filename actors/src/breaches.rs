//! What is done to sandboxes behind the platform's back becomes an event.

use std::sync::Arc;
use std::time::Duration;

use events::domain::DomainEvent as _;
use events::domain::agent::Agent;
use events::domain::platform::{Event, Tampered, Tampering};
use events::domain::pool::Pool;
use events::store::{AppendRequest, Expected};
use events::{CommandId, EntityKind, SandboxId, StreamId, Tenant};
use sandbox::{Breach, Labels};
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::core::Core;
use crate::entity::peek;

/// Who says so.
const PART: &str = "sandboxes";

/// Records every breach for as long as the platform runs.
pub(crate) async fn watch(core: Arc<Core>, breaches: Arc<Mutex<Receiver<Breach>>>) {
    let mut breaches = breaches.lock().await;
    loop {
        match breaches.recv().await {
            Ok(breach) => record(&core, &breach).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::error!(missed, "breaches of sandboxes were not recorded")
            }
            // This kind of sandbox tells of none.
            Err(RecvError::Closed) => std::future::pending::<()>().await,
        }
    }
}

/// Whose the sandbox is, as the log knows of the agent that it was made for, or of the pool in which it stands by: it may be
/// found before anything of it is in memory.
async fn tenant(core: &Arc<Core>, labels: &Labels) -> Tenant {
    let found = match labels {
        Labels { agent: Some(agent), .. } => {
            let state = core.insist("whose an agent is", || peek::<Agent>(core, agent)).await.ok();
            state.and_then(|state| Some(state.requested.as_ref()?.tenant.clone()))
        }
        Labels { pool: Some(pool), .. } => {
            let state = core.insist("whose a pool is", || peek::<Pool>(core, pool)).await.ok();
            state.and_then(|state| Some(state.applied.as_ref()?.tenant.clone()))
        }
        _ => None,
    };
    found.unwrap_or_default()
}

/// Appends until it is durable: what was done to a sandbox is not forgotten because the log is busy.
async fn record(core: &Arc<Core>, breach: &Breach) {
    let Ok(sandbox) = breach.id.as_str().parse::<SandboxId>() else { return };
    let tenant = tenant(core, &breach.labels).await;
    // One that was claimed where it stood by does not say by its labels whom it serves.
    let served = || Some(core.posts.get(&sandbox)?.agent.to_string());
    let tampered = Tampered {
        agent: breach.labels.agent.clone().or_else(served),
        sandbox,
        what: match breach.what {
            sandbox::Tampering::Drifted => Tampering::Drifted,
            sandbox::Tampering::Executed => Tampering::Executed,
            sandbox::Tampering::Started => Tampering::Started,
            sandbox::Tampering::Unpaused => Tampering::Unpaused,
        },
        detail: breach.detail.clone(),
        count: 1,
    };
    let request = AppendRequest {
        stream: StreamId::new(EntityKind::Platform, PART),
        expected: Expected::Any,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: core.system_meta(&tenant, PART),
        recorded_at: core.clock.now(),
        events: vec![Event::from(tampered).encode()],
        reserve: Vec::new(),
        release: Vec::new(),
    };
    let mut wait = core.options.limits.effect_retry_initial_ms;
    while let Err(error) = core.store.append(request.clone()).await {
        tracing::warn!(sandbox = %breach.id, %error, "a breach is not recorded yet");
        tokio::time::sleep(Duration::from_millis(wait)).await;
        wait = (wait * 2).min(core.options.limits.effect_retry_max_ms);
    }
}
