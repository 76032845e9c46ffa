//! How a pool answers commands.

use super::{
    Applied, BACKOFF, Claimed, Command, DEGRADED_AFTER, Degraded, Destroyed, Dirty, Drained, Event, Failed,
    Phase, Ready, Recovered, Rejection, Released, Requested, Resized, Size, Standby, State, Status,
};
use crate::domain::Context;
use crate::id::{Digest, SandboxId};

pub(super) fn decide(state: &State, command: &Command, context: &Context) -> Result<Vec<Event>, Rejection> {
    if let Command::Apply { tenant, name, template, size, prestart, spec, image } = command {
        check(*size)?;
        let version = state.applied.as_ref().map_or(0, |applied| applied.version) + 1;
        let applied = Applied {
            tenant: tenant.clone(),
            name: name.clone(),
            version,
            template: *template,
            size: *size,
            prestart: prestart.clone(),
            spec: spec.clone(),
            image: image.clone(),
        };
        return Ok(apply(state, applied));
    }
    if state.applied.is_none() {
        return Err(Rejection::Unknown);
    }
    match command {
        Command::Apply { .. } => unreachable!("answered above"),
        Command::Resize { size } => resize(state, *size),
        Command::Drain { reason } => Ok(drain(state, reason)),
        Command::Request { standbys } => Ok(request(state, standbys)),
        Command::Ready { sandbox } => ready(state, sandbox, context),
        Command::Claimed(claimed) => claim(state, claimed),
        Command::Fail { sandbox, detail } => fail(state, sandbox, detail, context),
        Command::Recover => Ok(state.has_recovered(now_ms(context)).then(recovered).into_iter().collect()),
        Command::Spoil { sandboxes, reason } => Ok(spoil(state, sandboxes, reason)),
        Command::Release { sandbox } => release(state, sandbox),
        Command::Gone { sandbox } => gone(state, sandbox),
    }
}

fn check(Size { min, max, target }: Size) -> Result<(), Rejection> {
    let fits = min <= max && max >= 1 && target.is_none_or(|target| (min..=max).contains(&target));
    if fits { Ok(()) } else { Err(Rejection::Size { min, max, target }) }
}

fn apply(state: &State, applied: Applied) -> Vec<Event> {
    let is_same = |current: &Applied| {
        (current.template, current.size, &current.spec) == (applied.template, applied.size, &applied.spec)
    };
    if state.applied.as_ref().is_some_and(is_same)
        && state.size == applied.size
        && state.status != Status::Drained
    {
        return Vec::new();
    }
    let other = |template: Digest| template != applied.template;
    let mut events = dirty(state, |standby| other(standby.requested.template), "the pool's template changed");
    events.insert(0, applied.into());
    events
}

fn resize(state: &State, size: Size) -> Result<Vec<Event>, Rejection> {
    check(size)?;
    let is_so = state.size == size && state.status != Status::Drained;
    Ok(if is_so { Vec::new() } else { vec![Resized { size }.into()] })
}

fn drain(state: &State, reason: &str) -> Vec<Event> {
    if state.status == Status::Drained {
        return Vec::new();
    }
    let mut events = dirty(state, |_| true, "the pool was drained");
    events.insert(0, Drained { reason: reason.to_owned() }.into());
    events
}

/// One event for every unclaimed sandbox that is `meant`.
fn dirty(state: &State, meant: impl Fn(&Standby) -> bool, reason: &str) -> Vec<Event> {
    let unclaimed = state.standbys.values().filter(|standby| standby.phase <= Phase::Ready);
    let found = unclaimed.filter(|standby| meant(standby)).map(|standby| standby.requested.sandbox.clone());
    found.map(|sandbox| Dirty { sandbox, reason: reason.to_owned() }.into()).collect()
}

/// What was asked for before a drain or a change of the template is not made any more.
fn request(state: &State, standbys: &[Requested]) -> Vec<Event> {
    let template = state.applied.as_ref().map(|applied| applied.template);
    let is_wanted = |requested: &&Requested| {
        state.status != Status::Drained
            && Some(requested.template) == template
            && !state.standbys.contains_key(&requested.sandbox)
    };
    standbys.iter().filter(is_wanted).cloned().map(Event::from).collect()
}

