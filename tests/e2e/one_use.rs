//! One use, always: whatever an agent leaves behind, no later one finds any of it, in any kind of sandbox.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use events::Position;
use events::domain::{DomainEvent, agent, pool};
use serde_json::{Value, json};

use crate::docker;
use crate::stage::{IMAGE, Stage};
use crate::support::eventually;

/// How many agents follow each other; `HYPERCODE_ONE_USE_CYCLES` has more of them.
const CYCLES: usize = 25;
/// The same in containers, of which each takes a few tenths of a second.
const CONTAINER_CYCLES: usize = 6;

const MANIFESTS: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: canary}
spec:
  handler: {protocol: exec, command: [python3, canary.py], source: ./canary, stdout: json}
  env: {ISOLATED: "@ISOLATED@"}@IMAGE@
---
apiVersion: hypercode.dev/v1
kind: Pool
metadata: {name: small}
spec:
  size: {min: 0, max: 10, target: 2}@IMAGE@
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: mine}
spec:
  entry: canary
  members:
    - {name: canary, profile: canary}
  sandbox: {pool: small}
"#;

/// Says which marks and which processes of others it found, makes its own mark wherever it can write, and leaves a daemon
/// behind.
const CANARY: &str = r#"
import glob, json, os, subprocess, uuid

is_isolated = os.environ["ISOLATED"] == "yes"
places = {os.environ.get(name) for name in ("HYPERCODE_WORK", "HOME", "TMPDIR")} - {None}
if is_isolated:
    places |= {"/tmp", "/var/tmp", "/dev/shm", "/run", "/dev", "/etc", "/usr/local", "/"}
found = sorted(place for place in places if os.path.exists(place + "/mark"))
marked = []
for place in sorted(places):
    try:
        with open(place + "/mark", "w") as mark:
            mark.write("mark")
        marked.append(place)
    except OSError:
        pass

def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip()
    except OSError:
        return ""

own = {1, os.getpid(), os.getppid()}
pids = {int(path.rsplit("/")[-1]) for path in glob.glob("/proc/[0-9]*")} - own if is_isolated else set()
foreign = [line for line in map(command, sorted(pids)) if line and not line.startswith("hypercode-")]
daemon = subprocess.Popen(["sleep", "86400"], start_new_session=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps({"found": found, "marked": marked, "foreign": foreign, "random": os.urandom(16).hex(),
                  "uuid": [str(uuid.uuid4()), open("/proc/sys/kernel/random/uuid").read().strip()],
                  "daemon": daemon.pid}))
"#;

/// In plain processes, which share the machine with each other.
#[tokio::test(flavor = "multi_thread")]
async fn sb_1_nothing_of_a_process_is_met_again() {
    let stage = Stage::empty().await;
    let ended = async |stage: &Stage, seen: &Value| {
        let daemon = i32::try_from(seen["daemon"].as_i64().expect("a process id")).expect("a process id");
        eventually("the end of what it left running", async || {
            stage.home.processes().iter().all(|process| process.pid != daemon).then_some(())
        })
        .await;
    };
    nothing_is_met_again(stage, "no", None, CYCLES, ended).await;
}

/// In sandboxes made of namespaces.
#[tokio::test(flavor = "multi_thread")]
async fn sb_1_nothing_of_a_native_sandbox_is_met_again() {
    let Some(stage) = Stage::native().await else { return };
    nothing_is_met_again(stage, "yes", None, CYCLES, async |_, _| ()).await;
}

/// In containers; the log and the daemon agree on every one that was ever made.
#[tokio::test(flavor = "multi_thread")]
async fn sb_1_nothing_of_a_container_is_met_again() {
    let Some(stage) = Stage::in_containers().await else { return };
    nothing_is_met_again(stage, "yes", Some(IMAGE), CONTAINER_CYCLES, async |_, _| ()).await;
}

