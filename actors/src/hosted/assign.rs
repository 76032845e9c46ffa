//! What a runner is told about the agent that it becomes.

use std::path::PathBuf;
use std::sync::Arc;

use events::api::Problem;
use events::domain::agent::{Requested, State, Status};
use events::domain::crew;
use events::domain::pool::Prestart;
use events::{Incarnation, PoolId, SandboxId, Tenant};
use manifest::{CrewSpec, PoolSpec, Protocol, Resources, Stdin, Stdout};

use crate::channels;
use crate::core::Core;
use crate::profiles::Checked;
use crate::secrets;

pub(super) struct Prepared {
    pub(super) assign: link::Assign,
    pub(super) made: Made,
    pub(super) timeout_only: bool,
}

/// What an agent's own sandbox is made by.
pub(super) struct Made {
    pub(super) resources: Resources,
    image: Option<String>,
    runtime: Option<String>,
}

pub(super) async fn prepare(
    core: &Arc<Core>,
    requested: &Requested,
    state: &State,
    sandbox: &SandboxId,
) -> Result<Prepared, String> {
    let told = |problem: Problem| problem.detail;
    let crew = core.crews.read(requested.crew.as_str()).await.map_err(told)?;
    let spec = channels::spec(&crew).ok_or("the crew's specification cannot be read")?;
    let Requested { tenant, profile, profile_digest, .. } = requested;
    let checked = core.profiles.get(&*core.store, tenant, profile, *profile_digest).await.map_err(told)?;
    // A runner that has its agent is told nothing more.
    let secrets = match state.status {
        Status::Provisioning => secrets::resolve(core, requested, state.incarnation, &checked).await?,
        _ => Vec::new(),
    };
    let name = crew.started.as_ref().map_or_else(String::new, |started| started.name.clone());
    let handler = &checked.spec.handler;
    let assign = link::Assign {
        id: frame_id("assign", state.incarnation),
        agent: link::AgentRef {
            id: link::Id::try_from(requested.agent.as_str()).expect("an agent's id fits the link's"),
            crew: name,
            member: requested.member.clone(),
            replica: requested.replica,
            incarnation: state.incarnation.0,
        },
        handler: link::HandlerSpec {
            started: core.shelves.prestart(sandbox).is_some(),
            ..handler_spec(handler)
        },
        source: source(&checked),
        env: environment(&spec, &checked, &requested.member),
        secrets,
        models: models(&checked),
        tools: Vec::new(),
        peers: peers(core, &crew, &spec, requested).await,
        egress: false,
        limits: link::Limits::default(),
        liveness: link::Liveness {
            heartbeat_ms: spec.liveness.heartbeat.as_millis(),
            missed: spec.liveness.missed,
            progress_ms: spec.liveness.progress.as_millis(),
        },
        // The gateway makes it, as the frame goes out.
        token: link::Secret::default(),
        grace_ms: handler.grace.as_millis(),
        orphan_grace_ms: spec.liveness.orphan_grace.as_millis(),
    };
    let timeout_only = handler.protocol == Protocol::Exec;
    let made = Made {
        resources: checked.spec.resources.clone(),
        image: checked.image().map(str::to_owned),
        runtime: checked.spec.runtime_class.clone(),
    };
    Ok(Prepared { assign, made, timeout_only })
}

/// What a sandbox that stands by starts ahead: nothing of it is an agent's, and nothing is secret (SB-2).
pub(crate) async fn prestart(
    core: &Core,
    tenant: &Tenant,
    prestart: &Prestart,
) -> Result<link::Prestart, Problem> {
    let checked = core.profiles.get(&*core.store, tenant, &prestart.profile, prestart.digest).await?;
    Ok(link::Prestart {
        handler: handler_spec(&checked.spec.handler),
        source: source(&checked),
        env: checked.spec.env.clone(),
        models: models(&checked),
        limits: link::Limits::default(),
    })
}

fn models(checked: &Checked) -> Vec<String> {
    checked.spec.models.iter().map(|model| model.name.clone()).collect()
}

fn handler_spec(handler: &manifest::Handler) -> link::HandlerSpec {
    let result = matches!(handler.response, Some(manifest::Response::Result));
    link::HandlerSpec {
        protocol: match handler.protocol {
            Protocol::Stdio => link::Protocol::Stdio,
            Protocol::Pull => link::Protocol::Pull,
            Protocol::Exec => link::Protocol::Exec,
            Protocol::Http => link::Protocol::Http,
        },
        command: handler.command.clone(),
        cwd: handler.cwd.clone(),
        port: handler.port,
        stdin: match handler.stdin {
            Some(Stdin::Json) => link::StdinForm::Json,
            _ => link::StdinForm::Text,
        },
        stdout: match handler.stdout {
            _ if result => link::StdoutForm::Result,
            Some(Stdout::Json) => link::StdoutForm::Json,
            Some(Stdout::Result) => link::StdoutForm::Result,
            _ => link::StdoutForm::Text,
        },
        concurrency: handler.concurrency,
        start_timeout_ms: handler.start_timeout.as_millis(),
        started: false,
    }
}

