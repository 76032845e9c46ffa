//! Changes of tokens and roles.

use std::collections::BTreeSet;

use events::api::{Caller, Problem, ProblemKind, Reply};
use events::domain::access::{
    self, Command, Event, RoleGranted, RoleRevoked, State, TokenMinted, TokenRevoked,
};
use events::domain::{Context, Decider as _, DomainEvent as _};
use events::store::AppendError;
use events::{Digest, EntityKind, Position, Principal, Timestamp};
use identity::{ApiToken, Role, missing_of};
use serde_json::{Value, json};

use super::{Access, Identity, as_of, roles_of};

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
    /// The roles that whoever makes it must have: those that somebody gets or loses by it, and all of those in whose
    /// name one could act by it. Nobody needs any to end a token of their own.
    fn roles(&self, state: &State, by: &Principal) -> BTreeSet<Role> {
        match self {
            Self::Mint { roles, holder, .. } => {
                roles.iter().copied().chain(roles_of(state, holder)).collect()
            }
            Self::Grant { role, .. } | Self::Withdraw { role, .. } => BTreeSet::from([*role]),
            Self::Revoke { token, .. } => {
                let others = state.tokens.get(token).filter(|token| token.minted.holder != *by);
                let roles = others.into_iter().flat_map(|token| &token.minted.roles);
                roles.filter_map(|role| role.parse().ok()).collect()
            }
        }
    }

    /// Whether it was this that an event records.
    fn is_told_by(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::Mint { holder, purpose, roles, lifetime_ms }, Event::TokenMinted(minted)) => {
                let names: BTreeSet<String> = roles.iter().map(Role::to_string).collect();
                (holder, purpose, &names) == (&minted.holder, &minted.purpose, &minted.roles)
                    && minted.lifetime_ms.is_none_or(|asked| asked == *lifetime_ms)
            }
            (Self::Revoke { token, reason }, Event::TokenRevoked(revoked)) => {
                (token, reason) == (&revoked.token, &revoked.reason)
            }
            (
                Self::Grant { principal, role },
                Event::RoleGranted(RoleGranted { principal: holder, role: name }),
            )
            | (
                Self::Withdraw { principal, role },
                Event::RoleRevoked(RoleRevoked { principal: holder, role: name }),
            ) => (principal, role.as_str()) == (holder, name.as_str()),
            _ => false,
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
        if caller.idempotency_key.is_some()
            && let Some(appended) = self.known.store.find_command(caller.command_id()).await?
        {
            return self.told_again(appended.position, &change).await;
        }
        // A token takes a while to make: first of all it is seen whether there may be one.
        may_make(identity, &change, &*self.known.refreshed().await?)?;
        let digest = Digest::of(format!("{change:?}").as_bytes());
        let (command, token) = self.command(change.clone()).await?;
        for _ in 0..TRIES_MAX {
            let folded = self.known.folded().await?;
            // What was taken from them since they were let in, on whichever node, they cannot give away any more.
            may_make(&as_of(identity, &folded.state)?, &change, &folded.state)?;
            let context = Context { now: Timestamp::now(), seed: 0 };
            let events = access::Access::decide(&folded.state, &command, &context)?;
            if events.is_empty() {
                let position = self.known.store.head().await?.position;
                return Ok(reply(position, &body(&command, token.as_ref(), false)));
            }
            let request = self.known.request(caller, digest, &folded, &events);
            match self.known.store.append(request).await {
                Ok(appended) => {
                    // Whoever is told that it is so finds it so.
                    self.known.refreshed().await?;
                    if appended.repeated {
                        return self.told_again(appended.position, &change).await;
                    }
                    return Ok(reply(appended.position, &body(&command, token.as_ref(), true)));
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
                    lifetime_ms: Some(lifetime_ms),
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
    async fn told_again(&self, position: Position, change: &Change) -> Result<Reply, Problem> {
        let before = Position(position.0.saturating_sub(1));
        let found = self.known.store.read(before, 1).await?;
        let event =
            found.first().and_then(|event| Event::decode(&event.kind, event.schema, &event.payload).ok());
        let event = event.filter(|event| change.is_told_by(event)).ok_or_else(|| {
            Problem::new(ProblemKind::KeyConflict, "the idempotency key was used for something else")
        })?;
        let body = match event {
            Event::TokenMinted(minted) => minted_body(&minted, None),
            Event::TokenRevoked(revoked) => body(&Command::Revoke(revoked), None, true),
            Event::RoleGranted(granted) => body(&Command::Grant(granted), None, true),
            Event::RoleRevoked(revoked) => body(&Command::Withdraw(revoked), None, true),
        };
        Ok(reply(position, &body))
    }
}

/// Nobody gives or takes what they do not have, and nobody acts in the name of who may do more.
fn may_make(identity: &Identity, change: &Change, state: &State) -> Result<(), Problem> {
    let (who, roles) = (&identity.principal, change.roles(state, &identity.principal));
    let lacking = roles.into_iter().find_map(|role| Some((role, missing_of(&identity.roles, role)?)));
    let Some((role, missing)) = lacking else { return Ok(()) };
    let detail =
        format!("{who} cannot give or take the role {role}: it permits `{missing}`, which {who} may not do");
    Err(Problem::new(ProblemKind::Denied, detail))
}

fn internal(error: &impl ToString) -> Problem {
    Problem::new(ProblemKind::Internal, error.to_string())
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
