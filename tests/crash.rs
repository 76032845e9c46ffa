//! Laws under `kill -9`: the real binary is killed at random moments while tasks run, and started again over the same
//! data directory each time; so are the servers that it needs, in all orders. Then the log is read, and what must hold is
//! held against it and against what the clients were told.
//!
//! `HYPERCODE_CRASH_MOMENTS` says how often it is killed, `HYPERCODE_CRASH_SEED` repeats the moments of another run.

#[path = "crash/history.rs"]
mod history;
#[path = "crash/laws.rs"]
mod laws;
#[path = "crash/orders.rs"]
mod orders;
#[path = "support/support.rs"]
mod support;
#[path = "crash/work.rs"]
mod work;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use laws::Log;
use support::{Api, Home, Up};
use work::{Accepted, Work};

/// How often the platform is killed where nothing else is said.
const MOMENTS: u64 = 20;
/// Tasks that are given in the time before each moment.
const TASKS_PER_MOMENT: u64 = 10;
/// The latest moment after the platform serves, in milliseconds.
const SERVING_MS: u64 = 800;
/// The latest moment after the platform was started, where it is killed before it serves, in milliseconds.
const STARTING_MS: u64 = 400;
/// How often it is killed before it serves.
const STARTING: f64 = 0.2;
/// How often Postgres is killed before the platform is.
const POSTGRES: f64 = 0.5;
/// How long a client may insist on an answer: on a busy machine many platforms in succession are killed before one of
/// them gets to it.
const INSISTENCE: Duration = Duration::from_secs(600);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: found `{text}`, expected a whole number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn tk_1_every_accepted_task_ends_once_however_often_the_platform_is_killed() {
    the_laws_hold_however_often_it_is_killed(Home::new()).await;
}

/// The same with the log in a database, whose server is killed as well.
#[tokio::test(flavor = "multi_thread")]
async fn tk_1_every_accepted_task_ends_once_however_often_platform_and_postgres_are_killed() {
    the_laws_hold_however_often_it_is_killed(Home::on_its_own_postgres().await).await;
}

/// The same with a bus, and all three are killed, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn tk_1_every_accepted_task_ends_once_in_whatever_order_platform_postgres_and_nats_are_killed() {
    let bus = nats::server::Server::start();
    let home = Home::on_its_own_postgres().await.on_bus(bus.url());
    the_laws_hold(home, Some(bus)).await;
}

async fn the_laws_hold_however_often_it_is_killed(home: Home) {
    the_laws_hold(home, None).await;
}

async fn the_laws_hold(mut home: Home, mut bus: Option<nats::server::Server>) {
    let moments = number("HYPERCODE_CRASH_MOMENTS").unwrap_or(MOMENTS);
    let seed = number("HYPERCODE_CRASH_SEED").unwrap_or_else(|| rand::rng().random());
    println!("{moments} moments, HYPERCODE_CRASH_SEED={seed}");

    let api = Api::of(&home).with_patience(INSISTENCE);
    let mut up = Up::start(&home).await;
    let crew = work::assemble(&home).await;
    let work = Work::new(&api, &crew);
    let (accepted, ()) = tokio::join!(work.give(moments * TASKS_PER_MOMENT), async {
        match &mut bus {
            None => kill_often(&mut home, &mut up, &work, moments, seed).await,
            Some(bus) => orders::kill_in_all(&mut home, &mut up, bus, &work, moments, seed).await,
        }
    });
    for task in &accepted {
        ended_as_it_should(task, &api.ended(&task.id).await);
    }
    // What nobody knows to be accepted ends as well.
    for task in api.list("/v1/tasks").await {
        api.ended(task["id"].as_str().expect("an id")).await;
    }
    if let Some(bus) = &bus {
        orders::the_stream_is_the_log(&home, &api, bus).await;
    }
    the_views_are_what_the_log_says(&home, &api, &mut up).await;
    api.insist(&format!("/v1/crews/{crew}/disband"), &json!({}), "disband").await.done();
    api.crew_gone(&crew).await;
    let status = up.stop().await;
    assert!(status.success(), "the platform ended with {status}");
    home.processes_end().await;
    assert_eq!(home.sockets(), Vec::<std::path::PathBuf>::new());

    let log = Log::read(home.log().await).await;
    log.chain_verifies().await;
    log.tasks_ended_once(work.history());
    log.agents_were_adopted();
    laws::nothing_was_done_twice(&home.diary());
}

/// Kills and starts the platform, with some more work each time.
async fn kill_often(home: &mut Home, up: &mut Up, work: &Work, moments: u64, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for moment in 1..=moments {
        work.release(TASKS_PER_MOMENT);
        if home.is_on_postgres() && random.random_bool(POSTGRES) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..SERVING_MS))).await;
            home.server().kill();
            home.server().start();
        }
        if random.random_bool(STARTING) {
            up.restart(home).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..STARTING_MS))).await;
        } else {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..SERVING_MS))).await;
        }
        up.restart(home).await;
        println!("killed {moment} of {moments}, {} tasks accepted", work.accepted());
        up.ready(&Api::of(home).with_patience(INSISTENCE)).await;
    }
}

fn ended_as_it_should(task: &Accepted, found: &serde_json::Value) {
    let status = found["status"].as_str().unwrap_or_default();
    assert!(task.deed.may_end(status), "{task:?} ended so: {found:#}");
    if status == "completed" {
        let output = found["output"].to_string();
        assert!(output.contains(&task.text), "the output of {task:?} is another's: {output}");
    }
}

/// RP-1: views that are made again from the log say the same.
async fn the_views_are_what_the_log_says(home: &Home, api: &Api, up: &mut Up) {
    let before = api.list("/v1/tasks").await;
    up.kill().await;
    match home.is_on_postgres() {
        true => home.execute("DROP SCHEMA hypercode_views CASCADE").await,
        false => std::fs::remove_file(home.data().join("views.db")).expect("the views are there"),
    }
    *up = Up::spawn(home);
    up.ready(api).await;
    assert_eq!(before, api.list("/v1/tasks").await);
}
