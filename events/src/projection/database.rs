//! The two dialects of the views behind one seam: what a projection says and asks is the same in both.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow, Postgres};
use sqlx::query::Query as Prepared;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Row as _, SqlSafeStr as _, SqlStr, Type};

use super::common::NAME_SPACE;
use crate::store::postgres::{answered, within};

/// A statement as each dialect has it. Its parameters are `$1`, `$2` …
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl Statement {
    pub(super) const fn common(sql: &'static str) -> Self {
        Self { sqlite: sql, postgres: sql }
    }
}

/// A statement of which each dialect has a file of its own.
macro_rules! twins {
    ($file:literal) => {
        $crate::projection::database::Statement {
            sqlite: include_str!(concat!("sql/sqlite/", $file)),
            postgres: include_str!(concat!("sql/postgres/", $file)),
        }
    };
}
pub(super) use twins;

/// A statement's parameter.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Option<String>),
    Integer(i64),
    Bytes(Vec<u8>),
    Json(serde_json::Value),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}
impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}
impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        Self::Json(value)
    }
}

/// A statement that is put together from parts, each of which is fixed in the program.
#[derive(Clone, Debug)]
pub(super) struct Query {
    sql: String,
    values: Vec<Value>,
}

impl Query {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new() }
    }
    /// A statement of names that the database itself gave.
    pub(super) fn of_names(sql: String) -> Self {
        Self { sql, values: Vec::new() }
    }
    pub(super) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }
    pub(super) fn push_value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.sql.push_str(&format!("${}", self.values.len()));
        self
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column holds in either dialect.
pub(super) trait Column<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}
impl<'r, T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>> Column<'r> for T {}

impl Row {
    pub(super) fn get<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
    pub(super) fn unsigned(&self, column: usize) -> Result<u64, sqlx::Error> {
        Ok(u64::try_from(self.get::<i64>(column)?).unwrap_or_default())
    }
}

/// The connections that read.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    Sqlite(SqlitePool),
    /// With how long an answer of the server is waited for.
    Postgres {
        pool: PgPool,
        answer: Duration,
    },
}

impl Reader {
    pub(super) async fn fetch(
        &self,
        statement: Statement,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => sqlite_rows(statement.sqlite.into_sql_str(), values, pool).await,
            Self::Postgres { pool, answer } => {
                bounded_rows(statement.postgres.into_sql_str(), values, pool, *answer).await
            }
        }
    }

    pub(super) async fn query(&self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        let sql = AssertSqlSafe(query.sql).into_sql_str();
        match self {
            Self::Sqlite(pool) => sqlite_rows(sql, query.values, pool).await,
            Self::Postgres { pool, answer } => bounded_rows(sql, query.values, pool, *answer).await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

/// The connection that writes.
#[derive(Debug)]
pub(super) enum Writer {
    Sqlite(SqliteConnection),
    /// With how long an answer of the server is waited for.
    Postgres {
        db: PgConnection,
        answer: Duration,
    },
}

impl Writer {
    pub(super) async fn execute(
        &mut self,
        statement: Statement,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(db) => {
                sqlite(statement.sqlite.into_sql_str(), values).execute(db).await?;
            }
            Self::Postgres { db, answer } => {
                within(*answer, postgres(statement.postgres.into_sql_str(), values).execute(db)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn fetch(
        &mut self,
        statement: Statement,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(db) => sqlite_rows(statement.sqlite.into_sql_str(), values, db).await,
            Self::Postgres { db, answer } => {
                within(*answer, postgres_rows(statement.postgres.into_sql_str(), values, db)).await
            }
        }
    }

    async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql).into_sql_str();
        match self {
            Self::Sqlite(db) => sqlite(sql, []).execute(db).await.map(drop),
            Self::Postgres { db, answer } => within(*answer, postgres(sql, []).execute(db)).await.map(drop),
        }
    }

    /// Makes empty temporary tables, which from now on stand before the views' own of the same names in this session.
    /// Tables are named by projections, never from outside.
    pub(super) async fn shadow(&mut self, tables: &[&str]) -> Result<(), sqlx::Error> {
        const MADE_BY: Statement = Statement::common(
            "SELECT sql FROM main.sqlite_schema WHERE tbl_name = $1 AND sql IS NOT NULL ORDER BY type DESC",
        );
        for table in tables {
            if let Self::Postgres { .. } = self {
                self.run(format!("CREATE TEMP TABLE {table} (LIKE {NAME_SPACE}.{table} INCLUDING ALL)"))
                    .await?;
                continue;
            }
            for row in self.fetch(MADE_BY, [(*table).into()]).await? {
                let (create, rest) = row.get::<&str>(0)?.split_at("CREATE TABLE ".len());
                self.run(format!("{create}temp.{rest}")).await?;
            }
        }
        Ok(())
    }

    /// Puts the rows of the temporary tables in place of the views' own.
    pub(super) async fn replace(&mut self, tables: &[&str]) -> Result<(), sqlx::Error> {
        let (own, temporary) = match self {
            Self::Sqlite(_) => ("main", "temp"),
            Self::Postgres { .. } => (NAME_SPACE, "pg_temp"),
        };
        for table in tables {
            self.run(format!("DELETE FROM {own}.{table}")).await?;
            self.run(format!("INSERT INTO {own}.{table} SELECT * FROM {temporary}.{table}")).await?;
        }
        Ok(())
    }

    /// Begins a transaction in which nobody else moves a projection.
    pub(super) async fn begin_alone(&mut self) -> Result<(), sqlx::Error> {
        const LOCK: &str = "LOCK TABLE projections IN SHARE ROW EXCLUSIVE MODE";
        self.execute(Statement { sqlite: "BEGIN IMMEDIATE", postgres: "BEGIN" }, []).await?;
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres { .. } => self.execute(Statement::common(LOCK), []).await,
        }
    }
    /// Begins a transaction that keeps nobody else from writing, for what only this session sees.
    pub(super) async fn begin_beside(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("BEGIN"), []).await
    }
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("COMMIT"), []).await
    }
    /// Undoes what was done since it began.
    pub(super) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("ROLLBACK"), []).await
    }
    pub(super) async fn save_point(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("SAVEPOINT projection"), []).await
    }
    pub(super) async fn release(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("RELEASE SAVEPOINT projection"), []).await
    }
    pub(super) async fn roll_back_to_save_point(&mut self) -> Result<(), sqlx::Error> {
        self.execute(Statement::common("ROLLBACK TO SAVEPOINT projection"), []).await
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        use sqlx::Connection as _;
        match self {
            Self::Sqlite(db) => db.close().await,
            Self::Postgres { db, answer } => within(answer, db.close()).await,
        }
    }
}

