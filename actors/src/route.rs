//! The way of a command to the node that runs its entity.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::api::{Caller, Command, Commands, Problem, ProblemKind, Reply};
use events::domain::agent::Agent;
use events::domain::task::Task;
use events::lease::shard_of;
use events::{CrewId, PoolId, SandboxId};
use nats::Message;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::commands::Answerer;
use crate::core::Core;
use crate::kills;
use crate::peers::{self, Answer, Ask, Peers, Silence};
use crate::profiles;
use crate::shards::Tenure;

/// Carries out commands, here or on the node that holds their shards.
pub(crate) struct Router {
    core: Arc<Core>,
    here: Answerer,
}

/// What came of asking another node.
enum Elsewhere {
    Answered(Result<Reply, Problem>),
    /// The shard is on its way to another node, or its node gives no sign of life: it is looked for again.
    LookAgain,
}

impl Router {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { here: Answerer { core: Arc::clone(&core) }, core }
    }

    /// What decides on the shard of the command's entity; `None` where there is no such entity.
    async fn key(&self, caller: &Caller, command: &Command) -> Result<Option<String>, Problem> {
        let homes = &self.core.homes;
        let crew = match command {
            Command::ProfileApply { name, .. } => {
                return Ok(Some(profiles::entity_id(&caller.tenant, name)));
            }
            Command::PoolApply { name, .. }
            | Command::PoolResize { name, .. }
            | Command::PoolDrain { name, .. } => {
                return Ok(Some(PoolId::of(&caller.tenant, name).to_string()));
            }
            Command::CrewAssemble { .. } => Some(CrewId::derive(&["crew", &caller.command_id().to_string()])),
            Command::CrewScale { crew, .. }
            | Command::CrewPause { crew }
            | Command::CrewResume { crew, .. }
            | Command::CrewDrain { crew, .. }
            | Command::CrewDisband { crew, .. }
            | Command::CrewKill { crew, .. }
            | Command::TaskSubmit { crew, .. } => Some(crew.clone()),
            Command::TenantKill { .. } => None,
            Command::AgentRestart { agent }
            | Command::AgentKill { agent, .. }
            | Command::AgentEraseLogs { agent } => homes.of::<Agent>(&self.core, agent.as_str()).await?,
            Command::TaskCancel { task, .. }
            | Command::TaskRetry { task }
            | Command::InputAnswer { task, .. } => homes.of::<Task>(&self.core, task.as_str()).await?,
        };
        Ok(crew.map(String::from))
    }

    /// Carries the command out here; `None` if the shard is lost meanwhile.
    async fn execute_here(
        &self,
        tenure: &Tenure,
        caller: &Caller,
        command: &Command,
        is_first: bool,
    ) -> Option<Result<Reply, Problem>> {
        let patience = Duration::from_millis(self.core.options.limits.route_ms);
        let answer = async {
            if tokio::time::timeout(patience, tenure.opened()).await.is_err() {
                let detail = format!("shard {} is still being recovered; try again", tenure.epoch.shard);
                return Err(Problem::new(ProblemKind::Unavailable, detail));
            }
            self.here.execute(caller, command.clone(), is_first).await
        };
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            () = tenure.lost() => return None,
        };
        let moved = answer.as_ref().is_err_and(|problem| problem.kind == ProblemKind::Unavailable);
        (!moved || !tenure.is_lost()).then_some(answer)
    }

    /// Has the shard's node carry the command out.
    async fn execute_there(&self, key: &str, caller: &Caller, command: &Command) -> Elsewhere {
        let (core, shard) = (&self.core, shard_of(key));
        let mut table =
            core.keeper.look(core, Duration::from_millis(core.options.limits.route_retry_ms)).await;
        let holder = table.borrow_and_update().holder(shard).cloned();
        let Some(holder) = holder.filter(|holder| **holder != *core.options.node) else {
            return Elsewhere::LookAgain;
        };
        let Some(peers) = core.peers.get() else {
            let detail =
                format!("node `{holder}` runs this, and there is no bus to reach it over; ask it there");
            return Elsewhere::Answered(Err(Problem::new(ProblemKind::Unavailable, detail)));
        };
        let limit = Duration::from_millis(core.options.limits.handed_over_ms);
        let ask = Ask::Execute { caller: caller.into(), command: command.clone() };
        let answer = tokio::select! {
            answer = peers.ask(&holder, ask, core.clock.now(), limit) => answer,
            // A node that lost the shard while it worked will not answer.
            _ = table.wait_for(|table| table.holder(shard).is_some_and(|now| *now != holder)) => {
                return Elsewhere::LookAgain;
            }
        };
        match answer {
            Ok(Answer::Done { reply }) => Elsewhere::Answered(Ok(reply)),
            Ok(Answer::Refused(refused)) => Elsewhere::Answered(Err(refused.into())),
            Ok(Answer::Moved | Answer::Log { .. }) | Err(Silence::Unheard) => Elsewhere::LookAgain,
            Err(Silence::Unreachable(detail)) => {
                Elsewhere::Answered(Err(Problem::new(ProblemKind::Unavailable, detail)))
            }
        }
    }

    /// Answers what another node asks of this one.
    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Execute { caller, command } => {
                let caller = Caller::from(caller);
                let key = match self.key(&caller, &command).await {
                    Ok(Some(key)) => key,
                    Ok(None) => return Answer::Moved,
                    Err(problem) => return problem.into(),
                };
                let Ok(tenure) = self.core.shards.tenure(&key) else { return Answer::Moved };
                match self.execute_here(&tenure, &caller, &command, false).await {
                    Some(Ok(reply)) => Answer::Done { reply },
                    Some(Err(problem)) => problem.into(),
                    None => Answer::Moved,
                }
            }
            Ask::Log { sandbox, bytes_max } => match log_here(&self.core, &sandbox, bytes_max).await {
                Ok(text) => Answer::Log { text },
                Err(problem) => problem.into(),
            },
        }
    }
}

