//! `start`: from the command that assembles a crew of one to its agent being ready, each time in a fresh sandbox.

use std::path::Path;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use events::CrewId;
use events::api::Command;
use manifest::Manifest;
use serde_json::json;

use crate::rig::{Rig, execute};
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Row, Table};
use crate::{Result, Setup};

const CREW: &str = "
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: worker
  members: [{name: worker, profile: worker}]
";

/// How long a start in a native sandbox may take.
const GOAL: Duration = Duration::from_millis(15);
/// Starts in a second of the bench.
const STARTS: u64 = 5;

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let place = |name| setup.directory.join(name);
    let process = Rig::start_in(&place("process"), Sandbox::Process, CREW).await?;
    let native = Rig::start_in(&place("native"), Sandbox::Native, CREW).await?;
    let bundle = place("bundle");
    let peers = [("bubblewrap", bubblewrap()), ("crun", crun(&bundle)?)];
    let mut bare = [Samples::default(), Samples::default()];
    let (mut plain, mut confined) = (Samples::default(), Samples::default());
    for number in 0..STARTS * setup.seconds {
        for ((_, command), samples) in peers.iter().zip(&mut bare) {
            if let Some(elapsed) = tokio::task::block_in_place(|| ran(command)) {
                samples.push(elapsed);
            }
        }
        plain.push(assembled(&process, number).await?);
        confined.push(assembled(&native, number).await?);
    }
    process.stop().await?;
    native.stop().await?;
    let mut table = Table::default();
    for ((name, _), samples) in peers.iter().zip(&bare) {
        match samples.count() {
            0 => table.note(format!("{name} is not installed, or cannot run here")),
            _ => table.row(Row::new(format!("bare {name}, one `true`")).samples(samples)),
        }
    }
    table.row(Row::new("process: cold start to ready").samples(&plain));
    let row = Row::new("native: cold start to ready").samples(&confined);
    table.row(row.goal(format!("p50 <= {} ms", GOAL.as_millis()), confined.p50() <= GOAL));
    table.note("from the command to a crew of one whose agent is ready: its events are durable, its handler has answered");
    table.note("the bare ones make the same namespaces and show the same files, and start nothing else");
    Ok(table)
}

/// Assembles a further crew, and takes it away again.
async fn assembled(rig: &Rig, number: u64) -> Result<Duration> {
    let parsed = manifest::parse("bench", CREW.as_bytes()).manifests;
    let Some(Manifest::Crew(crew)) = parsed.into_iter().next() else { return Err("no crew".into()) };
    let assemble = Command::CrewAssemble {
        name: format!("start-{number}"),
        labels: crew.metadata.labels,
        spec: json!(crew.spec),
    };
    let before = rig.platform.store.head().await?.position;
    let start = Instant::now();
    let crew: CrewId = execute(&rig.platform, None, assemble).await?.id.parse()?;
    rig.next(before, "agent_ready").await?;
    let elapsed = start.elapsed();
    let disband = Command::CrewDisband { crew, reason: "it was measured".to_owned() };
    execute(&rig.platform, None, disband).await?;
    rig.next(before, "crew_disbanded").await?;
    Ok(elapsed)
}

/// How long a command takes from start to end; `None` where it fails.
fn ran(command: &[String]) -> Option<Duration> {
    let (program, arguments) = command.split_first()?;
    let start = Instant::now();
    let quiet = || Stdio::null();
    let status =
        Program::new(program).args(arguments).stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success()).then(|| start.elapsed())
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn bubblewrap() -> Vec<String> {
    words(
        "bwrap --unshare-all --die-with-parent --cap-drop ALL --ro-bind /usr /usr --symlink usr/bin /bin \
         --symlink usr/lib /lib --symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp /usr/bin/true",
    )
}

/// A bundle as the OCI runtime specification wants it, of the host's programs.
fn crun(bundle: &Path) -> Result<Vec<String>> {
    let root = bundle.join("rootfs");
    for directory in ["usr", "proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    for (link, to) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(to, root.join(link))?;
    }
    let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {"user": {"uid": 10001, "gid": 10001}, "args": ["/usr/bin/true"], "cwd": "/", "noNewPrivileges": true},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": namespaces},
    });
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    let id = format!("hypercode-bench-{}", std::process::id());
    Ok(words(&format!("crun --cgroup-manager=disabled run --bundle {} {id}", bundle.display())))
}