fn source(checked: &Checked) -> link::Source {
    let Some(digest) = checked.bundle else { return link::Source::default() };
    let hex = digest.to_string();
    link::Source { url: link::ArtifactUrl::of_digest(&hex).ok(), digest: Some(hex), path: None }
}

fn environment(
    spec: &CrewSpec,
    checked: &Checked,
    member: &str,
) -> std::collections::BTreeMap<String, String> {
    let mut env = checked.spec.env.clone();
    env.extend(spec.member(member).map(|member| member.env.clone()).unwrap_or_default());
    env
}

/// Whom an agent may reach, and what they do.
async fn peers(
    core: &Core,
    crew: &crew::State,
    spec: &CrewSpec,
    requested: &Requested,
) -> Vec<link::handler::Peer> {
    let mut peers = Vec::new();
    for channel in spec.channels.iter().filter(|channel| channel.from.as_str() == requested.member) {
        let member = channel.to.as_str();
        let kinds = channel.kinds.iter().map(|kind| match kind {
            manifest::ChannelKind::Task => "task".to_owned(),
            manifest::ChannelKind::Message => "message".to_owned(),
        });
        peers.push(link::handler::Peer {
            member: member.to_owned(),
            kinds: kinds.collect(),
            description: description(core, crew, &requested.tenant, member).await,
        });
    }
    peers
}

/// What a member does, as its profile says. An agent starts also where that cannot be read: it is for people and models.
async fn description(core: &Core, crew: &crew::State, tenant: &Tenant, member: &str) -> String {
    let Some(held) = crew.kept().find(|held| held.seat.member == member) else { return String::new() };
    let crew::Seat { profile, profile_digest, .. } = &held.seat;
    match core.profiles.get(&*core.store, tenant, profile, *profile_digest).await {
        Ok(checked) => checked.spec.description.clone(),
        Err(error) => {
            tracing::warn!(profile, %error, "what a member does cannot be told to its peers");
            String::new()
        }
    }
}

/// The id of a frame that is sent once in an incarnation.
pub(super) fn frame_id(what: &str, incarnation: Incarnation) -> link::Id {
    link::Id::try_from(format!("{what}-{incarnation}")).expect("a short word and a number fit an id")
}

pub(super) fn sandbox_spec(
    core: &Core,
    requested: &Requested,
    incarnation: Incarnation,
    id: sandbox::Id,
    socket: PathBuf,
    made: &Made,
) -> sandbox::Spec {
    let labels = sandbox::Labels {
        agent: Some(requested.agent.to_string()),
        incarnation: Some(incarnation.0),
        pool: None,
    };
    sandbox::Spec {
        image: made.image.clone(),
        runtime: made.runtime.clone(),
        ..spec(core, id, labels, socket, &made.resources)
    }
}

/// A sandbox that stands by: nothing of it says for whom (SB-2).
pub(super) fn standby_spec(
    core: &Core,
    pool: &PoolId,
    id: sandbox::Id,
    socket: PathBuf,
    made_by: &PoolSpec,
) -> sandbox::Spec {
    let labels = sandbox::Labels { pool: Some(pool.to_string()), ..sandbox::Labels::default() };
    sandbox::Spec {
        image: made_by.image.clone(),
        runtime: made_by.runtime_class.clone(),
        ..spec(core, id, labels, socket, &made_by.resources)
    }
}

/// A profile's limits as a sandbox is held to them.
pub(super) fn limits(resources: &Resources) -> sandbox::Resources {
    sandbox::Resources {
        cpu_millis: u32::try_from(resources.cpu.as_millicores()).unwrap_or(u32::MAX),
        memory_bytes: resources.memory.as_bytes(),
        pids: resources.pids,
        work_bytes: resources.work.as_bytes(),
        ..sandbox::Resources::default()
    }
}

fn spec(
    core: &Core,
    id: sandbox::Id,
    labels: sandbox::Labels,
    socket: PathBuf,
    resources: &Resources,
) -> sandbox::Spec {
    sandbox::Spec {
        id,
        labels,
        socket,
        image: None,
        runtime: None,
        resources: limits(resources),
        orphan_grace_ms: link::limits::ORPHAN_GRACE_MS,
        runner: sandbox::Runner {
            program: core.options.program.clone(),
            argv0: "hypercode-runner".to_owned(),
        },
    }
}
