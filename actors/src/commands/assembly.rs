//! How a crew comes into being.

use std::collections::{BTreeMap, BTreeSet};

use events::api::{Problem, ProblemKind, Reply};
use events::domain::crew::{self, Allowance, AssemblyStarted, OnBreach, Status, name_reservation};
use events::supervision::{Backoff, ChildKind, OnExhausted, Policy, Strategy};
use events::{CrewId, EntityKind};
use manifest::{CrewSpec, Fault, Name};
use serde_json::{Value, json};

use super::{APPLY_FIRST, Answerer, Asked, reply};
use crate::contents;
use crate::hosted;

impl Answerer {
    pub(super) async fn assemble(
        &self,
        asked: &Asked<'_>,
        name: String,
        labels: BTreeMap<String, String>,
        spec: Value,
    ) -> Result<Reply, Problem> {
        let checked: CrewSpec = serde_json::from_value(spec)
            .map_err(|error| Problem::new(ProblemKind::Invalid, format!("crew `{name}`: {error}")))?;
        gate(&name, &checked)?;
        let command_id = asked.caller.command_id();
        let crew = CrewId::derive(&["crew", &command_id.to_string()]);
        let earlier =
            if asked.is_first { None } else { self.core.crews.read(crew.as_str()).await?.started.clone() };
        let started = match earlier {
            // It was asked for before, and begins no second time, whatever has become of profiles and pools.
            Some(started) => started,
            None => {
                self.check_pool(asked, &crew, &checked).await?;
                self.started(asked, &crew, name.clone(), labels, &checked).await?
            }
        };
        let command = crew::Command::Assemble(started);
        let outcome = match self.give(&self.core.crews, asked, crew.as_str(), command).await {
            Ok(outcome) => outcome,
            Err(problem) if problem.kind == ProblemKind::Conflict => {
                return Err(self.name_taken(asked, &name, &crew).await.unwrap_or(problem));
            }
            Err(problem) => return Err(problem),
        };
        // Who is told that it failed finds nothing of it left.
        let is_settled = |state: &crew::State| !matches!(state.status, Status::Assembling | Status::Failed);
        let settled = self.core.crews.wait(crew.as_str(), is_settled).await?;
        let position = self.position(asked, &outcome).await?.max(self.core.store.head().await?.position);
        if settled.status.has_ended() && settled.assembled_ms.is_none() {
            let mut problem =
                Problem::new(ProblemKind::Failed, format!("crew was not assembled: {}", settled.reason));
            problem.position = Some(position);
            return Err(problem);
        }
        let told = |seat: &crew::Seat| json!({ "agent": seat.agent, "member": seat.member, "replica": seat.replica });
        let agents: Vec<Value> = match (&settled.started, settled.status.has_ended()) {
            // Those it had, for who asks again.
            (Some(started), true) => started.seats.iter().map(told).collect(),
            _ => settled.kept().map(|held| told(&held.seat)).collect(),
        };
        let body = json!({ "crew": crew, "status": settled.status, "agents": agents });
        Ok(reply(EntityKind::Crew, crew.as_str(), position, body))
    }

    async fn started(
        &self,
        asked: &Asked<'_>,
        crew: &CrewId,
        name: String,
        labels: BTreeMap<String, String>,
        spec: &CrewSpec,
    ) -> Result<AssemblyStarted, Problem> {
        let limits = &self.core.options.limits;
        let now = self.core.clock.now();
        let mut seats = Vec::new();
        let mut unknown = Vec::new();
        let mut slowest_ms = 0;
        for (index, member) in spec.members.iter().enumerate() {
            let Some((applied, checked)) = self.find_profile(asked, &member.profile).await? else {
                unknown
                    .push((&member.profile, manifest::unknown_profile(index, &member.profile, APPLY_FIRST)));
                continue;
            };
            slowest_ms = slowest_ms.max(checked.handler.start_timeout.as_millis());
            let profile = (applied.name.as_str(), applied.version, applied.digest);
            let name = member.name.as_str();
            seats.extend(hosted::seats(
                crew,
                name,
                member.replicas,
                &[],
                0,
                profile,
                restart(member.restart),
            ));
        }
        if !unknown.is_empty() {
            return Err(unknown_profiles(&unknown));
        }
        Ok(AssemblyStarted {
            crew: crew.clone(),
            tenant: asked.caller.tenant.clone(),
            name,
            labels,
            spec: contents::wire(spec),
            entry: spec.entry.as_str().to_owned(),
            policy: policy(spec),
            seats,
            ready_by_ms: now.plus_ms(limits.assembly_ms + slowest_ms).millis(),
            expires_at_ms: spec.ttl.map(|ttl| now.plus_ms(ttl.as_millis()).millis()),
            allowance: allowance(spec),
        })
    }

