//! `hypercode log`: the log as a whole.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use events::api::{Problem, ProblemKind};
use events::store::copy::{Copied, InvalidPlace, Place, Progress, copy};
use serde_json::json;

use super::{Outcome, files};
use crate::output::{Output, remark};

/// How often it is said how far it has come.
const PROGRESS: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Log {
    /// Carry a whole log over to another database, hashes and positions as they are; then verify it there.
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// The log to copy, which no platform may be using: `sqlite:` and a data directory, or the URL of a database.
    #[arg(long, value_name = "sqlite:DIR|postgres://…")]
    from: String,
    /// Where to: a place without a log, or with a beginning of this one, as an interrupted copy leaves it.
    #[arg(long, value_name = "sqlite:DIR|postgres://…")]
    to: String,
}

impl Log {
    pub(super) async fn run(self, output: Output) -> Outcome {
        let Self::Copy(CopyArgs { from, to }) = self;
        let (from, to) = (place("--from", &from)?, place("--to", &to)?);
        let copied = copy(&from, &to, progress()).await?;
        let Copied { head, events, artifacts, artifacts_carried, digests, names, keys, .. } = copied;
        let shown = json!({
            "from": from.to_string(), "to": to.to_string(), "verified": true,
            "position": head.position, "hash": head.hash, "events": events,
            "artifacts": artifacts, "artifactsCarried": artifacts_carried,
            "artifactsDamaged": copied.artifacts_damaged, "artifactsDeleted": copied.artifacts_deleted,
            "digests": digests, "names": names, "keys": keys,
        });
        output.value(&shown, |_| tell(&from, &to, &copied))?;
        // The log is whole, but not all that it refers to.
        Ok(if copied.artifacts_damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Not parsed by clap, which repeats what it cannot read: it may hold a password.
fn place(flag: &str, text: &str) -> Result<Place, Problem> {
    text.parse()
        .map_err(|error: InvalidPlace| Problem::new(ProblemKind::Invalid, format!("`{flag}`: {error}")))
}

/// Says now and then how far it is, and whenever a part is done.
fn progress() -> impl FnMut(Progress) + Send {
    let mut told = Instant::now();
    move |progress| {
        let (is_done, text) = match progress {
            Progress::Artifacts(count) => (false, format!("{count} artifacts are there")),
            Progress::Damaged(digest) => (
                true,
                format!(
                    "artifact {digest} is damaged at the source and is left out; restore it and copy again"
                ),
            ),
            Progress::Events(at, end) => (at == end, format!("{at} of {end} events are there")),
            Progress::Verified(at, end) => (at == end, format!("{at} of {end} events verified")),
        };
        if is_done || told.elapsed() >= PROGRESS {
            told = Instant::now();
            remark(text);
        }
    }
}

fn tell(from: &Place, to: &Place, copied: &Copied) -> String {
    let count = |number: u64, what| files::count(usize::try_from(number).unwrap_or(usize::MAX), what);
    let Copied { head, events, artifacts, artifacts_carried, digests, names, keys, .. } = copied;
    let verdict = match copied.artifacts_damaged {
        0 => format!("ok: {to} holds the log of {from}"),
        damaged => format!(
            "NOT WHOLE: {to} holds the log of {from}, but {} damaged there and missing here",
            if damaged == 1 { "1 artifact is".to_owned() } else { format!("{damaged} artifacts are") }
        ),
    };
    format!(
        "{verdict}\n\
         verified    the hash chain of all {}; both logs end with hash {}\n\
         carried     {} and {} now, the rest was there; {digests} digests of commands, {names} names, {keys} keys of data subjects\n\
         artifacts   {artifacts}, {} deleted here since they are at the source\n\
         Only one of the two may go on: start platforms on the copy alone, with the data directory that they had.\n",
        count(head.position.0, "event"),
        head.hash,
        count(*events, "event"),
        count(*artifacts_carried, "artifact"),
        copied.artifacts_deleted,
    )
}
