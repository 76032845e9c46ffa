//! The views in a database of Postgres, which all nodes share: one of them writes, whichever holds the lock.
//!
//! The lock belongs to the session that writes, so a node that has lost the one has lost the other and can write
//! nothing more. A node that stands still longer than [`IDLE_SESSION_MS`] loses its session to the server.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::Instant;

use super::database::{Reader, Statement, Writer};
use super::origin::{fingerprint, is_of, source};
use super::{Options, ViewError};
use crate::store::EventStore;
use crate::store::postgres::{Database, within};

/// The schema of the views.
const SCHEMA: &str = include_str!("../../../migrations/postgres/0002_views.sql");

/// The name space of the views' tables, beside that of the log.
pub(super) const NAME_SPACE: &str = "hypercode_views";

/// Who holds this lock writes the views: `HCvw` in ASCII.
const LOCK: &str = "SELECT pg_try_advisory_lock(1212380791)";

/// How long the server may work at a statement, in milliseconds; a batch has many.
const STATEMENT_MS: u64 = 60_000;

/// How long it may work at a query, in milliseconds: less than who asked over HTTP waits.
const READ_MS: u64 = 15_000;

/// How long it may work where whole views are read or made, in milliseconds.
const LONG_STATEMENT_MS: u64 = 3_600_000;

/// How long a rebuild may stand still while it holds the views, in milliseconds.
const IDLE_IN_REBUILD_MS: u64 = 10_000;

/// How much longer than the server may work an answer is waited for, before the connection counts as lost.
const ANSWER: Duration = Duration::from_secs(5);

/// After so long without a statement the session that writes is ended, in milliseconds.
const IDLE_SESSION_MS: u64 = 5_000;

/// How long to wait for another program version to let go of views that this one cannot use.
const HANDOVER: Duration = Duration::from_secs(15);

fn settings(database: &Database) -> PgConnectOptions {
    database.settings(STATEMENT_MS).options([("search_path", NAME_SPACE)])
}

/// How long an answer of the server is waited for.
fn answer() -> Duration {
    Duration::from_millis(STATEMENT_MS) + ANSWER
}

fn unavailable(database: &Database, error: &sqlx::Error) -> ViewError {
    ViewError::unavailable(&database.to_string().into(), error)
}

/// A session that may write once it has the lock.
pub(super) async fn connect(database: &Database) -> Result<Writer, sqlx::Error> {
    let settings = settings(database).options([
        ("idle_session_timeout", IDLE_SESSION_MS.to_string()),
        // Where the views stand is committed with them, so what a crash of the server takes is made again: no commit of
        // theirs need wait for the disk, which the log's commits wait for.
        ("synchronous_commit", "off".to_owned()),
    ]);
    let connected = within(answer(), PgConnection::connect_with(&settings)).await;
    connected.map(|db| Writer::Postgres { db, answer: answer() })
}

/// A session that may take its time, and may stand still for so long within a transaction.
async fn patient(database: &Database, idle_ms: u64) -> Result<Writer, sqlx::Error> {
    let settings = settings(database).options([
        ("statement_timeout", LONG_STATEMENT_MS.to_string()),
        ("idle_in_transaction_session_timeout", idle_ms.to_string()),
    ]);
    let db = PgConnection::connect_with(&settings).await?;
    Ok(Writer::Postgres { db, answer: Duration::from_millis(LONG_STATEMENT_MS) + ANSWER })
}

/// A session that only reads whole views.
pub(super) async fn reading(database: &Database) -> Result<Writer, sqlx::Error> {
    patient(database, LONG_STATEMENT_MS).await
}

/// A session that makes views again beside the one that writes, which waits while it puts them in place.
pub(super) async fn beside(database: &Database) -> Result<Writer, sqlx::Error> {
    patient(database, IDLE_IN_REBUILD_MS).await
}

/// Whether this session has the lock now.
async fn lock(db: &mut Writer) -> Result<bool, sqlx::Error> {
    let rows = db.fetch(Statement::common(LOCK), []).await?;
    rows.first().map_or(Ok(false), |row| row.get(0))
}

