//! Making all views anew beside the live ones, and comparing them byte for byte.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use events::EventStore;
use events::api::{Problem, ProblemKind};
use events::projection::{self, Frozen, VIEWS_FILE, Views};
use events::store::Until;
use serde_json::{Value, json};

use crate::cli::evidence;
use crate::cli::session;
use crate::cli::{Global, Outcome};
use crate::output::{Output, harmless, remark};

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

pub(super) async fn run(path: Option<&Path>, global: &Global, output: Output) -> Outcome {
    if let (None, Some(server)) = (path, &global.server) {
        let detail = format!(
            "`--check` reads the views where they lie, which `{server}` does not show; name the data directory or the URL of \
             the database, or leave out `--server` (HYPERCODE_SERVER)"
        );
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let mut config = session::config(global, Vec::new())?;
    if let Some(path) = path {
        config.database_url = evidence::database(path)?;
    }
    let mut live = match &config.database_url {
        Some(database) => Frozen::open_common(database).await?,
        None => files(path.unwrap_or(&config.data_dir)).await?,
    };
    let store = match &config.database_url {
        Some(_) => evidence::configured(&config).await?,
        None => Arc::new(evidence::open(path.unwrap_or(&config.data_dir)).await?),
    };
    let scratch = tempfile::tempdir()
        .map_err(|error| Problem::new(ProblemKind::Unavailable, format!("make a directory: {error}")))?;
    make(Until::new(store, live.source()), scratch.path()).await?;
    let mut made = Frozen::open(&scratch.path().join(VIEWS_FILE)).await?;
    let compared = live.compare(&mut made).await?;
    let difference = compared
        .difference
        .as_ref()
        .map(|found| json!({"table": found.table, "live": found.here, "replayed": found.there}));
    // What came after the event that stopped a projection is in neither.
    let stopped = live.stopped().await?;
    let position = live.source().position;
    let is_well = difference.is_none() && stopped.is_empty();
    let shown = json!({
        "ok": is_well, "position": position, "rows": compared.rows, "difference": difference, "stopped": stopped,
    });
    output.value(&shown, |_| tell(&shown))?;
    Ok(ExitCode::from(u8::from(!is_well)))
}

/// The views in a data directory.
async fn files(dir: &Path) -> Result<Frozen, Problem> {
    let file = dir.join(VIEWS_FILE);
    if !file.is_file() {
        let detail = format!("`{}` does not exist: there are no views to compare with", file.display());
        return Err(Problem::new(ProblemKind::NotFound, detail));
    }
    Ok(Frozen::open(&file).await?)
}

/// Makes the views of `log` in `directory`.
async fn make(log: Until, directory: &Path) -> Result<(), Problem> {
    let log = Arc::new(log);
    let head = log.head().await?.position;
    let views = Views::open(directory, log, projection::Options::default()).await?;
    while views.wait_for(head, PROGRESS).await.is_err() {
        remark(format_args!("replayed {} of {head} events", views.position()));
        if let Some(stopped) = views.status().await?.into_iter().find(|status| status.error.is_some()) {
            let error = stopped.error.unwrap_or_default();
            let detail = format!("projection `{}` stops: {error}", stopped.name);
            return Err(Problem::new(ProblemKind::Failed, detail));
        }
    }
    views.close().await;
    Ok(())
}

/// Characters that are shown before and after the first that differs.
const BEFORE: usize = 60;
const AFTER: usize = 100;

/// Where two rows differ first, with what stands around it.
fn around(row: &str, other: &str) -> String {
    let same = row.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let start = same.saturating_sub(BEFORE);
    let cut = |is_cut: bool| if is_cut { "…" } else { "" };
    let shown: String = row.chars().skip(start).take(same - start + AFTER).collect();
    let is_long = row.chars().count() > same + AFTER;
    format!("{}{shown}{}", cut(start > 0), cut(is_long))
}

fn tell(shown: &Value) -> String {
    let difference = &shown["difference"];
    let stopped = shown["stopped"].as_array().map_or(&[][..], Vec::as_slice);
    let told = stopped.iter().map(|status| {
        let (name, error) = (status["name"].as_str(), status["error"].as_str());
        format!("  `{}`: {}\n", name.unwrap_or_default(), error.unwrap_or_default())
    });
    let stops = match stopped.is_empty() {
        true => String::new(),
        false => format!(
            "NOT OK: projections have stopped, and show nothing of what came after\n{}",
            told.collect::<String>()
        ),
    };
    match (difference.is_null(), stopped.is_empty()) {
        (true, true) => format!(
            "ok: replaying {} events gives the live views byte for byte, {} rows",
            shown["position"], shown["rows"]
        ),
        (true, false) => harmless(&format!(
            "{stops}what the live views show is what the log says, {} rows\n",
            shown["rows"]
        )),
        (false, _) => harmless(&(stops + &differs(shown))),
    }
}

/// Where the live views are not what the log says.
fn differs(shown: &Value) -> String {
    let difference = &shown["difference"];
    let row = |name: &str| difference[name].as_str().unwrap_or("(no such row)");
    let (live, replayed) = (row("live"), row("replayed"));
    format!(
        "NOT OK: the live views are not what the log says\n\
         after {} equal rows, table {} differs first in\n  live      {}\n  replayed  {}\n\
         `hypercode projection rebuild --all` makes them anew; --output json has the rows whole",
        shown["rows"],
        difference["table"].as_str().unwrap_or_default(),
        around(live, replayed),
        around(replayed, live)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_stopped_is_said_beside_what_differs() {
        let difference = json!({"table": "tasks", "live": "a", "replayed": "b"});
        let stopped = json!([{"name": "crews", "error": "event at position 7: no"}]);
        let told = |difference: &Value, stopped: &Value| {
            tell(&json!({"rows": 3, "position": 9, "difference": difference, "stopped": stopped}))
        };
        let both = told(&difference, &stopped);
        assert!(
            both.contains("`crews`: event at position 7: no") && both.contains("table tasks differs"),
            "{both}"
        );
        let alone = told(&difference, &json!([]));
        assert!(alone.contains("table tasks differs") && !alone.contains("stopped"), "{alone}");
        assert!(told(&Value::Null, &stopped).contains("is what the log says"));
        assert!(told(&Value::Null, &json!([])).starts_with("ok: "));
    }

    #[test]
    fn long_rows_are_cut_around_the_difference() {
        let row = |middle: &str| format!("{}{middle}{}", "a".repeat(100), "b".repeat(200));
        let shown = around(&row("xy"), &row("xz"));
        assert_eq!(shown, format!("…{}xy{}…", "a".repeat(59), "b".repeat(99)));
        assert_eq!(around("short", "sharp"), "short");
    }
}