    /// Why the crew cannot have its name, if another has it.
    async fn name_taken(&self, asked: &Asked<'_>, name: &str, crew: &CrewId) -> Option<Problem> {
        let holder = self.core.store.find_reservation(&name_reservation(&asked.caller.tenant, name)).await;
        let holder = holder.ok().flatten().filter(|holder| *holder.id != *crew.as_str())?;
        let detail = format!(
            "a crew named `{name}` exists already (`{}`); disband it with `hypercode crew disband {name}`, or choose another name",
            holder.id
        );
        Some(Problem::new(ProblemKind::Conflict, detail))
    }
}

/// All of them at once, each with the field that names it.
fn unknown_profiles(unknown: &[(&Name, Fault)]) -> Problem {
    let names: BTreeSet<String> = unknown.iter().map(|(name, _)| format!("`{name}`")).collect();
    let names: Vec<String> = names.into_iter().collect();
    let detail = match &names[..] {
        [name] => format!("profile {name} does not exist; {APPLY_FIRST}"),
        names => format!(
            "profiles {} do not exist; apply them first with `hypercode profile apply FILE`",
            names.join(", ")
        ),
    };
    let faults = unknown.iter().map(|(_, fault)| fault.to_json()).collect();
    Problem { faults, ..Problem::new(ProblemKind::Invalid, detail) }
}

/// GY-1: nothing certifies agents here, so that a crew which requires certificates is never started.
fn gate(name: &str, spec: &CrewSpec) -> Result<(), Problem> {
    let required: Vec<&str> =
        spec.gym.iter().flat_map(|gym| &gym.require).map(manifest::Name::as_str).collect();
    if required.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "crew `{name}` requires certificates of the suites {}, and none of its profiles has one; leave `spec.gym.require` out \
         to run the crew without validation",
        required.join(", ")
    );
    Err(Problem::new(ProblemKind::Failed, detail))
}

fn restart(kind: manifest::Restart) -> ChildKind {
    match kind {
        manifest::Restart::Permanent => ChildKind::Permanent,
        manifest::Restart::Transient => ChildKind::Transient,
        manifest::Restart::Temporary => ChildKind::Temporary,
    }
}

fn allowance(spec: &CrewSpec) -> Allowance {
    let budget = &spec.budget;
    Allowance {
        tokens: budget.tokens,
        wall_ms: budget.wall_time.map(manifest::Millis::as_millis),
        messages: budget.messages,
        on_breach: match budget.on_breach {
            manifest::OnBreach::Suspend => OnBreach::Suspend,
            manifest::OnBreach::Disband => OnBreach::Disband,
        },
    }
}

fn policy(spec: &CrewSpec) -> Policy {
    let supervision = &spec.supervision;
    Policy {
        strategy: match supervision.strategy {
            manifest::Strategy::OneForOne => Strategy::OneForOne,
            manifest::Strategy::OneForAll => Strategy::OneForAll,
            manifest::Strategy::RestForOne => Strategy::RestForOne,
        },
        max_restarts: supervision.max_restarts,
        within_ms: supervision.within.as_millis(),
        backoff: Backoff {
            initial_ms: supervision.backoff.initial.as_millis(),
            max_ms: supervision.backoff.max.as_millis(),
            jitter: supervision.backoff.jitter,
        },
        on_exhausted: match supervision.on_exhausted {
            manifest::OnExhausted::Quarantine => OnExhausted::Quarantine,
            manifest::OnExhausted::Disband => OnExhausted::Disband,
            manifest::OnExhausted::Escalate => OnExhausted::Escalate,
        },
        stable_after_ms: supervision.within.as_millis(),
    }
}
