//! The table of commands.

use events::api::Command;
use futures_util::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::access::{GrantRole, MintToken, RevokeRole, RevokeToken};
use super::bodies::{
    Answer, ApplyPool, ApplyProfile, Assemble, Cancel, Disband, Drain, DrainPool, Erase, Pause, ResizePool,
    Restart, Resume, Retry, Scale, Submit,
};
use super::input::{self, Input};
use super::keys::{RevokeKey, RotateKeys};
use super::kill::{KillAgent, KillCrew, KillTenant};
use super::problem::Refusal;
use super::secrets::{DeleteSecret, SetSecret};
use super::service::{Admitted, Service};
use crate::access::Change;
use crate::erasure::Erasure;
use crate::keyring::KeyChange;
use crate::secrets::SecretChange;

/// Adds a type's schema to a document.
pub(crate) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

pub(crate) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As long as any request.
    Usual,
    /// Longer: crews assemble and artifacts move.
    Long,
    /// As long as the client listens.
    Endless,
}

/// What an operation takes, and what is to be done by it.
pub(super) trait Body: DeserializeOwned + JsonSchema + Send {
    /// Whether the text of a manifest is taken as well.
    const TAKES_YAML: bool = false;

    /// Reads what came in.
    fn read(input: Input) -> Result<Self, Refusal> {
        match input {
            Input::Fields(fields) => input::fields(fields),
            Input::Text(_) => Err(Refusal::invalid("found the text of a manifest, expected fields")),
        }
    }

    /// What is to be done, once all is checked that can be checked here.
    fn deed(
        self,
        service: &Service,
        admitted: &Admitted,
    ) -> impl Future<Output = Result<Deed, Refusal>> + Send;
}

/// What a request asks to be done.
pub(super) enum Deed {
    /// A command to an entity.
    Command(Command),
    /// A change of tokens and roles.
    Change(Change),
    /// A change of the keys that sign agents' tokens.
    Key(KeyChange),
    /// A change of the secrets that the platform keeps.
    Secret(SecretChange),
    /// An erasure, which goes through all that the platform keeps.
    Erase(Erasure),
}

impl From<Command> for Deed {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

type Make = for<'a> fn(&'a Service, &'a Admitted, Input) -> BoxFuture<'a, Result<Deed, Refusal>>;

fn make<'a, T: Body + 'static>(
    service: &'a Service,
    admitted: &'a Admitted,
    input: Input,
) -> BoxFuture<'a, Result<Deed, Refusal>> {
    Box::pin(async move { T::read(input)?.deed(service, admitted).await })
}

/// One command that can be given.
pub(crate) struct Operation {
    /// What it is about: the first part of its NATS subject.
    pub(crate) entity: &'static str,
    /// What is done: the second part.
    pub(crate) verb: &'static str,
    /// Its HTTP path; the variables in it are fields of what it takes.
    pub(crate) path: &'static str,
    /// Its name in the OpenAPI document and in metrics.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) summary: &'static str,
    /// What who asks must be allowed to do.
    pub(crate) permission: &'static str,
    /// All of its fields.
    pub(crate) schema: SchemaOf,
    /// Whether it takes the text of a manifest as well.
    pub(crate) takes_yaml: bool,
    /// Whether it makes an entity.
    pub(crate) creates: bool,
    /// How long its answer may take.
    pub(crate) pace: Pace,
    pub(super) make: Make,
}

impl Operation {
    const fn new<T: Body + 'static>(
        (entity, verb): (&'static str, &'static str),
        path: &'static str,
        name: &'static str,
        permission: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            entity,
            verb,
            path,
            name,
            summary,
            permission,
            schema: schema_of::<T>,
            takes_yaml: T::TAKES_YAML,
            creates: false,
            pace: Pace::Usual,
            make: make::<T>,
        }
    }

    const fn creates(self) -> Self {
        Self { creates: true, ..self }
    }

    const fn long(self) -> Self {
        Self { pace: Pace::Long, ..self }
    }
}

