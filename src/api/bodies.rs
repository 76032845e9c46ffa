//! What each command takes, and what is checked before the platform is asked.

use bytes::Bytes;
use events::api::{Caller, Command, Problem, ProblemKind};
use events::domain::crew::BudgetRaised;
use events::{AgentId, Digest, EntityKind, TaskId};
use manifest::Manifest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::crews::meant;
use super::input::{self, Input, content, parse};
use super::manifests::{Source, crew_and_profiles, read};
use super::operation::{Body, Deed};
use super::problem::Refusal;
use super::service::{Admitted, Service};
use crate::erasure::Erasure;

type Outcome = Result<Deed, Refusal>;

/// A profile to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplyProfile {
    /// The manifest, of kind `Profile`.
    manifest: Value,
    /// The SHA-256 of its packed source, which is already among the artifacts.
    #[schemars(with = "Option<String>")]
    bundle: Option<Digest>,
}

impl Body for ApplyProfile {
    async fn deed(self, _: &Service, Admitted { caller, .. }: &Admitted) -> Outcome {
        let Some(Manifest::Profile(profile)) = read(Source::Field(&self.manifest), &caller.tenant)?.pop()
        else {
            return Err(Refusal::invalid(
                "`manifest`: found another kind, expected a manifest of kind `Profile`",
            ));
        };
        let name = profile.metadata.name.as_str().to_owned();
        Ok(Command::ProfileApply { name, spec: normal(&profile.spec)?, bundle: self.bundle }.into())
    }
}

macro_rules! of_a_manifest {
    ($($(#[$doc:meta])* $name:ident of $kind:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            #[doc = concat!("The manifest, of kind `", $kind, "`.")]
            manifest: Value,
            /// The manifest's text, instead of everything else.
            #[serde(skip)]
            text: Option<Bytes>,
        }

        impl $name {
            fn of(input: Input) -> Result<Self, Refusal> {
                match input {
                    Input::Fields(fields) => input::fields(fields),
                    Input::Text(text) => Ok(Self { manifest: Value::Null, text: Some(text) }),
                }
            }

            fn manifests(&self, caller: &Caller) -> Result<Vec<Manifest>, Refusal> {
                let source = self.text.as_deref().map_or(Source::Field(&self.manifest), Source::Text);
                read(source, &caller.tenant)
            }
        }
    )+};
}
of_a_manifest! {
    /// A pool to apply.
    ApplyPool of "Pool",
    /// A crew to assemble.
    Assemble of "Crew",
}

impl Body for ApplyPool {
    const TAKES_YAML: bool = true;

    fn read(input: Input) -> Result<Self, Refusal> {
        Self::of(input)
    }

    async fn deed(self, _: &Service, Admitted { caller, .. }: &Admitted) -> Outcome {
        let mut manifests = self.manifests(caller)?;
        match (manifests.pop(), manifests.is_empty()) {
            (Some(Manifest::Pool(pool)), true) => {
                let name = pool.metadata.name.as_str().to_owned();
                Ok(Command::PoolApply { name, spec: normal(&pool.spec)? }.into())
            }
            _ => Err(Refusal::invalid("`manifest`: expected one manifest of kind `Pool`")),
        }
    }
}

/// Another number of sandboxes that stand by.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResizePool {
    /// The pool's name.
    pool: String,
    /// The fewest; as before if absent.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    min: Option<u32>,
    /// The most; as before if absent.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    max: Option<u32>,
    /// How many, whatever happens, or `auto`: as claims call for; as before if absent.
    #[serde(default)]
    target: Option<Target>,
}

/// How many sandboxes stand by.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Target {
    /// So many.
    Pinned(#[schemars(range(max = 1000))] u32),
    /// As claims call for.
    Auto(Auto),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Auto {
    Auto,
}

impl From<Target> for events::api::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Pinned(number) => Self::Pinned(number),
            Target::Auto(Auto::Auto) => Self::Auto,
        }
    }
}

impl Body for ResizePool {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        let Self { pool: name, min, max, target } = self;
        let target = target.map(Into::into);
        Ok(Command::PoolResize { name, min, max, target }.into())
    }
}

