//! A platform on a NATS server, as its users have it.

use std::process::Stdio;

use nats::cloud_event;
use nats::relay::STREAM;
use nats::server::Server;
use nats::{Bus as _, Connection, Nats, Streams as _};
use serde_json::Value;
use tokio::process::Command;

use crate::stage::{CREW, Stage};
use crate::support::{Api, Home, PATIENCE, Up, eventually};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A platform that is told of this server, whether it is there or not.
async fn stage_at(url: &str) -> Stage {
    stage_of(Home::new(), url).await
}

async fn stage_of(home: Home, url: &str) -> Stage {
    let (api, mut up) = (Api::of(&home), spawn(&home, url));
    up.ready(&api).await;
    Stage { home, api, up }
}

fn spawn(home: &Home, url: &str) -> Up {
    Up::spawn_after(&format!("export HYPERCODE_NATS_URL={url}"), home)
}

async fn readiness(api: &Api, status: &str) -> Value {
    eventually(&format!("/readyz says `{status}`"), async || {
        let answer = api.get("/readyz").await.ok()?;
        assert_eq!(answer.status, 200, "it stays ready: {answer:?}");
        (answer.body["status"] == status).then_some(answer.body)
    })
    .await
}

/// Every event of the log is in the stream, and the chain of what is there verifies.
async fn all_is_published(stage: &Stage, server: &Server) {
    let bus = Nats::connect(nats::Options::new(server.url_of("platform").parse().expect("an address")));
    let up = bus.connection().wait_for(|now| *now == Connection::Up).await.map(|_| ());
    up.expect("the server is there");
    eventually("all events are in the stream", async || {
        let head = stage.api.get("/v1/log").await.ok()?.body["position"].as_u64()?;
        let kept = bus.read(STREAM, 0, usize::MAX).await.ok()?;
        (kept.last()?.0 >= head).then_some(())
    })
    .await;
    let mut chain = events::chain::Verifier::after(events::store::Head::EMPTY);
    for (_, message) in bus.read(STREAM, 0, usize::MAX).await.expect("the stream can be read") {
        chain.check(&cloud_event::decode(&message).expect("an event")).expect("the chain holds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_another_language_assembles_a_crew_and_follows_its_events() {
    let server = Server::deployed();
    let mut home = Home::on_its_own_postgres().await;
    let owner = home.places().remove(0);
    let role = |role: &str| owner.replace("//postgres@", &format!("//{role}@"));
    home.hypercode(&["migrate"]).await.ok();
    psql(&owner, "deploy/postgres/roles.sql").await;
    home.move_to(&role("hypercode_node"));
    let stage = stage_of(home, &server.url_of("platform")).await;
    let example = |name: &str| format!("{ROOT}/deploy/examples/{name}");
    stage.hypercode(&["profile", "apply", &example("word-count/profiles.yaml")]).await.ok();
    readiness(&stage.api, "ok").await;

    let client = Command::new("python3")
        .arg(example("nats-client/client.py"))
        .args(["--nats", &server.url_of("client")])
        .arg("--token-file")
        .arg(stage.home.data().join("admin.token"))
        .args([&example("word-count/crew.yaml"), "the cat and the dog"])
        .env(
            "PYTHONPATH",
            format!(
                "{}/tools",
                std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| format!("{ROOT}/target"))
            ),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(2 * PATIENCE, client).await.expect("it ends").expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in
        ["is there", "task_submitted", "attempt_started", "task_completed", "| the | 2 |", "crew_disbanded"]
    {
        assert!(said.contains(expected), "`{expected}` is not in:\n{said}");
    }
    all_is_published(&stage, &server).await;

    // The registry, as somebody reads it who may only read.
    let auditor = role("hypercode_auditor");
    let shown = eventually("the views have come so far", async || {
        let shown = psql(&auditor, "deploy/examples/psql/registry.sql").await;
        shown.contains("disbanded").then_some(shown)
    })
    .await;
    for expected in ["word-count", "splitter", "terminated", "completed", "crew_disbanded", "user:admin"] {
        assert!(shown.contains(expected), "`{expected}` is not in:\n{shown}");
    }
    let changed = Command::new("psql")
        .args(["-X", "-c", "UPDATE hypercode_views.crews SET status = 'running'", &auditor])
        .output();
    let changed = changed.await.expect("psql is there");
    let refused = String::from_utf8_lossy(&changed.stderr);
    assert!(!changed.status.success() && refused.contains("permission denied"), "{refused}");
    stage.leave().await;
}

/// What psql shows when it carries out a file of ours over this database.
async fn psql(database: &str, file: &str) -> String {
    let file = format!("{ROOT}/{file}");
    let ran = Command::new("psql")
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-f", &file, database])
        .stdin(Stdio::null())
        .output();
    let ran = ran.await.expect("psql is there");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_the_platform_goes_on_says_so_and_catches_up() {
    let mut server = Server::deployed();
    server.kill();
    let url = server.url_of("platform");
    let mut stage = stage_at(&url).await;
    let trouble = readiness(&stage.api, "degraded").await;
    assert_eq!(trouble["troubles"][0]["part"], "nats");
    stage.assemble(CREW).await.ok();
    let task = stage.submit(&serde_json::json!({"do": "echo"})).await;
    stage.ended(&task).await;
    let flag = format!("nats_url={url}");
    let seen = stage.hypercode(&["doctor", "--set", &flag]).await.out;
    assert!(seen.contains("nats: connect to nats://127.0.0.1"), "{seen}");

    server.resume();
    readiness(&stage.api, "ok").await;
    all_is_published(&stage, &server).await;
    let seen = stage.hypercode(&["doctor", "--set", &flag]).await.out;
    assert!(seen.contains("is version 2."), "{seen}");

    // Killed under load, with all that it kept: the log has it still.
    let working = async {
        for _ in 0..6 {
            let task = stage.submit(&serde_json::json!({"do": "echo"})).await;
            stage.ended(&task).await;
        }
    };
    let failing = async {
        for wiped in [false, true] {
            server.kill();
            readiness(&stage.api, "degraded").await;
            if wiped {
                server.wipe();
            }
            server.resume();
            readiness(&stage.api, "ok").await;
        }
    };
    tokio::join!(working, failing);
    all_is_published(&stage, &server).await;

    // The platform is killed as well: the next one goes on where the stream ends.
    stage.submit(&serde_json::json!({"do": "echo"})).await;
    stage.up.kill().await;
    stage.up = spawn(&stage.home, &url);
    stage.up.ready(&stage.api).await;
    readiness(&stage.api, "ok").await;
    all_is_published(&stage, &server).await;

    let log = std::fs::read_to_string(stage.home.path("platform.log")).expect("the platform's log");
    assert!(!log.contains(":platform@"), "the password is in the log:\n{log}");
    stage.leave().await;
}
