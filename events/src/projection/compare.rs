//! Comparing two files of views byte for byte (RP-1).

use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::ViewError;
use crate::id::{Digest, Position};
use crate::store::Head;

/// A file of views as it is at one moment, whatever is written to it meanwhile.
pub struct Frozen {
    place: Arc<str>,
    db: SqliteConnection,
    source: Head,
}

/// The first row in which two files of views differ.
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
    /// Holds on to `file` as it is now.
    pub async fn open(file: &Path) -> Result<Self, ViewError> {
        let place: Arc<str> = file.display().to_string().into();
        let failed = |error: sqlx::Error| ViewError::unavailable(&place, &error);
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        let mut db = SqliteConnection::connect_with(&options).await.map_err(failed)?;
        // Its first read decides what a transaction sees.
        sqlx::raw_sql("BEGIN").execute(&mut db).await.map_err(failed)?;
        let source = source(&mut db).await.map_err(failed)?;
        Ok(Self { place, db, source })
    }

    /// The log's event up to which the views were made.
    pub fn source(&self) -> Head {
        self.source
    }

    /// Compares every row of every view with another file's.
    pub async fn compare(&mut self, other: &mut Self) -> Result<Comparison, ViewError> {
        let compared = compare(&mut self.db, &mut other.db).await;
        compared.map_err(|error| ViewError::unavailable(&self.place, &error))
    }
}

async fn source(db: &mut SqliteConnection) -> Result<Head, sqlx::Error> {
    let row = sqlx::query("SELECT position, hash FROM source").fetch_optional(db).await?;
    let Some(row) = row else { return Ok(Head::EMPTY) };
    let position = Position(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default());
    Ok(Head { position, hash: row.try_get::<&[u8], _>(1)?.try_into().map(Digest).unwrap_or(Digest::ZERO) })
}

async fn compare(
    here: &mut SqliteConnection,
    there: &mut SqliteConnection,
) -> Result<Comparison, sqlx::Error> {
    let mut rows = 0;
    for (table, sql) in selects(here).await? {
        let mut ours = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql.clone())).fetch(&mut *here);
        let mut theirs = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).fetch(&mut *there);
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

/// Every table that is a view, and the statement that gives its rows as text, in an order that depends on nothing but
/// the rows.
async fn selects(db: &mut SqliteConnection) -> Result<Vec<(String, String)>, sqlx::Error> {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'snapshots' ORDER BY name";
    let mut selects = Vec::new();
    for row in sqlx::query(tables).fetch_all(&mut *db).await? {
        let table: String = row.try_get(0)?;
        let columns = "SELECT 'quote(' || name || ')' FROM pragma_table_info(?1) ORDER BY cid";
        let columns = sqlx::query_scalar::<_, String>(columns).bind(table.clone());
        let columns = columns.fetch_all(&mut *db).await?.join(" || ',' || ");
        let select = format!("SELECT {columns} AS row FROM {table} ORDER BY row");
        selects.push((table, select));
    }
    Ok(selects)
}
