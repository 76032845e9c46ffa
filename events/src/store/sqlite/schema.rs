//! The schema of a file and its migrations. SQLite's `user_version` counts the migrations that were applied.

use std::cmp::Ordering;
use std::path::Path;

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use sqlx::{Connection as _, Row as _};

use super::OpenError;

/// Marks a file as ours in SQLite's header: `HCev` in ASCII.
const APPLICATION_ID: i64 = 0x4843_6576;

/// The migrations of the log, oldest first. Each has a twin for Postgres.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("../../../../migrations/sqlite/0001_log.sql")];

/// What to do with a file of an older schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfOlder {
    Refuse,
    Migrate,
}

/// Makes `file` with this program's schema, or checks that it has it. Says whether anything was changed.
pub(super) async fn prepare(file: &Path, if_older: IfOlder) -> Result<bool, OpenError> {
    let options = super::connection(file).create_if_missing(true);
    let failed = |error: sqlx::Error| OpenError::database(file, &error);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let changed = check(file, &mut connection, if_older).await;
    connection.close().await.map_err(failed)?;
    changed
}

async fn check(file: &Path, connection: &mut SqliteConnection, if_older: IfOlder) -> Result<bool, OpenError> {
    let failed = |error: sqlx::Error| OpenError::database(file, &error);
    let found = number(connection, "PRAGMA user_version").await.map_err(failed)?;
    let owner = number(connection, "PRAGMA application_id").await.map_err(failed)?;
    let tables = number(connection, "SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    if tables == 0 {
        apply(connection, 0).await.map_err(failed)?;
        return Ok(true);
    }
    match compare(file, owner, found) {
        Ok(()) => return Ok(false),
        Err(OpenError::Older { .. }) if if_older == IfOlder::Migrate => {}
        Err(error) => return Err(error),
    }
    let applied = usize::try_from(found).unwrap_or_default();
    apply(connection, applied).await.map_err(failed)?;
    Ok(true)
}

/// Checks that `file`, which `pool` reads, has this program's schema.
pub(super) async fn inspect(file: &Path, pool: &SqlitePool) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| OpenError::database(file, &error);
    let mut connection = pool.acquire().await.map_err(failed)?;
    let found = number(&mut connection, "PRAGMA user_version").await.map_err(failed)?;
    let owner = number(&mut connection, "PRAGMA application_id").await.map_err(failed)?;
    compare(file, owner, found)
}

fn compare(file: &Path, owner: i64, found: i64) -> Result<(), OpenError> {
    let known = i64::try_from(MIGRATIONS.len()).expect("there are few migrations");
    let file = || file.into();
    match found.cmp(&known) {
        _ if owner != APPLICATION_ID => Err(OpenError::Foreign { file: file() }),
        Ordering::Greater => Err(OpenError::Newer { file: file(), found, known }),
        Ordering::Less => Err(OpenError::Older { file: file(), found, known }),
        Ordering::Equal => Ok(()),
    }
}

/// Applies the migrations after the first `applied` in one transaction.
async fn apply(connection: &mut SqliteConnection, applied: usize) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    for migration in &MIGRATIONS[applied..] {
        sqlx::raw_sql(*migration).execute(&mut *tx).await?;
    }
    let mark =
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}", MIGRATIONS.len());
    sqlx::raw_sql(sqlx::AssertSqlSafe(mark)).execute(&mut *tx).await?;
    tx.commit().await
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(sql).fetch_one(connection).await?.try_get(0)
}
