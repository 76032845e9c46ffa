//! Artifacts in the log's Postgres database, where every node that shares it finds them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError, ArtifactStore};
use crate::id::Digest;
use crate::store::columns::{self, signed};
use crate::store::postgres::Database;

/// Most bytes of one part.
const PART_BYTES_MAX: usize = 1 << 20;
/// Connections for artifacts.
const CONNECTIONS_MAX: u32 = 4;
/// How long to wait for a connection, in milliseconds.
const WAIT_MS: u64 = 10_000;
/// How long the server may work at one part, in milliseconds.
const STATEMENT_MS: u64 = 30_000;

/// An artifact store in the database of an open log. Clones are handles to the same store.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// Opens the artifacts of a database that has the log's tables.
    pub async fn open(database: &Database) -> Result<Self, ArtifactError> {
        let options = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_millis(WAIT_MS));
        let pool = options.connect_with(database.settings(STATEMENT_MS)).await;
        Ok(Self { pool: pool.map_err(unavailable)? })
    }

    /// One transaction, so that what is there is there as a whole.
    async fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), sqlx::Error> {
        const PART: &str = "INSERT INTO artifact_parts (digest, number, bytes) VALUES ($1, $2, $3)
                            ON CONFLICT (digest, number) DO UPDATE SET bytes = excluded.bytes";
        const WHOLE: &str =
            "INSERT INTO artifacts (digest, size) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
        let mut tx = self.pool.begin().await?;
        for (number, part) in (0_i32..).zip(bytes.chunks(PART_BYTES_MAX)) {
            sqlx::query(PART).bind(&digest.0[..]).bind(number).bind(part).execute(&mut *tx).await?;
        }
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        sqlx::query(WHOLE).bind(&digest.0[..]).bind(size).execute(&mut *tx).await?;
        tx.commit().await
    }
}

impl Postgres {
    async fn remove(&self, digest: Digest) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let whole = sqlx::query("DELETE FROM artifacts WHERE digest = $1").bind(&digest.0[..]);
        let was_there = whole.execute(&mut *tx).await?.rows_affected() > 0;
        let parts = sqlx::query("DELETE FROM artifact_parts WHERE digest = $1").bind(&digest.0[..]);
        parts.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(was_there)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unavailable(error: sqlx::Error) -> ArtifactError {
    ArtifactError::Unavailable { reason: error.to_string().into() }
}

#[async_trait]
impl ArtifactStore for Postgres {
    async fn put_from(&self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Artifact, ArtifactError> {
        let mut bytes = Vec::new();
        let read = source.take(ARTIFACT_BYTES_MAX + 1).read_to_end(&mut bytes).await;
        let size =
            read.map_err(|error| ArtifactError::Interrupted { reason: error.to_string().into() })? as u64;
        if size > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge);
        }
        let digest = Digest::of(&bytes);
        // Parts are written again where they are there already: so damaged parts are mended by putting it again.
        self.keep(digest, &bytes).await.map_err(unavailable)?;
        Ok(Artifact { digest, size })
    }

    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, ArtifactError> {
        const PARTS: &str = "SELECT bytes FROM artifact_parts WHERE digest = $1 ORDER BY number";
        let Some(size) = self.size(digest).await? else { return Ok(None) };
        let parts = sqlx::query_scalar::<_, Vec<u8>>(PARTS).bind(&digest.0[..]).fetch_all(&self.pool);
        let bytes = parts.await.map_err(unavailable)?.concat();
        if bytes.len() as u64 != size || Digest::of(&bytes) != digest {
            return Err(ArtifactError::Damaged { digest });
        }
        Ok(Some(bytes.into()))
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        const SIZE: &str = "SELECT size FROM artifacts WHERE digest = $1";
        let size = sqlx::query_scalar::<_, i64>(SIZE).bind(&digest.0[..]).fetch_optional(&self.pool).await;
        Ok(size.map_err(unavailable)?.map(|size| u64::try_from(size).unwrap_or_default()))
    }

    async fn after(&self, after: Option<Digest>, limit: usize) -> Result<Vec<Digest>, ArtifactError> {
        const AFTER: &str =
            "SELECT digest FROM artifacts WHERE digest > coalesce($1, ''::bytea) ORDER BY digest LIMIT $2";
        let after = after.map(|after| after.0.to_vec());
        let query = sqlx::query_scalar::<_, Vec<u8>>(AFTER).bind(after).bind(signed(limit as u64));
        let found = query.fetch_all(&self.pool).await.map_err(unavailable)?;
        found.iter().map(|bytes| columns::digest(bytes).map_err(unavailable)).collect()
    }

    async fn delete(&self, digest: Digest) -> Result<bool, ArtifactError> {
        self.remove(digest).await.map_err(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::server::{Server, execute};
    use crate::store::postgres::{self, Postgres as Log};

    async fn fresh() -> (String, Postgres) {
        let url = Server::shared().database().await;
        let database = url.parse().expect("a URL");
        Log::open(&database, postgres::Options::default()).await.expect("it opens").close().await;
        let store = Postgres::open(&database).await.expect("it opens");
        (url, store)
    }

    crate::artifact_store_conformance!(async { fresh().await.1 });

    #[tokio::test]
    async fn what_is_damaged_is_not_given_and_is_mended_by_putting_it_again() {
        let (url, store) = fresh().await;
        let bytes = Bytes::from(vec![7; PART_BYTES_MAX + 1]);
        let Artifact { digest, .. } = store.put(bytes.clone()).await.expect("it is kept");
        for damage in [
            "UPDATE artifact_parts SET bytes = '\\x08' WHERE number = 1",
            "DELETE FROM artifact_parts WHERE number = 0",
        ] {
            execute(&url, damage).await;
            assert_eq!(store.get(digest).await, Err(ArtifactError::Damaged { digest }));
            store.put(bytes.clone()).await.expect("it is put again");
            assert_eq!(store.get(digest).await, Ok(Some(bytes.clone())));
        }
    }
}
