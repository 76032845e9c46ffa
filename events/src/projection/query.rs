//! Queries over the views. Each is about one tenant, or some of its crews; lists come in pages.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::json;

use super::database::{Query, Row, Statement, twins};
use super::projector::{LOAD_STATUSES, statuses};
use super::rows::Lifespan;
use super::{
    AgentFilter, AgentView, AttemptView, AuditEntry, AuditFilter, CrewFilter, CrewView, Delivery,
    MessageFilter, MessageView, PoolView, ProfileView, Status, TaskFilter, TaskView, ViewError, Views,
};
use crate::domain::message::{MessageId, Sent};
use crate::domain::spending::{Spent, Usage};
use crate::id::{AgentId, CrewId, Incarnation, PoolId, Position, TaskId, Tenant, Timestamp};

pub use unfinished::Unfinished;

mod unfinished;

/// Most items that one page has.
pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// Which end a list begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    #[default]
    Oldest,
    /// The newest first.
    Newest,
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Most items, at most [`PAGE_ITEMS_MAX`].
    pub items_max: u32,
    /// Where the page before ended; from the beginning if absent.
    pub cursor: Option<Position>,
    /// Which end the list begins with.
    pub direction: Direction,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { items_max: 100, cursor: None, direction: Direction::Oldest }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last.
    pub next: Option<Position>,
}

/// What a query is about: a tenant, or some of its crews alone.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// Those of its crews to which the query is confined, if it is.
    pub crews: Option<&'a BTreeSet<CrewId>>,
}

impl<'a> From<&'a Tenant> for Within<'a> {
    fn from(tenant: &'a Tenant) -> Self {
        Self { tenant, crews: None }
    }
}

impl Within<'_> {
    /// What is asked of rows whose crew is in this column.
    fn select(&self, sql: &'static str, crew: &'static str, conditions: Vec<Condition>) -> Query {
        let mut query = select(sql, self.tenant, conditions);
        if let Some(crews) = self.crews {
            // No crew has an empty id; a list of none at all would be no SQL.
            query.push(" AND ").push(crew).push(" IN (''");
            for crew in crews {
                query.push(", ").push_value(crew.to_string());
            }
            query.push(")");
        }
        query
    }
}

/// A condition on a column; `narrow` where an index begins with that column, which then serves better than the
/// tenant's.
struct Condition {
    column: &'static str,
    value: Option<String>,
    narrow: bool,
}

fn narrow(column: &'static str, value: Option<impl ToString>) -> Condition {
    Condition { column, value: value.map(|value| value.to_string()), narrow: true }
}

fn wide(column: &'static str, value: Option<impl ToString>) -> Condition {
    Condition { column, value: value.map(|value| value.to_string()), narrow: false }
}

fn select(sql: &'static str, tenant: &Tenant, conditions: Vec<Condition>) -> Query {
    let given = || conditions.iter().filter(|condition| condition.value.is_some());
    // SQLite uses no index for an expression; Postgres knows by itself which index is the narrowest.
    let unindexed = if given().any(|condition| condition.narrow) { "tenant || '' = " } else { "tenant = " };
    let mut query = Query::new(sql);
    query.push(" WHERE ").push(unindexed).push_value(tenant.to_string());
    for Condition { column, value, .. } in conditions {
        if let Some(value) = value {
            query.push(" AND ").push(column).push(" = ").push_value(value);
        }
    }
    query
}

impl Views {
    /// The tenant's crews.
    pub async fn crews(
        &self,
        within: impl Into<Within<'_>>,
        filter: CrewFilter,
        page: PageRequest,
    ) -> Result<Page<CrewView>, ViewError> {
        let conditions = vec![wide("name", filter.name), wide("status", filter.status)];
        self.page(within.into().select(CREWS, "id", conditions), "created", page, crew).await
    }

