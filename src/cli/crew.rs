//! `hypercode crew`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use manifest::Manifest;
use serde_json::{Value, json};

use super::session::{Listing, Session};
use super::{Outcome, files, pool, profile};
use crate::client::escape;
use crate::output::{Column, table};

#[derive(Debug, Subcommand)]
pub(super) enum Crew {
    /// Show what assembling would do, and who may say what to whom.
    Plan {
        /// A file with the crew; profiles in it are planned with.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Bring up a crew: answers when every member is ready, or all are released.
    Assemble {
        /// Files with one crew; profiles in them are applied first.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The same key and content gives the first outcome.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List crews.
    List {
        /// Only those in this state, such as `running`.
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a crew.
    Show {
        /// Its name or id.
        crew: String,
    },
    /// Change the number of a member's replicas.
    Scale {
        /// The crew's name or id.
        crew: String,
        /// The member and its number of agents, such as `analyst=5`.
        #[arg(value_name = "MEMBER=REPLICAS", value_parser = replicas)]
        member: (String, u32),
    },
    /// Give out no tasks until resumed; what runs goes on.
    Pause {
        /// The crew's name or id.
        crew: String,
    },
    /// Give out tasks again; a crew whose budget is used up needs more of it.
    Resume {
        /// The crew's name or id.
        crew: String,
        /// Tokens that it may use in its life from now on.
        #[arg(long, value_name = "COUNT")]
        tokens: Option<u64>,
        /// Messages that it may send in its life from now on.
        #[arg(long, value_name = "COUNT")]
        messages: Option<u64>,
        /// How long after its assembly it may go on from now on, such as `4h`.
        #[arg(long, value_name = "DURATION")]
        wall_time: Option<manifest::Millis>,
    },
    /// Take no new tasks, finish those in hand, then disband.
    Drain {
        /// The crew's name or id.
        crew: String,
        /// Call off what is left in hand after this time, such as `10m`.
        #[arg(long, value_name = "DURATION")]
        grace: Option<manifest::Millis>,
    },
    /// Cancel the crew's tasks and stop its agents.
    Disband {
        /// The crew's name or id.
        crew: String,
        /// Why, for the log.
        #[arg(long)]
        reason: Option<String>,
    },
}

fn replicas(text: &str) -> Result<(String, u32), String> {
    let parts =
        text.split_once('=').and_then(|(member, count)| Some((member.to_owned(), count.parse().ok()?)));
    parts.ok_or_else(|| "expected MEMBER=REPLICAS, such as `analyst=5`".to_owned())
}

const COLUMNS: [Column; 8] = [
    Column::new("NAME", "/name"),
    Column::new("ID", "/id"),
    Column::new("STATUS", "/status"),
    Column::new("ENTRY", "/entry"),
    Column::new("AGENTS", "/agents"),
    Column::new("READY", "/agentsReady"),
    Column::new("TASKS", "/tasksOpen"),
    Column::new("CREATED", "/createdAt"),
];

impl Crew {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Plan { files } => return plan(session, &files).await,
            Self::Assemble { files, idempotency_key } => {
                let (others, crew) = split(&files)?;
                // A pool may name a profile.
                let (profiles, pools) = others.into_iter().partition::<Vec<_>, _>(is_profile);
                for found in &profiles {
                    let done = profile::apply(session, found, None).await?;
                    crate::output::remark(profile::applied(&done));
                }
                for found in &pools {
                    let done = pool::apply(session, &found.manifest, None).await?;
                    crate::output::remark(pool::applied(&done));
                }
                let body = json!({ "manifest": crew.manifest });
                let done = session.client.post("/v1/crews/assemble", &body, idempotency_key.as_deref()).await;
                say(session, &done.map_err(|problem| crew.placed(problem))?, "assembled")?;
            }
            Self::List { status, listing } => {
                session.list("/v1/crews", [("status", status)], &listing, &COLUMNS).await?
            }
            Self::Show { crew } => {
                let crew = session.client.get(&format!("/v1/crews/{}", escape(&crew)), &[]).await?;
                session.output.details(&crew)?;
            }
            Self::Scale { crew, member: (member, replicas) } => {
                let body = json!({"member": member, "replicas": replicas});
                command(session, &crew, "scale", &body, "scaled").await?;
            }
            Self::Pause { crew } => command(session, &crew, "pause", &json!({}), "paused").await?,
            Self::Resume { crew, tokens, messages, wall_time } => {
                let wall_time_ms = wall_time.map(manifest::Millis::as_millis);
                let body = json!({"tokens": tokens, "messages": messages, "wallTimeMs": wall_time_ms});
                command(session, &crew, "resume", &body, "resumed").await?;
            }
            Self::Drain { crew, grace } => {
                let body = json!({ "graceMs": grace.map(manifest::Millis::as_millis) });
                command(session, &crew, "drain", &body, "is draining").await?;
            }
            Self::Disband { crew, reason } => {
                command(session, &crew, "disband", &json!({ "reason": reason }), "is disbanded").await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn command(session: &Session, crew: &str, verb: &str, body: &Value, did: &str) -> Result<(), Problem> {
    let done = session.client.post(&format!("/v1/crews/{}/{verb}", escape(crew)), body, None).await?;
    say(session, &done, did)
}

fn say(session: &Session, done: &Value, did: &str) -> Result<(), Problem> {
    session.output.value(done, |done| {
        format!("crew {} {did} (position {})", done["id"].as_str().unwrap_or_default(), done["position"])
    })
}

fn is_profile(found: &files::Found) -> bool {
    matches!(found.manifest, Manifest::Profile(_))
}

/// The one crew of these files, and what is beside it.
fn split(paths: &[PathBuf]) -> Result<(Vec<files::Found>, files::Found), Problem> {
    let (mut crews, others): (Vec<_>, Vec<_>) =
        files::manifests(paths)?.into_iter().partition(|found| matches!(found.manifest, Manifest::Crew(_)));
    match (crews.pop(), crews.is_empty()) {
        (Some(crew), true) => Ok((others, crew)),
        (None, _) => {
            Err(Problem::new(ProblemKind::Invalid, "found no crew, expected one manifest of kind `Crew`"))
        }
        (Some(_), false) => Err(Problem::new(
            ProblemKind::Invalid,
            "found several crews, expected one manifest of kind `Crew`",
        )),
    }
}

async fn plan(session: &Session, paths: &[PathBuf]) -> Outcome {
    let (others, crew) = split(paths)?;
    let profiles: Vec<&Manifest> =
        others.iter().filter(|found| is_profile(found)).map(|found| &found.manifest).collect();
    let body = json!({"manifest": crew.manifest, "profiles": profiles});
    let mut plan = session.client.post("/v1/crews/plan", &body, None).await?;
    if let Some(faults) = plan["faults"].as_array_mut() {
        crew.place(faults);
    }
    session.output.value(&plan, |plan| readable_plan(plan, session.output.is_coloured))?;
    let is_possible = plan["faults"].as_array().is_none_or(Vec::is_empty);
    Ok(ExitCode::from(u8::from(!is_possible)))
}

fn readable_plan(plan: &Value, is_coloured: bool) -> String {
    const MEMBERS: [Column; 6] = [
        Column::new("MEMBER", "/name"),
        Column::new("REPLICAS", "/replicas"),
        Column::new("PROFILE", "/profile"),
        Column::new("VERSION", "/summary/version"),
        Column::new("PROTOCOL", "/summary/protocol"),
        Column::new("MEMORY", "/summary/resources/memory"),
    ];
    let rows = plan["members"].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = format!("crew {}, entry {}\n\n", plain(&plan["crew"]), plain(&plan["entry"]));
    text += &table(rows, &MEMBERS, is_coloured);
    text += "\nwho may say what to whom (rows send, columns receive; all else is denied)\n";
    text += &matrix(&plan["matrix"]);
    let total = &plan["total"];
    text += &format!(
        "\nin all {} agents, {} tasks at once, {} CPU, {} memory\n",
        total["agents"],
        total["concurrency"],
        plain(&total["cpu"]),
        plain(&total["memory"])
    );
    for fault in plan["faults"].as_array().into_iter().flatten() {
        text += &format!("{}\n", plain(&fault["message"]));
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The communication matrix as a table of what each channel carries.
fn matrix(matrix: &Value) -> String {
    let members: Vec<&str> =
        matrix["members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let cell = |edges: &Value| -> String {
        let kinds = edges
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|edge| edge["kinds"].as_array().into_iter().flatten());
        let mut kinds: Vec<&str> = kinds.filter_map(Value::as_str).collect();
        kinds.dedup();
        if kinds.is_empty() { "·".to_owned() } else { kinds.join("+") }
    };
    let width =
        members.iter().map(|member| member.chars().count()).max().unwrap_or(0).max("task+message".len());
    let mut text = format!("{:width$}", "");
    for member in &members {
        text += &format!("  {member:width$}");
    }
    for (member, row) in members.iter().zip(matrix["rows"].as_array().into_iter().flatten()) {
        text.truncate(text.trim_end().len());
        text += &format!("\n{member:width$}");
        for edges in row.as_array().into_iter().flatten() {
            text += &format!("  {:width$}", cell(edges));
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_shows_who_may_say_what() {
        let edge = |kinds: &[&str]| json!([{ "kinds": kinds }]);
        let shown = matrix(&json!({
            "members": ["scout", "editor"],
            "rows": [[[], edge(&["task", "message"])], [[], []]],
        }));
        assert_eq!(
            shown,
            "              scout         editor\n\
             scout         ·             task+message\n\
             editor        ·             ·\n"
        );
    }

    #[test]
    fn replicas_are_a_member_and_a_number() {
        assert_eq!(replicas("analyst=5"), Ok(("analyst".to_owned(), 5)));
        assert!(replicas("analyst").is_err() && replicas("analyst=many").is_err());
    }
}
