//! The process sandbox: the laws of the seam, and what only it can get wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use async_trait::async_trait;
use hypercode_sandbox::conformance::{
    Factory, alive, assert_gone, exit_of, fresh_id, instance, spec, until, within, written,
};
use hypercode_sandbox::{
    Error, Id, Instance, Kept, Level, Options, Provider, Runner, Signal, Spec, State, Target,
};
use nix::sys::signal::{Signal as RawSignal, kill};
use nix::unistd::Pid as RawPid;
use serde_json::{Value, json};
use tempfile::TempDir;

const STUB: &str = env!("CARGO_BIN_EXE_sandbox-stub");

const IDLE: &str = "#!/bin/sh\n: >$4\necho yes >ready\nexec tail -f \"$PWD/$4\"\n";

struct Place {
    dir: TempDir,
    control_groups: bool,
}

impl Place {
    fn new(control_groups: bool) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), control_groups }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("sandboxes")
    }

    fn options(&self, instance: &Instance) -> Options {
        let mut options = Options::new(self.root(), instance.clone());
        options.keeper = PathBuf::from(STUB);
        options.control_groups = self.control_groups;
        options
    }

    /// A state file of a sandbox, as it is.
    fn state(&self, id: &Id, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.root().join(id.as_str()).join(file)).unwrap()).unwrap()
    }
}

#[async_trait]
impl Factory for Place {
    type Provider = Kept;

    async fn open(&self, instance: &Instance) -> Kept {
        Kept::open(self.options(instance)).await.unwrap()
    }

    fn scratch(&self) -> &Path {
        self.dir.path()
    }
}

/// As most machines have it.
mod with_control_groups {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::new(true));
}

/// As in a container, where the keeper has nothing but itself.
mod without_control_groups {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::new(false));
}

fn send(pid: u64, signal: RawSignal) {
    kill(RawPid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn keeper_of(place: &Place, id: &Id) -> u64 {
    place.state(id, "birth.json")["keeper"]["pid"].as_u64().unwrap()
}

#[tokio::test]
async fn it_says_that_it_isolates_nothing() {
    let provider = Place::new(true).open(&instance()).await;
    assert_eq!(provider.isolation().level, Level::None);
    assert_eq!(
        (provider.kind().to_string(), provider.isolation().level.to_string()),
        ("process".into(), "none".into())
    );
}

/// The runner starts, connects, and the link works.
#[tokio::test(flavor = "multi_thread")]
async fn the_runner_connects_to_its_socket() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    let socket = place.dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut spec = spec(&place, "");
    (spec.socket, spec.runner) = (socket, Runner::new(PathBuf::from(STUB)));
    let accepted = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
        line
    });
    provider.create(&spec).await.unwrap();
    assert_eq!(within("hello", accepted).await.unwrap(), "hello\n");
    provider.destroy(&spec.id).await.unwrap();
}