    /// How many crews there ever were, and how many are not disbanded.
    pub async fn crew_counts(&self, within: impl Into<Within<'_>>) -> Result<(u64, u64), ViewError> {
        const COUNTS: &str =
            "SELECT count(*), coalesce(sum(CASE WHEN status = 'disbanded' THEN 0 ELSE 1 END), 0) FROM crews";
        let query = within.into().select(COUNTS, "id", Vec::new());
        let counts = self.one(query, |row| Ok((row.unsigned(0)?, row.unsigned(1)?))).await?;
        Ok(counts.unwrap_or_default())
    }

    /// The same of every tenant that ever had a crew.
    pub async fn tenants(&self) -> Result<BTreeMap<Tenant, (u64, u64)>, ViewError> {
        const TENANTS: Statement = Statement::common(
            "SELECT tenant, count(*), coalesce(sum(CASE WHEN status = 'disbanded' THEN 0 ELSE 1 END), 0)
             FROM crews GROUP BY tenant",
        );
        let rows = self.shared.reader.fetch(TENANTS, []).await;
        let read = |row: &Row| Ok((text(row, 0)?, (row.unsigned(1)?, row.unsigned(2)?)));
        rows.and_then(|rows| rows.iter().map(read).collect()).map_err(|error| self.failed(&error))
    }

    /// One crew.
    pub async fn crew(
        &self,
        within: impl Into<Within<'_>>,
        id: &CrewId,
    ) -> Result<Option<CrewView>, ViewError> {
        self.one(within.into().select(CREWS, "id", vec![narrow("id", Some(id))]), crew).await
    }

    /// The tenant's agents.
    pub async fn agents(
        &self,
        within: impl Into<Within<'_>>,
        filter: AgentFilter,
        page: PageRequest,
    ) -> Result<Page<AgentView>, ViewError> {
        let conditions =
            vec![narrow("crew", filter.crew), wide("member", filter.member), wide("status", filter.status)];
        self.page(within.into().select(AGENTS, "crew", conditions), "created", page, agent).await
    }

    /// One agent.
    pub async fn agent(
        &self,
        within: impl Into<Within<'_>>,
        id: &AgentId,
    ) -> Result<Option<AgentView>, ViewError> {
        self.one(within.into().select(AGENTS, "crew", vec![narrow("id", Some(id))]), agent).await
    }

    /// The tasks that the tenant's agent has in hand, the oldest first.
    pub async fn in_hand(&self, tenant: &Tenant, agent: &AgentId) -> Result<Vec<TaskView>, ViewError> {
        const IN_HAND: Statement = Statement::common(
            "SELECT tasks.created, tasks.created_at, tasks.updated, tasks.updated_at, tasks.id, tasks.state
             FROM attempts JOIN tasks ON tasks.id = attempts.task
             WHERE attempts.agent = $1 AND attempts.outcome IS NULL AND tasks.tenant = $2
             ORDER BY tasks.created",
        );
        let values = [agent.to_string().into(), tenant.to_string().into()];
        let rows = self.shared.reader.fetch(IN_HAND, values).await;
        let tasks = rows.and_then(|rows| rows.iter().map(task).collect());
        tasks.map_err(|error| self.failed(&error))
    }

    /// The tenant's tasks.
    pub async fn tasks(
        &self,
        within: impl Into<Within<'_>>,
        filter: TaskFilter,
        page: PageRequest,
    ) -> Result<Page<TaskView>, ViewError> {
        let conditions = vec![
            narrow("crew", filter.crew),
            narrow("parent", filter.parent),
            wide("member", filter.member),
            wide("context", filter.context),
            wide("status", filter.status),
        ];
        let mut page =
            self.page(within.into().select(TASKS, "crew", conditions), "created", page, task).await?;
        for task in &mut page.items {
            self.open_task(task).await?;
        }
        Ok(page)
    }

    /// One task.
    pub async fn task(
        &self,
        within: impl Into<Within<'_>>,
        id: &TaskId,
    ) -> Result<Option<TaskView>, ViewError> {
        let mut found =
            self.one(within.into().select(TASKS, "crew", vec![narrow("id", Some(id))]), task).await?;
        if let Some(task) = &mut found {
            self.open_task(task).await?;
        }
        Ok(found)
    }

