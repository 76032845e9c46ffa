//! Exporting evidence.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use events::api::{Problem, ProblemKind};
use events::audit::{Evidence, Format, Ledger, Local, Manifest, Note, Trust, Wanted, export};
use events::domain::platform::AuditExported;
use events::{EventStore, Position};
use serde_json::{Value, json};

use crate::acts;
use crate::cli::Global;
use crate::cli::evidence::{self, Online};
use crate::cli::session::{self, Session};
use crate::config::Config;
use crate::output::Output;
use crate::storage::Storage;

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// The directory to make, or the file if it ends in `.tar`.
    #[arg(long, value_name = "DIR|FILE.tar")]
    out: PathBuf,
    /// The position of the first event.
    #[arg(long, value_name = "POSITION", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// The position of the last event [default: the event that records this export].
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// Also write the events in the words of other tools.
    #[arg(long, value_enum, default_value_t)]
    format: FormatName,
    /// Read the data directory, or the configured database, itself; no platform may be running on the directory.
    #[arg(long)]
    offline: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FormatName {
    /// Only the evidence itself.
    #[default]
    Jsonl,
    /// CloudEvents 1.0.
    Cloudevents,
    /// OCSF 1.8, class API Activity.
    Ocsf,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Jsonl => Self::Jsonl,
            FormatName::Cloudevents => Self::CloudEvents,
            FormatName::Ocsf => Self::Ocsf,
        }
    }
}

impl Export {
    pub(super) async fn run(self, global: &Global, output: Output) -> Result<(), Problem> {
        if self.out.exists() {
            let detail = format!("`{}` exists; name another place", self.out.display());
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let (mut evidence, trust, Taken { to, cosigned }) = match self.offline {
            true => self.offline(&session::config(global, Vec::new())?).await?,
            false => self.online(&Session::open(global, output)?).await?,
        };
        let checkpoints = trust.checkpoints.into_iter().map(|kept| {
            let place = kept.place;
            kept.note
                .map_err(|error| Problem::new(ProblemKind::Failed, format!("checkpoint {place}: {error}")))
        });
        let checkpoints: Vec<Note> = checkpoints.collect::<Result<_, Problem>>()?;
        let wanted = Wanted {
            from: self.from,
            to,
            checkpoints,
            cosigned,
            keys: trust.keys,
            format: self.format.into(),
        };
        let manifest = match self.out.extension().is_some_and(|extension| extension == "tar") {
            true => packed(wanted, &mut *evidence, &self.out).await?,
            false => export(wanted, &mut *evidence, &self.out).await?,
        };
        let shown = self.out.display().to_string();
        output.value(&json!({"path": shown, "manifest": manifest}), |_| tell(&shown, &manifest))?;
        Ok(())
    }

    /// Has the platform record the export, and reads what it then has.
    async fn online(&self, session: &Session) -> Result<(Box<dyn Evidence>, Trust, Taken), Problem> {
        let format = Format::from(self.format).as_str();
        let asked = json!({"from": self.from, "to": self.to, "format": format});
        let answer = session.client.post("/v1/audit/exports", &asked, None).await?;
        let to = answer["to"].as_u64().ok_or_else(|| {
            Problem::new(ProblemKind::Internal, "the platform answered without the last event's position")
        })?;
        let notes = answer["cosigned"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let cosigned = notes.filter_map(|note| Note::parse(note).ok()).collect();
        let (_, trust) = Online::evidence(&session.client).await?;
        let events = Online::new(&session.client, Position(self.from - 1), Some(Position(to)));
        Ok((Box::new(events), trust, Taken { to, cosigned }))
    }

    /// Records the export in the log itself, signs, and reads what is there then.
    async fn offline(&self, config: &Config) -> Result<(Box<dyn Evidence>, Trust, Taken), Problem> {
        // What is missing or of another schema is said, not made.
        let store = evidence::configured(config).await?;
        if config.database_url.is_some() {
            evidence::ledger(config).await?.close().await;
        }
        let storage = Storage::open(config).await;
        let storage = storage.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
        let recorded = self.record(config, storage.store()).await;
        storage.close().await;
        let taken = recorded?;
        let ledger = Ledger::read(&config.data_dir).await?;
        let (_, trust) = Local::new(Arc::clone(&store), ledger.clone()).await?;
        let events = Local::after(store, ledger, Position(self.from - 1)).await?;
        Ok((Box::new(events), trust, taken))
    }

    async fn record(&self, config: &Config, store: Arc<dyn EventStore>) -> Result<Taken, Problem> {
        let audit = crate::platform::start_audit(config, Arc::clone(&store), None).await;
        let audit = audit.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?;
        let format = Format::from(self.format).as_str().to_owned();
        let exported = AuditExported { from: self.from, to: self.to, format };
        let appended = acts::record_export(&*store, &acts::command_line(), exported).await;
        let cut = audit.cut().await;
        let to = appended.as_ref().map_or(0, |appended| self.to.unwrap_or(appended.position.0));
        let cosigned = audit.cosigned(self.from..=to).await;
        audit.close().await;
        appended?;
        cut.map_err(|error| Problem::new(ProblemKind::Failed, error.to_string()))?;
        Ok(Taken { to, cosigned })
    }
}

/// What is taken out.
struct Taken {
    /// The position of the last event.
    to: u64,
    /// What witnesses have cosigned of it.
    cosigned: Vec<Note>,
}

async fn packed(wanted: Wanted, evidence: &mut dyn Evidence, file: &Path) -> Result<Manifest, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(ProblemKind::Invalid, format!("write `{}`: {error}", file.display()))
    };
    let scratch = tempfile::tempdir().map_err(failed)?;
    let name = file.file_stem().unwrap_or_default();
    let directory = scratch.path().join(name);
    let manifest = export(wanted, evidence, &directory).await?;
    let mut tar = tar::Builder::new(File::create_new(file).map_err(failed)?);
    tar.append_dir_all(name, &directory).map_err(failed)?;
    tar.into_inner().and_then(|file| file.sync_all()).map_err(failed)?;
    Ok(manifest)
}

fn tell(path: &str, manifest: &Manifest) -> String {
    let size = manifest.checkpoints.last().copied().unwrap_or_default();
    let Manifest { from, to, origin, .. } = manifest;
    let program = match path.ends_with(".tar") {
        true => "the `verify.py` in it".to_owned(),
        false => format!("`python3 {path}/verify.py`"),
    };
    format!(
        "events {from} to {to} of {origin} are in `{path}`, proven by a checkpoint of {size} events\n\
         verify them with {program}, or with `hypercode audit verify {path}`; `README.md` in it tells an auditor how"
    )
}
