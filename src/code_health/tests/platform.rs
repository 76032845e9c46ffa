//! A platform in a few hundred lines: runs handlers over pipes, keeps artifacts and checkpoints, restarts what it kills.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, PipeWriter, Write, pipe};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::code_health::{Analyst, Editor, Scout};
use crate::handler_kit::serve;

/// What is known, and what shall go wrong; tasks go by the keys under which they were delegated.
#[derive(Default)]
struct State {
    artifacts: HashMap<String, Vec<u8>>,
    pieces: HashSet<String>,
    checkpoints: HashMap<String, Value>,
    messages: Vec<Value>,
    progress: HashMap<String, Vec<String>>,
    inputs: HashMap<String, Vec<Value>>,
    attempts: HashMap<String, usize>,
    /// After how many checkpoints each next attempt is killed.
    kills: HashMap<String, Vec<usize>>,
    loses_artifacts: bool,
    on_kill: Option<Box<dyn Fn() + Send>>,
    failures: HashMap<String, String>,
    refused_delegations: usize,
    refused_methods: HashSet<String>,
}

#[derive(Clone, Default)]
pub(super) struct Platform(Arc<Mutex<State>>);

/// How a task ended: the result or the error of its last attempt, with its artifacts.
pub(super) struct Done {
    outcome: Value,
    artifacts: Vec<Value>,
}

impl Done {
    pub(super) fn text(&self) -> String {
        self.outcome["result"]["output"]["parts"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", self.outcome))
            .to_owned()
    }

    pub(super) fn state(&self) -> &str {
        self.outcome["result"]["state"].as_str().unwrap_or_else(|| panic!("{}", self.outcome))
    }

    pub(super) fn error(&self) -> String {
        self.outcome["error"]["message"].as_str().unwrap_or_else(|| panic!("{}", self.outcome)).to_owned()
    }
}

impl Platform {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    pub(super) fn kill_after_checkpoints(&self, key: &str, counts: &[usize]) {
        self.state().kills.insert(key.to_owned(), counts.to_vec());
    }

    pub(super) fn lose_artifacts_of_killed(&self) {
        self.state().loses_artifacts = true;
    }

    pub(super) fn on_kill(&self, act: impl Fn() + Send + 'static) {
        self.state().on_kill = Some(Box::new(act));
    }

    pub(super) fn fail(&self, key: &str, message: &str) {
        self.state().failures.insert(key.to_owned(), message.to_owned());
    }

    pub(super) fn refuse_delegations(&self, count: usize) {
        self.state().refused_delegations = count;
    }

    pub(super) fn refuse(&self, method: &str) {
        self.state().refused_methods.insert(method.to_owned());
    }

    pub(super) fn messages(&self) -> Vec<Value> {
        self.state().messages.clone()
    }

