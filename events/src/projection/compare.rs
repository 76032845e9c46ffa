//! Comparing views byte for byte (RP-1), whatever they are kept in.

use std::path::Path;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::AssertSqlSafe;

use super::database::{Statement, Writer};
use super::dump::{COLUMNS, TABLES};
use super::projector::{self, LOAD_STATUSES};
use super::{Status, ViewError, common, file, origin};
use crate::store::Head;
use crate::store::postgres::Database;

/// Views as they are at one moment, whatever is written to them meanwhile.
pub struct Frozen {
    place: Arc<str>,
    db: Writer,
    source: Head,
}

/// The first row in which views differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row here; `None` if it is missing.
    pub here: Option<String>,
    /// The row there; `None` if it is missing.
    pub there: Option<String>,
}

/// What was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The first difference; `None` if there is none.
    pub difference: Option<Difference>,
    /// Rows that are equal.
    pub rows: u64,
}

impl Frozen {
    /// Holds on to the views in `file` as they are now.
    pub async fn open(file: &Path) -> Result<Self, ViewError> {
        let place: Arc<str> = file.display().to_string().into();
        Self::hold(place, file::reading(file).await, "BEGIN").await
    }

    /// Holds on to the views in `database` as they are now.
    pub async fn open_common(database: &Database) -> Result<Self, ViewError> {
        let place: Arc<str> = database.to_string().into();
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        Self::hold(place, common::reading(database).await, begin).await
    }

    /// The first read decides what a transaction sees.
    async fn hold(
        place: Arc<str>,
        db: Result<Writer, sqlx::Error>,
        begin: &'static str,
    ) -> Result<Self, ViewError> {
        let held = async {
            let mut db = db?;
            db.execute(Statement::common(begin), []).await?;
            let source = origin::source(&mut db).await?;
            Ok((db, source))
        };
        let held: Result<_, sqlx::Error> = held.await;
        let (db, source) = held.map_err(|error| ViewError::unavailable(&place, &error))?;
        Ok(Self { place, db, source })
    }

    /// The log's event up to which the views were made.
    pub fn source(&self) -> Head {
        self.source
    }

    /// The projections that have stopped: what came after their positions is not in the views.
    pub async fn stopped(&mut self) -> Result<Vec<Status>, ViewError> {
        let rows = self.db.fetch(LOAD_STATUSES, []).await;
        let statuses = rows.and_then(|rows| projector::statuses(&rows));
        let mut statuses = statuses.map_err(|error| ViewError::unavailable(&self.place, &error))?;
        statuses.retain(|status| status.error.is_some());
        Ok(statuses)
    }

    /// Compares every row of every view with those of another place.
    pub async fn compare(&mut self, other: &mut Self) -> Result<Comparison, ViewError> {
        let compared = compare(&mut self.db, &mut other.db).await;
        compared.map_err(|error| ViewError::unavailable(&self.place, &error))
    }
}

async fn compare(here: &mut Writer, there: &mut Writer) -> Result<Comparison, sqlx::Error> {
    let mut rows = 0;
    for table in tables(here).await? {
        let (ours, theirs) = (select(here, &table).await?, select(there, &table).await?);
        let (mut ours, mut theirs) = (stream(here, ours), stream(there, theirs));
        loop {
            match (ours.try_next().await?, theirs.try_next().await?) {
                (None, None) => break,
                (here, there) if here == there => rows += 1,
                (here, there) => {
                    return Ok(Comparison { difference: Some(Difference { table, here, there }), rows });
                }
            }
        }
    }
    Ok(Comparison { difference: None, rows })
}

/// Every table that is a view.
async fn tables(db: &mut Writer) -> Result<Vec<String>, sqlx::Error> {
    let rows = db.fetch(TABLES, []).await?;
    let mut tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    tables.sort();
    Ok(tables)
}

/// The statement that gives a table's rows as text, in an order that depends on nothing but the rows.
async fn select(db: &mut Writer, table: &str) -> Result<String, sqlx::Error> {
    let columns = db.fetch(COLUMNS, [table.into()]).await?;
    let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect::<Result<_, _>>()?;
    let bytewise = match db {
        Writer::Sqlite(_) => "BINARY",
        Writer::Postgres { .. } => "\"C\"",
    };
    let columns = columns.join(" || ',' || ");
    Ok(format!(
        "SELECT line FROM (SELECT {columns} AS line FROM {table}) AS lines ORDER BY line COLLATE {bytewise}"
    ))
}

fn stream(db: &mut Writer, sql: String) -> BoxStream<'_, Result<String, sqlx::Error>> {
    let sql = AssertSqlSafe(sql);
    match db {
        Writer::Sqlite(db) => sqlx::query_scalar(sql).fetch(db).boxed(),
        Writer::Postgres { db, .. } => sqlx::query_scalar(sql).fetch(db).boxed(),
    }
}
