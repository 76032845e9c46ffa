//! Reads over the connections that only read.

use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::error::unreadable;
use super::lines;
use super::rows::bytes;
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{digest, parse_stream, signed, unsigned};
use crate::store::{Appended, Head, ReadError, Reservation};

pub(super) async fn log(
    reader: &SqlitePool,
    after: Position,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let query =
        sqlx::query(include_str!("sql/read_log.sql")).bind(signed(after.0)).bind(signed(limit as u64));
    events(&query.fetch_one(reader).await.map_err(|error| unreadable(&error))?)
}

pub(super) async fn stream(
    reader: &SqlitePool,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let query = sqlx::query(include_str!("sql/read_stream.sql"))
        .bind(stream.to_string())
        .bind(signed(after.0))
        .bind(signed(limit as u64));
    events(&query.fetch_one(reader).await.map_err(|error| unreadable(&error))?)
}

/// The events of a page, which is null where it has none.
fn events(row: &SqliteRow) -> Result<Vec<Recorded>, ReadError> {
    let page: Option<&str> = row.try_get(0).map_err(|error| unreadable(&error))?;
    page.map_or(Ok(Vec::new()), lines::events)
}

pub(super) async fn command(reader: &SqlitePool, id: CommandId) -> Result<Option<Appended>, ReadError> {
    let outcome = |row: SqliteRow| {
        let Some(position) = row.try_get::<Option<i64>, _>(0)? else { return Ok(None) };
        let version = Version(unsigned(row.try_get(1)?));
        Ok(Some(Appended { position: Position(unsigned(position)), version, repeated: true }))
    };
    let query = sqlx::query(include_str!("sql/find_command.sql")).bind(bytes(id.0));
    query.fetch_one(reader).await.and_then(outcome).map_err(|error| unreadable(&error))
}

pub(super) async fn holder(reader: &SqlitePool, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
    let query = sqlx::query(include_str!("sql/find_reservation.sql"))
        .bind(name.namespace.clone())
        .bind(name.key.clone());
    let row = query.fetch_optional(reader).await.map_err(|error| unreadable(&error))?;
    row.map(|row| row.try_get(0).and_then(parse_stream)).transpose().map_err(|error| unreadable(&error))
}

pub(super) async fn head(reader: &SqlitePool) -> Result<Head, ReadError> {
    let head = |row: SqliteRow| {
        Ok(Head { position: Position(unsigned(row.try_get(0)?)), hash: digest(row.try_get(1)?)? })
    };
    let query = sqlx::query(include_str!("sql/select_head.sql"));
    query.fetch_one(reader).await.and_then(head).map_err(|error| unreadable(&error))
}
