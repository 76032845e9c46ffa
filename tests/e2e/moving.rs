//! A log that moves from files to a database, with everything that hangs on it.

use std::sync::Arc;

use events::store::copy::Place;
use events::store::postgres::server::Server;
use events::store::sqlite::{self, Sqlite};
use events::store::{Expected, conformance};
use events::{EventStore, Position};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::support::{Api, Home, Up, eventually, program};

/// Crews, tasks, agents that live, results in artifacts, signed checkpoints: all of it goes on in the database.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_moves_to_postgres_with_all_that_it_has() {
    let stage = Stage::with_crew().await;
    let body = "x".repeat(100_000);
    let task = stage.submit(&json!({"do": "echo", "text": body})).await;
    let before = stage.ended(&task).await;
    assert_eq!(before["status"], "completed", "{before:#}");
    let kept = stage.home.path("kept");
    let kept = kept.to_str().expect("text");
    stage.hypercode(&["audit", "checkpoint", "--cut", "--save", kept]).await.ok();
    let agents = stage.api.list("/v1/agents").await;

    let url = Server::shared().database().await;
    let files = format!("sqlite:{}", stage.home.data().display());
    let copy = ["log", "copy", "--from", &files, "--to", &url, "--output", "json"];
    let said = stage.hypercode(&copy).await.refused(5);
    assert!(said.contains("in use by process"), "{said}");

    let Stage { mut home, api, up } = stage;
    assert!(up.stop().await.success());
    let registry = home.hypercode(&["replay", "--all", "--output", "json"]).await.json();
    // As the documentation has it: first the tables, then what is in them.
    home.move_to(&url);
    home.hypercode(&["migrate"]).await.ok();
    let copied = home.hypercode(&copy).await.json();
    assert_eq!(
        (&copied["verified"], &copied["position"]),
        (&json!(true), &registry["position"]),
        "{copied:#}"
    );
    assert!(copied["artifactsCarried"].as_u64().is_some_and(|count| count > 0), "{copied:#}");
    let told = home.hypercode(&copy[..6]).await.ok();
    assert!(told.contains("0 events and 0 artifacts now"), "{told}");

    let moved = home.hypercode(&["replay", "--all", "--output", "json"]).await.json();
    assert_eq!(moved, registry);
    home.hypercode(&["audit", "verify", "--offline", "--against", kept]).await.ok();
    let stage = Stage { up: Up::start(&home).await, api: Api::of(&home), home };
    drop(api);
    assert_eq!(stage.ended(&task).await["result"], before["result"]);
    let lives = |agent: &Value| (agent["id"].clone(), agent["incarnation"].clone());
    let adopted = stage.api.list("/v1/agents").await;
    assert_eq!(adopted.iter().map(lives).collect::<Vec<_>>(), agents.iter().map(lives).collect::<Vec<_>>());
    stage
        .hypercode(&["crew", "assemble", stage.home.path("crew.yaml").to_str().expect("text")])
        .await
        .refused(1);
    let task = stage.submit(&json!({"do": "echo", "text": "hi"})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    stage.hypercode(&["audit", "checkpoint", "--cut"]).await.ok();
    stage.hypercode(&["audit", "verify", "--against", kept]).await.ok();

    // And back, once nobody uses the database any more.
    let back = format!("sqlite:{}", stage.home.path("back").display());
    let said = stage.hypercode(&["log", "copy", "--from", &url, "--to", &back]).await.refused(5);
    assert!(said.contains("in use by `node-"), "{said}");
    let Stage { home, up, api } = stage;
    assert!(up.stop().await.success());
    let copied =
        home.hypercode(&["log", "copy", "--from", &url, "--to", &back, "--output", "json"]).await.json();
    let at_end = home.hypercode(&["replay", "--output", "json"]).await.json();
    assert_eq!(copied["position"], at_end["position"]);
    Stage { up: Up::start(&home).await, home, api }.leave().await;
}

/// Events of a log that takes a while to be copied.
const EVENTS: usize = 10_000;

/// However often it is killed, the copy goes on, and until it is whole no platform opens it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_goes_on_where_it_was() {
    let home = Home::new();
    let log = Sqlite::open(home.path("old"), sqlite::Options::default()).await.expect("it opens");
    let payload = json!({"text": "x".repeat(500)}).to_string();
    for _ in 0..EVENTS / 500 {
        let stream = conformance::stream("s");
        let request = conformance::request(&stream, Expected::Any, &vec![payload.as_str(); 500]);
        log.append(request).await.expect("it is appended");
    }
    log.close().await;
    for to in [Server::shared().database().await, format!("sqlite:{}", home.path("new").display())] {
        let place: Place = to.parse().expect("a place");
        let from = format!("sqlite:{}", home.path("old").display());
        for part in 1..=3 {
            let mut copy = program()
                .args(["log", "copy", "--from", &from, "--to", &to])
                .stderr(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("the program starts");
            let wanted = Position((EVENTS * part / 5) as u64);
            let log = eventually("a log is there", async || read(&place).await).await;
            eventually("a part is there", async || {
                let there = log.read(Position(wanted.0 - 1), 1).await.ok()?;
                there.first().map(|_| ())
            })
            .await;
            copy.kill().await.expect("it is our child");
        }
        let (directory, set) = match &place {
            Place::Directory(path) => (path.clone(), "log=info".to_owned()),
            Place::Database(_) => (home.data(), format!("database_url={to}")),
        };
        let directory = directory.to_str().expect("text");
        let up = ["up", "--listen", "127.0.0.1:0", "--data-dir", directory, "--set", &set];
        let said = home.run(&up).await.refused(5);
        assert!(said.contains("log copy"), "{said}");
        let copied =
            home.hypercode(&["log", "copy", "--from", &from, "--to", &to, "--output", "json"]).await.json();
        assert_eq!(copied["position"], EVENTS, "{copied:#}");
        assert!(
            copied["events"].as_u64().is_some_and(|events| events <= (EVENTS * 2 / 5) as u64),
            "{copied:#}"
        );
        let log = read(&place).await.expect("it opens");
        let head = events::chain::verify(&*log).await.expect("it verifies");
        assert_eq!(head.hash.to_string(), copied["hash"]);
    }
}

async fn read(place: &Place) -> Option<Arc<dyn EventStore>> {
    Some(match place {
        Place::Directory(path) => {
            Arc::new(sqlite::ReadOnly::open(path, &sqlite::Options::default()).await.ok()?)
        }
        Place::Database(database) => {
            let options = events::store::postgres::Options::default();
            Arc::new(events::store::postgres::ReadOnly::open(database, &options).await.ok()?)
        }
    })
}
