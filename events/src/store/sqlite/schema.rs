//! The schema of a file and its migrations. SQLite's `user_version` counts the migrations that were applied.

use std::cmp::Ordering;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{OpenError, connection};

/// Marks a file as ours in SQLite's header: `HCev` in ASCII.
const APPLICATION_ID: i64 = 0x4843_6576;

/// The migrations of the log, oldest first. Each has a twin for Postgres.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../../migrations/sqlite/0001_log.sql"),
    include_str!("../../../../migrations/sqlite/0004_log_nodes.sql"),
    include_str!("../../../../migrations/sqlite/0005_log_positions.sql"),
];

/// What to do with a file of an older schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfOlder {
    Refuse,
    Migrate,
}

/// Makes `file` with this program's schema, or checks that it has it. Says whether anything was changed.
pub(super) fn prepare(file: &Path, if_older: IfOlder) -> Result<bool, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::database(file, &error);
    let mut connection = connection::writing(file).map_err(failed)?;
    let changed = check(file, &mut connection, if_older);
    connection.close().map_err(|(_, error)| failed(error))?;
    changed
}

fn check(file: &Path, connection: &mut Connection, if_older: IfOlder) -> Result<bool, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::database(file, &error);
    let tables = number(connection, "SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    if tables == 0 {
        apply(connection, 0).map_err(failed)?;
        return Ok(true);
    }
    match inspect(file, connection) {
        Ok(()) => Ok(false),
        Err(OpenError::Older { found, .. }) if if_older == IfOlder::Migrate => {
            apply(connection, usize::try_from(found).unwrap_or_default()).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Checks that `file`, which `connection` reads, has this program's schema.
pub(super) fn inspect(file: &Path, connection: &Connection) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| OpenError::database(file, &error);
    let found = number(connection, "PRAGMA user_version").map_err(failed)?;
    let owner = number(connection, "PRAGMA application_id").map_err(failed)?;
    let (known, file) = (known(), || file.into());
    match found.cmp(&known) {
        _ if owner != APPLICATION_ID => Err(OpenError::Foreign { file: file() }),
        Ordering::Greater => Err(OpenError::Newer { file: file(), found, known }),
        Ordering::Less => Err(OpenError::Older { file: file(), found, known }),
        Ordering::Equal => Ok(()),
    }
}

/// Applies the migrations after the first `applied` in one transaction.
fn apply(connection: &mut Connection, applied: usize) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &MIGRATIONS[applied..] {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", known())?;
    tx.commit()
}

/// The schema that this program knows.
fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<i64> {
    connection.query_row(sql, [], |row| row.get(0))
}
