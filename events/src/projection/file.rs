//! The file of the views: opened if it fits the log, made anew if not.

use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::{Options, ViewError, Views};
use crate::domain::Decider;
use crate::domain::agent::Agent;
use crate::domain::crew::Crew;
use crate::domain::task::Task;
use crate::id::{Digest, Position};
use crate::store::{EventStore, Head};

/// The schema of the views.
const SCHEMA: &str = include_str!("../../../migrations/sqlite/0002_views.sql");

/// Raised when a projection makes other rows of the same events.
const GENERATION: u16 = 1;

/// Stands in the file as `user_version`: another value means that the file was made by other rules.
fn fingerprint() -> i64 {
    let states = [GENERATION, Crew::STATE_SCHEMA, Agent::STATE_SCHEMA, Task::STATE_SCHEMA];
    let digest = Digest::of(format!("{SCHEMA}{states:?}").as_bytes()).0;
    i64::from(i32::from_be_bytes([digest[0] & 0x7f, digest[1], digest[2], digest[3]]))
}

fn settings(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5))
}

/// A connection to a file that is there.
pub(super) async fn connect(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(&settings(file)).await
}

/// The connection that writes the views of `store`.
pub(super) async fn open(file: &Path, store: &dyn EventStore) -> Result<SqliteConnection, ViewError> {
    if file.exists() {
        match fitting(file, store).await {
            Ok(Some(writer)) => return Ok(writer),
            Ok(None) => tracing::info!(file = %file.display(), "the views do not fit the log: made anew"),
            Err(error @ ViewError::Log(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "the views cannot be read: made anew"),
        }
    }
    make(file).await
}

/// A connection to `file` if it was made by this program's rules from `store`'s log.
async fn fitting(file: &Path, store: &dyn EventStore) -> Result<Option<SqliteConnection>, ViewError> {
    let failed = |error: sqlx::Error| ViewError::unavailable(file, &error);
    let mut db = connect(file).await.map_err(failed)?;
    let row = sqlx::query("PRAGMA user_version").fetch_one(&mut db).await.map_err(failed)?;
    let fits = row.try_get::<i64, _>(0).map_err(failed)? == fingerprint()
        && is_of(source(&mut db).await.map_err(failed)?, store).await?;
    if fits {
        return Ok(Some(db));
    }
    db.close().await.map_err(failed)?;
    Ok(None)
}

/// Whether `store`'s log has the event to which the views were made.
async fn is_of(source: Head, store: &dyn EventStore) -> Result<bool, ViewError> {
    let Some(before) = source.position.0.checked_sub(1) else { return Ok(true) };
    let events = store.read(Position(before), 1).await?;
    Ok(events.first().is_some_and(|event| event.position == source.position && event.hash == source.hash))
}

pub(super) async fn source(db: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query(include_str!("sql/load_source.sql")).fetch_optional(db).await?;
    let Some(row) = row else { return Ok(Head::EMPTY) };
    let position = Position(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default());
    let hash = row.try_get::<&[u8], _>(1)?.try_into().map(Digest).unwrap_or(Digest::ZERO);
    Ok(Head { position, hash })
}

async fn make(file: &Path) -> Result<SqliteConnection, ViewError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ViewError::Unavailable { file: file.into(), reason: error.to_string().into() });
            }
            _ => {}
        }
    }
    let failed = |error: sqlx::Error| ViewError::unavailable(file, &error);
    let settings = settings(file).create_if_missing(true);
    let mut db = SqliteConnection::connect_with(&settings).await.map_err(failed)?;
    let mut tx = db.begin().await.map_err(failed)?;
    sqlx::raw_sql(SCHEMA).execute(&mut *tx).await.map_err(failed)?;
    let mark = AssertSqlSafe(format!("PRAGMA user_version = {}", fingerprint()));
    sqlx::raw_sql(mark).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(db)
}

pub(super) async fn reader(file: &Path, options: &Options) -> Result<SqlitePool, ViewError> {
    SqlitePoolOptions::new()
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.read_wait_ms))
        .connect_with(settings(file))
        .await
        .map_err(|error| ViewError::unavailable(file, &error))
}

/// Empties `tables`, which are named by projections and never from outside.
pub(super) async fn empty(db: &mut SqliteConnection, tables: &[&str]) -> Result<(), sqlx::Error> {
    for table in tables {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *db).await?;
    }
    Ok(())
}

impl Views {
    /// All rows of all views as text, one a line, in an order that depends on nothing but the rows: two dumps
    /// are equal byte for byte where the views are (RP-1).
    pub async fn dump(&self) -> Result<String, ViewError> {
        let failed = |error: sqlx::Error| ViewError::unavailable(&self.shared.file, &error);
        let mut tx = self.shared.reader.begin().await.map_err(failed)?;
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'snapshots' ORDER BY name";
        let mut dump = String::new();
        for table in sqlx::query(tables).fetch_all(&mut *tx).await.map_err(failed)? {
            let table: String = table.try_get(0).map_err(failed)?;
            let columns = "SELECT 'quote(' || name || ')' FROM pragma_table_info(?1) ORDER BY cid";
            let columns = sqlx::query_scalar::<_, String>(columns).bind(table.clone());
            let columns = columns.fetch_all(&mut *tx).await.map_err(failed)?.join(" || ',' || ");
            let rows = AssertSqlSafe(format!("SELECT {columns} AS row FROM {table} ORDER BY row"));
            for row in sqlx::query_scalar::<_, String>(rows).fetch_all(&mut *tx).await.map_err(failed)? {
                dump.push_str(&format!("{table}: {row}\n"));
            }
        }
        Ok(dump)
    }
}
