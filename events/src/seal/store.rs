//! The log as those see it who work with clear data: what they append is sealed, what they read is opened.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::field::{Marked, marked};
use super::key::{self, PREFIX, Secret};
use super::keys::Found;
use super::{ERASED, Seal, SealError, keys_of};
use crate::event::{NewEvent, Recorded};
use crate::id::{CommandId, Digest, EntityKind, KeyId, Position, StreamId, Tenant, Version};
use crate::store::{
    AppendError, AppendRequest, Appended, EventStore, Expected, Head, ReadError, Reservation,
};

/// Tasks whose key is remembered, or that they have none.
const BOUND_MAX: usize = 100_000;

/// How often an append is sealed anew because a key was retired meanwhile: of each of its subjects once, and few are about
/// more than two.
const TRIES_MAX: usize = 8;

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
    /// That of the subjects with these keys, of which there is one at least.
    Keys(BTreeSet<KeyId>),
    /// That of a subject whose key was gone before the stream began.
    Erased,
}

impl Bound {
    /// Whose data it is that is about both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Erased, _) | (_, Self::Erased) => Self::Erased,
            (Self::Nobody, bound) | (bound, Self::Nobody) => bound,
            (Self::Keys(mut ours), Self::Keys(theirs)) => {
                ours.extend(theirs);
                Self::Keys(ours)
            }
        }
    }
}

/// What personal data of an event becomes.
enum Cover {
    Keys(Vec<(KeyId, Arc<Secret>)>),
    Erased,
}

