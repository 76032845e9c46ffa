//! Changes of tokens and roles.

use std::collections::BTreeSet;

use events::api::{Caller, Problem, ProblemKind, Reply};
use events::domain::access::{self, Command, Event, RoleGranted, RoleRevoked, TokenMinted, TokenRevoked};
use events::domain::{Context, Decider as _, DomainEvent as _};
use events::store::{AppendError, AppendRequest, Expected};
use events::{Digest, EntityKind, Meta, Position, Principal, Timestamp};
use identity::{ApiToken, Role, missing_of};
use serde_json::{Value, json};

use super::known::{Folded, stream};
use super::{Access, Identity};

/// How often a change is decided anew because somebody else made one.
const TRIES_MAX: usize = 8;

/// What is to be changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Make a token for somebody, with these roles and no others.
    Mint { holder: Principal, purpose: String, roles: BTreeSet<Role>, lifetime_ms: i64 },
    /// End a token.
    Revoke { token: String, reason: String },
    /// Give somebody a role.
    Grant { principal: Principal, role: Role },
    /// Take a role from somebody.
    Withdraw { principal: Principal, role: Role },
}

impl Change {
    /// The roles that somebody gets or loses by it.
    fn roles(&self) -> Vec<Role> {
        match self {
            Self::Mint { roles, .. } => roles.iter().copied().collect(),
            Self::Grant { role, .. } | Self::Withdraw { role, .. } => vec![*role],
            Self::Revoke { .. } => Vec::new(),
        }
    }
}

impl Access {
    /// Carries out a change that `identity` may make.
    ///
    /// # Errors
    /// `denied` where somebody would give or take what they do not have themselves.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        identity: &Identity,
        change: Change,
    ) -> Result<Reply, Problem> {
        for role in change.roles() {
            if let Some(missing) = missing_of(&identity.roles, role) {
                let who = &identity.principal;
                let detail = format!(
                    "{who} cannot give or take the role {role}: it permits `{missing}`, which {who} may not do"
                );
                return Err(Problem::new(ProblemKind::Denied, detail));
            }
        }
        let digest = Digest::of(format!("{change:?}").as_bytes());
        let (command, token) = self.command(change).await?;
        for _ in 0..TRIES_MAX {
            let folded = self.known.folded().await?;
            let context = Context { now: Timestamp::now(), seed: 0 };
            let events = access::Access::decide(&folded.state, &command, &context)?;
            if events.is_empty() {
                let position = self.known.store.head().await?.position;
                return Ok(reply(position, &body(&command, token.as_ref(), false)));
            }
            let request = request(caller, digest, &folded, &events);
            match self.known.store.append(request).await {
                Ok(appended) => {
                    // Whoever is told that it is so finds it so.
                    self.known.refreshed().await?;
                    let body = match appended.repeated {
                        true => self.told_again(appended.position).await?,
                        false => body(&command, token.as_ref(), true),
                    };
                    return Ok(reply(appended.position, &body));
                }
                Err(AppendError::WrongVersion { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Problem::new(ProblemKind::Busy, "tokens and roles are being changed by many at once; try again"))
    }

    /// The command, and the token that is made by it.
    async fn command(&self, change: Change) -> Result<(Command, Option<ApiToken>), Problem> {
        Ok(match change {
            Change::Mint { holder, purpose, roles, lifetime_ms } => {
                let token = ApiToken::generate();
                let hashed = token.clone();
                let hash = tokio::task::spawn_blocking(move || hashed.hash()).await;
                let hash = hash.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
                let minted = TokenMinted {
                    token: token.id().to_string(),
                    holder,
                    purpose,
                    roles: roles.iter().map(Role::to_string).collect(),
                    hash,
                    expires_at_ms: Timestamp::now().millis().saturating_add(lifetime_ms),
                };
                (Command::Mint(minted), Some(token))
            }
            Change::Revoke { token, reason } => (Command::Revoke(TokenRevoked { token, reason }), None),
            Change::Grant { principal, role } => {
                (Command::Grant(RoleGranted { principal, role: role.to_string() }), None)
            }
            Change::Withdraw { principal, role } => {
                (Command::Withdraw(RoleRevoked { principal, role: role.to_string() }), None)
            }
        })
    }

    /// What is said of a change that was made before under the same key: not the token's secret, which nobody has.
    async fn told_again(&self, position: Position) -> Result<Value, Problem> {
        let before = Position(position.0.saturating_sub(1));
        let found = self.known.store.read(before, 1).await?;
        let event = found.first().ok_or_else(|| internal(&"the event of a change is not in the log"))?;
        let event =
            Event::decode(&event.kind, event.schema, &event.payload).map_err(|error| internal(&error))?;
        Ok(match event {
            Event::TokenMinted(minted) => minted_body(&minted, None),
            Event::TokenRevoked(revoked) => json!({ "token": revoked.token }),
            Event::RoleGranted(RoleGranted { principal, role })
            | Event::RoleRevoked(RoleRevoked { principal, role }) => {
                json!({ "principal": principal, "role": role })
            }
        })
    }
}

fn internal(error: &impl ToString) -> Problem {
    Problem::new(ProblemKind::Internal, error.to_string())
}

fn request(caller: &Caller, digest: Digest, folded: &Folded, events: &[Event]) -> AppendRequest {
    AppendRequest {
        stream: stream(),
        expected: Expected::Exact(folded.version),
        command_id: caller.command_id(),
        command_digest: Some(digest),
        epoch: None,
        meta: Meta {
            tenant: caller.tenant.clone(),
            principal: caller.principal.clone(),
            correlation_id: None,
            causation_id: None,
            traceparent: caller.traceparent.clone(),
        },
        recorded_at: Timestamp::now(),
        events: events.iter().map(|event| event.encode()).collect(),
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

fn reply(position: Position, body: &Value) -> Reply {
    Reply { kind: EntityKind::Platform, id: access::ID.to_owned(), position, body: body.clone() }
}

/// What the change led to.
fn body(command: &Command, token: Option<&ApiToken>, is_new: bool) -> Value {
    match command {
        Command::Mint(minted) => minted_body(minted, token),
        Command::Revoke(revoked) => json!({ "token": revoked.token, "changed": is_new }),
        Command::Grant(RoleGranted { principal, role })
        | Command::Withdraw(RoleRevoked { principal, role }) => {
            json!({ "principal": principal, "role": role, "changed": is_new })
        }
    }
}

/// A token as it is told of; its secret is told this once.
fn minted_body(minted: &TokenMinted, token: Option<&ApiToken>) -> Value {
    json!({
        "token": minted.token,
        "secret": token.map(ApiToken::expose),
        "principal": minted.holder,
        "purpose": minted.purpose,
        "roles": minted.roles,
        "expiresAt": Timestamp(minted.expires_at_ms * 1_000).rfc3339(),
    })
}
