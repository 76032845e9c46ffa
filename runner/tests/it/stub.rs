//! A gateway played by the test: the link and the artifact door on a Unix socket, and a real runner at the other end.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path as UrlPath, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{net::UnixListener, process::Child, sync::mpsc, time::timeout};

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Doors {
    artifacts: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    tokens: Arc<Mutex<Vec<Option<String>>>>,
    links: mpsc::Sender<(WebSocket, Option<String>)>,
}

/// A sandbox: a directory, a runner in it, and the test as its gateway.
pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
    pub(crate) runner: Child,
    doors: Doors,
    links: mpsc::Receiver<(WebSocket, Option<String>)>,
    link: Option<WebSocket>,
    /// Frames that came while another was awaited.
    stash: VecDeque<Value>,
    /// Every frame that ever came, on any link.
    pub(crate) seen: Vec<Value>,
    /// The bearer token of the present link.
    pub(crate) token: Option<String>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("authorization")?.to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned())
}

async fn upgrade(
    State(doors): State<Doors>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> impl IntoResponse {
    upgrade.protocols(["hypercode.link.v1"]).on_upgrade(async move |socket| {
        doors.links.send((socket, bearer(&headers))).await.unwrap();
    })
}

async fn get_artifact(State(doors): State<Doors>, UrlPath(digest): UrlPath<String>) -> impl IntoResponse {
    match doors.artifacts.lock().unwrap().get(&digest) {
        Some(bytes) => Ok(bytes.clone()),
        None => Err((
            StatusCode::NOT_FOUND,
            json!({"type": "unknown_artifact", "detail": "no such artifact"}).to_string(),
        )),
    }
}

async fn put_artifact(State(doors): State<Doors>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    doors.tokens.lock().unwrap().push(bearer(&headers));
    let digest = digest(&body);
    doors.artifacts.lock().unwrap().insert(digest.clone(), body.to_vec());
    axum::Json(json!({"url": format!("artifact:{digest}"), "digest": digest, "size": body.len()}))
}

impl Sandbox {
    /// Starts a gateway and a runner, and waits for the link.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["work", "src"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let (sender, links) = mpsc::channel(4);
        let doors = Doors { artifacts: Arc::default(), tokens: Arc::default(), links: sender };
        let router = Router::new()
            .route("/link/v1", get(upgrade))
            .route("/door/artifact/{digest}", get(get_artifact))
            .route("/door/artifact", post(put_artifact))
            .layer(DefaultBodyLimit::disable())
            .with_state(doors.clone());
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let runner = tokio::process::Command::new(env!("CARGO_BIN_EXE_hypercode-runner"))
            .arg("--socket")
            .arg(dir.path().join("s"))
            .args(["--sandbox", "sb_1", "--work"])
            .arg(dir.path().join("work"))
            .args(args)
            .env("RUNNERS_OWN", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut sandbox = Self {
            dir,
            runner,
            doors,
            links,
            link: None,
            stash: VecDeque::new(),
            seen: Vec::new(),
            token: None,
        };
        let hello = sandbox.connected().await;
        assert_eq!((&hello["v"], &hello["resume"]), (&json!([1]), &Value::Null));
        sandbox.welcome(json!([])).await;
        sandbox
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work").canonicalize().unwrap()
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("src").canonicalize().unwrap()
    }

    /// Puts an executable file into the source.
    pub(crate) fn file(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.source().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Waits for a link and its `hello`, which it answers.
    pub(crate) async fn connected(&mut self) -> Value {
        let (link, token) = timeout(PATIENCE, self.links.recv()).await.expect("a link in time").unwrap();
        (self.link, self.token) = (Some(link), token);
        self.stash.clear();
        self.expect("hello").await
    }

    pub(crate) async fn welcome(&mut self, drop: Value) {
        self.send(json!({"t": "welcome", "v": 1, "linkId": "ln_1", "heartbeatMs": 50, "frameBytes": 262144,
            "standby": false, "drop": drop}))
            .await;
    }

    /// Loses the link without a goodbye.
    pub(crate) fn lose_link(&mut self) {
        self.link = None;
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        let text = Message::text(frame.to_string());
        self.link.as_mut().expect("a link").send(text).await.unwrap();
    }

    async fn receive(&mut self) -> Option<Value> {
        let link = self.link.as_mut().expect("a link");
        loop {
            match timeout(PATIENCE, link.recv()).await.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => {
                    link::parse_to_gateway(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    self.seen.push(frame.clone());
                    return Some(frame);
                }
                Some(Ok(Message::Close(_))) | None | Some(Err(_)) => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next frame of this kind that fits.
    pub(crate) async fn expect_where(&mut self, t: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let wanted = |frame: &Value| frame["t"] == t && fits(frame);
        if let Some(index) = self.stash.iter().position(wanted) {
            return self.stash.remove(index).unwrap();
        }
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < give_up {
            let Some(frame) = self.receive().await else { panic!("the link ended; seen: {:#?}", self.seen) };
            if wanted(&frame) {
                return frame;
            }
            if frame["t"] != "heartbeat" {
                self.stash.push_back(frame);
            }
        }
        panic!("no `{t}` in time; seen: {:#?}", self.seen);
    }

    pub(crate) async fn expect(&mut self, t: &str) -> Value {
        self.expect_where(t, |_| true).await
    }

    /// A call with this method.
    pub(crate) async fn expect_call(&mut self, method: &str) -> Value {
        self.expect_where("call", |frame| frame["method"] == method).await
    }

    /// The record of an oddity.
    pub(crate) async fn expect_oddity(&mut self, kind: &str) -> Value {
        self.expect_where("note", |frame| frame["method"] == "log" && frame["params"]["message"] == kind)
            .await
    }

    /// Reads until the runner closes the link.
    pub(crate) async fn expect_end_of_link(&mut self) {
        while self.receive().await.is_some() {}
    }

    /// Waits for the runner's exit.
    pub(crate) async fn expect_exit(&mut self) -> i32 {
        let status = timeout(PATIENCE, self.runner.wait()).await.expect("the runner ends in time").unwrap();
        status.code().expect("the runner exits")
    }

    /// Waits for the goodbye and the exit.
    pub(crate) async fn expect_exit_after_link(&mut self) -> i32 {
        self.expect_end_of_link().await;
        self.lose_link();
        self.expect_exit().await
    }

    /// Assigns a handler out of the source directory; `more` replaces fields of `assign`.
    pub(crate) async fn assign(&mut self, handler: Value, more: Value) {
        let mut assign = json!({"t": "assign", "id": "as_1", "handler": handler, "token": "t0ken",
            "agent": {"id": "ag_1", "crew": "c", "member": "m", "replica": 0, "incarnation": 1},
            "source": {"path": self.source()}, "liveness": {"heartbeatMs": 50, "missed": 3, "progressMs": 900000},
            "graceMs": 1000, "orphanGraceMs": 60000});
        for (field, value) in more.as_object().unwrap() {
            assign[field] = value.clone();
        }
        self.send(assign).await;
    }

    /// Assigns a Python handler that speaks JSON-RPC on stdio, and waits until it is ready.
    pub(crate) async fn python(&mut self, body: &str) -> Value {
        self.file("handler.py", &format!("{PYTHON}\n{body}"));
        self.assign(json!({"protocol": "stdio", "command": ["python3", "handler.py"]}), json!({})).await;
        self.expect("ready").await
    }

    pub(crate) async fn task(&mut self, task: &str, input: Value) {
        self.task_attempt(task, 1, input).await;
    }

    pub(crate) async fn task_attempt(&mut self, task: &str, attempt: u32, input: Value) {
        let params = json!({"taskId": task, "attempt": attempt, "contextId": "cx_1", "input": input,
            "from": {"kind": "principal", "name": "user:ada"}, "timeoutMs": 60000});
        self.send(json!({"t": "task", "id": format!("f_{task}_{attempt}"), "attempt": attempt, "fence": attempt, "params": params}))
            .await;
    }

    /// The result of a task, acknowledged.
    pub(crate) async fn result(&mut self, task: &str) -> Value {
        let result = self.expect_where("task.result", |frame| frame["taskId"] == task).await;
        self.send(json!({"t": "ack", "re": result["id"]})).await;
        result
    }

    pub(crate) fn artifact(&self, digest: &str) -> Option<Vec<u8>> {
        self.doors.artifacts.lock().unwrap().get(digest).cloned()
    }

    pub(crate) fn store(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.doors.artifacts.lock().unwrap().insert(digest.clone(), bytes.to_vec());
        format!("artifact:{digest}")
    }

    /// The bearer tokens with which artifacts were stored.
    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.doors.tokens.lock().unwrap().clone()
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < give_up, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there, dead ones that nobody has taken note of not counted.
pub(crate) fn lives(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The number that a handler wrote into a file.
pub(crate) async fn number_in(path: &Path) -> i64 {
    let read = || std::fs::read_to_string(path).ok()?.trim().parse().ok();
    until("the handler wrote its file", || read().is_some()).await;
    read().unwrap()
}

/// What Python handlers begin with: `serve(table)` answers each request by the function of its method's name.
pub(crate) const PYTHON: &str = r#"
import json, os, sys, threading, time, signal

def write(frame):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
    sys.stdout.flush()

def read():
    line = sys.stdin.readline()
    return json.loads(line) if line else None

def call(method, params, id="h1"):
    write({"id": id, "method": method, "params": params})
    while True:
        frame = read()
        if frame.get("id") == id and "method" not in frame:
            return frame

def serve(table):
    while (frame := read()) is not None:
        method, params = frame.get("method"), frame.get("params")
        if method is None:
            continue
        if method in table:
            result = table[method](params)
        elif "id" in frame and method == "initialize":
            result = {}
        elif "id" in frame and method == "shutdown":
            write({"id": frame["id"], "result": {}})
            sys.exit(0)
        else:
            if "id" in frame:
                write({"id": frame["id"], "error": {"code": -32601, "message": "no such method"}})
            continue
        if "id" in frame and result is not None:
            write({"id": frame["id"], "result": result})
"#;
