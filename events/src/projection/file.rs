//! The views in a file of SQLite: opened if it fits the log, made anew if not.

use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _};

use super::database::{Reader, Statement, Writer};
use super::origin::{fingerprint, is_of, source};
use super::{Options, ViewError};
use crate::store::EventStore;

/// The schema of the views.
const SCHEMA: &str = include_str!("../../../migrations/sqlite/0002_views.sql");

/// How long a rebuild waits for its turn to write.
const TURN: Duration = Duration::from_secs(60);

fn settings(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5))
}

fn unavailable(file: &Path, error: &dyn std::error::Error) -> ViewError {
    ViewError::unavailable(&file.display().to_string().into(), error)
}

/// The connection that writes the views of `store`.
pub(super) async fn open(file: &Path, store: &dyn EventStore) -> Result<Writer, ViewError> {
    if file.exists() {
        match fitting(file, store).await {
            Ok(Some(writer)) => return Ok(writer),
            Ok(None) => tracing::info!(file = %file.display(), "the views do not fit the log: made anew"),
            Err(error @ ViewError::Log(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "the views cannot be read: made anew"),
        }
    }
    make(file).await.map(Writer::Sqlite)
}

/// A connection to `file` if it was made by this program's rules from `store`'s log.
async fn fitting(file: &Path, store: &dyn EventStore) -> Result<Option<Writer>, ViewError> {
    const VERSION: Statement = Statement::common("PRAGMA user_version");
    let failed = |error: sqlx::Error| unavailable(file, &error);
    let mut db = Writer::Sqlite(SqliteConnection::connect_with(&settings(file)).await.map_err(failed)?);
    let rows = db.fetch(VERSION, []).await.map_err(failed)?;
    let version = rows.first().map(|row| row.get::<i64>(0)).transpose().map_err(failed)?;
    let fits =
        version == Some(fingerprint(SCHEMA)) && is_of(source(&mut db).await.map_err(failed)?, store).await?;
    if fits {
        return Ok(Some(db));
    }
    db.close().await.map_err(failed)?;
    Ok(None)
}

async fn make(file: &Path) -> Result<SqliteConnection, ViewError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unavailable(file, &error)),
            _ => {}
        }
    }
    let failed = |error: sqlx::Error| unavailable(file, &error);
    let settings = settings(file).create_if_missing(true);
    let mut db = SqliteConnection::connect_with(&settings).await.map_err(failed)?;
    let mut tx = db.begin().await.map_err(failed)?;
    sqlx::raw_sql(SCHEMA).execute(&mut *tx).await.map_err(failed)?;
    let mark = AssertSqlSafe(format!("PRAGMA user_version = {}", fingerprint(SCHEMA)));
    sqlx::raw_sql(mark).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(db)
}

/// A connection that makes views again beside the one that writes.
pub(super) async fn beside(file: &Path) -> Result<Writer, sqlx::Error> {
    let settings = settings(file).busy_timeout(TURN);
    SqliteConnection::connect_with(&settings).await.map(Writer::Sqlite)
}

/// A connection that only reads.
pub(super) async fn reading(file: &Path) -> Result<Writer, sqlx::Error> {
    let settings = SqliteConnectOptions::new().filename(file).read_only(true);
    SqliteConnection::connect_with(&settings).await.map(Writer::Sqlite)
}

pub(super) async fn reader(file: &Path, options: &Options) -> Result<Reader, ViewError> {
    SqlitePoolOptions::new()
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.read_wait_ms))
        .connect_with(settings(file))
        .await
        .map(Reader::Sqlite)
        .map_err(|error| unavailable(file, &error))
}
