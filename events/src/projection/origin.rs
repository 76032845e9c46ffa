//! Whether views that are there were made by this program's rules, and from this log.

use super::ViewError;
use super::database::{Statement, Writer};
use crate::domain::Decider;
use crate::domain::agent::Agent;
use crate::domain::crew::Crew;
use crate::domain::pool::Pool;
use crate::domain::task::Task;
use crate::id::{Digest, Position};
use crate::store::{EventStore, Head};

/// Raised when a projection makes other rows of the same events.
const GENERATION: u16 = 1;

/// Stands beside the views: another value means that they were made by other rules.
pub(super) fn fingerprint(schema: &str) -> i64 {
    let states =
        [GENERATION, Crew::STATE_SCHEMA, Agent::STATE_SCHEMA, Task::STATE_SCHEMA, Pool::STATE_SCHEMA];
    let digest = Digest::of(format!("{schema}{states:?}").as_bytes()).0;
    i64::from(i32::from_be_bytes([digest[0] & 0x7f, digest[1], digest[2], digest[3]]))
}

/// Whether `store`'s log has the event to which the views were made.
pub(super) async fn is_of(source: Head, store: &dyn EventStore) -> Result<bool, ViewError> {
    let Some(before) = source.position.0.checked_sub(1) else { return Ok(true) };
    let events = store.read(Position(before), 1).await?;
    Ok(events.first().is_some_and(|event| event.position == source.position && event.hash == source.hash))
}

/// The farthest event that was applied.
pub(super) async fn source(db: &mut Writer) -> Result<Head, sqlx::Error> {
    const SOURCE: Statement = Statement::common(include_str!("sql/load_source.sql"));
    let rows = db.fetch(SOURCE, []).await?;
    let Some(row) = rows.first() else { return Ok(Head::EMPTY) };
    let hash = row.get::<&[u8]>(1)?.try_into().map(Digest).unwrap_or(Digest::ZERO);
    Ok(Head { position: Position(row.unsigned(0)?), hash })
}