/// A sandbox whose keeper was killed counts as ended, and what it left is ended from outside, also what only
/// the marker in its environment still ties to it.
async fn a_killed_keeper_leaves_nothing(control_groups: bool) {
    let place = Place::new(control_groups);
    let provider = place.open(&instance()).await;
    let mut exits = provider.exits();
    let script = format!("{}( setsid tail -f \"$PWD/$4\" & )\n{}", "#!/bin/sh\n: >$4\n", &IDLE[10..]);
    let spec = spec(&place, &script);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    until("the handler runs", || (alive(&spec.id).len() >= 3).then_some(())).await;

    send(keeper_of(&place, &spec.id), RawSignal::SIGKILL);
    let exit = exit_of(&mut exits, &spec.id).await;
    assert_eq!((exit.code, exit.signal), (None, None), "nobody saw how the runner ended");
    assert_gone(&spec.id, "with its keeper killed");
    let found = provider.find(&spec.id).await.unwrap().unwrap();
    assert_eq!(found.state, State::Ended(exit));
    provider.destroy(&spec.id).await.unwrap();
    assert_eq!(provider.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_leaves_nothing_with_control_groups() {
    a_killed_keeper_leaves_nothing(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_leaves_nothing_without_control_groups() {
    a_killed_keeper_leaves_nothing(false).await;
}

/// Keeper and runner killed while no platform is there: the next one ends the orphans when it opens.
#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_keeper_unseen_ends_at_the_next_open() {
    let place = Place::new(false);
    let provider = place.open(&instance()).await;
    let script = format!("{}( setsid tail -f \"$PWD/$4\" & )\n{}", "#!/bin/sh\n: >$4\n", &IDLE[10..]);
    let spec = spec(&place, &script);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    drop(provider);
    let keeper = keeper_of(&place, &spec.id);
    send(keeper, RawSignal::SIGKILL);
    send(u64::from(running.runner.unwrap().pid), RawSignal::SIGKILL);

    let provider = place.open(&instance()).await;
    within("its end", async {
        while !matches!(provider.find(&spec.id).await.unwrap().unwrap().state, State::Ended(_)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_gone(&spec.id, "after open");
    provider.destroy(&spec.id).await.unwrap();
}

/// A keeper that was stopped is continued, and does its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_keeper_still_ends_its_sandbox() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    let spec = spec(&place, IDLE);
    provider.create(&spec).await.unwrap();
    send(keeper_of(&place, &spec.id), RawSignal::SIGSTOP);
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "with its keeper stopped");
}

/// State files that name a process id which now belongs to someone else do that one no harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_recycled_process_id_is_left_alone() {
    let place = Place::new(false);
    let provider = place.open(&instance()).await;
    let spec = spec(&place, IDLE);
    provider.create(&spec).await.unwrap();
    drop(provider);
    send(keeper_of(&place, &spec.id), RawSignal::SIGTERM);
    until("it is gone", || alive(&spec.id).is_empty().then_some(())).await;

    let mut innocent = Command::new("sleep").arg("600").spawn().unwrap();
    let dir = place.root().join(spec.id.as_str());
    let mut birth = place.state(&spec.id, "birth.json");
    for name in ["keeper", "runner"] {
        birth[name]["pid"] = json!(innocent.id());
    }
    fs::write(dir.join("birth.json"), birth.to_string()).unwrap();
    fs::remove_file(dir.join("exit.json")).unwrap();

    let provider = place.open(&instance()).await;
    let signalled = provider.signal(&spec.id, Target::Runner, Signal::Kill).await;
    assert!(matches!(signalled, Err(Error::NotRunning { .. })), "{signalled:?}");
    provider.destroy(&spec.id).await.unwrap();
    assert_eq!(innocent.try_wait().unwrap(), None, "it still runs");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

/// SIGKILL of a whole platform process leaves its sandboxes running; the next platform adopts and ends them.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_platform_leaves_its_sandboxes_to_the_next() {
    let place = Place::new(true);
    let specs = [spec(&place, IDLE), spec(&place, IDLE)];
    let file = place.dir.path().join("specs.json");
    fs::write(&file, serde_json::to_vec(&specs).unwrap()).unwrap();
    let mut platform =
        Command::new(STUB).arg(place.root()).arg(&file).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(platform.stdout.take().unwrap()).lines().take(specs.len());
    let pids: Vec<u32> = lines.map(|line| line.unwrap().parse().unwrap()).collect();
    platform.kill().unwrap();
    platform.wait().unwrap();

    let provider = place.open(&instance()).await;
    let mut exits = provider.exits();
    for (spec, pid) in specs.iter().zip(pids) {
        let found = provider.find(&spec.id).await.unwrap().unwrap();
        assert!(matches!(found.state, State::Running(Some(runner)) if runner.pid == pid), "{found:?}");
    }
    provider.signal(&specs[0].id, Target::Runner, Signal::Kill).await.unwrap();
    assert_eq!(exit_of(&mut exits, &specs[0].id).await.signal, Some(9));
    for spec in &specs {
        provider.destroy(&spec.id).await.unwrap();
        assert_gone(&spec.id, "adopted");
    }
}

/// A platform that was started to survive its terminal does not make its runners deaf to signals.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_ignores_signals_does_not_pass_that_on() {
    let place = Place::new(true);
    let mut spec = spec(&place, "");
    let listener = UnixListener::bind(place.dir.path().join("s")).unwrap();
    (spec.socket, spec.runner) = (place.dir.path().join("s"), Runner::new(PathBuf::from(STUB)));
    let file = place.dir.path().join("specs.json");
    fs::write(&file, serde_json::to_vec(&[&spec]).unwrap()).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh", STUB]).arg(place.root()).arg(&file);
    let mut platform = shell.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(platform.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ignored = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (RawSignal::SIGHUP as u64 - 1)) != 0
    };
    assert!(ignored(&platform.id().to_string()));
    assert!(!ignored(line.trim()));
    platform.kill().unwrap();
    platform.wait().unwrap();
    drop(listener);
    place.open(&instance()).await.destroy(&spec.id).await.unwrap();
}

/// SIGKILL of a platform at any moment of starting leaves nothing that the next cannot find and end.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_killed_while_it_starts_sandboxes_loses_none() {
    let place = Place::new(true);
    for moment in 0..12 {
        let specs: Vec<Spec> = (0..8).map(|_| spec(&place, IDLE)).collect();
        let file = place.dir.path().join("specs.json");
        fs::write(&file, serde_json::to_vec(&specs).unwrap()).unwrap();
        let mut platform =
            Command::new(STUB).arg(place.root()).arg(&file).stdout(Stdio::null()).spawn().unwrap();
        // Other moments each time; which they are does not matter.
        tokio::time::sleep(std::time::Duration::from_micros(1500 * moment)).await;
        platform.kill().unwrap();
        platform.wait().unwrap();

        let provider = place.open(&instance()).await;
        for found in provider.list().await.unwrap() {
            provider.destroy(&found.id).await.unwrap();
        }
        for spec in &specs {
            assert_gone(&spec.id, "killed while starting");
        }
        assert_eq!(provider.list().await.unwrap(), []);
    }
}

