//! Whose an artifact is: bytes are kept once by their digest, and read by those alone to whom they were given.

use events::api::{Caller, Command, Problem, ProblemKind};
use events::artifact::Artifact;
use events::domain::DomainEvent as _;
use events::domain::artifact::{Event, Kept, grant, of_principal, of_tenant};
use events::store::{AppendError, AppendRequest, Expected, Reservation};
use events::{CommandId, Digest, EntityKind, EventStore, StreamId, Timestamp};
use identity::{Scope, Sight};
use link::{ArtifactUrl, Body, Content};

use super::problem::Refusal;
use super::service::{Admitted, Service};

/// How often names are looked up anew that others took in between.
const TRIES: usize = 3;

impl Service {
    /// Makes what was put the tenant's, and whoever put it somebody who may read it.
    ///
    /// # Errors
    /// When that did not become durable; it is to be put again then.
    pub(crate) async fn keep_artifact(&self, caller: &Caller, artifact: Artifact) -> Result<(), Refusal> {
        let Artifact { digest, size } = artifact;
        let names =
            [of_tenant(&caller.tenant, digest), of_principal(&caller.tenant, &caller.principal, digest)];
        let mut tries = 0;
        loop {
            let mut reserve = Vec::new();
            for name in &names {
                if !is_taken(self.store(), name).await? {
                    reserve.push(name.clone());
                }
            }
            if reserve.is_empty() {
                return Ok(());
            }
            let request = AppendRequest {
                stream: StreamId::new(EntityKind::Platform, "artifacts"),
                expected: Expected::Any,
                command_id: CommandId::fresh(),
                command_digest: None,
                epoch: None,
                meta: caller.meta(),
                recorded_at: Timestamp::now(),
                events: vec![Event::from(Kept { digest, bytes: size }).encode()],
                reserve,
                release: Vec::new(),
            };
            tries += 1;
            match self.store().append(request).await {
                Err(AppendError::Taken { .. }) if tries < TRIES => {}
                appended => return Ok(appended.map(|_| ()).map_err(Problem::from)?),
            }
        }
    }

    /// Whether they may read an artifact: it is the tenant's and they see all of that, or they put it, or a crew has it that
    /// they see. Who asks about the platform as a whole may read whatever there is.
    pub(crate) async fn may_read_artifact(
        &self,
        admitted: &Admitted,
        digest: Digest,
    ) -> Result<bool, Refusal> {
        let Admitted { caller, at, sight, .. } = admitted;
        if *at == Scope::Platform {
            return Ok(true);
        }
        let own = of_principal(&caller.tenant, &caller.principal, digest);
        let names: Vec<Reservation> = match sight {
            Sight::All => vec![of_tenant(&caller.tenant, digest)],
            Sight::Crews(crews) => crews.iter().map(|crew| grant(crew, digest)).chain([own]).collect(),
            Sight::Nothing => Vec::new(),
        };
        for name in &names {
            if is_taken(self.store(), name).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses a command that hands on an artifact which whoever gives it may not read, as if it did not exist.
    pub(super) async fn check_artifacts(
        &self,
        admitted: &Admitted,
        command: &Command,
    ) -> Result<(), Refusal> {
        let (what, digests) = match command {
            Command::ProfileApply { name, bundle, .. } => {
                (format!("profile `{name}`: its source"), bundle.iter().copied().collect())
            }
            Command::TaskSubmit { input, .. } => ("input:".to_owned(), referred_to(input)),
            _ => return Ok(()),
        };
        for digest in digests {
            if !self.may_read_artifact(admitted, digest).await? {
                let detail = format!("{what} {digest} is not in the artifact store; put it there first");
                return Err(Problem::new(ProblemKind::Invalid, detail).into());
            }
        }
        Ok(())
    }
}

async fn is_taken(store: &dyn EventStore, name: &Reservation) -> Result<bool, Refusal> {
    Ok(store.find_reservation(name).await?.is_some())
}

/// The artifacts that a task's input refers to; none where it is not legal, which is said elsewhere.
fn referred_to(input: &serde_json::Value) -> Vec<Digest> {
    let content = Content::from_handler(input.clone());
    let parts = content.map(|content| content.parts).unwrap_or_default();
    let urls = parts.iter().filter_map(|part| match &part.body {
        Body::Url(url) => Some(url),
        _ => None,
    });
    urls.filter_map(|url: &ArtifactUrl| url.hex().parse().ok()).collect()
}
