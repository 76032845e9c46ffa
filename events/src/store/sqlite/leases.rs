//! Leases in the log's file. Claims go through the appender, which judges by the epochs; what only moves the end of a
//! lease is written beside it.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::rows::{Unreadable, number};
use super::{OpenError, Sqlite, connection};
use crate::id::Timestamp;
use crate::lease::{FORGOTTEN_AFTER, LeaseError, Leases, Secret, Table};
use crate::store::columns::{self, signed};
use crate::store::{AppendError, Epoch, ReadError};

/// Ends all leases of a log that was just opened: whoever held them is gone, and forgotten after a while.
pub(super) fn end_all(file: &Path) -> Result<(), OpenError> {
    let ended = connection::writing(file).and_then(|connection| {
        connection.execute(include_str!("sql/end_leases.sql"), [])?;
        connection.execute(include_str!("sql/end_nodes.sql"), [])?;
        let long_ago = Timestamp::now().0 - micros(FORGOTTEN_AFTER);
        connection.execute(include_str!("sql/forget_nodes.sql"), [long_ago])
    });
    ended.map(|_| ()).map_err(|error| OpenError::database(file, &error))
}

/// Claims shards within a transaction of the appender's.
pub(super) fn claim(
    tx: &Transaction<'_>,
    node: &str,
    held: &[Epoch],
    most: usize,
    ttl: Duration,
) -> Result<Vec<Epoch>, Unreadable> {
    let shards: Vec<u8> = held.iter().map(|held| held.shard).collect();
    let now = Timestamp::now();
    let values = params![node, json(&shards), signed(most as u64), now.0, after(now, ttl)];
    epochs(tx, include_str!("sql/claim_leases.sql"), values)
}

/// Moves the end of those leases that are still the node's.
fn set(tx: &Transaction<'_>, node: &str, leases: &[Epoch], until: i64) -> Result<Vec<Epoch>, Unreadable> {
    let leases: Vec<_> = leases.iter().map(|lease| (lease.shard, lease.epoch)).collect();
    epochs(tx, include_str!("sql/set_leases.sql"), params![node, json(&leases), until])
}

/// Leases in the order of their shards.
fn epochs(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Epoch>, Unreadable> {
    let mut statement = tx.prepare(sql)?;
    let rows = statement.query_map(values, |row| Ok((row.get(0)?, number(row, 1))))?;
    let epoch = |row: rusqlite::Result<(u8, Result<u64, Unreadable>)>| {
        let (shard, epoch) = row?;
        Ok(Epoch { shard, epoch: epoch? })
    };
    let mut epochs: Vec<Epoch> = rows.map(epoch).collect::<Result<_, Unreadable>>()?;
    epochs.sort_by_key(|epoch| epoch.shard);
    Ok(epochs)
}

fn json(values: &impl serde::Serialize) -> String {
    serde_json::to_string(values).expect("numbers are plain data")
}

fn after(now: Timestamp, ttl: Duration) -> i64 {
    now.0.saturating_add(micros(ttl))
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn table(connection: &Connection) -> rusqlite::Result<Table> {
    let now = Timestamp::now().0;
    let node = |row: &Row<'_>| {
        let id: String = row.get(0)?;
        Ok(columns::node(&id, row.get(1)?, row.get(2)?, row.get(3)?, now))
    };
    let lease = |row: &Row<'_>| {
        let (holder, until): (String, i64) = (row.get(2)?, row.get(3)?);
        Ok(columns::lease(row.get(0)?, row.get(1)?, &holder, until.saturating_sub(now)))
    };
    let mut nodes = connection.prepare_cached(include_str!("sql/select_nodes.sql"))?;
    let mut leases = connection.prepare_cached(include_str!("sql/select_leases.sql"))?;
    Ok(Table {
        nodes: nodes.query_map([], node)?.collect::<Result<_, _>>()?,
        leases: leases.query_map([], lease)?.collect::<Result<_, _>>()?,
    })
}

fn unavailable(error: &impl ToString) -> LeaseError {
    LeaseError::Unavailable { reason: error.to_string().into() }
}

impl Sqlite {
    /// Changes leases in a transaction beside the appender.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Unreadable> + Send + 'static,
    ) -> Result<T, LeaseError> {
        // The directory is another process's once the log is closed.
        if self.shared.readers.is_closed() {
            return Err(unavailable(&"the log is closed"));
        }
        let file = self.shared.file.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let mut connection = connection::writing(&file)?;
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = change(&tx)?;
            tx.commit()?;
            Ok::<T, Unreadable>(changed)
        });
        match changed.await {
            Ok(changed) => changed.map_err(|error| unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

#[async_trait]
impl Leases for Sqlite {
    async fn renew(&self, node: &str, held: &[Epoch], ttl: Duration) -> Result<Vec<Epoch>, LeaseError> {
        let (node, held) = (node.to_owned(), held.to_vec());
        let renew = move |tx: &Transaction<'_>| {
            let now = Timestamp::now();
            let until = after(now, ttl);
            tx.execute(include_str!("sql/renew_node.sql"), params![node, now.0, until])?;
            set(tx, &node, &held, until)
        };
        self.change(renew).await
    }

    async fn claim(
        &self,
        node: &str,
        held: &[Epoch],
        most: usize,
        ttl: Duration,
    ) -> Result<Vec<Epoch>, LeaseError> {
        let claimed = self.shared.intake.claim(node, held, most, ttl).await;
        claimed.map_err(|error: AppendError| unavailable(&error))
    }

    async fn release(&self, node: &str, leases: &[Epoch]) -> Result<(), LeaseError> {
        let (node, leases) = (node.to_owned(), leases.to_vec());
        self.change(move |tx| set(tx, &node, &leases, 0).map(|_| ())).await
    }

    async fn leave(&self, node: &str) -> Result<(), LeaseError> {
        let node = node.to_owned();
        let leave = move |tx: &Transaction<'_>| {
            tx.execute(include_str!("sql/give_back_leases.sql"), [&node])?;
            tx.execute(include_str!("sql/leave.sql"), [&node])?;
            Ok(())
        };
        self.change(leave).await
    }

    async fn secret(&self) -> Result<Secret, LeaseError> {
        let read = |connection: &Connection| {
            let secret = connection.query_row(include_str!("sql/select_secret.sql"), [], |row| row.get(0));
            secret.map(Secret).map_err(|error| ReadError::Unavailable { reason: error.to_string().into() })
        };
        self.shared.readers.read(read).await.map_err(|error| unavailable(&error))
    }

    async fn table(&self) -> Result<Table, LeaseError> {
        let read = |connection: &Connection| {
            table(connection).map_err(|error| ReadError::Unavailable { reason: error.to_string().into() })
        };
        self.shared.readers.read(read).await.map_err(|error| unavailable(&error))
    }
}
