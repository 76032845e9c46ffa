//! Leases in the log's database, by its clock. Claims go through the appender, which so knows the new fence at once;
//! renewals have a connection of their own, so that no batch holds them up.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions, PgRow};

use super::{Database, OpenError, Postgres};
use crate::lease::{FORGOTTEN_AFTER, LeaseError, Leases, Secret, Table};
use crate::store::columns::{self, signed, unsigned};
use crate::store::{AppendError, Epoch};

/// How long a renewal waits for a connection, and the server may work at it, in milliseconds.
const WAIT_MS: u64 = 2_000;

/// The connections that leases are renewed over.
pub(super) async fn connect(database: &Database) -> Result<PgPool, OpenError> {
    PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_millis(WAIT_MS))
        .connect_with(database.settings(WAIT_MS))
        .await
        .map_err(|error| OpenError::unreachable(database, &error))
}

/// Forgets nodes that were not seen for long. Where the role may not, they stay listed.
pub(super) async fn forget(pool: &PgPool) {
    let forget = sqlx::query(include_str!("sql/forget_nodes.sql")).bind(micros(FORGOTTEN_AFTER));
    if let Err(error) = forget.execute(pool).await {
        tracing::warn!(%error, "nodes that are long gone are not forgotten; run `deploy/postgres/roles.sql` again");
    }
}

/// Claims shards within a transaction of the appender's that holds the head.
pub(super) async fn claim(
    connection: &mut PgConnection,
    node: &str,
    held: &[Epoch],
    most: usize,
    ttl: Duration,
) -> Result<Vec<Epoch>, sqlx::Error> {
    let shards: Vec<i16> = held.iter().map(|held| i16::from(held.shard)).collect();
    let claim = sqlx::query(include_str!("sql/claim_leases.sql"))
        .bind(node)
        .bind(shards)
        .bind(signed(most as u64))
        .bind(micros(ttl));
    epochs(&claim.fetch_all(connection).await?)
}

fn micros(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)
}

fn columns_of(leases: &[Epoch]) -> (Vec<i16>, Vec<i64>) {
    leases.iter().map(|lease| (i16::from(lease.shard), signed(lease.epoch))).unzip()
}

/// Leases in the order of their shards.
fn epochs(rows: &[PgRow]) -> Result<Vec<Epoch>, sqlx::Error> {
    let epoch = |row: &PgRow| Ok(Epoch { shard: shard(row)?, epoch: unsigned(row.try_get(1)?) });
    let mut epochs: Vec<Epoch> = rows.iter().map(epoch).collect::<Result<_, sqlx::Error>>()?;
    epochs.sort_by_key(|epoch| epoch.shard);
    Ok(epochs)
}

fn shard(row: &PgRow) -> Result<u8, sqlx::Error> {
    u8::try_from(row.try_get::<i16, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unavailable(error: sqlx::Error) -> LeaseError {
    LeaseError::Unavailable { reason: error.to_string().into() }
}

impl Postgres {
    async fn read_table(&self) -> Result<Table, sqlx::Error> {
        let pool = &self.shared.leases;
        let nodes = sqlx::query(include_str!("sql/select_nodes.sql")).fetch_all(pool).await?;
        let leases = sqlx::query(include_str!("sql/select_leases.sql")).fetch_all(pool).await?;
        let node = |row: &PgRow| {
            let (joined_at, seen_at) = (row.try_get(1)?, row.try_get(2)?);
            Ok(columns::node(row.try_get(0)?, joined_at, seen_at, row.try_get(3)?, row.try_get(4)?))
        };
        let lease =
            |row: &PgRow| Ok(columns::lease(shard(row)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        Ok(Table {
            nodes: nodes.iter().map(node).collect::<Result<_, sqlx::Error>>()?,
            leases: leases.iter().map(lease).collect::<Result<_, sqlx::Error>>()?,
        })
    }
}

#[async_trait]
impl Leases for Postgres {
    async fn renew(&self, node: &str, held: &[Epoch], ttl: Duration) -> Result<Vec<Epoch>, LeaseError> {
        let (shards, held) = columns_of(held);
        let renew = sqlx::query(include_str!("sql/renew_leases.sql"));
        let renew = renew.bind(node).bind(shards).bind(held).bind(micros(ttl));
        let rows = renew.fetch_all(&self.shared.leases).await.map_err(unavailable)?;
        epochs(&rows).map_err(unavailable)
    }

    async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, LeaseError> {
        let claimed = self.shared.intake.claim(node, held, most, ttl).await;
        claimed.map_err(|error: AppendError| LeaseError::Unavailable { reason: error.to_string().into() })
    }

    async fn release(&self, node: &str, leases: &[Epoch]) -> Result<(), LeaseError> {
        let (shards, epochs) = columns_of(leases);
        let release =
            sqlx::query(include_str!("sql/release_leases.sql")).bind(node).bind(shards).bind(epochs);
        release.execute(&self.shared.leases).await.map(|_| ()).map_err(unavailable)
    }

    async fn leave(&self, node: &str) -> Result<(), LeaseError> {
        let leave = sqlx::query(include_str!("sql/leave.sql")).bind(node);
        leave.execute(&self.shared.leases).await.map(|_| ()).map_err(unavailable)
    }

    async fn secret(&self) -> Result<Secret, LeaseError> {
        let select = sqlx::query(include_str!("sql/select_secret.sql")).fetch_one(&self.shared.leases);
        let secret = select.await.and_then(|row| columns::digest(row.try_get(0)?));
        secret.map(|secret| Secret(secret.0)).map_err(unavailable)
    }

    async fn table(&self) -> Result<Table, LeaseError> {
        self.read_table().await.map_err(unavailable)
    }
}