/// What a payload says about its data subject.
#[derive(Deserialize)]
pub(super) struct Heading {
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

impl Heading {
    /// The tasks that a message or a value may be about.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &String> {
        self.task.iter().chain(&self.in_hand)
    }
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
            Some(subject) => match keys_of(&subject) {
                keys if keys.is_empty() => Bound::Erased,
                keys => Bound::Keys(keys.into_iter().collect()),
            },
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
                Some(heading) => self.bound_of_tasks(&heading).await.map_err(unread),
                None => Ok(Bound::Nobody),
            },
        }
    }

    /// Whose data the tasks hold, all of them together: what was said with several in hand may be about any.
    async fn bound_of_tasks(&self, heading: &Heading) -> Result<Bound, ReadError> {
        let mut bound = Bound::Nobody;
        for about in heading.tasks() {
            bound = bound.and(self.bound(&task(about)).await?);
        }
        Ok(bound)
    }

    /// A task is about its parent's subject, whose key may be gone by now, and about the one that it names.
    async fn bound_by(&self, tenant: &Tenant, heading: Heading) -> Result<Bound, AppendError> {
        let inherited = match heading.parent {
            Some(parent) => self.bound(&task(&parent)).await,
            None => Ok(Bound::Nobody),
        };
        let inherited =
            inherited.map_err(|error| AppendError::Unavailable { reason: error.to_string().into() })?;
        // Who was erased is not given a key again by the children of old tasks.
        if self.cover(&inherited).await?.is_some_and(|cover| matches!(cover, Cover::Erased)) {
            return Ok(Bound::Erased);
        }
        let named = match heading.subject.as_deref() {
            None => Bound::Nobody,
            Some(ERASED) => Bound::Erased,
            Some(subject) => Bound::Keys([self.seal.keys.of_subject(tenant, subject).await?.0].into()),
        };
        Ok(inherited.and(named))
    }

    async fn cover(&self, bound: &Bound) -> Result<Option<Cover>, SealError> {
        Ok(match bound {
            Bound::Nobody => None,
            Bound::Erased => Some(Cover::Erased),
            Bound::Keys(ids) => Some(match self.secrets(ids, |key| !key.is_retired).await? {
                Some(keys) => Cover::Keys(keys),
                None => Cover::Erased,
            }),
        })
    }

    /// The keys with these ids; `None` once one of them is destroyed or not `usable`.
    async fn secrets(
        &self,
        ids: &BTreeSet<KeyId>,
        usable: impl Fn(&Found) -> bool,
    ) -> Result<Option<Vec<(KeyId, Arc<Secret>)>>, SealError> {
        let mut keys = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(key) = self.seal.keys.find(id).await?.filter(&usable) else { return Ok(None) };
            keys.push((id.clone(), key.secret));
        }
        Ok(Some(keys))
    }

    /// The request with what is personal in it covered, and the keys that it is sealed with.
    async fn sealed(
        &self,
        mut request: AppendRequest,
        bound: &Bound,
    ) -> Result<(AppendRequest, Vec<KeyId>), AppendError> {
        let Some(cover) = self.cover(bound).await? else { return Ok((request, Vec::new())) };
        // What nobody could read would be no task.
        if begins(&request) && matches!((bound, &cover), (Bound::Keys(_), Cover::Erased)) {
            return Err(SealError::Erasing.into());
        }
        for event in &mut request.events {
            seal(&cover, &request.stream, event);
        }
        let Cover::Keys(keys) = cover else {
            request.command_digest = None;
            return Ok((request, Vec::new()));
        };
        let keyed = |digest| keys.iter().fold(digest, |digest, (_, key)| key.keyed(digest));
        request.command_digest = request.command_digest.map(keyed);
        Ok((request, keys.into_iter().map(|(id, _)| id).collect()))
    }

    /// The event with its personal fields opened. Its hash is that of what is stored.
    async fn open(&self, mut event: Recorded) -> Result<Recorded, ReadError> {
        let Some(marked) = marked(&event.kind) else { return Ok(event) };
        let is_sealed = event.payload.contains(PREFIX);
        if !is_sealed && (marked.digests.is_empty() || event.stream.kind != EntityKind::Task) {
            return Ok(event);
        }
        let Bound::Keys(ids) = self.bound_by_content(&event).await? else { return Ok(event) };
        let Ok(mut payload) = serde_json::from_str::<Value>(&event.payload) else { return Ok(event) };
        for field in marked.fields {
            if let Some(value) = payload.pointer_mut(field)
                && let Some(text) = value.as_str()
                && let Some(opened) = self.seal.open_text(&event.stream, text).await?
            {
                *value = opened;
            }
        }
        if let Some(keys) = self.secrets(&ids, |_| true).await? {
            mask(&keys, marked, &event.stream, &mut payload);
        }
        event.payload = payload.to_string().into();
        Ok(event)
    }

    /// Whose data a stored event holds.
    async fn bound_by_content(&self, event: &Recorded) -> Result<Bound, ReadError> {
        match event.stream.kind {
            EntityKind::Task => self.bound(&event.stream).await,
            _ => match heading(&event.payload) {
                Some(heading) => self.bound_of_tasks(&heading).await,
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

/// Whether the request begins a task.
fn begins(request: &AppendRequest) -> bool {
    request.stream.kind == EntityKind::Task && request.expected == Expected::NONE
}

/// Covers what is personal in an event of `stream`.
fn seal(cover: &Cover, stream: &StreamId, event: &mut NewEvent) {
    let Some(marked) = marked(&event.kind) else { return };
    let Ok(mut payload) = serde_json::from_str::<Value>(&event.payload) else { return };
    for field in marked.fields {
        if let Some(value) = payload.pointer_mut(field).filter(|value| !value.is_null()) {
            *value = match cover {
                Cover::Keys(keys) => key::seal(keys, stream, value.to_string().as_bytes()).into(),
                Cover::Erased => ERASED.into(),
            };
        }
    }
    match cover {
        Cover::Keys(keys) => mask(keys, marked, stream, &mut payload),
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
fn mask(keys: &[(KeyId, Arc<Secret>)], marked: &Marked, stream: &StreamId, payload: &mut Value) {
    for field in marked.digests {
        let place = format!("{field} {}", payload["child"].as_str().unwrap_or_default());
        if let Some(value) = payload.pointer_mut(field)
            && let Some(digest) = value.as_str().and_then(|text| text.parse().ok())
        {
            let masked = keys.iter().fold(digest, |digest, (_, key)| key.mask(stream, &place, digest));
            *value = masked.to_string().into();
        }
    }
}

#[async_trait]
impl EventStore for Sealing {
    async fn append(&self, request: AppendRequest) -> Result<Appended, AppendError> {
        if !request.events.iter().any(|event| marked(&event.kind).is_some()) {
            return self.log.append(request).await;
        }
        let _use = self.seal.keys.begin_use();
        for _ in 0..TRIES_MAX {
            let bound = self.bound_of(&request).await?;
            let (sealed, keys) = self.sealed(request.clone(), &bound).await?;
            match self.log.append_sealed(sealed, keys).await {
                // Another node has retired it since it was looked at here.
                Err(AppendError::Retired { key }) => self.seal.keys.forget(&key),
                appended => {
                    let appended = appended?;
                    if begins(&request) && !appended.repeated {
                        self.remember(&request.stream, bound);
                    }
                    return Ok(appended);
                }
            }
        }
        Err(SealError::Erasing.into())
    }

    async fn fence(&self) -> Result<(), AppendError> {
        self.log.fence().await
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
