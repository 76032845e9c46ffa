//! Who of a crew is ready, what each has in hand, and which tasks wait: routing, in memory.
//!
//! All of it is derived: from agents' and tasks' events as they become durable, and from their states after a
//! restart of the platform.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::domain::task::Placement;
use events::{AgentId, CrewId, Incarnation, SandboxId, TaskId, Tenant};
use tokio::time::Instant;

mod sleep;

pub(crate) use sleep::{Hibernation, Idle};

/// Contexts that an agent is remembered to have served.
const CONTEXTS_PER_AGENT_MAX: usize = 256;

/// What a task asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) task: TaskId,
    pub(crate) member: String,
    pub(crate) replica: Option<u32>,
    pub(crate) context: String,
}

/// The contexts that an agent served last.
#[derive(Debug, Default)]
struct Served {
    known: HashSet<Arc<str>>,
    /// The same, the latest at the end.
    order: VecDeque<Arc<str>>,
}

impl Served {
    fn has(&self, context: &str) -> bool {
        self.known.contains(context)
    }

    fn note(&mut self, context: &str) {
        let context: Arc<str> = context.into();
        if !self.known.insert(Arc::clone(&context)) {
            self.order.retain(|other| *other != context);
        } else if self.order.len() >= CONTEXTS_PER_AGENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(context);
    }
}

/// One agent's seat.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) member: String,
    pub(crate) replica: u32,
    pub(crate) incarnation: Incarnation,
    pub(crate) sandbox: Option<SandboxId>,
    pub(crate) ready: bool,
    pub(crate) capacity: u32,
    pub(crate) held: BTreeSet<TaskId>,
    /// Attempts that are over in the log and that its handler is still at, by their fences: no room until it lets go.
    lingering: BTreeSet<(TaskId, u64)>,
    /// Parked without a sandbox until it is needed.
    asleep: bool,
    /// Set aside or on its way out: as it is, it will not be ready again.
    gone: bool,
    /// Since when it has had nothing in hand.
    idle_since: Instant,
    served: Served,
}

impl Place {
    fn has_room(&self) -> bool {
        self.held.len() + self.lingering.len() < self.capacity as usize
    }

    /// The task in hand, where there is one and no other.
    pub(crate) fn only_task(&self) -> Option<TaskId> {
        let mut held = self.held.iter();
        held.next().filter(|_| held.next().is_none()).cloned()
    }
}

#[derive(Debug)]
struct Roster {
    tenant: Tenant,
    name: String,
    /// Whether tasks are given out.
    open: bool,
    places: BTreeMap<AgentId, Place>,
    queues: BTreeMap<String, VecDeque<Wish>>,
    /// By member.
    hibernation: BTreeMap<String, Hibernation>,
}

/// What becomes of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// This agent has it from now on.
    Placed(Placement),
    /// It has to wait.
    Wait,
}

/// An agent that is there or on its way, and what it has in hand.
#[derive(Clone, Debug)]
pub(crate) struct Seating {
    pub(crate) member: String,
    pub(crate) replica: u32,
    /// Whether it has room for another task, or may have when it is ready.
    pub(crate) is_free: bool,
    pub(crate) held: BTreeSet<TaskId>,
}

impl Seating {
    /// Whether the task may be given to it.
    pub(crate) fn fits(&self, wish: &Wish) -> bool {
        self.member == wish.member && wish.replica.is_none_or(|replica| self.replica == replica)
    }
}

/// The rosters of all crews of this node.
#[derive(Default)]
pub(crate) struct Rosters(Mutex<HashMap<CrewId, Roster>>);

impl Roster {
    /// The ready agent with the fewest tasks in hand, the one that served the context before others, the lowest
    /// ordinal on ties.
    fn choose(&self, wish: &Wish) -> Option<AgentId> {
        if !self.open {
            return None;
        }
        let fits = |place: &&Place| {
            place.member == wish.member
                && wish.replica.is_none_or(|replica| place.replica == replica)
                && place.ready
                && place.has_room()
        };
        let rank = |place: &Place| (!place.served.has(&wish.context), place.held.len(), place.replica);
        self.places
            .iter()
            .filter(|(_, place)| fits(place))
            .min_by_key(|(_, place)| rank(place))
            .map(|(agent, _)| agent.clone())
    }

    fn hold(&mut self, agent: &AgentId, wish: &Wish) -> Option<Placement> {
        let place = self.places.get_mut(agent)?;
        place.held.insert(wish.task.clone());
        place.served.note(&wish.context);
        Some(Placement { agent: agent.clone(), incarnation: place.incarnation })
    }
}

