use proptest::collection::vec;
use proptest::prelude::{Just, any, prop_oneof, proptest};
use proptest::strategy::Strategy;

use super::lifecycle::{Status, TRANSITIONS, allows, diagram};
use super::*;
use crate::domain::driven::Driven;
use crate::event::Principal;
use crate::id::{AgentId, CrewId, Digest, Tenant};

/// Every pair of statuses, from (line) and to (column), in the order of [`Status::ALL`]; `x` is a legal transition.
const TABLE: [(&str, &str); 12] = [
    // from              rq pv wm rd hb dr un rc pa qu fa te
    ("requested", "       .  x  .  .  .  .  .  .  .  .  x  x"),
    ("provisioning", "    .  .  x  .  .  x  x  .  .  x  x  x"),
    ("warming", "         .  .  .  x  .  x  x  .  .  x  x  x"),
    ("ready", "           .  .  .  .  x  x  x  .  x  x  x  x"),
    ("hibernating", "     .  x  .  .  .  x  .  .  .  x  x  x"),
    ("draining", "        .  .  .  .  .  .  .  .  .  .  x  x"),
    ("unhealthy", "       .  .  .  .  .  x  .  x  .  x  x  x"),
    ("recovering", "      .  x  .  .  .  .  .  .  .  x  x  x"),
    ("paused", "          .  .  .  x  .  x  x  .  .  x  x  x"),
    ("quarantined", "     .  .  .  .  .  .  .  x  .  .  x  x"),
    ("failed", "          .  .  .  .  .  .  .  .  .  .  .  ."),
    ("terminated", "      .  .  .  .  .  .  .  .  .  .  .  ."),
];

fn requested() -> Requested {
    Requested {
        agent: AgentId::derive(&["a"]),
        tenant: Tenant::default(),
        crew: CrewId::derive(&["c"]),
        member: "analyst".into(),
        replica: 0,
        profile: "analyst".into(),
        profile_version: 1,
        profile_digest: Digest::ZERO,
    }
}

fn claim(incarnation: u64) -> Claim {
    Claim {
        sandbox: SandboxId::derive(&["a", &incarnation.to_string()]),
        kind: "process".into(),
        isolation: "none".into(),
        node: "node-1".to_owned(),
        pool: None,
    }
}

fn request() -> Command {
    Command::Request { requested: requested(), claim: claim(1) }
}

fn down(incarnation: u64) -> Command {
    Command::Down { incarnation: Incarnation(incarnation), exit: Exit::Killed, detail: "gone".into() }
}

fn recover(incarnation: u64) -> Command {
    Command::Recover { incarnation: Incarnation(incarnation), claim: claim(incarnation) }
}

fn killed() -> Killed {
    Killed { by: Principal::user("admin"), reason: "enough".into(), at_ms: 5 }
}

fn commands(incarnation: u64) -> Vec<Command> {
    let reason = || "because".to_owned();
    vec![
        request(),
        Command::Ready { incarnation: Incarnation(incarnation), concurrency: 2, container: None },
        down(incarnation),
        recover(incarnation),
        Command::Hibernate { incarnation: Incarnation(incarnation), wake_at_ms: Some(7_000) },
        Command::Drain { reason: reason() },
        Command::Terminate { reason: reason() },
        Command::Quarantine { reason: reason() },
        Command::Fail { reason: reason() },
        Command::Kill(killed()),
    ]
}

/// The statuses that the agent passes on its way through `events`.
fn path(state: &State, events: &[Event]) -> Vec<Status> {
    let mut state = state.clone();
    let mut passed = vec![state.status];
    for event in events {
        state = Agent::evolve(state, event);
        passed.push(state.status);
    }
    passed
}

#[test]
fn the_lifecycle_is_exactly_the_table() {
    for (line, from) in TABLE.iter().zip(Status::ALL) {
        assert_eq!(line.0, from.as_str());
        let cells: Vec<&str> = line.1.split_whitespace().collect();
        assert_eq!(cells.len(), Status::ALL.len());
        for (cell, to) in cells.into_iter().zip(Status::ALL) {
            assert_eq!(allows(from, to), cell == "x", "{from} to {to}");
        }
    }
    assert_eq!(TRANSITIONS.len(), Status::ALL.len(), "each status has one line");
}

