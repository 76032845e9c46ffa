//! Agents in containers: what an image brings, what a daemon does other than it was asked, and tokens of runners that come over a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::links::{hello, upgrade};
use crate::stage::{Stage, ready};
use crate::support::containers::{
    DAEMON, ECHO, Image, PYTHON, containers_of, crew, docker, inspected, is_available, with_images,
};
use crate::support::{Home, eventually};
use crate::told::{head, recorded, says, text, told};

/// A token may lie there for no longer than a container takes to start.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A platform over this home; none, and a line, without a daemon.
async fn stage(home: Home) -> Option<Stage> {
    if !is_available() {
        return None;
    }
    with_images(&home).await;
    Some(Stage::over(home).await)
}

/// The position at which the log tells of this tampering, and of which sandbox.
async fn tampered(stage: &Stage, after: u64, what: &str) -> (u64, Value) {
    let position = recorded(stage, after, "sandbox_tampered", |event| says(event, what)).await;
    (position, stage.json(&["audit", "show", &position.to_string()]).await)
}

/// What a program in a sandbox says of itself, of the image's files and of what the image asked for.
const LOOK: &str = r"
import json, os, subprocess
root = subprocess.run(['/usr/bin/root-id', '-u'], capture_output=True, text=True).stdout.strip()
data = [line.split()[2] for line in open('/proc/mounts') if line.split()[1] == '/data']
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(json.dumps({'uid': os.getuid(), 'root': root, 'data': data, 'preload': 'LD_PRELOAD' in os.environ,
                  'capabilities': status['CapBnd'].strip(), 'checked': os.path.exists('/tmp/checked')}))
";

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_asks_for_changes_nothing() {
    let Some(stage) = stage(Home::in_containers()).await else { return };
    stage.home.write("context/look.py", LOOK);
    let lines = [
        "FROM hypercode/python",
        "USER 0",
        "RUN cp /usr/bin/id /usr/bin/root-id && chmod 4755 /usr/bin/root-id && mkdir /data",
        "COPY look.py /app/look.py",
        "VOLUME /data",
        "ENV LD_PRELOAD=/nonexistent.so PYTHONSTARTUP=/data/x",
        "HEALTHCHECK --interval=1s CMD touch /tmp/checked",
        "ENTRYPOINT [\"/bin/false\"]",
        "CMD [\"--privileged\"]",
    ];
    let image = Image::build(&stage.home, "hostile", &lines.join("\n"));
    let after = head(&stage).await;
    let handler = "{protocol: exec, command: [python3, /app/look.py]}";
    stage.assemble(&crew("hostile", &image.0, handler)).await.ok();
    let agent = ready(&stage, 1).await;
    let task = stage.json(&["task", "submit", "hostile", "look around"]).await;
    let ended = stage.ended(text(&task, "id")).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let said = text(&ended["output"]["parts"][0], "text");
    let said: Value = serde_json::from_str(said.trim()).expect("JSON");
    let expected = json!({"uid": 10001, "root": "10001", "data": ["tmpfs"], "preload": false,
        "capabilities": "0000000000000000", "checked": false});
    assert_eq!(said, expected);
    let format = "{{.Config.User}} {{json .Config.Healthcheck.Test}} {{.HostConfig.Privileged}} {{.HostConfig.NetworkMode}}";
    assert_eq!(inspected(&stage.home, format), ["10001:10001 [\"NONE\"] false none"]);
    assert!(!inspected(&stage.home, "{{json .Config.Entrypoint}}")[0].contains("/bin/false"));
    let volumes =
        docker(&["inspect", "--format", "{{range .Mounts}}{{.Type}} {{end}}", text(&agent, "container")]);
    assert!(!volumes.contains("volume"), "{volumes}");
    let position = recorded(&stage, after, "profile_applied", |_| true).await;
    told(
        "T31",
        "an image with VOLUME, ENTRYPOINT, CMD, USER 0, HEALTHCHECK, LD_PRELOAD and a set-user-id program",
        "the platform's own settings hold",
        position,
    );
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_what_it_was_when_its_profile_was_applied() {
    let Some(stage) = stage(Home::in_containers()).await else { return };
    stage.home.write("context/version", "1");
    let dockerfile = "FROM hypercode/python\nCOPY version .\n";
    let image = Image::build(&stage.home, "pinned", dockerfile);
    let first = image.id();
    let manifest = crew("pinned", &image.0, "{protocol: exec, command: [cat, /app/version]}");
    let (profile, alone) = manifest.split_once("---").expect("two documents");
    let profile = stage.home.write("profile.yaml", profile);
    let profile = profile.to_str().expect("text").to_owned();
    stage.hypercode(&["profile", "apply", &profile]).await.ok();
    let position = recorded(&stage, 0, "profile_applied", |_| true).await;
    stage.home.write("context/version", "2");
    let moved = Image::build(&stage.home, "pinned", dockerfile);
    let second = moved.id();
    assert_ne!(first, second);

    stage.assemble(alone).await.ok();
    assert_eq!(inspected(&stage.home, "{{.Image}}"), std::slice::from_ref(&first));
    assert_eq!(stage.json(&["profile", "show", "pinned"]).await["image"], first);
    let agent = ready(&stage, 1).await["id"].as_str().expect("an id").to_owned();
    stage.hypercode(&["agent", "restart", &agent]).await.ok();
    assert_eq!(ready(&stage, 2).await["image"], first, "restarted, it is the same");

    stage.hypercode(&["profile", "apply", &profile]).await.ok();
    let applied = stage.json(&["profile", "show", "pinned"]).await;
    assert_eq!((&applied["version"], &applied["image"]), (&Value::from(2), &Value::from(second)));
    let unknown = manifest.replace(&image.0, "hypercode-tests/unknown:1");
    let said = stage.assemble(&unknown).await.refused(2);
    assert!(said.contains("`spec.image`") && said.contains("hypercode-tests/unknown:1"), "{said}");
    told(
        "T31",
        "to move an image's name after its profile was applied",
        "agents are made of what was applied",
        position,
    );
    stage.leave().await;
}

/// What stands between the platform and the daemon, and asks the daemon for something else than the platform did: for the
/// host's network.
struct Proxy {
    socket: PathBuf,
    meddles: Arc<AtomicBool>,
}

/// As long as what is asked for, so that the length in the request holds.
const ASKED: &[u8] = br#""NetworkMode":"none""#;
const GIVEN: &[u8] = br#""NetworkMode":"host""#;

impl Proxy {
    fn start(directory: &Path) -> Self {
        let (socket, meddles) = (directory.join("docker.sock"), Arc::new(AtomicBool::new(false)));
        let listener = UnixListener::bind(&socket).expect("a socket");
        let theirs = Arc::clone(&meddles);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&theirs)));
            }
        });
        Self { socket, meddles }
    }
}

