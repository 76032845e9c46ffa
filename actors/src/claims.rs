//! Claims: where an incarnation's sandbox comes from.
//!
//! The agent's own event is the claim, with a reservation of the sandbox's id in the same append. What is found here
//! is only held for it: an agent that already has a sandbox, or that loses the race, gives it back.

use std::sync::Arc;
use std::time::Duration;

use events::domain::agent::{Agent, Claim, Command, State};
use events::store::Reservation;
use events::{AgentId, CommandId, Digest, Incarnation, Meta, PoolId, SandboxId, StreamId, Tenant};
use events::{EntityKind, api::Problem, api::ProblemKind};

use crate::core::Core;
use crate::entity::Outcome;
use crate::hosted;
use crate::profiles::Wish;
use crate::shelves::{ColdStart, Found, Taken};

/// A sandbox that is held for a claim.
enum Held {
    /// It stands by.
    Standby(Taken),
    /// It is to be made.
    Cold(Option<ColdStart>),
}

/// Whether an agent may be refused a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It is new: who asks for too many is told so.
    New,
    /// It was promised: it is started cold rather than not at all (SV-1).
    Promised,
}

/// For whom a sandbox is claimed.
pub(crate) struct Claimant {
    pub(crate) agent: AgentId,
    pub(crate) incarnation: Incarnation,
    pub(crate) tenant: Tenant,
    /// Its profile's name and digest.
    pub(crate) profile: (String, Digest),
    /// The pool from which it may claim.
    pub(crate) pool: Option<PoolId>,
    pub(crate) urgency: Urgency,
}

impl Claimant {
    /// Gives the agent the command that `make` makes of a claim, with one sandbox after the other until one is its own.
    pub(crate) async fn claim(
        &self,
        core: &Arc<Core>,
        make: impl Fn(Claim) -> Command,
        command_id: CommandId,
        meta: Meta,
    ) -> Result<Outcome<Agent>, Problem> {
        loop {
            let held = self.found(core).await?;
            let sandbox = match &held {
                Held::Standby(taken) => taken.sandbox().clone(),
                Held::Cold(_) => self.own_sandbox(),
            };
            let pool = matches!(held, Held::Standby(_)).then(|| self.pool.clone()).flatten();
            let claim = Claim {
                sandbox: sandbox.clone(),
                kind: core.provider.kind().to_string(),
                isolation: core.provider.isolation().level.to_string(),
                node: core.options.node.clone(),
                pool,
            };
            let id = self.agent.as_str();
            match core.command(&core.agents, id, make(claim), command_id, meta.clone()).await {
                Ok(outcome) => {
                    self.settle(core, held, &outcome.state);
                    return Ok(outcome);
                }
                Err(problem) if problem.kind == ProblemKind::Conflict => {
                    let Held::Standby(taken) = held else { return Err(problem) };
                    let holder = core.insist("who has a sandbox", || holder(core, &sandbox)).await?;
                    let Some(holder) = holder.filter(|holder| *holder.id != *id) else { return Err(problem) };
                    tracing::warn!(%sandbox, %holder, "a sandbox that stood by is somebody's already");
                    let pool = taken.pool().clone();
                    taken.claimed();
                    core.insist("what a pool is to know", || hosted::learn_claim(core, &pool, &sandbox))
                        .await?;
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    /// The sandbox that is made for this incarnation: always the same id, so that a repeated claim claims nothing new.
    fn own_sandbox(&self) -> SandboxId {
        SandboxId::derive(&["sandbox", self.agent.as_str(), &self.incarnation.to_string()])
    }

    /// A sandbox, from the pool or of its own.
    async fn found(&self, core: &Arc<Core>) -> Result<Held, Problem> {
        let Some(pool) = &self.pool else { return Ok(Held::Cold(None)) };
        let (tenant, name) = (&self.tenant, self.profile.0.as_str());
        let ask = || core.profiles.get(&*core.store, tenant, name, self.profile.1);
        let profile = core.insist("the profile of who claims", ask).await?;
        loop {
            if let Some(held) = self.find(core, pool, profile.wish()).await? {
                return Ok(held);
            }
        }
    }

    /// The same, if nobody sends those who wait away meanwhile.
    async fn find(&self, core: &Arc<Core>, pool: &PoolId, wish: Wish<'_>) -> Result<Option<Held>, Problem> {
        let now_ms = core.clock.now().millis();
        let held = match core.shelves.take(pool, self.profile.1, wish, now_ms) {
            Found::Standby(taken) => Held::Standby(taken),
            Found::Cold(start) => Held::Cold(Some(start)),
            Found::Elsewhere => Held::Cold(None),
            Found::Full => self.refused(core, pool, "too many agents wait for its sandboxes already")?,
            Found::Turn(turn) => {
                let limit = Duration::from_millis(core.shelves.deadline_ms(pool));
                let turn = tokio::time::timeout(limit, turn).await;
                let waited = core.clock.now().millis().saturating_sub(now_ms);
                let got_one = matches!(turn, Ok(Ok(_)));
                core.shelves.waited(pool, u64::try_from(waited).unwrap_or_default(), got_one);
                match turn {
                    Ok(Ok(taken)) => Held::Standby(taken),
                    Ok(Err(_)) => return Ok(None),
                    Err(_) => match core.shelves.cold_start(pool) {
                        Some(start) => Held::Cold(Some(start)),
                        None => self.refused(
                            core,
                            pool,
                            &format!("none of its sandboxes came free in {waited} ms"),
                        )?,
                    },
                }
            }
        };
        Ok(Some(held))
    }

    fn refused(&self, core: &Arc<Core>, pool: &PoolId, why: &str) -> Result<Held, Problem> {
        if self.urgency == Urgency::Promised {
            core.shelves.fell_back(pool);
            return Ok(Held::Cold(None));
        }
        Err(Problem::new(ProblemKind::Failed, format!("its pool has nothing that stands by: {why}")))
    }

    /// The claim is decided: what is not the agent's goes back.
    fn settle(&self, core: &Arc<Core>, held: Held, state: &State) {
        let is_own = |sandbox: &SandboxId| {
            state.sandbox.as_ref() == Some(sandbox) || state.retired.as_ref() == Some(sandbox)
        };
        match held {
            Held::Standby(taken) if is_own(taken.sandbox()) => taken.claimed(),
            Held::Standby(taken) => drop(taken),
            Held::Cold(None) => {}
            Held::Cold(Some(start)) => self.count_until_up(core, start, state),
        }
    }

    /// A cold start is under way until the incarnation is up or over.
    fn count_until_up(&self, core: &Arc<Core>, start: ColdStart, state: &State) {
        use events::domain::agent::Status as S;
        let Some(requested) = &state.requested else { return };
        let (worker, agent, incarnation) = (Arc::clone(core), self.agent.clone(), self.incarnation);
        core.spawn_for(&requested.crew, async move {
            let is_over = |state: &State| {
                state.incarnation != incarnation || !matches!(state.status, S::Provisioning | S::Warming)
            };
            worker.until(&worker.agents, agent.as_str(), is_over).await;
            drop(start);
        });
    }
}

/// The agent that has claimed a sandbox, if one has.
pub(crate) async fn holder(core: &Core, sandbox: &SandboxId) -> Result<Option<StreamId>, Problem> {
    let name = Reservation { namespace: "sandbox".into(), key: sandbox.as_str().into() };
    let holder = core.store.find_reservation(&name).await?;
    Ok(holder.filter(|holder| holder.kind == EntityKind::Agent))
}