async fn nothing_is_met_again(
    stage: Stage,
    isolated: &str,
    image: Option<&str>,
    cycles: usize,
    ended: impl AsyncFn(&Stage, &Value),
) {
    let more = std::env::var("HYPERCODE_ONE_USE_CYCLES").ok().and_then(|text| text.parse().ok());
    let cycles: usize = more.unwrap_or(cycles);
    let witness = image.map(|_| Witness::of(&stage));
    stage.home.write("canary/canary.py", CANARY);
    let image = image.map(|image| format!("\n  image: {image}")).unwrap_or_default();
    let manifests = MANIFESTS.replace("@ISOLATED@", isolated).replace("@IMAGE@", &image);
    let file = stage.home.write("crew.yaml", manifests).to_str().expect("text").to_owned();
    stage.hypercode(&["profile", "apply", &file]).await.ok();
    stage.hypercode(&["pool", "apply", &file]).await.ok();
    let (mut sandboxes, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for cycle in 0..cycles {
        stage.pool("something stands by", |pool| pool["ready"].as_u64() > Some(0)).await;
        let crew = stage.json(&["crew", "assemble", &file]).await;
        let crew = crew["id"].as_str().expect("an id").to_owned();
        let agents = stage.api.list(&format!("/v1/agents?crew={crew}")).await;
        let sandbox = agents[0]["sandbox"].as_str().expect("a sandbox").to_owned();
        let task = stage.json(&["task", "submit", "mine", "--input", "\"look\""]).await;
        let done = stage.ended(task["id"].as_str().expect("an id")).await;
        let seen = &done["output"]["parts"][0]["data"];
        assert_eq!((&seen["found"], &seen["foreign"]), (&json!([]), &json!([])), "cycle {cycle}: {done:#}");
        assert!(!seen["marked"].as_array().expect("places").is_empty(), "cycle {cycle}: {done:#}");
        assert!(sandboxes.insert(sandbox), "cycle {cycle}: a sandbox was met twice");
        for number in [&seen["random"], &seen["uuid"][0], &seen["uuid"][1]] {
            assert!(numbers.insert(number.to_string()), "cycle {cycle}: {number} was met twice");
        }
        stage.hypercode(&["crew", "disband", &crew]).await.ok();
        ended(&stage, seen).await;
    }
    stage.hypercode(&["pool", "drain", "small"]).await.ok();
    let pool = stage.pool("empty", |pool| pool["created"] == pool["destroyed"]).await;
    let (claims, cold) = (&pool["claims"], &pool["live"]["cold"]);
    assert_eq!((claims, cold), (&json!(cycles), &json!(0)), "every agent claimed what stood by: {pool:#}");
    let recorded = recorded(&stage).await;
    assert!(sandboxes.is_subset(&recorded), "{sandboxes:?} of {recorded:?}");
    assert_eq!(recorded.len() as u64, pool["created"].as_u64().expect("a count"), "all were the pool's");
    if let Some(witness) = witness {
        witness.agrees(&recorded).await;
    }
    stage.leave().await;
}

/// Every sandbox that the log knows of.
async fn recorded(stage: &Stage) -> BTreeSet<String> {
    let log = stage.home.log().await;
    let (mut found, mut after) = (BTreeSet::new(), Position(0));
    loop {
        let batch = log.read(after, 1_000).await.expect("the log can be read");
        let Some(last) = batch.last() else { return found };
        after = last.position;
        for event in &batch {
            if let Ok(pool::Event::Requested(requested)) =
                DomainEvent::decode(&event.kind, event.schema, &event.payload)
            {
                found.insert(requested.sandbox.to_string());
            }
            if let Ok(agent::Event::SandboxClaimed(claimed)) =
                DomainEvent::decode(&event.kind, event.schema, &event.payload)
            {
                found.insert(claimed.sandbox.to_string());
            }
        }
    }
}

/// What the daemon says of every container of a platform, from now on: it remembers only the last few hundred events.
struct Witness {
    events: Child,
    said: std::path::PathBuf,
    instance: String,
}

impl Witness {
    fn of(stage: &Stage) -> Self {
        let said = stage.home.path("containers");
        let instance = std::fs::read_to_string(stage.home.path("data/instance")).expect("an instance");
        let instance = format!("label=hypercode.instance={}", instance.trim());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().to_string();
        let format = "{{.Action}} {{index .Actor.Attributes \"hypercode.sandbox\"}}";
        let events = Command::new("docker")
            .args([
                "events",
                "--since",
                &since,
                "--filter",
                "type=container",
                "--filter",
                &instance,
                "--format",
                format,
            ])
            .stdout(File::create(&said).expect("a file"))
            .stdin(Stdio::null())
            .spawn()
            .expect("docker");
        Self { events, said, instance }
    }

    /// The daemon and the log agree on what was made, and all of it is gone.
    async fn agrees(self, recorded: &BTreeSet<String>) {
        let of = |said: &str, action: &str| -> BTreeSet<String> {
            let lines = said.lines().filter_map(|line| line.split_once(' '));
            // The canary that proves the isolation when the platform starts is none of an agent's.
            let meant = lines.filter(|(what, sandbox)| *what == action && sandbox.starts_with("sb-"));
            meant.map(|(_, sandbox)| sandbox.to_owned()).collect()
        };
        eventually("the daemon says the same of what was made and of what is gone", async || {
            let said = std::fs::read_to_string(&self.said).expect("what it said");
            (of(&said, "create") == *recorded && of(&said, "destroy") == *recorded).then_some(())
        })
        .await;
        assert_eq!(docker::containers(&self.instance), Vec::<String>::new());
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}
