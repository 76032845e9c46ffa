//! What has to be taken up after a start or a takeover.

use std::sync::Arc;

use crate::domain::message::Pending;
use crate::domain::spending::Spent;
use crate::id::{CrewId, PoolId, Position, TaskId};
use crate::projection::database::{Row, Statement};
use crate::projection::{ViewError, Views, messages};

/// What had not ended at the views' position.
#[derive(Clone, Debug, Default)]
pub struct Unfinished {
    /// Crews that are not disbanded, oldest first.
    pub crews: Vec<CrewId>,
    /// Tasks that have not ended, each with its crew.
    pub tasks: Vec<(CrewId, TaskId)>,
    /// Pools, oldest first: they never end.
    pub pools: Vec<PoolId>,
    /// Messages of those crews that somebody has yet to get, oldest first.
    pub messages: Vec<Pending>,
    /// What those crews have used up.
    pub spent: Vec<(CrewId, Spent)>,
}

impl Unfinished {
    /// What of it belongs to crews and pools whose ids are `wanted`.
    #[must_use]
    pub fn of(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.crews.retain(|crew| wanted(crew.as_str()));
        self.tasks.retain(|(crew, _)| wanted(crew.as_str()));
        self.pools.retain(|pool| wanted(pool.as_str()));
        self.messages.retain(|message| wanted(message.sent.crew.as_str()));
        self.spent.retain(|(crew, _)| wanted(crew.as_str()));
        self
    }
}

impl Views {
    /// Every tenant's pools, and crews and tasks that have not ended: what a start of the platform has to recover.
    pub async fn unfinished(&self) -> Result<Unfinished, ViewError> {
        const CREWS: Statement =
            Statement::common("SELECT id FROM crews WHERE status <> 'disbanded' ORDER BY created");
        const TASKS: Statement = Statement::common(
            "SELECT crew, id FROM tasks WHERE status IN ('submitted', 'working', 'input_required')",
        );
        const SPENT: Statement = Statement::common(
            "SELECT id, messages, input_tokens, output_tokens, cost_micros
             FROM spending JOIN crews ON id = crew WHERE status <> 'disbanded'",
        );
        const POOLS: Statement = Statement::common("SELECT id FROM pools ORDER BY created");
        let reader = &self.shared.reader;
        let crews = reader.fetch(CREWS, []).await.map_err(|error| self.failed(&error))?;
        let tasks = reader.fetch(TASKS, []).await.map_err(|error| self.failed(&error))?;
        let spent = reader.fetch(SPENT, []).await.map_err(|error| self.failed(&error))?;
        let mut messages = self.undelivered().await.map_err(|error| self.failed(&error))?;
        for pending in &mut messages {
            self.open_pending(pending).await?;
        }
        let pools = reader.fetch(POOLS, []).await.map_err(|error| self.failed(&error))?;
        Ok(Unfinished {
            crews: crews.iter().filter_map(|row| parsed(row, 0)).collect(),
            tasks: tasks.iter().filter_map(|row| Some((parsed(row, 0)?, parsed(row, 1)?))).collect(),
            pools: pools.iter().filter_map(|row| parsed(row, 0)).collect(),
            messages,
            spent: spent
                .iter()
                .filter_map(|row| Some((parsed(row, 0)?, super::spent(row, 1).ok()?)))
                .collect(),
        })
    }

    async fn undelivered(&self) -> Result<Vec<Pending>, sqlx::Error> {
        const UNDELIVERED: Statement = Statement::common(
            "SELECT messages.created, messages.payload, deliveries.recipient
             FROM deliveries
             JOIN messages ON messages.id = deliveries.message
             JOIN crews ON crews.id = messages.crew
             WHERE deliveries.status = 'pending' AND crews.status NOT IN ('disbanded', 'failed')
             ORDER BY messages.created, deliveries.recipient",
        );
        let rows = self.shared.reader.fetch(UNDELIVERED, []).await?;
        let pending = |row: &Row| {
            let payload: String = row.get(1)?;
            let sent = serde_json::from_str(&payload).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok(Pending {
                sent: Arc::new(sent),
                position: Position(row.unsigned(0)?),
                recipient: messages::recipient(&row.get::<String>(2)?)?,
            })
        };
        rows.iter().map(pending).collect()
    }
}

/// An id as the projector wrote it; it wrote no others.
fn parsed<T: std::str::FromStr>(row: &Row, column: usize) -> Option<T> {
    row.get::<String>(column).ok()?.parse().ok()
}
