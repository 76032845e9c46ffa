//! Changes of tokens and roles.

use std::collections::BTreeSet;

use events::api::{Caller, Problem, ProblemKind, Reply};
use events::domain::access::{
    self, Command, Event, Rejection, RoleGranted, RoleRevoked, Scope, State, TokenMinted, TokenRevoked,
};
use events::domain::{Context, Decider as _, DomainEvent as _};
use events::store::AppendError;
use events::{Digest, EntityKind, Position, Principal, Timestamp};
use identity::{ApiToken, Grant, Role, is_permitted, missing_of};
use serde_json::{Value, json};

use super::{Access, Identity, as_of, grants_of};

/// How often a change is decided anew because somebody else made one.
const TRIES_MAX: usize = 8;

/// What is to be changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Make a token for somebody, with these roles and no others, that reaches so far.
    Mint { holder: Principal, purpose: String, roles: BTreeSet<Role>, scope: Scope, lifetime_ms: i64 },
    /// End a token.
    Revoke { token: String, reason: String },
    /// Give somebody a role.
    Grant { principal: Principal, role: Role, scope: Scope },
    /// Take a role from somebody.
    Withdraw { principal: Principal, role: Role, scope: Scope },
}

impl Change {
    /// The roles that whoever makes it must have: those that somebody gets or loses by it, and all of those in whose
    /// name one could act by it. Nobody needs any to end a token of their own.
    fn grants(&self, state: &State, by: &Principal) -> BTreeSet<Grant> {
        let at = |role: Role, scope: &Scope| Grant { role, scope: scope.clone() };
        match self {
            Self::Mint { roles, holder, scope, .. } => {
                let in_their_name =
                    grants_of(state, holder).filter(|held| held.scope.within(scope).is_some());
                roles.iter().map(|role| at(*role, scope)).chain(in_their_name).collect()
            }
            Self::Grant { role, scope, .. } | Self::Withdraw { role, scope, .. } => {
                BTreeSet::from([at(*role, scope)])
            }
            Self::Revoke { token, .. } => {
                let others = state.tokens.get(token).filter(|token| token.minted.holder != *by);
                let minted = others.into_iter().map(|token| &token.minted);
                let roles = minted.flat_map(|minted| minted.roles.iter().map(|role| (role, &minted.scope)));
                roles.filter_map(|(role, scope)| Some(at(role.parse().ok()?, scope))).collect()
            }
        }
    }

    /// Where it gives the role that is of the whole platform, if that is narrower.
    fn confines_the_platforms_admin(&self) -> Option<&Scope> {
        let (gives, scope) = match self {
            Self::Mint { roles, scope, .. } => (roles.contains(&Role::PlatformAdmin), scope),
            Self::Grant { role, scope, .. } => (*role == Role::PlatformAdmin, scope),
            Self::Revoke { .. } | Self::Withdraw { .. } => return None,
        };
        (gives && !scope.is_platform()).then_some(scope)
    }

    /// Whether it is about a token that whoever asks here is not told of: somebody else's, and not within reach.
    fn is_out_of_sight(&self, state: &State, identity: &Identity, at: &Scope) -> bool {
        let Self::Revoke { token, .. } = self else { return false };
        state.tokens.get(token).is_some_and(|token| {
            let scope = &token.minted.scope;
            token.minted.holder != identity.principal
                && !(at.covers(scope) && is_permitted(&identity.grants, "token:revoke", scope))
        })
    }

    /// Whether it was this that an event records.
    fn is_told_by(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::Mint { holder, purpose, roles, scope, lifetime_ms }, Event::TokenMinted(minted)) => {
                let names: BTreeSet<String> = roles.iter().map(Role::to_string).collect();
                (holder, purpose, &names) == (&minted.holder, &minted.purpose, &minted.roles)
                    && *scope == minted.scope
                    && minted.lifetime_ms.is_none_or(|asked| asked == *lifetime_ms)
            }
            (Self::Revoke { token, reason }, Event::TokenRevoked(revoked)) => {
                (token, reason) == (&revoked.token, &revoked.reason)
            }
            (
                Self::Grant { principal, role, scope },
                Event::RoleGranted(RoleGranted { principal: holder, role: name, scope: place }),
            )
            | (
                Self::Withdraw { principal, role, scope },
                Event::RoleRevoked(RoleRevoked { principal: holder, role: name, scope: place }),
            ) => (principal, role.as_str(), scope) == (holder, name.as_str(), place),
            _ => false,
        }
    }
}

