//! Delegation: a handler gives a part of its task to another agent.

use events::domain::task::{Child, Command, State, Status};
use events::{AgentId, CommandId, Digest, TaskId};
use gateway::Peer;
use link::{Address, Error, ErrorType};
use serde_json::{Value, json};

use super::call::{InHand, child_view};
use super::{Host, wire_error};
use crate::contents;
use crate::entity::Cause;
use crate::hosted;
use crate::roster::Wish;
use crate::submit::{self, Order};
use crate::waits;

/// Tasks of a circle that its refusal names.
const CIRCLE_SHOWN_MAX: usize = 8;

/// Who is asked, and what the channel to them allows.
pub(super) struct Way {
    pub(super) member: String,
    pub(super) agent: Option<AgentId>,
    pub(super) depth: u32,
    pub(super) fan_out: u32,
}

impl Host {
    pub(super) async fn delegate(
        &self,
        peer: &Peer,
        command: CommandId,
        call: link::Delegate,
        way: Way,
    ) -> Result<Value, Error> {
        let input = contents::wire(&call.input);
        let digest = Digest::of(format!("{}\0{input}", call.to).as_bytes());
        let replica = self.replica(&call.to, way.agent.as_ref(), peer);
        let (held, child, cause, _wait) = self.named(peer, command, &call, (&way, replica), digest).await?;
        // A child has no more time than its parent.
        let own = call.timeout_ms.map(|ms| self.core.clock.now().plus_ms(ms).millis());
        let deadline_ms = own.into_iter().chain(held.submitted.deadline_ms).min();
        let order = Order {
            task: child.clone(),
            tenant: peer.tenant.clone(),
            crew: peer.crew.clone(),
            replica,
            member: way.member,
            input: contents::put(&self.core, input).await.map_err(|p| wire_error(&p))?,
            subject: held.submitted.subject.clone(),
            context: held.submitted.context.clone(),
            from: format!("agent:{}", peer.agent),
            from_member: Some(peer.member.clone()),
            parent: Some(held.task.clone()),
            depth: way.depth,
            deadline_ms,
            request_digest: digest,
            is_first: false,
        };
        let command_id = CommandId::derive(&["delegate", child.as_str()]);
        let meta = self.meta(peer, &held.submitted);
        let meta = match cause {
            Some(cause) => cause.of(meta),
            None => meta,
        };
        let accepted = submit::submit(&self.core, order, command_id, meta).await;
        if accepted.map_err(|problem| wire_error(&problem))?.state.status == Status::Canceled {
            self.execute(peer, self.core.clock.fresh_command(), &child, Command::Revive).await?;
        }
        hosted::end_with_parent(&self.core, &child).await.map_err(|problem| wire_error(&problem))?;
        if !call.wait {
            return Ok(json!({ "taskId": child, "state": "submitted" }));
        }
        let state = self.unless_over(&held, self.over(&child)).await?;
        child_view(&self.core, &child, &state).await
    }

