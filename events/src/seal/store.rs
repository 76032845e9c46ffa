//! The log as those see it who work with clear data: what they append is sealed, what they read is opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::field::{Marked, marked};
use super::key::{PREFIX, Secret};
use super::{ERASED, Seal, SealError, key_of};
use crate::event::{NewEvent, Recorded};
use crate::id::{CommandId, Digest, EntityKind, KeyId, Position, StreamId, Tenant, Version};
use crate::store::{
    AppendError, AppendRequest, Appended, EventStore, Expected, Head, ReadError, Reservation,
};

/// Tasks whose key is remembered, or that they have none.
const BOUND_MAX: usize = 100_000;

/// A log behind a [`Seal`].
pub struct Sealing {
    log: Arc<dyn EventStore>,
    seal: Seal,
    bound: Mutex<HashMap<StreamId, Bound>>,
}

/// Whose data a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    /// Nobody's in particular.
    Nobody,
    /// That of the subject with this key.
    Key(KeyId),
    /// That of a subject whose key was gone before the stream began.
    Erased,
}

/// What personal data of an event becomes.
enum Cover {
    Key(KeyId, Arc<Secret>),
    Erased,
}

/// What a payload says about its data subject.
#[derive(Deserialize)]
struct Heading {
    /// The subject's name, sealed in what is stored.
    #[serde(default)]
    subject: Option<String>,
    /// The task that waits for a task: what it delegates is about the same subject.
    #[serde(default)]
    parent: Option<String>,
    /// The task that a message is about.
    #[serde(default)]
    task: Option<String>,
    /// The tasks in the hand of whoever said or wrote something without naming one.
    #[serde(default)]
    in_hand: Vec<String>,
}

fn heading(payload: &str) -> Option<Heading> {
    serde_json::from_str(payload).ok()
}

fn task(id: &str) -> StreamId {
    StreamId::new(EntityKind::Task, id)
}

impl Sealing {
    /// `log` behind `seal`.
    pub fn new(log: Arc<dyn EventStore>, seal: Seal) -> Self {
        Self { log, seal, bound: Mutex::default() }
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<StreamId, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, stream: &StreamId, bound: Bound) {
        let mut remembered = self.remembered();
        if remembered.len() >= BOUND_MAX {
            remembered.clear();
        }
        remembered.insert(stream.clone(), bound);
    }

    /// Whose data the task of `stream` holds: its first event says so.
    async fn bound(&self, stream: &StreamId) -> Result<Bound, ReadError> {
        if let Some(bound) = self.remembered().get(stream) {
            return Ok(bound.clone());
        }
        let first = self.log.read_stream(stream, Version(0), 1).await?;
        let Some(first) = first.first() else { return Ok(Bound::Nobody) };
        let subject = heading(&first.payload).and_then(|heading| heading.subject);
        let bound = match subject {
            None => Bound::Nobody,
            Some(subject) => key_of(&subject).map_or(Bound::Erased, Bound::Key),
        };
        self.remember(stream, bound.clone());
        Ok(bound)
    }

    /// Whose data the request's events are about.
    async fn bound_of(&self, request: &AppendRequest) -> Result<Bound, AppendError> {
        let unread = |error: ReadError| AppendError::Unavailable { reason: error.to_string().into() };
        let heading_of =
            |kind| request.events.iter().find(|event| &*event.kind == kind).map(|e| heading(&e.payload));
        match request.stream.kind {
            EntityKind::Task => match heading_of("task_submitted").flatten() {
                Some(heading) => self.bound_by(&request.meta.tenant, heading).await,
                None => self.bound(&request.stream).await.map_err(unread),
            },
            _ => match heading_of("message_sent").or_else(|| heading_of("state_put")).flatten() {
                Some(heading) => self.bound_of_tasks(heading).await.map_err(unread),
                None => Ok(Bound::Nobody),
            },
        }
    }

    /// Whose data the first of the tasks holds that holds anybody's.
    async fn bound_of_tasks(&self, heading: Heading) -> Result<Bound, ReadError> {
        for about in heading.task.iter().chain(&heading.in_hand) {
            let bound = self.bound(&task(about)).await?;
            if bound != Bound::Nobody {
                return Ok(bound);
            }
        }
        Ok(Bound::Nobody)
    }

    /// A task's subject is its parent's, whose key may be gone by now; else the one that it names.
    async fn bound_by(&self, tenant: &Tenant, heading: Heading) -> Result<Bound, AppendError> {
        if let Some(parent) = heading.parent {
            let bound = self.bound(&task(&parent)).await;
            let bound =
                bound.map_err(|error| AppendError::Unavailable { reason: error.to_string().into() })?;
            if bound != Bound::Nobody {
                return Ok(bound);
            }
        }
        match heading.subject.as_deref() {
            None => Ok(Bound::Nobody),
            Some(ERASED) => Ok(Bound::Erased),
            Some(subject) => Ok(Bound::Key(self.seal.keys.of_subject(tenant, subject).await?.0)),
        }
    }

