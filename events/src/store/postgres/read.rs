//! Reads over the connections that only read.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::answer::Reader;
use super::error::unreadable;
use super::rows;
use crate::event::Recorded;
use crate::id::{CommandId, Position, StreamId, Version};
use crate::store::columns::{digest, parse_stream, signed, unsigned};
use crate::store::{Appended, Head, ReadError, Reservation};

pub(super) async fn log(reader: &Reader, above: i64, limit: usize) -> Result<Vec<Recorded>, ReadError> {
    let query = sqlx::query(include_str!("sql/read_log.sql")).bind(above).bind(signed(limit as u64));
    rows::events(&reader.all(query).await.map_err(|error| unreadable(&error))?)
}

pub(super) async fn stream(
    reader: &Reader,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let query = sqlx::query(include_str!("sql/read_stream.sql"))
        .bind(stream.to_string())
        .bind(signed(after.0))
        .bind(signed(limit as u64));
    rows::events(&reader.all(query).await.map_err(|error| unreadable(&error))?)
}

pub(super) async fn command(reader: &Reader, id: CommandId) -> Result<Option<Appended>, ReadError> {
    let outcome = |row: PgRow| {
        let Some(position) = row.try_get::<Option<i64>, _>(0)? else { return Ok(None) };
        let version = Version(unsigned(row.try_get(1)?));
        Ok(Some(Appended { position: Position(unsigned(position)), version, repeated: true }))
    };
    let query = sqlx::query(include_str!("sql/find_command.sql")).bind(id.0);
    reader.one(query).await.and_then(outcome).map_err(|error| unreadable(&error))
}

pub(super) async fn holder(reader: &Reader, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
    let query = sqlx::query(include_str!("sql/find_reservation.sql")).bind(&*name.namespace).bind(&*name.key);
    let row = reader.first(query).await.map_err(|error| unreadable(&error))?;
    row.map(|row| row.try_get(0).and_then(parse_stream)).transpose().map_err(|error| unreadable(&error))
}

pub(super) async fn head(reader: &Reader) -> Result<Head, ReadError> {
    let row = reader.one(sqlx::query(include_str!("sql/select_head.sql"))).await;
    row.and_then(|row| head_of(&row)).map_err(|error| unreadable(&error))
}

/// A row that begins with position and hash.
pub(super) fn head_of(row: &PgRow) -> Result<Head, sqlx::Error> {
    Ok(Head { position: Position(unsigned(row.try_get(0)?)), hash: digest(row.try_get(1)?)? })
}
