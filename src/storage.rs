//! Where the log and the views are kept: in the data directory, or in a Postgres database that nodes share.

use std::path::Path;
use std::sync::Arc;

use events::EventStore;
use events::artifact::{self, ArtifactError, ArtifactStore};
use events::lease::Leases;
use events::projection::{self, ViewError, Views};
use events::seal::{Keys, SealError};
use events::store::postgres::{self, Database, Postgres};
use events::store::sqlite::{self, DirectoryLock, Sqlite};

use crate::config::Config;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data directory or the log in it.
    #[error(transparent)]
    Directory(#[from] sqlite::OpenError),
    /// The database.
    #[error(transparent)]
    Database(Box<postgres::OpenError>),
}

impl From<postgres::OpenError> for OpenError {
    fn from(error: postgres::OpenError) -> Self {
        Self::Database(Box::new(error))
    }
}

/// An open log, and where its views are.
pub(crate) enum Storage {
    /// Both are files of the data directory.
    Files(Sqlite),
    /// Both are in a database. The data directory, with what belongs to this node alone, is still this process's.
    Common { log: Postgres, database: Box<Database>, _lock: DirectoryLock },
}

impl Storage {
    /// Opens what `config` names, and takes the data directory for this process.
    pub(crate) async fn open(config: &Config) -> Result<Self, OpenError> {
        let Some(database) = &config.database_url else {
            return Ok(Self::Files(Sqlite::open(&config.data_dir, sqlite::Options::default()).await?));
        };
        let lock = DirectoryLock::take(&config.data_dir)?;
        let log = Postgres::open(database, postgres::Options::default()).await?;
        Ok(Self::Common { log, database: Box::new(database.clone()), _lock: lock })
    }

    /// The log.
    pub(crate) fn store(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Files(log) => Arc::new(log.clone()),
            Self::Common { log, .. } => Arc::new(log.clone()),
        }
    }

    /// The leases of the log's shards.
    pub(crate) fn leases(&self) -> Arc<dyn Leases> {
        match self {
            Self::Files(log) => Arc::new(log.clone()),
            Self::Common { log, .. } => Arc::new(log.clone()),
        }
    }

    /// How a node keeps them.
    pub(crate) fn leasing(&self) -> actors::Leasing {
        match self {
            // Nobody else can open the log of this directory.
            Self::Files(_) => actors::Leasing::alone(),
            Self::Common { .. } => actors::Leasing::default(),
        }
    }

    /// Opens the artifacts: files of the data directory, or in the database that nodes share.
    pub(crate) async fn artifacts(&self, data_dir: &Path) -> Result<Arc<dyn ArtifactStore>, ArtifactError> {
        Ok(match self {
            Self::Files(_) => Arc::new(artifact::Files::open(data_dir.join("artifacts")).await?),
            Self::Common { database, .. } => Arc::new(artifact::Postgres::open(database).await?),
        })
    }

    /// Opens the views of the log.
    pub(crate) async fn views(&self, data_dir: &Path) -> Result<Views, ViewError> {
        let options = projection::Options::default();
        match self {
            Self::Files(_) => Views::open(data_dir, self.store(), options).await,
            Self::Common { database, .. } => Views::open_common(database, self.store(), options).await,
        }
    }

    /// Opens the keys of data subjects: beside the log, never in it.
    pub(crate) async fn keys(&self, config: &Config) -> Result<Keys, SealError> {
        let master = config.master_key_file();
        match self {
            Self::Files(_) => Keys::open(&config.data_dir, &master).await,
            Self::Common { database, .. } => Keys::open_common(database, &master).await,
        }
    }

    /// Makes durable what was taken in, and lets go of the log.
    pub(crate) async fn close(&self) {
        match self {
            Self::Files(log) => log.close().await,
            Self::Common { log, .. } => log.close().await,
        }
    }
}

/// Brings the log that `config` names to this program's schema; says whether there was anything to do.
pub(crate) async fn migrate(config: &Config) -> Result<bool, OpenError> {
    match &config.database_url {
        None => Ok(Sqlite::migrate(&config.data_dir).await?),
        Some(database) => Ok(Postgres::migrate(database).await?),
    }
}