fn known<'s>(state: &'s State, sandbox: &SandboxId) -> Result<&'s Standby, Rejection> {
    state.standbys.get(sandbox).ok_or_else(|| Rejection::NotOurs { sandbox: sandbox.clone() })
}

fn illegal(sandbox: &SandboxId, verb: &'static str) -> Rejection {
    Rejection::Illegal { sandbox: sandbox.clone(), verb }
}

fn ready(state: &State, sandbox: &SandboxId, context: &Context) -> Result<Vec<Event>, Rejection> {
    let standby = known(state, sandbox)?;
    match standby.phase {
        Phase::Warming => {}
        Phase::Ready => return Ok(Vec::new()),
        Phase::Claimed | Phase::Spent => return Err(illegal(sandbox, "ready")),
    }
    let took_ms = now_ms(context).saturating_sub(standby.requested.at_ms);
    Ok(vec![Ready { sandbox: sandbox.clone(), took_ms }.into()])
}

fn now_ms(context: &Context) -> u64 {
    u64::try_from(context.now.millis()).unwrap_or_default()
}

fn recovered() -> Event {
    Recovered {}.into()
}

/// The agent's event is a fact: it is taken as such whatever was thought of the sandbox, unless another has claimed it,
/// which the reservation of its id does not allow.
fn claim(state: &State, claimed: &Claimed) -> Result<Vec<Event>, Rejection> {
    let standby = known(state, &claimed.sandbox)?;
    match &standby.claimed {
        Some(by) if *by == (claimed.agent.clone(), claimed.incarnation) => Ok(Vec::new()),
        Some(_) => Err(illegal(&claimed.sandbox, "claimed")),
        None => {
            let is_recovery = state.ends_failures(standby).then(recovered);
            Ok([claimed.clone().into()].into_iter().chain(is_recovery).collect())
        }
    }
}

fn fail(
    state: &State,
    sandbox: &SandboxId,
    detail: &str,
    context: &Context,
) -> Result<Vec<Event>, Rejection> {
    let standby = known(state, sandbox)?;
    match standby.phase {
        Phase::Ready if standby.is_steady(now_ms(context)) => {
            return Ok(vec![Dirty { sandbox: sandbox.clone(), reason: detail.to_owned() }.into()]);
        }
        Phase::Warming | Phase::Ready => {}
        Phase::Spent => return Ok(Vec::new()),
        Phase::Claimed => return Err(illegal(sandbox, "failed")),
    }
    let failures = state.failures + 1;
    let wait_ms = BACKOFF.delay_ms(failures - 1, context.seed);
    let retry_at_ms = u64::try_from(context.now.plus_ms(wait_ms).millis()).unwrap_or_default();
    let failed = Failed { sandbox: sandbox.clone(), detail: detail.to_owned(), failures, retry_at_ms };
    let mut events = vec![failed.into()];
    if failures >= DEGRADED_AFTER && state.status == Status::Active {
        events.push(Degraded { failures, detail: detail.to_owned() }.into());
    }
    Ok(events)
}

fn spoil(state: &State, sandboxes: &[SandboxId], reason: &str) -> Vec<Event> {
    dirty(state, |standby| sandboxes.contains(&standby.requested.sandbox), reason)
}

fn release(state: &State, sandbox: &SandboxId) -> Result<Vec<Event>, Rejection> {
    match known(state, sandbox)?.phase {
        Phase::Claimed => Ok(vec![Released { sandbox: sandbox.clone() }.into()]),
        Phase::Spent => Ok(Vec::new()),
        Phase::Warming | Phase::Ready => Err(illegal(sandbox, "released")),
    }
}

fn gone(state: &State, sandbox: &SandboxId) -> Result<Vec<Event>, Rejection> {
    match state.standbys.get(sandbox).map(|standby| standby.phase) {
        None => Ok(Vec::new()),
        Some(Phase::Spent) => Ok(vec![Destroyed { sandbox: sandbox.clone() }.into()]),
        Some(_) => Err(illegal(sandbox, "gone")),
    }
}
