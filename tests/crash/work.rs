//! The work that goes on while the platform is killed: tasks of all kinds, each given under its own key until it is
//! accepted, some of them called off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::history::History;
use crate::support::{self, Api, Home, eventually_within, is_passing};

/// Clients that give tasks at the same time.
const CLIENTS: u64 = 4;
/// Of ten tasks the one whose client asks once and then gives up, whatever became of it.
const ASKED_ONCE: u64 = 3;
/// The least time that a task takes, in milliseconds.
const LEAST_MS: u64 = 20;

/// What a task is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A handler on standard input and output does it.
    Echo,
    /// One member has another do it.
    Delegate,
    /// A process of its own does it.
    Tool,
    /// It fails.
    Fail,
    /// It is called off as soon as it is accepted.
    Cancel,
}

impl Deed {
    fn of(number: u64) -> Self {
        match number % 10 {
            0..4 => Self::Echo,
            4 | 5 => Self::Delegate,
            6 | 7 => Self::Tool,
            8 => Self::Fail,
            _ => Self::Cancel,
        }
    }

    /// Whether a task of this kind may end in this state.
    pub(crate) fn may_end(self, status: &str) -> bool {
        match self {
            Self::Echo | Self::Delegate | Self::Tool => status == "completed",
            Self::Fail => status == "failed",
            Self::Cancel => matches!(status, "canceled" | "completed"),
        }
    }

    fn task(self, crew: &str, text: &str, ms: u64) -> Value {
        let echo = json!({"do": "echo", "text": text, "ms": ms});
        let (to, input) = match self {
            Self::Echo | Self::Cancel => ("worker", echo),
            Self::Delegate => ("lead", json!({"do": "delegate", "to": "worker", "input": echo})),
            Self::Tool => ("tool", json!(text)),
            Self::Fail => ("worker", json!({"do": "fail"})),
        };
        json!({"crew": crew, "to": to, "input": input})
    }
}

/// A task that the platform has accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) deed: Deed,
    /// What its output must have in it.
    pub(crate) text: String,
}

/// Assembles the crew; gives its id.
pub(crate) async fn assemble(home: &Home) -> String {
    let diary = home.diary_file();
    let diary = diary.display();
    // Much patience with heartbeats: a machine that is busy with other tests must not look like a lost agent.
    home.write("deeds/deeds.py", support::DEEDS);
    let manifests = home.write(
        "crew.yaml",
        format!(
            r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {{name: worker}}
spec:
  handler: {{command: [python3, deeds.py], source: ./deeds, concurrency: 4}}
  env: {{CONCURRENCY: "4", DIARY: "{diary}"}}
---
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {{name: tool}}
spec:
  handler: {{protocol: exec, command: [sh, -c, "sleep 0.05; cat"]}}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {{name: crash}}
spec:
  entry: lead
  members:
    - {{name: lead, profile: worker}}
    - {{name: worker, profile: worker, replicas: 2}}
    - {{name: tool, profile: tool}}
  channels:
    - {{from: lead, to: worker, kinds: [task]}}
    - {{from: lead, to: tool, kinds: [task]}}
  liveness: {{heartbeat: 1s, missed: 30}}
"#
        ),
    );
    let manifests = manifests.to_str().expect("a path of a test is text");
    let done = home.hypercode(&["crew", "assemble", manifests, "--output", "json"]).await.json();
    done["id"].as_str().expect("an id").to_owned()
}

/// The clients, and how far they may go.
pub(crate) struct Work {
    api: Api,
    crew: String,
    history: History,
    /// What may be given now.
    released: Semaphore,
    accepted: AtomicU64,
}

impl Work {
    pub(crate) fn new(api: &Api, crew: &str) -> Self {
        Self {
            api: api.clone(),
            crew: crew.to_owned(),
            history: History::default(),
            released: Semaphore::new(0),
            accepted: AtomicU64::new(0),
        }
    }

    /// Lets the clients give so many more.
    pub(crate) fn release(&self, tasks: u64) {
        self.released.add_permits(usize::try_from(tasks).expect("a small number"));
    }

    /// What was asked for and what was answered.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// How many are accepted by now.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Gives `tasks` tasks as they are released, until all are accepted but those whose clients ask once; each is a task of
    /// its own.
    pub(crate) async fn give(&self, tasks: u64) -> Vec<Accepted> {
        let accepted: Vec<Accepted> = join_all((0..CLIENTS).map(|client| self.client(client, tasks)))
            .await
            .into_iter()
            .flatten()
            .collect();
        let mut by_id = BTreeMap::new();
        for task in &accepted {
            if let Some(other) = by_id.insert(&task.id, task) {
                panic!("two keys gave one task: {task:?} and {other:?}");
            }
        }
        accepted
    }

    async fn client(&self, client: u64, tasks: u64) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        for number in (0..tasks).filter(|number| number % CLIENTS == client) {
            self.released.acquire().await.expect("it is never closed").forget();
            if let Some(task) = self.give_one(number).await {
                accepted.push(task);
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
        }
        accepted
    }

    async fn give_one(&self, number: u64) -> Option<Accepted> {
        let (deed, text) = (Deed::of(number), format!("text-{number}-"));
        let body = deed.task(&self.crew, &text, LEAST_MS + number * 37 % 400);
        let key = format!("task-{number}");
        let id = match number % 10 == ASKED_ONCE {
            true => self.ask(&body, &key, Some(&text)).await?,
            false => {
                let what = format!("an answer to {key}");
                eventually_within(self.api.patience(), &what, || self.ask(&body, &key, None)).await
            }
        };
        if deed == Deed::Cancel {
            let path = format!("/v1/tasks/{id}/cancel");
            let answer = self.api.insist(&path, &json!({}), &format!("cancel-{number}")).await;
            // It may have been done before it was called off.
            assert!(answer.is_ok() || answer.status == 409, "{answer:?}");
        }
        Some(Accepted { id, deed, text })
    }

    /// Asks for a task once, and keeps what becomes of it in the history; `None` where nobody can say.
    async fn ask(&self, body: &Value, key: &str, only_text: Option<&str>) -> Option<String> {
        self.history.invoked(key, only_text);
        let answer = self.api.post("/v1/tasks", body, Some(key)).await.ok()?;
        if is_passing(&answer) {
            return None;
        }
        let id = answer.done()["id"].as_str().expect("an id").to_owned();
        self.history.acknowledged(key, &id);
        Some(id)
    }
}
