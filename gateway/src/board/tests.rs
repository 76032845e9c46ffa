use std::collections::BTreeSet;

use events::domain::message::Body;
use events::{CommandId, CrewId};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const AGENTS: u32 = 3;

fn agent(replica: u32) -> AgentId {
    AgentId::derive(&["m", &replica.to_string()])
}

fn policy(replicas: u32) -> CrewPolicy {
    let agents = (0..replicas).map(|replica| (replica, agent(replica))).collect();
    CrewPolicy { members: vec![Member { name: "m".into(), agents }], ..CrewPolicy::default() }
}

fn party(replica: u32, incarnation: u64) -> Party {
    Party { agent: agent(replica), member: "m".into(), replica, incarnation: Incarnation(incarnation) }
}

fn board(limits: Limits) -> Board {
    let mut board = Board::new(limits);
    assert!(board.set_members(&policy(AGENTS)).is_empty());
    for replica in 0..AGENTS {
        board.incarnate(&agent(replica), Incarnation(1));
        board.link_up(&agent(replica), Instant::now());
    }
    board
}

fn sent(number: u64, sender: u32, recipient: &Recipient) -> Arc<Sent> {
    let (recipients, waits_for) = match recipient {
        Recipient::Agent(agent) => (vec![agent.clone()], None),
        Recipient::Member(member) => (Vec::new(), Some(member.clone())),
    };
    Arc::new(Sent {
        message: MessageId::of(CommandId::derive(&[&number.to_string()])),
        crew: CrewId::derive(&["crew"]),
        from: Party { agent: AgentId::derive(&["sender", &sender.to_string()]), ..party(0, 1) },
        to: "m".to_owned(),
        recipients,
        waits_for,
        depth: 0,
        body: Body::Inline(json!([])),
        context: None,
        task: None,
        in_hand: Vec::new(),
        reply_to: None,
    })
}

fn post(board: &mut Board, number: u64, sender: u32, recipient: &Recipient) -> Vec<Dead> {
    let origin = Origin { event: format!("outbox/{sender}@{number}").into(), correlation: None };
    board.post(&sent(number, sender, recipient), Position(number), &origin, std::slice::from_ref(recipient)).1
}

#[test]
fn places_are_promised_before_they_are_taken() {
    let mut board = board(Limits { messages_pending_max: 2, ..Limits::default() });
    let (member, to, sender) = (Arc::from("m"), "m[0]".parse().unwrap(), agent(9));
    let first = board.promise(&member, Some(&agent(0)), &to, &sender).unwrap();
    board.promise(&member, Some(&agent(0)), &to, &sender).unwrap();
    let full = NoRoom { recipient: Recipient::Agent(agent(0)) };
    assert_eq!(board.promise(&member, Some(&agent(0)), &to, &sender), Err(full));
    board.abandon(&first);
    assert!(board.promise(&member, Some(&agent(0)), &to, &sender).is_ok());
}

#[test]
fn acknowledgements_outlive_their_agent() {
    let mut board = board(Limits::default());
    let now = Instant::now();
    post(&mut board, 1, 0, &Recipient::Agent(agent(2)));
    assert!(matches!(board.next(&agent(2), true, now), (Next::Deliver(_), _)));
    let message = MessageId::of(CommandId::derive(&["1"]));
    let acked = board.acked(&party(2, 1), &message, Ack::Taken, now);
    assert!(matches!(acked, Acked::Settled { first: true }));
    assert!(board.set_members(&policy(2)).is_empty());
    assert_eq!(board.take_settled(&agent(2)).taken, [message]);
    board.recorded(&agent(2), 1);
    assert!(board.settled.is_empty());
}

#[test]
fn unrecorded_acknowledgements_hold_up_deliveries() {
    let mut board = board(Limits { acks_unrecorded_max: 1, ..Limits::default() });
    let (now, reader) = (Instant::now(), Recipient::Agent(agent(0)));
    for number in 1..=2 {
        post(&mut board, number, 0, &reader);
    }
    board.next(&agent(0), true, now);
    board.acked(&party(0, 1), &MessageId::of(CommandId::derive(&["1"])), Ack::Taken, now);
    assert!(matches!(board.next(&agent(0), true, now), (Next::Wait(_), _)));
    board.take_settled(&agent(0));
    assert!(matches!(board.next(&agent(0), true, now), (Next::Wait(_), _)), "it is not recorded yet");
    board.recorded(&agent(0), 1);
    assert!(matches!(board.next(&agent(0), true, now), (Next::Deliver(_), _)));
}

#[test]
fn nothing_is_lost_that_comes_after_its_crew_is_gone() {
    let mut board = board(Limits::default());
    board.clear(GivenUp::CrewGone);
    let dead = post(&mut board, 1, 0, &Recipient::Member("m".into()));
    assert_eq!(dead[0].reason, GivenUp::CrewGone);
}

