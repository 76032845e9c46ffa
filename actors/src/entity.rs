//! The actor behind every entity: decide, append, evolve, reply, effects; in that order, always.

mod fold;

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use events::api::{Problem, ProblemKind};
use events::domain::{Decider, DomainEvent};
use events::store::{AppendError, AppendRequest, Appended, Epoch, Expected};
use events::{CommandId, CrewId, Digest, Meta, Position, StreamId, Version};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::admission::Admitted;
use crate::core::Core;
use crate::shards::{Shards, Tenure};

pub(crate) use self::fold::peek;
use self::fold::{Folded, Source, Unseen, until_read};

/// How often a decision is made anew because another writer was faster.
const DECIDE_TRIES_MAX: usize = 4;

/// What the actor needs to know of an entity beside its decider.
pub(crate) trait Hosted: Decider {
    /// Whether its stream grows for as long as it lives, so that its state is worth saving. Nothing personal may be in
    /// such a state: a snapshot is not encrypted.
    const GROWS_LONG: bool = false;
    /// The crew whose shard the entity shares; its own id decides where it has none.
    fn crew(state: &Self::State) -> Option<&CrewId>;
    /// Takes note, in memory, of what has become durable, the last of which is `cause`. Must not block.
    fn observe(
        core: &Arc<Core>,
        id: &str,
        state: &Arc<Self::State>,
        events: &[Self::Event],
        cause: Option<&Cause>,
    );
    /// Whether the effect takes something away: begun, it is carried on even while the platform stops.
    fn takes_away(_: &Self::Effect) -> bool {
        false
    }
    /// Carries out an effect; dropped when the entity's shard is lost.
    fn perform(
        core: Arc<Core>,
        id: Arc<str>,
        cause: Cause,
        effect: Self::Effect,
    ) -> impl Future<Output = ()> + Send;
}

/// The event that led to an effect: what makes the ids of its commands.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// The stream.
    pub(crate) stream: StreamId,
    /// Its version.
    pub(crate) version: Version,
    /// Who and why, for the events that follow.
    pub(crate) meta: Meta,
}

impl Cause {
    /// The id of the `ordinal`-th command that follows from here and goes to `entity`: one event may have the same
    /// follow for several.
    pub(crate) fn command(&self, ordinal: u32, entity: &StreamId) -> CommandId {
        let id = CommandId::of_effect(&self.stream, self.version, ordinal);
        CommandId::derive(&[&id.to_string(), &entity.to_string()])
    }

    /// The envelope of a command that a part of the platform gives because of this.
    pub(crate) fn meta(&self, part: &str) -> Meta {
        Meta {
            principal: events::Principal::system(part),
            causation_id: Some(self.name()),
            ..self.meta.clone()
        }
    }

    /// The same of a command that somebody gives because of this, in his own name.
    pub(crate) fn of(&self, given: Meta) -> Meta {
        Meta {
            causation_id: Some(self.name()),
            correlation_id: given.correlation_id.or_else(|| self.meta.correlation_id.clone()),
            traceparent: given.traceparent.or_else(|| self.meta.traceparent.clone()),
            ..given
        }
    }

    /// The event, for what an agent does because of it.
    pub(crate) fn origin(&self) -> gateway::Origin {
        gateway::Origin { event: self.name(), correlation: self.meta.correlation_id.clone() }
    }

    /// The event, as those name it that follow.
    fn name(&self) -> Arc<str> {
        format!("{}@{}", self.stream, self.version).into()
    }
}

/// A command on its way to an entity.
pub(crate) struct Request<D: Decider> {
    pub(crate) command: D::Command,
    pub(crate) command_id: CommandId,
    pub(crate) digest: Option<Digest>,
    pub(crate) meta: Meta,
    /// The entity's id was made for this command, so nothing is looked up before it is appended. If there is a
    /// stream all the same, the append finds it.
    pub(crate) is_first: bool,
}

