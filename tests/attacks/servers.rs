//! The servers that a platform works with: whoever has its own credentials for them can neither change nor remove what happened.

use std::process::Command;
use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Event};
use nats::server::Server;
use serde_json::json;

use crate::stage::Stage;
use crate::support::{Home, Up, eventually};
use crate::told::told_without;

const ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres/roles.sql");

/// What psql says to `args` over this database: whether it was done, and its errors.
fn psql(database: &str, args: &[&str]) -> (bool, String) {
    let ran = Command::new("psql").args(["-X", "-v", "ON_ERROR_STOP=1"]).args(args).arg(database).output();
    let ran = ran.expect("psql is there");
    (ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

/// A task goes through, as before.
async fn goes_on(stage: &Stage) {
    let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": {"do": "echo"}})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_user_of_the_database_takes_nothing_back() {
    let mut home = Home::on_its_own_postgres().await;
    let owner = home.places().remove(0);
    home.hypercode(&["migrate"]).await.ok();
    let (done, said) = psql(&owner, &["-f", ROLES]);
    assert!(done, "{said}");
    let node = owner.replace("//postgres@", "//hypercode_node@");
    home.move_to(&node);
    let stage = Stage::with_crew_at(home).await;
    goes_on(&stage).await;
    let tried = [
        "UPDATE events SET payload = '{}'",
        "UPDATE events SET principal = 'user:nobody' WHERE position = 1",
        "DELETE FROM events",
        "DELETE FROM events WHERE position = 1",
        "TRUNCATE events",
        "TRUNCATE events CASCADE",
        "DROP TABLE events",
        "ALTER TABLE events ADD COLUMN forged text",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE RULE nothing AS ON INSERT TO events DO INSTEAD NOTHING",
        "DELETE FROM commands",
        "DELETE FROM head",
        "UPDATE hypercode_audit.checkpoints SET note = ''",
        "DELETE FROM hypercode_audit.checkpoints",
        "SET ROLE postgres",
    ];
    for forbidden in tried {
        let (done, said) = psql(&node, &["-c", forbidden]);
        let is_refused = said.contains("permission denied") || said.contains("must be owner");
        assert!(!done && is_refused, "{forbidden}: {said}");
    }
    goes_on(&stage).await;
    told_without(
        "T59",
        &format!("{} ways to change, delete or drop events as the platform's database user", tried.len()),
        "permission denied; the chain verifies",
        "the database refuses, and the platform does not see it",
    );
    // It verifies the chain when it has left.
    stage.leave().await;
}

/// A client of the bus, and what the server says to it unasked.
struct Intruder {
    client: Client,
    said: Arc<Mutex<Vec<String>>>,
}

impl Intruder {
    async fn at(server: &Server, user: &str) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let client = ConnectOptions::new()
            .user_and_password(user.to_owned(), user.to_owned())
            .custom_inbox_prefix(format!("_INBOX_{user}"))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    heard.lock().expect("nobody panics with it").push(error.to_string().to_lowercase());
                }
                std::future::ready(())
            })
            .connect(server.url())
            .await;
        Self { client: client.expect("it is let in"), said }
    }

    /// Waits until the server has refused this subject.
    async fn is_refused(&self, what: &str, subject: &str) {
        let expected = format!("permissions violation for {what} \"{subject}\"").to_lowercase();
        self.client.flush().await.expect("the server is there");
        eventually(&expected, async || {
            let said = self.said.lock().expect("nobody panics with it");
            said.iter().any(|said| said.contains(&expected)).then_some(())
        })
        .await;
    }

    async fn cannot_publish(&self, subject: &str) {
        let sent = self.client.publish(subject.to_owned(), r#"{"name":"x"}"#.into()).await;
        sent.expect("the client sends what it is told to");
        self.is_refused("publish to", subject).await;
    }

    async fn cannot_hear(&self, subject: &str) {
        // Held until it was refused: who lets go of it takes it back.
        let heard = self.client.subscribe(subject.to_owned()).await.expect("the client asks");
        self.is_refused("subscription to", subject).await;
        drop(heard);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_own_user_of_the_bus_takes_nothing_away() {
    let server = Server::deployed();
    let home = Home::new().on_bus(server.url_of("platform"));
    let up = Up::spawn(&home);
    let stage = Stage::of(home, up).await;
    stage.assemble(crate::stage::CREW).await.ok();
    goes_on(&stage).await;
    let everyone = [
        "$JS.API.STREAM.DELETE.HYPERCODE_EVENTS",
        "$JS.API.STREAM.PURGE.HYPERCODE_EVENTS",
        "$JS.API.STREAM.MSG.DELETE.HYPERCODE_EVENTS",
        "$JS.API.STREAM.UPDATE.HYPERCODE_EVENTS",
        "$JS.API.STREAM.RESTORE.HYPERCODE_EVENTS",
        "$JS.API.STREAM.DELETE.HYPERCODE_CHECKPOINTS",
        "$JS.API.STREAM.PURGE.HYPERCODE_CHECKPOINTS",
        "$JS.API.STREAM.CREATE.OTHERS",
        "$JS.API.ACCOUNT.PURGE.HYPERCODE",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.HYPERCODE.CONNZ",
        "elsewhere",
    ];
    let clients = [
        "hypercode.evt.default.crew.x.crew_disbanded",
        "hypercode.checkpoint.x",
        "hypercode.presence.node.x",
        "hypercode.node.x.cmd",
    ];
    let mut tried = 0;
    for (user, heard, said) in [
        ("platform", &["$SYS.>", ">", "hypercode.evt.>", "$JS.API.>"][..], &["hypercode.cmd.crew.kill"][..]),
        ("client", &["$SYS.>", ">", "hypercode.cmd.>", "_INBOX.>", "hypercode.node.*.cmd"], &clients),
    ] {
        let intruder = Intruder::at(&server, user).await;
        for subject in heard {
            intruder.cannot_hear(subject).await;
        }
        for subject in everyone.iter().chain(said) {
            intruder.cannot_publish(subject).await;
        }
        tried += heard.len() + everyone.len() + said.len();
    }
    goes_on(&stage).await;
    // All that was published is there still, and nothing else: each event lies at the number of its position.
    let observer = Intruder::at(&server, "observer").await;
    let stream = async_nats::jetstream::new(observer.client.clone());
    eventually("the stream is as long as the log", async || {
        let head = stage.api.get("/v1/log").await.ok()?.body["position"].as_u64()?;
        let state = stream.get_stream("HYPERCODE_EVENTS").await.ok()?.cached_info().state.clone();
        (state.first_sequence == 1 && state.messages == head && state.last_sequence == head).then_some(())
    })
    .await;
    told_without(
        "T60",
        &format!("{tried} subjects of the server, its streams and others, as the platform and as a client"),
        "permissions violation; the stream equals the log",
        "the server refuses, and the platform does not see it",
    );
    stage.leave().await;
}
