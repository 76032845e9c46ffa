//! Whether something may cross: member, channel, depth and rate, in this order. What may not is recorded.

use std::sync::Arc;

use events::AgentId;
use events::domain::message::{DelegateDenied, Denial, Denied};
use link::{Address, ErrorType, Id};
use tokio::time::Instant;

use crate::core::Core;
use crate::denial::{self, What};
use crate::host::Peer;
use crate::policy::{CrewPolicy, Kind};
use crate::sandbox::Sandbox;

/// Something that wants to cross.
pub(crate) struct Attempt<'a> {
    pub(crate) kind: Kind,
    pub(crate) to: &'a Address,
    /// The task in whose name.
    pub(crate) task: Option<&'a Id>,
    /// The depth that it would have.
    pub(crate) depth: u32,
}

/// What was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The receiving member.
    pub(crate) member: Arc<str>,
    /// The receiving agent, where the address names one.
    pub(crate) agent: Option<AgentId>,
    /// The channel's fan-out.
    pub(crate) fan_out: u32,
}

/// Why something may not cross.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) reason: Denial,
    /// The rule that is missing or was met.
    pub(crate) rule: String,
    /// How soon it may be tried again; absent where that cannot help.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(reason: Denial, rule: String) -> Self {
        Self { reason, rule, retry_after_ms: None }
    }

    fn error(&self) -> link::Error {
        let kind = match self.reason {
            Denial::NoChannel | Denial::Depth => ErrorType::ChannelDenied,
            Denial::UnknownMember => ErrorType::UnknownMember,
            Denial::FanOut if self.retry_after_ms.is_some() => ErrorType::FanoutLimited,
            // It reaches too many by its very address, and always will.
            Denial::FanOut => ErrorType::InvalidParams,
            Denial::Rate => ErrorType::RateLimited,
            Denial::Budget => ErrorType::BudgetExhausted,
        };
        let error = link::Error::new(kind, &self.rule);
        match self.retry_after_ms {
            Some(ms) => error.with("retryAfterMs", ms),
            None => error,
        }
    }
}

/// How soon a sender that met a fan-out may try again.
const FAN_OUT_RETRY_MS: u64 = 1_000;

/// Lets something cross, or records that it was denied.
pub(crate) async fn admit(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    attempt: &Attempt<'_>,
) -> Result<Admitted, link::Error> {
    match core.known_crew(&peer.crew)?.admit(peer, attempt, Instant::now()) {
        Ok(admitted) => Ok(admitted),
        Err(refusal) => Err(deny(core, sandbox, peer, attempt, refusal).await),
    }
}

/// A parent has as many children open as the channel allows.
pub(crate) async fn too_many_children(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    attempt: &Attempt<'_>,
    admitted: &Admitted,
) -> link::Error {
    let Admitted { member, fan_out, .. } = admitted;
    let rule = format!("the channel {} -> {member} allows {fan_out} open children of one task", peer.member);
    let mut refusal = Refusal::new(Denial::FanOut, rule);
    refusal.retry_after_ms = Some(FAN_OUT_RETRY_MS);
    deny(core, sandbox, peer, attempt, refusal).await
}

/// Records a denial and makes the sender's answer of it.
pub(crate) async fn deny(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    peer: &Arc<Peer>,
    attempt: &Attempt<'_>,
    refusal: Refusal,
) -> link::Error {
    let error = refusal.error();
    let (crew, from) = (peer.crew.clone(), denial::party(peer));
    let task = attempt.task.map(ToString::to_string);
    let Refusal { reason, rule, .. } = refusal;
    let policy = core.known_crew(&peer.crew).map(|crew| crew.policy()).unwrap_or_default();
    let member = target(&policy, attempt.to).ok().map(|(member, _)| member.name.clone());
    let to = Target { address: attempt.to.to_string(), member: member.clone() };
    let what = What::Denied(attempt.kind, reason, member);
    let position = match attempt.kind {
        Kind::Message => {
            let make = move |count| Denied { crew, from, to: to.of(count), reason, rule, count }.into();
            denial::record(core, sandbox, peer, attempt.task.map(|task| &**task), what, make).await
        }
        Kind::Task => {
            let task = task.unwrap_or_default();
            let make = move |count| {
                DelegateDenied { crew, from, task, to: to.of(count), reason, rule, count }.into()
            };
            denial::record(core, sandbox, peer, attempt.task.map(|task| &**task), what, make).await
        }
    };
    match position {
        Some(position) => error.with("position", position.0),
        None => error,
    }
}

/// Where something was denied to go.
struct Target {
    address: String,
    /// `None`: nobody of the crew.
    member: Option<Arc<str>>,
}

/// What stands for several addresses that the crew does not have.
const UNKNOWN: &str = "unknown";

impl Target {
    /// The address as it was given, for one denial; what the addresses have in common, for several.
    fn of(self, count: u64) -> String {
        if count == 1 { self.address } else { self.member.as_deref().unwrap_or(UNKNOWN).to_owned() }
    }
}

/// The member, and where it names one the agent, that an address means.
pub(crate) fn target<'a>(
    policy: &'a CrewPolicy,
    to: &Address,
) -> Result<(&'a crate::policy::Member, Option<AgentId>), Refusal> {
    let unknown = || Refusal::new(Denial::UnknownMember, format!("the crew has no `{to}`"));
    match to {
        Address::Member(name) | Address::All(name) => Ok((policy.member(name).ok_or_else(unknown)?, None)),
        Address::Replica(name, ordinal) => {
            let member = policy.member(name).ok_or_else(unknown)?;
            Ok((member, Some(member.replica(*ordinal).ok_or_else(unknown)?.clone())))
        }
        Address::Agent(id) => {
            let agent: AgentId = id.as_str().parse().map_err(|_| unknown())?;
            Ok((policy.member_of(&agent).ok_or_else(unknown)?, Some(agent)))
        }
    }
}