/// What came of a command.
pub(crate) struct Outcome<D: Decider> {
    /// The entity after it.
    pub(crate) state: Arc<D::State>,
    /// What was appended; nothing if the command asked for what already was.
    pub(crate) events: Vec<D::Event>,
    /// The position that a reader must have read to see the outcome; 0 if nothing was appended.
    pub(crate) position: Position,
    /// The newest event then, for what follows from it; `None` while there is none.
    pub(crate) cause: Option<Cause>,
}

pub(crate) enum Message<D: Decider> {
    /// Answer a command.
    Execute(Box<Request<D>>, RpcReplyPort<Result<Outcome<D>, Problem>>),
    /// Say what the entity is.
    Read(RpcReplyPort<Result<Arc<D::State>, Problem>>),
    /// Carry out all that the entity's state asks for: after a restart of the platform.
    Resume(RpcReplyPort<Result<Arc<D::State>, Problem>>),
}

/// One entity; holds nothing but what its stream holds.
pub(crate) struct Entity<D>(PhantomData<D>);

impl<D> Entity<D> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

/// An entity as its actor last knew it to be durable: whoever only wants to look does not have to ask the actor.
pub(crate) struct Shown<D: Decider>(Mutex<Option<(Arc<D::State>, Good)>>);

impl<D: Decider> Shown<D> {
    /// Nothing is known yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// The entity, once it was loaded, for as long as nobody else can have changed it.
    pub(crate) fn state(&self, shards: &Shards) -> Option<Arc<D::State>> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().filter(|(_, good)| good.is_current(shards)).map(|(state, _)| Arc::clone(state))
    }

    fn set(&self, state: &Arc<D::State>, good: Good) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(state), good));
    }
}

pub(crate) struct Args<D: Decider> {
    pub(crate) core: Arc<Core>,
    pub(crate) id: Arc<str>,
    pub(crate) shown: Arc<Shown<D>>,
}

pub(crate) struct Loaded<D: Decider> {
    core: Arc<Core>,
    id: Arc<str>,
    stream: StreamId,
    entity: Option<(Folded<D>, Good)>,
    /// The version after which the state was saved last.
    saved: Version,
    shown: Arc<Shown<D>>,
}

/// For how long a state in memory is what the stream says.
#[derive(Clone, Debug)]
pub(crate) enum Good {
    /// While this node holds the shard: nobody else writes.
    Under(Arc<Tenure>),
    /// Until this node takes further shards: an entity that does not exist yet may come to be elsewhere.
    Until(u64),
}

impl Good {
    fn is_current(&self, shards: &Shards) -> bool {
        match self {
            Self::Under(tenure) => !tenure.is_lost(),
            Self::Until(generation) => *generation == shards.generation(),
        }
    }
}

