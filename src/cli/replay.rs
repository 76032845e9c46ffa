//! `hypercode replay`: what was, from the log alone.

mod check;
mod diff;
mod life;
mod moment;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use events::api::{Problem, ProblemKind};
use events::replay::Registry;
use serde_json::{Value, json};

use self::moment::Moment;
use self::source::Source;
use super::{Global, Outcome, files};
use crate::http;
use crate::output::{Column, Output, table};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// A data directory, a log file, the URL of a database or an evidence bundle [default: the configured database, or the
    /// data directory, or over HTTP the platform that `--server` names].
    #[arg(value_name = "SOURCE")]
    source: Option<PathBuf>,
    /// Show pools, crews, agents and tasks as they were at a position, or at a time such as 2026-11-23T01:30:00Z [default: the end
    /// of the log].
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<Moment>,
    /// Show the life of one entity, such as `task/tk_…`, with cause and effect.
    #[arg(long, value_name = "KIND/ID", conflicts_with_all = ["diff", "check"])]
    entity: Option<String>,
    /// Show what changed between two moments.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["to", "check", "follow"])]
    diff: Option<Vec<Moment>>,
    /// Make all views anew beside the live ones, where they lie, and compare them byte for byte.
    #[arg(long, conflicts_with_all = ["to", "follow"])]
    check: bool,
    /// Go on with what comes: every change as it happens.
    #[arg(long, short, conflicts_with = "to")]
    follow: bool,
    /// Go on without what events did that a newer version has written; without this they are refused.
    #[arg(long, conflicts_with = "check")]
    skip_unknown: bool,
    /// Show ended crews, agents and tasks too.
    #[arg(long)]
    all: bool,
}

impl Replay {
    pub(super) async fn run(self, global: &Global, output: Output) -> Outcome {
        if self.check {
            return check::run(self.source.as_deref(), global, output).await;
        }
        let mut source = Source::open(self.source.as_deref(), self.skip_unknown, global, output).await?;
        if let Some(entity) = &self.entity {
            life::run(&mut source, entity, self.to.as_ref(), self.follow, output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        source.must_be_whole()?;
        if let Some([from, to]) = self.diff.as_deref() {
            diff::run(&mut source, from, to, output).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut registry = Registry::default();
        let came = source.replay(&mut registry, self.to.as_ref()).await?;
        if let Some(to) = &self.to {
            must_have_come(&registry, came, to)?;
        }
        let lists = http::registry(&registry);
        let shown = json!({
            "position": registry.position(), "at": registry.at().rfc3339(), "skipped": registry.skipped(),
            "profiles": lists["profiles"], "pools": lists["pools"], "crews": lists["crews"], "agents": lists["agents"],
            "tasks": lists["tasks"],
        });
        output.value(&shown, |shown| tell(shown, self.all, output))?;
        if self.follow {
            diff::follow(&source, registry, output).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses a position that the log does not have.
fn must_have_come(registry: &Registry, came: bool, to: &Moment) -> Result<(), Problem> {
    if came || to.is_time() {
        return Ok(());
    }
    let end = registry.position();
    Err(Problem::new(ProblemKind::NotFound, format!("the log ends at {end}, before {to}")))
}

const POOLS: &[Column] = &[
    Column::new("NAME", "/name"),
    Column::new("ID", "/id"),
    Column::new("STATUS", "/status"),
    Column::new("READY", "/ready"),
    Column::new("WARMING", "/warming"),
    Column::new("CLAIMED", "/claimed"),
    Column::new("CREATED", "/createdAt"),
];
const CREWS: &[Column] = &[
    Column::new("NAME", "/name"),
    Column::new("ID", "/id"),
    Column::new("STATUS", "/status"),
    Column::new("ENTRY", "/entry"),
    Column::new("AGENTS", "/agents"),
    Column::new("READY", "/agentsReady"),
    Column::new("TASKS", "/tasksOpen"),
    Column::new("CREATED", "/createdAt"),
];
const AGENTS: &[Column] = &[
    Column::new("ID", "/id"),
    Column::new("CREW", "/crew"),
    Column::new("MEMBER", "/member"),
    Column::new("REPLICA", "/replica"),
    Column::new("STATUS", "/status"),
    Column::new("INCARNATION", "/incarnation"),
    Column::new("TASKS", "/tasks"),
];
const TASKS: &[Column] = &[
    Column::new("ID", "/id"),
    Column::new("CREW", "/crew"),
    Column::new("MEMBER", "/member"),
    Column::new("STATUS", "/status"),
    Column::new("ATTEMPTS", "/attempts"),
    Column::new("CREATED", "/createdAt"),
    Column::new("ERROR", "/error"),
];

fn has_ended(item: &Value) -> bool {
    let status = item["status"].as_str().unwrap_or_default();
    item["isTerminal"] == true || matches!(status, "disbanded" | "terminated" | "failed")
}

fn tell(shown: &Value, all: bool, output: Output) -> String {
    let mut text =
        format!("after position {}, {}\n", shown["position"], shown["at"].as_str().unwrap_or_default());
    if shown["skipped"] != 0 {
        text += &format!("without what {} events did, which this version cannot read\n", shown["skipped"]);
    }
    for (name, columns) in [("pool", POOLS), ("crew", CREWS), ("agent", AGENTS), ("task", TASKS)] {
        let items = shown[format!("{name}s")].as_array().map_or(&[][..], Vec::as_slice);
        let kept: Vec<Value> = items.iter().filter(|item| all || !has_ended(item)).cloned().collect();
        let ended = items.len() - kept.len();
        let count = |number: usize| files::count(number, name);
        text += &match (kept.len(), ended) {
            (0, 0) => format!("\nno {name}s\n"),
            (kept, 0) => format!("\n{}\n", count(kept)),
            (kept, ended) => format!("\n{}, and {ended} that ended (--all shows them)\n", count(kept)),
        };
        if !kept.is_empty() {
            text += &table(&kept, columns, output.is_coloured);
        }
    }
    text
}
