//! What a task waits for that nobody works on.

use events::Timestamp;
use events::domain::{agent, crew, task};
use events::projection::AgentView;
use schemars::JsonSchema;
use serde::Serialize;

use super::time_of_ms;

/// What a task waits for before its next attempt can start.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct WaitModel {
    /// `retry` (a pause between attempts), `crew_assembling`, `crew_paused`, `agents_busy`, `agents_down` (they are being
    /// recovered, drain or hibernate) or `agents_gone`: then nothing happens until somebody acts.
    reason: &'static str,
    /// The same for a person, and what to do where something is to be done.
    detail: String,
}

impl WaitModel {
    /// What it waits for, by what is known of its crew and of the agents of its member; `None` where it does not.
    pub(in crate::http) fn of(
        task: &task::State,
        crew: &crew::State,
        agents: &[AgentView],
        now: Timestamp,
    ) -> Option<Self> {
        let submitted = task.submitted.as_ref()?;
        if task.status != task::Status::Submitted || task.attempt.is_some() || task.cancel.is_some() {
            return None;
        }
        if task.not_before_ms > now.millis() {
            let at = time_of_ms(task.not_before_ms);
            return Some(Self { reason: "retry", detail: format!("the next attempt starts at {at}") });
        }
        Self::of_crew(crew).or_else(|| Self::of_member(submitted, crew, agents))
    }

    fn of_crew(crew: &crew::State) -> Option<Self> {
        match crew.status {
            crew::Status::Assembling => {
                let detail = "not all members of the crew have been ready yet".to_owned();
                Some(Self { reason: "crew_assembling", detail })
            }
            crew::Status::Paused => {
                let why = if crew.reason.is_empty() { String::new() } else { format!(" ({})", crew.reason) };
                let detail = format!("the crew is paused{why}; `hypercode crew resume` has it go on");
                Some(Self { reason: "crew_paused", detail })
            }
            _ => None,
        }
    }

    fn of_member(submitted: &task::Submitted, crew: &crew::State, agents: &[AgentView]) -> Option<Self> {
        let member = &submitted.member;
        let wanted = |seat: &crew::Seat| {
            seat.member == *member && submitted.replica.is_none_or(|replica| seat.replica == replica)
        };
        let seats: Vec<&crew::Held> = crew.seats.iter().filter(|held| wanted(&held.seat)).collect();
        let whom = match submitted.replica {
            Some(replica) => format!("`{member}/{replica}`"),
            None => format!("`{member}`"),
        };
        if seats.iter().all(|held| held.given_up.is_some()) {
            return Some(Self { reason: "agents_gone", detail: gone(&whom, member, &seats) });
        }
        let mut down = Vec::new();
        for held in seats.iter().filter(|held| held.given_up.is_none()) {
            let agent = agents.iter().find(|agent| agent.id == held.seat.agent);
            match agent.map(|agent| agent.state.status) {
                Some(agent::Status::Ready) if held.pending.is_none() => {
                    let detail = format!("every agent of {whom} that is up has its hands full");
                    return Some(Self { reason: "agents_busy", detail });
                }
                status => {
                    let status = status.map_or("not up yet", agent::Status::as_str);
                    down.push(format!("{} is {status}", held.seat.agent));
                }
            }
        }
        Some(Self { reason: "agents_down", detail: format!("no agent of {whom} is up: {}", down.join(", ")) })
    }
}

/// Who is gone for good, and how somebody takes their place.
fn gone(whom: &str, member: &str, seats: &[&crew::Held]) -> String {
    if seats.is_empty() {
        return format!("there is no agent of {whom}; `hypercode crew scale CREW {member}=1` makes one");
    }
    let mut remedies = Vec::new();
    let mut told = Vec::new();
    for held in seats {
        let agent = &held.seat.agent;
        match (&held.killed, held.given_up) {
            (Some(_), _) => told.push(format!("{agent} was killed")),
            (None, Some(crew::GivenUp::Quarantined)) => {
                told.push(format!("{agent} failed too often and was set aside"));
                remedies.push(format!("`hypercode agent restart {agent}` brings it back"));
            }
            (None, _) => told.push(format!("{agent} is not brought back")),
        }
    }
    if remedies.is_empty() {
        remedies
            .push(format!("`hypercode crew scale CREW {member}={}` puts others in their place", seats.len()));
    }
    remedies.truncate(1);
    format!("no agent of {whom} is left: {}; {}", told.join(", "), remedies.join(""))
}