#[test]
fn every_status_can_be_reached_and_every_live_one_left_for_good() {
    let mut reached = vec![Status::Requested];
    for _ in Status::ALL {
        let next: Vec<Status> =
            Status::ALL.into_iter().filter(|&to| reached.iter().any(|&from| allows(from, to))).collect();
        reached.extend(next);
    }
    for status in Status::ALL {
        assert!(reached.contains(&status), "{status} cannot be reached");
        let ends = allows(status, Status::Terminated) && allows(status, Status::Failed);
        let ended = matches!(status, Status::Terminated | Status::Failed);
        assert!(ends != ended, "{status} can be ended unless it has ended");
    }
}

#[test]
fn the_diagram_has_every_transition() {
    let diagram = diagram();
    for (from, next) in TRANSITIONS {
        for to in *next {
            assert!(diagram.contains(&format!("    {from} --> {to}\n")), "{from} to {to}");
        }
    }
    assert!(diagram.contains("terminated --> [*]"));
}

#[test]
fn every_command_in_every_status_makes_only_legal_transitions() {
    for status in Status::ALL {
        let state = State {
            requested: Some(requested()),
            status,
            incarnation: Incarnation(3),
            sandbox: Some(claim(3).sandbox),
            ..State::default()
        };
        for command in (2..=5).flat_map(commands) {
            let context = Context { now: crate::Timestamp(0), seed: 0 };
            let Ok(events) = Agent::decide(&state, &command, &context) else { continue };
            let path = path(&state, &events);
            for step in path.windows(2) {
                assert!(step[0] == step[1] || allows(step[0], step[1]), "{command:?} goes {path:?}");
            }
        }
    }
}

#[test]
fn a_life_of_an_agent() {
    let mut agent = Driven::<Agent>::new();
    let sandbox = |incarnation| claim(incarnation).sandbox;
    agent.give(&request()).expect("it is wanted");
    let run =
        |incarnation| Effect::Run { incarnation: Incarnation(incarnation), sandbox: sandbox(incarnation) };
    assert_eq!(Agent::obligations(&agent.state), [run(1)]);
    agent
        .give(&Command::Ready { incarnation: Incarnation(1), concurrency: 2, container: None })
        .expect("it is up");
    assert_eq!((agent.state.status, agent.state.concurrency), (Status::Ready, 2));
    // The crew hears of it, if only from the next start of the platform.
    let ready = Effect::ReportReady { incarnation: Incarnation(1) };
    assert_eq!(Agent::obligations(&agent.state), [run(1), ready]);
    agent.give(&down(1)).expect("it died");
    let report =
        Effect::ReportDown { incarnation: Incarnation(1), exit: Exit::Killed, detail: "gone".into() };
    assert_eq!(Agent::obligations(&agent.state), [Effect::Destroy { sandbox: sandbox(1) }, report]);
    agent.give(&recover(2)).expect("it is recovered");
    assert_eq!(Agent::obligations(&agent.state), [Effect::Destroy { sandbox: sandbox(1) }, run(2)]);
    agent
        .give(&Command::Ready { incarnation: Incarnation(2), concurrency: 1, container: None })
        .expect("it is up again");
    agent.give(&Command::Drain { reason: "enough".into() }).expect("it drains");
    agent.give(&down(2)).expect("it ended while it drained");
    assert_eq!((agent.state.status, agent.state.reason.as_str()), (Status::Terminated, "enough"));
    assert!(Agent::is_final(&agent.state));
}

#[test]
fn an_agent_that_hibernates_has_no_sandbox_until_it_is_woken() {
    let mut agent = Driven::<Agent>::new();
    let hibernate = Command::Hibernate { incarnation: Incarnation(1), wake_at_ms: Some(7_000) };
    agent.give(&request()).expect("it is wanted");
    assert!(agent.give(&hibernate).is_err(), "it is not even up");
    agent
        .give(&Command::Ready { incarnation: Incarnation(1), concurrency: 1, container: None })
        .expect("it is up");
    agent.give(&hibernate).expect("it has nothing to do");
    let wake = Effect::WakeAt { incarnation: Incarnation(2), at_ms: 7_000 };
    assert_eq!(Agent::obligations(&agent.state), [Effect::Park { sandbox: claim(1).sandbox }, wake]);
    assert_eq!(agent.give(&down(1)), Ok(Vec::new()), "that its sandbox ends is as it should be");
    agent.give(&recover(2)).expect("it is woken");
    assert_eq!((agent.state.status, agent.state.incarnation), (Status::Provisioning, Incarnation(2)));
    assert_eq!(agent.give(&recover(2)), Ok(Vec::new()), "woken twice at once is woken");
}