/// A pool in which nothing is to stand by.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DrainPool {
    /// The pool's name.
    pool: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for DrainPool {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        Ok(Command::PoolDrain { name: self.pool, reason: self.reason.unwrap_or_else(asked_for) }.into())
    }
}

impl Body for Assemble {
    const TAKES_YAML: bool = true;

    fn read(input: Input) -> Result<Self, Refusal> {
        Self::of(input)
    }

    async fn deed(self, _: &Service, Admitted { caller, .. }: &Admitted) -> Outcome {
        let (crew, profiles) = crew_and_profiles(self.manifests(caller)?)?;
        if !profiles.is_empty() {
            return Err(Refusal::invalid(
                "found profiles beside the crew; apply them first, with their bundles",
            ));
        }
        let name = crew.metadata.name.as_str().to_owned();
        Ok(Command::CrewAssemble { name, spec: normal(&crew.spec)?, labels: crew.metadata.labels }.into())
    }
}

/// A checked specification in normal form.
fn normal(spec: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(spec).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()).into())
}

/// A number of replicas.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Scale {
    /// The crew: its id or its name.
    crew: String,
    /// The member.
    member: String,
    /// How many agents it is to have, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    replicas: u32,
}

impl Body for Scale {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
        let crew = meant(service.store(), admitted, &self.crew).await?;
        Ok(Command::CrewScale { crew, member: self.member, replicas: self.replicas }.into())
    }
}

macro_rules! of_a_crew {
    ($($(#[$doc:meta])* $name:ident => $command:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            /// The crew: its id or its name.
            crew: String,
        }

        impl Body for $name {
            async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
                let crew = meant(service.store(), admitted, &self.crew).await?;
                Ok(Command::$command { crew }.into())
            }
        }
    )+};
}
of_a_crew! {
    /// A crew that is to give out no tasks.
    Pause => CrewPause,
}

/// A crew that is to finish what it has in hand.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Drain {
    /// The crew: its id or its name.
    crew: String,
    /// What is left in hand after so many milliseconds is called off; however long it takes when absent.
    #[serde(default)]
    grace_ms: Option<u64>,
}

impl Body for Drain {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
        let crew = meant(service.store(), admitted, &self.crew).await?;
        Ok(Command::CrewDrain { crew, grace_ms: self.grace_ms }.into())
    }
}

/// A crew that is to give out tasks again.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Resume {
    /// The crew: its id or its name.
    crew: String,
    /// How many tokens it may use in its life from now on; more than before.
    #[serde(default)]
    tokens: Option<u64>,
    /// How long after its assembly it may go on from now on, in milliseconds; longer than before.
    #[serde(default)]
    wall_time_ms: Option<u64>,
    /// How many messages it may send in its life from now on; more than before.
    #[serde(default)]
    messages: Option<u64>,
}

impl Body for Resume {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
        let crew = meant(service.store(), admitted, &self.crew).await?;
        let raised =
            BudgetRaised { tokens: self.tokens, wall_ms: self.wall_time_ms, messages: self.messages };
        Ok(Command::CrewResume { crew, raised }.into())
    }
}

/// A reason that nobody gave.
pub(super) fn asked_for() -> String {
    "asked for".to_owned()
}

/// A crew that is to end.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Disband {
    /// The crew: its id or its name.
    crew: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for Disband {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
        let crew = meant(service.store(), admitted, &self.crew).await?;
        Ok(Command::CrewDisband { crew, reason: self.reason.unwrap_or_else(asked_for) }.into())
    }
}

/// An agent that is to begin its next incarnation.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Restart {
    /// The agent.
    agent: String,
}

impl Body for Restart {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        let agent: AgentId = parse("agent", &self.agent)?;
        Ok(Command::AgentRestart { agent }.into())
    }
}

