use super::{
    AgentEnd, AgentId, Assembled, AssemblyFailed, BudgetExhausted, BudgetRaised, Command, Condemned, Context,
    Disbanded, Disbanding, Draining, Event, Exit, GivenUp, Held, Incarnation, Killed, LetGo, OnBreach,
    Paused, Policy, Rejection, Resource, RestartCompleted, RestartScheduled, RestartsExhausted, Resumed,
    Scaled, Seat, SetAside, State, Status, Woke, ms,
};
use crate::supervision::{self, Child, Decision, Failure, OnExhausted};

pub(super) fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
    if let Command::Assemble(started) = command {
        return match &state.started {
            None => Ok(vec![started.clone().into()]),
            Some(earlier) if earlier.name == started.name && earlier.spec == started.spec => Ok(Vec::new()),
            Some(earlier) => Err(Rejection::KeyConflict { name: earlier.name.clone() }),
        };
    }
    let Some(started) = &state.started else { return Err(Rejection::Unknown) };
    match command {
        Command::Assemble(_) => Ok(Vec::new()),
        Command::Assembled => assembled(state, context),
        Command::AssemblyFailed { reason } => step(state, Status::Failed, "fail to assemble", || {
            AssemblyFailed { reason: reason.clone() }.into()
        }),
        Command::AgentReady { agent, incarnation } => ready(state, agent, *incarnation, context),
        Command::AgentDown(end) => down(state, &started.policy, end, context),
        Command::AgentQuarantined { agent, incarnation } => quarantined(state, agent, *incarnation),
        Command::Restart { agent, incarnation } => restart(state, agent, *incarnation, context),
        Command::Scale { member, seats } => scale(state, member, seats),
        Command::Pause => step(state, Status::Paused, "be paused", || Paused {}.into()),
        Command::Resume { raised } => resume(state, *raised),
        Command::Spend { what, used } => Ok(spend(state, *what, *used)),
        Command::Drain { grace_ms } => {
            let until_ms = grace_ms.map(|ms| context.now.plus_ms(ms).millis());
            step(state, Status::Draining, "be drained", || Draining { until_ms }.into())
        }
        Command::Disband { reason } => {
            step(state, Status::Disbanding, "be disbanded", || Disbanding { reason: reason.clone() }.into())
        }
        Command::Kill(killed) => Ok(kill(state, killed)),
        Command::KillAgent { agent, killed } => kill_agent(state, agent, killed),
        Command::Disbanded => step(state, Status::Disbanded, "end", || Disbanded {}.into()),
    }
}

/// Whether a crew's life leads from `from` to `to` in one step.
fn allows(from: Status, to: Status) -> bool {
    use Status as S;
    match to {
        S::Assembling => false,
        S::Running => matches!(from, S::Assembling | S::Paused),
        S::Paused => from == S::Running,
        S::Draining => matches!(from, S::Running | S::Paused),
        S::Disbanding => matches!(from, S::Assembling | S::Running | S::Paused | S::Draining),
        S::Disbanded => matches!(from, S::Disbanding | S::Failed),
        S::Failed => from == S::Assembling,
    }
}

/// One event that leads to `to`; none if the crew is there already or beyond.
fn step(
    state: &State,
    to: Status,
    verb: &'static str,
    event: impl FnOnce() -> Event,
) -> Result<Vec<Event>, Rejection> {
    let done = state.status == to || (to == Status::Disbanding && state.status == Status::Disbanded);
    match () {
        () if done => Ok(Vec::new()),
        () if allows(state.status, to) => Ok(vec![event()]),
        () => Err(Rejection::Illegal { status: state.status, verb }),
    }
}

/// Every member is ready. What was used up before that holds it at once.
fn assembled(state: &State, context: &Context) -> Result<Vec<Event>, Rejection> {
    let at_ms = Some(context.now.millis());
    let mut events = step(state, Status::Running, "be assembled", || Assembled { at_ms }.into())?;
    if !events.is_empty() && !state.exhausted.is_empty() {
        events.push(Paused {}.into());
    }
    Ok(events)
}

