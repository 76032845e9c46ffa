//! A daemon that hangs, goes away, or knows other containers than the platform.

use hypercode_sandbox::conformance::{
    COUNTING, alive, assert_gone, counts_on, instance, spec, within, written,
};
use hypercode_sandbox::docker::Options;
use hypercode_sandbox::{Docker, Error, Id, Provider, Signal, State, Target};

use crate::proxy::Proxy;
use crate::support::{Place, docker};

/// Says that it runs, and waits.
pub(crate) const IDLE: &str = "#!/bin/sh\n: >$4\necho yes >ready\nexec tail -f $4\n";

/// A daemon that hangs costs a call its time, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_given_up_on() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = proxy.provider(&place).await;
    let spec = spec(&place, IDLE);
    provider.create(&spec).await.unwrap();

    proxy.hangs.send_replace(true);
    let hung = within("an answer", provider.find(&spec.id)).await;
    assert!(matches!(hung, Err(Error::Daemon { .. })), "{hung:?}");
    let hung = within("an answer", provider.destroy(&spec.id)).await;
    assert!(matches!(hung, Err(Error::Daemon { .. })), "{hung:?}");
    proxy.hangs.send_replace(false);
    within("the second try", provider.destroy(&spec.id)).await.unwrap();
    assert_gone(&spec.id, "at the second try");
}

/// What ends while the events are not heard is announced when the daemon is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_behind_a_lost_stream_is_announced() {
    let place = Place::new();
    let Some(direct) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = proxy.provider(&place).await;
    let mut exits = provider.exits();
    let (killed, removed) = (spec(&place, IDLE), spec(&place, IDLE));
    for spec in [&killed, &removed] {
        let running = provider.create(spec).await.unwrap();
        written(&place, &running, "ready").await;
    }
    proxy.hangs.send_replace(true);
    direct.signal(&killed.id, Target::Runner, Signal::Kill).await.unwrap();
    let _ =
        std::process::Command::new("docker").args(["rm", "--force", removed.id.as_str()]).output().unwrap();
    proxy.cut();
    proxy.hangs.send_replace(false);

    let mut seen = [exits.recv().await.unwrap(), within("the other exit", exits.recv()).await.unwrap()];
    seen.sort_by_key(|exit| exit.id == removed.id);
    assert_eq!((&seen[0].id, seen[0].signal), (&killed.id, Some(9)));
    assert_eq!(
        (&seen[1].id, seen[1].signal, seen[1].code),
        (&removed.id, None, None),
        "nobody saw how it ended"
    );
    provider.destroy(&killed.id).await.unwrap();
    provider.destroy(&removed.id).await.unwrap();
    assert!(alive(&removed.id).is_empty());
}

/// A daemon that is not there is named, with the socket at which it was looked for.
#[tokio::test]
async fn a_daemon_that_is_not_there_is_named() {
    let place = Place::new();
    let options = Options { socket: "/nonexistent/docker.sock".into(), ..place.options(&instance()) };
    let error = Docker::open(options).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/docker.sock"), "{error}");
}

/// What was made and not started, because the platform or the daemon was killed in between, is started at the next try:
/// the same container, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_never_started_is_started_once() {
    let place = Place::new();
    let Some(direct) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = proxy.provider(&place).await;
    let spec = spec(&place, IDLE);
    proxy.cut_off(Some("/start HTTP"));
    let cut_off = provider.create(&spec).await;
    assert!(matches!(cut_off, Err(Error::Daemon { .. })), "{cut_off:?}");
    let container = || docker(&["inspect", "--format", "{{.Id}} {{.State.Status}}", spec.id.as_str()]);
    let made = container();
    assert!(made.ends_with(" created"), "{made}");
    let found = direct.find(&spec.id).await.unwrap().unwrap();
    assert!(matches!(found.state, State::Damaged(_)), "{found:?}");

    let running = direct.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    assert_eq!(container(), made.replace("created", "running"));
    direct.destroy(&spec.id).await.unwrap();
}

/// A container that is nobody's is left alone, whatever name it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_somebody_elses_is_left_alone() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let theirs = spec(&place, IDLE);
    let (name, image) = (theirs.id.as_str(), place.options(&instance()).image);
    docker(&["create", "--name", name, "--network", "none", &image, "/bin/true"]);
    let refused = provider.create(&theirs).await;
    assert!(matches!(refused, Err(Error::Used { .. })), "{refused:?}");
    assert_eq!(provider.find(&theirs.id).await.unwrap(), None);
    provider.destroy(&theirs.id).await.unwrap();
    docker(&["rm", name]);
}

/// A container of which the daemon cannot tell anything is listed as damaged, and keeps none of the others from being
/// listed.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_container_does_not_hide_the_others() {
    let place = Place::new();
    let Some(direct) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(hypercode_sandbox::conformance::Factory::scratch(&place));
    let provider = proxy.provider(&place).await;
    let (good, bad) = (spec(&place, IDLE), spec(&place, IDLE));
    for spec in [&good, &bad] {
        direct.create(spec).await.unwrap();
    }
    proxy.cut_off(Some(&format!("/containers/{}/json", bad.id)));
    let listed = provider.list().await.unwrap();
    let state = |id: &Id| &listed.iter().find(|found| found.id == *id).unwrap().state;
    assert!(matches!(state(&good.id), State::Running(Some(_))), "{listed:?}");
    assert!(matches!(state(&bad.id), State::Damaged(_)), "{listed:?}");
    direct.destroy(&good.id).await.unwrap();
    direct.destroy(&bad.id).await.unwrap();
}

/// Paused, a sandbox stands still; limits can be raised while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn it_pauses_goes_on_and_grows() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let (spec, other) = (spec(&place, COUNTING), spec(&place, COUNTING));
    let running = provider.create(&spec).await.unwrap();
    let beside = provider.create(&other).await.unwrap();
    written(&place, &running, "count").await;
    provider.pause(&spec.id).await.unwrap();
    provider.pause(&spec.id).await.unwrap();
    let count = written(&place, &running, "count").await;
    counts_on(&place, &beside).await;
    assert_eq!(written(&place, &running, "count").await, count);
    provider.destroy(&other.id).await.unwrap();
    assert!(matches!(provider.find(&spec.id).await.unwrap().unwrap().state, State::Running(Some(_))));
    provider.unpause(&spec.id).await.unwrap();
    within("it goes on", async {
        while written(&place, &running, "count").await == count {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let more = hypercode_sandbox::Resources { memory_bytes: 1 << 30, pids: 512, ..spec.resources };
    provider.update(&spec.id, &more).await.unwrap();
    let cgroup = std::process::Command::new("docker")
        .args([
            "inspect",
            "--format",
            "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}}",
            spec.id.as_str(),
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(cgroup.stdout).unwrap().trim(), "1073741824 1073741824 512");
    provider.pause(&spec.id).await.unwrap();
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "paused");
    assert!(matches!(provider.pause(&spec.id).await, Err(Error::NotRunning { .. })));
}
