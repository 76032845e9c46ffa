//! Which crew may read which artifact: durable, for a handler may ask after a restart of the platform.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use events::domain::DomainEvent;
use events::domain::artifact::{Event, Granted, Reason, grant, of_tenant};
use events::store::Reservation;
use events::{AppendError, CrewId, Digest, EntityKind, Principal, StreamId};
use link::{ArtifactUrl, Assign, Body, Content, ErrorType, Source};

use crate::core::Core;
use crate::denial::party;
use crate::host::{Origin, Peer};
use crate::journal;
use crate::sandbox::Sandbox;

/// Grants that are kept in memory; the log knows them all.
const KNOWN_MAX: usize = 100_000;

/// Grants that need not be looked up.
#[derive(Debug, Default)]
pub(crate) struct Grants(Mutex<HashSet<(CrewId, Digest)>>);

impl Grants {
    fn has(&self, crew: &CrewId, digest: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(crew.clone(), digest))
    }

    fn add(&self, crew: &CrewId, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert((crew.clone(), digest));
    }
}

impl Core {
    /// The peer's crew may read the artifact from now on.
    pub(crate) async fn grant(
        &self,
        peer: &Peer,
        origin: Origin,
        digest: Digest,
        reason: Reason,
        media_type: Option<String>,
    ) -> Result<(), link::Error> {
        if self.grants.has(&peer.crew, digest) {
            return Ok(());
        }
        let granted = Granted { crew: peer.crew.clone(), digest, reason, agent: party(peer), media_type };
        let events = vec![Event::from(granted).encode()];
        let stream = StreamId::new(EntityKind::State, format!("artifacts.{}", peer.crew));
        let mut request = journal::by_agent(peer, origin, self.epoch(&peer.crew), stream, events);
        if reason == Reason::Given {
            request.meta.principal = Principal::system("gateway");
        }
        let own = grant(&peer.crew, digest);
        let tenants = of_tenant(&peer.tenant, digest);
        request.reserve.push(own.clone());
        if !self.is_taken(&tenants).await? {
            request.reserve.push(tenants);
        }
        let mut granted = self.journal.append(&request).await;
        if matches!(&granted, Err(AppendError::Taken { namespace, .. }) if *namespace != own.namespace) {
            // Another crew of the tenant came in between.
            request.reserve.truncate(1);
            granted = self.journal.append(&request).await;
        }
        match granted {
            Ok(_) | Err(AppendError::Taken { .. }) => {
                self.grants.add(&peer.crew, digest);
                Ok(())
            }
            Err(error) => Err(journal::refusal(&error)),
        }
    }

    async fn is_taken(&self, name: &Reservation) -> Result<bool, link::Error> {
        let found = self.journal.store.find_reservation(name).await;
        found.map(|stream| stream.is_some()).map_err(|error| {
            tracing::warn!(%error, "cannot tell whether an artifact may be read");
            link::Error::new(ErrorType::Unavailable, "the log cannot be read now")
        })
    }

    /// Grants what the platform gives an agent a reference to.
    pub(crate) async fn give(
        &self,
        peer: &Peer,
        origin: &Origin,
        content: &Content,
    ) -> Result<(), link::Error> {
        for url in urls(content) {
            self.grant(peer, origin.clone(), digest(url)?, Reason::Given, None).await?;
        }
        Ok(())
    }

    /// Grants the bundle that a handler comes from.
    pub(crate) async fn give_source(&self, sandbox: &Sandbox, assign: &Assign) -> Result<(), link::Error> {
        match (sandbox.peer(), &assign.source.url) {
            (Some(peer), Some(url)) => {
                self.grant(peer, peer.origin.clone(), digest(url)?, Reason::Given, None).await
            }
            _ => Ok(()),
        }
    }

    /// Whether the crew may read the artifact.
    pub(crate) async fn may_read(&self, crew: &CrewId, digest: Digest) -> Result<bool, link::Error> {
        if self.grants.has(crew, digest) {
            return Ok(true);
        }
        let is_granted = self.is_taken(&grant(crew, digest)).await?;
        if is_granted {
            self.grants.add(crew, digest);
        }
        Ok(is_granted)
    }

    /// Whether the crew may read all that the content refers to: nobody passes on what is not theirs to read.
    pub(crate) async fn may_refer(&self, crew: &CrewId, content: &Content) -> Result<(), link::Error> {
        for url in urls(content) {
            if !self.may_read(crew, digest(url)?).await? {
                return Err(unknown(url));
            }
        }
        Ok(())
    }
}

fn urls(content: &Content) -> impl Iterator<Item = &ArtifactUrl> {
    content.parts.iter().filter_map(|part| match &part.body {
        Body::Url(url) => Some(url),
        _ => None,
    })
}

/// The digest that a reference names.
pub(crate) fn digest(url: &ArtifactUrl) -> Result<Digest, link::Error> {
    url.hex().parse().map_err(|_| unknown(url))
}

/// The bundle that a handler comes from, where it comes from one.
pub(crate) fn bundle(source: &Source) -> Option<Digest> {
    digest(source.url.as_ref()?).ok()
}

/// No such artifact, or not this crew's to read: it cannot tell which.
pub(crate) fn unknown(url: &ArtifactUrl) -> link::Error {
    link::Error::new(ErrorType::UnknownArtifact, format_args!("there is no `{url}` for you"))
}