#[test]
fn what_the_last_incarnations_wrote_is_known() {
    let mut agent = Driven::<Agent>::new();
    agent.give(&request()).expect("it is wanted");
    let kept = Kept { digest: Digest::ZERO, bytes: 5 };
    let keep = |incarnation| Command::KeepLog { incarnation: Incarnation(incarnation), kept };
    for incarnation in 1..=20 {
        agent.give(&down(incarnation)).expect("it died");
        agent.give(&recover(incarnation + 1)).expect("it is recovered");
        assert_eq!(agent.give(&keep(incarnation)).map(|events| events.len()), Ok(1));
        assert_eq!(agent.give(&keep(incarnation)), Ok(Vec::new()), "once is enough");
    }
    assert_eq!(agent.state.logs.len(), LOGS_MAX);
    assert_eq!(agent.state.logs.first_key_value().map(|(first, _)| first.0), Some(5));
    agent.assert_folds_the_same();
}

/// What comes late of a sandbox is not taken for another incarnation's.
#[test]
fn a_sandbox_is_known_by_the_incarnation_that_it_served_and_no_longer_than_that() {
    let mut agent = Driven::<Agent>::new();
    agent.give(&request()).expect("it is wanted");
    for incarnation in 1..=2 {
        agent.give(&down(incarnation)).expect("it died");
        agent.give(&recover(incarnation + 1)).expect("it is recovered");
    }
    let served = |incarnation| agent.state.served_in(&claim(incarnation).sandbox);
    assert_eq!([1, 2, 3, 4].map(served), [None, Some(Incarnation(2)), Some(Incarnation(3)), None]);
    let sandbox = |incarnation| agent.state.sandbox_of(Incarnation(incarnation)).cloned();
    assert_eq!([1, 2, 3].map(sandbox), [None, Some(claim(2).sandbox), Some(claim(3).sandbox)]);
}

/// A person may have an agent back that was set aside.
#[test]
fn a_quarantined_agent_can_be_recovered() {
    let mut agent = Driven::<Agent>::new();
    agent.give(&request()).expect("it is wanted");
    agent.give(&down(1)).expect("it died");
    agent.give(&Command::Quarantine { reason: "too often".into() }).expect("it is set aside");
    agent.give(&recover(2)).expect("it comes back");
    assert_eq!((agent.state.status, agent.state.incarnation), (Status::Provisioning, Incarnation(2)));
}

/// Whatever an agent is doing, a kill ends it, once, and nothing has it back.
#[test]
fn a_killed_agent_is_over_for_ever() {
    let ways: [&[Command]; 4] = [
        &[],
        &[Command::Ready { incarnation: Incarnation(1), concurrency: 1, container: None }],
        &[down(1)],
        &[down(1), Command::Quarantine { reason: "too often".into() }],
    ];
    for way in ways {
        let mut agent = Driven::<Agent>::new();
        agent.give(&request()).expect("it is wanted");
        way.iter().for_each(|command| drop(agent.give(command).expect("a legal step")));
        assert_eq!(agent.give(&Command::Kill(killed())), Ok(vec![killed().into()]));
        assert_eq!(agent.give(&Command::Kill(Killed { at_ms: 9, ..killed() })), Ok(Vec::new()), "it is dead");
        assert_eq!(agent.state.killed, Some(killed()));
        assert_eq!(agent.state.reason, "killed by user:admin: enough");
        assert!(matches!(agent.give(&recover(2)), Err(Rejection::Illegal { .. })));
        assert_eq!(Agent::obligations(&agent.state), [Effect::Destroy { sandbox: claim(1).sandbox }]);
        agent.assert_folds_the_same();
    }
    let mut ended = Driven::<Agent>::new();
    ended.give(&request()).expect("it is wanted");
    ended.give(&Command::Terminate { reason: "disbanded".into() }).expect("it ends");
    assert_eq!(ended.give(&Command::Kill(killed())), Ok(Vec::new()), "nothing is left that could be killed");
    assert_eq!(ended.state.killed, None);
}