    /// The tenant's pools.
    pub async fn pools(&self, tenant: &Tenant, page: PageRequest) -> Result<Page<PoolView>, ViewError> {
        self.page(select(POOLS, tenant, Vec::new()), "created", page, pool).await
    }

    /// One pool.
    pub async fn pool(&self, tenant: &Tenant, name: &str) -> Result<Option<PoolView>, ViewError> {
        let id = PoolId::of(tenant, name);
        self.one(select(POOLS, tenant, vec![narrow("id", Some(id))]), pool).await
    }

    /// Every attempt at a task, in order.
    pub async fn attempts(
        &self,
        within: impl Into<Within<'_>>,
        task: &TaskId,
    ) -> Result<Vec<AttemptView>, ViewError> {
        if self.task(within, task).await?.is_none() {
            return Ok(Vec::new());
        }
        const ATTEMPTS: Statement = Statement::common(
            "SELECT number, fence, agent, incarnation, started_at, ended_at, outcome, detail
             FROM attempts WHERE task = $1 ORDER BY fence",
        );
        let rows = self.shared.reader.fetch(ATTEMPTS, [task.to_string().into()]).await;
        let attempts = rows.and_then(|rows| rows.iter().map(attempt).collect());
        let mut attempts: Vec<AttemptView> = attempts.map_err(|error| self.failed(&error))?;
        for attempt in &mut attempts {
            self.open_attempt(task, attempt).await?;
        }
        Ok(attempts)
    }

    /// How many of the tenant's tasks, or of one crew's, stand where.
    pub async fn task_counts(
        &self,
        tenant: &Tenant,
        crew: Option<&CrewId>,
    ) -> Result<BTreeMap<String, u64>, ViewError> {
        let sql = "SELECT status, count(*) FROM tasks";
        let mut query = select(sql, tenant, vec![narrow("crew", crew)]);
        query.push(" GROUP BY status");
        let rows = self.shared.reader.query(query).await;
        let counts =
            rows.and_then(|rows| rows.iter().map(|row| Ok((row.get(0)?, row.unsigned(1)?))).collect());
        counts.map_err(|error| self.failed(&error))
    }

    /// The tenant's messages.
    pub async fn messages(
        &self,
        within: impl Into<Within<'_>>,
        filter: MessageFilter,
        page: PageRequest,
    ) -> Result<Page<MessageView>, ViewError> {
        let conditions = vec![
            narrow("id", filter.message.as_ref().map(MessageId::as_str)),
            narrow("crew", filter.crew),
            wide("sender", filter.sender),
        ];
        let query =
            within.into().select("SELECT created, created_at, payload FROM messages", "crew", conditions);
        let mut page = self.page(query, "created", page, message).await?;
        self.add_deliveries(&mut page.items).await.map_err(|error| self.failed(&error))?;
        for message in &mut page.items {
            self.open_message(&mut message.sent).await?;
        }
        Ok(page)
    }

    async fn add_deliveries(&self, messages: &mut [MessageView]) -> Result<(), sqlx::Error> {
        let ids: Vec<&str> = messages.iter().map(|message| message.sent.message.as_str()).collect();
        let mut deliveries: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
        for row in self.shared.reader.fetch(twins!("load_deliveries.sql"), [json!(ids).into()]).await? {
            deliveries.entry(row.get(0)?).or_default().push(Delivery {
                recipient: row.get(1)?,
                status: row.get(2)?,
                detail: row.get(3)?,
                at: Timestamp(row.get(4)?),
            });
        }
        for message in messages {
            message.deliveries = deliveries.remove(message.sent.message.as_str()).unwrap_or_default();
        }
        Ok(())
    }

