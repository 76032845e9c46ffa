//! Who has had nothing to do for long enough to be parked, and who is to be woken.

use std::collections::BTreeMap;
use std::time::Duration;

use events::{AgentId, CrewId, Incarnation};
use tokio::time::Instant;

use super::Rosters;

/// When agents of a member hibernate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hibernation {
    /// After so long with nothing to do.
    pub(crate) after_ms: u64,
    /// And for how long at most.
    pub(crate) wake_every_ms: Option<u64>,
}

/// An agent that has had nothing to do for long enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) crew: CrewId,
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) wake_every_ms: Option<u64>,
}

impl Rosters {
    /// When agents of which member hibernate.
    pub(crate) fn set_hibernation(&self, crew: &CrewId, hibernation: BTreeMap<String, Hibernation>) {
        if let Some(roster) = self.crews().get_mut(crew) {
            roster.hibernation = hibernation;
        }
    }

    /// The agent is parked: it takes no work before its next incarnation.
    pub(crate) fn sleep(&self, crew: &CrewId, agent: &AgentId) {
        self.change(crew, agent, |place| (place.ready, place.asleep) = (false, true));
    }

    /// The agent did something that is no task.
    pub(crate) fn stir(&self, crew: &CrewId, agent: &AgentId) {
        self.change(crew, agent, |place| place.idle_since = Instant::now());
    }

    /// Agents that have had nothing to do for long enough to hibernate. No work is given to them from now on:
    /// whoever asks has them parked, or [ready](Self::ready) again.
    pub(crate) fn take_idle(&self) -> Vec<Idle> {
        let mut crews = self.crews();
        let mut idle = Vec::new();
        for (crew, roster) in crews.iter_mut().filter(|(_, roster)| roster.open) {
            let (queues, hibernation) = (&roster.queues, &roster.hibernation);
            for (agent, place) in &mut roster.places {
                let Some(Hibernation { after_ms, wake_every_ms }) = hibernation.get(&place.member) else {
                    continue;
                };
                let has_work = !place.held.is_empty()
                    || !place.lingering.is_empty()
                    || queues.get(&place.member).is_some_and(|queue| !queue.is_empty());
                let is_due = place.idle_since.elapsed() >= Duration::from_millis(*after_ms);
                if place.ready && !has_work && is_due {
                    place.ready = false;
                    let (incarnation, wake_every_ms) = (place.incarnation, *wake_every_ms);
                    idle.push(Idle { crew: crew.clone(), agent: agent.clone(), incarnation, wake_every_ms });
                }
            }
        }
        idle
    }

    /// Agents to be woken so that waiting tasks have somebody to go to; they count as awake from now on.
    pub(crate) fn take_sleepers(&self, crew: &CrewId) -> Vec<AgentId> {
        let mut crews = self.crews();
        let Some(roster) = crews.get_mut(crew).filter(|roster| roster.open) else { return Vec::new() };
        let mut woken = Vec::new();
        for (member, queue) in &roster.queues {
            let places = || roster.places.values().filter(|place| place.member == *member);
            let coming = places()
                .filter(|place| !place.asleep && !place.ready && !place.gone)
                .map(|place| place.capacity.max(1));
            let anybodys = queue.iter().filter(|wish| wish.replica.is_none()).count();
            let mut missing = anybodys.saturating_sub(coming.sum::<u32>() as usize);
            let mut asleep: Vec<_> = roster
                .places
                .iter()
                .filter(|(_, place)| place.asleep && place.member == *member)
                .map(|(agent, place)| (place.replica, place.capacity.max(1), agent.clone()))
                .collect();
            asleep.sort();
            for (replica, capacity, agent) in asleep {
                let is_named = queue.iter().any(|wish| wish.replica == Some(replica));
                if is_named || missing > 0 {
                    missing = missing.saturating_sub(capacity as usize);
                    woken.push(agent);
                }
            }
        }
        for agent in &woken {
            if let Some(place) = roster.places.get_mut(agent) {
                place.asleep = false;
            }
        }
        woken
    }

    /// The agent is to be woken, if it is parked; it counts as awake from now on.
    pub(crate) fn take_sleeper(&self, crew: &CrewId, agent: &AgentId) -> bool {
        let mut crews = self.crews();
        let place = crews.get_mut(crew).and_then(|roster| roster.places.get_mut(agent));
        place.is_some_and(|place| std::mem::take(&mut place.asleep))
    }

