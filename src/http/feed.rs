//! The live feed: the log as server-sent events, resumable by position.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use events::api::{Problem, ProblemKind};
use events::projection::{AuditFilter, PAGE_ITEMS_MAX, PageRequest, Within};
use events::{CrewId, EntityKind, Position, Recorded, StreamId, TaskId, Tenant};
use futures_util::Stream;
use identity::Sight;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};
use tokio::time::Instant;

use super::Api;
use super::envelope::Envelope;
use super::extract::{Known, Params};
use crate::access::Identity;
use crate::api::{Admitted, Refusal, crew_id, event_kind, parse};

/// What a reader must be allowed to do, for as long as it reads.
pub(super) const PERMISSION: &str = "audit:read";
/// What a reader of the whole log must be allowed to do.
const WHOLE: &str = "log:read";

/// Which events are wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Filter {
    /// Events above this position; `Last-Event-ID` wins over it. Absent: from now on.
    after: Option<u64>,
    /// The feed ends with this position.
    until: Option<u64>,
    /// Only events of these kinds, parted by commas.
    kind: Option<String>,
    /// Only events of entities of this kind, such as `task`.
    entity: Option<String>,
    /// Only events of this stream, such as `task/tk_…`.
    stream: Option<String>,
    /// Only events of this task.
    task: Option<String>,
    /// Also, as `task_delta`, what the handler that has this task in hand says of it to live watchers only. It is no
    /// event: it has no id and does not come again. Heard at the node that runs the task.
    deltas: Option<bool>,
    /// Only events of this crew, its agents, tasks and messages: its id or name.
    crew: Option<String>,
    /// The events of all tenants, as whoever verifies the log needs them; it takes `log:read`. Without it only those of
    /// the tenant.
    whole: Option<bool>,
}

/// Where the log ends.
#[derive(Serialize, JsonSchema)]
pub(super) struct LogHead {
    /// The position of its last event; 0 if it has none.
    position: u64,
    /// The hash of the chain up to there.
    hash: String,
}

pub(super) async fn head(State(api): State<Arc<Api>>) -> Result<Json<LogHead>, Refusal> {
    let head = api.store.head().await?;
    Ok(Json(LogHead { position: head.position.0, hash: head.hash.to_string() }))
}

/// A filter that was checked.
struct Wanted {
    kinds: Vec<String>,
    entity: Option<EntityKind>,
    streams: Vec<StreamId>,
    /// Only events of these crews.
    crews: Option<BTreeSet<CrewId>>,
    tenant: Tenant,
    /// With what of the tenant the reader was let in; nothing where it reads the whole log.
    sight: Option<Sight>,
}

impl Wanted {
    async fn new(api: &Api, admitted: &Admitted, filter: &Filter) -> Result<Self, Refusal> {
        let Admitted { caller, sight, .. } = admitted;
        let is_whole = filter.whole == Some(true);
        if is_whole {
            api.service.check_whole(admitted, WHOLE).await?;
        }
        let kinds = filter.kind.iter().flat_map(|kinds| kinds.split(','));
        let kinds = kinds.map(|kind| event_kind("kind", kind.trim()).map(str::to_owned));
        let kinds = kinds.collect::<Result<Vec<_>, Refusal>>()?;
        let entity = filter.entity.as_deref().map(|entity| parse("entity", entity)).transpose()?;
        let mut streams = Vec::new();
        if let Some(stream) = &filter.stream {
            streams.push(parse("stream", stream)?);
        }
        if let Some(task) = &filter.task {
            let task: TaskId = parse("task", task)?;
            streams.push(StreamId::new(EntityKind::Task, task.as_str()));
        }
        let tenant = caller.tenant.clone();
        let crews = match &filter.crew {
            Some(crew) => {
                let crew = crew_id(&*api.store, &tenant, sight, crew).await?;
                // What they do not see is as good as not there.
                Some(Some(crew).into_iter().filter(|crew| sight.takes_in(Some(crew))).collect())
            }
            None => sight.crews().cloned(),
        };
        let sight = (!is_whole).then(|| sight.clone());
        Ok(Self { kinds, entity, streams, crews, tenant, sight })
    }

