//! The command API over entities: one implementation behind every door.

use std::sync::Arc;

use events::api::{Caller, Command, Problem, ProblemKind, Reply};
use events::domain::crew::{self, Status};
use events::domain::killed::Killed;
use events::domain::{Decider, agent, profile, task};
use events::{AgentId, CommandId, CrewId, Digest, EntityKind, Meta, Position, TaskId};
use manifest::ProfileSpec;
use serde_json::{Value, json};

use crate::contents;
use crate::core::Core;
use crate::directory::Directory;
use crate::entity::{Hosted, Outcome, Request, peek};
use crate::hosted;
use crate::profiles;
use crate::submit::{self, Order};

mod assembly;
mod pool;
mod told;

/// What to do about a profile that does not exist.
const APPLY_FIRST: &str = "apply it first with `hypercode profile apply FILE`";
/// Content of a task as it may come in, in bytes of JSON: what fits a frame of the link.
const INPUT_BYTES_MAX: usize = 200 * 1024;

/// Answers commands.
pub(crate) struct Answerer {
    pub(crate) core: Arc<Core>,
}

impl Answerer {
    /// Carries a command out; `is_first` if nobody can have given it before.
    pub(crate) async fn execute(
        &self,
        caller: &Caller,
        command: Command,
        is_first: bool,
    ) -> Result<Reply, Problem> {
        self.carry_out(caller, command, is_first).await.map_err(|mut problem| {
            // They know it by their key, and not by what was made of it.
            if let (ProblemKind::KeyConflict, Some(key)) = (problem.kind, &caller.idempotency_key) {
                problem.detail = format!("the key `{key}` was used before for something else");
            }
            problem
        })
    }

    async fn carry_out(&self, caller: &Caller, command: Command, is_first: bool) -> Result<Reply, Problem> {
        if self.core.stop.is_cancelled() {
            return Err(Problem::new(ProblemKind::Unavailable, "the platform is shutting down"));
        }
        let digest = (!is_first).then(|| Digest::of(contents::wire(&command).to_string().as_bytes()));
        let asked = &Asked { caller, digest, is_first };
        match command {
            Command::ProfileApply { name, spec, bundle } => self.apply(asked, &name, spec, bundle).await,
            Command::PoolApply { name, spec } => self.apply_pool(asked, &name, spec).await,
            Command::PoolResize { name, min, max, target } => {
                self.resize_pool(asked, &name, (min, max, target)).await
            }
            Command::PoolDrain { name, reason } => self.drain_pool(asked, &name, reason).await,
            Command::CrewAssemble { name, labels, spec } => self.assemble(asked, name, labels, spec).await,
            Command::CrewScale { crew, member, replicas } => {
                self.scale(asked, &crew, &member, replicas).await
            }
            Command::CrewPause { crew } => self.crew(asked, &crew, crew::Command::Pause).await,
            Command::CrewResume { crew, raised } => {
                self.crew(asked, &crew, crew::Command::Resume { raised }).await
            }
            Command::CrewDrain { crew, grace_ms } => {
                self.crew(asked, &crew, crew::Command::Drain { grace_ms }).await
            }
            Command::CrewDisband { crew, reason } => {
                self.crew(asked, &crew, crew::Command::Disband { reason }).await?;
                let gone = self.core.crews.wait(crew.as_str(), |state| state.status == Status::Disbanded);
                let body = json!({ "crew": crew, "status": gone.await?.status });
                let position = self.core.store.head().await?.position;
                Ok(reply(EntityKind::Crew, crew.as_str(), position, body))
            }
            Command::CrewKill { crew, reason } => {
                let killed = self.killed(asked, reason);
                self.crew(asked, &crew, crew::Command::Kill(killed)).await
            }
            Command::TenantKill { .. } => {
                Err(Problem::new(ProblemKind::Internal, "a tenant is killed crew by crew, and not as one"))
            }
            Command::AgentKill { agent, reason } => self.kill(asked, &agent, reason).await,
            Command::AgentRestart { agent } => self.restart(asked, &agent).await,
            Command::AgentEraseLogs { agent } => self.erase_logs(asked, &agent).await,
            Command::TaskSubmit { crew, to, input, subject, context, deadline_ms } => {
                let wanted = Wanted { to, input, subject, context, deadline_ms };
                self.submit(asked, &crew, wanted).await
            }
            Command::TaskCancel { task, reason } => {
                self.task(asked, &task, task::Command::Cancel { reason, by_parent: false }).await
            }
            Command::TaskRetry { task } => self.retry(asked, &task).await,
            Command::InputAnswer { task, key, accept, content } => {
                self.answer(asked, &task, key, accept, content).await
            }
        }
    }
}