#[ractor::async_trait]
impl<D: Hosted> Actor for Entity<D> {
    type Msg = Admitted<Message<D>>;
    type State = Loaded<D>;
    type Arguments = Args<D>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        args: Args<D>,
    ) -> Result<Loaded<D>, ActorProcessingErr> {
        let stream = StreamId::new(D::KIND, &args.id);
        Ok(Loaded {
            core: args.core,
            id: args.id,
            stream,
            entity: None,
            saved: Version(0),
            shown: args.shown,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Self::Msg,
        loaded: &mut Loaded<D>,
    ) -> Result<(), ActorProcessingErr> {
        let (message, _places) = message.into_parts();
        // A caller that has gone away is no error of the entity's, so failed replies are let go.
        match message {
            Message::Execute(request, reply) => {
                let outcome = loaded.execute(&request).await;
                let _ = reply.send(outcome);
            }
            Message::Read(reply) => {
                let state = loaded.folded().await.map(|folded| folded.state);
                let _ = reply.send(state);
            }
            Message::Resume(reply) => {
                let state = loaded.resume().await;
                let _ = reply.send(state);
            }
        }
        Ok(())
    }
}

impl<D: Hosted> Loaded<D> {
    async fn folded(&mut self) -> Result<Folded<D>, Problem> {
        if let Some((folded, good)) = &self.entity
            && good.is_current(&self.core.shards)
        {
            return Ok(folded.clone());
        }
        loop {
            let generation = self.core.shards.generation();
            let (saved, folded) = self.source().fold().await?;
            self.saved = saved;
            let good = self.good(&folded, generation)?;
            // A shard that was taken while its stream was read may have been written to in between.
            if generation == self.core.shards.generation() {
                self.keep(&folded, good);
                return Ok(folded);
            }
        }
    }

    fn good(&self, folded: &Folded<D>, generation: u64) -> Result<Good, Problem> {
        match folded.version {
            Version(0) => Ok(Good::Until(generation)),
            _ => self.core.shards.holding(self.key(&folded.state)).map(Good::Under),
        }
    }

    /// What decides on the entity's shard.
    fn key<'a>(&'a self, state: &'a D::State) -> &'a str {
        D::crew(state).map_or(&*self.id, CrewId::as_str)
    }

    fn source(&self) -> Source<'_, D> {
        Source::new(&self.core, &self.stream)
    }

    /// Makes the state what the stream says.
    fn keep(&mut self, folded: &Folded<D>, good: Good) {
        if D::GROWS_LONG && folded.version.0 >= self.saved.0 + self.core.options.limits.snapshot_every_events
        {
            self.saved = folded.version;
            let (core, stream, folded) = (Arc::clone(&self.core), self.stream.clone(), folded.clone());
            self.core.spawn_always(async move { Source::new(&core, &stream).save(&folded).await });
        }
        self.entity = Some((folded.clone(), good.clone()));
        self.shown.set(&folded.state, good);
    }

    async fn execute(&mut self, request: &Request<D>) -> Result<Outcome<D>, Problem> {
        for _ in 0..DECIDE_TRIES_MAX {
            let folded = match &self.entity {
                None if request.is_first => Folded::nothing(),
                _ => self.folded().await?,
            };
            let context = self.core.context();
            let events = D::decide(&folded.state, &request.command, &context).map_err(Into::into)?;
            if events.is_empty() {
                let cause = self.cause(&folded);
                return Ok(Outcome { state: folded.state, events, position: Position(0), cause });
            }
            let next = evolve::<D>(&folded.state, &events);
            let tenure = self.core.shards.tenure(self.key(&next))?;
            let meta = self.envelope(&request.meta, &folded);
            let append = AppendRequest {
                stream: self.stream.clone(),
                expected: Expected::Exact(folded.version),
                command_id: request.command_id,
                command_digest: request.digest,
                epoch: Some(tenure.epoch),
                meta: meta.clone(),
                recorded_at: context.now,
                events: events.iter().map(DomainEvent::encode).collect(),
                reserve: D::reserves(&folded.state, &events),
                release: D::releases(&folded.state, &events),
            };
            match self.append(append, tenure.epoch).await? {
                Landed::At(appended) if !appended.repeated => {
                    let Appended { version, position, .. } = appended;
                    let state = Arc::new(next);
                    let obligations = D::obligations(&state);
                    let after = Folded { state: Arc::clone(&state), version, meta: Some(meta), obligations };
                    let cause = self.cause(&after);
                    self.take_in(&folded, after, &events, &tenure);
                    return Ok(Outcome { state, events, position, cause });
                }
                // The command was in the stream already: long since, or just now, with its answer lost on the way.
                Landed::At(appended) => {
                    let (state, unseen) = self.catch_up(&folded, &tenure).await?;
                    let cause = self.entity.as_ref().and_then(|(folded, _)| self.cause(folded));
                    let own = unseen.into_iter().filter(|(_, command)| *command == request.command_id);
                    let events = own.map(|(event, _)| event).collect();
                    return Ok(Outcome { state, events, position: appended.position, cause });
                }
                Landed::TryAgain => {
                    self.catch_up(&folded, &tenure).await?;
                }
            }
        }
        let detail = format!("{} changes too fast under concurrent writers; try again", self.stream);
        Err(Problem::new(ProblemKind::Busy, detail))
    }

    /// The newest event, as a cause.
    fn cause(&self, folded: &Folded<D>) -> Option<Cause> {
        let meta = folded.meta.clone()?;
        Some(Cause { stream: self.stream.clone(), version: folded.version, meta })
    }

    /// The envelope of what a command leads to. Where nobody says why it was given, it follows from what the entity was.
    fn envelope(&self, given: &Meta, before: &Folded<D>) -> Meta {
        let is_explained = given.causation_id.is_some() || given.correlation_id.is_some();
        match self.cause(before).filter(|_| !is_explained) {
            Some(cause) => cause.of(given.clone()),
            None => given.clone(),
        }
    }

    async fn append(&self, request: AppendRequest, epoch: Epoch) -> Result<Landed, Problem> {
        let command_id = request.command_id;
        match self.core.store.append(request).await {
            Ok(appended) => Ok(Landed::At(appended)),
            Err(AppendError::WrongVersion { .. }) => Ok(Landed::TryAgain),
            Err(AppendError::Unknown { reason }) => {
                // Never guessed: the log itself says whether the command is in it.
                let found = until_read(&self.core, || self.core.store.find_command(command_id)).await?;
                tracing::warn!(stream = %self.stream, %reason, found = found.is_some(), "append outcome resolved");
                Ok(found.map_or(Landed::TryAgain, |found| Landed::At(Appended { repeated: true, ..found })))
            }
            Err(error) => {
                if matches!(error, AppendError::Fenced { .. }) {
                    self.core.shards.fenced(epoch);
                }
                Err(error.into())
            }
        }
    }

    /// Makes the state what the stream now says, and starts what follows from it. What is shown changes first: of
    /// two entities that change and then look at each other, at least one sees the other's change.
    fn take_in(&mut self, before: &Folded<D>, after: Folded<D>, events: &[D::Event], tenure: &Arc<Tenure>) {
        self.keep(&after, Good::Under(Arc::clone(tenure)));
        // What follows is the next holder's to start.
        if tenure.is_lost() {
            return;
        }
        let cause = self.cause(&after);
        D::observe(&self.core, &self.id, &after.state, events, cause.as_ref());
        let Some(cause) = cause else { return };
        for effect in after.obligations {
            if !before.obligations.contains(&effect) {
                self.perform(tenure, &cause, effect);
            }
        }
    }

    /// Takes in what is in the stream and was not seen yet, because the answer to an append was lost or somebody else
    /// wrote. What follows from it is started here: nobody else does.
    async fn catch_up(
        &mut self,
        before: &Folded<D>,
        tenure: &Arc<Tenure>,
    ) -> Result<(Arc<D::State>, Unseen<D>), Problem> {
        let (after, unseen) = self.source().read_on(before.clone()).await?;
        let state = Arc::clone(&after.state);
        if !unseen.is_empty() {
            let events: Vec<D::Event> = unseen.iter().map(|(event, _)| event.clone()).collect();
            self.take_in(before, after, &events, tenure);
        }
        Ok((state, unseen))
    }

    async fn resume(&mut self) -> Result<Arc<D::State>, Problem> {
        let folded = self.folded().await?;
        if let Some(cause) = self.cause(&folded) {
            let tenure = self.core.shards.holding(self.key(&folded.state))?;
            for effect in folded.obligations {
                self.perform(&tenure, &cause, effect);
            }
        }
        Ok(folded.state)
    }

    fn perform(&self, tenure: &Arc<Tenure>, cause: &Cause, effect: D::Effect) {
        let takes_away = D::takes_away(&effect);
        let effect = D::perform(Arc::clone(&self.core), Arc::clone(&self.id), cause.clone(), effect);
        match takes_away {
            true => self.core.spawn_to_end(tenure, effect),
            false => self.core.spawn(tenure, effect),
        }
    }
}

enum Landed {
    At(Appended),
    TryAgain,
}

fn evolve<D: Decider>(state: &D::State, events: &[D::Event]) -> D::State {
    events.iter().fold(state.clone(), |state, event| D::evolve(state, event))
}