/// Files that no sandbox left, and files that were damaged, stop nothing and can be removed.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_foreign_files_are_reported_not_fatal() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    let good = spec(&place, IDLE);
    provider.create(&good).await.unwrap();

    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("half a file", |dir| fs::write(dir.join("record.json"), "{\"instance\": \"00c0").unwrap()),
        ("another shape", |dir| fs::write(dir.join("record.json"), "[]").unwrap()),
        ("huge", |dir| fs::write(dir.join("record.json"), " ".repeat(1 << 20)).unwrap()),
        ("a pipe", |dir| {
            nix::unistd::mkfifo(&dir.join("record.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("a link", |dir| symlink("/etc/passwd", dir.join("record.json")).unwrap()),
    ];
    let damaged: Vec<(Id, &str)> = damages.iter().map(|(name, _)| (fresh_id(), *name)).collect();
    for ((id, _), (_, damage)) in damaged.iter().zip(damages) {
        let dir = place.root().join(id.as_str());
        fs::create_dir(&dir).unwrap();
        damage(&dir);
    }
    let empty = fresh_id();
    fs::create_dir(place.root().join(empty.as_str())).unwrap();
    let plain = fresh_id();
    fs::write(place.root().join(plain.as_str()), "a file where a directory should be").unwrap();
    fs::write(place.root().join("README.txt"), "left by a person").unwrap();

    drop(provider);
    let provider = within("open", place.open(&instance())).await;
    assert_eq!(provider.list().await.unwrap().len(), 1 + damaged.len() + 2);
    for (id, name) in &damaged {
        let found = provider.find(id).await.unwrap().unwrap();
        assert!(matches!(found.state, State::Damaged(_)), "{name}: {found:?}");
        let refused = provider.create(&Spec { id: id.clone(), ..good.clone() }).await;
        assert!(matches!(refused, Err(Error::Used { .. })), "{name}: {refused:?}");
    }
    for id in damaged.iter().map(|(id, _)| id).chain([&empty, &plain, &good.id]) {
        provider.destroy(id).await.unwrap();
    }
    assert_eq!(provider.list().await.unwrap(), []);
    assert!(place.root().join("README.txt").exists());
}

/// A start that was interrupted before anything ran may be repeated under the same id.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_start_is_started_once() {
    let place = Place::new(true);
    let provider = place.open(&instance()).await;
    let spec = spec(&place, IDLE);
    let dir = place.root().join(spec.id.as_str());
    fs::create_dir(&dir).unwrap();
    let record = json!({"instance": instance(), "spec": spec});
    fs::write(dir.join("record.json"), record.to_string()).unwrap();
    let found = provider.find(&spec.id).await.unwrap().unwrap();
    assert!(matches!(found.state, State::Damaged(_)), "{found:?}");

    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    provider.destroy(&spec.id).await.unwrap();
}

/// A keeper that is no keeper is an error with its own words, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_keeper_is_an_error() {
    let place = Place::new(true);
    for (program, word) in
        [("/bin/false", "without a word"), ("/bin/echo", "sandboxes"), ("/nonexistent", "execute")]
    {
        let mut options = place.options(&instance());
        options.keeper = PathBuf::from(program);
        let provider = Kept::open(options).await.unwrap();
        let spec = spec(&place, IDLE);
        let error = provider.create(&spec).await.unwrap_err();
        assert!(error.to_string().contains(word), "{program}: {error}");
        provider.destroy(&spec.id).await.unwrap();
        assert_eq!(provider.list().await.unwrap(), []);
    }
}
