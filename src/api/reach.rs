//! Whether a command is about what whoever gives it may see, and theirs to give.

use events::api::{Command, Problem, ProblemKind};
use events::domain::{agent, task};
use events::{AgentId, CrewId, EntityKind, EventStore, StreamId, TaskId};
use identity::{Grant, Role, Scope, Sight, is_permitted};

use super::crews::{decoded, first};
use super::problem::Refusal;
use super::service::{Admitted, Service};

/// Most tasks that wait one above the other.
const DEPTH_MAX: usize = 64;

impl Service {
    /// Refuses a command about what whoever gives it does not see, as if that did not exist, and an approval of what they
    /// asked for themselves.
    pub(super) async fn check_command(&self, admitted: &Admitted, command: &Command) -> Result<(), Refusal> {
        if admitted.sight != Sight::All {
            self.check_sight(admitted, command).await?;
        }
        self.check_artifacts(admitted, command).await?;
        match command {
            Command::InputAnswer { task, .. } => self.check_approver(admitted, task).await,
            _ => Ok(()),
        }
    }

    async fn check_sight(&self, admitted: &Admitted, command: &Command) -> Result<(), Refusal> {
        let (kind, id, crew) = match command {
            Command::CrewScale { crew, .. }
            | Command::CrewPause { crew }
            | Command::CrewResume { crew, .. }
            | Command::CrewDrain { crew, .. }
            | Command::CrewDisband { crew, .. }
            | Command::CrewKill { crew, .. }
            | Command::TaskSubmit { crew, .. } => (EntityKind::Crew, crew.as_str(), Some(crew.clone())),
            Command::AgentKill { agent, .. }
            | Command::AgentRestart { agent }
            | Command::AgentEraseLogs { agent } => {
                (EntityKind::Agent, agent.as_str(), crew_of_agent(self.store(), agent).await?)
            }
            Command::TaskCancel { task, .. }
            | Command::TaskRetry { task }
            | Command::InputAnswer { task, .. } => {
                let submitted = submitted(self.store(), task).await?;
                (EntityKind::Task, task.as_str(), submitted.map(|submitted| submitted.crew))
            }
            Command::ProfileApply { .. }
            | Command::PoolApply { .. }
            | Command::PoolResize { .. }
            | Command::PoolDrain { .. }
            | Command::CrewAssemble { .. }
            | Command::TenantKill { .. } => {
                let detail = "this is of the whole tenant, and takes a role in it";
                return Err(Problem::new(ProblemKind::Denied, detail).into());
            }
        };
        match admitted.sight.takes_in(crew.as_ref()) {
            true => Ok(()),
            false => Err(Problem::not_found(kind, id).into()),
        }
    }

    /// Whoever answers as an approver and as nothing more does not answer what they asked for themselves.
    async fn check_approver(&self, admitted: &Admitted, task: &TaskId) -> Result<(), Refusal> {
        let Admitted { caller, identity, .. } = admitted;
        let Some(root) = root(self.store(), task).await? else { return Ok(()) };
        if root.tenant != caller.tenant || root.from != caller.principal.as_str() {
            return Ok(());
        }
        let more: Vec<Grant> =
            identity.grants.iter().filter(|grant| grant.role != Role::Approver).cloned().collect();
        let at = Scope::Crew(root.tenant, root.crew);
        if is_permitted(&more, "approval:answer", &at) {
            return Ok(());
        }
        let (who, root) = (&caller.principal, &root.task);
        let detail = format!(
            "{who} submitted the task `{root}`, and an approver does not answer what they asked for themselves: \
             somebody else has to"
        );
        Err(Problem::new(ProblemKind::Denied, detail).into())
    }
}

async fn crew_of_agent(store: &dyn EventStore, agent: &AgentId) -> Result<Option<CrewId>, Refusal> {
    let requested = first(store, &StreamId::new(EntityKind::Agent, agent.as_str())).await?;
    Ok(match requested.as_ref().and_then(decoded) {
        Some(agent::Event::Requested(requested)) => Some(requested.crew),
        _ => None,
    })
}

async fn submitted(store: &dyn EventStore, task: &TaskId) -> Result<Option<task::Submitted>, Refusal> {
    let submitted = first(store, &StreamId::new(EntityKind::Task, task.as_str())).await?;
    Ok(match submitted.as_ref().and_then(decoded) {
        Some(task::Event::Submitted(submitted)) => Some(submitted),
        _ => None,
    })
}

/// The task above which none waits.
async fn root(store: &dyn EventStore, task: &TaskId) -> Result<Option<task::Submitted>, Refusal> {
    let mut found = submitted(store, task).await?;
    for _ in 0..DEPTH_MAX {
        let Some(parent) = found.as_ref().and_then(|task| task.parent.clone()) else { break };
        found = submitted(store, &parent).await?;
    }
    Ok(found)
}