    /// Whether the reader may still read all that was taken up for it.
    async fn is_still_theirs(&self, api: &Api, reader: &Identity) -> bool {
        match &self.sight {
            Some(sight) => api.service.still_sees(reader, PERMISSION, &self.tenant).await == *sight,
            None => api.service.still_sees_all(reader, WHOLE).await,
        }
    }

    fn takes(&self, event: &Recorded) -> bool {
        (self.sight.is_none() || event.meta.tenant == self.tenant)
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| **kind == *event.kind))
            && self.entity.is_none_or(|entity| entity == event.stream.kind)
            && self.streams.iter().all(|stream| *stream == event.stream)
    }
}

pub(super) async fn follow(
    State(api): State<Arc<Api>>,
    Known(admitted): Known,
    headers: HeaderMap,
    Params(filter): Params<Filter>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let permit = Arc::clone(&api.feeds).try_acquire_owned().map_err(|_| {
        let detail = format!("{} feeds are open, and more are not allowed", api.limits.feeds_max);
        Problem::new(ProblemKind::Busy, detail)
    })?;
    let last = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
        id.ok_or_else(|| Refusal::invalid("`Last-Event-ID`: expected a position, a whole number"))
    });
    let cursor = match (last.transpose()?, filter.after) {
        (Some(position), _) | (None, Some(position)) => Position(position),
        (None, None) => api.store.head().await?.position,
    };
    // A feed can only end; what cannot be read is said while there still is an answer to say it with.
    api.store.read(cursor, 1).await?;
    let deltas = deltas(&api, &admitted, &filter).await?;
    let wanted = Wanted::new(&api, &admitted, &filter).await?;
    let feed = Feed {
        deltas,
        identity: admitted.identity,
        wanted,
        until: filter.until.map(Position),
        cursor,
        shown: cursor,
        waiting: VecDeque::new(),
        hint: api.store.watch(),
        quiet_until: Instant::now() + Duration::from_millis(api.limits.keep_alive_ms),
        api,
        _permit: permit,
    };
    Ok(Sse::new(futures_util::stream::unfold(feed, Feed::next)))
}

/// What is said of the task whose deltas are wanted.
async fn deltas(
    api: &Api,
    Admitted { caller, sight, .. }: &Admitted,
    filter: &Filter,
) -> Result<Option<broadcast::Receiver<Arc<str>>>, Refusal> {
    if filter.deltas != Some(true) {
        return Ok(None);
    }
    let Some(task) = &filter.task else {
        return Err(Refusal::invalid("`deltas`: they are of one task; name it with `task`"));
    };
    let task: TaskId = parse("task", task)?;
    let settled = api.settle(None).await?;
    let within = Within { tenant: &caller.tenant, crews: sight.crews() };
    settled.found(api.views.task(within, &task).await, EntityKind::Task, task.as_str())?;
    Ok(Some(api.logs.deltas(&task)))
}

/// What a reader that is up to date waits for.
enum Heard {
    /// There may be more in the log.
    More,
    /// Something for live watchers only.
    Delta(Arc<str>),
    /// Nothing for so long that a sign of life is due.
    Quiet,
}

