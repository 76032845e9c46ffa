//! `hypercode doctor`.

use std::process::ExitCode;

use events::api::{Problem, ProblemKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::session::{self, Session};
use super::{Global, Outcome};
use crate::client::Client;
use crate::doctor::{Finding, Said, Verdict, denied, examine, sinks, views};
use crate::http::{SandboxKind, StandingModel};
use crate::output::{Column, Output, table};

/// The exit code of an examination that found something missing.
const UNAVAILABLE: u8 = 5;

pub(super) async fn run(global: &Global, output: Output) -> Outcome {
    let config = session::config(global, Vec::new())?;
    let (runs, running) = platform(global, output).await;
    let mut findings = examine(&config, &running.sandbox).await;
    findings.push(runs);
    findings.extend(match &running.projections {
        Said::This(projections) => Some(views::live(projections)),
        Said::Denied => Some(denied(views::WHAT)),
        Said::Nothing => views::at_rest(&config).await,
    });
    findings.extend(match &running.standing {
        Said::This(standing) => Some(sinks::live(standing)),
        Said::Denied => Some(denied(sinks::WHAT)),
        Said::Nothing => sinks::at_rest(&config).await,
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
    })?;
    Ok(ExitCode::from(if is_well { 0 } else { UNAVAILABLE }))
}

/// What a platform that answers says, as far as this token may hear it.
#[derive(Default)]
struct Running {
    /// How its audit stands.
    standing: Said<StandingModel>,
    /// What its agents run in.
    sandbox: Said<SandboxKind>,
    /// Where its projections stand.
    projections: Said<Value>,
}

/// Whether a platform answers, and takes work. That none runs is no fault: it may not have been started yet.
async fn platform(global: &Global, output: Output) -> (Finding, Running) {
    const WHAT: &str = "platform";
    let asked = async {
        let client = Session::open(global, output)?.client;
        let identity = client.get("/v1/whoami", &[]).await?;
        Ok::<_, Problem>((client, identity))
    };
    let (client, identity) = match asked.await {
        Ok(answered) => answered,
        Err(problem) => {
            let finding =
                Finding::new(WHAT, Verdict::Warning, problem.detail, "start it with `hypercode up`");
            return (finding, Running::default());
        }
    };
    let running = Running {
        standing: told(&client, "/v1/audit/checkpoint").await,
        sandbox: told(&client, "/v1/isolation").await,
        projections: told(&client, "/v1/projections").await,
    };
    let principal = identity["principal"].as_str().unwrap_or_default();
    let found = format!("it runs, and knows this token as {principal}");
    let finding = match client.get("/readyz", &[]).await {
        Ok(_) => Finding::new(WHAT, Verdict::Ok, found, ""),
        Err(problem) => {
            let found = format!("{found}, but is not ready: {}", problem.detail);
            Finding::new(WHAT, Verdict::Error, found, "mend what the message names")
        }
    };
    (finding, running)
}

async fn told<T: DeserializeOwned>(client: &Client, path: &str) -> Said<T> {
    match client.get(path, &[]).await {
        Ok(said) => serde_json::from_value(said).map_or(Said::Nothing, Said::This),
        Err(problem) if problem.kind == ProblemKind::Denied => Said::Denied,
        Err(_) => Said::Nothing,
    }
}