#[test]
fn what_is_said_of_another_incarnation_is_refused() {
    let mut agent = Driven::<Agent>::new();
    assert_eq!(agent.give(&down(1)), Err(Rejection::Unknown));
    agent.give(&request()).expect("it is wanted");
    agent.give(&recover(2)).expect("it is restarted by command");
    let stale = Rejection::Stale { found: Incarnation(1), newest: Incarnation(2) };
    assert_eq!(agent.give(&down(1)), Err(stale.clone()));
    assert_eq!(
        agent.give(&Command::Ready { incarnation: Incarnation(1), concurrency: 1, container: None }),
        Err(stale)
    );
    let skipped = Rejection::Stale { found: Incarnation(4), newest: Incarnation(2) };
    assert_eq!(agent.give(&recover(4)), Err(skipped));
}

fn any_command() -> impl Strategy<Value = (usize, i64)> {
    // Mostly about the newest incarnation, sometimes about one beside it.
    (any::<usize>(), prop_oneof![4 => Just(0i64), 3 => Just(1), 1 => Just(-1), 1 => Just(2)])
}

proptest! {
    /// SB-1: whatever is asked in whatever order, each incarnation claims a sandbox of its own, once.
    #[test]
    fn sb_1_a_sandbox_serves_at_most_one_incarnation(steps in vec(any_command(), 0..60)) {
        let mut agent = Driven::<Agent>::new();
        agent.give(&request()).expect("it is wanted");
        for (which, beside) in steps {
            let incarnation = agent.state.incarnation.0.saturating_add_signed(beside);
            let choices = commands(incarnation);
            let before = agent.state.clone();
            let Ok(events) = agent.give(&choices[which % choices.len()]) else { continue };
            let path = path(&before, &events);
            assert!(path.windows(2).all(|step| step[0] == step[1] || allows(step[0], step[1])), "{path:?}");
        }
        let claims: Vec<_> = agent.history.iter().filter_map(|event| match event {
            Event::SandboxClaimed(claimed) => Some((claimed.incarnation, claimed.sandbox.clone())),
            _ => None,
        }).collect();
        for (number, (incarnation, _)) in (1u64..).zip(&claims) {
            assert_eq!(incarnation.0, number);
        }
        let mut sandboxes: Vec<_> = claims.iter().map(|(_, sandbox)| sandbox).collect();
        sandboxes.sort();
        sandboxes.dedup();
        assert_eq!(sandboxes.len(), claims.len());
        agent.assert_folds_the_same();
    }

    /// Nothing is to run for an agent that has ended: what is left to do is to clear away.
    #[test]
    fn an_agent_that_ended_obliges_to_nothing_but_removal(steps in vec(any_command(), 0..40)) {
        let mut agent = Driven::<Agent>::new();
        agent.give(&request()).expect("it is wanted");
        for (which, beside) in steps {
            let choices = commands(agent.state.incarnation.0.saturating_add_signed(beside));
            let _ = agent.give(&choices[which % choices.len()]);
            let obliged = Agent::obligations(&agent.state);
            let removes = |effect: &Effect| matches!(effect, Effect::Destroy { .. });
            if Agent::is_final(&agent.state) {
                assert!(obliged.iter().all(removes), "{obliged:?}");
            }
            let newest = agent.state.sandbox.clone().expect("it has claimed one");
            let runs = obliged.iter().any(|effect| matches!(effect, Effect::Run { .. }));
            assert!(!(runs && obliged.contains(&Effect::Destroy { sandbox: newest })), "{obliged:?}");
        }
    }
}

/// SB-1: a container serves once, as a sandbox does.
#[test]
fn sb_1_the_container_of_an_incarnation_is_its_own() {
    let container = |id: &str| Some(Container { id: id.to_owned(), image: "sha256:00".to_owned() });
    let mut agent = Driven::<Agent>::new();
    agent.give(&request()).expect("it is wanted");
    let up = Command::Ready { incarnation: Incarnation(1), concurrency: 1, container: container("c1") };
    let events = agent.give(&up).expect("it is up");
    let reserved = Agent::reserves(&agent.state, &events);
    let reserved: Vec<_> = reserved.iter().map(|held| (&*held.namespace, &*held.key)).collect();
    assert_eq!(reserved, [("container", "c1")]);
    assert_eq!(agent.state.container, container("c1"));
    agent.give(&down(1)).expect("it is gone");
    agent.give(&recover(2)).expect("the next follows");
    assert_eq!(agent.state.container, None, "it is that of the incarnation before");
    agent.assert_folds_the_same();
}