    pub(super) fn progress(&self, key: &str) -> Vec<String> {
        self.state().progress.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn inputs(&self, key: &str) -> Vec<Value> {
        self.state().inputs.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn attempts(&self, key: &str) -> usize {
        self.state().attempts.get(key).copied().unwrap_or_default()
    }

    pub(super) fn artifact(&self, done: &Done, name: &str) -> Vec<u8> {
        let artifact = done.artifacts.iter().find(|artifact| artifact["name"] == name).expect("an artifact");
        self.state().artifacts[artifact["url"].as_str().expect("a url")].clone()
    }

    fn store(&self, bytes: Vec<u8>) -> String {
        let url = format!("artifact:sha256:{}", hex::encode(Sha256::digest(&bytes)));
        self.state().artifacts.insert(url.clone(), bytes);
        url
    }

    /// Runs a task to its end, with a new handler and a new directory for each attempt.
    pub(super) fn run(&self, member: &str, key: &str, input: &Value) -> Done {
        self.state().inputs.entry(key.to_owned()).or_default().push(input.clone());
        loop {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir(dir.path().join("in")).expect("a directory");
            for part in input["parts"].as_array().into_iter().flatten() {
                if let (Some(name), Some(url)) = (part["filename"].as_str(), part["url"].as_str()) {
                    fs::write(dir.path().join("in").join(name), &self.state().artifacts[url])
                        .expect("a file");
                }
            }
            *self.state().attempts.entry(key.to_owned()).or_default() += 1;
            if let Some(outcome) = self.attempt(member, key, input, dir.path()) {
                let mut artifacts = Vec::new();
                for file in fs::read_dir(dir.path().join("out")).into_iter().flatten() {
                    let file = file.expect("a file");
                    let url = self.store(fs::read(file.path()).expect("a file"));
                    artifacts.push(json!({"name": file.file_name().to_string_lossy(), "url": url}));
                }
                return Done { outcome, artifacts };
            }
        }
    }

    /// Runs one attempt; none if it was killed.
    fn attempt(&self, member: &str, key: &str, input: &Value, dir: &Path) -> Option<Value> {
        let (their_input, to) = pipe().expect("a pipe");
        let (from, their_output) = pipe().expect("a pipe");
        let member = member.to_owned();
        let server = thread::spawn(move || {
            let input = BufReader::new(their_input);
            match member.as_str() {
                "scout" => serve(Scout, input, their_output),
                "analyst" => serve(Analyst::with_pace(Duration::ZERO), input, their_output),
                _ => serve(Editor, input, their_output),
            }
        });
        let to = Arc::new(Mutex::new(Some(to)));
        let mut params = json!({"taskId": key, "attempt": 1, "contextId": "cx", "input": input, "dir": dir,
            "from": {"kind": "principal", "name": "user:a"}});
        if let Some(checkpoint) = self.state().checkpoints.get(key) {
            params["checkpoint"] = checkpoint.clone();
        }
        write(&to, &json!({"jsonrpc": "2.0", "id": "x", "method": "task/execute", "params": params}));
        let mut checkpoints = 0;
        let mut outcome = None;
        for line in BufReader::new(from).lines() {
            let line: Value = serde_json::from_str(&line.expect("a line")).expect("a line of JSON");
            if line["id"] == "x" {
                outcome = Some(line);
                break;
            }
            if line["method"] == "task/checkpoint" {
                checkpoints += 1;
            }
            self.serve(key, line, &to);
            if self.is_time_to_kill(key, checkpoints) {
                break;
            }
        }
        *to.lock().expect("no panic") = None;
        server.join().expect("no panic").expect("an end");
        outcome
    }

    fn is_time_to_kill(&self, key: &str, checkpoints: usize) -> bool {
        let mut state = self.state();
        let due = state.kills.get(key).and_then(|counts| counts.first()) == Some(&checkpoints);
        if due {
            state.kills.get_mut(key).expect("a kill").remove(0);
            if let Some(act) = &state.on_kill {
                act();
            }
            if state.loses_artifacts {
                let pieces = std::mem::take(&mut state.pieces);
                state.artifacts.retain(|url, _| !pieces.contains(url));
            }
        }
        due
    }

    fn serve(&self, key: &str, line: Value, to: &Arc<Mutex<Option<PipeWriter>>>) {
        let params = line["params"].clone();
        let method = line["method"].as_str().unwrap_or_default().to_owned();
        if self.state().refused_methods.contains(&method) {
            return respond(to, &line["id"], Err(json!({"code": 503, "message": "refused"})));
        }
        let result = match method.as_str() {
            "task/progress" => {
                let message = params["message"].as_str().expect("words").to_owned();
                self.state().progress.entry(key.to_owned()).or_default().push(message);
                return;
            }
            "log" => return,
            "task/delegate" => {
                let (platform, to) = (self.clone(), Arc::clone(to));
                // A child outlives a parent that is killed; its answer then goes nowhere.
                thread::spawn(move || respond(&to, &line["id"], platform.delegated(&params)));
                return;
            }
            "task/checkpoint" => {
                self.state().checkpoints.insert(key.to_owned(), params["data"].clone());
                json!({"position": 1})
            }
            "message/send" => {
                self.state().messages.push(params);
                json!({"messageId": "m", "position": 1, "recipients": 1})
            }
            "artifact/put" => {
                let bytes = fs::read(params["path"].as_str().expect("a path")).expect("a file");
                let size = bytes.len();
                let url = self.store(bytes);
                self.state().pieces.insert(url.clone());
                json!({"url": url, "digest": url.trim_start_matches("artifact:"), "size": size})
            }
            "artifact/get" => match self.state().artifacts.get(params["url"].as_str().expect("a url")) {
                Some(bytes) => {
                    fs::write(params["path"].as_str().expect("a path"), bytes).expect("a write");
                    json!({"path": params["path"], "size": bytes.len()})
                }
                None => {
                    return respond(
                        to,
                        &line["id"],
                        Err(json!({"code": 404, "message": "no such artifact"})),
                    );
                }
            },
            other => panic!("unexpected {other}"),
        };
        respond(to, &line["id"], Ok(result));
    }

    fn delegated(&self, params: &Value) -> Result<Value, Value> {
        {
            let mut state = self.state();
            if state.refused_delegations > 0 {
                state.refused_delegations -= 1;
                return Err(json!({"code": 429, "message": "too fast", "data": {"retryAfterMs": 1}}));
            }
        }
        let key = params["key"].as_str().expect("a key");
        let failure = self.state().failures.get(key).cloned();
        if let Some(message) = failure {
            return Ok(json!({"taskId": key, "state": "failed", "error": {"code": 500, "message": message}}));
        }
        let done = self.run(params["to"].as_str().expect("a member"), key, &params["input"]);
        Ok(match done.outcome.get("error") {
            Some(error) => json!({"taskId": key, "state": "failed", "error": error}),
            None => {
                let result = &done.outcome["result"];
                let output = result["output"].clone();
                json!({"taskId": key, "state": result["state"], "output": output, "artifacts": done.artifacts})
            }
        })
    }
}

fn respond(to: &Mutex<Option<PipeWriter>>, id: &Value, outcome: Result<Value, Value>) {
    let line = match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    };
    write(to, &line);
}

fn write(to: &Mutex<Option<PipeWriter>>, line: &Value) {
    if let Some(to) = to.lock().expect("no panic").as_mut() {
        // A handler that has ended reads no more.
        let _ = to.write_all(format!("{line}\n").as_bytes());
    }
}