/// What may happen to a board.
#[derive(Clone, Debug)]
enum Step {
    Post { sender: u32, replica: Option<u32> },
    Deliver { replica: u32 },
    Answer { replica: u32, which: usize, ack: u8 },
    Pass { ms: u64 },
    Ready { replica: u32, ready: bool },
    Link { replica: u32, up: bool },
    Die { replica: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let replica = 0..AGENTS;
    let step = prop_oneof![
        4 => (0..2_u32, proptest::option::of(replica.clone())).prop_map(|(sender, replica)| Step::Post { sender, replica }),
        6 => replica.clone().prop_map(|replica| Step::Deliver { replica }),
        5 => (replica.clone(), 0..4_usize, 0..4_u8).prop_map(|(replica, which, ack)| Step::Answer { replica, which, ack }),
        1 => (0..50_000_u64).prop_map(|ms| Step::Pass { ms }),
        2 => (replica.clone(), any::<bool>()).prop_map(|(replica, ready)| Step::Ready { replica, ready }),
        1 => (replica.clone(), any::<bool>()).prop_map(|(replica, up)| Step::Link { replica, up }),
        1 => replica.prop_map(|replica| Step::Die { replica }),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever happens, each message is waiting, in hand, settled or dead, and in one of these only; none is delivered
    /// after it was taken, nor more often than is allowed; and what one sender sends to one agent comes in order.
    #[test]
    fn no_message_is_lost_doubled_or_overtaken(steps in steps()) {
        let limits = Limits { deliveries_max: 3, messages_in_hand_per_sender_max: 2, ..Limits::default() };
        let mut board = board(limits);
        let mut now = Instant::now();
        let mut lives = [1; AGENTS as usize];
        let (mut posted, mut gone) = (0_u64, BTreeSet::new());
        let mut last: HashMap<(AgentId, u32), u64> = HashMap::new();
        for step in steps {
            let mut dead = Vec::new();
            match step {
                Step::Post { sender, replica } => {
                    posted += 1;
                    let recipient = match replica {
                        Some(replica) => Recipient::Agent(agent(replica)),
                        None => Recipient::Member("m".into()),
                    };
                    dead = post(&mut board, posted, sender, &recipient);
                }
                Step::Deliver { replica } => {
                    let (next, lost) = board.next(&agent(replica), true, now);
                    dead = lost;
                    if let Next::Deliver(delivery) = next {
                        let sent = &delivery.sent;
                        prop_assert!(!gone.contains(&sent.message), "delivered after its end");
                        prop_assert!(delivery.delivery <= 3);
                        if delivery.delivery == 1 && !sent.recipients.is_empty() {
                            let in_hand = &board.agents[&agent(replica)].in_hand[&sent.message];
                            let before = last.insert((sent.from.agent.clone(), replica), in_hand.position.0);
                            prop_assert!(before < Some(in_hand.position.0), "overtaken");
                        }
                    }
                }
                Step::Answer { replica, which, ack } => {
                    let mut in_hand: Vec<_> = board.agents[&agent(replica)].in_hand.values().map(|h| h.position).collect();
                    in_hand.sort();
                    let messages = &board.agents[&agent(replica)].in_hand;
                    let chosen = in_hand.get(which).and_then(|position| {
                        Some(messages.iter().find(|(_, held)| held.position == *position)?.0.clone())
                    });
                    let Some(message) = chosen else { continue };
                    let ack = [Ack::Taken, Ack::Taken, Ack::Unhandled, Ack::Failed][usize::from(ack)];
                    match board.acked(&party(replica, lives[replica as usize]), &message, ack, now) {
                        Acked::Settled { .. } => prop_assert!(gone.insert(message)),
                        Acked::Dead(lost) => dead.push(lost),
                        Acked::Again => {}
                        Acked::Unknown => prop_assert!(false, "an answer got lost"),
                    }
                }
                Step::Pass { ms } => now += Duration::from_millis(ms),
                Step::Ready { replica, ready } => drop(board.set_ready(&agent(replica), ready)),
                Step::Link { replica, up: true } => board.link_up(&agent(replica), now),
                Step::Link { replica, up: false } => board.link_down(&agent(replica)),
                Step::Die { replica } => {
                    lives[replica as usize] += 1;
                    dead = board.incarnate(&agent(replica), Incarnation(lives[replica as usize]));
                }
            }
            for lost in dead {
                prop_assert!(gone.insert(lost.sent.message.clone()), "settled twice");
            }
            let waiting = board.members.values().map(BTreeMap::len).sum::<usize>()
                + board.agents.values().map(Mailbox::load).sum::<usize>();
            prop_assert_eq!(waiting + gone.len(), usize::try_from(posted).unwrap(), "lost or doubled");
        }
    }
}