#[async_trait]
impl Commands for Router {
    async fn execute(&self, caller: &Caller, command: Command) -> Result<Reply, Problem> {
        if let Command::TenantKill { tenant, reason } = &command {
            return kills::kill_tenant(&self.core, self, caller, tenant, reason).await;
        }
        let (mut caller, mut is_first) = (caller.clone(), caller.idempotency_key.is_none());
        // One that is tried on several nodes is one command all the same.
        caller.idempotency_key.get_or_insert_with(|| self.core.clock.fresh_command().to_string().into());
        let Some(key) = self.key(&caller, &command).await? else {
            return self.here.execute(&caller, command, is_first).await;
        };
        let limits = &self.core.options.limits;
        let until = Instant::now() + Duration::from_millis(limits.route_ms);
        loop {
            let away = match self.core.shards.tenure(&key) {
                Ok(tenure) => match self.execute_here(&tenure, &caller, &command, is_first).await {
                    Some(answer) => return answer,
                    None => {
                        is_first = false;
                        continue;
                    }
                },
                Err(away) => away,
            };
            if self.core.stop.is_cancelled() || Instant::now() >= until {
                return Err(away);
            }
            if let Elsewhere::Answered(answer) = self.execute_there(&key, &caller, &command).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(limits.route_retry_ms)).await;
        }
    }
}

/// The end of a sandbox's log, on whichever node it is; `None` where there is no such sandbox (any more).
pub(crate) async fn log(
    core: &Core,
    node: Option<&str>,
    sandbox: &SandboxId,
    bytes_max: u64,
) -> Result<Option<String>, Problem> {
    let Some(node) = node.filter(|node| *node != core.options.node) else {
        return log_here(core, sandbox, bytes_max).await;
    };
    let unavailable = |detail: String| Problem::new(ProblemKind::Unavailable, detail);
    let Some(peers) = core.peers.get() else {
        return Err(unavailable(format!("it is on node `{node}`, and there is no bus to reach that over")));
    };
    let ask = Ask::Log { sandbox: sandbox.clone(), bytes_max };
    let limit = Duration::from_millis(core.options.limits.route_ms);
    match peers.ask(node, ask, core.clock.now(), limit).await {
        Ok(Answer::Log { text }) => Ok(text),
        Ok(Answer::Refused(refused)) => Err(refused.into()),
        Ok(Answer::Done { .. } | Answer::Moved) => Ok(None),
        Err(Silence::Unheard) => Err(unavailable(format!("it was on node `{node}`, which does not answer"))),
        Err(Silence::Unreachable(detail)) => Err(unavailable(detail)),
    }
}

async fn log_here(core: &Core, sandbox: &SandboxId, bytes_max: u64) -> Result<Option<String>, Problem> {
    let unavailable = |error: sandbox::Error| Problem::new(ProblemKind::Unavailable, error.to_string());
    let id = sandbox::Id::new(sandbox.as_str()).map_err(unavailable)?;
    core.provider.log(&id, bytes_max).await.map_err(unavailable)
}

/// Takes what other nodes ask, for as long as the node runs.
pub(crate) async fn serve(core: Arc<Core>, peers: Peers) {
    let limits = &core.options.limits;
    let (retry, most) = (Duration::from_millis(limits.route_retry_ms), limits.handed_over_max);
    let (router, places) = (Arc::new(Router::new(Arc::clone(&core))), Arc::new(Semaphore::new(most)));
    loop {
        let heard = peers.bus().subscribe(peers::subject(&core.options.node).into(), None).await;
        match heard {
            Ok(mut heard) => {
                while let Some(message) = heard.next().await {
                    take(&router, &peers, &places, message);
                }
            }
            Err(error) => tracing::warn!(%error, "other nodes cannot ask this one at the moment"),
        }
        tokio::time::sleep(retry).await;
    }
}

fn take(router: &Arc<Router>, peers: &Peers, places: &Arc<Semaphore>, message: Message) {
    let Some(ask) = peers.asked(&message, router.core.clock.now()) else {
        tracing::warn!(subject = %message.subject, "a message that is none of a node's is let go");
        return;
    };
    let place = Arc::clone(places).try_acquire_owned();
    let (router, peers) = (Arc::clone(router), peers.clone());
    Arc::clone(&router.core).spawn_always(async move {
        let answer = match place {
            Ok(_place) => router.answer(ask).await,
            Err(_) => {
                Problem::new(ProblemKind::Busy, "the node that runs this has too much to do; try again")
                    .into()
            }
        };
        peers.answer(&message, &answer).await;
    });
}
