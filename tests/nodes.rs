//! Several nodes: real processes with one Postgres and one nats-server between them. Nodes are killed and stopped while
//! they work, and what must hold is held against the log.

#[path = "crash/history.rs"]
mod history;
#[path = "crash/laws.rs"]
#[allow(dead_code, reason = "shared with another test program")]
mod laws;
#[path = "support/support.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use events::lease::{SHARDS, shard_of};
use events::store::postgres::Postgres;
use events::store::postgres::server::Server;
use events::store::{AppendRequest, Expected, conformance};
use events::{EntityKind, EventStore as _, NewEvent, StreamId};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use history::History;
use laws::Log;
use support::{Answer, Api, Home, PATIENCE, Up, eventually, eventually_within, send};

/// Tasks that are given while a node dies.
const TASKS: usize = 500;
/// Clients that give tasks at the same time.
const CLIENTS: usize = 8;
/// How long all of them may take.
const LONG: Duration = Duration::from_secs(200);

/// Two nodes and what they share.
struct Pair {
    _bus: nats::server::Server,
    database: String,
    homes: [Home; 2],
}

impl Pair {
    async fn new() -> Self {
        let database = Server::shared().database().await;
        let bus = nats::server::Server::deployed();
        let home = || Home::of_node(&database, bus.url_of("platform"));
        Self { homes: [home(), home()], database, _bus: bus }
    }

    async fn start(&self, node: usize) -> Up {
        Up::start(&self.homes[node]).await
    }

    fn api(&self, node: usize) -> Api {
        Api::of(&self.homes[node]).with_patience(LONG)
    }

    /// The name of a node that has been started.
    fn name(&self, node: usize) -> String {
        let instance = std::fs::read_to_string(self.homes[node].data().join("instance"));
        format!("node-{}", instance.expect("a node has an instance").trim())
    }

    /// Waits until each node holds its share.
    async fn shared_out(&self) {
        eventually_within(LONG, "each node holds its share", async || {
            let held = [self.shards(0, &self.name(0)).await.len(), self.shards(0, &self.name(1)).await.len()];
            (held == [SHARDS / 2; 2]).then_some(())
        })
        .await;
    }

    /// The shards of a node, as another is told.
    async fn shards(&self, asked: usize, name: &str) -> Vec<u64> {
        let nodes = self.api(asked).insist_get("/v1/nodes").await;
        let found = nodes["items"].as_array().expect("nodes").iter().find(|node| node["id"] == name);
        let shards = found.and_then(|node| node["shards"].as_array());
        shards.into_iter().flatten().map(|shard| shard.as_u64().expect("a number")).collect()
    }

    /// Assembles crews until each node runs one; gives one of each.
    async fn crews(&self) -> [String; 2] {
        let crews = self.assembled([1, 1]).await;
        crews.map(|mut crews| crews.remove(0))
    }

    /// Assembles crews until each node runs so many.
    async fn assembled(&self, wanted: [usize; 2]) -> [Vec<String>; 2] {
        let mut crews = [Vec::new(), Vec::new()];
        for number in 0..40 {
            if (0..2).all(|node| crews[node].len() >= wanted[node]) {
                return crews;
            }
            // Whichever node is asked hands it to the one whose shard it falls into.
            let crew = assemble(&self.homes[number % 2], number).await;
            let shard = u64::from(shard_of(&crew));
            let on_first = self.shards(0, &self.name(0)).await.contains(&shard);
            crews[usize::from(!on_first)].push(crew);
        }
        panic!("forty crews do not all fall to one of two nodes")
    }

    /// Gives tasks to a crew until a file is there, and waits until its agents have them in hand.
    async fn waiting(&self, crew: &str, gate: &Path, tasks: usize) -> Vec<String> {
        let body = json!({"crew": crew, "input": {"do": "wait", "for": gate}});
        let mut given = Vec::new();
        for number in 0..tasks {
            // Asked of the node that does not run the crew.
            let done = self.api(0).insist("/v1/tasks", &body, &format!("wait-{number}-{crew}")).await.done();
            given.push(id(&done));
        }
        for task in &given {
            eventually("the task is in hand", async || {
                let found = self.api(0).insist_get(&format!("/v1/tasks/{task}")).await;
                (found["status"] == "working").then_some(())
            })
            .await;
        }
        given
    }

