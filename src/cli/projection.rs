//! `hypercode projection`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use serde_json::{Value, json};

use super::Outcome;
use super::session::Session;
use crate::output::{Column, Output, harmless, remark, table};

#[derive(Debug, Subcommand)]
pub(super) enum Projection {
    /// Show where each projection stands.
    Status,
    /// Make a projection again from the beginning of the log, or all of them, while the old rows serve queries.
    Rebuild {
        /// Its name.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// All of them.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("NAME", "/name"),
    Column::new("STATUS", "/status"),
    Column::new("POSITION", "/position"),
    Column::new("LAG", "/lag"),
    Column::new("SKIPPED", "/skipped"),
    Column::new("REBUILD", "/rebuild/status"),
];

/// How often it is looked how far a rebuild is, and how often that is said.
const LOOK: Duration = Duration::from_millis(100);
const PROGRESS: Duration = Duration::from_secs(1);

impl Projection {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let page = match self {
            Self::Status => session.client.get("/v1/projections", &[]).await?,
            Self::Rebuild { name, .. } => {
                let wanted = json!({ "name": name });
                let begun = session.client.post("/v1/projections/rebuild", &wanted, None).await?;
                rebuilt(session, begun).await?
            }
        };
        session.output.value(&page, |page| tell(page, session.output))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The table, and below it why a projection has stopped, whole.
fn tell(page: &Value, output: Output) -> String {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = table(items, &COLUMNS, output.is_coloured);
    for item in items {
        if let (Some(name), Some(error)) = (item["name"].as_str(), item["error"].as_str()) {
            text += &format!("{name} has stopped: {}\n", harmless(error));
        }
    }
    text
}

/// Waits until the rebuild that was begun has ended.
async fn rebuilt(session: &Session, mut page: Value) -> Result<Value, Problem> {
    let mut told = Instant::now();
    loop {
        let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        let rebuild = items.iter().map(|item| &item["rebuild"]).find(|rebuild| !rebuild.is_null());
        match rebuild.and_then(|rebuild| rebuild["status"].as_str()) {
            Some("running") => {}
            Some("failed") => {
                let error = rebuild.and_then(|rebuild| rebuild["error"].as_str()).unwrap_or_default();
                return Err(Problem::new(ProblemKind::Failed, error));
            }
            _ => return Ok(page),
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            remark(format_args!(
                "made again up to {} of {} events",
                rebuild.map_or(&Value::Null, |it| &it["position"]),
                page["head"]
            ));
        }
        tokio::time::sleep(LOOK).await;
        page = session.client.get("/v1/projections", &[]).await?;
    }
}
