//! A daemon of a test's own, which is killed and comes back, and runs containers by another runtime.

use std::path::Path;
use std::process::Command;

use hypercode_sandbox::conformance::{
    Dockerd, Factory, alive, assert_gone, exit_of, instance, spec, within, written,
};
use hypercode_sandbox::docker::Options;
use hypercode_sandbox::{Docker, Peer, Provider, Signal, Spec, State, Target};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::faults::IDLE;
use crate::support::{Place, with_image};

/// Where systems have the runtime that every daemon brings along; here under another name beside.
const RUNTIMES: [&str; 2] = ["/usr/sbin/runc", "/usr/bin/runc"];

/// Size of a disk that holds the image of the tests, unpacked and as it comes, and little else.
const DISK_MIB: u32 = 256;

/// Whether the daemon's program is found where the shell would find it.
fn has_dockerd() -> bool {
    Command::new("dockerd").arg("--version").output().is_ok()
}

/// A daemon with the image of the tests; `None`, and a line, where none can be had outside of CI.
fn daemon(place: &Place, arguments: &[&str]) -> Option<Dockerd> {
    if !place.is_available() {
        return None;
    }
    let may = nix::unistd::geteuid().is_root() && has_dockerd();
    assert!(may || std::env::var_os("CI").is_none(), "a test's own Docker daemon takes root and `dockerd`");
    if !may {
        eprintln!("skipped: a test's own Docker daemon takes root and `dockerd`");
        return None;
    }
    let directory = place.scratch().join("own");
    std::fs::create_dir(&directory).unwrap();
    Some(Dockerd::start(&directory, arguments))
}

async fn provider(place: &Place, daemon: &Dockerd, runtime: Option<&str>) -> Docker {
    let provider = Docker::open(options(place, daemon, runtime)).await.unwrap();
    with_image(&provider).await;
    provider
}

fn options(place: &Place, daemon: &Dockerd, runtime: Option<&str>) -> Options {
    let runtime = runtime.map(str::to_owned);
    Options { socket: daemon.socket(), runtime, ..place.options(&instance()) }
}

/// A daemon that was killed ends all containers when it comes back: each exit is told, none of them runs on unseen, and
/// what is asked for meanwhile is done when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_comes_back_and_nothing_is_lost() {
    let place = Place::new();
    let Some(mut daemon) = daemon(&place, &[]) else { return };
    let provider = provider(&place, &daemon, None).await;
    let mut exits = provider.exits();
    let specs = [spec(&place, IDLE), spec(&place, IDLE)];
    for spec in &specs {
        let running = provider.create(spec).await.unwrap();
        written(&place, &running, "ready").await;
    }
    daemon.kill();
    assert!(specs.iter().all(|spec| !alive(&spec.id).is_empty()), "containers outlive their daemon");
    let next = spec(&place, IDLE);
    let (waits, wanted) = (provider.clone(), next.clone());
    let creating = tokio::spawn(async move { waits.create(&wanted).await });
    let daemon = tokio::task::spawn_blocking(move || {
        daemon.begin();
        daemon
    });
    let daemon = daemon.await.unwrap();

    let mut told = Vec::new();
    for _ in &specs {
        told.push(within("an exit", exits.recv()).await.unwrap().id);
    }
    told.sort();
    let mut wanted: Vec<_> = specs.iter().map(|spec| spec.id.clone()).collect();
    wanted.sort();
    assert_eq!(told, wanted);
    let running = within("what was asked for meanwhile", creating).await.unwrap().unwrap();
    written(&place, &running, "ready").await;
    for spec in &specs {
        assert_gone(&spec.id, "ended by its daemon");
        assert!(matches!(provider.find(&spec.id).await.unwrap().unwrap().state, State::Ended(_)));
        provider.destroy(&spec.id).await.unwrap();
    }
    provider.destroy(&next.id).await.unwrap();
    assert_eq!(daemon.docker(&["ps", "--all", "--quiet"]), "");
}

/// A daemon that keeps containers alive finds them again, and so does the platform.
#[tokio::test(flavor = "multi_thread")]
async fn containers_that_a_killed_daemon_keeps_alive_go_on() {
    let place = Place::new();
    let Some(mut daemon) = daemon(&place, &["--live-restore"]) else { return };
    let provider = provider(&place, &daemon, None).await;
    let (mut exits, mut breaches) = (provider.exits(), provider.breaches());
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    daemon.kill();
    daemon.begin();
    let listed = within("the daemon", async {
        loop {
            if let Ok(listed) = provider.list().await {
                return listed;
            }
        }
    })
    .await;
    assert_eq!(listed[0].state, State::Running(running.runner));
    let pid = running.runner.unwrap().pid;
    assert!(provider.owns(&spec.id, Peer { pid, uid: 10_001 }).await.unwrap());
    provider.signal(&spec.id, Target::Runner, Signal::Kill).await.unwrap();
    assert_eq!(exit_of(&mut exits, &spec.id).await.signal, Some(9), "its events are heard again");
    assert!(breaches.try_recv().is_err(), "nobody tampered with it");
    provider.destroy(&spec.id).await.unwrap();
}

