//! Snapshots in the views' file.

use async_trait::async_trait;
use sqlx::Row as _;

use super::Views;
use crate::id::{StreamId, Version};
use crate::snapshot::{Snapshot, SnapshotStore};

#[async_trait]
impl SnapshotStore for Views {
    async fn load(&self, stream: &StreamId, decider: &str, state_schema: u16) -> Option<Snapshot> {
        let query = sqlx::query(include_str!("sql/load_snapshot.sql"))
            .bind(stream.to_string())
            .bind(decider.to_owned())
            .bind(i64::from(state_schema));
        let row = query.fetch_optional(&self.shared.reader).await;
        let snapshot = row.and_then(|row| {
            let read = |row: sqlx::sqlite::SqliteRow| {
                let version = Version(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default());
                Ok(Snapshot { version, state: row.try_get(1)? })
            };
            row.map(read).transpose()
        });
        snapshot.unwrap_or_else(|error| {
            tracing::warn!(%stream, %error, "a snapshot could not be read");
            None
        })
    }

    async fn save(&self, stream: &StreamId, decider: &str, state_schema: u16, snapshot: Snapshot) {
        let query = sqlx::query(include_str!("sql/store_snapshot.sql"))
            .bind(stream.to_string())
            .bind(decider.to_owned())
            .bind(i64::from(state_schema))
            .bind(i64::try_from(snapshot.version.0).unwrap_or(i64::MAX))
            .bind(snapshot.state);
        if let Err(error) = query.execute(&self.shared.reader).await {
            tracing::warn!(%stream, %error, "a snapshot was not saved");
        }
    }
}
