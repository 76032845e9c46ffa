//! What queries read: where it stands, and what stops it.

use events::store::postgres::{self, Database, Postgres};
use events::store::sqlite::{self, Sqlite};
use events::store::{AppendRequest, Expected, conformance};
use events::{EntityKind, EventStore, NewEvent, StreamId};
use serde_json::{Value, json};

use crate::stage::{CREW, Stage, wait_for};
use crate::support::{Home, Up, eventually};

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

    let Stage { home, up, api } = stage;
    assert!(up.stop().await.success());
    let stage = Stage { up: Up::start(&home).await, home, api };
    let log = stage.up.log();
    assert!(says_so(&log) && log.contains("a projection has stopped"), "{log}");
    stage.assemble(&CREW.replace("troupe", "others")).await.ok();
    let Stage { up, .. } = stage;
    assert!(up.stop().await.success());
}

/// One crew in whose stream stands what cannot be read stays as it is; the others go on after a crash, and it is said
/// wherever a person looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_holds_up_no_other_crew() {
    let stage = Stage::with_crew().await;
    let poisoned = stage.assemble(&CREW.replace("troupe", "others")).await.json();
    let poisoned = poisoned["id"].as_str().expect("an id").to_owned();
    let task = stage.submit(&wait_for(&stage.home, "go")).await;
    stage.in_hand(&task, 1).await;
    let Stage { home, api, mut up } = stage;
    up.kill().await;
    let log = Sqlite::open(home.data(), sqlite::Options::default()).await.expect("it opens");
    let event = NewEvent { kind: "crew_paused".into(), schema: 99, payload: "{}".into() };
    let stream = StreamId::new(EntityKind::Crew, &poisoned);
    let request = conformance::request(&stream, Expected::Any, &[]);
    let position =
        log.append(AppendRequest { events: vec![event], ..request }).await.expect("appended").position;
    log.close().await;

    let stage = Stage { up: Up::start(&home).await, home, api };
    stage.home.write("go", "");
    assert_eq!(stage.ended(&task).await["status"], "completed", "it went on");
    let again = stage.submit(&json!({"do": "echo"})).await;
    assert_eq!(stage.ended(&again).await["status"], "completed");
    let refused = stage.hypercode(&["crew", "disband", &poisoned]).await;
    assert!(refused.code != 0 && refused.err.contains("schema 99"), "{refused:?}");

    let ready = stage.api.get("/readyz").await.expect("an answer");
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("degraded")), "{ready:?}");
    assert!(ready.body["troubles"].to_string().contains("`crews` after position"), "{ready:?}");
    let stops = format!("event at position {position}");
    let finding = async |home: &Home| {
        let found = home.hypercode(&["doctor", "--output", "json"]).await;
        let found: Value = serde_json::from_str(&found.out).expect("JSON");
        let views = found["findings"].as_array().expect("findings").iter().find(|it| it["what"] == "views");
        views.expect("the views are looked at").clone()
    };
    let found = finding(&stage.home).await;
    assert!(found["verdict"] == "warning" && found["found"].to_string().contains(&stops), "{found:#}");
    let checked = stage.hypercode(&["replay", "--check"]).await;
    assert!(checked.code == 1 && checked.out.contains(&stops), "{checked:?}");
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    let found = finding(&home).await;
    assert!(found["verdict"] == "warning" && found["found"].to_string().contains(&stops), "{found:#}");
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
