//! What queries read: where it stands, and what stops it.

use events::store::postgres::{self, Database, Postgres};
use events::store::{AppendRequest, Expected, conformance};
use events::{EntityKind, EventStore, NewEvent, StreamId};
use serde_json::Value;

use crate::stage::Stage;
use crate::support::{Home, eventually};

/// An event that a newer program has written stops the view that should read it, and that one alone; its position and
/// what to do are said, while the platform runs and when it is to start again.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_program_is_named_and_stops_one_view() {
    let stage = Stage::with_crew_at(Home::on_postgres("s3cret").await).await;
    let crew = stage.json(&["crew", "disband", "troupe"]).await;
    stage.api.crew_gone(crew["id"].as_str().or_else(|| crew["crew"].as_str()).expect("an id")).await;

    let position = append_of_a_newer_program(&stage.home).await;
    let profile = "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {name: other}\n\
                   spec: {handler: {command: [python3, deeds.py], source: ./deeds}}\n";
    let file = stage.home.write("other.yaml", profile);
    stage.hypercode(&["profile", "apply", file.to_str().expect("text")]).await.ok();
    let items = eventually("the other views go on", async || {
        let page = stage.json(&["projection", "status"]).await;
        let items = page["items"].as_array().expect("items").clone();
        let is_right = |item: &Value| match item["name"] == "agents" {
            true => item["status"] == "stopped",
            false => item["status"] == "ok" && item["lag"] == 0,
        };
        items.iter().all(is_right).then_some(items)
    })
    .await;
    let agents = items.iter().find(|item| item["name"] == "agents").expect("it is there");
    assert_eq!(agents["position"], position - 1);
    assert!(agents["lag"].as_u64().is_some_and(|lag| lag >= 2), "{agents:#}");
    let clear =
        [format!("position {position}"), "schema 99 is newer than".into(), "upgrade the platform".into()];
    let says_so = |said: &str| clear.iter().all(|part| said.contains(part));
    assert!(says_so(agents["error"].as_str().expect("an error")), "{agents:#}");
    let told = stage.hypercode(&["projection", "status"]).await.ok();
    assert!(told.contains("stopped") && says_so(&told), "{told}");
    let refused = stage.hypercode(&["projection", "rebuild", "agents"]).await.refused(1);
    assert!(says_so(&refused) && refused.contains("the old one stays"), "{refused}");
    stage.hypercode(&["projection", "rebuild", "tasks"]).await.ok();

    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    let said = home.hypercode(&["up", "--listen", "127.0.0.1:0"]).await.refused(5);
    assert!(says_so(&said), "{said}");
}

/// The position of an event whose schema nobody here knows.
async fn append_of_a_newer_program(home: &Home) -> u64 {
    let database: Database = home.places()[0].parse().expect("a URL");
    let log = Postgres::open(&database, postgres::Options::default()).await.expect("it opens");
    let stream = StreamId::new(EntityKind::Agent, "ag_of-tomorrow");
    let event = NewEvent { kind: "agent_ready".into(), schema: 99, payload: "{}".into() };
    let request = conformance::request(&stream, Expected::NONE, &[]);
    let appended =
        log.append(AppendRequest { events: vec![event], ..request }).await.expect("it is appended");
    log.close().await;
    appended.position.0
}
