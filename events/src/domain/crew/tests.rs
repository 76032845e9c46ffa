use proptest::collection::vec;
use proptest::prelude::{Just, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;
use serde_json::json;

use super::*;
use crate::domain::driven::Driven;
use crate::event::Principal;
use crate::id::{CrewId, Digest};
use crate::supervision::{Backoff, ChildKind, OnExhausted, Strategy};

const EXITS: [Exit; 6] =
    [Exit::Done, Exit::Killed, Exit::StartFailed, Exit::Lost, Exit::Hung, Exit::NodeLost];

fn agent(number: usize) -> AgentId {
    AgentId::derive(&["agent", &number.to_string()])
}

fn seat(number: usize, restart: ChildKind) -> Seat {
    Seat {
        agent: agent(number),
        member: if number == 0 { "scout" } else { "analyst" }.into(),
        replica: u32::try_from(number.saturating_sub(1)).unwrap_or(0),
        profile: "p".into(),
        profile_version: 1,
        profile_digest: Digest::ZERO,
        restart,
    }
}

fn started(policy: Policy, restart: ChildKind) -> AssemblyStarted {
    AssemblyStarted {
        crew: CrewId::derive(&["c"]),
        tenant: Tenant::default(),
        name: "code-health".into(),
        labels: BTreeMap::new(),
        spec: json!({}),
        entry: "scout".into(),
        policy,
        seats: (0..3).map(|number| seat(number, restart)).collect(),
        ready_by_ms: 1_030_000,
        expires_at_ms: None,
        allowance: Allowance::default(),
    }
}

fn running(policy: Policy) -> Driven<Crew> {
    let mut crew = Driven::<Crew>::new();
    crew.give(&Command::Assemble(started(policy, ChildKind::Permanent))).expect("it is new");
    crew.give(&Command::Assembled).expect("all are ready");
    crew
}

fn down(number: usize, incarnation: u64) -> Command {
    Command::AgentDown(AgentEnd {
        agent: agent(number),
        incarnation: Incarnation(incarnation),
        exit: Exit::Killed,
        detail: String::new(),
    })
}

fn ready(number: usize, incarnation: u64) -> Command {
    Command::AgentReady { agent: agent(number), incarnation: Incarnation(incarnation) }
}

fn policies() -> impl Generator<Value = Policy> {
    let strategy = vec![Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
    let exhausted = vec![OnExhausted::Quarantine, OnExhausted::Disband, OnExhausted::Escalate];
    (prop::sample::select(strategy), prop::sample::select(exhausted), 0u32..5).prop_map(
        |(strategy, on_exhausted, max_restarts)| Policy {
            strategy,
            on_exhausted,
            max_restarts,
            within_ms: 30_000,
            ..Policy::default()
        },
    )
}

/// Something that happens to a crew, told relative to what it knows.
#[derive(Clone, Debug)]
enum Step {
    Ready { number: usize },
    Down { number: usize, exit: Exit, late: bool },
    Restart { number: usize },
    Scale { replicas: usize },
    Simple(usize),
    Wait { ms: i64 },
}

fn steps() -> impl Generator<Value = Vec<Step>> {
    let exits = prop::sample::select(EXITS.to_vec());
    let step = prop_oneof![
        6 => (0usize..4).prop_map(|number| Step::Ready { number }),
        6 => (0usize..4, exits, any::<bool>()).prop_map(|(number, exit, late)| Step::Down { number, exit, late }),
        1 => (0usize..4).prop_map(|number| Step::Restart { number }),
        1 => (0usize..4).prop_map(|replicas| Step::Scale { replicas }),
        2 => prop_oneof![6 => 0usize..2, 3 => 2usize..4, 1 => 4usize..8].prop_map(Step::Simple),
        3 => prop_oneof![Just(10i64), 1_000i64..20_000, Just(100_000)].prop_map(|ms| Step::Wait { ms }),
    ];
    vec(step, 0..60)
}

impl Driven<Crew> {
    /// The incarnation that the agent is at, as its obligations say.
    fn incarnation(&self, number: usize) -> u64 {
        self.state.seat(&agent(number)).map_or(1, |held| {
            held.incarnation.0
                + u64::from(held.pending.as_ref().is_some_and(|it| it.after == held.incarnation))
        })
    }

    fn take(&mut self, step: &Step) -> Result<Vec<Event>, Rejection> {
        let command = match *step {
            Step::Ready { number } => ready(number, self.incarnation(number)),
            Step::Down { number, exit, late } => Command::AgentDown(AgentEnd {
                agent: agent(number),
                incarnation: Incarnation(self.incarnation(number).saturating_sub(u64::from(late))),
                exit,
                detail: String::new(),
            }),
            Step::Restart { number } => {
                Command::Restart { agent: agent(number), incarnation: Incarnation(self.incarnation(number)) }
            }
            Step::Scale { replicas } => Command::Scale {
                member: "analyst".into(),
                seats: (1..=replicas).map(|number| seat(number, ChildKind::Permanent)).collect(),
            },
            Step::Simple(which) => match which {
                0 => Command::Assembled,
                1 => Command::Resume { raised: BudgetRaised::default() },
                2 => Command::Pause,
                3 => Command::AssemblyFailed { reason: "late".into() },
                4 => Command::Drain { grace_ms: None },
                5 => Command::Disband { reason: "enough".into() },
                6 => Command::Disbanded,
                _ => Command::Assemble(started(Policy::default(), ChildKind::Permanent)),
            },
            Step::Wait { ms } => {
                self.now_ms += ms;
                return Ok(Vec::new());
            }
        };
        self.give(&command)
    }
}

fn kinds() -> impl Generator<Value = ChildKind> {
    prop::sample::select(vec![ChildKind::Permanent, ChildKind::Transient, ChildKind::Temporary])
}

proptest! {
    /// SV-1: an agent that dies while its crew supervises is scheduled for a restart, or given up, in that very moment.
    #[test]
    fn sv_1_an_agent_that_dies_is_recovered_or_given_up(policy in policies(), kind in kinds(), steps in steps()) {
        let mut crew = Driven::<Crew>::new();
        crew.give(&Command::Assemble(started(policy, kind))).expect("it is new");
        for step in steps {
            let supervises = matches!(
                crew.state.status,
                Status::Assembling | Status::Running | Status::Paused | Status::Draining
            );
            let answer = crew.take(&step);
            let Step::Down { number, late: false, .. } = step else { continue };
            if let (true, Ok(_), Some(held)) = (supervises, answer, crew.state.seat(&agent(number))) {
                let ended = matches!(crew.state.status, Status::Disbanding | Status::Failed);
                assert!(held.pending.is_some() || held.given_up.is_some() || ended, "{held:?} is forgotten");
            }
        }
    }

    /// SV-2: the restart budget is part of the state: folded again it is the same, so a restart of the platform does
    /// not refill it; and within one window no more restarts are decided than it allows.
    #[test]
    fn sv_2_the_restart_budget_survives_a_restart(policy in policies(), kind in kinds(), steps in steps()) {
        let mut crew = Driven::<Crew>::new();
        crew.give(&Command::Assemble(started(policy.clone(), kind))).expect("it is new");
        for step in &steps {
            let answer = crew.take(step);
            if let (Step::Down { .. }, Ok(_)) = (step, answer) {
                let now_ms = ms(crew.now_ms);
                let by_command = crew.history.iter().filter(|event| {
                    matches!(event, Event::RestartScheduled(it) if it.exit == Exit::Killed && it.agents.len() == 1)
                });
                let allowed = policy.max_restarts as usize + by_command.count();
                assert!(crew.state.budget.spent(&policy, now_ms) <= allowed);
            }
        }
        crew.assert_folds_the_same();
    }

    /// A crew that ended asks for nothing; one that is ending asks for its end alone.
    #[test]
    fn a_crew_that_ended_obliges_to_nothing(policy in policies(), kind in kinds(), steps in steps()) {
        let mut crew = Driven::<Crew>::new();
        crew.give(&Command::Assemble(started(policy, kind))).expect("it is new");
        for step in steps {
            let before = crew.state.status;
            let _ = crew.take(&step);
            let obliged = Crew::obligations(&crew.state);
            match crew.state.status {
                Status::Disbanded => assert_eq!(obliged, []),
                Status::Disbanding | Status::Failed => {
                    assert!(matches!(obliged.as_slice(), [Effect::Dissolve { agents, .. }] if agents.len() >= 3));
                }
                _ => assert!(!matches!(before, Status::Disbanding | Status::Disbanded | Status::Failed)),
            }
        }
    }
}

#[test]
fn a_restart_is_scheduled_once_and_completed_by_the_next_incarnation() {
    let mut crew = running(Policy::default());
    assert_eq!(crew.give(&down(1, 1)).expect("it is news").len(), 1);
    assert_eq!(crew.give(&down(1, 1)), Ok(Vec::new()), "the same death again is no news");
    let due = Effect::Recover { agent: agent(1), incarnation: Incarnation(2), at_ms: crew.now_ms };
    assert!(Crew::obligations(&crew.state).contains(&due), "a first failure is mended at once");
    assert_eq!(crew.give(&ready(1, 1)), Ok(Vec::new()), "the dead incarnation does not complete it");
    crew.now_ms += 250;
    let completed = crew.give(&ready(1, 2)).expect("it is news");
    assert!(matches!(completed.as_slice(), [Event::RestartCompleted(it)] if it.took_ms == 250));
    assert!(Crew::obligations(&crew.state).contains(&Effect::Request(seat(1, ChildKind::Permanent))));
}

/// An agent that never comes up is not started again without a pause.
#[test]
fn starts_that_fail_in_a_row_wait_longer_and_longer() {
    let policy = Policy { backoff: Backoff { jitter: 0.0, ..Backoff::default() }, ..Policy::default() };
    let mut crew = running(policy);
    // Its clock is far from zero, as every real one is.
    crew.now_ms = 1_700_000_000_000;
    let mut waits = Vec::new();
    for incarnation in 1..=4 {
        let events = crew.give(&down(1, incarnation)).expect("it is news");
        let [Event::RestartScheduled(scheduled)] = events.as_slice() else { panic!("{events:?}") };
        waits.push(scheduled.delay_ms);
        crew.now_ms += 1_000;
    }
    assert_eq!(waits, [0, 200, 400, 800]);
}

#[test]
fn a_long_life_is_forgiven_its_beginning() {
    let mut crew = running(Policy::default());
    crew.give(&down(1, 1)).expect("it is news");
    crew.give(&ready(1, 2)).expect("it is back");
    crew.now_ms += 3_600_000;
    let events = crew.give(&down(1, 2)).expect("it is news");
    assert!(matches!(events.as_slice(), [Event::RestartScheduled(it)] if it.delay_ms == 0), "{events:?}");
}

#[test]
fn a_spent_budget_sets_the_agent_aside_and_a_person_may_have_it_back() {
    let mut crew = running(Policy { max_restarts: 1, ..Policy::default() });
    crew.give(&down(1, 1)).expect("it is news");
    crew.give(&down(1, 2)).expect("it is news");
    let reason = "its restart budget is spent".to_owned();
    assert!(Crew::obligations(&crew.state).contains(&Effect::Quarantine { agent: agent(1), reason }));
    crew.give(&Command::Restart { agent: agent(1), incarnation: Incarnation(2) }).expect("it is asked for");
    let due = Effect::Recover { agent: agent(1), incarnation: Incarnation(3), at_ms: crew.now_ms };
    assert!(Crew::obligations(&crew.state).contains(&due));
    crew.give(&ready(1, 3)).expect("it is back");
    assert_eq!(crew.state.kept().count(), 3);
}

#[test]
fn the_name_is_taken_while_the_crew_lives_and_given_back_once() {
    let mut crew = Driven::<Crew>::new();
    let assemble = Command::Assemble(started(Policy::default(), ChildKind::Permanent));
    let before = crew.state.clone();
    let events = crew.give(&assemble).expect("it is new");
    let name = [name_reservation(&Tenant::default(), "code-health")];
    assert_eq!(Crew::reserves(&before, &events), name);
    let before = crew.state.clone();
    let events = crew.give(&Command::AssemblyFailed { reason: "late".into() }).expect("it is news");
    assert_eq!(Crew::releases(&before, &events), name);
    let before = crew.state.clone();
    let events = crew.give(&Command::Disbanded).expect("it is news");
    assert_eq!(Crew::releases(&before, &events), [], "another crew may have it by now");
}

fn killed() -> Killed {
    Killed { by: Principal::user("admin"), reason: "enough".into(), at_ms: 5 }
}

/// A killed agent has no restart, neither by its siblings' failures nor by a person; another may take its seat.
#[test]
fn a_killed_agent_is_not_had_back() {
    let mut crew = running(Policy { strategy: Strategy::OneForAll, ..Policy::default() });
    crew.give(&down(0, 1)).expect("it died");
    let kill = Command::KillAgent { agent: agent(1), killed: killed() };
    assert_eq!(crew.give(&kill).map(|events| events.len()), Ok(1));
    assert_eq!(crew.give(&kill), Ok(Vec::new()), "it is killed already");
    let obliged = Crew::obligations(&crew.state);
    assert!(obliged.contains(&Effect::Kill { agent: agent(1), killed: killed() }), "{obliged:?}");
    let has_it_back =
        |effect: &Effect| matches!(effect, Effect::Recover { agent: of, .. } if *of == agent(1));
    assert!(!obliged.iter().any(has_it_back), "{obliged:?}");
    crew.give(&ready(0, 2)).expect("it is back");
    crew.give(&down(0, 2)).expect("it died again");
    assert!(!Crew::obligations(&crew.state).iter().any(has_it_back), "a sibling's failure");
    let restart = Command::Restart { agent: agent(1), incarnation: Incarnation(1) };
    assert!(matches!(crew.give(&restart), Err(Rejection::Killed { .. })));
    assert_eq!(crew.give(&down(1, 1)), Ok(Vec::new()), "its end is no news");
    crew.assert_folds_the_same();
}

/// Whoever was quarantined for what it did is not let out by a sibling's failure; a person may have it back.
#[test]
fn an_agent_that_was_quarantined_stays_so_until_a_person_wants_it_back() {
    let mut crew = running(Policy { strategy: Strategy::OneForAll, ..Policy::default() });
    let aside = Command::AgentQuarantined { agent: agent(1), incarnation: Incarnation(1) };
    assert_eq!(crew.give(&aside), Ok(vec![SetAside { agent: agent(1) }.into()]));
    assert_eq!(crew.give(&aside), Ok(Vec::new()), "it is known");
    crew.give(&down(0, 1)).expect("it died");
    let has_it_back =
        |effect: &Effect| matches!(effect, Effect::Recover { agent: of, .. } if *of == agent(1));
    assert!(!Crew::obligations(&crew.state).iter().any(has_it_back));
    crew.give(&Command::Restart { agent: agent(1), incarnation: Incarnation(1) }).expect("it is asked for");
    assert_eq!(crew.give(&aside), Ok(Vec::new()), "that was before");
    assert!(Crew::obligations(&crew.state).iter().any(has_it_back));
    crew.assert_folds_the_same();
}

#[test]
fn a_crew_that_lacks_a_killed_agent_is_not_brought_up() {
    let mut crew = Driven::<Crew>::new();
    crew.give(&Command::Assemble(started(Policy::default(), ChildKind::Permanent))).expect("it is new");
    crew.give(&Command::KillAgent { agent: agent(1), killed: killed() }).expect("it is there");
    assert_eq!(crew.state.status, Status::Failed);
    assert!(crew.state.reason.contains("killed by user:admin: enough"), "{}", crew.state.reason);
}

#[test]
fn a_crew_is_killed_once_and_also_while_it_disbands() {
    let mut crew = running(Policy::default());
    crew.give(&Command::Disband { reason: "enough".into() }).expect("it lives");
    assert_eq!(crew.give(&Command::Kill(killed())), Ok(vec![killed().into()]));
    assert_eq!(crew.give(&Command::Kill(killed())), Ok(Vec::new()));
    let obliged = Crew::obligations(&crew.state);
    assert!(
        matches!(&obliged[..], [Effect::Dissolve { killed: Some(by), .. }] if *by == killed()),
        "{obliged:?}"
    );
    crew.give(&Command::Disbanded).expect("nothing is left");
    assert_eq!(crew.give(&Command::Kill(killed())), Ok(Vec::new()), "nothing is left that could be killed");
    assert_eq!(crew.state.killed, Some(killed()));
    crew.assert_folds_the_same();
}

#[test]
fn scaling_keeps_who_is_there() {
    let mut crew = running(Policy::default());
    let seats = |count: usize| (1..=count).map(|number| seat(number, ChildKind::Permanent)).collect();
    let scale = |count| Command::Scale { member: "analyst".into(), seats: seats(count) };
    assert_eq!(crew.give(&scale(2)), Ok(Vec::new()));
    crew.give(&scale(3)).expect("one more");
    assert_eq!(crew.state.kept().count(), 4);
    crew.give(&scale(1)).expect("two less");
    assert_eq!(crew.state.kept().count(), 2);
    assert!(Crew::obligations(&crew.state).contains(&Effect::Release { agent: agent(3) }));
}

fn limited(on_breach: OnBreach) -> Driven<Crew> {
    let allowance = Allowance { tokens: Some(100), wall_ms: Some(60_000), messages: Some(3), on_breach };
    let mut crew = Driven::<Crew>::new();
    let started = AssemblyStarted { allowance, ..started(Policy::default(), ChildKind::Permanent) };
    crew.give(&Command::Assemble(started)).expect("it is new");
    crew
}

fn spend(what: Resource, used: u64) -> Command {
    Command::Spend { what, used }
}

fn resume(raised: BudgetRaised) -> Command {
    Command::Resume { raised }
}

#[test]
fn a_crew_that_has_used_its_budget_is_paused_until_it_gets_more() {
    let mut crew = limited(OnBreach::Suspend);
    crew.give(&Command::Assembled).expect("all are ready");
    assert_eq!(crew.give(&spend(Resource::Tokens, 99)), Ok(Vec::new()));
    let exhausted =
        BudgetExhausted { what: Resource::Tokens, used: 104, limit: 100, on_breach: OnBreach::Suspend };
    let events = crew.give(&spend(Resource::Tokens, 104)).expect("it is used up");
    assert_eq!(events, [exhausted.into(), Paused {}.into()]);
    assert_eq!(crew.give(&spend(Resource::Tokens, 200)), Ok(Vec::new()), "that is known");

    let spent = Rejection::Spent { what: Resource::Tokens, used: 104, limit: 100 };
    assert_eq!(crew.give(&resume(BudgetRaised::default())), Err(spent));
    let too_little = BudgetRaised { tokens: Some(104), ..BudgetRaised::default() };
    let spent = Rejection::Spent { what: Resource::Tokens, used: 104, limit: 104 };
    assert_eq!(crew.give(&resume(too_little)), Err(spent));
    let lower = BudgetRaised { tokens: Some(100), ..BudgetRaised::default() };
    assert_eq!(
        crew.give(&resume(lower)),
        Err(Rejection::NoRaise { what: Resource::Tokens, limit: Some(100) })
    );

    let raised = BudgetRaised { tokens: Some(200), ..BudgetRaised::default() };
    assert_eq!(crew.give(&resume(raised)), Ok(vec![raised.into(), Resumed {}.into()]));
    assert!(crew.state.exhausted.is_empty() && crew.state.allowance.messages == Some(3));
    crew.give(&spend(Resource::Tokens, 200)).expect("it is used up again");
    assert_eq!(crew.state.status, Status::Paused);
    crew.assert_folds_the_same();
}

#[test]
fn a_crew_that_has_used_its_budget_may_be_told_to_disband() {
    let mut crew = limited(OnBreach::Disband);
    crew.give(&Command::Assembled).expect("all are ready");
    crew.give(&spend(Resource::Messages, 3)).expect("they are used up");
    assert_eq!(crew.state.status, Status::Disbanding);
    assert_eq!(crew.state.reason, "its budget is used up: 3 of 3 messages");
}

#[test]
fn what_is_used_up_before_all_are_ready_holds_the_crew_at_once() {
    let mut crew = limited(OnBreach::Suspend);
    crew.give(&spend(Resource::Messages, 3)).expect("they are used up");
    assert_eq!(crew.state.status, Status::Assembling);
    crew.give(&Command::Assembled).expect("all are ready");
    assert_eq!(crew.state.status, Status::Paused);
}

#[test]
fn time_counts_from_the_assembly_on_and_only_until_it_is_used_up() {
    let time = |crew: &Driven<Crew>| {
        Crew::obligations(&crew.state).into_iter().find_map(|effect| match effect {
            Effect::SpendTime { at_ms, .. } => Some(at_ms),
            _ => None,
        })
    };
    let mut crew = limited(OnBreach::Suspend);
    assert_eq!(time(&crew), None);
    crew.give(&Command::Assembled).expect("all are ready");
    assert_eq!(time(&crew), Some(crew.now_ms + 60_000));
    crew.give(&spend(Resource::WallTime, 60_000)).expect("it is used up");
    assert_eq!((crew.state.status, time(&crew)), (Status::Paused, None));
    let raised = BudgetRaised { wall_ms: Some(90_000), ..BudgetRaised::default() };
    crew.give(&resume(raised)).expect("it may go on");
    assert_eq!((crew.state.status, time(&crew)), (Status::Running, Some(crew.now_ms + 90_000)));
}

#[test]
fn the_end_of_a_node_restarts_its_agents_and_is_charged_to_nobody() {
    let mut crew = running(Policy { max_restarts: 1, ..Policy::default() });
    let lost = |number, incarnation| {
        Command::AgentDown(AgentEnd {
            agent: agent(number),
            incarnation: Incarnation(incarnation),
            exit: Exit::NodeLost,
            detail: String::new(),
        })
    };
    for incarnation in 1..4 {
        for number in 0..3 {
            let events = crew.give(&lost(number, incarnation)).expect("it is supervised");
            assert!(
                matches!(&events[..], [Event::RestartScheduled(scheduled)] if scheduled.delay_ms == 0),
                "{events:?}"
            );
            crew.give(&ready(number, incarnation + 1)).expect("it is back");
        }
    }
    crew.give(&down(0, 4)).expect("its first failure");
    crew.give(&ready(0, 5)).expect("it is back");
    let events = crew.give(&down(1, 4)).expect("one too many");
    assert!(matches!(&events[..], [Event::RestartsExhausted(_)]), "{events:?}");
}
