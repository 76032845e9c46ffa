//! Commands to pools.

use std::sync::Arc;

use events::api::{Problem, ProblemKind, Reply, Target};
use events::domain::pool::{Command, Phase, Prestart, Size, State};
use events::{CrewId, Digest, EntityKind, PoolId};
use manifest::{CrewSpec, PoolSpec, Protocol};
use serde_json::{Value, json};

use super::{Answerer, Asked, reply};
use crate::contents;
use crate::hosted;
use crate::profiles::Wish;

impl Answerer {
    pub(super) async fn apply_pool(
        &self,
        asked: &Asked<'_>,
        name: &str,
        spec: Value,
    ) -> Result<Reply, Problem> {
        let checked: PoolSpec = serde_json::from_value(spec)
            .map_err(|error| Problem::new(ProblemKind::Invalid, format!("pool `{name}`: {error}")))?;
        self.check_runtime(&format!("pool `{name}`"), checked.runtime_class.as_deref()).await?;
        let ahead = match &checked.prestart {
            Some(profile) => Some(self.ahead(asked, profile.as_str(), &checked).await?),
            None => None,
        };
        let image = match (&ahead, &checked.image) {
            // Only its agents claim from the pool, and they are made of this.
            (Some(Ahead { image: Some(pinned), .. }), _) => Some(pinned.clone()),
            (_, Some(named)) => self.pin(&format!("pool `{name}`"), named).await?,
            (_, None) => None,
        };
        let prestart = ahead.map(|ahead| ahead.prestart);
        let size = checked.size;
        let command = Command::Apply {
            tenant: asked.caller.tenant.clone(),
            name: name.to_owned(),
            template: template(&checked, image.as_deref(), prestart.as_ref()),
            size: Size { min: size.min, max: size.max, target: size.target },
            prestart,
            spec: contents::wire(checked),
            image,
        };
        self.give_pool(asked, name, command).await
    }

    /// The newest version of the profile: whoever wants a later one applies the pool anew.
    async fn ahead(&self, asked: &Asked<'_>, profile: &str, pool: &PoolSpec) -> Result<Ahead, Problem> {
        let (applied, spec) = self.profile(asked, profile).await?;
        let told_later = matches!(spec.handler.protocol, Protocol::Stdio | Protocol::Pull);
        if !told_later {
            let detail = format!(
                "the handler of profile `{profile}` cannot be started ahead: only `stdio` and `pull` handlers can be \
                 told afterwards for whom they work; leave `prestart` out"
            );
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let wish = Wish { image: spec.image.as_deref(), runtime: spec.runtime_class.as_deref() };
        if !wish.is_met(pool.image.as_deref(), pool.runtime_class.as_deref()) {
            let detail = format!(
                "profile `{profile}` wants another image or runtime than the pool's, so none of its agents could claim \
                 from it; give the pool the profile's `image` and `runtimeClass`"
            );
            return Err(Problem::new(ProblemKind::Invalid, detail));
        }
        let prestart = Prestart { profile: applied.name, version: applied.version, digest: applied.digest };
        Ok(Ahead { prestart, image: applied.image })
    }

    pub(super) async fn resize_pool(
        &self,
        asked: &Asked<'_>,
        name: &str,
        (min, max, target): (Option<u32>, Option<u32>, Option<Target>),
    ) -> Result<Reply, Problem> {
        let most = manifest::PoolSize::MAX;
        let pinned = match target {
            Some(Target::Pinned(number)) => Some(number),
            Some(Target::Auto) | None => None,
        };
        if [min, max, pinned].into_iter().flatten().any(|number| number > most) {
            return Err(Problem::new(ProblemKind::Invalid, format!("expected at most {most} sandboxes")));
        }
        let state = self.own_pool(asked, name).await?;
        let Size { min: fewest, max: greatest, target: before } = state.size;
        let target = if target.is_none() { before } else { pinned };
        let size = Size { min: min.unwrap_or(fewest), max: max.unwrap_or(greatest), target };
        self.give_pool(asked, name, Command::Resize { size }).await
    }

    pub(super) async fn drain_pool(
        &self,
        asked: &Asked<'_>,
        name: &str,
        reason: String,
    ) -> Result<Reply, Problem> {
        self.own_pool(asked, name).await?;
        self.give_pool(asked, name, Command::Drain { reason }).await
    }

    async fn own_pool(&self, asked: &Asked<'_>, name: &str) -> Result<Arc<State>, Problem> {
        let state = self.core.pools.read(PoolId::of(&asked.caller.tenant, name).as_str()).await?;
        if state.applied.is_none() {
            return Err(unknown(ProblemKind::NotFound, name));
        }
        Ok(state)
    }

    async fn give_pool(&self, asked: &Asked<'_>, name: &str, command: Command) -> Result<Reply, Problem> {
        let id = PoolId::of(&asked.caller.tenant, name);
        let outcome = self.give(&self.core.pools, asked, id.as_str(), command).await?;
        let position = self.position(asked, &outcome).await?;
        Ok(reply(EntityKind::Pool, id.as_str(), position, described(&outcome.state)))
    }

    /// Whether the crew's pool exists, and can serve so many more agents now or soon: who asks for more is told so at
    /// once, before anything is begun.
    pub(super) async fn check_pool(
        &self,
        asked: &Asked<'_>,
        crew: &CrewId,
        spec: &CrewSpec,
    ) -> Result<(), Problem> {
        let Some(name) = &spec.sandbox.pool else { return Ok(()) };
        let pool = PoolId::of(&asked.caller.tenant, name.as_str());
        if !hosted::pool_exists(&self.core, &pool).await? {
            return Err(unknown(ProblemKind::Invalid, name.as_str()));
        }
        let agents: u32 = spec.members.iter().map(|member| member.replicas).sum();
        // A crew that was begun before is answered as before.
        if self.core.shelves.admits(&pool, agents as usize)
            || self.core.crews.read(crew.as_str()).await?.started.is_some()
        {
            return Ok(());
        }
        let detail =
            format!("pool `{name}` is drained, and too many agents wait for it already; try again later");
        Err(Problem::new(ProblemKind::Busy, detail))
    }
}

/// A profile whose handler is started ahead.
struct Ahead {
    prestart: Prestart,
    /// What its image stood for when it was applied.
    image: Option<String>,
}

fn unknown(kind: ProblemKind, name: &str) -> Problem {
    let detail = format!("pool `{name}` does not exist; apply it first with `hypercode pool apply FILE`");
    Problem::new(kind, detail)
}

/// The digest of all that a sandbox is made by: one that was made otherwise is replaced.
fn template(spec: &PoolSpec, image: Option<&str>, prestart: Option<&Prestart>) -> Digest {
    let image = image.or(spec.image.as_deref());
    let mut made_by = vec![json!(image), json!(spec.resources), json!(spec.standby), json!(prestart)];
    // Not where none is named: what stands by since before there were runtimes to name is as good as new.
    made_by.extend(spec.runtime_class.as_ref().map(|runtime| json!(runtime)));
    let made_by = Value::from(made_by);
    Digest::of(made_by.to_string().as_bytes())
}

fn described(state: &State) -> Value {
    let applied = state.applied.as_ref();
    json!({
        "name": applied.map(|applied| &applied.name),
        "version": applied.map(|applied| applied.version),
        "status": state.status,
        "size": state.size,
        "ready": state.count(Phase::Ready),
        "warming": state.count(Phase::Warming),
        "claimed": state.count(Phase::Claimed),
    })
}
