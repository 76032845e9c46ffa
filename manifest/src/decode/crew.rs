//! Reading the spec of a crew manifest.

use crate::decode::{
    At, Fields, choice, distinct, environment, list, missing_name, name, number, quantity, whole,
};
use crate::fault::Faults;
use crate::{
    Backoff, Budget, Channel, ChannelKind, CrewSpec, Gym, Hibernate, Liveness, Member, Millis, OnBreach,
    OnExhausted, Rate, Restart, SandboxChoice, Strategy, Supervision,
};

const DURATION_MIN: Millis = Millis::from_secs(1);

pub(crate) fn crew_spec(at: &At<'_>, faults: &mut Faults) -> CrewSpec {
    let mut fields = Fields::of(at, faults);
    let spec = CrewSpec {
        entry: fields.required("entry", name).unwrap_or_else(missing_name),
        members: fields.required("members", list(1..=CrewSpec::MEMBERS_MAX, member)).unwrap_or_default(),
        channels: fields.optional("channels", list(0..=CrewSpec::CHANNELS_MAX, channel)).unwrap_or_default(),
        supervision: fields.optional("supervision", supervision).unwrap_or_default(),
        liveness: fields.optional("liveness", liveness).unwrap_or_default(),
        sandbox: fields.optional("sandbox", sandbox).unwrap_or_default(),
        gym: fields.optional("gym", gym),
        budget: fields.optional("budget", budget).unwrap_or_default(),
        ttl: fields.optional("ttl", quantity(DURATION_MIN..=Millis::MAX)),
    };
    fields.finish();
    spec
}

fn member(at: &At<'_>, faults: &mut Faults) -> Option<Member> {
    let mut fields = Fields::of(at, faults);
    let member = Member {
        name: fields.required("name", name).unwrap_or_else(missing_name),
        profile: fields.required("profile", name).unwrap_or_else(missing_name),
        replicas: fields
            .optional("replicas", whole(1..=Member::REPLICAS_MAX))
            .unwrap_or_else(Member::default_replicas),
        restart: fields
            .optional(
                "restart",
                choice(&[
                    ("permanent", Restart::Permanent),
                    ("transient", Restart::Transient),
                    ("temporary", Restart::Temporary),
                ]),
            )
            .unwrap_or_default(),
        hibernate: fields.optional("hibernate", hibernate),
        env: fields.optional("env", environment).unwrap_or_default(),
    };
    fields.finish();
    Some(member)
}

fn hibernate(at: &At<'_>, faults: &mut Faults) -> Option<Hibernate> {
    let mut fields = Fields::of(at, faults);
    let after = fields.required("after", quantity(DURATION_MIN..=Millis::MAX));
    let wake_every = fields.optional("wakeEvery", quantity(DURATION_MIN..=Millis::MAX));
    fields.finish();
    Some(Hibernate { after: after?, wake_every })
}

fn channel(at: &At<'_>, faults: &mut Faults) -> Option<Channel> {
    let kind = choice(&[("task", ChannelKind::Task), ("message", ChannelKind::Message)]);
    let rate = Rate::per_second(1)..=Rate::per_second(Channel::RATE_MAX);
    let mut fields = Fields::of(at, faults);
    let channel = Channel {
        from: fields.required("from", name).unwrap_or_else(missing_name),
        to: fields.required("to", name).unwrap_or_else(missing_name),
        kinds: fields.required("kinds", distinct(1..=2, kind)).unwrap_or_default(),
        max_depth: fields
            .optional("maxDepth", whole(1..=Channel::DEPTH_MAX))
            .unwrap_or_else(Channel::default_max_depth),
        max_fan_out: fields
            .optional("maxFanOut", whole(1..=Channel::FAN_OUT_MAX))
            .unwrap_or_else(Channel::default_max_fan_out),
        rate: fields.optional("rate", quantity(rate)).unwrap_or_else(Channel::default_rate),
    };
    fields.finish();
    Some(channel)
}