impl Rosters {
    fn crews(&self) -> MutexGuard<'_, HashMap<CrewId, Roster>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a crew; keeps what is known if it is there already.
    pub(crate) fn add(&self, crew: &CrewId, tenant: &Tenant, name: &str, open: bool) {
        let mut crews = self.crews();
        let roster = crews.entry(crew.clone()).or_insert_with(|| Roster {
            tenant: tenant.clone(),
            name: name.to_owned(),
            open,
            places: BTreeMap::new(),
            queues: BTreeMap::new(),
            hibernation: BTreeMap::new(),
        });
        roster.open = open;
    }

    /// Forgets a crew.
    pub(crate) fn remove(&self, crew: &CrewId) {
        self.crews().remove(crew);
    }

    /// Forgets crews, and says which they were.
    pub(crate) fn remove_where(&self, gone: impl Fn(&CrewId) -> bool) -> Vec<CrewId> {
        let mut crews = self.crews();
        let gone: Vec<CrewId> = crews.keys().filter(|crew| gone(crew)).cloned().collect();
        gone.iter().for_each(|crew| drop(crews.remove(crew)));
        gone
    }

    /// A crew's tenant and name.
    pub(crate) fn crew(&self, crew: &CrewId) -> Option<(Tenant, String)> {
        self.crews().get(crew).map(|roster| (roster.tenant.clone(), roster.name.clone()))
    }

    /// Notes a seat and the incarnation that is coming up in it.
    pub(crate) fn seat(
        &self,
        crew: &CrewId,
        agent: &AgentId,
        member: &str,
        replica: u32,
        incarnation: Incarnation,
        sandbox: Option<&SandboxId>,
    ) {
        if let Some(roster) = self.crews().get_mut(crew) {
            let place = roster.places.entry(agent.clone()).or_insert_with(|| Place {
                member: member.to_owned(),
                replica,
                incarnation,
                sandbox: None,
                ready: false,
                capacity: 0,
                held: BTreeSet::new(),
                lingering: BTreeSet::new(),
                asleep: false,
                gone: false,
                idle_since: Instant::now(),
                served: Served::default(),
            });
            // Whoever is seated again as it is goes on with what it does.
            if (place.incarnation, place.sandbox.as_ref()) != (incarnation, sandbox) {
                place.incarnation = incarnation;
                place.sandbox = sandbox.cloned();
                (place.ready, place.asleep, place.gone) = (false, false, false);
                place.lingering.clear();
            }
        }
    }

    /// The agent takes work.
    pub(crate) fn ready(&self, crew: &CrewId, agent: &AgentId, capacity: u32) {
        self.change(crew, agent, |place| {
            if !place.ready {
                place.idle_since = Instant::now();
            }
            place.ready = true;
            place.capacity = capacity;
        });
    }

    /// The agent takes no more work.
    pub(crate) fn unready(&self, crew: &CrewId, agent: &AgentId) {
        self.change(crew, agent, |place| place.ready = false);
    }

    /// The agent takes no more work in this incarnation, and none is on its way to take its place.
    pub(crate) fn set_aside(&self, crew: &CrewId, agent: &AgentId) {
        self.change(crew, agent, |place| (place.ready, place.gone) = (false, true));
    }

    /// The agent is gone for good.
    pub(crate) fn leave(&self, crew: &CrewId, agent: &AgentId) {
        if let Some(roster) = self.crews().get_mut(crew) {
            roster.places.remove(agent);
        }
    }

    fn change(&self, crew: &CrewId, agent: &AgentId, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.crews().get_mut(crew).and_then(|roster| roster.places.get_mut(agent)) {
            change(place);
        }
    }

    /// What `look` finds in an agent's place.
    pub(crate) fn place<T>(
        &self,
        crew: &CrewId,
        agent: &AgentId,
        look: impl FnOnce(&Place) -> T,
    ) -> Option<T> {
        self.crews().get(crew)?.places.get(agent).map(look)
    }

    /// Tries to place a task at once. Those that wait longer come first.
    pub(crate) fn reserve(&self, crew: &CrewId, wish: &Wish) -> Routed {
        let mut crews = self.crews();
        let Some(roster) = crews.get_mut(crew) else { return Routed::Wait };
        let waiting = roster.queues.get(&wish.member).is_some_and(|queue| {
            queue.iter().any(|other| other.replica.is_none() || other.replica == wish.replica)
        });
        if waiting {
            return Routed::Wait;
        }
        let placed = roster.choose(wish).and_then(|agent| roster.hold(&agent, wish));
        placed.map_or(Routed::Wait, Routed::Placed)
    }

    /// Whether another task may wait for the member.
    pub(crate) fn has_room(&self, crew: &CrewId, member: &str, most: usize) -> bool {
        let crews = self.crews();
        let waiting = crews.get(crew).and_then(|roster| roster.queues.get(member)).map_or(0, VecDeque::len);
        waiting < most
    }

