//! Snapshots beside the views.

use async_trait::async_trait;

use super::Views;
use super::database::{Row, Statement, Value};
use crate::id::{Digest, StreamId, Version};
use crate::snapshot::{Snapshot, SnapshotStore};

#[async_trait]
impl SnapshotStore for Views {
    async fn load(&self, stream: &StreamId, decider: &str, state_schema: u16) -> Option<Snapshot> {
        const LOAD: Statement = Statement::common(include_str!("sql/load_snapshot.sql"));
        let values = [stream.to_string().into(), decider.into(), i64::from(state_schema).into()];
        let rows = self.shared.reader.fetch(LOAD, values).await;
        let snapshot = rows.and_then(|rows| {
            let read = |row: &Row| {
                let hash = row.get::<&[u8]>(1)?.try_into().map_or(Digest::ZERO, Digest);
                Ok(Snapshot { version: Version(row.unsigned(0)?), hash, state: row.get(2)? })
            };
            rows.first().map(read).transpose()
        });
        snapshot.unwrap_or_else(|error| {
            tracing::warn!(%stream, %error, "a snapshot could not be read");
            None
        })
    }

    async fn save(&self, stream: &StreamId, decider: &str, state_schema: u16, snapshot: Snapshot) {
        const STORE: Statement = Statement::common(include_str!("sql/store_snapshot.sql"));
        let values = [
            stream.to_string().into(),
            decider.into(),
            i64::from(state_schema).into(),
            snapshot.version.0.into(),
            Value::Bytes(snapshot.hash.0.to_vec()),
            snapshot.state.into(),
        ];
        if let Err(error) = self.shared.reader.fetch(STORE, values).await {
            tracing::warn!(%stream, %error, "a snapshot was not saved");
        }
    }
}