/// One reader of the feed.
struct Feed {
    api: Arc<Api>,
    /// Who reads: looked at again before each event, as a token may end while its feed lasts.
    identity: Identity,
    wanted: Wanted,
    until: Option<Position>,
    /// Up to where the log was read.
    cursor: Position,
    /// Up to where the reader knows that it was read.
    shown: Position,
    waiting: VecDeque<Recorded>,
    deltas: Option<broadcast::Receiver<Arc<str>>>,
    hint: watch::Receiver<Position>,
    quiet_until: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            // Whoever sees less by now, or more, asks anew.
            if !self.wanted.is_still_theirs(&self.api, &self.identity).await {
                return None;
            }
            if let Some(event) = self.waiting.pop_front() {
                self.shown = event.position;
                return Some((Ok(sse(&event)), self.heard()));
            }
            if self.api.stop.is_cancelled() {
                return None;
            }
            if self.until.is_some_and(|until| self.cursor >= until) {
                // That there was no more for the reader is said, so that it need not guess why the feed ended.
                let is_told = self.until.is_some_and(|until| self.shown >= until);
                return (!is_told).then(|| (Ok(self.sign_of_life()), self));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) => match self.hear().await {
                    Heard::More => {}
                    Heard::Delta(text) => return Some((Ok(delta(&text)), self.heard())),
                    Heard::Quiet => return Some((Ok(self.sign_of_life()), self.heard())),
                },
                Err(error) => {
                    // The client comes back with its position.
                    tracing::warn!(%error, "feed ended");
                    return None;
                }
            }
        }
    }

    /// Reads on; false if there was nothing.
    async fn read(&mut self) -> Result<bool, Problem> {
        self.hint.mark_unchanged();
        let mut events = self.api.store.read(self.cursor, self.api.limits.feed_batch).await?;
        let Some(last) = events.last().map(|event| event.position) else { return Ok(false) };
        if let Some(crews) = &self.wanted.crews {
            let positions = self.of_crews(crews, last).await?;
            events.retain(|event| positions.contains(&event.position));
        }
        self.cursor = last;
        let until = self.until;
        let wanted = events
            .into_iter()
            .filter(|event| until.is_none_or(|until| event.position <= until) && self.wanted.takes(event));
        self.waiting.extend(wanted);
        Ok(true)
    }

    /// The events of crews behind the cursor up to `last`: the audit knows which crew an event belongs to.
    async fn of_crews(
        &self,
        crews: &BTreeSet<CrewId>,
        last: Position,
    ) -> Result<BTreeSet<Position>, Problem> {
        let limit = Duration::from_millis(self.api.limits.wait_ms_max);
        self.api.views.wait_for(last, limit).await?;
        let items_max =
            u32::try_from(self.api.limits.feed_batch).unwrap_or(PAGE_ITEMS_MAX).min(PAGE_ITEMS_MAX);
        let page = PageRequest { items_max, cursor: Some(self.cursor), ..PageRequest::default() };
        let within = Within { tenant: &self.wanted.tenant, crews: Some(crews) };
        let lines = self.api.views.audit(within, AuditFilter::default(), page).await?;
        Ok(lines.items.into_iter().map(|line| line.position).collect())
    }

    /// Waits for a hint that there is more, for a delta, or for the moment to show a sign of life.
    async fn hear(&mut self) -> Heard {
        let poll = Instant::now() + Duration::from_millis(self.api.limits.feed_poll_ms);
        let deltas = &mut self.deltas;
        let said = async {
            match deltas {
                Some(deltas) => deltas.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.api.stop.cancelled() => {}
            _ = self.hint.changed() => {}
            // A reader that is too slow for them misses some.
            Ok(text) = said => return Heard::Delta(text),
            () = tokio::time::sleep_until(self.quiet_until.min(poll)) => {}
        }
        if Instant::now() >= self.quiet_until { Heard::Quiet } else { Heard::More }
    }

    /// An id without data moves the reader's `Last-Event-ID` past what it did not want, and is no event to it (HTML
    /// Living Standard §9.2.6); a comment where there is nothing to move past.
    fn sign_of_life(&mut self) -> Event {
        let read = self.until.map_or(self.cursor, |until| self.cursor.min(until));
        if read <= self.shown {
            return Event::default().comment("");
        }
        self.shown = read;
        Event::default().id(read.to_string())
    }

    fn heard(mut self) -> Self {
        self.quiet_until = Instant::now() + Duration::from_millis(self.api.limits.keep_alive_ms);
        self
    }
}

/// Without an id it moves nobody's `Last-Event-ID`.
fn delta(text: &str) -> Event {
    Event::default().event("task_delta").data(json!({ "delta": text }).to_string())
}

fn sse(event: &Recorded) -> Event {
    let head = Event::default().id(event.position.to_string()).event(event.kind.as_ref());
    let data = Envelope::try_from(event)
        .map_err(|error| error.to_string())
        .and_then(|envelope| serde_json::to_string(&envelope).map_err(|error| error.to_string()));
    match data {
        Ok(data) => head.data(data),
        Err(error) => head.comment(error),
    }
}
