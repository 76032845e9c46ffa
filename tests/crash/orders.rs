//! Platform, Postgres and NATS are killed one after the other, in every order, and started in every order in which one can
//! start a platform: after its database.

use std::time::Duration;

use events::Position;
use events::chain::Verifier;
use events::store::Head;
use nats::relay::STREAM;
use nats::server::Server;
use nats::{Bus as _, Connection, Nats, Streams as _, cloud_event};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Api, Home, Up, eventually_within};
use crate::work::Work;
use crate::{INSISTENCE, SERVING_MS, TASKS_PER_MOMENT};

/// The longest time between one death or start and the next, in milliseconds.
const BETWEEN_MS: u64 = 400;
/// Moments of the other tests for which all are killed once here.
const MOMENTS_PER_ROUND: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Part {
    Platform,
    Postgres,
    Nats,
}

use Part::{Nats as N, Platform as H, Postgres as P};

/// In which order they die.
const DEATHS: [[Part; 3]; 6] = [[H, P, N], [H, N, P], [P, H, N], [P, N, H], [N, H, P], [N, P, H]];
/// In which order they are started.
const STARTS: [[Part; 3]; 3] = [[P, H, N], [N, P, H], [P, N, H]];

/// Kills all three in every order at least once, while tasks are given.
pub(crate) async fn kill_in_all(
    home: &mut Home,
    up: &mut Up,
    bus: &mut Server,
    work: &Work,
    moments: u64,
    seed: u64,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut pause =
        async |most: u64| tokio::time::sleep(Duration::from_millis(random.random_range(0..most))).await;
    let rounds = (moments / MOMENTS_PER_ROUND).max(DEATHS.len() as u64);
    for round in 0..rounds {
        let turn = usize::try_from(round).expect("a small number");
        // After as many rounds as there are pairs, each has had its turn.
        let (deaths, starts) = (DEATHS[turn % 6], STARTS[(turn + turn / 6) % 3]);
        work.release(
            (moments * TASKS_PER_MOMENT * (round + 1) / rounds) - moments * TASKS_PER_MOMENT * round / rounds,
        );
        pause(SERVING_MS).await;
        for part in deaths {
            match part {
                H => up.kill().await,
                P => home.server().kill(),
                N => bus.kill(),
            }
            pause(BETWEEN_MS).await;
        }
        for part in starts {
            match part {
                H => *up = Up::spawn(home),
                P => home.server().start(),
                N => bus.resume(),
            }
            pause(BETWEEN_MS).await;
        }
        println!("killed {deaths:?}, started {starts:?}, {} tasks accepted", work.accepted());
        up.ready(&Api::of(home).with_patience(INSISTENCE)).await;
    }
}

/// The relay has caught up: the stream has every event of the log, once, in order, with the hashes that it had there.
pub(crate) async fn the_stream_is_the_log(home: &Home, api: &Api, bus: &Server) {
    let client = Nats::connect(bus.options());
    client.connection().wait_for(|now| *now == Connection::Up).await.expect("the server is there");
    eventually_within(INSISTENCE, "all events are in the stream", async || {
        let head = api.get("/v1/log").await.ok()?.body["position"].as_u64()?;
        let kept = client.read(STREAM, head - 1, 1).await.ok()?;
        (kept.first()?.0 >= head).then_some(())
    })
    .await;
    let mut chain = Verifier::after(Head::EMPTY);
    for (_, message) in client.read(STREAM, 0, usize::MAX).await.expect("the stream can be read") {
        chain.check(&cloud_event::decode(&message).expect("an event")).expect("the chain holds");
    }
    let Head { position, hash } = chain.head();
    let last = home.log().await.read(Position(position.0 - 1), 1).await.expect("the log can be read");
    assert_eq!(last[0].hash, hash, "the stream and the log part before position {position}");
}