    /// Has a task wait for its member.
    pub(crate) fn queue(&self, crew: &CrewId, wish: Wish) {
        if let Some(roster) = self.crews().get_mut(crew) {
            let queue = roster.queues.entry(wish.member.clone()).or_default();
            if !queue.iter().any(|other| other.task == wish.task) {
                queue.push_back(wish);
            }
        }
    }

    /// Notes that an agent has a task in hand: after a restart of the platform.
    pub(crate) fn hold(&self, crew: &CrewId, agent: &AgentId, task: &TaskId) {
        self.change(crew, agent, |place| {
            place.held.insert(task.clone());
        });
    }

    /// The agent no longer has the task in hand.
    pub(crate) fn release(&self, crew: &CrewId, agent: &AgentId, task: &TaskId) {
        self.change(crew, agent, |place| {
            if place.held.remove(task) {
                place.idle_since = Instant::now();
            }
        });
    }

    /// The attempt is over, and the agent's handler still at it.
    pub(crate) fn linger(&self, crew: &CrewId, agent: &AgentId, task: &TaskId, fence: u64) {
        self.change(crew, agent, |place| {
            place.lingering.insert((task.clone(), fence));
        });
    }

    /// Whether the agent's handler is still at an attempt that is over.
    pub(crate) fn lingers(&self, crew: &CrewId, agent: &AgentId, task: &TaskId, fence: u64) -> bool {
        self.place(crew, agent, |place| place.lingering.contains(&(task.clone(), fence))).unwrap_or(false)
    }

    /// The agent's handler has let go of an attempt that was over; whether it was known to be at it.
    pub(crate) fn let_go(&self, crew: &CrewId, agent: &AgentId, task: &TaskId, fence: u64) -> bool {
        let mut lingered = false;
        self.change(crew, agent, |place| {
            lingered = place.lingering.remove(&(task.clone(), fence));
            if lingered {
                place.idle_since = Instant::now();
            }
        });
        lingered
    }

    /// The task no longer waits.
    pub(crate) fn unqueue(&self, crew: &CrewId, task: &TaskId) {
        if let Some(roster) = self.crews().get_mut(crew) {
            for queue in roster.queues.values_mut() {
                queue.retain(|wish| wish.task != *task);
            }
        }
    }

    /// Takes the next waiting tasks for which there is a place now.
    pub(crate) fn next(&self, crew: &CrewId) -> Vec<(Wish, Placement)> {
        let mut crews = self.crews();
        let Some(roster) = crews.get_mut(crew) else { return Vec::new() };
        let mut placed = Vec::new();
        let members: Vec<String> = roster.queues.keys().cloned().collect();
        for member in members {
            let mut queue = roster.queues.get_mut(&member).map(std::mem::take).unwrap_or_default();
            let mut left = VecDeque::new();
            while let Some(wish) = queue.pop_front() {
                match roster.choose(&wish).and_then(|agent| roster.hold(&agent, &wish)) {
                    Some(placement) => placed.push((wish, placement)),
                    // No replica is free, so only those that ask for one that was taken by name could differ: none.
                    None if wish.replica.is_none() => {
                        left.push_back(wish);
                        break;
                    }
                    None => left.push_back(wish),
                }
            }
            left.append(&mut queue);
            roster.queues.insert(member, left);
        }
        placed
    }

    /// Who has the task in hand.
    pub(crate) fn holder(&self, crew: &CrewId, task: &TaskId) -> Option<(AgentId, Incarnation)> {
        let crews = self.crews();
        let places = &crews.get(crew)?.places;
        places
            .iter()
            .find(|(_, place)| place.held.contains(task))
            .map(|(agent, place)| (agent.clone(), place.incarnation))
    }

    /// Who sits where with what in hand; `None` while the crew is not known here.
    pub(crate) fn seating(&self, crew: &CrewId) -> Option<Vec<Seating>> {
        let crews = self.crews();
        let seats = crews.get(crew)?.places.values().filter(|place| !place.gone).map(|place| Seating {
            member: place.member.clone(),
            replica: place.replica,
            is_free: !place.ready || place.has_room(),
            held: place.held.clone(),
        });
        Some(seats.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contexts_that_were_served_last_are_remembered() {
        let mut served = Served::default();
        for number in 0..CONTEXTS_PER_AGENT_MAX {
            served.note(&format!("cx_{number}"));
        }
        served.note("cx_0");
        served.note("another");
        assert!(served.has("cx_0") && served.has("another"), "the latest stay");
        assert!(!served.has("cx_1"), "the oldest goes");
        assert_eq!(
            (served.known.len(), served.order.len()),
            (CONTEXTS_PER_AGENT_MAX, CONTEXTS_PER_AGENT_MAX)
        );
    }
}
