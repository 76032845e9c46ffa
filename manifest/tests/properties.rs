//! Whatever the input: no panic, faults that point into it, and manifests that survive being
//! written and read again.

#![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

use hypercode_manifest::{
    Backoff, Budget, Channel, ChannelKind, Crew, CrewSpec, Gym, Handler, Hibernate, Liveness, Manifest,
    Member, Metadata, Millis, Model, Name, OnBreach, OnExhausted, Parsed, Profile, ProfileSpec, Protocol,
    Rate, Resources, Response, Restart, Retry, RetryClass, SandboxChoice, Secret, SecretForm, SecretSource,
    Severity, Stdin, Stdout, Strategy as Restarting, Supervision, ToolServer, parse,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const VALID: &str = include_str!("../testdata/design.yaml");

/// What holds of every answer.
fn check(bytes: &[u8]) -> Parsed {
    let parsed = parse("f", bytes);
    let lines = bytes.split(|byte| b"\n\r".contains(byte)).count();
    for fault in &parsed.faults {
        let location = fault.location.as_ref().expect("a file has places");
        assert!((1..=lines + 1).contains(&location.line) && location.column >= 1, "{fault}");
        assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
    }
    assert!(!parsed.manifests.is_empty() || parsed.has_errors(), "silence about {bytes:?}");
    for manifest in &parsed.manifests {
        assert_eq!(&again(manifest), manifest);
    }
    parsed
}

/// A manifest after it was written and read.
fn again(manifest: &Manifest) -> Manifest {
    let json = serde_json::to_string_pretty(manifest).unwrap();
    assert_eq!(&serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    let parsed = parse("f", json.as_bytes());
    let errors: Vec<_> = parsed.faults.iter().filter(|fault| fault.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?} in {json}");
    parsed.manifests.into_iter().next().unwrap()
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Change {
    Byte(Index, u8),
    Insert(Index, &'static str),
    Remove(Index, usize),
    CutAt(Index),
    RepeatLine(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let pieces = [
        "\t", "\n---\n", "- ", "{", "}", "[", "]", ": ", "\"", "'", "&a ", "*a", "!t ", "|\n", "? ", "#",
        "é", "\0",
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (any::<Index>(), select(pieces.to_vec())).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), 1..20_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        any::<Index>().prop_map(Change::CutAt),
        any::<Index>().prop_map(Change::RepeatLine),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    match change {
        Change::Byte(at, byte) => *at.get_mut(bytes) = *byte,
        Change::Insert(at, piece) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, piece.bytes());
        }
        Change::Remove(at, count) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + count));
        }
        Change::CutAt(at) => bytes.truncate(at.index(bytes.len())),
        Change::RepeatLine(at) => {
            let lines: Vec<Vec<u8>> =
                bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let line = at.index(lines.len());
            *bytes = [&lines[..=line], &lines[line..]].concat().concat();
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn any_soup_of_yaml_is_answered(
        pieces in vec(select(&[
            "a", ": ", "- ", "\n", "\n  ", "\n---\n", "\n...\n", "{", "}", "[", "]", ", ", "\"", "'", "&x ", "*x", "!!str ",
            "|", ">-", "? ", "#", "%YAML 1.2\n", "\t", "kind", "Crew", "spec", "1", "~", "\r", "\u{2028}", "\u{feff}", "<<",
        ][..]), 0..60),
    ) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn changed_manifests_are_answered(changes in vec(change(), 1..8)) {
        let mut bytes = VALID.as_bytes().to_vec();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        check(&bytes);
    }

    #[test]
    fn a_crew_survives_being_written_and_read(crew in crew()) {
        let manifest = Manifest::Crew(crew);
        prop_assert_eq!(again(&manifest), manifest);
    }

    #[test]
    fn a_profile_survives_being_written_and_read(profile in profile()) {
        let manifest = Manifest::Profile(profile);
        prop_assert_eq!(again(&manifest), manifest);
    }
}

/// Names that are distinct, since the numbers are.
fn name(number: usize) -> Name {
    format!("n{number}").parse().unwrap()
}

fn metadata() -> impl Strategy<Value = Metadata> {
    (0..9_usize, btree_map("[a-z./ é]{1,9}", r"[^\x00]{0,9}", 0..3)).prop_map(|(number, labels)| Metadata {
        name: name(number),
        tenant: (number % 3 == 0).then(|| name(number)),
        labels,
    })
}

fn env() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    btree_map("[A-G_][A-Z0-9_]{0,9}", any::<String>().prop_map(|text| text.replace('\0', "")), 0..4)
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Millis> {
    range.prop_map(Millis::from_secs)
}

fn member(number: usize) -> impl Strategy<Value = Member> {
    let restart = select(vec![Restart::Permanent, Restart::Transient, Restart::Temporary]);
    let hibernate = (seconds(1..100_000), option::of(seconds(1..100_000)))
        .prop_map(|(after, wake_every)| Hibernate { after, wake_every });
    (0..9_usize, 1..=Member::REPLICAS_MAX, restart, option::of(hibernate), env()).prop_map(
        move |(profile, replicas, restart, hibernate, env)| Member {
            name: name(number),
            profile: name(profile),
            replicas,
            restart,
            hibernate,
            env,
        },
    )
}

fn channel(to: usize) -> impl Strategy<Value = Channel> {
    let kinds = select(vec![
        vec![ChannelKind::Task],
        vec![ChannelKind::Message],
        vec![ChannelKind::Message, ChannelKind::Task],
    ]);
    (kinds, 1..=Channel::DEPTH_MAX, 1..=Channel::FAN_OUT_MAX, 1..=Channel::RATE_MAX).prop_map(
        move |(kinds, max_depth, max_fan_out, rate)| Channel {
            from: name(0),
            to: name(to),
            kinds,
            max_depth,
            max_fan_out,
            rate: Rate::per_second(rate),
        },
    )
}

fn supervision() -> impl Strategy<Value = Supervision> {
    let strategy = select(vec![Restarting::OneForOne, Restarting::OneForAll, Restarting::RestForOne]);
    let on_exhausted = select(vec![OnExhausted::Quarantine, OnExhausted::Disband, OnExhausted::Escalate]);
    (
        strategy,
        0..=Supervision::RESTARTS_MAX,
        seconds(1..10_000),
        1..=100_u64,
        seconds(1..3_600),
        0..=1_000_u32,
        on_exhausted,
    )
        .prop_map(|(strategy, max_restarts, within, initial, max, jitter, on_exhausted)| Supervision {
            strategy,
            max_restarts,
            within,
            backoff: Backoff { initial: Millis::new(initial), max, jitter: f64::from(jitter) / 1_000.0 },
            on_exhausted,
        })
}

fn crew() -> impl Strategy<Value = Crew> {
    let members = (1..5_usize).prop_flat_map(|count| (0..count).map(member).collect::<Vec<_>>());
    let channels = (1..5_usize).prop_flat_map(|count| (1..count).map(channel).collect::<Vec<_>>());
    let liveness = (seconds(1..10), 1..10_u32, seconds(100..10_000), seconds(100..10_000)).prop_map(
        |(heartbeat, missed, progress, orphan_grace)| Liveness { heartbeat, missed, progress, orphan_grace },
    );
    let gym = (1..5_usize, option::of(seconds(1..100_000)))
        .prop_map(|(count, max_age)| Gym { require: (0..count).map(name).collect(), max_age });
    let on_breach = select(vec![OnBreach::Suspend, OnBreach::Disband]);
    let count = || option::of(1..=Budget::COUNT_MAX);
    let budget = (count(), option::of(seconds(1..100_000)), count(), on_breach).prop_map(
        |(tokens, wall_time, messages, on_breach)| Budget { tokens, wall_time, messages, on_breach },
    );
    let pool = option::of((0..9_usize).prop_map(name)).prop_map(|pool| SandboxChoice { pool });
    let rest = (supervision(), liveness, pool, option::of(gym), budget, option::of(seconds(1..100_000)));
    (metadata(), members, channels, rest).prop_map(|(metadata, members, mut channels, rest)| {
        channels.retain(|channel| members.iter().any(|member| member.name == channel.to));
        let (supervision, liveness, sandbox, gym, budget, ttl) = rest;
        let entry = name(0);
        let spec = CrewSpec { entry, members, channels, supervision, liveness, sandbox, gym, budget, ttl };
        Crew { api_version: Default::default(), metadata, spec }
    })
}

fn handler() -> impl Strategy<Value = Handler> {
    let carrier = select(vec![
        (Protocol::Stdio, None, None, None, None),
        (Protocol::Pull, None, None, None, None),
        (Protocol::Exec, Some(Stdin::Text), Some(Stdout::Text), None, None),
        (Protocol::Exec, Some(Stdin::Json), Some(Stdout::Json), None, None),
        (Protocol::Exec, None, Some(Stdout::Result), None, None),
        (Protocol::Http, None, None, Some(Response::Output), Some(80)),
        (Protocol::Http, None, None, Some(Response::Result), None),
    ]);
    let command = vec(r"[^\x00]{1,20}", 1..4);
    let path = || option::of("[a-z./]{0,3}[a-z]");
    let paths = (path(), path()).prop_filter("inside", |(source, cwd)| {
        [source, cwd].into_iter().flatten().all(|path| !path.starts_with('/') && !path.contains(".."))
    });
    (
        carrier,
        command,
        paths,
        1..=Handler::CONCURRENCY_MAX,
        seconds(1..3_600),
        option::of(seconds(1..1_000)),
        seconds(0..600),
    )
        .prop_map(|(carrier, command, (source, cwd), concurrency, start_timeout, timeout, grace)| {
            let (protocol, stdin, stdout, response, port) = carrier;
            Handler {
                protocol,
                command,
                source,
                cwd,
                concurrency,
                start_timeout,
                timeout,
                grace,
                stdin,
                stdout,
                response,
                port,
            }
        })
}

fn profile() -> impl Strategy<Value = Profile> {
    let models = option::of(1..=Model::TOKENS_MAX)
        .prop_map(|max_tokens| vec![Model { name: "default".to_owned(), max_tokens }]);
    let tools = vec("[a-z]{3}", 0..2).prop_map(|allow| {
        vec![ToolServer {
            server: name(1),
            allow: allow.into_iter().take(1).collect(),
            approve: vec!["z_z".to_owned()],
        }]
    });
    let source = prop_oneof![
        "[A-Z_]{1,9}".prop_map(SecretSource::Env),
        "/[a-z]{1,9}".prop_map(SecretSource::File),
        "[a-z]{1,9}/[a-z]{1,9}".prop_map(SecretSource::VaultCommand),
        "[a-z0-9][a-z._-]{0,9}".prop_map(SecretSource::Stored),
    ];
    let form = prop_oneof![Just(SecretForm::Env), Just(SecretForm::File)];
    let secrets =
        (source, form).prop_map(|(from, form)| vec![Secret { name: "SECRET".to_owned(), from, form }]);
    let retry = (1..=Retry::ATTEMPTS_MAX, select(vec![RetryClass::Transient, RetryClass::Permanent]))
        .prop_map(|(max_attempts, unclassified)| Retry { max_attempts, unclassified });
    let words = (r"[^\x00]{0,40}", option::of("[a-z:/]{1,20}"), option::of("[a-z0-9][A-Z_.-]{0,20}"));
    (metadata(), words, handler(), models, tools, secrets, retry, env()).prop_map(
        |(metadata, (description, image, runtime_class), handler, models, tools, secrets, retry, env)| {
            Profile {
                api_version: Default::default(),
                metadata,
                spec: ProfileSpec {
                    description,
                    image,
                    runtime_class,
                    handler,
                    resources: Resources::default(),
                    models,
                    tools,
                    secrets,
                    retry,
                    env,
                },
            }
        },
    )
}
