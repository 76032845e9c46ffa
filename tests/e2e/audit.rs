//! Evidence as an auditor gets it, and replay beside what runs.

use std::path::Path;
use std::process::{Command, Output};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use events::audit::witness::double::Witness;
use events::{EntityKind, Position};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::pool::POOL;
use crate::stage::Stage;
use crate::support::{Api, Home, PATIENCE, Up, eventually, program};

fn python(program: &Path, arguments: &[&str]) -> Output {
    Command::new("python3").arg(program).args(arguments).output().expect("python3 runs")
}

async fn key(stage: &Stage) -> String {
    stage.json(&["audit", "checkpoint", "--cut"]).await["keys"][0].as_str().expect("a key").to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_evidence_without_us() {
    evidence_is_verified_without_us(Home::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_evidence_from_a_database_without_us() {
    evidence_is_verified_without_us(Home::on_postgres("s3cret").await).await;
}

/// An auditor with only the bundle, the public key and a checkpoint of an earlier day.
async fn evidence_is_verified_without_us(home: Home) {
    let stage = Stage::with_crew_at(home).await;
    let (kept, bundle) = (stage.home.path("kept"), stage.home.path("evidence.tar"));
    let (kept, bundle) = (text(&kept), text(&bundle));
    stage.hypercode(&["audit", "checkpoint", "--cut", "--save", kept]).await.ok();
    let key = key(&stage).await;
    let done = stage.json(&["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#]).await;
    stage.ended(done["id"].as_str().expect("an id")).await;

    stage.hypercode(&["audit", "export", "--out", bundle]).await.ok();
    let tail = stage.hypercode(&["audit", "tail", "--kind", "audit_exported"]).await.ok();
    assert!(tail.contains("evidence from position 1 on"), "an export is an event: {tail}");
    stage.hypercode(&["audit", "export", "--out", bundle]).await.refused(2);
    let report = stage.json(&["audit", "verify", bundle, "--key", &key, "--against", kept]).await;
    assert_eq!(report["ok"], true, "{report:#}");

    let unpacked = stage.home.path("evidence");
    let tar =
        Command::new("tar").args(["-xf", bundle, "-C", text(unpacked.parent().expect("a home"))]).status();
    assert!(tar.expect("tar runs").success());
    let verifier = unpacked.join("verify.py");
    let verified = python(&verifier, &["--key", &key, "--against", kept]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(python(&verifier, &[bundle, "--key", &key]).status.success(), "the tar as it is");

    // One changed byte.
    let events = unpacked.join("events.jsonl");
    let whole = std::fs::read_to_string(&events).expect("events");
    let at =
        1 + whole.lines().position(|event| event.contains("user:admin")).expect("an administrator's act");
    let found_there = format!("position {at}: event_changed");
    std::fs::write(&events, whole.replacen("user:admin", "user:edmin", 1)).expect("written");
    let found = python(&verifier, &["--key", &key]);
    assert_eq!(found.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&found.stdout).contains(&found_there), "{found:?}");
    let ran = stage.hypercode(&["audit", "verify", text(&unpacked)]).await;
    assert!(ran.code == 1 && ran.out.contains(&found_there), "{ran:?}");

    let proof = stage.home.path("3.tlog-proof");
    stage.hypercode(&["audit", "prove", "3", "--out", text(&proof)]).await.ok();
    assert!(python(&verifier, &["--proof", text(&proof), "--key", &key]).status.success());
    stage.hypercode(&["audit", "verify", text(&proof), "--key", &key]).await.ok();
    stage.hypercode(&["audit", "prove", "99999"]).await.refused(4);
    let offline = stage.hypercode(&["audit", "prove", "3", "--offline"]).await.ok();
    assert!(offline.contains("\"position\":3") || offline.contains("c2sp.org"), "{offline}");
    stage.hypercode(&["audit", "verify", "--offline", "--key", &key, "--against", kept]).await.ok();

    // Where the platform does not run, its files or its database give the evidence themselves.
    let unasked = stage.home.path("offline.tar");
    let export = ["audit", "export", "--offline", "--out", text(&unasked)];
    let said = stage.hypercode(&export).await.refused(5);
    assert!(said.contains("in use"), "{said}");
    let Stage { home, up, api } = stage;
    assert!(up.stop().await.success());
    home.hypercode(&export).await.ok();
    home.hypercode(&["audit", "verify", text(&unasked), "--key", &key, "--against", kept]).await.ok();
    Stage { up: Up::start(&home).await, home, api }.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_shows_what_was_beside_what_runs() {
    what_was_is_shown(Home::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_shows_what_was_in_a_database() {
    what_was_is_shown(Home::on_postgres("s3cret").await).await;
}

/// What is done with the platform itself stands in the audit: starts and stops, keys, settings.
#[tokio::test(flavor = "multi_thread")]
async fn the_acts_of_operators_are_events() {
    let stage = Stage::empty().await;
    let token = std::fs::read_to_string(stage.home.data().join("admin.token")).expect("a token");
    stage.hypercode(&["projection", "rebuild", "--all"]).await.ok();
    let Stage { home, api, mut up } = stage;
    up.kill().await;
    let up = Up::start(&home).await;
    assert!(up.stop().await.success());
    let worm = home.path("worm");
    std::fs::create_dir(&worm).expect("a directory");
    let line = format!("export HYPERCODE_CHECKPOINT_DIR={}", worm.display());
    let mut up = Up::spawn_after(&line, &home);
    up.ready(&api).await;
    let stage = Stage { home, api, up };

    let lines = stage.api.list("/v1/audit").await;
    let told = |kind: &str| -> Vec<&str> {
        let of_kind = lines.iter().filter(|line| line["kind"] == kind);
        of_kind.map(|line| line["summary"].as_str().expect("a summary")).collect()
    };
    let starts: Vec<bool> =
        told("platform_started").iter().map(|start| start.ends_with("after a crash: true")).collect();
    assert_eq!(starts, [false, true, false]);
    assert_eq!(told("platform_stopped").len(), 1);
    let keys = told("key_created");
    for key in ["checkpoint_key", "master_key", "admin_token"] {
        assert_eq!(keys.iter().filter(|line| line.contains(key)).count(), 1, "{keys:?}");
    }
    assert!(!json!(lines).to_string().contains(token.trim()), "of a secret only a fingerprint is told");
    assert_eq!(told("settings_changed").len(), 1);
    assert_eq!(told("projection_rebuilt").len(), 1);
    assert!(lines.iter().all(|line| line["kind"] != "platform_started"
        || line["principal"].as_str().is_some_and(|who| who.starts_with("node:"))));
    stage.leave().await;
}

/// What is replayed at the end of the log is what the API says now.
async fn what_was_is_shown(home: Home) {
    let stage = Stage::with_crew_at(home).await;
    stage.apply(POOL).await;
    let pool = stage.pool("there", |pool| pool["id"].is_string()).await;
    let done = stage.json(&["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#]).await;
    let task = done["id"].as_str().expect("an id").to_owned();
    stage.ended(&task).await;
    let now = stage.json(&["replay"]).await;
    for (list, path) in [("crews", "/v1/crews"), ("tasks", "/v1/tasks")] {
        assert_eq!(now[list], Value::from(stage.api.list(path).await), "{list}");
    }
    let mut agents = stage.api.list("/v1/agents").await;
    for agent in &mut agents {
        let fields = agent.as_object_mut().expect("an agent");
        fields.retain(|name, _| name != "sandboxKind" && name != "isolation");
    }
    assert_eq!(now["agents"], Value::from(agents));

    assert_eq!((&now["pools"][0]["id"], &now["pools"][0]["name"]), (&pool["id"], &pool["name"]), "{now:#}");
    let told = stage.hypercode(&["replay"]).await.ok();
    assert!(told.contains("1 pool") && told.contains(pool["id"].as_str().expect("an id")), "{told}");
    let life = stage.hypercode(&["replay", "--entity", pool["id"].as_str().expect("an id")]).await.ok();
    assert!(life.contains("pool_applied"), "{life}");

    let submitted = now["tasks"][0]["created"].as_u64().expect("a position");
    let before = (submitted - 1).to_string();
    assert_eq!(stage.json(&["replay", "--to", &before]).await["tasks"], json!([]));
    let server = std::fs::read_to_string(stage.home.data().join("http.address")).expect("an address");
    let server = format!("http://{}", server.trim());
    let online = stage.json(&["replay", "--to", &before, "--server", &server]).await;
    assert_eq!(online, stage.json(&["replay", "--to", &before]).await, "over HTTP as from the file");

    let said = stage.hypercode(&["replay", "--check", "--server", &server]).await.refused(2);
    assert!(said.contains("`--check` reads the views where they lie"), "{said}");

    let end = now["position"].to_string();
    let diff = stage.json(&["replay", "--diff", &before, &end]).await;
    let is_new = |change: &&Value| change["change"] == "added" && change["id"] == task.as_str();
    assert!(diff["changes"].as_array().expect("changes").iter().any(|change| is_new(&change)), "{diff:#}");
    let said = stage.hypercode(&["replay", "--diff", &end, &before]).await.refused(2);
    assert!(said.contains("comes before") && said.contains("earlier moment first"), "{said}");
    let said = stage.hypercode(&["replay", "--diff", &before, "2020-01-01T00:00:00Z"]).await.refused(2);
    assert!(said.contains("comes before"), "{said}");
    stage.hypercode(&["replay", "--diff", "999999", "1"]).await.refused(4);
    for place in stage.home.places() {
        assert_eq!(stage.json(&["replay", &place, "--to", &before]).await, online, "{place}");
    }
    let life = stage.hypercode(&["replay", "--entity", &task]).await.ok();
    assert!(life.contains("task_submitted") && life.contains("task_completed"), "{life}");
    stage.hypercode(&["replay", "--entity", "task/nobody"]).await.refused(4);
    stage.hypercode(&["replay", "--to", "999999"]).await.refused(4);
    stage.hypercode(&["replay", "--diff", "1", "999999"]).await.refused(4);
    let checked = stage.json(&["replay", "--check"]).await;
    assert_eq!(checked["ok"], true, "{checked:#}");

    // A view that says something else than the log is found.
    let change = "UPDATE tasks SET status = 'failed'";
    match stage.home.is_on_postgres() {
        true => stage.home.execute(&format!("SET search_path = hypercode_views; {change}")).await,
        false => {
            let views = execute(&stage.home.data().join("views.db"), change);
            assert!(views.status.success(), "{views:?}");
        }
    }
    let ran = stage.hypercode(&["replay", "--check"]).await;
    assert!(ran.code == 1 && ran.out.contains("table tasks differs"), "{ran:?}");
    stage.hypercode(&["projection", "rebuild"]).await.refused(2);
    stage.hypercode(&["projection", "rebuild", "nothing"]).await.refused(4);
    let rebuilt = stage.json(&["projection", "rebuild", "--all"]).await;
    let items = rebuilt["items"].as_array().expect("items");
    assert!(items.iter().all(|item| item["rebuild"]["status"] == "done"), "{rebuilt:#}");
    assert_eq!(stage.json(&["replay", "--check"]).await["ok"], true);
    what_comes_is_followed(&stage).await;
    stage.leave_pool().await;
}

/// Changes are shown as they happen.
async fn what_comes_is_followed(stage: &Stage) {
    let data = stage.home.data();
    let mut follow = program()
        .envs(stage.home.environment())
        .args(["replay", "--follow", "--output", "json", "--data-dir", text(&data)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("a pipe")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it goes on");
        line.expect("it can be read").expect("it does not end")
    };
    // First comes the registry as it is, over several lines.
    while next().await != "}" {}
    let done = stage.json(&["task", "submit", "troupe", "--input", r#"{"do":"echo"}"#]).await;
    let task = done["id"].as_str().expect("an id");
    while !next().await.contains(task) {}
    follow.kill().await.expect("it is our child");
}

/// Changes a database as somebody does who has its file.
fn execute(file: &Path, sql: &str) -> Output {
    let program =
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()";
    Command::new("python3").args(["-c", program, text(file), sql]).output().expect("python3 runs")
}

/// What the places have where checkpoints were given to is held to what was given, and named where it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_are_gone_from_where_they_were_given_are_missed() {
    let stage = Stage::with_crew().await;
    for _ in 0..4 {
        let task = stage.submit(&json!({"do": "echo"})).await;
        stage.ended(&task).await;
        stage.hypercode(&["audit", "checkpoint", "--cut"]).await.ok();
        // Beside a platform that goes on signing nothing is missed.
        stage.hypercode(&["audit", "verify", "--offline"]).await.ok();
    }
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    let file = home.data().join("checkpoints");
    let whole = std::fs::read_to_string(&file).expect("the file");
    let notes: Vec<&str> = whole.split_inclusive("\n\n").collect();
    let notes: Vec<String> = notes.chunks(2).map(<[&str]>::concat).collect();
    assert!(notes.len() > 4 && notes.concat() == whole, "{notes:#?}");
    let faults = async |kind: &str| {
        let ran = home.hypercode(&["audit", "verify", "--offline"]).await;
        assert!(ran.code == 1 && ran.out.contains(kind), "{kind}: {ran:?}");
    };
    let last = notes.len() - 1;
    for (kind, text) in [
        ("checkpoint_missing", [&notes[..1], &notes[2..]].concat().concat()),
        ("checkpoint_missing", notes[..last].concat()),
        ("checkpoint_missing", String::new()),
        ("checkpoint_misplaced", [&notes[1..2], &notes[..1], &notes[2..]].concat().concat()),
        ("checkpoint_misplaced", whole.repeat(2)),
    ] {
        std::fs::write(&file, text).expect("written");
        faults(kind).await;
    }
    std::fs::remove_file(&file).expect("removed");
    faults("checkpoint_missing").await;
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let _ = std::fs::remove_file(home.data().join(name));
    }
    faults("ledger_missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_are_gone_from_the_database_are_missed() {
    let stage = Stage::with_crew_at(Home::on_postgres("s3cret").await).await;
    for _ in 0..3 {
        stage.ended(&stage.submit(&json!({"do": "echo"})).await).await;
        stage.hypercode(&["audit", "checkpoint", "--cut"]).await.ok();
    }
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    let verify = ["audit", "verify", "--offline"];
    home.hypercode(&verify).await.ok();
    what_is_signed_in_a_database_is_compared_from_anywhere(&home).await;
    let first = "size = (SELECT min(size) FROM hypercode_audit.checkpoints)";
    for change in [
        format!(
            "UPDATE hypercode_audit.checkpoints SET note = replace(note, 'hypercode/', 'someother/') WHERE {first}"
        ),
        format!("DELETE FROM hypercode_audit.checkpoints WHERE {first}"),
    ] {
        home.execute(&change).await;
        let ran = home.hypercode(&verify).await;
        assert!(ran.code == 1 && ran.out.contains("in the table `hypercode_audit"), "{change}: {ran:?}");
    }
    // Without a ledger the log is still held to what the database has been given.
    for name in ["audit.db", "audit.db-wal", "audit.db-shm"] {
        let _ = std::fs::remove_file(home.data().join(name));
    }
    let ran = home.hypercode(&verify).await;
    assert!(ran.code == 1 && ran.out.contains("ledger_missing"), "{ran:?}");
    assert!(!ran.out.contains("in the table"), "what is there agrees: {ran:?}");
    home.execute(&format!(
        "UPDATE hypercode_audit.checkpoints SET note = replace(note, E'\\n' || size || E'\\n', E'\\n999999\\n'), size = 999999
         WHERE {first}"
    ))
    .await;
    let ran = home.hypercode(&verify).await;
    assert!(
        ran.code == 1 && ran.out.contains("checkpoint_forged") && ran.out.contains("in the table"),
        "{ran:?}"
    );
}

/// Who has the database's URL and a key, and nothing of the node that signed.
async fn what_is_signed_in_a_database_is_compared_from_anywhere(home: &Home) {
    let keys = std::fs::read_to_string(home.data().join("checkpoint.key")).expect("a key");
    let key = keys.lines().nth(1).expect("the public key");
    let (places, elsewhere) = (home.places(), home.path("elsewhere"));
    let url = places.iter().find(|place| place.starts_with("postgres")).expect("a database");
    let verify = ["audit", "verify", url, "--data-dir", text(&elsewhere)];
    let verify_by = |key| [&verify[..], &["--key", key]].concat();
    let unsigned = home.run(&verify).await.ok();
    assert!(unsigned.starts_with("UNSIGNED"), "no key is known: {unsigned}");
    let signed = home.run(&verify_by(key)).await.ok();
    assert!(signed.starts_with("ok: events 1 to "), "{signed}");
    let stranger = events::audit::Signer::generate("hypercode/other").public().to_string();
    let ran = home.run(&verify_by(&stranger)).await;
    assert!(ran.code == 1 && ran.out.contains("log_unsigned"), "{ran:?}");
    // What another has signed here is compared by who names his key, and by nobody else.
    let other = "INSERT INTO hypercode_audit.checkpoints SELECT 'hypercode/other', size, note, 0
                 FROM hypercode_audit.checkpoints ORDER BY size LIMIT 1";
    home.execute(other).await;
    home.run(&verify_by(key)).await.ok();
    let both = [&verify_by(key)[..], &["--key", &stranger]].concat();
    home.run(&both).await.ok();
    home.execute(
        "UPDATE hypercode_audit.checkpoints SET note = replace(note, 'hypercode/', 'hypercode/x')
         WHERE origin = 'hypercode/other'",
    )
    .await;
    home.run(&verify_by(key)).await.ok();
    let ran = home.run(&both).await;
    assert!(ran.code == 1 && ran.out.contains("in the table `hypercode_audit"), "{ran:?}");
    home.execute("DELETE FROM hypercode_audit.checkpoints WHERE origin = 'hypercode/other'").await;
}

/// A witness on a port of its own: its URL and its key.
async fn witness() -> (String, String) {
    let witness = Witness::new("witness.example/w1", [7; 32]);
    let key = witness.public();
    let witness = std::sync::Arc::new(std::sync::Mutex::new(witness));
    let answer = move |asked: String| {
        let (status, body) = witness.lock().expect("nobody panics").add_checkpoint(&asked, 1_795_000_000);
        std::future::ready((StatusCode::from_u16(status).expect("a status"), body))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/add-checkpoint", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, key)
}

/// What somebody else has seen and signed is kept, verified, and missed where it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_cosigns_what_the_platform_signs() {
    let (url, key) = witness().await;
    let home = Home::new();
    let set = format!("export HYPERCODE_CHECKPOINT_WITNESS={url} HYPERCODE_CHECKPOINT_WITNESS_KEY={key}");
    let mut up = Up::spawn_after(&set, &home);
    up.ready(&Api::of(&home)).await;
    let file = |key: &str| {
        let id = key.split('+').nth(1).expect("a key has an id");
        home.data().join(format!("checkpoints.cosigned.{id}"))
    };
    let cosigned = file(&key);
    home.hypercode(&["audit", "checkpoint", "--cut"]).await.ok();
    eventually("a checkpoint is cosigned", async || {
        let kept = std::fs::read_to_string(&cosigned).ok()?;
        kept.contains("— witness.example/w1 ").then_some(())
    })
    .await;
    let doctor = home.hypercode(&["doctor", "--output", "json"]).await.json();
    let sinks =
        doctor["findings"].as_array().expect("findings").iter().find(|it| it["what"] == "checkpoint sinks");
    let sinks = sinks.expect("it says how the sinks fare");
    assert!(sinks["verdict"] == "ok" && sinks["found"].to_string().contains("witness:"), "{sinks:#}");
    let bundle = home.path("cosigned.tar");
    home.hypercode(&["audit", "export", "--out", text(&bundle)]).await.ok();
    assert!(up.stop().await.success());

    let verify = ["audit", "verify", "--offline", "--witness-key", &key];
    home.hypercode(&verify).await.ok();
    home.hypercode(&["audit", "verify", text(&bundle), "--witness-key", &key]).await.ok();
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/events/src/audit/bundle/verify.py");
    let verified = python(Path::new(program), &[text(&bundle), "--witness-key", &key]);
    assert!(verified.status.success(), "{verified:?}");
    // A file that has none is nothing that a witness has seen.
    let empty = home.path("empty");
    std::fs::write(&empty, "").expect("written");
    for against in [&verify[..], &["audit", "verify", text(&bundle), "--witness-key", &key]] {
        let said = home.hypercode(&[against, &["--against", text(&empty)]].concat()).await.refused(2);
        assert!(said.contains("no checkpoint to compare with"), "{said}");
    }
    let stranger = Witness::new("witness.example/w9", [9; 32]).public();
    let ran = home.hypercode(&["audit", "verify", text(&bundle), "--witness-key", &stranger]).await;
    assert!(ran.code == 1 && ran.out.contains("checkpoint_unwitnessed"), "{ran:?}");
    let other = Witness::new("witness.example/w1", [8; 32]).public();
    let with_other = ["audit", "verify", "--offline", "--witness-key", &other];
    let ran = home.hypercode(&with_other).await;
    assert!(ran.code == 1 && ran.out.contains("checkpoint_missing"), "there is no file of that key: {ran:?}");
    home.hypercode(&["audit", "verify", "--offline", "--witness-key", &stranger]).await.refused(4);
    std::fs::copy(&cosigned, file(&other)).expect("copied");
    let ran = home.hypercode(&with_other).await;
    assert!(ran.code == 1 && ran.out.contains("checkpoint_unwitnessed"), "{ran:?}");
    let whole = std::fs::read_to_string(&cosigned).expect("the file");
    let bare: Vec<&str> = whole.lines().filter(|line| !line.contains("witness.example")).collect();
    std::fs::write(&cosigned, bare.join("\n") + "\n").expect("written");
    let ran = home.hypercode(&verify).await;
    assert!(ran.code == 1 && ran.out.contains("checkpoint_unwitnessed"), "{ran:?}");
    // The file is gone, and the ledger says that the witness was given checkpoints.
    std::fs::remove_file(&cosigned).expect("removed");
    let ran = home.hypercode(&verify).await;
    assert!(ran.code == 1 && ran.out.contains("checkpoint_missing"), "{ran:?}");
}

/// Whatever is done that nobody outside asked for, but for the platform's own start and keys, says from what it follows, and to which command it goes back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_happens_without_a_cause() {
    let stage = Stage::with_crew().await;
    for deed in [
        json!({"do": "send", "to": "worker", "text": "hello"}),
        json!({"do": "send", "to": "lead", "text": "to itself"}),
        json!({"do": "call", "method": "state/put", "params": {"scope": "crew", "key": "k", "value": 1}}),
        json!({"do": "delegate", "to": "worker", "input": {"do": "echo"}}),
        json!({"do": "use", "tokens": 10}),
        json!({"do": "checkpoint", "chars": 10}),
    ] {
        let task = stage.submit(&deed).await;
        stage.ended(&task).await;
    }
    let crew = stage.api.list("/v1/crews").await[0]["id"].as_str().expect("an id").to_owned();
    stage.hypercode(&["crew", "disband", &crew]).await.ok();
    stage.api.crew_gone(&crew).await;
    let log = stage.home.log().await;
    let events = log.read(Position(0), 10_000).await.expect("the log can be read");
    for kind in ["message_sent", "message_denied", "state_put", "task_completed", "agent_terminated"] {
        assert!(events.iter().any(|event| &*event.kind == kind), "no {kind}");
    }
    let unexplained = events.iter().filter(|event| {
        let meta = &event.meta;
        let follows = meta.causation_id.is_some() && meta.correlation_id.is_some();
        let of_platform = event.stream.kind == EntityKind::Platform;
        let is_start = of_platform && (event.stream.id.starts_with("node.") || &*event.stream.id == "keys");
        !follows && !is_start && !meta.principal.as_str().starts_with("user:")
    });
    let unexplained: Vec<_> = unexplained
        .map(|event| format!("{} {} by {}", event.stream, event.kind, event.meta.principal))
        .collect();
    assert_eq!(unexplained, [""; 0]);
    stage.up.stop().await;
}
