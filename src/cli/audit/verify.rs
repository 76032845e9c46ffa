//! Verifying: a platform's log, a data directory, a bundle, or the proof of one event.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use events::Position;
use events::api::{Problem, ProblemKind};
use events::audit::{Evidence, Proof, PublicKey, Report, Trust, WitnessKey, notes, verify};
use serde_json::json;

use crate::cli::evidence::{self, Online};
use crate::cli::session::{self, Session};
use crate::cli::{Global, Outcome, files};
use crate::config::Config;
use crate::output::{Output, harmless, remark};

/// Events between two signs of progress.
const PROGRESS_EVENTS: u64 = 50_000;

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// An evidence bundle (a directory or a tar file), the proof of one event (`.tlog-proof`) or the URL of a database, to
    /// verify instead of a platform's log.
    #[arg(value_name = "BUNDLE|PROOF|URL", conflicts_with = "offline")]
    path: Option<PathBuf>,
    /// Read the data directory, or the configured database, itself instead of asking a platform; one may be running.
    #[arg(long)]
    offline: bool,
    /// Also hold the log to the checkpoints in this file, which somebody else has kept; may be repeated.
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// The public key that must have signed, as it was handed over before; may be repeated. A log of which it has signed
    /// nothing is not what was signed. In a database, all that the named keys have signed is compared. Without it, the keys
    /// that the log names for itself count.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// The public key of a witness that must have cosigned a checkpoint in the bundle, those in the files of `--against`, and
    /// with `--offline` those that the data directory has of it; the configured ones unless given.
    #[arg(long, value_name = "KEY")]
    witness_key: Option<String>,
}

impl Verify {
    pub(super) async fn run(self, global: &Global, output: Output) -> Outcome {
        let keys = self.keys()?;
        let witness = self.witness()?;
        if let Some(proof) = self.path.as_deref().map(as_proof).transpose()?.flatten() {
            return prove(&proof, &keys, output);
        }
        let scratch = tempfile::tempdir()
            .map_err(|error| Problem::new(ProblemKind::Unavailable, format!("make a directory: {error}")))?;
        let database = self.path.as_deref().map(evidence::database).transpose()?.flatten();
        let (mut evidence, mut trust): (Box<dyn Evidence>, Trust) = match (&self.path, self.offline) {
            (Some(_), _) if database.is_some() => {
                let config = Config { database_url: database, ..session::config(global, Vec::new())? };
                let (local, trust) = evidence::offline(&config, &keys).await?;
                (Box::new(local), trust)
            }
            (Some(path), _) => {
                let bundle = evidence::bundle(path, scratch.path())?;
                let mut trust = bundle.trust()?;
                if let Some(witness) =
                    witness.as_ref().filter(|_| self.against.is_empty() || trust.has_cosigned())
                {
                    trust.must_be_witnessed(witness);
                }
                (Box::new(bundle), trust)
            }
            (None, true) => {
                let mut config = session::config(global, Vec::new())?;
                if let Some(witness) = &witness {
                    let file = config.cosigned_file(witness);
                    let is_missing = self.against.is_empty() && !file.is_file();
                    if is_missing && !evidence::was_given_to(&config, witness).await? {
                        let detail = format!(
                            "this witness has cosigned nothing with that key: there is no `{}`",
                            file.display()
                        );
                        return Err(Problem::new(ProblemKind::NotFound, detail));
                    }
                    config.checkpoint_witness_key = vec![witness.clone()];
                }
                let (local, trust) = evidence::offline(&config, &keys).await?;
                (Box::new(local), trust)
            }
            (None, false) => {
                if witness.is_some() && self.against.is_empty() {
                    let detail = "`--witness-key` over HTTP: name the file of what the witness has cosigned with `--against`, \
                                  or verify the data directory with `--offline`";
                    return Err(Problem::new(ProblemKind::Invalid, detail));
                }
                let (online, trust) = Online::evidence(&Session::open(global, output)?.client).await?;
                (Box::new(online), trust)
            }
        };
        for file in &self.against {
            let (place, kept) = (format!("in `{}`", file.display()), notes(&text(file)?));
            if kept.is_empty() {
                let detail = format!("`{}` holds no checkpoint to compare with", file.display());
                return Err(Problem::new(ProblemKind::Invalid, detail));
            }
            match &witness {
                Some(witness) => trust.hold_to_witnessed(&place, kept, witness),
                None => trust.hold_to(&place, kept),
            }
        }
        let is_pinned = !keys.is_empty();
        if is_pinned {
            trust.pin(keys);
        }
        let report = verify(trust, &mut *evidence, progress()).await?;
        output.value(&json!(report), |_| tell(&report, is_pinned))?;
        Ok(ExitCode::from(u8::from(!report.ok)))
    }

    fn witness(&self) -> Result<Option<WitnessKey>, Problem> {
        let parse = |key: &String| {
            WitnessKey::parse(key)
                .map_err(|error| Problem::new(ProblemKind::Invalid, format!("`--witness-key`: {error}")))
        };
        self.witness_key.as_ref().map(parse).transpose()
    }