    /// Writes an event into a crew's stream that no version here can read; its position.
    async fn poison(&self, crew: &str) -> u64 {
        let log = Postgres::open(&self.database.parse().expect("a URL"), Default::default())
            .await
            .expect("it opens");
        let event = NewEvent { kind: "crew_paused".into(), schema: 99, payload: "{}".into() };
        let request = conformance::request(&StreamId::new(EntityKind::Crew, crew), Expected::Any, &[]);
        let appended = log.append(AppendRequest { events: vec![event], ..request }).await.expect("appended");
        log.close().await;
        appended.position.0
    }

    /// Ends the nodes and holds the laws against the log.
    async fn verify(self, ups: Vec<Up>, tasks: &[String]) {
        for up in ups {
            assert!(up.stop().await.success());
        }
        for home in &self.homes {
            home.processes_end().await;
        }
        let log = Log::read(self.homes[0].log().await).await;
        log.chain_verifies().await;
        let history = History::default();
        for task in tasks {
            history.invoked(task, None);
            history.acknowledged(task, task);
        }
        log.tasks_ended_once(&history);
    }
}

async fn assemble(home: &Home, number: usize) -> String {
    home.write("deeds/deeds.py", support::DEEDS);
    // Much patience with heartbeats: a machine that is busy with other tests must not look like a lost agent.
    let manifests = home.write(
        &format!("crew-{number}.yaml"),
        format!(
            r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {{name: worker}}
spec:
  handler: {{command: [python3, deeds.py], source: ./deeds, concurrency: 8}}
  env: {{CONCURRENCY: "8"}}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {{name: crew-{number}}}
spec:
  entry: worker
  members:
    - {{name: worker, profile: worker, replicas: 2}}
  liveness: {{heartbeat: 1s, missed: 30}}
"#
        ),
    );
    let manifests = manifests.to_str().expect("a path of a test is text");
    let done = home.hypercode(&["crew", "assemble", manifests, "--output", "json"]).await.json();
    done["id"].as_str().expect("an id").to_owned()
}

fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

