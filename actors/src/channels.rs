//! The manifest's channels as the gateway checks them.

use std::collections::BTreeMap;
use std::sync::Arc;

use events::domain::crew::State;
use events::store::Epoch;
use gateway::{Channel, CrewPolicy, Kind, Member};
use manifest::{ChannelKind, CrewSpec, Hibernate, Millis};

use crate::roster::Hibernation;

/// The specification that the crew was assembled from.
pub(crate) fn spec(state: &State) -> Option<CrewSpec> {
    let started = state.started.as_ref()?;
    serde_json::from_value(started.spec.clone())
        .inspect_err(
            |error| tracing::error!(crew = %started.crew, %error, "crew specification cannot be read"),
        )
        .ok()
}

/// Who of the crew may send what to whom, written under `epoch`; nobody anything where the specification cannot be read.
pub(crate) fn compile(state: &State, epoch: Option<Epoch>) -> CrewPolicy {
    let (Some(started), Some(spec)) = (&state.started, spec(state)) else { return CrewPolicy::default() };
    let members = spec
        .members
        .iter()
        .map(|member| Member {
            name: Arc::from(member.name.as_str()),
            agents: state
                .kept()
                .filter(|held| held.seat.member == member.name.as_str())
                .map(|held| (held.seat.replica, held.seat.agent.clone()))
                .collect(),
        })
        .collect();
    let channels = spec
        .channels
        .iter()
        .map(|channel| Channel {
            from: Arc::from(channel.from.as_str()),
            to: Arc::from(channel.to.as_str()),
            kinds: channel.kinds.iter().map(|kind| carried(*kind)).collect(),
            max_depth: channel.max_depth,
            fan_out: channel.max_fan_out,
            rate_per_second: channel.rate.as_per_second() as f64,
        })
        .collect();
    let exhausted = state.exhausted.iter().next().map(|(what, used)| {
        let limit = state.allowance.limit(*what).unwrap_or(*used);
        Arc::from(format!("the crew's budget is used up: {used} of {limit} {what}"))
    });
    CrewPolicy {
        tenant: started.tenant.clone(),
        epoch,
        members,
        channels,
        messages_max: state.allowance.messages,
        exhausted,
    }
}

/// When agents of which member hibernate.
pub(crate) fn hibernation(state: &State) -> BTreeMap<String, Hibernation> {
    let members = spec(state).map(|spec| spec.members).unwrap_or_default();
    let hibernating = members.into_iter().filter_map(|member| {
        let Hibernate { after, wake_every } = member.hibernate?;
        let (after_ms, wake_every_ms) = (after.as_millis(), wake_every.map(Millis::as_millis));
        Some((member.name.as_str().to_owned(), Hibernation { after_ms, wake_every_ms }))
    });
    hibernating.collect()
}

fn carried(kind: ChannelKind) -> Kind {
    match kind {
        ChannelKind::Task => Kind::Task,
        ChannelKind::Message => Kind::Message,
    }
}