/// Every command.
pub(crate) static OPERATIONS: [Operation; 27] = [
    Operation::new::<ApplyProfile>(
        ("profile", "apply"),
        "/v1/profiles",
        "applyProfile",
        "profile:apply",
        "Makes a profile the newest version of its name",
    ),
    Operation::new::<ApplyPool>(
        ("pool", "apply"),
        "/v1/pools",
        "applyPool",
        "pool:apply",
        "Makes a warm pool the newest version of its name, and keeps it filled",
    ),
    Operation::new::<ResizePool>(
        ("pool", "resize"),
        "/v1/pools/{pool}/resize",
        "resizePool",
        "pool:resize",
        "Has another number of sandboxes stand by",
    ),
    Operation::new::<DrainPool>(
        ("pool", "drain"),
        "/v1/pools/{pool}/drain",
        "drainPool",
        "pool:drain",
        "Has nothing stand by until the pool is applied or resized",
    ),
    Operation::new::<Assemble>(
        ("crew", "assemble"),
        "/v1/crews/assemble",
        "assembleCrew",
        "crew:assemble",
        "Brings up a crew; answers when every member is ready, or all are released",
    )
    .creates()
    .long(),
    Operation::new::<Scale>(
        ("crew", "scale"),
        "/v1/crews/{crew}/scale",
        "scaleCrew",
        "crew:scale",
        "Changes the number of a member's replicas",
    ),
    Operation::new::<Pause>(
        ("crew", "pause"),
        "/v1/crews/{crew}/pause",
        "pauseCrew",
        "crew:pause",
        "Gives out no tasks until resumed",
    ),
    Operation::new::<Resume>(
        ("crew", "resume"),
        "/v1/crews/{crew}/resume",
        "resumeCrew",
        "crew:resume",
        "Gives out tasks again; a crew whose budget is used up needs more of it",
    ),
    Operation::new::<Drain>(
        ("crew", "drain"),
        "/v1/crews/{crew}/drain",
        "drainCrew",
        "crew:drain",
        "Takes no new tasks, finishes those in hand, then disbands",
    ),
    Operation::new::<Disband>(
        ("crew", "disband"),
        "/v1/crews/{crew}/disband",
        "disbandCrew",
        "crew:disband",
        "Cancels the crew's tasks and stops its agents",
    ),
    Operation::new::<KillCrew>(
        ("crew", "kill"),
        "/v1/crews/{crew}/kill",
        "killCrew",
        "crew:kill",
        "Ends all of a crew at once, whatever its agents are doing",
    ),
    Operation::new::<KillTenant>(
        ("tenant", "kill"),
        "/v1/tenants/{tenant}/kill",
        "killTenant",
        "tenant:kill",
        "Ends every crew that the tenant has at the moment, at once",
    ),
    Operation::new::<KillAgent>(
        ("agent", "kill"),
        "/v1/agents/{agent}/kill",
        "killAgent",
        "agent:kill",
        "Ends an agent at once, whatever it is doing; it never comes back",
    ),
    Operation::new::<Restart>(
        ("agent", "restart"),
        "/v1/agents/{agent}/restart",
        "restartAgent",
        "agent:restart",
        "Ends the agent's incarnation and starts the next",
    ),
    Operation::new::<Submit>(
        ("task", "submit"),
        "/v1/tasks",
        "submitTask",
        "task:submit",
        "Accepts a task for a crew",
    )
    .creates(),
    Operation::new::<Cancel>(
        ("task", "cancel"),
        "/v1/tasks/{task}/cancel",
        "cancelTask",
        "task:cancel",
        "Cancels a task, its children first",
    ),
    Operation::new::<Retry>(
        ("task", "retry"),
        "/v1/tasks/{task}/retry",
        "retryTask",
        "task:retry",
        "Tries a failed or dead-lettered task again",
    ),
    Operation::new::<Answer>(
        ("task", "answer"),
        "/v1/tasks/{task}/inputs/{key}",
        "answerInput",
        "approval:answer",
        "Answers an open input request of a task",
    ),
    Operation::new::<Erase>(
        ("audit", "erase"),
        "/v1/audit/erase",
        "eraseSubject",
        "audit:erase",
        "Destroys the key of a data subject, and with it all of its personal data",
    )
    .long(),
    Operation::new::<MintToken>(
        ("token", "mint"),
        "/v1/tokens",
        "mintToken",
        "token:mint",
        "Makes a token for somebody; its secret is in this answer and nowhere else",
    ),
    Operation::new::<RevokeToken>(
        ("token", "revoke"),
        "/v1/tokens/{token}/revoke",
        "revokeToken",
        "token:revoke",
        "Ends a token",
    ),
    Operation::new::<GrantRole>(
        ("role", "grant"),
        "/v1/roles/grant",
        "grantRole",
        "role:grant",
        "Gives somebody a role",
    ),
    Operation::new::<RevokeRole>(
        ("role", "revoke"),
        "/v1/roles/revoke",
        "revokeRole",
        "role:revoke",
        "Takes a role from somebody",
    ),
    Operation::new::<RotateKeys>(
        ("key", "rotate"),
        "/v1/keys/rotate",
        "rotateKeys",
        "key:rotate",
        "Has the next key sign agents' tokens, and gives the agents that run new ones",
    ),
    Operation::new::<RevokeKey>(
        ("key", "revoke"),
        "/v1/keys/{key}/revoke",
        "revokeKey",
        "key:revoke",
        "Has tokens that a key signed accepted no longer, and gives the agents that run new ones",
    ),
    Operation::new::<SetSecret>(
        ("secret", "set"),
        "/v1/secrets",
        "setSecret",
        "secret:set",
        "Gives a stored secret a value, which agents that start from now on get and nobody is shown",
    ),
    Operation::new::<DeleteSecret>(
        ("secret", "delete"),
        "/v1/secrets/{secret}/delete",
        "deleteSecret",
        "secret:delete",
        "Destroys the value of a stored secret",
    ),
];