    /// The newest versions of the tenant's profiles.
    pub async fn profiles(&self, tenant: &Tenant, page: PageRequest) -> Result<Page<ProfileView>, ViewError> {
        let mut query = select(PROFILES, tenant, Vec::new());
        query.push(
            " AND version = (SELECT max(version) FROM profiles AS versions
               WHERE versions.tenant = profiles.tenant AND versions.name = profiles.name)",
        );
        self.page(query, "created", page, profile).await
    }

    /// A version of a profile; the newest if `version` is absent.
    pub async fn profile(
        &self,
        tenant: &Tenant,
        name: &str,
        version: Option<u32>,
    ) -> Result<Option<ProfileView>, ViewError> {
        let mut query = select(PROFILES, tenant, vec![wide("name", Some(name))]);
        if let Some(version) = version {
            query.push(" AND version = ").push_value(i64::from(version));
        }
        query.push(" ORDER BY version DESC LIMIT 1");
        self.one(query, profile).await
    }

    /// The tenant's audit.
    pub async fn audit(
        &self,
        within: impl Into<Within<'_>>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ViewError> {
        let conditions = vec![
            narrow("entity", filter.entity),
            narrow("crew", filter.crew),
            wide("kind", filter.kind),
            wide("principal", filter.principal),
            wide("correlation", filter.correlation),
            wide("outcome", filter.outcome.map(super::Outcome::as_str)),
        ];
        self.page(within.into().select(AUDIT, "crew", conditions), "position", page, audit).await
    }

    /// Where each projection stands.
    pub async fn status(&self) -> Result<Vec<Status>, ViewError> {
        let rows = self.shared.reader.fetch(LOAD_STATUSES, []).await;
        rows.and_then(|rows| statuses(&rows)).map_err(|error| self.failed(&error))
    }

    async fn one<T>(
        &self,
        query: Query,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Option<T>, ViewError> {
        let rows = self.shared.reader.query(query).await;
        let read = rows.and_then(|rows| rows.first().map(read).transpose());
        read.map_err(|error| self.failed(&error))
    }

    /// One page of `query`; its first column is `key`, by which it is ordered.
    async fn page<T>(
        &self,
        mut query: Query,
        key: &'static str,
        page: PageRequest,
        read: impl Fn(&Row) -> Result<T, sqlx::Error>,
    ) -> Result<Page<T>, ViewError> {
        let (beyond, order) = match page.direction {
            Direction::Oldest => (" > ", " ASC"),
            Direction::Newest => (" < ", " DESC"),
        };
        if let Some(cursor) = page.cursor {
            query.push(" AND ").push(key).push(beyond).push_value(cursor.0);
        }
        let items_max = page.items_max.clamp(1, PAGE_ITEMS_MAX);
        query.push(" ORDER BY ").push(key).push(order);
        query.push(" LIMIT ").push_value(i64::from(items_max) + 1);
        let rows = self.shared.reader.query(query).await;
        let read_page = |rows: Vec<Row>| {
            let kept = rows.len().min(items_max as usize);
            let more = rows.len() > kept;
            let items = rows[..kept].iter().map(read).collect::<Result<_, _>>()?;
            let next = rows[..kept].last().filter(|_| more).map(|row| position(row, 0)).transpose()?;
            Ok(Page { items, next })
        };
        rows.and_then(read_page).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &sqlx::Error) -> ViewError {
        self.unavailable(&error.to_string())
    }
}

const CREWS: &str = "SELECT created, created_at, updated, updated_at, id, state,
    (SELECT count(*) FROM agents WHERE agents.crew = crews.id AND agents.status = 'ready'),
    (SELECT count(*) FROM tasks WHERE tasks.crew = crews.id
        AND tasks.status IN ('submitted', 'working', 'input_required')),
    coalesce(messages, 0), coalesce(input_tokens, 0), coalesce(output_tokens, 0), coalesce(cost_micros, 0)
    FROM crews LEFT JOIN spending ON spending.crew = crews.id";
const AGENTS: &str = "SELECT created, created_at, updated, updated_at, id, state,
    (SELECT count(*) FROM attempts WHERE attempts.agent = agents.id AND attempts.outcome IS NULL),
    (SELECT count(*) FROM attempts JOIN tasks ON tasks.id = attempts.task
        WHERE attempts.agent = agents.id AND attempts.outcome IS NULL AND tasks.status = 'input_required')
    FROM agents";
const TASKS: &str = "SELECT created, created_at, updated, updated_at, id, state FROM tasks";
const POOLS: &str = "SELECT created, created_at, updated, updated_at, id, state FROM pools";
const PROFILES: &str = "SELECT created, created_at, payload FROM profiles";
const AUDIT: &str =
    "SELECT position, recorded_at, tenant, principal, kind, entity, crew, correlation, causation,
    outcome, summary FROM audit";

