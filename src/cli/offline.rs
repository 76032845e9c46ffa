//! Commands that need no platform: checking manifests and printing their schemas.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use events::api::{Problem, ProblemKind};
use manifest::{Fault, Kind, Severity};
use serde_json::{Value, json};

use super::{Outcome, files};
use crate::output::{Format, Output, print};

#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Files of manifests; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Validate {
    pub(super) fn run(self, output: Output) -> Outcome {
        let mut faults = Vec::new();
        let mut manifests = Vec::new();
        let (read, unread) = files::parse_all(&self.files);
        for (_, parsed) in read {
            faults.extend(parsed.faults);
            manifests.extend(parsed.manifests);
        }
        let errors = faults.iter().filter(|fault| fault.severity == Severity::Error).count();
        let found: Vec<Value> = manifests
            .iter()
            .map(|manifest| json!({"kind": manifest.kind(), "name": manifest.metadata().name}))
            .collect();
        let report = json!({
            "ok": errors == 0 && unread.is_none(),
            "manifests": found,
            "faults": faults.iter().map(Fault::to_json).collect::<Vec<_>>(),
        });
        output.value(&report, |_| {
            let mut text: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
            text += &match errors {
                0 if unread.is_some() => String::new(),
                0 => format!("{} checked, no errors\n", files::count(manifests.len(), "manifest")),
                errors => format!("{}\n", files::count(errors, "error")),
            };
            text
        })?;
        match unread {
            Some(problem) => Err(problem),
            None => Ok(ExitCode::from(u8::from(errors > 0))),
        }
    }
}

/// The kinds of manifests that have a schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindName {
    /// A crew manifest.
    #[value(alias = "Crew")]
    Crew,
    /// A profile.
    #[value(alias = "Profile")]
    Profile,
    /// A warm pool.
    #[value(alias = "Pool")]
    Pool,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The kind.
    #[arg(value_enum)]
    kind: KindName,
}

impl Schema {
    pub(super) fn run(self, output: Output) -> Outcome {
        let kind = match self.kind {
            KindName::Crew => Kind::Crew,
            KindName::Profile => Kind::Profile,
            KindName::Pool => Kind::Pool,
        };
        let schema = manifest::schema(kind).ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("there is no schema of `{}`", kind.as_str()))
        })?;
        match output.format {
            Format::Yaml => output.details(&schema)?,
            Format::Table | Format::Json => print(&format!("{schema:#}"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