impl Access {
    /// Carries out a change that `identity` may make, asking about what is `at` this scope.
    ///
    /// # Errors
    /// `denied` where somebody would give or take what they do not have themselves.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        identity: &Identity,
        at: &Scope,
        change: Change,
    ) -> Result<Reply, Problem> {
        if caller.idempotency_key.is_some()
            && let Some(appended) = self.known.store.find_command(caller.command_id()).await?
        {
            return self.told_again(appended.position, &change).await;
        }
        // A token takes a while to make: first of all it is seen whether there may be one.
        may_make(identity, at, &change, &*self.known.refreshed().await?)?;
        let digest = Digest::of(format!("{change:?}").as_bytes());
        let (command, token) = self.command(change.clone()).await?;
        for _ in 0..TRIES_MAX {
            let folded = self.known.folded().await?;
            // What was taken from them since they were let in, on whichever node, they cannot give away any more.
            may_make(&as_of(identity, &folded.state)?, at, &change, &folded.state)?;
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
            Change::Mint { holder, purpose, roles, scope, lifetime_ms } => {
                let token = ApiToken::generate();
                let hashed = token.clone();
                let hash = tokio::task::spawn_blocking(move || hashed.hash()).await;
                let hash = hash.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
                let minted = TokenMinted {
                    token: token.id().to_string(),
                    holder,
                    purpose,
                    roles: roles.iter().map(Role::to_string).collect(),
                    scope,
                    hash,
                    expires_at_ms: Timestamp::now().millis().saturating_add(lifetime_ms),
                    lifetime_ms: Some(lifetime_ms),
                };
                (Command::Mint(minted), Some(token))
            }
            Change::Revoke { token, reason } => (Command::Revoke(TokenRevoked { token, reason }), None),
            Change::Grant { principal, role, scope } => {
                (Command::Grant(RoleGranted { principal, role: role.to_string(), scope }), None)
            }
            Change::Withdraw { principal, role, scope } => {
                (Command::Withdraw(RoleRevoked { principal, role: role.to_string(), scope }), None)
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

/// Nobody gives or takes what they do not have where they have it, and nobody acts in the name of who may do more.
fn may_make(identity: &Identity, at: &Scope, change: &Change, state: &State) -> Result<(), Problem> {
    if change.is_out_of_sight(state, identity, at)
        && let Change::Revoke { token, .. } = change
    {
        return Err(Rejection::NoToken { token: token.clone() }.into());
    }
    if let Some(scope) = change.confines_the_platforms_admin() {
        let (role, instead) = (Role::PlatformAdmin, Role::TenantAdmin);
        let detail =
            format!("the role {role} is of the whole platform and not of {scope}: give {instead} there");
        return Err(Problem::new(ProblemKind::Denied, detail));
    }
    let (who, grants) = (&identity.principal, change.grants(state, &identity.principal));
    let lacking =
        grants.into_iter().find_map(|grant| missing_of(&identity.grants, &grant).map(|it| (grant, it)));
    let Some((Grant { role, scope }, missing)) = lacking else { return Ok(()) };
    let place = if scope.is_platform() { String::new() } else { format!(" in the scope {scope}") };
    let detail = format!(
        "{who} cannot give or take the role {role}{place}: it permits `{missing}`, which {who} may not do there"
    );
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
        Command::Grant(RoleGranted { principal, role, scope })
        | Command::Withdraw(RoleRevoked { principal, role, scope }) => {
            json!({ "principal": principal, "role": role, "scope": scope, "changed": is_new })
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
        "scope": minted.scope,
        "expiresAt": Timestamp(minted.expires_at_ms * 1_000).rfc3339(),
    })
}