/// A crew that has used up its budget goes on only with more of it.
fn resume(state: &State, raised: BudgetRaised) -> Result<Vec<Event>, Rejection> {
    let no_more =
        |(what, limit): &(Resource, u64)| state.allowance.limit(*what).is_none_or(|now| *limit <= now);
    if let Some((what, _)) = raised.limits().find(no_more) {
        return Err(Rejection::NoRaise { what, limit: state.allowance.limit(what) });
    }
    let allowance = state.allowance.raised(&raised);
    for (&what, &used) in &state.exhausted {
        if let Some(limit) = allowance.limit(what).filter(|limit| *limit <= used) {
            return Err(Rejection::Spent { what, used, limit });
        }
    }
    let mut events: Vec<Event> = Vec::new();
    if raised != BudgetRaised::default() {
        if !is_supervising(state.status) {
            return Err(Rejection::Illegal { status: state.status, verb: "use more" });
        }
        events.push(raised.into());
        if state.status != Status::Paused {
            return Ok(events);
        }
    } else if state.status == Status::Running {
        return Ok(events);
    }
    events.extend(step(state, Status::Running, "be resumed", || Resumed {}.into())?);
    Ok(events)
}

fn spend(state: &State, what: Resource, used: u64) -> Vec<Event> {
    let limit = state.allowance.limit(what).filter(|limit| *limit <= used);
    let Some(limit) = limit.filter(|_| is_supervising(state.status) && !state.exhausted.contains_key(&what))
    else {
        return Vec::new();
    };
    let on_breach = state.allowance.on_breach;
    let mut events: Vec<Event> = vec![BudgetExhausted { what, used, limit, on_breach }.into()];
    match on_breach {
        OnBreach::Suspend if state.status == Status::Running => events.push(Paused {}.into()),
        OnBreach::Suspend => {}
        OnBreach::Disband => {
            let reason = format!("its budget is used up: {used} of {limit} {what}");
            events.push(Disbanding { reason }.into());
        }
    }
    events
}

fn is_supervising(status: Status) -> bool {
    matches!(status, Status::Assembling | Status::Running | Status::Paused | Status::Draining)
}

fn ready(
    state: &State,
    agent: &AgentId,
    incarnation: Incarnation,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let held = state.seat(agent).ok_or_else(|| Rejection::NotOurs { agent: agent.clone() })?;
    let at_ms = context.now.millis();
    let Some(pending) = held.pending.as_ref().filter(|pending| incarnation > pending.after) else {
        // Without a restart only one that hibernated has a new incarnation.
        let has_woken = held.pending.is_none() && held.given_up.is_none() && incarnation > held.incarnation;
        let woke = has_woken.then(|| Woke { agent: agent.clone(), incarnation, at_ms }.into());
        return Ok(woke.into_iter().collect());
    };
    let took_ms = ms(at_ms.saturating_sub(pending.failed_ms));
    Ok(vec![RestartCompleted { agent: agent.clone(), incarnation, at_ms, took_ms }.into()])
}

fn down(state: &State, policy: &Policy, end: &AgentEnd, context: &Context) -> Result<Vec<Event>, Rejection> {
    let AgentEnd { agent, incarnation, exit, detail } = end;
    let (incarnation, exit) = (*incarnation, *exit);
    let held = state.seat(agent).ok_or_else(|| Rejection::NotOurs { agent: agent.clone() })?;
    let known = held.pending.as_ref().is_some_and(|pending| incarnation <= pending.after);
    if !is_supervising(state.status) || held.given_up.is_some() || known || incarnation < held.incarnation {
        return Ok(Vec::new());
    }
    let now_ms = context.now.millis();
    // What the node did to its agents is no reason to give them up.
    let (policy, budget) = match exit.is_charged() {
        true => (policy, &state.budget_at(policy, agent, now_ms)),
        false => (&Policy { max_restarts: u32::MAX, ..policy.clone() }, &supervision::Budget::default()),
    };
    let children: Vec<_> = state
        .kept()
        .map(|held| Child {
            id: held.seat.agent.clone(),
            kind: held.seat.restart,
            running: held.pending.is_none(),
        })
        .collect();
    let failure = Failure { child: agent, exit, now_ms: ms(now_ms), jitter_seed: context.seed };
    match supervision::decide(policy, budget, &children, &failure) {
        Decision::Ignore => Ok(vec![LetGo { agent: agent.clone(), exit }.into()]),
        Decision::Exhausted(action) => Ok(exhausted(state, held, detail, action)),
        Decision::Restart { children, delay_ms, .. } => {
            // A first failure is an accident and is mended at once; only repeated ones have to wait.
            let delay_ms = if budget.failures(agent) == 0 { 0 } else { delay_ms };
            let scheduled = RestartScheduled {
                failed: agent.clone(),
                incarnation,
                exit,
                agents: children,
                at_ms: now_ms,
                delay_ms,
            };
            Ok(vec![scheduled.into()])
        }
    }
}

