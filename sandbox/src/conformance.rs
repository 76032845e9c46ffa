//! The laws of [`Provider`] as tests, written once for every implementation.
//!
//! An implementation writes a [`Factory`] and one line, `sandbox_conformance!(factory)`, in its tests; each law
//! becomes a test of its own. The stand-ins for the runner are shell and Python scripts.

mod descendants;
mod dockerd;
mod life;
mod limits;

pub use self::descendants::*;
pub use self::dockerd::Dockerd;
pub use self::life::*;
pub use self::limits::*;

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use crate::{Exit, Id, Instance, Labels, Provider, Resources, Runner, Running, Spec};

/// How long anything may take before a test gives up on it. No law depends on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(2);

/// What the tests need of an implementation: a place of its own for sandboxes, fresh for each test.
#[async_trait]
pub trait Factory: Send + Sync {
    /// What it makes.
    type Provider: Provider;

    /// Opens a provider over the factory's place: at any time, and for several instances at once.
    async fn open(&self, instance: &Instance) -> Self::Provider;

    /// A directory that sandboxes can read.
    fn scratch(&self) -> &Path;

    /// Whether there is what it takes; one line was said where there is not.
    fn is_available(&self) -> bool {
        true
    }

    /// Where this host sees the work directory.
    fn work(&self, running: &Running) -> PathBuf {
        running.work.clone()
    }

    /// Where the sandbox sees its socket, which it was told is at `_told`.
    fn socket(&self, spec: &Spec, _told: &str) -> PathBuf {
        spec.socket.clone()
    }

    /// Whether a runner that was just started may hold a descriptor of this file, as `/proc/self/fd` names it.
    fn may_hold(&self, spec: &Spec, file: &str) -> bool {
        file == "/dev/null" || file.contains(spec.id.as_str())
    }

    /// How many sandboxes are started at once where many are.
    fn many(&self) -> usize {
        50
    }
}

/// The instance that most tests are.
#[must_use]
pub fn instance() -> Instance {
    Instance::new("00c0ffee").expect("eight digits")
}

/// An id that no other test on this host has.
#[must_use]
pub fn fresh_id() -> Id {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let text = format!("t{}-{}-{now:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Id::new(text).expect("legal characters")
}

/// A sandbox whose runner is `script`: it runs in the work directory and gets the runner's arguments, so its
/// fourth is the sandbox's id.
pub fn spec(factory: &impl Factory, script: &str) -> Spec {
    let id = fresh_id();
    let program = factory.scratch().join(format!("{id}.script"));
    fs::write(&program, script).expect("the scratch directory is writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    let directory = factory.scratch().join(id.as_str());
    // With the directory that is seen in place of the socket's where that is not handed over.
    fs::create_dir_all(directory.join(link::bootstrap::DIRECTORY))
        .expect("the scratch directory is writable");
    Spec {
        id,
        labels: Labels { agent: Some("agent-1".to_owned()), incarnation: Some(3), pool: None },
        socket: directory.join("s"),
        image: None,
        runtime: None,
        resources: Resources::default(),
        orphan_grace_ms: 60_000,
        runner: Runner::new(program),
    }
}

/// Waits until `condition` gives something, or fails the test saying `what` did not happen.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        sleep(PAUSE).await;
    }
}

/// Waits until the script has written `name` into its work directory, and answers with what is in it.
pub async fn written(factory: &impl Factory, running: &Running, name: &str) -> String {
    let path = factory.work(running).join(name);
    until(&format!("`{}` is written", path.display()), || {
        fs::read_to_string(&path).ok().filter(|text| !text.is_empty())
    })
    .await
}

/// A script that counts in its work directory for as long as it may.
pub const COUNTING: &str =
    "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo $i >fresh; mv fresh count; sleep 0.01; done\n";

/// Waits until a sandbox that runs [`COUNTING`] has counted some way on: time in which another one stands still, or not.
pub async fn counts_on(factory: &impl Factory, running: &Running) {
    let count = async || written(factory, running, "count").await.trim().parse::<u64>().expect("a number");
    let from = count().await;
    within("it counts on", async { while count().await < from + 10 {} }).await;
}

/// Waits for the exit of this sandbox.
pub async fn exit_of(exits: &mut broadcast::Receiver<Exit>, id: &Id) -> Exit {
    within(&format!("the exit of `{id}`"), async {
        loop {
            let exit = exits.recv().await.expect("few enough exits");
            if exit.id == *id {
                return exit;
            }
        }
    })
    .await
}

/// Fails the test if `future` takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// The processes of this host that have the sandbox's id in their command line: every stand-in keeps it there.
#[must_use]
pub fn alive(id: &Id) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(id.as_str())
    })
    .collect()
}

/// Fails the test if anything of the sandbox runs.
pub fn assert_gone(id: &Id, what: &str) {
    // One look can miss a process that forks and exits all the time, many do not.
    let left: Vec<u32> = (0..10).flat_map(|_| alive(id)).collect();
    let lines = left.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
    assert!(left.is_empty(), "{what}: {left:?} is left: {:?}", lines.collect::<Vec<_>>());
}

/// Makes a `#[tokio::test]` of every law, each with a factory of its own: the value of `$factory`.
#[macro_export]
macro_rules! sandbox_conformance {
    ($factory:expr) => {
        $crate::sandbox_conformance!($factory;
            create_find_and_list_agree,
            create_again_finds_what_runs,
            concurrent_creates_of_one_id_start_one,
            sb_1_an_id_serves_once,
            a_runner_that_cannot_start_leaves_nothing,
            an_illegal_spec_does_nothing,
            destroy_of_the_unknown_succeeds,
            destroy_removes_all_files,
            exits_are_seen_once_with_their_reason,
            signals_reach_runner_and_handlers,
            a_later_provider_adopts,
            instances_leave_each_other_alone,
            many_come_and_go_at_once,
            sb_3_destroy_ends_every_descendant,
            sb_3_every_descendant_ends_with_its_killed_runner,
            the_environment_is_clean,
            open_files_are_limited,
            memory_is_limited,
            file_size_is_limited,
        );
    };
    ($factory:expr; $($law:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $law() {
                let factory = $factory;
                if $crate::conformance::Factory::is_available(&factory) {
                    $crate::conformance::$law(&factory).await;
                }
            }
        )*
    };
}