/// Who asks, and, under a key, the digest of all that is asked: it must be the same each time (ES-5).
struct Asked<'a> {
    caller: &'a Caller,
    digest: Option<Digest>,
    /// Nobody can have asked it before.
    is_first: bool,
}

/// What is wanted of a crew.
struct Wanted {
    to: Option<String>,
    input: Value,
    subject: Option<String>,
    context: Option<String>,
    deadline_ms: Option<u64>,
}

fn meta(caller: &Caller, command_id: CommandId) -> Meta {
    Meta { correlation_id: Some(command_id.to_string().into()), ..caller.meta() }
}

fn reply(kind: EntityKind, id: &str, position: Position, body: Value) -> Reply {
    Reply { kind, id: id.to_owned(), position, body }
}

impl Answerer {
    async fn give<D: Hosted>(
        &self,
        directory: &Directory<D>,
        asked: &Asked<'_>,
        id: &str,
        command: D::Command,
    ) -> Result<Outcome<D>, Problem> {
        let command_id = asked.caller.command_id();
        let meta = meta(asked.caller, command_id);
        let request = Request { command, command_id, digest: asked.digest, meta, is_first: false };
        directory.execute(id, request).await
    }

    /// What a reader must have read to see the outcome: of a command that is given again, its first outcome (ES-5); of
    /// one that found all as it wants it, the log's end.
    async fn position<D: Decider>(
        &self,
        asked: &Asked<'_>,
        outcome: &Outcome<D>,
    ) -> Result<Position, Problem> {
        if outcome.position > Position(0) {
            return Ok(outcome.position);
        }
        match self.core.store.find_command(asked.caller.command_id()).await? {
            Some(first) => Ok(first.position),
            None => Ok(self.core.store.head().await?.position),
        }
    }