/// A crew has no supervisor above it to escalate to, so escalation ends it.
fn exhausted(state: &State, held: &Held, detail: &str, action: OnExhausted) -> Vec<Event> {
    let Seat { agent, member, replica, .. } = &held.seat;
    let quarantine = matches!(action, OnExhausted::Quarantine);
    let word = if quarantine { "quarantine" } else { "disband" };
    let mut events: Vec<Event> =
        vec![RestartsExhausted { failed: agent.clone(), action: word.to_owned() }.into()];
    if state.status == Status::Assembling {
        let reason = format!("{member}[{replica}] did not stay up: {detail}");
        events.push(AssemblyFailed { reason }.into());
    } else if !quarantine {
        let reason = format!("the restart budget was spent on {member}[{replica}]: {detail}");
        events.push(Disbanding { reason }.into());
    }
    events
}

fn restart(
    state: &State,
    agent: &AgentId,
    incarnation: Incarnation,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let held = state.seat(agent).ok_or_else(|| Rejection::NotOurs { agent: agent.clone() })?;
    if let Some(killed) = &held.killed {
        return Err(Rejection::Killed { agent: agent.clone(), killed: killed.to_string() });
    }
    if held.given_up == Some(GivenUp::Removed) {
        return Err(Rejection::NotOurs { agent: agent.clone() });
    }
    if !is_supervising(state.status) {
        return Err(Rejection::Illegal { status: state.status, verb: "restart an agent" });
    }
    if held.pending.is_some() || incarnation < held.incarnation {
        return Ok(Vec::new());
    }
    let scheduled = RestartScheduled {
        failed: agent.clone(),
        incarnation,
        exit: Exit::Killed,
        agents: vec![agent.clone()],
        at_ms: context.now.millis(),
        delay_ms: 0,
    };
    Ok(vec![scheduled.into()])
}

/// Its siblings' failures do not bring it back, but a restart does that was asked for since.
fn quarantined(state: &State, agent: &AgentId, incarnation: Incarnation) -> Result<Vec<Event>, Rejection> {
    let held = state.seat(agent).ok_or_else(|| Rejection::NotOurs { agent: agent.clone() })?;
    let is_over = held.pending.as_ref().is_some_and(|pending| incarnation <= pending.after);
    if held.given_up.is_some() || is_over || !is_supervising(state.status) {
        return Ok(Vec::new());
    }
    let Seat { member, replica, .. } = &held.seat;
    let mut events: Vec<Event> = vec![SetAside { agent: agent.clone() }.into()];
    if state.status == Status::Assembling {
        events.push(AssemblyFailed { reason: format!("{member}[{replica}] was quarantined") }.into());
    }
    Ok(events)
}

/// A crew that never came up, or is gone, has nothing left that could be killed; one that disbands may take its time.
fn kill(state: &State, killed: &Killed) -> Vec<Event> {
    let is_over = matches!(state.status, Status::Failed | Status::Disbanded) || state.killed.is_some();
    if is_over { Vec::new() } else { vec![killed.clone().into()] }
}

/// While a crew is being brought up it needs all of its agents: without one of them it never will be.
fn kill_agent(state: &State, agent: &AgentId, killed: &Killed) -> Result<Vec<Event>, Rejection> {
    let held = state.seat(agent).ok_or_else(|| Rejection::NotOurs { agent: agent.clone() })?;
    if held.killed.is_some() || !is_supervising(state.status) {
        return Ok(Vec::new());
    }
    let Seat { member, replica, .. } = &held.seat;
    let mut events: Vec<Event> = vec![Condemned { agent: agent.clone(), killed: killed.clone() }.into()];
    if state.status == Status::Assembling {
        events.push(AssemblyFailed { reason: format!("{member}[{replica}] was {killed}") }.into());
    }
    Ok(events)
}

fn scale(state: &State, member: &str, seats: &[Seat]) -> Result<Vec<Event>, Rejection> {
    if !matches!(state.status, Status::Running | Status::Paused) {
        return Err(Rejection::Illegal { status: state.status, verb: "be scaled" });
    }
    let mine = |held: &&Held| held.seat.member == member;
    let kept: Vec<&AgentId> = state.kept().filter(mine).map(|held| &held.seat.agent).collect();
    let added = seats.iter().filter(|seat| !kept.contains(&&seat.agent)).cloned().collect::<Vec<_>>();
    let wanted = |agent: &AgentId| seats.iter().any(|seat| seat.agent == *agent);
    let removed = kept.into_iter().filter(|agent| !wanted(agent)).cloned().collect::<Vec<_>>();
    if added.is_empty() && removed.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Scaled { member: member.to_owned(), added, removed }.into()])
}
