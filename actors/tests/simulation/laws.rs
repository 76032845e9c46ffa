//! The laws, checked on what a simulation has left: the log, the sandboxes, and what the user was told.

use std::collections::{BTreeMap, BTreeSet};

use events::domain::agent::{self, Agent};
use events::domain::crew::{self, Crew};
use events::domain::pool::{self, Phase, Pool};
use events::domain::task::{self, Task};
use events::domain::{Decider, DomainEvent};
use events::invariant::Law;
use events::projection::Unfinished;
use events::store::Memory;
use events::{EntityKind, Position, Recorded};

use super::handler;

/// A law that does not hold, and how that was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub law: Law,
    pub how: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.law, self.how)
    }
}

pub fn hold(law: Law, holds: bool, how: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { law, how: how() }) }
}

/// Where an event stands in the log, and who did it.
pub struct Origin {
    position: Position,
    by_itself: bool,
}

/// One entity as the log tells of it.
pub struct Told<D: Decider> {
    pub state: D::State,
    pub events: Vec<(Origin, D::Event)>,
}

/// The whole log, by entity.
#[derive(Default)]
pub struct Story {
    pub log: Vec<Recorded>,
    pub crews: BTreeMap<String, Told<Crew>>,
    pub agents: BTreeMap<String, Told<Agent>>,
    pub tasks: BTreeMap<String, Told<Task>>,
    pub pools: BTreeMap<String, Told<Pool>>,
}

fn tell<D: Decider>(told: &mut BTreeMap<String, Told<D>>, recorded: &Recorded) {
    let event = D::Event::decode(&recorded.kind, recorded.schema, &recorded.payload)
        .unwrap_or_else(|error| panic!("position {}: {error}", recorded.position));
    let entity = told
        .entry(recorded.stream.id.to_string())
        .or_insert_with(|| Told { state: D::State::default(), events: Vec::new() });
    entity.state = D::evolve(std::mem::take(&mut entity.state), &event);
    let by_itself = recorded.meta.principal.as_str().starts_with("system:");
    entity.events.push((Origin { position: recorded.position, by_itself }, event));
}

impl Story {
    /// The story that these events tell.
    pub fn of(events: Vec<Recorded>) -> Self {
        let mut story = Self::default();
        story.go_on(events);
        story
    }

    /// Adds what happened since.
    pub fn catch_up(&mut self, log: &Memory) {
        let after = Position(self.log.len() as u64);
        self.go_on(log.events_after(after));
    }

    fn go_on(&mut self, events: Vec<Recorded>) {
        for recorded in events {
            match recorded.stream.kind {
                EntityKind::Crew => tell(&mut self.crews, &recorded),
                EntityKind::Agent => tell(&mut self.agents, &recorded),
                EntityKind::Task => tell(&mut self.tasks, &recorded),
                EntityKind::Pool => tell(&mut self.pools, &recorded),
                _ => {}
            }
            self.log.push(recorded);
        }
    }

    /// Tasks that have not ended.
    pub fn open_tasks(&self) -> Vec<(&str, &task::State)> {
        let open = self.tasks.iter().filter(|(_, told)| !told.state.status.is_terminal());
        open.map(|(id, told)| (id.as_str(), &told.state)).collect()
    }

    /// The sandboxes of live agents, each with the node on which it is by the log.
    pub fn wanted(&self) -> BTreeMap<String, String> {
        let live = self.agents.values().filter(|told| is_served(told.state.status));
        live.filter_map(|told| Some((told.state.sandbox.as_ref()?.to_string(), told.state.node.clone()?)))
            .collect()
    }

    /// The sandboxes that stand by, each with the node on which it is by the log.
    pub fn standing_by(&self) -> BTreeMap<String, String> {
        let standbys = self.pools.values().flat_map(|told| told.state.standbys.values());
        let standing = standbys.filter(|standby| standby.phase <= Phase::Ready);
        standing.map(|it| (it.requested.sandbox.to_string(), it.requested.node.clone())).collect()
    }

    /// Agents that are neither ready nor parked nor given up, and sandboxes of pools that are on their way.
    pub fn unsettled(&self) -> Vec<String> {
        use agent::Status as S;
        let settled =
            |status| matches!(status, S::Ready | S::Hibernating | S::Quarantined | S::Failed | S::Terminated);
        let agents = self.agents.iter().filter(|(_, told)| !settled(told.state.status));
        let mut unsettled: Vec<String> =
            agents.map(|(id, told)| format!("{id} is {}", told.state.status)).collect();
        let wanted = self.wanted();
        for (id, told) in &self.pools {
            let state = &told.state;
            for (sandbox, standby) in &state.standbys {
                let is_settled = match standby.phase {
                    Phase::Ready => true,
                    Phase::Claimed => wanted.contains_key(sandbox.as_str()),
                    Phase::Warming | Phase::Spent => false,
                };
                if !is_settled {
                    unsettled.push(format!("{sandbox} of {id} is {}", standby.phase.as_str()));
                }
            }
            let is_kept = state.applied.is_some() && state.status != pool::Status::Drained;
            if is_kept && state.count(Phase::Ready) < state.size.target.unwrap_or(state.size.min) {
                unsettled.push(format!("{id} is not filled"));
            }
        }
        unsettled
    }