fn count(row: &Row, column: usize) -> Result<u32, sqlx::Error> {
    row.unsigned(column).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

fn position(row: &Row, column: usize) -> Result<Position, sqlx::Error> {
    row.unsigned(column).map(Position)
}

fn text<T: TryFrom<String, Error = crate::id::InvalidId>>(
    row: &Row,
    column: usize,
) -> Result<T, sqlx::Error> {
    T::try_from(row.get::<String>(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn json_of<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn lifespan(row: &Row) -> Result<Lifespan, sqlx::Error> {
    Ok(Lifespan {
        created: position(row, 0)?,
        created_at: Timestamp(row.get(1)?),
        updated: position(row, 2)?,
        updated_at: Timestamp(row.get(3)?),
    })
}

fn crew(row: &Row) -> Result<CrewView, sqlx::Error> {
    let (agents_ready, tasks_open) = (count(row, 6)?, count(row, 7)?);
    Ok(CrewView {
        id: text(row, 4)?,
        lifespan: lifespan(row)?,
        state: json_of(row, 5)?,
        agents_ready,
        tasks_open,
        spent: spent(row, 8)?,
    })
}

/// What was used up: four columns from this one on.
fn spent(row: &Row, first: usize) -> Result<Spent, sqlx::Error> {
    let usage = Usage {
        input_tokens: row.unsigned(first + 1)?,
        output_tokens: row.unsigned(first + 2)?,
        cost_micros: row.unsigned(first + 3)?,
    };
    Ok(Spent { messages: row.unsigned(first)?, usage })
}

fn agent(row: &Row) -> Result<AgentView, sqlx::Error> {
    let (attempts_live, attempts_waiting) = (count(row, 6)?, count(row, 7)?);
    let (id, lifespan, state) = (text(row, 4)?, lifespan(row)?, json_of(row, 5)?);
    Ok(AgentView { id, lifespan, state, attempts_live, attempts_waiting })
}

fn task(row: &Row) -> Result<TaskView, sqlx::Error> {
    Ok(TaskView { id: text(row, 4)?, lifespan: lifespan(row)?, state: json_of(row, 5)? })
}

fn pool(row: &Row) -> Result<PoolView, sqlx::Error> {
    Ok(PoolView { id: text(row, 4)?, lifespan: lifespan(row)?, state: json_of(row, 5)? })
}

fn attempt(row: &Row) -> Result<AttemptView, sqlx::Error> {
    Ok(AttemptView {
        number: count(row, 0)?,
        fence: row.unsigned(1)?,
        agent: text(row, 2)?,
        incarnation: Incarnation(row.unsigned(3)?),
        started_at: Timestamp(row.get(4)?),
        ended_at: row.get::<Option<i64>>(5)?.map(Timestamp),
        outcome: row.get(6)?,
        detail: row.get(7)?,
    })
}

fn message(row: &Row) -> Result<MessageView, sqlx::Error> {
    let sent: Sent = json_of(row, 2)?;
    let sent_at = Timestamp(row.get(1)?);
    Ok(MessageView { position: position(row, 0)?, sent_at, sent, deliveries: Vec::new() })
}

fn profile(row: &Row) -> Result<ProfileView, sqlx::Error> {
    let applied_at = Timestamp(row.get(1)?);
    Ok(ProfileView { position: position(row, 0)?, applied_at, applied: json_of(row, 2)? })
}

fn audit(row: &Row) -> Result<AuditEntry, sqlx::Error> {
    Ok(AuditEntry {
        position: position(row, 0)?,
        recorded_at: Timestamp(row.get(1)?),
        tenant: text(row, 2)?,
        principal: text(row, 3)?,
        kind: row.get(4)?,
        entity: row.get(5)?,
        crew: row.get(6)?,
        correlation: row.get(7)?,
        causation: row.get(8)?,
        outcome: row.get(9)?,
        summary: row.get(10)?,
    })
}
