//! The schema of a database and its migrations. The table `hypercode_schema` counts those that were applied.

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::read::head_of;
use super::{Database, OpenError};
use crate::id::Position;

/// The migrations of the log, oldest first. Each has a twin for SQLite.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../../migrations/postgres/0001_log.sql"),
    include_str!("../../../../migrations/postgres/0004_log_nodes.sql"),
    include_str!("../../../../migrations/postgres/0005_log_positions.sql"),
];

/// What a look may take, in milliseconds.
const LOOK_MS: u64 = 5_000;

/// What one migration may take, in milliseconds.
const MIGRATION_MS: u64 = 3_600_000;

/// Whoever makes or migrates a schema holds this lock, so that nodes that start together do it once: `HCev` in ASCII.
const LOCK: i64 = 0x4843_6576;

/// What to do with a database of an older schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfOlder {
    Refuse,
    Migrate,
}

/// Makes the tables of this program's schema, or checks that they are there. Says whether anything was changed.
pub(super) async fn prepare(database: &Database, if_older: IfOlder) -> Result<bool, OpenError> {
    let failed = |error: sqlx::Error| OpenError::unreachable(database, &error);
    let mut connection =
        PgConnection::connect_with(&database.settings(MIGRATION_MS)).await.map_err(failed)?;
    let changed = match applied(&mut connection).await.map_err(failed)? {
        Some(found) if found == known() => Ok(false),
        _ => change(database, &mut connection, if_older).await,
    };
    connection.close().await.map_err(failed)?;
    changed
}

/// What a database holds.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The server's name and version.
    pub server: String,
    /// How many migrations of the log were applied; `None` where there is no log.
    pub schema: Option<i64>,
    /// How many this program knows.
    pub known: i64,
    /// Where the log ends.
    pub position: Position,
}

/// Looks at `database` and changes nothing.
pub(super) async fn look(database: &Database) -> Result<Standing, OpenError> {
    let failed = |error: sqlx::Error| OpenError::unreachable(database, &error);
    let mut connection = PgConnection::connect_with(&database.settings(LOOK_MS)).await.map_err(failed)?;
    let server = "SELECT 'PostgreSQL ' || current_setting('server_version')";
    let server = sqlx::query_scalar(server).fetch_one(&mut connection).await.map_err(failed)?;
    let schema = applied(&mut connection).await.map_err(failed)?;
    let mut position = Position(0);
    if schema == Some(known()) {
        let head = sqlx::query(include_str!("sql/select_head.sql")).fetch_one(&mut connection).await;
        position = head.and_then(|row| head_of(&row)).map_err(failed)?.position;
    }
    connection.close().await.map_err(failed)?;
    Ok(Standing { server, schema, known: known(), position })
}

/// Checks that `database` holds a log of this program's schema.
pub(super) async fn check(database: &Database) -> Result<(), OpenError> {
    let Standing { schema, known, .. } = look(database).await?;
    match schema {
        Some(found) if found == known => Ok(()),
        Some(found) => Err(strange(database, found)),
        None => Err(OpenError::Missing { database: database.clone() }),
    }
}

/// The refusal of another schema than this program's.
fn strange(database: &Database, found: i64) -> OpenError {
    let (database, known) = (database.clone(), known());
    match found > known {
        true => OpenError::Newer { database, found, known },
        false => OpenError::Older { database, found, known },
    }
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

async fn change(
    database: &Database,
    connection: &mut PgConnection,
    if_older: IfOlder,
) -> Result<bool, OpenError> {
    let failed = |error: sqlx::Error| OpenError::unreachable(database, &error);
    let mut tx = connection.begin().await.map_err(failed)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
    lock.execute(&mut *tx).await.map_err(failed)?;
    let known = known();
    let done = match applied(&mut tx).await.map_err(failed)? {
        Some(found) if found == known => return Ok(false),
        Some(found) if found > known || if_older == IfOlder::Refuse => return Err(strange(database, found)),
        Some(found) => usize::try_from(found).unwrap_or_default(),
        None => 0,
    };
    if done == 0
        && let Some(table) = foreign(&mut tx).await.map_err(failed)?
    {
        return Err(OpenError::Foreign { database: database.clone(), table });
    }
    for migration in &MIGRATIONS[done..] {
        sqlx::raw_sql(*migration).execute(&mut *tx).await.map_err(failed)?;
    }
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS hypercode_schema (part text PRIMARY KEY, version bigint NOT NULL)",
    )
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    let mark = "INSERT INTO hypercode_schema (part, version) VALUES ('log', $1)
                ON CONFLICT (part) DO UPDATE SET version = excluded.version";
    sqlx::query(mark).bind(known).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(true)
}

/// How many migrations were applied; `None` in a database that has never seen one.
async fn applied(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    if first_table(connection, &["hypercode_schema"]).await?.is_none() {
        return Ok(None);
    }
    let version = sqlx::query("SELECT version FROM hypercode_schema WHERE part = 'log'");
    version.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()
}

/// A table that bears the name of one of the log's, where the log has none yet.
async fn foreign(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    first_table(
        connection,
        &["events", "head", "commands", "reservations", "leases", "nodes", "cluster", "artifacts"],
    )
    .await
}

/// One of these tables that is there. Asked of the catalogue as of now: what a session remembers of it may be older
/// than the lock that it has just waited for.
async fn first_table(connection: &mut PgConnection, names: &[&str]) -> Result<Option<String>, sqlx::Error> {
    let tables = "SELECT tablename::text FROM pg_catalog.pg_tables
                  WHERE tablename = ANY ($1) AND schemaname = ANY (current_schemas(false)) LIMIT 1";
    sqlx::query_scalar(tables).bind(names).fetch_optional(connection).await
}