    /// What can be seen in the log alone.
    pub fn check(&self) -> Result<(), Broken> {
        self.positions()?;
        for (id, told) in &self.tasks {
            task_ends_once(id, told)?;
            results_are_the_attempt_s_own(id, told)?;
        }
        self.nothing_twice()?;
        self.sandboxes_serve_one()?;
        for told in self.crews.values() {
            budget_is_kept(told)?;
        }
        self.pools.values().try_for_each(|told| self.standbys_are_used_once(told))?;
        Ok(())
    }

    fn positions(&self) -> Result<(), Broken> {
        let mut versions: BTreeMap<String, u64> = BTreeMap::new();
        for (position, event) in (1u64..).zip(&self.log) {
            hold(Law::Es1, event.position == Position(position), || {
                format!("position {} where {position} should be", event.position)
            })?;
            let version = versions.entry(event.stream.to_string()).or_default();
            *version += 1;
            hold(Law::Es4, event.version.0 == *version, || {
                format!("{} has version {} after {}", event.stream, event.version, *version - 1)
            })?;
        }
        Ok(())
    }

    /// Every command was carried out once, and every checkpoint was written once.
    fn nothing_twice(&self) -> Result<(), Broken> {
        let mut commands = BTreeSet::new();
        let mut notes = BTreeSet::new();
        for event in &self.log {
            let new = commands.insert((event.command_id, event.ordinal));
            hold(Law::Es5, new, || format!("command {} is in the log twice", event.command_id))?;
            if &*event.kind == "task_checkpointed" && event.payload.contains("\"once\"") {
                let new = notes.insert(event.payload.clone());
                hold(Law::Es5, new, || format!("one checkpoint was written twice: {}", event.payload))?;
            }
        }
        Ok(())
    }

    fn sandboxes_serve_one(&self) -> Result<(), Broken> {
        let mut claims = BTreeMap::new();
        for (id, told) in &self.agents {
            for (_, event) in &told.events {
                let agent::Event::SandboxClaimed(claimed) = event else { continue };
                let earlier = claims.insert(claimed.sandbox.clone(), (id, claimed.incarnation));
                hold(Law::Sb1, earlier.is_none(), || format!("{} was claimed twice", claimed.sandbox))?;
            }
        }
        Ok(())
    }

    /// Whether the agent has claimed the sandbox for this incarnation.
    pub fn has_claimed(&self, agent: &str, incarnation: u64, sandbox: &str) -> bool {
        let events = self.agents.get(agent).into_iter().flat_map(|told| &told.events);
        events.into_iter().any(|(_, event)| {
            matches!(event, agent::Event::SandboxClaimed(claimed)
                if claimed.sandbox.as_str() == sandbox && claimed.incarnation.0 == incarnation)
        })
    }

    /// A sandbox of a pool goes its way once: it never stands by again, it serves who has claimed it by the agent's own
    /// word, and nothing comes after its end.
    fn standbys_are_used_once(&self, told: &Told<Pool>) -> Result<(), Broken> {
        use pool::Event as E;
        let (mut readied, mut claimed, mut gone) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (origin, event) in &told.events {
            let at = origin.position;
            let sandbox = match event {
                E::Requested(it) => &it.sandbox,
                E::Ready(it) => &it.sandbox,
                E::Claimed(it) => &it.sandbox,
                E::Failed(it) => &it.sandbox,
                E::Dirty(it) => &it.sandbox,
                E::Released(it) => &it.sandbox,
                E::Destroyed(it) => &it.sandbox,
                E::Applied(_) | E::Resized(_) | E::Drained(_) | E::Degraded(_) | E::Recovered(_) => continue,
            };
            hold(Law::Sb1, !gone.contains(sandbox), || format!("{sandbox} is back at position {at}"))?;
            let again = || format!("{sandbox} stands by again at position {at}");
            match event {
                E::Ready(_) => {
                    hold(Law::Sb1, readied.insert(sandbox) && !claimed.contains(sandbox), again)?;
                }
                E::Claimed(by) => {
                    let is_so = self.has_claimed(by.agent.as_str(), by.incarnation.0, sandbox.as_str());
                    hold(Law::Sb1, is_so && claimed.insert(sandbox), || {
                        format!("{sandbox} is said to be {}'s at position {at}", by.agent)
                    })?;
                }
                E::Destroyed(_) => drop(gone.insert(sandbox)),
                _ => {}
            }
        }
        let totals = told.state.totals;
        let there = told.state.standbys.len() as u64;
        hold(Law::Sb3, totals.created - totals.destroyed == there, || {
            format!("{totals:?} and {there} are there")
        })
    }
}