async fn sqlite_rows<'c>(
    sql: SqlStr,
    values: impl IntoIterator<Item = Value>,
    executor: impl sqlx::Executor<'c, Database = Sqlite>,
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(sqlite(sql, values).fetch_all(executor).await?.into_iter().map(Row::Sqlite).collect())
}

async fn postgres_rows<'c>(
    sql: SqlStr,
    values: impl IntoIterator<Item = Value>,
    executor: impl sqlx::Executor<'c, Database = Postgres>,
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(postgres(sql, values).fetch_all(executor).await?.into_iter().map(Row::Postgres).collect())
}

/// Rows over a connection of the pool, which gets it back only if the answer came.
async fn bounded_rows(
    sql: SqlStr,
    values: impl IntoIterator<Item = Value>,
    pool: &PgPool,
    answer: Duration,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = answered(pool, postgres(sql, values), answer).await?;
    Ok(rows.into_iter().map(Row::Postgres).collect())
}

fn sqlite(
    sql: SqlStr,
    values: impl IntoIterator<Item = Value>,
) -> Prepared<'static, Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text.map(without_nul)),
        Value::Integer(value) => query.bind(value),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Json(value) => query.bind(json_without_nul(value)),
    })
}

fn postgres(
    sql: SqlStr,
    values: impl IntoIterator<Item = Value>,
) -> Prepared<'static, Postgres, PgArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text.map(without_nul)),
        Value::Integer(value) => query.bind(value),
        Value::Bytes(bytes) => query.bind(bytes),
        Value::Json(value) => query.bind(json_without_nul(value)),
    })
}

/// Postgres' texts hold every character but U+0000, which a handler may well have said: it is shown as U+FFFD, in both
/// dialects, so that views are the same whatever they are kept in (RP-1).
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

fn json_without_nul(mut value: serde_json::Value) -> String {
    let text = value.to_string();
    if !text.contains("\\u0000") {
        return text;
    }
    clean(&mut value);
    value.to_string()
}

fn clean(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = without_nul(std::mem::take(text)),
        serde_json::Value::Array(items) => items.iter_mut().for_each(clean),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(clean),
        _ => {}
    }
}