/// Whether this session is now the one that writes. It does not where another program version has made the views anew.
pub(super) async fn try_lead(db: &mut Writer) -> Result<bool, sqlx::Error> {
    if !lock(db).await? {
        return Ok(false);
    }
    match is_ours(db).await? {
        true => Ok(true),
        false => Err(sqlx::Error::Configuration("the views are of another version of the program".into())),
    }
}

/// Whether the views are of this program's rules.
pub(super) async fn is_ours(db: &mut Writer) -> Result<bool, sqlx::Error> {
    const MARK: Statement = Statement::common(
        "SELECT obj_description(pg_class.oid, 'pg_class') FROM pg_catalog.pg_class
         JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname = 'hypercode_views' AND relname = 'source'",
    );
    let rows = db.fetch(MARK, []).await?;
    let mark = rows.first().map(|row| row.get::<Option<String>>(0)).transpose()?;
    Ok(mark.flatten() == Some(fingerprint(SCHEMA).to_string()))
}

/// Sees to it that there are views of this program's rules and of `store`'s log.
pub(super) async fn prepare(database: &Database, store: &dyn EventStore) -> Result<(), ViewError> {
    let failed = |error: sqlx::Error| unavailable(database, &error);
    let mut db = connect(database).await.map_err(failed)?;
    if !fits(&mut db, database, store).await? {
        let until = Instant::now() + HANDOVER;
        while !lock(&mut db).await.map_err(failed)? {
            if Instant::now() >= until {
                let reason = "another version of the program makes the views; stop its nodes first".into();
                return Err(ViewError::Unavailable { place: database.to_string().into(), reason });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A node that started at the same time may have made them.
        if !fits(&mut db, database, store).await? {
            tracing::info!(%database, "the views are missing or do not fit the log: made anew");
            make(&mut db).await.map_err(failed)?;
        }
    }
    db.close().await.map_err(failed)
}

async fn fits(db: &mut Writer, database: &Database, store: &dyn EventStore) -> Result<bool, ViewError> {
    let failed = |error: sqlx::Error| unavailable(database, &error);
    if !is_ours(db).await.map_err(failed)? {
        return Ok(false);
    }
    is_of(source(db).await.map_err(failed)?, store).await
}

/// Makes empty views in place of those that are there, in one transaction.
async fn make(db: &mut Writer) -> Result<(), sqlx::Error> {
    let Writer::Postgres { db, .. } = db else { return Ok(()) };
    let mut tx = db.begin().await?;
    let is_there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'hypercode_views')";
    if !sqlx::query_scalar::<_, bool>(is_there).fetch_one(&mut *tx).await? {
        sqlx::raw_sql("CREATE SCHEMA hypercode_views").execute(&mut *tx).await?;
    }
    let tables =
        "SELECT quote_ident(tablename) FROM pg_catalog.pg_tables WHERE schemaname = 'hypercode_views'";
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&mut *tx).await? {
        let drop = AssertSqlSafe(format!("DROP TABLE hypercode_views.{table} CASCADE"));
        sqlx::raw_sql(drop).execute(&mut *tx).await?;
    }
    sqlx::raw_sql(SCHEMA).execute(&mut *tx).await?;
    let mark = AssertSqlSafe(format!("COMMENT ON TABLE source IS '{}'", fingerprint(SCHEMA)));
    sqlx::raw_sql(mark).execute(&mut *tx).await?;
    tx.commit().await
}

pub(super) async fn reader(database: &Database, options: &Options) -> Result<Reader, ViewError> {
    PgPoolOptions::new()
        .max_connections(options.read_connections_max)
        .acquire_timeout(Duration::from_millis(options.read_wait_ms))
        .connect_with(settings(database).options([("statement_timeout", READ_MS.to_string())]))
        .await
        .map(|pool| Reader::Postgres { pool, answer: Duration::from_millis(READ_MS) + ANSWER })
        .map_err(|error| unavailable(database, &error))
}