async fn pass(client: UnixStream, meddles: Arc<AtomicBool>) {
    let Ok(daemon) = UnixStream::connect(DAEMON).await else { return };
    let ((mut asked, mut answers), (mut answered, mut asks)) = (client.into_split(), daemon.into_split());
    let asking = async {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count @ 1..) = asked.read(&mut bytes).await {
            let piece = &mut bytes[..count];
            if meddles.load(Ordering::Relaxed)
                && let Some(at) = piece.windows(ASKED.len()).position(|found| found == ASKED)
            {
                piece[at..at + ASKED.len()].copy_from_slice(GIVEN);
            }
            if asks.write_all(piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        _ = tokio::io::copy(&mut answered, &mut answers) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_what_was_asked_for_serves_nobody() {
    let directory = tempfile::Builder::new().prefix("hc-").tempdir_in("/tmp").expect("a directory");
    let proxy = Proxy::start(directory.path());
    let Some(stage) = stage(Home::at_daemon(&proxy.socket)).await else { return };
    let after = head(&stage).await;
    proxy.meddles.store(true, Ordering::Relaxed);
    let refused = stage.assemble(&crew("one", PYTHON, ECHO)).await;
    assert!(refused.code != 0, "{refused:?}");
    let (position, event) = tampered(&stage, after, "drifted").await;
    assert!(event.to_string().contains("NetworkMode"), "{event:#}");
    assert!(stage.api.list("/v1/audit?kind=agent_ready").await.is_empty(), "nobody ever ran in one");
    told(
        "T32",
        "a daemon that gives containers the host's network, unasked",
        "each is killed before it may speak; no crew",
        position,
    );
    // From a daemon that does what it is asked for, it is had at once.
    proxy.meddles.store(false, Ordering::Relaxed);
    eventually("none of them is left", async || containers_of(&stage.home).is_empty().then_some(())).await;
    stage.assemble(&crew("one", PYTHON, ECHO)).await.ok();
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_an_agent_a_network_ends_it() {
    let Some(stage) = stage(Home::in_containers()).await else { return };
    stage.assemble(&crew("one", PYTHON, ECHO)).await.ok();
    let (before, after) = (ready(&stage, 1).await, head(&stage).await);
    let container = text(&before, "container");
    docker(&["network", "disconnect", "none", container]);
    // It may be killed before it is joined.
    let _ =
        Command::new("docker").args(["network", "connect", "bridge", container]).output().expect("docker");
    let (position, event) = tampered(&stage, after, "drifted").await;
    assert!(event.to_string().contains(text(&before, "id")), "{event:#}");
    let next = ready(&stage, 2).await;
    assert_ne!(next["container"], before["container"]);
    let said = stage.hypercode(&["task", "submit", "one", "still here", "--wait"]).await.ok();
    assert!(said.contains("still here"), "{said}");
    assert_eq!(containers_of(&stage.home), [text(&next, "container")]);
    told(
        "T32",
        "to join a container to a network while its agent works",
        "it is killed; the agent goes on in another",
        position,
    );
    stage.leave().await;
}

/// A handler that says to the platform what it is told to, and tells nobody what it hears.
const DIAL: &str = r"
import re, socket, sys
host, port = re.search(r'([0-9.]+):([0-9]+)', open('/proc/1/cmdline').read()).groups()
with socket.create_connection((host, int(port)), timeout=10) as platform:
    platform.sendall(bytes.fromhex(sys.stdin.read().strip()))
    platform.settimeout(5)
    try:
        while platform.recv(4096):
            pass
    except OSError:
        pass
";

const DIALERS: &str = r#"
apiVersion: hypercode.dev/v1
kind: Profile
metadata: {name: dial}
spec:
  image: hypercode/python
  handler: {protocol: exec, command: [python3, dial.py], source: ./dial, timeout: 30s}
---
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: troupe}
spec:
  entry: thief
  members: [{name: thief, profile: dial}, {name: victim, profile: dial}]
"#;

/// Every runner's token, as soon as it lies there, by the directory of its sandbox.
pub(crate) fn tokens(run_dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(run_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tokens(&path, found);
        } else if path.ends_with("boot/token")
            && let Ok(token) = std::fs::read_to_string(&path)
        {
            let sandbox = path.ancestors().nth(2).expect("it has a sandbox's directory");
            found.insert(sandbox.to_owned(), token);
        }
    }
}

/// A crew of a thief and a victim in containers over TCP, and the tokens that their runners have used.
async fn over_tcp() -> Option<(Stage, BTreeMap<PathBuf, String>)> {
    let stage = stage(Home::over_tcp()).await?;
    stage.home.write("dial/dial.py", DIAL);
    let (mut found, run_dir) = (BTreeMap::new(), stage.home.run_dir());
    let watching = async {
        loop {
            tokens(&run_dir, &mut found);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::select! {
        ran = stage.assemble(DIALERS) => drop(ran.ok()),
        () = watching => {}
    }
    assert_eq!(found.len(), 2, "each runner had one: {:?}", found.keys());
    Some((stage, found))
}

/// The token that an agent's runner came with: it lay in a directory that its container has.
fn token_of<'f>(found: &'f BTreeMap<PathBuf, String>, agent: &Value) -> &'f str {
    let mounts =
        docker(&["inspect", "--format", "{{range .Mounts}}{{.Source}}\n{{end}}", text(agent, "container")]);
    let is_its = |directory: &PathBuf| mounts.lines().any(|mount| Path::new(mount).starts_with(directory));
    found.iter().find(|(directory, _)| is_its(directory)).expect("it has one").1
}

/// Has the thief show this token at its own way in; the position at which it is told of, and what is told.
async fn shown(stage: &Stage, thief: &Value, token: &str) -> (u64, String) {
    let after = head(stage).await;
    let said = [upgrade(Some(token)).as_bytes(), &hello()].concat();
    let body = json!({"crew": "troupe", "to": "thief", "input": hex::encode(said)});
    stage.api.insist("/v1/tasks", &body, "show").await.done();
    let (position, event) = tampered(stage, after, "reused_token").await;
    assert!(event.to_string().contains(text(thief, "sandbox")), "{event:#}");
    let next =
        stage.agent("thief", "in another", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    assert_ne!(next["sandbox"], thief["sandbox"]);
    (position, event.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runners_token_that_is_shown_again_ends_its_sandbox() {
    let Some((stage, found)) = over_tcp().await else { return };
    let thief = stage.agent("thief", "there", |_| true).await;
    let victim = stage.agent("victim", "there", |_| true).await;
    let (position, _) = shown(&stage, &thief, token_of(&found, &thief)).await;
    let other = stage.agent("victim", "unharmed", |_| true).await;
    assert_eq!((&other["incarnation"], &other["sandbox"]), (&json!(1), &victim["sandbox"]), "{other:#}");
    told("T17", "to show a runner's token a second time", "4005; its sandbox ends", position);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runners_token_in_anothers_place_ends_both_sandboxes() {
    let Some((stage, found)) = over_tcp().await else { return };
    let thief = stage.agent("thief", "there", |_| true).await;
    let victim = stage.agent("victim", "there", |_| true).await;
    let (position, event) = shown(&stage, &thief, token_of(&found, &victim)).await;
    assert!(event.contains(text(&victim, "sandbox")), "{event}");
    stage.agent("victim", "in another", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    told("T17", "to show another runner's token", "4005; both sandboxes end", position);
    stage.leave().await;
}