    fn keys(&self) -> Result<Vec<PublicKey>, Problem> {
        let parse = |key: &String| {
            PublicKey::parse(key)
                .map_err(|error| Problem::new(ProblemKind::Invalid, format!("`--key`: {error}")))
        };
        self.key.iter().map(parse).collect()
    }
}

fn text(file: &Path) -> Result<String, Problem> {
    let not_text =
        |_| Problem::new(ProblemKind::Invalid, format!("read `{}`: it is not text", file.display()));
    String::from_utf8(files::read(file)?).map_err(not_text)
}

/// The text of the file if it is a proof.
fn as_proof(path: &Path) -> Result<Option<String>, Problem> {
    match path.is_file() && !evidence::is_tar(path)? {
        true => text(path).map(Some),
        false => Ok(None),
    }
}

fn prove(text: &str, keys: &[PublicKey], output: Output) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| Problem::new(ProblemKind::Failed, error.to_string());
    if keys.is_empty() {
        let detail =
            "name the key with `--key`: a proof says nothing without one that is known from elsewhere";
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    let proof = Proof::parse(text).map_err(|error| failed(&error))?;
    let proven = proof.check(keys).map_err(|error| failed(&error))?;
    let event = &proof.event;
    let report = json!({
        "ok": true, "position": event.position, "kind": &*event.kind, "stream": event.stream,
        "principal": event.meta.principal, "recordedAt": event.recorded_at.rfc3339(), "size": proven.size,
        "key": proven.key.as_str(),
    });
    output.value(&report, |_| {
        harmless(&format!(
            "proven: position {} of the log that {} signed with {} events\n  {}  {}  {}  {}",
            event.position,
            proof.note.checkpoint().origin,
            proven.size,
            event.recorded_at.rfc3339(),
            event.meta.principal,
            event.stream,
            event.kind
        ))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says now and then how far it is, to somebody who waits at a terminal.
fn progress() -> impl FnMut(Position) + Send {
    let is_watched = std::io::stderr().is_terminal();
    let mut told = 0;
    move |position| {
        if is_watched && position.0 >= told + PROGRESS_EVENTS {
            told = position.0;
            remark(format_args!("{position} events verified"));
        }
    }
}

/// What is proven, and how far.
fn verdict(report: &Report) -> String {
    let Report { first, last, covered, .. } = report;
    match report.faults.len() {
        0 if *last == 0 => "ok: the log has no events\n".to_owned(),
        0 if report.checkpoints == 0 => {
            "UNSIGNED: the events fit each other; that they are those that were recorded, no signature says\n"
                .to_owned()
        }
        0 if covered < last => {
            let since = files::count(usize::try_from(last - covered).unwrap_or(usize::MAX), "event");
            format!(
                "ok: events {first} to {covered} are what was signed; {since} after them not signed yet\n"
            )
        }
        0 => format!("ok: events {first} to {last} are what was signed\n"),
        faults => format!("NOT OK: {}\n", files::count(faults, "fault")),
    }
}

/// The report for a person.
pub(super) fn tell(report: &Report, is_pinned: bool) -> String {
    let mut text = verdict(report);
    for fault in &report.faults {
        let place = match (fault.position, fault.until) {
            (first, last) if first == last => format!("position {first}"),
            (first, last) => format!("positions {first} to {last}"),
        };
        text += &format!("  {place}: {}: {}\n", json!(fault.kind).as_str().unwrap_or_default(), fault.detail);
    }
    text += &format!("events       {} to {}, hash {}\n", report.first, report.last, report.hash);
    text += &match report.checkpoints {
        0 => {
            "checkpoints  none that could be held against the log; `--key` names a key, `--against` a file\n"
                .to_owned()
        }
        agreed => format!("checkpoints  {agreed} agree, up to position {}\n", report.covered),
    };
    if report.tiles > 0 {
        text += &format!(
            "tree         {} agree\n",
            files::count(usize::try_from(report.tiles).unwrap_or(usize::MAX), "tile")
        );
    }
    for key in &report.keys {
        let origin = if is_pinned {
            "as you named it"
        } else {
            "as the log names it: compare it with the one that you were given"
        };
        text += &format!("key          {key}\n             ({origin})\n");
    }
    harmless(&text)
}

#[cfg(test)]
mod tests {
    use events::Digest;

    use super::*;

    #[test]
    fn the_verdict_says_how_far_it_goes() {
        let report = |last: u64, covered: u64| Report {
            ok: true,
            origin: None,
            first: last.min(1),
            last,
            hash: Digest::ZERO,
            covered,
            checkpoints: covered.min(1),
            tiles: 0,
            keys: Vec::new(),
            faults: Vec::new(),
        };
        let told = |last: u64, covered: u64| verdict(&report(last, covered));
        assert_eq!(told(9, 9), "ok: events 1 to 9 are what was signed\n");
        assert_eq!(told(9, 8), "ok: events 1 to 8 are what was signed; 1 event after them not signed yet\n");
        assert!(told(9, 0).starts_with("UNSIGNED: "), "{}", told(9, 0));
        assert_eq!(told(0, 0), "ok: the log has no events\n");
    }
}