    async fn cover(&self, bound: &Bound) -> Result<Option<Cover>, SealError> {
        Ok(match bound {
            Bound::Nobody => None,
            Bound::Erased => Some(Cover::Erased),
            Bound::Key(id) => Some(match self.seal.keys.find(id).await? {
                Some(key) => Cover::Key(id.clone(), key),
                None => Cover::Erased,
            }),
        })
    }

    /// The event with its personal fields opened. Its hash is that of what is stored.
    async fn open(&self, mut event: Recorded) -> Result<Recorded, ReadError> {
        let Some(marked) = marked(&event.kind) else { return Ok(event) };
        let is_sealed = event.payload.contains(PREFIX);
        if !is_sealed && (marked.digests.is_empty() || event.stream.kind != EntityKind::Task) {
            return Ok(event);
        }
        let Bound::Key(id) = self.bound_by_content(&event).await? else { return Ok(event) };
        let Ok(mut payload) = serde_json::from_str::<Value>(&event.payload) else { return Ok(event) };
        let key = self.seal.keys.find(&id).await?;
        for field in marked.fields {
            if let Some(value) = payload.pointer_mut(field)
                && let Some(text) = value.as_str()
                && let Some(opened) = self.seal.open_text(&event.stream, text).await?
            {
                *value = opened;
            }
        }
        if let Some(key) = key {
            mask(&key, marked, &event.stream, &mut payload);
        }
        event.payload = payload.to_string().into();
        Ok(event)
    }

    /// Whose data a stored event holds.
    async fn bound_by_content(&self, event: &Recorded) -> Result<Bound, ReadError> {
        match event.stream.kind {
            EntityKind::Task => self.bound(&event.stream).await,
            _ => match heading(&event.payload) {
                Some(heading) => self.bound_of_tasks(heading).await,
                None => Ok(Bound::Nobody),
            },
        }
    }

    async fn open_all(&self, events: Vec<Recorded>) -> Result<Vec<Recorded>, ReadError> {
        let mut opened = Vec::with_capacity(events.len());
        for event in events {
            opened.push(self.open(event).await?);
        }
        Ok(opened)
    }
}

/// Covers what is personal in an event of `stream`.
fn seal(cover: &Cover, stream: &StreamId, event: &mut NewEvent) {
    let Some(marked) = marked(&event.kind) else { return };
    let Ok(mut payload) = serde_json::from_str::<Value>(&event.payload) else { return };
    for field in marked.fields {
        if let Some(value) = payload.pointer_mut(field).filter(|value| !value.is_null()) {
            *value = match cover {
                Cover::Key(id, key) => key.seal(id, stream, value.to_string().as_bytes()).into(),
                Cover::Erased => ERASED.into(),
            };
        }
    }
    match cover {
        Cover::Key(_, key) => mask(key, marked, stream, &mut payload),
        Cover::Erased => {
            for field in marked.digests {
                if let Some(value) = payload.pointer_mut(field) {
                    *value = Digest::ZERO.to_string().into();
                }
            }
        }
    }
    event.payload = payload.to_string().into();
}

/// Masks the digests of a payload, or unmasks them. No two different ones of a stream have the same place.
fn mask(key: &Secret, marked: &Marked, stream: &StreamId, payload: &mut Value) {
    for field in marked.digests {
        let place = format!("{field} {}", payload["child"].as_str().unwrap_or_default());
        if let Some(value) = payload.pointer_mut(field)
            && let Some(digest) = value.as_str().and_then(|text| text.parse().ok())
        {
            *value = key.mask(stream, &place, digest).to_string().into();
        }
    }
}

#[async_trait]
impl EventStore for Sealing {
    async fn append(&self, mut request: AppendRequest) -> Result<Appended, AppendError> {
        if !request.events.iter().any(|event| marked(&event.kind).is_some()) {
            return self.log.append(request).await;
        }
        let bound = self.bound_of(&request).await?;
        if let Some(cover) = self.cover(&bound).await? {
            for event in &mut request.events {
                seal(&cover, &request.stream, event);
            }
            request.command_digest = match (request.command_digest, &cover) {
                (Some(digest), Cover::Key(_, key)) => Some(key.keyed(digest)),
                _ => None,
            };
        }
        let begins = request.stream.kind == EntityKind::Task && request.expected == Expected::NONE;
        let stream = request.stream.clone();
        let appended = self.log.append(request).await?;
        if begins && !appended.repeated {
            self.remember(&stream, bound);
        }
        Ok(appended)
    }

    async fn find_command(&self, id: CommandId) -> Result<Option<Appended>, ReadError> {
        self.log.find_command(id).await
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, ReadError> {
        self.open_all(self.log.read(after, limit).await?).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<Recorded>, ReadError> {
        self.open_all(self.log.read_stream(stream, after, limit).await?).await
    }

    async fn find_reservation(&self, name: &Reservation) -> Result<Option<StreamId>, ReadError> {
        self.log.find_reservation(name).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.log.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.log.watch()
    }
}
