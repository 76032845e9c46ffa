//! `hypercode migrate`.

use std::process::ExitCode;

use events::api::{Problem, ProblemKind};
use serde_json::json;

use super::{Global, Outcome, session};
use crate::output::Output;
use crate::storage;

pub(super) async fn run(global: &Global, output: Output) -> Outcome {
    let config = session::config(global, Vec::new())?;
    let migrated = storage::migrate(&config).await;
    let is_changed = migrated.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
    let place = match &config.database_url {
        Some(database) => database.to_string(),
        None => config.data_dir.display().to_string(),
    };
    output.value(&json!({"log": place, "changed": is_changed}), |_| match is_changed {
        true => format!("the log in {place} now has this program's schema\n"),
        false => format!("the log in {place} has this program's schema; nothing was done\n"),
    });
    Ok(ExitCode::SUCCESS)
}