    /// Writes the child down with its parent, once, if the channel allows one more. The event that says so is what the child
    /// follows from.
    async fn named(
        &self,
        peer: &Peer,
        command: CommandId,
        call: &link::Delegate,
        (way, replica): (&Way, Option<u32>),
        digest: Digest,
    ) -> Result<(InHand, TaskId, Option<Cause>, Option<waits::Held>), Error> {
        loop {
            let held = self.in_hand(peer, &call.task_id).await?;
            let key = key(&held, call, digest)?;
            let (child, siblings) = (held.submitted.child_id(&key), held.state.children.len());
            let is_new = !held.state.children.contains_key(&key);
            if is_new {
                self.check_delegation(&held, way).await?;
            }
            let wait = match call.wait {
                true => Some(self.wait_of(&held, false, vec![wish(&child, way, replica)]).await?),
                false => None,
            };
            let (fence, to) = (held.attempt.fence, call.to.to_string());
            let delegate = Command::Delegate { fence, key, child: child.clone(), digest, to, siblings };
            match self.execute(peer, command, &held.task, delegate).await {
                Ok(delegated) => return Ok((held, child, delegated.cause, wait)),
                // Another child came in between, and it may have been the last that is allowed.
                Err(_)
                    if is_new && self.in_hand(peer, &call.task_id).await?.state.children.len() > siblings => {
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn replica(&self, to: &Address, agent: Option<&AgentId>, peer: &Peer) -> Option<u32> {
        match (to, agent) {
            (Address::Replica(_, replica), _) => Some(*replica),
            (_, Some(agent)) => self.core.rosters.place(&peer.crew, agent, |place| place.replica),
            _ => None,
        }
    }

    /// The task in hand waits for these from now on, unless none of those who wait for each other could ever go on then.
    pub(super) async fn wait_of(
        &self,
        held: &InHand,
        any: bool,
        children: Vec<Wish>,
    ) -> Result<waits::Held, Error> {
        let (core, crew) = (&self.core, &held.submitted.crew);
        let wait = core.waits.hold(crew, &held.task, any, children);
        let Some(seats) = core.rosters.seating(crew) else { return Ok(wait) };
        let stuck = wait.stuck(&seats);
        // A child that has just ended is not told to those yet who wait for it.
        for child in wait.awaited(&stuck) {
            let state = core.tasks.read(child.as_str()).await.map_err(|problem| wire_error(&problem))?;
            if state.status.is_terminal() {
                return Ok(wait);
            }
        }
        if stuck.is_empty() {
            return Ok(wait);
        }
        let circle: Vec<&str> = stuck.iter().take(CIRCLE_SHOWN_MAX).map(TaskId::as_str).collect();
        let message = format!(
            "all who could do it wait, in the end, for the place that this task holds: {}; ask without `wait`, or have \
             more replicas or a higher concurrency",
            circle.join(", ")
        );
        Err(Error::new(ErrorType::WouldDeadlock, message))
    }

    /// Refuses one child too many, and one for which there is no room.
    async fn check_delegation(&self, held: &InHand, way: &Way) -> Result<(), Error> {
        let (core, member) = (&self.core, way.member.as_str());
        let mut open = 0;
        for child in held.state.children.values() {
            let state = core.tasks.read(child.task.as_str()).await.map_err(|problem| wire_error(&problem))?;
            open += u32::from(is_open_at(member, child, &state));
        }
        if open >= way.fan_out {
            let message = format!(
                "{open} children of this task are open at `{member}`, the most that its channel allows"
            );
            return Err(Error::new(ErrorType::FanoutLimited, message));
        }
        submit::check_room(core, &held.submitted.crew, member).map_err(|problem| wire_error(&problem))
    }
}

/// What the roster has to know of a child that is asked for.
fn wish(child: &TaskId, way: &Way, replica: Option<u32>) -> Wish {
    Wish { task: child.clone(), member: way.member.clone(), replica, context: String::new() }
}

/// Whether the child keeps somebody of the member busy, or is about to.
fn is_open_at(member: &str, child: &Child, state: &State) -> bool {
    match &state.submitted {
        Some(submitted) => submitted.member == member && !state.status.is_terminal(),
        // It is written down with its parent first. Whom an agent's own address means is not known here.
        None => match child.to.parse() {
            Ok(Address::Member(to) | Address::Replica(to, _)) => to == member,
            _ => true,
        },
    }
}

/// The key of the delegation; of one that has none, what is asked, and which time this attempt asks it.
fn key(held: &InHand, call: &link::Delegate, digest: Digest) -> Result<String, Error> {
    let repeat = match (&call.key, call.repeat) {
        (Some(key), _) => return Ok(key.clone()),
        (None, Some(repeat)) => repeat,
        (None, None) => {
            let message = "without a `key`, its frame says which of identical calls it is";
            return Err(Error::new(ErrorType::InvalidParams, message));
        }
    };
    // A key is not secret, and what was asked must not be guessed from it where it is somebody's.
    let digest = match &held.submitted.subject {
        None => digest,
        Some(subject) => {
            Digest::of(format!("{subject}\0{}\0{digest}", held.submitted.request_digest).as_bytes())
        }
    };
    Ok(format!("auto-{}-{repeat}", &digest.to_string()[..24]))
}