/// Everything of a node but the platform itself: keepers, runners, handlers.
fn sandboxed(home: &Home) -> usize {
    home.processes().iter().filter(|process| !process.command.contains(" up --data-dir")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn tk_1_five_hundred_tasks_outlive_the_node_that_works_at_half_of_them() {
    let pair = Pair::new().await;
    let (first, mut second) = (pair.start(0).await, pair.start(1).await);
    pair.shared_out().await;
    let listed = pair.homes[1].hypercode(&["node", "list"]).await.ok();
    assert!(listed.contains(&pair.name(0)) && listed.contains("live"), "{listed}");
    let crews = pair.crews().await;
    let (accepted, is_dead) = (AtomicUsize::new(0), AtomicBool::new(false));
    let giving = join_all((0..CLIENTS).map(async |client| {
        let mut tasks = Vec::new();
        for number in (client..TASKS).step_by(CLIENTS) {
            let body = json!({
                "crew": crews[number % 2],
                "input": {"do": "echo", "text": format!("text-{number}"), "ms": 100 + number % 100},
            });
            let path = "/v1/tasks";
            let key = format!("task-{number}");
            // The clients of the node that dies go to the other, and ask there under the same key.
            let done = eventually_within(LONG, "the task is accepted", async || {
                let asked = usize::from(number % 3 == 0 && !is_dead.load(Ordering::SeqCst));
                let answer = pair.api(asked).post(path, &body, Some(&key)).await.ok();
                answer.filter(Answer::is_ok)
            });
            tasks.push(id(&done.await.done()));
            accepted.fetch_add(1, Ordering::SeqCst);
        }
        tasks
    }));
    let killing = async {
        let half = async || (accepted.load(Ordering::SeqCst) >= TASKS / 2).then_some(());
        eventually_within(LONG, "half of the tasks are given", half).await;
        second.kill().await;
        is_dead.store(true, Ordering::SeqCst);
        let killed = Instant::now();
        let all = async || (pair.shards(0, &pair.name(0)).await.len() == SHARDS).then_some(());
        eventually_within(LONG, "the other node takes over", all).await;
        let taken = killed.elapsed();
        let body = json!({"crew": crews[1], "input": {"do": "echo"}});
        let task = id(&pair.api(0).insist("/v1/tasks", &body, "after").await.done());
        pair.api(0).ended(&task).await;
        println!(
            "all shards taken over {} ms after kill -9; the first task done by its crew after {} ms",
            taken.as_millis(),
            killed.elapsed().as_millis()
        );
        task
    };
    let (given, after) = tokio::join!(giving, killing);
    let mut tasks: Vec<String> = given.into_iter().flatten().collect();
    assert_eq!(tasks.len(), TASKS);
    tasks.push(after);
    for task in &tasks {
        let ended = pair.api(0).ended(task).await;
        assert_eq!(ended["status"], "completed", "{ended:#}");
    }
    // What the dead node left runs on until it comes back and finds that nobody owns it.
    assert!(sandboxed(&pair.homes[1]) > 0);
    let second = pair.start(1).await;
    eventually("its sandboxes are removed", async || (sandboxed(&pair.homes[1]) == 0).then_some(())).await;
    pair.verify(vec![first, second], &tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tk_1_an_event_that_cannot_be_read_holds_up_nobody_else_of_the_node_that_dies() {
    let pair = Pair::new().await;
    let (first, mut second) = (pair.start(0).await, pair.start(1).await);
    pair.shared_out().await;
    let [_, crews] = pair.assembled([0, 2]).await;
    let (sound, poisoned) = (&crews[0], &crews[1]);
    let gate = pair.homes[0].path("gate");
    let tasks = pair.waiting(sound, &gate, 2).await;
    let position = pair.poison(poisoned).await;
    second.kill().await;
    std::fs::write(&gate, "").expect("the gate opens");
    let body = json!({"crew": sound, "input": {"do": "echo"}});
    let next = id(&pair.api(0).insist("/v1/tasks", &body, "after").await.done());
    for task in tasks.iter().chain([&next]) {
        assert_eq!(pair.api(0).ended(task).await["status"], "completed", "the other crew goes on");
    }
    let refused = pair.homes[0].hypercode(&["crew", "disband", poisoned]).await;
    assert!(refused.code != 0 && refused.err.contains("schema 99"), "{refused:?}");
    let status = pair.homes[0].hypercode(&["projection", "status", "--output", "json"]).await.ok();
    assert!(status.contains(&format!("event at position {position}")), "{status}");
    let ready = pair.api(0).get("/readyz").await.expect("an answer");
    assert!(ready.body.to_string().contains("upgrade this node"), "{ready:?}");
    assert!(first.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tk_2_a_node_that_stands_still_is_fenced_and_lets_go_of_what_it_lost() {
    let pair = Pair::new().await;
    let (first, second) = (pair.start(0).await, pair.start(1).await);
    pair.shared_out().await;
    let crews = pair.crews().await;
    let gate = pair.homes[0].path("gate");
    let mut tasks = pair.waiting(&crews[1], &gate, 4).await;
    send(second.pid(), Signal::SIGSTOP);
    let stopped = Instant::now();
    let all = async || (pair.shards(0, &pair.name(0)).await.len() == SHARDS).then_some(());
    eventually_within(LONG, "the other node takes over", all).await;
    println!("taken over {} ms after SIGSTOP", stopped.elapsed().as_millis());
    // The handlers of both nodes come to the end of the same tasks.
    std::fs::write(&gate, "").expect("the gate opens");
    for task in &tasks {
        let ended = pair.api(0).ended(task).await;
        assert_eq!((&ended["status"], &ended["attempts"]), (&json!("completed"), &json!(2)), "{ended:#}");
    }
    send(second.pid(), Signal::SIGCONT);
    eventually_within(2 * PATIENCE, "its sandboxes are removed", async || {
        (sandboxed(&pair.homes[1]) == 0).then_some(())
    })
    .await;
    // It works again, and knows whom to ask.
    let body = json!({"crew": crews[1], "input": {"do": "echo"}});
    let task = id(&pair.api(1).insist("/v1/tasks", &body, "after").await.done());
    assert_eq!(pair.api(1).ended(&task).await["status"], "completed");
    tasks.push(task);
    pair.verify(vec![first, second], &tasks).await;
}