/// T30: a runtime is one that the daemon lists, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_the_daemon_lists_is_used_and_another_is_refused() {
    let place = Place::new();
    let runc = RUNTIMES.into_iter().find(|path| Path::new(path).exists());
    let second = format!("second={}", runc.unwrap_or(RUNTIMES[0]));
    let Some(daemon) = daemon(&place, &["--add-runtime", &second]) else { return };
    let refused = Docker::open(options(&place, &daemon, Some("kata"))).await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("`kata`") && text.contains("docker_runtime") && text.contains("second"), "{text}");

    let provider = provider(&place, &daemon, Some("second")).await;
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    let runtime = daemon.docker(&["inspect", "--format", "{{.HostConfig.Runtime}}", spec.id.as_str()]);
    assert_eq!(runtime, "second");
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "run by the second runtime");
}

/// T30: a sandbox may have a runtime of its own, of those that the daemon lists.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_is_a_runtime_that_the_daemon_lists() {
    let place = Place::new();
    let runc = RUNTIMES.into_iter().find(|path| Path::new(path).exists());
    let second = format!("second={}", runc.unwrap_or(RUNTIMES[0]));
    let Some(daemon) = daemon(&place, &["--add-runtime", &second]) else { return };
    let provider = provider(&place, &daemon, Some("second")).await;
    let mut breaches = provider.breaches();
    for (wanted, used) in [(Some("runc"), "runc"), (None, "second")] {
        let spec = Spec { runtime: wanted.map(str::to_owned), ..spec(&place, IDLE) };
        let running = provider.create(&spec).await.unwrap();
        written(&place, &running, "ready").await;
        let runtime = daemon.docker(&["inspect", "--format", "{{.HostConfig.Runtime}}", spec.id.as_str()]);
        assert_eq!(runtime, used);
        // Whatever is set later: what it was made with is right.
        let later = Docker::open(options(&place, &daemon, None)).await.unwrap();
        assert!(matches!(later.find(&spec.id).await.unwrap().unwrap().state, State::Running(_)));
        provider.destroy(&spec.id).await.unwrap();
    }
    assert!(breaches.try_recv().is_err());
    provider.check_runtime("runc").await.unwrap();
    let unlisted = Spec { runtime: Some("kata".to_owned()), ..spec(&place, IDLE) };
    for refused in [provider.check_runtime("kata").await.err(), provider.create(&unlisted).await.err()] {
        let text = refused.unwrap().to_string();
        assert!(text.contains("runtimeClass `kata`") && text.contains("second"), "{text}");
    }
    assert_eq!(provider.find(&unlisted.id).await.unwrap(), None);
}

/// A daemon whose disk is full says so of each container that it cannot make; there is room again when some is.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_room_refuses_and_goes_on_when_there_is_some() {
    let place = Place::new();
    let disk = place.scratch().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let nothing = None::<&str>;
    let size = Some(format!("size={DISK_MIB}m"));
    if let Err(error) = mount(nothing, &disk, Some("tmpfs"), MsFlags::empty(), size.as_deref()) {
        assert!(std::env::var_os("CI").is_none(), "a disk of a test's own takes root: {error}");
        eprintln!("skipped: a disk of a test's own takes root: {error}");
        return;
    }
    {
        let data = format!("--data-root={}", disk.join("data").display());
        let Some(daemon) = daemon(&place, &[&data]) else { return };
        let provider = provider(&place, &daemon, None).await;
        let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
        let refused = spec(&place, IDLE);
        let error = provider.create(&refused).await.unwrap_err();
        assert!(error.to_string().contains("no space left on device"), "{error}");
        drop(filler);
        std::fs::remove_file(disk.join("filler")).unwrap();
        provider.destroy(&refused.id).await.unwrap();
        let next = spec(&place, IDLE);
        let running = provider.create(&next).await.unwrap();
        written(&place, &running, "ready").await;
        provider.destroy(&next.id).await.unwrap();
        assert_eq!(provider.list().await.unwrap(), []);
    }
    umount2(&disk, MntFlags::MNT_DETACH).unwrap();
}
