//! Waiting for a server, but not for ever.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;

use super::{Database, OpenError, Options};

/// Waits no longer than this for the server; a connection that was given up on is not used again.
pub(crate) async fn within<T>(
    answer: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = |_| Err(sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)));
    tokio::time::timeout(answer, work).await.unwrap_or_else(late)
}

/// The rows of an answer over a connection of `pool`. One whose answer does not come is not given back: the pool would
/// wait for the rest of it.
pub(crate) async fn answered(
    pool: &PgPool,
    query: Query<'_, Postgres, PgArguments>,
    answer: Duration,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let rows = within(answer, query.fetch_all(&mut *connection)).await;
    give_back(connection, &rows);
    rows
}

/// Gives a connection back to its pool, unless what was asked over it was not answered in time.
pub(crate) fn give_back<T>(connection: PoolConnection<Postgres>, answer: &Result<T, sqlx::Error>) {
    if matches!(answer, Err(sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut) {
        drop(connection.detach());
    }
}

/// The connections that read. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pool: PgPool,
    answer: Duration,
}

impl Reader {
    pub(super) async fn open(database: &Database, options: &Options) -> Result<Self, OpenError> {
        let pool = PgPoolOptions::new()
            .max_connections(options.read_connections_max)
            .acquire_timeout(Duration::from_millis(options.read_wait_ms))
            .connect_with(database.settings(options.statement_ms))
            .await
            .map_err(|error| OpenError::unreachable(database, &error))?;
        Ok(Self { pool, answer: Duration::from_millis(options.answer_ms) })
    }

    /// All rows of the answer.
    pub(super) async fn all(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        answered(&self.pool, query, self.answer).await
    }

    /// The first row of the answer, if it has any.
    pub(super) async fn first(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, sqlx::Error> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// The one row of the answer.
    pub(super) async fn one(&self, query: Query<'_, Postgres, PgArguments>) -> Result<PgRow, sqlx::Error> {
        self.first(query).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Ends when the connections are closed.
    pub(super) async fn closed(&self) {
        self.pool.close_event().await;
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ReadError;
    use crate::store::postgres::server::Server;
    use crate::store::postgres::{Postgres as Store, read};

    /// A server that stands still is not waited for, and its connection is not used again.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_does_not_come_is_given_up() {
        let database: Database = Server::shared().database().await.parse().expect("a URL");
        let options = Options { answer_ms: 200, read_connections_max: 1, ..Options::default() };
        Store::open(&database, options.clone()).await.expect("it opens").close().await;
        let reader = Reader::open(&database, &options).await.expect("it opens");
        for _ in 0..3 {
            let late = reader.all(sqlx::query("SELECT pg_sleep(5)")).await.expect_err("it is late");
            assert!(matches!(late, sqlx::Error::Io(_)), "{late}");
        }
        read::head(&reader).await.expect("the next connection answers");
        reader.close().await;
        assert!(matches!(read::head(&reader).await, Err(ReadError::Unavailable { .. })));
    }
}
