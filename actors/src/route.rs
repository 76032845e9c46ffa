//! The way of a command to the node that runs its entity.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::CrewId;
use events::api::{Caller, Command, Commands, Problem, ProblemKind, Reply};
use events::domain::agent::Agent;
use events::domain::task::Task;
use tokio::time::Instant;

use crate::commands::Answerer;
use crate::core::Core;
use crate::profiles;
use crate::shards::Tenure;

/// Carries out a command on the node that holds its shard.
pub(crate) struct Router {
    core: Arc<Core>,
    here: Answerer,
}

impl Router {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { here: Answerer { core: Arc::clone(&core) }, core }
    }

    /// What decides on the shard of the command's entity; `None` where there is no such entity.
    async fn key(&self, caller: &Caller, command: &Command) -> Result<Option<String>, Problem> {
        let crew = match command {
            Command::ProfileApply { name, .. } => {
                return Ok(Some(profiles::entity_id(&caller.tenant, name)));
            }
            Command::CrewAssemble { .. } => Some(CrewId::derive(&["crew", &caller.command_id().to_string()])),
            Command::CrewScale { crew, .. }
            | Command::CrewPause { crew }
            | Command::CrewResume { crew }
            | Command::CrewDrain { crew }
            | Command::CrewDisband { crew, .. }
            | Command::TaskSubmit { crew, .. } => Some(crew.clone()),
            Command::AgentRestart { agent } => {
                self.core.homes.of::<Agent>(&self.core, agent.as_str()).await?
            }
            Command::TaskCancel { task, .. }
            | Command::TaskRetry { task }
            | Command::InputAnswer { task, .. } => {
                self.core.homes.of::<Task>(&self.core, task.as_str()).await?
            }
        };
        Ok(crew.map(String::from))
    }

    /// Carries the command out here; `None` if the shard is lost meanwhile.
    async fn execute_here(
        &self,
        tenure: &Tenure,
        caller: &Caller,
        command: &Command,
    ) -> Option<Result<Reply, Problem>> {
        let answer = async {
            tenure.opened().await;
            self.here.execute(caller, command.clone()).await
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = tenure.lost() => return None,
        };
        let moved = answer.as_ref().is_err_and(|problem| problem.kind == ProblemKind::Unavailable);
        (!moved || !tenure.is_lost()).then_some(answer)
    }
}

#[async_trait]
impl Commands for Router {
    async fn execute(&self, caller: &Caller, command: Command) -> Result<Reply, Problem> {
        let mut caller = caller.clone();
        // One that is tried on several nodes is one command all the same.
        caller.idempotency_key.get_or_insert_with(|| self.core.clock.fresh_command().to_string().into());
        let Some(key) = self.key(&caller, &command).await? else {
            return self.here.execute(&caller, command).await;
        };
        let limits = &self.core.options.limits;
        let until = Instant::now() + Duration::from_millis(limits.route_ms);
        loop {
            let away = match self.core.shards.tenure(&key) {
                Ok(tenure) => match self.execute_here(&tenure, &caller, &command).await {
                    Some(answer) => return answer,
                    None => continue,
                },
                Err(away) => away,
            };
            if self.core.stop.is_cancelled() || Instant::now() >= until {
                return Err(away);
            }
            tokio::time::sleep(Duration::from_millis(limits.route_retry_ms)).await;
        }
    }
}
