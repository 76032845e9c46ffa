//! `hypercode image`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use events::api::{Problem, ProblemKind};
use serde_json::{Value, json};

use super::{Global, Outcome, session};
use crate::image::{self, Base};
use crate::output::{Column, Output, table};
use crate::sandboxes;

/// Images for containers.
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Make the platform's images of this host's files and give them to the Docker daemon: no registry is needed.
    Build {
        /// Only this one.
        #[arg(value_enum)]
        base: Option<Which>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Which {
    /// `hypercode/base`: what the runner needs, and nothing else.
    Base,
    /// `hypercode/python`: a shell, everyday programs and Python.
    Python,
}

impl Image {
    pub(super) async fn run(self, global: &Global, output: Output) -> Outcome {
        let Self::Build { base } = self;
        let config = session::config(global, Vec::new())?;
        let docker = sandboxes::daemon(&config).await.map_err(unavailable)?;
        let runner = sandboxes::runner(&config).map_err(unavailable)?;
        let bases = match base {
            Some(Which::Base) => vec![Base::Minimal],
            Some(Which::Python) => vec![Base::Python],
            None => vec![Base::Minimal, Base::Python],
        };
        let mut rows: Vec<Value> = Vec::new();
        for base in bases {
            let id = image::build(&docker, &runner, base).await.map_err(unavailable)?;
            let bytes = docker.image(&id).await.map_err(unavailable)?.map_or(0, |(_, bytes)| bytes);
            rows.push(json!({"image": base.name(), "id": id, "bytes": bytes}));
        }
        output.value(&json!(rows), |_| {
            const COLUMNS: [Column; 3] =
                [Column::new("IMAGE", "/image"), Column::new("BYTES", "/bytes"), Column::new("ID", "/id")];
            table(&rows, &COLUMNS, output.is_coloured)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("failed to {error}"))
}
