//! `hypercode doctor`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::session::{self, Session};
use super::{Global, Outcome};
use crate::doctor::{Finding, Verdict, examine, sinks};
use crate::http::StandingModel;
use crate::output::{Column, Output, table};

/// The exit code of an examination that found something missing.
const UNAVAILABLE: u8 = 5;

pub(super) async fn run(global: &Global, output: Output) -> Outcome {
    let config = session::config(global, Vec::new())?;
    let mut findings = examine(&config).await;
    let (runs, standing) = platform(global, output).await;
    findings.push(runs);
    findings.extend(match standing {
        Some(standing) => Some(sinks::live(&standing)),
        None => sinks::at_rest(&config).await,
    });
    let is_well = findings.iter().all(|finding| finding.verdict != Verdict::Error);
    let rows: Vec<Value> = findings.iter().map(|finding| json!(finding)).collect();
    output.value(&json!({"ok": is_well, "findings": rows}), |_| {
        const COLUMNS: [Column; 2] = [Column::new("WHAT", "/what"), Column::new("VERDICT", "/verdict")];
        let mut text = table(&rows, &COLUMNS, output.is_coloured);
        text.push('\n');
        for finding in &findings {
            text += &format!("{}: {}\n", finding.what, finding.found);
            if !finding.mend.is_empty() {
                text += &format!("  mend: {}\n", finding.mend);
            }
        }
        text
    });
    Ok(ExitCode::from(if is_well { 0 } else { UNAVAILABLE }))
}

/// Whether a platform answers, and how its audit stands, where this token may see that. That none runs is no fault: it may not
/// have been started yet.
async fn platform(global: &Global, output: Output) -> (Finding, Option<StandingModel>) {
    let (identity, standing) = match Session::open(global, output) {
        Ok(session) => {
            let identity = session.client.get("/v1/whoami", &[]).await;
            let standing = session.client.get("/v1/audit/checkpoint", &[]).await.ok();
            (identity, standing.and_then(|standing| serde_json::from_value(standing).ok()))
        }
        Err(problem) => (Err(problem), None),
    };
    let finding = match identity {
        Ok(identity) => {
            let principal = identity["principal"].as_str().unwrap_or_default();
            Finding::new("platform", Verdict::Ok, format!("it runs, and knows this token as {principal}"), "")
        }
        Err(problem) => {
            Finding::new("platform", Verdict::Warning, problem.detail, "start it with `hypercode up`")
        }
    };
    (finding, standing)
}
