//! `hypercode doctor`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::session::{self, Session};
use super::{Global, Outcome};
use crate::doctor::{Finding, Verdict, examine};
use crate::output::{Column, Output, table};

/// The exit code of an examination that found something missing.
const UNAVAILABLE: u8 = 5;

pub(super) async fn run(global: &Global, output: Output) -> Outcome {
    let config = session::config(global, Vec::new())?;
    let mut findings = examine(&config).await;
    findings.push(platform(global, output).await);
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

/// Whether a platform answers. That none runs is no fault: it may not have been started yet.
async fn platform(global: &Global, output: Output) -> Finding {
    let answered = match Session::open(global, output) {
        Ok(session) => session.client.get("/v1/whoami", &[]).await,
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(identity) => {
            let principal = identity["principal"].as_str().unwrap_or_default();
            Finding::new("platform", Verdict::Ok, format!("it runs, and knows this token as {principal}"), "")
        }
        Err(problem) => {
            Finding::new("platform", Verdict::Warning, problem.detail, "start it with `hypercode up`")
        }
    }
}
