//! `hypercode profile`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use events::api::{Problem, ProblemKind};
use manifest::{Code, Manifest};
use serde_json::{Value, json};

use super::session::{Listing, Session};
use super::{Outcome, files};
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Profile {
    /// Pack the source of each profile and make it the newest version of its name.
    Apply {
        /// Files with profiles; crews in them are passed over.
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The same key and content gives the first outcome.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List profiles.
    List {
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a profile.
    Show {
        /// Its name.
        name: String,
    },
}

const COLUMNS: [Column; 5] = [
    Column::new("NAME", "/name"),
    Column::new("VERSION", "/version"),
    Column::new("PROTOCOL", "/spec/handler/protocol"),
    Column::new("DESCRIPTION", "/spec/description"),
    Column::new("CREATED", "/createdAt"),
];

impl Profile {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Apply { files, idempotency_key } => {
                let found = files::manifests(&files)?;
                let profiles = found.iter().filter(|found| matches!(found.manifest, Manifest::Profile(_)));
                let mut count = 0;
                for found in profiles {
                    let done = apply(session, found, idempotency_key.as_deref()).await?;
                    session.output.item(&done, applied)?;
                    count += 1;
                }
                if count == 0 {
                    return Err(Problem::new(ProblemKind::Invalid, "found no manifest of kind `Profile`"));
                }
            }
            Self::List { listing } => session.list("/v1/profiles", [], &listing, &COLUMNS).await?,
            Self::Show { name } => {
                let profile = session.client.get(&format!("/v1/profiles/{}", escape(&name)), &[]).await?;
                session.output.details(&profile)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What came of an apply, in words.
pub(super) fn applied(done: &Value) -> String {
    let body = &done["body"];
    format!("profile {} version {}", body["name"].as_str().unwrap_or_default(), body["version"])
}

/// Packs a profile's source, keeps it as an artifact, then applies the profile. The key is the profile's own.
pub(super) async fn apply(
    session: &Session,
    found: &files::Found,
    key: Option<&str>,
) -> Result<Value, Problem> {
    let Manifest::Profile(profile) = &found.manifest else {
        return Err(Problem::new(ProblemKind::Internal, "apply a crew as a profile"));
    };
    let mut bundle = None;
    if let Some(source) = &profile.spec.handler.source {
        let bytes = crate::bundle::pack(&found.directory.join(source)).map_err(|error| {
            let detail = format!("the source of profile `{}` cannot be packed", profile.metadata.name);
            let fault = found.source.error(Code::InvalidValue, files::SOURCE_FIELD, error.to_string());
            Problem { faults: vec![fault.to_json()], ..Problem::new(ProblemKind::Invalid, detail) }
        })?;
        let kept = session.client.put_bytes("/v1/artifacts", "application/x-tar", bytes).await?;
        bundle = Some(kept["digest"].clone());
    }
    let key = key.map(|key| format!("{key}.{}", profile.metadata.name));
    let body = json!({"manifest": found.manifest, "bundle": bundle});
    session.client.post("/v1/profiles", &body, key.as_deref()).await
}
