//! What is done to a sandbox behind the platform's back: it is seen, told, and the sandbox is killed for it.

use std::time::Duration;

use hypercode_sandbox::conformance::{
    Factory, alive, assert_gone, exit_of, instance, spec, until, within, written,
};
use hypercode_sandbox::{Breach, Error, Peer, Provider, Signal, State, Tampering, Target};
use tokio::sync::broadcast::Receiver;

use crate::faults::IDLE;
use crate::proxy::Proxy;
use crate::support::{Place, docker};

/// The next breach is of this sandbox, and nothing of it runs any more.
async fn assert_killed(
    breaches: &mut Receiver<Breach>,
    id: &hypercode_sandbox::Id,
    what: Tampering,
) -> Breach {
    let breach = within("the breach", breaches.recv()).await.unwrap();
    assert_eq!((&breach.id, breach.what), (id, what), "{}", breach.detail);
    assert_eq!(breach.labels.agent.as_deref(), Some("agent-1"));
    until("it is killed", || alive(id).is_empty().then_some(())).await;
    breach
}

/// T32: a container that is not what was asked for is killed before it may speak.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_drifted_is_killed() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(place.scratch());
    let provider = proxy.provider(&place).await;
    let mut breaches = provider.breaches();
    proxy.lie(true);
    let drifting = spec(&place, IDLE);
    let error = provider.create(&drifting).await.unwrap_err();
    assert!(error.to_string().contains("`HostConfig.Privileged` is `true`"), "{error}");
    assert_killed(&mut breaches, &drifting.id, Tampering::Drifted).await;
    assert_gone(&drifting.id, "the one that drifted");
    assert_eq!(provider.find(&drifting.id).await.unwrap(), None);
    let again = provider.create(&drifting).await;
    assert!(matches!(again, Err(Error::Used { .. })), "{again:?}");
}

/// T32: one that runs is looked at again whenever it is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_drifts_while_it_runs_is_killed() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(place.scratch());
    let provider = proxy.provider(&place).await;
    let (mut breaches, mut exits) = (provider.breaches(), provider.exits());
    for is_listed in [true, false] {
        let spec = spec(&place, IDLE);
        let running = provider.create(&spec).await.unwrap();
        written(&place, &running, "ready").await;
        proxy.lie(true);
        match is_listed {
            true => drop(provider.list().await.unwrap()),
            false => drop(provider.create(&spec).await.unwrap_err()),
        }
        proxy.lie(false);
        assert_killed(&mut breaches, &spec.id, Tampering::Drifted).await;
        assert_eq!(exit_of(&mut exits, &spec.id).await.signal, Some(9));
        provider.destroy(&spec.id).await.unwrap();
    }
}

/// T32: one that cannot be killed at once is told of once, speaks for nobody, and is killed at the next look, also when
/// there is nothing to be seen any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_fails_is_tried_again() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(place.scratch());
    let provider = proxy.provider(&place).await;
    let (mut breaches, mut exits) = (provider.breaches(), provider.exits());
    for is_still_seen in [true, false] {
        let spec = spec(&place, IDLE);
        let running = provider.create(&spec).await.unwrap();
        written(&place, &running, "ready").await;
        let peer = Peer { pid: running.runner.unwrap().pid, uid: 10_001 };
        proxy.lie(true);
        proxy.cut_off(Some("/kill?"));
        provider.find(&spec.id).await.unwrap();
        let breach = within("the breach", breaches.recv()).await.unwrap();
        assert_eq!((&breach.id, breach.what), (&spec.id, Tampering::Drifted));
        assert!(!alive(&spec.id).is_empty() && !provider.owns(&spec.id, peer).await.unwrap());
        proxy.lie(is_still_seen);
        proxy.cut_off(None);
        provider.list().await.unwrap();
        assert_eq!(exit_of(&mut exits, &spec.id).await.signal, Some(9));
        assert!(breaches.try_recv().is_err(), "it is told once");
        proxy.lie(false);
        provider.destroy(&spec.id).await.unwrap();
        assert_gone(&spec.id, "the second kill");
    }
}

/// T32: a network that was joined by hand is a way out.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_joined_to_a_network_is_killed() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let mut breaches = provider.breaches();
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    docker(&["network", "disconnect", "none", spec.id.as_str()]);
    docker(&["network", "connect", "bridge", spec.id.as_str()]);
    let breach = assert_killed(&mut breaches, &spec.id, Tampering::Drifted).await;
    assert!(breach.detail.contains("`bridge`"), "{}", breach.detail);
    provider.destroy(&spec.id).await.unwrap();
}