/// Whether an agent in this state has a sandbox.
fn is_served(status: agent::Status) -> bool {
    use agent::Status as S;
    matches!(status, S::Provisioning | S::Warming | S::Ready | S::Draining)
}

fn is_end(event: &task::Event) -> bool {
    use task::Event as E;
    matches!(event, E::Completed(_) | E::Failed(_) | E::Canceled(_) | E::Rejected(_) | E::DeadLettered(_))
}

fn task_ends_once(id: &str, told: &Told<Task>) -> Result<(), Broken> {
    let mut ended = false;
    for (_, event) in &told.events {
        match event {
            task::Event::Retried(_) => ended = false,
            task::Event::ResultRefused(_) => {}
            _ => {
                hold(Law::Tk1, !ended, || format!("task {id} has {event:?} after its end"))?;
                ended = is_end(event);
            }
        }
    }
    hold(Law::Tk1, ended, || format!("task {id} never ends: {:?}", told.state))
}

/// What was accepted was made by the very execution that had the fence.
fn results_are_the_attempt_s_own(id: &str, told: &Told<Task>) -> Result<(), Broken> {
    let (mut fence, mut accepted) = (0, 0);
    for (origin, event) in &told.events {
        match event {
            task::Event::AttemptStarted(started) => {
                hold(Law::Tk2, started.fence > fence, || format!("task {id}: fence {fence} came again"))?;
                fence = started.fence;
            }
            task::Event::Retried(_) => accepted = 0,
            task::Event::Completed(completed) => {
                accepted += 1;
                hold(Law::Tk2, accepted == 1 && completed.fence == fence, || {
                    format!("task {id}: a result under fence {} of {fence}", completed.fence)
                })?;
                let made = completed.output["parts"][0]["text"].as_str().unwrap_or_default();
                let signed = handler::signature(fence, "");
                hold(Law::Tk2, made.starts_with(&signed), || {
                    format!(
                        "task {id}: at position {} fence {fence} brought what `{made}` made",
                        origin.position
                    )
                })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// No restart was decided on that the budget did not allow, over all lives of the platform.
fn budget_is_kept(told: &Told<Crew>) -> Result<(), Broken> {
    let Some(policy) = told.state.started.as_ref().map(|started| started.policy.clone()) else {
        return Ok(());
    };
    let mut times = Vec::new();
    for (origin, event) in &told.events {
        let crew::Event::RestartScheduled(scheduled) = event else { continue };
        if !scheduled.exit.is_charged() {
            continue;
        }
        let window = i64::try_from(policy.within_ms).unwrap_or(i64::MAX);
        let spent = times.iter().filter(|&&at_ms| scheduled.at_ms - at_ms < window).count();
        hold(Law::Sv2, !origin.by_itself || spent < policy.max_restarts as usize, || {
            format!("restart {} within {window} ms at position {}", spent + 1, origin.position)
        })?;
        times.push(scheduled.at_ms);
    }
    Ok(())
}

/// Which entities a start of the platform is told of.
pub fn unfinished(story: &Story) -> Unfinished {
    let crews = story.crews.iter().filter(|(_, told)| told.state.status != crew::Status::Disbanded);
    let tasks = story.tasks.iter().filter(|(_, told)| !told.state.status.is_terminal());
    Unfinished {
        pools: story.pools.keys().filter_map(|id| id.parse().ok()).collect(),
        crews: crews.map(|(id, _)| id.parse().expect("a crew's stream is named by its id")).collect(),
        tasks: tasks
            .filter_map(|(id, told)| Some((told.state.submitted.as_ref()?.crew.clone(), id.parse().ok()?)))
            .collect(),
        ..Unfinished::default()
    }
}

/// An event in a line.
pub fn line(event: &Recorded) -> String {
    let Recorded { position, stream, version, kind, payload, recorded_at, .. } = event;
    let payload: String = payload.chars().take(240).collect();
    format!("{} {position:>5} {stream}@{version} {kind} {payload}", recorded_at.rfc3339())
}

/// Where a task stands, for who has to find out why it stands there.
pub fn describe(state: &task::State) -> String {
    let asked: Vec<&String> = state.open_questions().map(|(key, _)| key).collect();
    format!("{} {:?} cancel {:?} open questions {asked:?}", state.status, state.attempt, state.cancel)
}
