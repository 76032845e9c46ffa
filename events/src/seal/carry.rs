//! Carrying keys over together with their log, wrapped as they are.

use std::sync::Arc;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::SealError;
use super::keys::{KEYS_FILE, Pool, on};
use crate::store::copy::Place;
use crate::store::postgres::Database;

/// Keys that are carried over at once.
const KEYS: i64 = 1_000;

/// How long the server may work at a statement, in milliseconds.
const STATEMENT_MS: u64 = 10_000;

/// A key as it is kept: its id, the digest of its subject, the wrapped key, and when it was made.
type Row = (String, Vec<u8>, Vec<u8>, i64);

/// Makes the keys at `to` those at `from`, and says how many there are. Nobody may be using either. A key that was
/// destroyed at `from` is destroyed at `to` as well.
pub(crate) async fn carry(from: &Place, to: &Place) -> Result<u64, SealError> {
    let (here, there): (Arc<str>, Arc<str>) = (from.to_string().into(), to.to_string().into());
    let unread = |error: sqlx::Error| SealError::unavailable(&here, &error);
    let unwritten = |error: sqlx::Error| SealError::unavailable(&there, &error);
    if !has_any(from).await.map_err(unread)? {
        return Ok(0);
    }
    let (source, target) = (open(from).await.map_err(unread)?, open(to).await.map_err(unwritten)?);
    if let Some(mark) = source.mark().await.map_err(unread)? {
        target.set_mark(&mark).await.map_err(unwritten)?;
        if target.mark().await.map_err(unwritten)? != Some(mark) {
            return Err(SealError::Master { place: there });
        }
    }
    remove_others(&source, &target).await.map_err(unwritten)?;
    let (mut count, mut last) = (0, String::new());
    loop {
        let page = page(&source, &last).await.map_err(unread)?;
        let Some((end, ..)) = page.last() else { break };
        last.clone_from(end);
        count += page.len() as u64;
        for row in page {
            insert(&target, row).await.map_err(unwritten)?;
        }
    }
    source.close().await;
    target.close().await;
    Ok(count)
}

async fn open(place: &Place) -> Result<Pool, sqlx::Error> {
    match place {
        Place::Directory(directory) => Pool::of_directory(directory).await,
        Place::Database(database) => Pool::of_database(database).await,
    }
}

/// Whether there is a store of keys, which is not made where there is none.
async fn has_any(place: &Place) -> Result<bool, sqlx::Error> {
    const IS_THERE: &str = "SELECT to_regclass('hypercode_keys.subject_keys') IS NOT NULL";
    let database: &Database = match place {
        Place::Directory(directory) => return Ok(directory.join(KEYS_FILE).is_file()),
        Place::Database(database) => database,
    };
    let mut connection = PgConnection::connect_with(&database.settings(STATEMENT_MS)).await?;
    let is_there = sqlx::query_scalar(IS_THERE).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(is_there)
}

async fn page(keys: &Pool, after: &str) -> Result<Vec<Row>, sqlx::Error> {
    let sql = "SELECT id, subject, wrapped, created_at FROM subject_keys WHERE id > $1 ORDER BY id LIMIT $2";
    on!(keys, sqlx::query_as::<_, Row>(sql).bind(after).bind(KEYS), fetch_all)
}

/// One that is there already is the same: an id is never used twice.
async fn insert(keys: &Pool, (id, subject, wrapped, created_at): Row) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO subject_keys (id, subject, wrapped, created_at) VALUES ($1, $2, $3, $4)
               ON CONFLICT (id) DO NOTHING";
    let inserted = on!(
        keys,
        sqlx::query(sql).bind(&id[..]).bind(&subject[..]).bind(&wrapped[..]).bind(created_at),
        execute
    );
    inserted.map(drop)
}

/// Destroys the target's keys that the source does not have.
async fn remove_others(source: &Pool, target: &Pool) -> Result<(), sqlx::Error> {
    let mut last = String::new();
    loop {
        let page = page(target, &last).await?;
        let Some((end, ..)) = page.last() else { return target.destroy_doomed().await };
        last.clone_from(end);
        for (id, ..) in &page {
            let found: Option<String> = on!(
                source,
                sqlx::query_scalar("SELECT id FROM subject_keys WHERE id = $1").bind(&id[..]),
                fetch_optional
            )?;
            if found.is_none() {
                target.doom(id).await?;
            }
        }
    }
}
