//! A table of the database that nodes share: every node's checkpoints beside each other.

use async_trait::async_trait;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tokio::sync::OnceCell;

use super::{Sink, SinkError};
use crate::audit::checkpoint::Note;
use crate::id::Timestamp;
use crate::store::postgres::Database;

/// How long the server may take with a statement, in milliseconds.
const STATEMENT_MS: u64 = 10_000;

const IS_THERE: &str = "SELECT to_regclass('hypercode_audit.checkpoints') IS NOT NULL";

/// Made under a lock (`HCck` in ASCII), since nodes start together.
const MAKE: &str = "SELECT pg_advisory_xact_lock(1212375915);
    CREATE SCHEMA IF NOT EXISTS hypercode_audit;
    CREATE TABLE IF NOT EXISTS hypercode_audit.checkpoints (
        origin text COLLATE \"C\" NOT NULL,
        size bigint NOT NULL,
        note text NOT NULL,
        received_at bigint NOT NULL, -- microseconds since 1970, UTC
        PRIMARY KEY (origin, size)
    )";

/// A checkpoint that the table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name of the log under which it is there.
    pub origin: String,
    /// The size under which it is there.
    pub size: u64,
    /// The signed checkpoint.
    pub note: String,
}

/// The table `hypercode_audit.checkpoints`, of which no row is ever changed.
#[derive(Debug)]
pub struct Table {
    database: Database,
    pool: OnceCell<PgPool>,
    name: String,
}

impl Table {
    /// The table in `database`, which is made with the first checkpoint if it is missing.
    pub fn new(database: &Database) -> Self {
        Self { name: Self::name_of(database), database: database.clone(), pool: OnceCell::new() }
    }

    /// The checkpoints that the table has under the names `origins`, each with its name and the size under which it is there,
    /// the smallest of each first; none where there is no table.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn kept(database: &Database, origins: &[String]) -> Result<Vec<Row>, SinkError> {
        const KEPT: &str = "SELECT origin, size, note FROM hypercode_audit.checkpoints
                            WHERE origin = ANY($1) ORDER BY origin, size";
        let read = async {
            let mut connection = PgConnection::connect_with(&database.settings(STATEMENT_MS)).await?;
            if !sqlx::query_scalar::<_, bool>(IS_THERE).fetch_one(&mut connection).await? {
                return Ok(Vec::new());
            }
            let kept: Vec<(String, i64, String)> =
                sqlx::query_as(KEPT).bind(origins).fetch_all(&mut connection).await?;
            connection.close().await?;
            let row =
                |(origin, size, note)| Row { origin, size: u64::try_from(size).unwrap_or_default(), note };
            Ok(kept.into_iter().map(row).collect())
        };
        let failed =
            |error: sqlx::Error| SinkError { sink: Self::name_of(database), reason: error.to_string() };
        read.await.map_err(failed)
    }

    /// The name of the sink over a database.
    pub fn name_of(database: &Database) -> String {
        format!("database:{database}")
    }

    async fn pool(&self) -> Result<&PgPool, sqlx::Error> {
        self.pool
            .get_or_try_init(|| async {
                let settings = self.database.settings(STATEMENT_MS);
                let pool = PgPoolOptions::new().max_connections(1).connect_with(settings).await?;
                if !sqlx::query_scalar::<_, bool>(IS_THERE).fetch_one(&pool).await? {
                    let mut tx = pool.begin().await?;
                    sqlx::raw_sql(MAKE).execute(&mut *tx).await?;
                    tx.commit().await?;
                }
                Ok(pool)
            })
            .await
    }

    async fn insert(&self, note: &Note) -> Result<(), sqlx::Error> {
        const INSERT: &str = "INSERT INTO hypercode_audit.checkpoints (origin, size, note, received_at)
                              VALUES ($1, $2, $3, $4) ON CONFLICT (origin, size) DO NOTHING";
        const KEPT: &str = "SELECT note FROM hypercode_audit.checkpoints WHERE origin = $1 AND size = $2";
        let checkpoint = note.checkpoint();
        let size = i64::try_from(checkpoint.size).unwrap_or(i64::MAX);
        let pool = self.pool().await?;
        let insert = sqlx::query(INSERT).bind(&checkpoint.origin).bind(size).bind(note.as_str());
        if insert.bind(Timestamp::now().0).execute(pool).await?.rows_affected() == 1 {
            return Ok(());
        }
        let kept: String =
            sqlx::query_scalar(KEPT).bind(&checkpoint.origin).bind(size).fetch_one(pool).await?;
        match kept == note.as_str() {
            true => Ok(()),
            false => {
                Err(sqlx::Error::Protocol(format!("another checkpoint of size {size} is there already")))
            }
        }
    }
}

#[async_trait]
impl Sink for Table {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |error: sqlx::Error| SinkError { sink: self.name.clone(), reason: error.to_string() };
        self.insert(note).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Checkpoint, Signer};
    use crate::id::Digest;
    use crate::store::postgres::server::{Server, execute};

    #[tokio::test]
    async fn checkpoints_of_all_nodes_lie_beside_each_other() {
        let url = Server::shared().database().await;
        let database: Database = url.parse().expect("a URL");
        let (one, two) = (Signer::generate("one"), Signer::generate("two"));
        let sign = |signer: &Signer, root: &[u8]| {
            let origin = signer.origin().to_owned();
            signer.sign(&Checkpoint { origin, size: 7, root: Digest::of(root) })
        };
        let sinks = [Table::new(&database), Table::new(&database)];
        let notes = [sign(&one, b"a"), sign(&two, b"a")];
        let (first, second) = tokio::join!(sinks[0].put(&notes[0]), sinks[1].put(&notes[1]));
        assert_eq!((first, second), (Ok(()), Ok(())));
        assert_eq!(sinks[1].put(&notes[0]).await, Ok(()), "the same again is no harm");
        let fork = sinks[0].put(&sign(&one, b"b")).await.expect_err("another of the same size");
        assert!(fork.reason.contains("another checkpoint of size 7"), "{fork}");
        let kept = async |origins: &[&str]| -> Vec<(String, u64)> {
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            let kept = Table::kept(&database, &origins).await.expect("readable");
            kept.into_iter().map(|row| (row.origin, row.size)).collect()
        };
        let (one, two) = (("one".to_owned(), 7), ("two".to_owned(), 7));
        assert_eq!(kept(&["two", "one", "three"]).await, [one, two.clone()]);
        assert_eq!((kept(&["two"]).await, kept(&[]).await), (vec![two], vec![]));
        execute(&url, "DO $$ BEGIN ASSERT (SELECT count(*) = 2 FROM hypercode_audit.checkpoints); END $$")
            .await;
    }
}
