//! Where a bench keeps its log: files, or a database of a server that the bench starts itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use events::EventStore;
use events::projection::{self, Views};
use events::store::postgres::{self, Postgres};
use events::store::sqlite::{self, Sqlite};
use hypercode::config::{Config, Docker};

use crate::sandboxes::Sandbox;
use crate::{Result, sandboxes};

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// SQLite, in a directory.
    Sqlite,
    /// A Postgres database.
    Postgres,
}

/// A place of its own for one log.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Empty at first.
    pub(crate) directory: PathBuf,
    /// The URL of an empty database; `None` where the directory holds the log.
    pub(crate) database: Option<String>,
}

/// An open log.
pub(crate) enum Log {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Place {
    /// A platform whose agents run in such sandboxes, and whose log is here.
    pub(crate) fn config(&self, sandbox: Sandbox) -> Result<Config> {
        let database_url = self.database.as_deref().map(str::parse).transpose()?;
        let docker = Docker { image: sandboxes::image(), ..Docker::default() };
        let (data_dir, sandbox) = (self.directory.join("data"), sandbox.kind());
        Ok(Config { data_dir, database_url, sandbox, docker, ..Config::default() })
    }

    /// Opens the log.
    pub(crate) async fn open(&self) -> Result<Log> {
        Ok(match &self.database {
            Some(url) => Log::Postgres(Postgres::open(&url.parse()?, postgres::Options::default()).await?),
            None => Log::Sqlite(Sqlite::open(&self.directory, sqlite::Options::default()).await?),
        })
    }

    /// Opens the views of the log, which are here too.
    pub(crate) async fn views(&self, log: &Log) -> Result<Views> {
        let options = projection::Options::default();
        Ok(match &self.database {
            Some(url) => Views::open_common(&url.parse()?, log.store(), options).await?,
            None => Views::open(&self.directory, log.store(), options).await?,
        })
    }
}

impl Log {
    pub(crate) fn store(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Sqlite(log) => Arc::new(log.clone()),
            Self::Postgres(log) => Arc::new(log.clone()),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(log) => log.close().await,
            Self::Postgres(log) => log.close().await,
        }
    }
}