/// One that was given another name by hand is the same: it is found, and gone when it is said to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_renamed_is_removed_all_the_same() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    let other = format!("{}-renamed", spec.id);
    docker(&["rename", spec.id.as_str(), &other]);
    let found = provider.find(&spec.id).await.unwrap().expect("it is found by its labels");
    assert!(matches!(found.state, State::Running(_)), "{:?}", found.state);
    assert!(provider.list().await.unwrap().iter().any(|found| found.id == spec.id));
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "the one that was renamed");
    let left = docker(&["ps", "--all", "--quiet", "--filter", &format!("name={other}")]);
    assert_eq!(left.trim(), "", "it is not left at the daemon");
}

/// T33: what was started again by hand speaks for nobody, and is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_life_by_hand_is_no_life() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let (mut breaches, mut exits) = (provider.breaches(), provider.exits());
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    let pid = running.runner.unwrap().pid;
    assert!(provider.owns(&spec.id, Peer { pid, uid: 10_001 }).await.unwrap());
    let other = Peer { pid: std::process::id(), uid: 10_001 };
    assert!(!provider.owns(&spec.id, other).await.unwrap(), "another process");
    provider.signal(&spec.id, Target::Runner, Signal::Kill).await.unwrap();
    exit_of(&mut exits, &spec.id).await;

    docker(&["start", spec.id.as_str()]);
    assert_killed(&mut breaches, &spec.id, Tampering::Started).await;
    // What was seen is told before what is done about it.
    let ended = async {
        while !matches!(provider.find(&spec.id).await.unwrap().unwrap().state, State::Ended(_)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("its second life is ended");
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "the second life");
}

/// T33: one that was started again while no platform was there is not adopted.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_life_is_not_adopted() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let spec = spec(&place, IDLE);
    provider.create(&spec).await.unwrap();
    drop(provider);
    docker(&["kill", spec.id.as_str()]);
    docker(&["start", spec.id.as_str()]);
    let next = place.open(&instance()).await;
    assert_killed(&mut next.breaches(), &spec.id, Tampering::Started).await;
    assert_eq!(next.container(&spec.id), None);
    next.destroy(&spec.id).await.unwrap();
}

/// T40: a sandbox in which something was executed from outside is what it was no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_was_tampered_with_is_killed() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let (mut breaches, mut exits) = (provider.breaches(), provider.exits());
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    // It may be killed before the program comes to run.
    let _ =
        std::process::Command::new("docker").args(["exec", spec.id.as_str(), "/bin/true"]).output().unwrap();
    assert_killed(&mut breaches, &spec.id, Tampering::Executed).await;
    assert_eq!(exit_of(&mut exits, &spec.id).await.signal, Some(9));
    provider.destroy(&spec.id).await.unwrap();
}

/// T40: also while the daemon's events were not heard.
#[tokio::test(flavor = "multi_thread")]
async fn an_execution_behind_a_lost_stream_is_found() {
    let place = Place::new();
    let Some(_) = place.provider(&instance()).await else { return };
    let proxy = Proxy::start(place.scratch());
    let provider = proxy.provider(&place).await;
    let mut breaches = provider.breaches();
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    proxy.hangs.send_replace(true);
    docker(&["exec", spec.id.as_str(), "/bin/true"]);
    proxy.cut();
    proxy.hangs.send_replace(false);
    assert_killed(&mut breaches, &spec.id, Tampering::Executed).await;
    provider.destroy(&spec.id).await.unwrap();
}

/// What is to stand still goes on when the platform says so, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_somebody_else_unpaused_is_killed() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let mut breaches = provider.breaches();
    let spec = spec(&place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    provider.pause(&spec.id).await.unwrap();
    provider.unpause(&spec.id).await.unwrap();
    provider.pause(&spec.id).await.unwrap();
    assert!(!alive(&spec.id).is_empty(), "by the platform it may be unpaused");
    docker(&["unpause", spec.id.as_str()]);
    assert_killed(&mut breaches, &spec.id, Tampering::Unpaused).await;
    provider.destroy(&spec.id).await.unwrap();
}
