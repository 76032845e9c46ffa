//! The registry: profiles, pools, crews, agents and tasks as the events up to a position left them.

use std::collections::{BTreeMap, HashMap};

use crate::domain::agent::{self, Agent};
use crate::domain::crew::{self, Crew};
use crate::domain::pool::{self, Pool};
use crate::domain::profile::Event as ProfileEvent;
use crate::domain::spending::{self, Spent};
use crate::domain::task::{self, Task};
use crate::domain::{Decider, DecodeError, DomainEvent as _};
use crate::event::Recorded;
use crate::id::{AgentId, CrewId, EntityKind, PoolId, Position, TaskId, Timestamp};
use crate::projection::{AgentView, CrewView, Lifespan, PoolView, ProfileView, TaskView};

/// An entity while it is folded.
#[derive(Clone, Debug)]
struct Folded<S> {
    lifespan: Lifespan,
    state: S,
}

type Entities<D> = BTreeMap<String, Folded<<D as Decider>::State>>;

/// The registry as it was after some event.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    position: Position,
    at: Timestamp,
    skipped: u64,
    profiles: BTreeMap<String, ProfileView>,
    crews: Entities<Crew>,
    agents: Entities<Agent>,
    tasks: Entities<Task>,
    spent: HashMap<CrewId, Spent>,
    pools: Entities<Pool>,
}

/// Tasks that an agent has in hand: all, and those of them that wait for an answer.
#[derive(Clone, Copy, Default)]
struct InHand {
    live: u32,
    waiting: u32,
}

impl Registry {
    /// The position of the last event.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The time of the last event.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Events of what is shown that this version could not read: what they did is not in the registry.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Goes on by one event.
    ///
    /// # Errors
    /// When its kind or its schema is not known, or its payload does not have their form. The event is passed over.
    pub fn apply(&mut self, event: &Recorded) -> Result<(), DecodeError> {
        (self.position, self.at) = (event.position, event.recorded_at);
        self.fold(event).inspect_err(|_| self.skipped += 1)
    }

    fn fold(&mut self, event: &Recorded) -> Result<(), DecodeError> {
        match spending::of(event) {
            Ok(Some((crew, more))) => {
                let sum = self.spent.entry(crew).or_default();
                *sum = sum.and(more);
            }
            // Whether it matters is known below, where the entities that are shown are told apart.
            Ok(None) | Err(DecodeError::UnknownKind { .. }) => {}
            Err(error) => return Err(error),
        }
        match event.stream.kind {
            EntityKind::Crew => fold::<Crew>(&mut self.crews, event),
            EntityKind::Agent => fold::<Agent>(&mut self.agents, event),
            EntityKind::Task => fold::<Task>(&mut self.tasks, event),
            EntityKind::Pool => fold::<Pool>(&mut self.pools, event),
            EntityKind::Profile => self.profile(event),
            _ => Ok(()),
        }
    }

    fn profile(&mut self, event: &Recorded) -> Result<(), DecodeError> {
        let ProfileEvent::Applied(applied) = ProfileEvent::decode(&event.kind, event.schema, &event.payload)?;
        let view = ProfileView { position: event.position, applied_at: event.recorded_at, applied };
        self.profiles.insert(event.stream.id.as_ref().to_owned(), view);
        Ok(())
    }

    /// The newest version of every profile.
    pub fn profiles(&self) -> impl Iterator<Item = ProfileView> {
        self.profiles.values().cloned()
    }

    /// The pools, the oldest first.
    pub fn pools(&self) -> Vec<PoolView> {
        in_order(&self.pools, |id: PoolId, Folded { lifespan, state }: Folded<pool::State>| PoolView {
            id,
            lifespan,
            state,
        })
    }

    /// The crews, the oldest first.
    pub fn crews(&self) -> Vec<CrewView> {
        let (mut ready, mut open) = (HashMap::<&CrewId, u32>::new(), HashMap::<&CrewId, u32>::new());
        for agent in self.agents.values().filter(|agent| agent.state.status == agent::Status::Ready) {
            agent
                .state
                .requested
                .iter()
                .for_each(|requested| *ready.entry(&requested.crew).or_default() += 1);
        }
        for task in self.tasks.values().filter(|task| !task.state.status.is_terminal()) {
            task.state.submitted.iter().for_each(|task| *open.entry(&task.crew).or_default() += 1);
        }
        in_order(&self.crews, |id: CrewId, Folded { lifespan, state }: Folded<crew::State>| CrewView {
            agents_ready: ready.get(&id).copied().unwrap_or_default(),
            tasks_open: open.get(&id).copied().unwrap_or_default(),
            spent: self.spent.get(&id).copied().unwrap_or_default(),
            id,
            lifespan,
            state,
        })
    }

    /// The agents, the oldest first.
    pub fn agents(&self) -> Vec<AgentView> {
        let mut in_hand = HashMap::<&AgentId, InHand>::new();
        for task in self.tasks.values() {
            if let Some(attempt) = &task.state.attempt {
                let agent = in_hand.entry(&attempt.placement.agent).or_default();
                agent.live += 1;
                agent.waiting += u32::from(task.state.status == task::Status::InputRequired);
            }
        }
        in_order(&self.agents, |id: AgentId, Folded { lifespan, state }: Folded<agent::State>| {
            let InHand { live, waiting } = in_hand.get(&id).copied().unwrap_or_default();
            AgentView { id, lifespan, state, attempts_live: live, attempts_waiting: waiting }
        })
    }

    /// The tasks, the oldest first.
    pub fn tasks(&self) -> Vec<TaskView> {
        in_order(&self.tasks, |id: TaskId, Folded { lifespan, state }: Folded<task::State>| TaskView {
            id,
            lifespan,
            state,
        })
    }
}

fn fold<D: Decider>(entities: &mut Entities<D>, event: &Recorded) -> Result<(), DecodeError> {
    let decoded = D::Event::decode(&event.kind, event.schema, &event.payload)?;
    let lifespan = Lifespan {
        created: event.position,
        created_at: event.recorded_at,
        updated: event.position,
        updated_at: event.recorded_at,
    };
    let entity = entities
        .entry(event.stream.id.as_ref().to_owned())
        .or_insert_with(|| Folded { lifespan, state: D::State::default() });
    entity.state = D::evolve(std::mem::take(&mut entity.state), &decoded);
    (entity.lifespan.updated, entity.lifespan.updated_at) = (event.position, event.recorded_at);
    Ok(())
}

/// The entities in the order in which they came to be. A stream whose id is not legal is no entity.
fn in_order<S: Clone, I: std::str::FromStr, V>(
    entities: &BTreeMap<String, Folded<S>>,
    view: impl Fn(I, Folded<S>) -> V,
) -> Vec<V> {
    let mut entities: Vec<_> = entities.iter().collect();
    entities.sort_by_key(|(_, entity)| entity.lifespan.created);
    let viewed = entities.into_iter().filter_map(|(id, entity)| Some(view(id.parse().ok()?, entity.clone())));
    viewed.collect()
}