/// A task to do.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Submit {
    /// The crew: its id or its name.
    crew: String,
    /// The member or agent that gets it; the crew's entry when absent.
    #[serde(default)]
    to: Option<String>,
    /// What is to be done: content `{"parts": […]}`, a string (one text part) or any other JSON (one data part).
    input: Value,
    /// Whose personal data it is about: an opaque name of 1 to 128 characters of a-z, A-Z, 0-9, `.`, `_`, `-`, `@`, `/`.
    /// What the task takes in, says and gives is then encrypted under a key of this subject's own.
    #[serde(default)]
    subject: Option<String>,
    /// The conversation it belongs to.
    #[serde(default)]
    context: Option<String>,
    /// It must be finished in so many milliseconds, at most ten years.
    #[serde(default)]
    #[schemars(range(min = 1, max = DEADLINE_MS_MAX))]
    deadline_ms: Option<u64>,
}

/// The latest deadline: the longest duration that a manifest may name.
const DEADLINE_MS_MAX: u64 = manifest::Millis::MAX.as_millis();

impl Body for Submit {
    async fn deed(self, service: &Service, admitted: &Admitted) -> Outcome {
        if let Some(to) = &self.to {
            parse::<link::Address>("to", to)?;
        }
        if self.context.as_ref().is_some_and(|context| !(1..=64).contains(&context.len())) {
            return Err(Refusal::invalid("`context`: expected 1 to 64 characters"));
        }
        if let Some(ms) = self.deadline_ms.filter(|ms| !(1..=DEADLINE_MS_MAX).contains(ms)) {
            let detail =
                format!("`deadlineMs`: found {ms}, expected 1 to {DEADLINE_MS_MAX}, which is ten years");
            return Err(Refusal::invalid(detail));
        }
        self.subject.as_deref().map_or(Ok(()), check_subject)?;
        let crew = meant(service.store(), admitted, &self.crew).await?;
        let input = content("input", self.input)?;
        let Self { to, subject, context, deadline_ms, .. } = self;
        Ok(Command::TaskSubmit { crew, to, input, subject, context, deadline_ms }.into())
    }
}

fn check_subject(subject: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '/');
    match (1..=128).contains(&subject.len()) && subject.chars().all(legal) {
        true => Ok(()),
        false => Err(Refusal::invalid(
            "`subject`: expected 1 to 128 characters of a-z, A-Z, 0-9, `.`, `_`, `-`, `@`, `/`",
        )),
    }
}

/// A data subject that is to be erased.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Erase {
    /// The subject, as tasks named it.
    subject: String,
    /// Why, for the log. It stays there: it names nobody.
    reason: String,
}

impl Body for Erase {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        check_subject(&self.subject)?;
        if !(1..=500).contains(&self.reason.len()) {
            return Err(Refusal::invalid("`reason`: expected 1 to 500 characters"));
        }
        Ok(Deed::Erase(Erasure { subject: self.subject, reason: self.reason }))
    }
}

/// A task that is to be called off.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cancel {
    /// The task.
    task: String,
    /// Why, for the log.
    #[serde(default)]
    reason: Option<String>,
}

impl Body for Cancel {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        let task: TaskId = parse("task", &self.task)?;
        Ok(Command::TaskCancel { task, reason: self.reason.unwrap_or_else(asked_for) }.into())
    }
}

/// A task that is to be tried again.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Retry {
    /// The task.
    task: String,
}

impl Body for Retry {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        let task: TaskId = parse("task", &self.task)?;
        Ok(Command::TaskRetry { task }.into())
    }
}

/// An answer to an input request.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Answer {
    /// The task that asks.
    task: String,
    /// The key of what it asks.
    key: String,
    /// Whether what is asked is granted.
    action: Action,
    /// What is answered, as the request's schema describes it.
    #[serde(default)]
    content: Value,
}

/// Whether what is asked is granted.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// It is.
    Accept,
    /// It is not.
    Decline,
}

impl Body for Answer {
    async fn deed(self, _: &Service, _: &Admitted) -> Outcome {
        let task: TaskId = parse("task", &self.task)?;
        if self.key.len() > link::limits::KEY_BYTES_MAX {
            return Err(Problem::not_found(EntityKind::Task, &format!("{task}/inputs/…")).into());
        }
        let accept = self.action == Action::Accept;
        input::shallow("content", &self.content)?;
        Ok(Command::InputAnswer { task, key: self.key, accept, content: self.content }.into())
    }
}
