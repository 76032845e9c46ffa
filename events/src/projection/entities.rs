//! Entities as their events left them: one row each, folded by the same `evolve` that the entity uses.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Statement, Writer, twins};
use super::{Fault, Projection};
use crate::domain::agent::Agent;
use crate::domain::crew::Crew;
use crate::domain::pool::Pool;
use crate::domain::task::Task;
use crate::domain::{Decider, DomainEvent};
use crate::event::Recorded;

/// An entity that has a table.
pub(super) trait Tabled: Decider {
    const NAME: &'static str;
    const TABLES: &'static [&'static str];
    const LOAD: Statement;
    const STORE: Statement;
    /// The columns between the id and the positions, by which queries search; `None` before its first event.
    fn columns(state: &Self::State) -> Option<Value>;
}

impl Tabled for Crew {
    const NAME: &'static str = "crews";
    const TABLES: &'static [&'static str] = &["crews"];
    const LOAD: Statement = twins!("load_crews.sql");
    const STORE: Statement = twins!("store_crews.sql");
    fn columns(state: &Self::State) -> Option<Value> {
        let started = state.started.as_ref()?;
        Some(json!([started.tenant, started.name, state.status]))
    }
}

impl Tabled for Agent {
    const NAME: &'static str = "agents";
    const TABLES: &'static [&'static str] = &["agents"];
    const LOAD: Statement = twins!("load_agents.sql");
    const STORE: Statement = twins!("store_agents.sql");
    fn columns(state: &Self::State) -> Option<Value> {
        let requested = state.requested.as_ref()?;
        Some(json!([requested.tenant, requested.crew, requested.member, state.status]))
    }
}

impl Tabled for Task {
    const NAME: &'static str = "tasks";
    const TABLES: &'static [&'static str] = &["tasks"];
    const LOAD: Statement = twins!("load_tasks.sql");
    const STORE: Statement = twins!("store_tasks.sql");
    fn columns(state: &Self::State) -> Option<Value> {
        let submitted = state.submitted.as_ref()?;
        let context = &submitted.context;
        Some(json!([
            submitted.tenant,
            submitted.crew,
            submitted.member,
            context,
            submitted.parent,
            state.status
        ]))
    }
}

impl Tabled for Pool {
    const NAME: &'static str = "pools";
    const TABLES: &'static [&'static str] = &["pools"];
    const LOAD: Statement = twins!("load_pools.sql");
    const STORE: Statement = twins!("store_pools.sql");
    fn columns(state: &Self::State) -> Option<Value> {
        let applied = state.applied.as_ref()?;
        Some(json!([applied.tenant, applied.name, state.status]))
    }
}

/// The view of all entities of one kind.
pub(super) struct Entities<D>(PhantomData<fn() -> D>);

impl<D: Tabled> Entities<D> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

/// A row while a batch is applied to it.
struct Folded<S> {
    state: S,
    created: i64,
    created_at: i64,
    updated: i64,
    updated_at: i64,
}

#[async_trait]
impl<D: Tabled> Projection for Entities<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn tables(&self) -> &'static [&'static str] {
        D::TABLES
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        let events: Vec<&Recorded> = events.iter().filter(|event| event.stream.kind == D::KIND).collect();
        if events.is_empty() {
            return Ok(());
        }
        let mut rows = load::<D>(db, &events).await?;
        for event in events {
            match D::Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(decoded) => fold::<D>(&mut rows, event, &decoded),
                Err(error) => return Err(poison(event, &error)),
            }
        }
        store::<D>(db, &rows).await?;
        Ok(())
    }
}

pub(super) fn poison(event: &Recorded, error: &dyn std::error::Error) -> Fault {
    Fault::Poison { position: event.position, reason: error.to_string() }
}

type Rows<D> = BTreeMap<String, Folded<<D as Decider>::State>>;

async fn load<D: Tabled>(db: &mut Writer, events: &[&Recorded]) -> Result<Rows<D>, sqlx::Error> {
    let ids: BTreeSet<&str> = events.iter().map(|event| &*event.stream.id).collect();
    let mut rows = BTreeMap::new();
    for row in db.fetch(D::LOAD, [json!(ids).into()]).await? {
        let state = serde_json::from_str(row.get(5)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let folded = Folded {
            state,
            created: row.get(1)?,
            created_at: row.get(2)?,
            updated: row.get(3)?,
            updated_at: row.get(4)?,
        };
        rows.insert(row.get(0)?, folded);
    }
    Ok(rows)
}

fn fold<D: Tabled>(rows: &mut Rows<D>, event: &Recorded, decoded: &D::Event) {
    let (position, at) = (i64::try_from(event.position.0).unwrap_or(i64::MAX), event.recorded_at.0);
    let row = rows.entry(event.stream.id.as_ref().to_owned()).or_insert_with(|| Folded {
        state: D::State::default(),
        created: position,
        created_at: at,
        updated: position,
        updated_at: at,
    });
    row.state = D::evolve(std::mem::take(&mut row.state), decoded);
    (row.updated, row.updated_at) = (position, at);
}

async fn store<D: Tabled>(db: &mut Writer, rows: &Rows<D>) -> Result<(), sqlx::Error> {
    let row = |(id, row): (&String, &Folded<D::State>)| {
        let Value::Array(columns) = D::columns(&row.state)? else { return None };
        let state = serde_json::to_string(&row.state).ok()?;
        let mut values = vec![json!(id)];
        values.extend(columns);
        values.extend([row.created, row.created_at, row.updated, row.updated_at].map(Value::from));
        values.push(state.into());
        Some(Value::Array(values))
    };
    let rows: Value = rows.iter().filter_map(row).collect();
    db.execute(D::STORE, [rows.into()]).await
}