    async fn apply(
        &self,
        asked: &Asked<'_>,
        name: &str,
        spec: Value,
        bundle: Option<Digest>,
    ) -> Result<Reply, Problem> {
        let checked: ProfileSpec = serde_json::from_value(spec)
            .map_err(|error| Problem::new(ProblemKind::Invalid, format!("profile `{name}`: {error}")))?;
        if let Some(bundle) = bundle
            && !self
                .core
                .artifacts
                .has(bundle)
                .await
                .map_err(|e| Problem::new(ProblemKind::Unavailable, e.to_string()))?
        {
            let detail = format!(
                "profile `{name}`: its source {bundle} is not in the artifact store; put it there first"
            );
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let image = match &checked.image {
            Some(image) => self.pin(&format!("profile `{name}`"), image).await?,
            None => None,
        };
        self.check_runtime(&format!("profile `{name}`"), checked.runtime_class.as_deref()).await?;
        let command = profile::Command::Apply {
            tenant: asked.caller.tenant.clone(),
            name: name.to_owned(),
            spec: contents::wire(checked),
            bundle,
            image,
        };
        let id = profiles::entity_id(&asked.caller.tenant, name);
        let outcome = self.give(&self.core.profile_entities, asked, &id, command).await?;
        let position = self.position(asked, &outcome).await?;
        let body = outcome.state.current.as_ref().map_or(
            Value::Null,
            |current| json!({ "name": current.name, "version": current.version, "digest": current.digest }),
        );
        Ok(reply(EntityKind::Profile, &id, position, body))
    }

    /// What the image's name stands for now: all sandboxes of what is applied are made of it, whatever becomes of the name.
    async fn pin(&self, applied: &str, image: &str) -> Result<Option<String>, Problem> {
        self.core.provider.pin(image).await.map_err(|error| {
            let is_unfit = matches!(error, sandbox::Error::Image { .. });
            let kind = if is_unfit { ProblemKind::Invalid } else { ProblemKind::Unavailable };
            Problem::new(kind, format!("{applied}, `spec.image`: failed to {error}"))
        })
    }

    /// Makes sure that sandboxes can be run by the runtime that is named.
    async fn check_runtime(&self, applied: &str, runtime: Option<&str>) -> Result<(), Problem> {
        let Some(runtime) = runtime else { return Ok(()) };
        self.core.provider.check_runtime(runtime).await.map_err(|error| {
            let is_unfit =
                matches!(error, sandbox::Error::Invalid { .. } | sandbox::Error::Unsupported { .. });
            let kind = if is_unfit { ProblemKind::Invalid } else { ProblemKind::Unavailable };
            Problem::new(kind, format!("{applied}, `spec.runtimeClass`: failed to {error}"))
        })
    }

    /// A crew of the caller's tenant; of others nobody is told that they exist.
    async fn own_crew(&self, asked: &Asked<'_>, crew: &CrewId) -> Result<Arc<crew::State>, Problem> {
        let state = self.core.crews.read(crew.as_str()).await?;
        let own = state.started.as_ref().is_some_and(|started| started.tenant == asked.caller.tenant);
        if own { Ok(state) } else { Err(Problem::not_found(EntityKind::Crew, crew.as_str())) }
    }

    async fn crew(&self, asked: &Asked<'_>, crew: &CrewId, command: crew::Command) -> Result<Reply, Problem> {
        self.own_crew(asked, crew).await?;
        let outcome = self.give(&self.core.crews, asked, crew.as_str(), command).await?;
        let position = self.position(asked, &outcome).await?;
        let body = json!({ "crew": crew, "status": outcome.state.status });
        Ok(reply(EntityKind::Crew, crew.as_str(), position, body))
    }

    /// The newest version of a profile.
    async fn profile(
        &self,
        asked: &Asked<'_>,
        name: &str,
    ) -> Result<(profile::Applied, ProfileSpec), Problem> {
        let found = self.find_profile(asked, name).await?;
        found.ok_or_else(|| {
            let detail = format!("profile `{name}` does not exist; {APPLY_FIRST}");
            Problem::new(ProblemKind::Invalid, detail)
        })
    }

    /// The newest version of a profile, if it was ever applied.
    async fn find_profile(
        &self,
        asked: &Asked<'_>,
        name: &str,
    ) -> Result<Option<(profile::Applied, ProfileSpec)>, Problem> {
        let id = profiles::entity_id(&asked.caller.tenant, name);
        // The profile may be another node's; the log has it all the same.
        let state = peek::<profile::Profile>(&self.core, &id).await?;
        let Some(applied) = state.current.clone() else { return Ok(None) };
        let checked = profiles::parse(&applied)?;
        Ok(Some((applied, checked.spec)))
    }

    async fn scale(
        &self,
        asked: &Asked<'_>,
        crew: &CrewId,
        member: &str,
        replicas: u32,
    ) -> Result<Reply, Problem> {
        if !(1..=manifest::Member::REPLICAS_MAX).contains(&replicas) {
            let detail = format!("replicas {replicas}: expected 1 to {}", manifest::Member::REPLICAS_MAX);
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let state = self.own_crew(asked, crew).await?;
        let of_member = |held: &&crew::Held| held.seat.member == member;
        let existing: Vec<&crew::Seat> = state.kept().filter(of_member).map(|held| &held.seat).collect();
        // All that it had may be killed: then it is filled anew.
        let Some(first) = state.seats.iter().find(of_member).map(|held| &held.seat) else {
            let detail = format!("crew `{crew}` has no member `{member}`");
            return Err(Problem::new(ProblemKind::NotFound, detail));
        };
        let profile = (first.profile.as_str(), first.profile_version, first.profile_digest);
        let seats =
            hosted::seats(crew, member, replicas, &existing, state.seats.len(), profile, first.restart);
        self.crew(asked, crew, crew::Command::Scale { member: member.to_owned(), seats }).await
    }

    /// An agent of the caller's tenant, and what was asked for.
    async fn own_agent(
        &self,
        asked: &Asked<'_>,
        agent: &AgentId,
    ) -> Result<(Arc<agent::State>, agent::Requested), Problem> {
        let state = self.core.agents.read(agent.as_str()).await?;
        let requested = state.requested.clone().filter(|requested| requested.tenant == asked.caller.tenant);
        let requested = requested.ok_or_else(|| Problem::not_found(EntityKind::Agent, agent.as_str()))?;
        Ok((state, requested))
    }

    async fn erase_logs(&self, asked: &Asked<'_>, agent: &AgentId) -> Result<Reply, Problem> {
        self.own_agent(asked, agent).await?;
        let outcome = self.give(&self.core.agents, asked, agent.as_str(), agent::Command::EraseLogs).await?;
        let position = self.position(asked, &outcome).await?;
        let body = json!({ "agent": agent, "incarnation": outcome.state.logs_erased_to });
        Ok(reply(EntityKind::Agent, agent.as_str(), position, body))
    }

    async fn restart(&self, asked: &Asked<'_>, agent: &AgentId) -> Result<Reply, Problem> {
        let (state, requested) = self.own_agent(asked, agent).await?;
        let command = crew::Command::Restart { agent: agent.clone(), incarnation: state.incarnation };
        let outcome = self.give(&self.core.crews, asked, requested.crew.as_str(), command).await?;
        let position = self.position(asked, &outcome).await?;
        let body = json!({ "agent": agent, "incarnation": state.incarnation.next() });
        Ok(reply(EntityKind::Agent, agent.as_str(), position, body))
    }

    /// What the caller has decided.
    fn killed(&self, asked: &Asked<'_>, reason: String) -> Killed {
        Killed { by: asked.caller.principal.clone(), reason, at_ms: self.core.clock.now().millis() }
    }

    /// The crew takes note first, so that nothing has the agent back; its sandbox is cut off by then.
    async fn kill(&self, asked: &Asked<'_>, agent: &AgentId, reason: String) -> Result<Reply, Problem> {
        let (_, requested) = self.own_agent(asked, agent).await?;
        let command = crew::Command::KillAgent { agent: agent.clone(), killed: self.killed(asked, reason) };
        let outcome = self.give(&self.core.crews, asked, requested.crew.as_str(), command).await?;
        let position = self.position(asked, &outcome).await?;
        let killed = outcome.state.seat(agent).and_then(|held| held.killed.as_ref());
        let body = json!({ "agent": agent, "killed": killed });
        Ok(reply(EntityKind::Agent, agent.as_str(), position, body))
    }

    async fn submit(&self, asked: &Asked<'_>, crew: &CrewId, wanted: Wanted) -> Result<Reply, Problem> {
        let Wanted { to, input, subject, context, deadline_ms } = wanted;
        let state = self.own_crew(asked, crew).await?;
        let command_id = asked.caller.command_id();
        let id = TaskId::derive(&["task", &command_id.to_string()]);
        // What was accepted stays accepted, whatever has become of the crew (ES-5).
        let is_known = !asked.is_first && self.core.tasks.read(id.as_str()).await?.submitted.is_some();
        let Some(started) = state.started.as_ref().filter(|_| is_known || takes_tasks(state.status)) else {
            let detail = format!("crew `{crew}` is {} and takes no tasks", state.status);
            return Err(Problem::new(ProblemKind::Conflict, detail));
        };
        let (member, replica) = receiver(to.as_deref(), &started.entry)?;
        let content = link::Content::from_handler(input)
            .map_err(|error| Problem::new(ProblemKind::Invalid, format!("input: {error}")))?;
        let input = contents::wire(content);
        let bytes = input.to_string().len();
        if bytes > INPUT_BYTES_MAX {
            let detail =
                format!("input has {bytes} bytes, more than {INPUT_BYTES_MAX}; put large parts as artifacts");
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        if !is_known {
            check_replica(&state, &member, replica)?;
        }
        let mut digest = json!([crew, member, replica, input, context, deadline_ms]);
        if let (Some(subject), Value::Array(asked)) = (&subject, &mut digest) {
            asked.push(subject.as_str().into());
        }
        let now = self.core.clock.now();
        let order = Order {
            task: id.clone(),
            tenant: asked.caller.tenant.clone(),
            crew: crew.clone(),
            member,
            replica,
            input: contents::put(&self.core, input).await?,
            subject,
            context: context.unwrap_or_else(|| id.to_string()),
            from: asked.caller.principal.to_string(),
            from_member: None,
            parent: None,
            depth: 0,
            deadline_ms: deadline_ms.map(|ms| now.plus_ms(ms).millis()),
            request_digest: Digest::of(digest.to_string().as_bytes()),
            is_first: asked.is_first,
        };
        let outcome = submit::submit(&self.core, order, command_id, meta(asked.caller, command_id)).await?;
        self.told(asked, &id, &outcome).await
    }

    async fn retry(&self, asked: &Asked<'_>, id: &TaskId) -> Result<Reply, Problem> {
        let state = self.core.tasks.read(id.as_str()).await?;
        if let Some(submitted) = &state.submitted {
            let crew = self.core.crews.read(submitted.crew.as_str()).await?;
            if crew.status.has_ended() {
                let detail =
                    format!("the task's crew `{}` is {}; nobody can retry it", submitted.crew, crew.status);
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
        }
        let has_subject = state.submitted.as_ref().is_some_and(|submitted| submitted.subject.is_some());
        // What is in memory may be of a time before the erasure; the log never is.
        if has_subject && peek::<task::Task>(&self.core, id.as_str()).await?.is_erased() {
            return Err(task::Rejection::Erased.into());
        }
        self.task(asked, id, task::Command::Retry).await
    }

    /// Answers what a handler asks.
    async fn answer(
        &self,
        asked: &Asked<'_>,
        id: &TaskId,
        key: String,
        accept: bool,
        content: Value,
    ) -> Result<Reply, Problem> {
        let state = self.core.tasks.read(id.as_str()).await?;
        let is_theirs = |submitted: &task::Submitted| submitted.tenant == asked.caller.tenant;
        let question = state.questions.get(&key).filter(|_| state.submitted.as_ref().is_some_and(is_theirs));
        let content = match question {
            Some(question) if accept => hosted::fit(&question.request, content)?,
            _ => content,
        };
        let action = if accept { "accept" } else { "decline" }.to_owned();
        let answer = task::Answer { action, content, by: asked.caller.principal.to_string() };
        self.task(asked, id, task::Command::Answer { key, answer }).await
    }

    async fn task(&self, asked: &Asked<'_>, id: &TaskId, command: task::Command) -> Result<Reply, Problem> {
        let state = self.core.tasks.read(id.as_str()).await?;
        if state.submitted.as_ref().is_none_or(|submitted| submitted.tenant != asked.caller.tenant) {
            return Err(Problem::not_found(EntityKind::Task, id.as_str()));
        }
        let outcome = self.give(&self.core.tasks, asked, id.as_str(), command).await?;
        self.told(asked, id, &outcome).await
    }
}

/// Refuses a task for a replica that the crew does not have now, as a channel does.
fn check_replica(crew: &crew::State, member: &str, replica: Option<u32>) -> Result<(), Problem> {
    let Some(replica) = replica else { return Ok(()) };
    let is_meant = |seat: &crew::Seat| seat.member == member && seat.replica == replica;
    match crew.kept().any(|held| is_meant(&held.seat)) {
        true => Ok(()),
        false => {
            Err(Problem::new(ProblemKind::NotFound, format!("the crew has no agent `{member}[{replica}]`")))
        }
    }
}

fn takes_tasks(status: Status) -> bool {
    matches!(status, Status::Running | Status::Paused)
}

/// Reads `member` or `member[2]`; the crew's entry where nothing is said.
fn receiver(to: Option<&str>, entry: &str) -> Result<(String, Option<u32>), Problem> {
    let Some(to) = to else { return Ok((entry.to_owned(), None)) };
    let address: link::Address =
        to.parse().map_err(|error| Problem::new(ProblemKind::Invalid, format!("to `{to}`: {error}")))?;
    match address {
        link::Address::Member(member) => Ok((member, None)),
        link::Address::Replica(member, replica) => Ok((member, Some(replica))),
        _ => Err(Problem::new(
            ProblemKind::Invalid,
            format!("to `{to}`: a task goes to `member` or `member[n]`"),
        )),
    }
}