fn supervision(at: &At<'_>, faults: &mut Faults) -> Option<Supervision> {
    let default = Supervision::default();
    let mut fields = Fields::of(at, faults);
    let supervision = Supervision {
        strategy: fields
            .optional(
                "strategy",
                choice(&[
                    ("one_for_one", Strategy::OneForOne),
                    ("one_for_all", Strategy::OneForAll),
                    ("rest_for_one", Strategy::RestForOne),
                ]),
            )
            .unwrap_or(default.strategy),
        max_restarts: fields
            .optional("maxRestarts", whole(0..=Supervision::RESTARTS_MAX))
            .unwrap_or(default.max_restarts),
        within: fields.optional("within", quantity(DURATION_MIN..=Millis::MAX)).unwrap_or(default.within),
        backoff: fields.optional("backoff", backoff).unwrap_or(default.backoff),
        on_exhausted: fields
            .optional(
                "onExhausted",
                choice(&[
                    ("quarantine", OnExhausted::Quarantine),
                    ("disband", OnExhausted::Disband),
                    ("escalate", OnExhausted::Escalate),
                ]),
            )
            .unwrap_or(default.on_exhausted),
    };
    fields.finish();
    Some(supervision)
}

fn backoff(at: &At<'_>, faults: &mut Faults) -> Option<Backoff> {
    let wait = Millis::new(1)..=Millis::from_secs(3_600);
    let default = Backoff::default();
    let mut fields = Fields::of(at, faults);
    let backoff = Backoff {
        initial: fields.optional("initial", quantity(wait.clone())).unwrap_or(default.initial),
        max: fields.optional("max", quantity(wait)).unwrap_or(default.max),
        // Three decimals are exact in every JSON reader, and nobody needs more.
        jitter: fields
            .optional("jitter", number(0.0..=1.0))
            .map_or(default.jitter, |jitter| (jitter * 1_000.0).round() / 1_000.0),
    };
    fields.finish();
    Some(backoff)
}

fn liveness(at: &At<'_>, faults: &mut Faults) -> Option<Liveness> {
    let default = Liveness::default();
    let mut fields = Fields::of(at, faults);
    let liveness = Liveness {
        heartbeat: fields
            .optional("heartbeat", quantity(Millis::new(100)..=Millis::from_secs(60)))
            .unwrap_or(default.heartbeat),
        missed: fields.optional("missed", whole(1..=Liveness::MISSED_MAX)).unwrap_or(default.missed),
        progress: fields
            .optional("progress", quantity(DURATION_MIN..=Millis::MAX))
            .unwrap_or(default.progress),
        orphan_grace: fields
            .optional("orphanGrace", quantity(DURATION_MIN..=Millis::MAX))
            .unwrap_or(default.orphan_grace),
    };
    fields.finish();
    Some(liveness)
}

fn sandbox(at: &At<'_>, faults: &mut Faults) -> Option<SandboxChoice> {
    let mut fields = Fields::of(at, faults);
    let sandbox = SandboxChoice { pool: fields.optional("pool", name) };
    fields.finish();
    Some(sandbox)
}

fn gym(at: &At<'_>, faults: &mut Faults) -> Option<Gym> {
    let mut fields = Fields::of(at, faults);
    let gym = Gym {
        require: fields.required("require", distinct(1..=Gym::REQUIRE_MAX, name)).unwrap_or_default(),
        max_age: fields.optional("maxAge", quantity(DURATION_MIN..=Millis::MAX)),
    };
    fields.finish();
    Some(gym)
}

fn budget(at: &At<'_>, faults: &mut Faults) -> Option<Budget> {
    let mut fields = Fields::of(at, faults);
    let budget = Budget {
        tokens: fields.optional("tokens", whole(1..=Budget::COUNT_MAX)),
        wall_time: fields.optional("wallTime", quantity(DURATION_MIN..=Millis::MAX)),
        messages: fields.optional("messages", whole(1..=Budget::COUNT_MAX)),
        on_breach: fields
            .optional("onBreach", choice(&[("suspend", OnBreach::Suspend), ("disband", OnBreach::Disband)]))
            .unwrap_or_default(),
    };
    fields.finish();
    Some(budget)
}