    /// An agent of the member that is to be woken, where all others are parked too; it counts as awake from now on.
    pub(crate) fn take_sleeper_of(&self, crew: &CrewId, member: &str) -> Option<AgentId> {
        let mut crews = self.crews();
        let roster = crews.get_mut(crew)?;
        let mut places: Vec<_> =
            roster.places.iter_mut().filter(|(_, place)| place.member == member && !place.gone).collect();
        if places.iter().any(|(_, place)| !place.asleep) {
            return None;
        }
        places.sort_by_key(|(_, place)| place.replica);
        let (agent, place) = places.into_iter().next()?;
        place.asleep = false;
        Some(agent.clone())
    }
}

#[cfg(test)]
mod tests {
    use events::{SandboxId, TaskId, Tenant};

    use super::super::{Routed, Wish};
    use super::*;

    fn agent(replica: u32) -> AgentId {
        AgentId::derive(&["analyst", &replica.to_string()])
    }

    fn wish(task: &str, replica: Option<u32>) -> Wish {
        let task = TaskId::derive(&[task]);
        Wish { task, member: "analyst".to_owned(), replica, context: String::new() }
    }

    /// Three ready analysts that hibernate after ten seconds.
    fn rosters() -> (Rosters, CrewId) {
        let (rosters, crew) = (Rosters::default(), CrewId::derive(&["c"]));
        rosters.add(&crew, &Tenant::default(), "crew", true);
        let hibernation = Hibernation { after_ms: 10_000, wake_every_ms: None };
        rosters.set_hibernation(&crew, BTreeMap::from([("analyst".to_owned(), hibernation)]));
        for replica in 0..3 {
            let sandbox = SandboxId::derive(&[&replica.to_string()]);
            rosters.seat(&crew, &agent(replica), "analyst", replica, Incarnation(1), Some(&sandbox));
            rosters.ready(&crew, &agent(replica), 1);
        }
        (rosters, crew)
    }

    fn put_to_sleep(rosters: &Rosters) -> usize {
        let idle = rosters.take_idle();
        idle.iter().for_each(|idle| rosters.sleep(&idle.crew, &idle.agent));
        idle.len()
    }

    #[tokio::test(start_paused = true)]
    async fn only_those_are_parked_who_had_nothing_to_do_for_long_enough() {
        let (rosters, crew) = rosters();
        assert_eq!(rosters.take_idle(), []);
        let Routed::Placed(placement) = rosters.reserve(&crew, &wish("t", None)) else {
            panic!("all are free")
        };
        tokio::time::advance(Duration::from_secs(9)).await;
        rosters.stir(&crew, &agent(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        let idle = rosters.take_idle();
        assert_eq!(idle.iter().map(|idle| &idle.agent).collect::<Vec<_>>(), [&agent(1)]);
        assert_eq!(rosters.take_idle(), [], "it is looked at once");
        rosters.release(&crew, &placement.agent, &wish("t", None).task);
        tokio::time::advance(Duration::from_secs(9)).await;
        let idle = rosters.take_idle();
        assert_eq!(idle.iter().map(|idle| &idle.agent).collect::<Vec<_>>(), [&agent(2)]);
        // A crew that is paused is left as it is.
        rosters.add(&crew, &Tenant::default(), "crew", false);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(rosters.take_idle(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_are_woken_as_there_is_work_for() {
        let (rosters, crew) = rosters();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(put_to_sleep(&rosters), 3);
        assert_eq!(rosters.take_sleepers(&crew), []);
        assert_eq!(rosters.reserve(&crew, &wish("one", None)), Routed::Wait);
        rosters.queue(&crew, wish("one", None));
        assert_eq!(rosters.take_sleepers(&crew), [agent(0)]);
        assert_eq!(rosters.take_sleepers(&crew), [], "one is on its way");
        rosters.queue(&crew, wish("two", Some(2)));
        assert_eq!(rosters.take_sleepers(&crew), [agent(2)], "the one that is named");
        for number in 0..5 {
            rosters.queue(&crew, wish(&number.to_string(), None));
        }
        assert_eq!(rosters.take_sleepers(&crew), [agent(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_for_anybody_wakes_one_where_all_sleep() {
        let (rosters, crew) = rosters();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(put_to_sleep(&rosters), 3);
        assert_eq!(rosters.take_sleeper_of(&crew, "analyst"), Some(agent(0)));
        assert_eq!(rosters.take_sleeper_of(&crew, "analyst"), None, "one is on its way");
        assert!(rosters.take_sleeper(&crew, &agent(1)) && !rosters.take_sleeper(&crew, &agent(1)));
    }
}
