//! `hypercode migrate`.

use std::process::ExitCode;

use events::api::{Problem, ProblemKind};
use events::{EventStore, Position};
use serde_json::json;

use super::{Global, Outcome, session};
use crate::lifetime;
use crate::output::Output;
use crate::storage::{self, Storage};

pub(super) async fn run(global: &Global, output: Output) -> Outcome {
    let config = session::config(global, Vec::new())?;
    let migrated = storage::migrate(&config).await;
    let is_changed = migrated.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
    if is_changed {
        let log = Storage::open(&config).await;
        let log = log.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
        let recorded = record(&*log.store()).await;
        log.close().await;
        recorded?;
    }
    let place = match &config.database_url {
        Some(database) => database.to_string(),
        None => config.data_dir.display().to_string(),
    };
    output.value(&json!({"log": place, "changed": is_changed}), |_| match is_changed {
        true => format!("the log in {place} now has this program's schema\n"),
        false => format!("the log in {place} has this program's schema; nothing was done\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Records the migration in the log. One that was only now made has nothing that was migrated: it stays empty, so that another
/// log can be copied into it.
async fn record(log: &dyn EventStore) -> Result<(), Problem> {
    match log.head().await?.position {
        Position(0) => Ok(()),
        _ => lifetime::record_migration(log).await,
    }
}
