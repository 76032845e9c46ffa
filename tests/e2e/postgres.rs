//! The same platform with its log and its views in a Postgres database.

use serde_json::json;

use crate::stage::Stage;
use crate::support::{Api, Home, Up, eventually};

/// What must stand in nothing that the platform writes.
const SECRET: &str = "s3cret-of-the-database";

/// The platform and its commands work as they do on files, and nothing of the log lies in the data directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_crew_works_and_the_log_is_in_the_database() {
    let home = Home::on_postgres(SECRET).await;
    let (api, up) = (Api::of(&home), Up::start(&home).await);
    let stage = Stage { home, api, up };
    stage.assemble(crate::stage::CREW).await.ok();
    let task =
        stage.submit(&json!({"do": "delegate", "to": "worker", "input": {"do": "echo", "text": "hi"}})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let found = stage.json(&["doctor"]).await;
    let findings = found["findings"].as_array().expect("findings");
    let database = findings.iter().find(|finding| finding["what"] == "database").expect("it is looked at");
    assert_eq!(database["verdict"], "ok", "{database:#}");
    assert!(database["found"].as_str().is_some_and(|found| found.contains("PostgreSQL")), "{database:#}");
    for name in ["log.db", "views.db"] {
        assert!(!stage.home.data().join(name).exists(), "{name} lies in the data directory");
    }

    // Another platform over the same database goes on with it.
    let Stage { home, api, up } = stage;
    assert!(up.stop().await.success());
    let log = std::fs::read_to_string(home.path("platform.log")).expect("the platform's log");
    assert!(!log.contains(SECRET) && !found.to_string().contains(SECRET), "ID-2: a secret was written");
    let stage = Stage { up: Up::start(&home).await, home, api };
    assert_eq!(stage.ended(&task).await["status"], "completed");
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_on_postgres() {
    let home = Home::on_postgres(SECRET).await;
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/manifest");
    let out = home.run(&["demo", "--chaos", "--path", tree]).await.ok();
    assert!(out.contains("recovered as incarnation 2") && out.contains("the hash chain verifies"), "{out}");
}

/// While the database is away the platform says so; when it is back, it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_said_and_waited_for() {
    let mut home = Home::on_its_own_postgres().await;
    let (api, up) = (Api::of(&home), Up::start(&home).await);
    home.server().stop();
    eventually("the platform is not ready", async || {
        let answer = api.get("/readyz").await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await;
    assert!(api.get("/healthz").await.is_ok_and(|answer| answer.is_ok()), "the platform lives");
    home.server().start();
    eventually("the platform is ready again", async || {
        api.get("/readyz").await.ok().filter(|answer| answer.is_ok()).map(|_| ())
    })
    .await;
    let stage = Stage { home, api, up };
    stage.assemble(crate::stage::CREW).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_migrated_and_strange_ones_refused() {
    let home = Home::on_postgres(SECRET).await;
    let migrated = home.hypercode(&["migrate", "--output", "json"]).await.json();
    assert_eq!(migrated["changed"], true, "{migrated}");
    let again = home.hypercode(&["migrate", "--output", "json"]).await.json();
    assert_eq!(again["changed"], false, "{again}");
    home.execute("UPDATE hypercode_schema SET version = 99").await;
    for command in [&["migrate"][..], &["up", "--listen", "127.0.0.1:0"], &["audit", "verify", "--offline"]] {
        let said = home.hypercode(command).await.refused(5);
        assert!(said.contains("newer") && !said.contains(SECRET), "{said}");
    }
    let said = home.run(&["doctor", "--set", "database_url=mysql://x:s3cret@y/z"]).await.refused(2);
    assert!(said.contains("postgres://USER") && !said.contains("s3cret"), "{said}");
}
