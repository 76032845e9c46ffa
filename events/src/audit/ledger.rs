//! The ledger: tiles, checkpoints and keys in a file of their own, which no rebuild ever touches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::{PublicKey, Tile};
use crate::id::Timestamp;

/// The ledger's file in the data directory.
pub const LEDGER_FILE: &str = "audit.db";

const SCHEMA: &str = include_str!("../../../migrations/sqlite/0003_audit.sql");
/// Marks a file as ours in SQLite's header: `HCau` in ASCII.
const APPLICATION_ID: i64 = 0x4843_6175;
/// The schema's version, as SQLite's `user_version`.
const VERSION: i64 = 1;
/// Connections to the file.
const CONNECTIONS_MAX: u32 = 4;

/// Why the ledger could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use the audit's ledger `{}`: {reason}", file.display())]
pub struct LedgerError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong.
    pub reason: Arc<str>,
}

/// A checkpoint as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The size under which it is kept.
    pub size: u64,
    /// The signed note as text.
    pub note: String,
    /// When it was cut.
    pub cut_at: Timestamp,
}

/// The ledger. Clones are handles to the same file.
#[derive(Clone, Debug)]
pub struct Ledger {
    file: PathBuf,
    pool: SqlitePool,
}

impl Ledger {
    /// Opens the ledger of `directory`, or makes it where there is none yet.
    pub async fn open(directory: &Path) -> Result<Self, LedgerError> {
        let ledger = Self::connect(directory, |options| {
            options
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
        });
        let ledger = ledger.await?;
        let tables = ledger.number("SELECT count(*) FROM sqlite_schema").await?;
        if tables == 0 {
            let mut tx = ledger.pool.begin().await.map_err(|error| ledger.failed(&error))?;
            let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}");
            let made = async {
                sqlx::raw_sql(SCHEMA).execute(&mut *tx).await?;
                sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *tx).await?;
                tx.commit().await
            };
            made.await.map_err(|error| ledger.failed(&error))?;
        }
        ledger.check().await?;
        Ok(ledger)
    }

    /// Opens the ledger of `directory` to read it, beside a platform that runs or not; `None` where there is none.
    pub async fn read(directory: &Path) -> Result<Option<Self>, LedgerError> {
        if !directory.join(LEDGER_FILE).is_file() {
            return Ok(None);
        }
        let ledger = Self::connect(directory, |options| options.read_only(true)).await?;
        ledger.check().await?;
        Ok(Some(ledger))
    }

    async fn connect(
        directory: &Path,
        set: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Self, LedgerError> {
        let file = directory.join(LEDGER_FILE);
        let options = SqliteConnectOptions::new().filename(&file).busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            // SQLite ends a transaction by itself when its disk is full, of which the driver hears nothing: it would
            // refuse to begin another one on that connection for ever.
            .before_acquire(|connection, _| {
                let is_whole = !connection.is_in_transaction();
                Box::pin(async move { Ok(is_whole) })
            });
        match pool.connect_with(set(options)).await {
            Ok(pool) => Ok(Self { file, pool }),
            Err(error) => Err(LedgerError { file, reason: error.to_string().into() }),
        }
    }

    async fn check(&self) -> Result<(), LedgerError> {
        let reason = match self.number("PRAGMA application_id").await? {
            APPLICATION_ID => match self.number("PRAGMA user_version").await? {
                VERSION => return Ok(()),
                found => format!("its schema {found} is not this program's {VERSION}"),
            },
            _ => "it is a database of another program".to_owned(),
        };
        Err(LedgerError { file: self.file.clone(), reason: reason.into() })
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The newest checkpoint.
    pub async fn newest(&self) -> Result<Option<Entry>, LedgerError> {
        let sql = "SELECT size, note, cut_at FROM checkpoints ORDER BY size DESC LIMIT 1";
        let row = sqlx::query(sql).fetch_optional(&self.pool).await;
        row.and_then(|row| row.as_ref().map(entry).transpose()).map_err(|error| self.failed(&error))
    }

    /// Up to `limit` checkpoints of sizes above `above`, the smallest first.
    pub async fn checkpoints(&self, above: u64, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        let sql = "SELECT size, note, cut_at FROM checkpoints WHERE size > ?1 ORDER BY size LIMIT ?2";
        let rows =
            sqlx::query(sql).bind(signed(above)).bind(signed(limit as u64)).fetch_all(&self.pool).await;
        rows.and_then(|rows| rows.iter().map(entry).collect()).map_err(|error| self.failed(&error))
    }

    /// The hashes of a tile, 32 bytes each.
    pub async fn tile(&self, level: u8, number: u64) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql = "SELECT hashes FROM tiles WHERE level = ?1 AND number = ?2";
        let query = sqlx::query_scalar(sql).bind(i64::from(level)).bind(signed(number));
        query.fetch_optional(&self.pool).await.map_err(|error| self.failed(&error))
    }

    /// A tile, by level and number, that the tree of the newest checkpoint does not have.
    pub(super) async fn surplus(&self) -> Result<Option<(i64, i64)>, LedgerError> {
        let sql = "SELECT level, number FROM tiles, (SELECT coalesce(max(size), 0) AS size FROM checkpoints)
                   WHERE level < 0 OR number < 0 OR number >= ((size >> (8 * level)) + 255) >> 8
                   ORDER BY level, number LIMIT 1";
        let query = sqlx::query_as(sql).fetch_optional(&self.pool);
        query.await.map_err(|error| self.failed(&error))
    }

    /// The keys that have signed, the oldest first.
    pub async fn keys(&self) -> Result<Vec<String>, LedgerError> {
        let query = sqlx::query_scalar("SELECT key FROM keys ORDER BY since, key");
        query.fetch_all(&self.pool).await.map_err(|error| self.failed(&error))
    }

    /// Keeps a checkpoint, the tiles that have grown until then and the key that signed, all or none.
    pub async fn record(&self, tiles: &[Tile], entry: &Entry, key: &PublicKey) -> Result<(), LedgerError> {
        let recorded = async {
            let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            for tile in tiles {
                let sql = "INSERT OR REPLACE INTO tiles (level, number, hashes) VALUES (?1, ?2, ?3)";
                let query = sqlx::query(sql).bind(i64::from(tile.level)).bind(signed(tile.number));
                query.bind(tile.hashes.clone()).execute(&mut *tx).await?;
            }
            let sql = "INSERT OR IGNORE INTO keys (key, since) VALUES (?1, ?2)";
            let query = sqlx::query(sql).bind(key.as_str().to_owned()).bind(signed(entry.size));
            query.execute(&mut *tx).await?;
            let sql = "INSERT INTO checkpoints (size, note, cut_at) VALUES (?1, ?2, ?3)";
            let query = sqlx::query(sql).bind(signed(entry.size)).bind(entry.note.clone());
            query.bind(entry.cut_at.0).execute(&mut *tx).await?;
            tx.commit().await
        };
        recorded.await.map_err(|error: sqlx::Error| self.failed(&error))
    }

    /// Up to which size a sink has got the checkpoints; 0 for one that never got any.
    pub(super) async fn delivered(&self, sink: &str) -> Result<u64, LedgerError> {
        let query = sqlx::query_scalar("SELECT size FROM sinks WHERE name = ?1").bind(sink.to_owned());
        let size: Result<Option<i64>, _> = query.fetch_optional(&self.pool).await;
        size.map(|size| size.map(unsigned).unwrap_or_default()).map_err(|error| self.failed(&error))
    }

    /// Every sink that has got any, and up to which size.
    pub async fn sinks(&self) -> Result<BTreeMap<String, u64>, LedgerError> {
        let rows = sqlx::query_as("SELECT name, size FROM sinks").fetch_all(&self.pool).await;
        let rows: Vec<(String, i64)> = rows.map_err(|error| self.failed(&error))?;
        Ok(rows.into_iter().map(|(name, size)| (name, unsigned(size))).collect())
    }

    /// Remembers that a sink has got the checkpoints up to `size`.
    pub(super) async fn deliver(&self, sink: &str, size: u64) -> Result<(), LedgerError> {
        let query = sqlx::query("INSERT OR REPLACE INTO sinks (name, size) VALUES (?1, ?2)");
        let done = query.bind(sink.to_owned()).bind(signed(size)).execute(&self.pool).await;
        done.map(drop).map_err(|error| self.failed(&error))
    }

    async fn number(&self, sql: &'static str) -> Result<i64, LedgerError> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &sqlx::Error) -> LedgerError {
        LedgerError { file: self.file.clone(), reason: error.to_string().into() }
    }
}

fn entry(row: &SqliteRow) -> Result<Entry, sqlx::Error> {
    let (size, note, cut_at) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(Entry { size: unsigned(size), note, cut_at: Timestamp(cut_at) })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
