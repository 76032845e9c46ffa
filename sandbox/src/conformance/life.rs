//! Laws of how sandboxes come, are seen and go.

use std::fs;
use std::path::PathBuf;

use super::{Factory, alive, assert_gone, exit_of, fresh_id, instance, spec, until, within, written};
use crate::{Error, Found, Instance, Provider, Signal, Spec, State, Target};

/// A runner that is there and does nothing.
const IDLE: &str = "#!/bin/sh\n: >$4\necho yes >ready\nexec tail -f $4\n";

fn ids(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.id.as_str()).collect()
}

/// What was created is found by its id and in the list, with its labels and the same runner.
pub async fn create_find_and_list_agree(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let spec = spec(factory, IDLE);
    assert_eq!(provider.find(&spec.id).await.expect("readable"), None);

    let running = provider.create(&spec).await.expect("starts");
    assert_eq!(running.id, spec.id);
    let found = provider.find(&spec.id).await.expect("readable").expect("it runs");
    assert_eq!(found.labels, spec.labels);
    assert_eq!(found.socket.as_ref(), Some(&spec.socket));
    assert_eq!(found.state, State::Running(running.runner));
    assert_eq!(provider.list().await.expect("readable"), [found]);

    provider.destroy(&spec.id).await.expect("ends");
    assert_eq!(provider.find(&spec.id).await.expect("readable"), None);
    assert_eq!(provider.list().await.expect("readable"), []);
}

/// A repeated create starts nothing and answers as the first did.
pub async fn create_again_finds_what_runs(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let script = "#!/bin/sh\necho started >>starts\n: >$4\nexec tail -f $4\n";
    let spec = spec(factory, script);
    let first = provider.create(&spec).await.expect("starts");
    written(factory, &first, "starts").await;
    let again = provider.create(&spec).await.expect("finds it");
    assert_eq!(first, again);
    assert_eq!(written(factory, &first, "starts").await, "started\n");
    provider.destroy(&spec.id).await.expect("ends");
}

/// Creates of one id at the same time start one runner.
pub async fn concurrent_creates_of_one_id_start_one(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let spec = spec(factory, IDLE);
    let (a, b, c) = tokio::join!(provider.create(&spec), provider.create(&spec), provider.create(&spec));
    let (a, b, c) = (a.expect("starts"), b.expect("starts"), c.expect("starts"));
    assert_eq!(a, b);
    assert_eq!(b, c);
    provider.destroy(&spec.id).await.expect("ends");
}

/// SB-1: an id that was created, or only destroyed, is never started again, by no later provider either.
pub async fn sb_1_an_id_serves_once(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let mut exits = provider.exits();

    let destroyed = spec(factory, IDLE);
    provider.create(&destroyed).await.expect("starts");
    provider.destroy(&destroyed.id).await.expect("ends");

    let ended = spec(factory, "#!/bin/sh\nexit 0\n");
    provider.create(&ended).await.expect("starts");
    exit_of(&mut exits, &ended.id).await;

    let never = spec(factory, IDLE);
    provider.destroy(&never.id).await.expect("nothing to do");

    let later = factory.open(&instance()).await;
    for spec in [&destroyed, &ended, &never] {
        for provider in [&provider, &later] {
            let refused = provider.create(spec).await;
            assert!(matches!(refused, Err(Error::Used { .. })), "{refused:?}");
        }
        assert_gone(&spec.id, "all");
    }
    provider.destroy(&ended.id).await.expect("removes its files");
}

/// A runner whose program cannot be executed is an error that says why, and leaves nothing.
pub async fn a_runner_that_cannot_start_leaves_nothing(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let mut spec = spec(factory, IDLE);
    spec.runner.program = PathBuf::from("/nonexistent/runner");
    let error = provider.create(&spec).await.expect_err("there is no such program");
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/runner"), "{error}");
    assert_eq!(provider.list().await.expect("readable"), []);
    assert_gone(&spec.id, "all");
}

/// What no sandbox can be is refused before anything is done.
pub async fn an_illegal_spec_does_nothing(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let good = spec(factory, IDLE);
    let long = format!("/tmp/{}", "x".repeat(104));
    let mut bad = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    bad[0].socket = PathBuf::from("relative");
    bad[1].socket = PathBuf::from(long);
    bad[2].resources.memory_bytes = 1;
    bad[3].resources.open_files = 0;
    for spec in &bad {
        let refused = provider.create(spec).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    provider.create(&good).await.expect("the id is still free");
    provider.destroy(&good.id).await.expect("ends");
}

/// Destroying what never was, or is gone, succeeds.
pub async fn destroy_of_the_unknown_succeeds(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    provider.destroy(&fresh_id()).await.expect("nothing to do");
    let spec = spec(factory, IDLE);
    provider.create(&spec).await.expect("starts");
    provider.destroy(&spec.id).await.expect("ends");
    provider.destroy(&spec.id).await.expect("nothing to do");
}

/// After destroy the work directory is gone, also what was made unwritable in it.
pub async fn destroy_removes_all_files(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let script = "#!/bin/sh\nmkdir -p a/b\necho x >a/b/c\nln -s /etc/passwd link\nmkfifo pipe\nchmod 0 a/b a\n\
                  : >$4\necho yes >ready\nexec tail -f $4\n";
    let spec = spec(factory, script);
    let running = provider.create(&spec).await.expect("starts");
    written(factory, &running, "ready").await;
    provider.destroy(&spec.id).await.expect("ends");
    assert!(!factory.work(&running).exists());
    assert!(fs::exists("/etc/passwd").expect("readable"), "links are not followed");
}

/// Each exit is announced once, with code or signal and the runner's last words, and then found.
pub async fn exits_are_seen_once_with_their_reason(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let mut exits = provider.exits();

    let coded = spec(factory, "#!/bin/sh\necho first >&2\necho last words >&2\nexit 7\n");
    provider.create(&coded).await.expect("starts");
    let exit = exit_of(&mut exits, &coded.id).await;
    assert_eq!((exit.code, exit.signal, exit.oom), (Some(7), None, false));
    assert!(exit.log.ends_with("last words"), "{exit:?}");
    let found = provider.find(&coded.id).await.expect("readable").expect("its files are left");
    assert_eq!(found.state, State::Ended(exit));

    let killed = spec(factory, IDLE);
    provider.create(&killed).await.expect("starts");
    provider.signal(&killed.id, Target::Runner, Signal::Kill).await.expect("it runs");
    let exit = exit_of(&mut exits, &killed.id).await;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    let gone = provider.signal(&killed.id, Target::Runner, Signal::Kill).await;
    assert!(matches!(gone, Err(Error::NotRunning { .. })), "{gone:?}");

    let destroyed = spec(factory, IDLE);
    provider.create(&destroyed).await.expect("starts");
    for id in [&destroyed.id, &killed.id, &coded.id] {
        provider.destroy(id).await.expect("ends");
    }
    assert_eq!(exit_of(&mut exits, &destroyed.id).await.signal, Some(9));
    assert!(exits.is_empty(), "each once");
}

/// Signals reach the runner or its children, and nothing else.
pub async fn signals_reach_runner_and_handlers(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let script = "#!/bin/sh\n: >$4\ntrap 'echo told >told' TERM\nsh -c 'tail -f $0' $4 &\n\
                  echo yes >ready\nwhile kill -0 $! 2>/dev/null; do wait $!; done\n\
                  echo ended >ended\nexec tail -f $4\n";
    let spec = spec(factory, script);
    let running = provider.create(&spec).await.expect("starts");
    written(factory, &running, "ready").await;

    provider.signal(&spec.id, Target::Runner, Signal::Terminate).await.expect("it runs");
    assert_eq!(written(factory, &running, "told").await, "told\n");
    assert!(!factory.work(&running).join("ended").exists());
    provider.signal(&spec.id, Target::Handler, Signal::Kill).await.expect("it has one");
    assert_eq!(written(factory, &running, "ended").await, "ended\n");

    let unknown = provider.signal(&fresh_id(), Target::Runner, Signal::Kill).await;
    assert!(matches!(unknown, Err(Error::NotRunning { .. })), "{unknown:?}");
    provider.destroy(&spec.id).await.expect("ends");
}

/// Sandboxes outlive their provider; the next one finds them, sees them end and removes them.
pub async fn a_later_provider_adopts(factory: &impl Factory) {
    let specs: [Spec; 3] = std::array::from_fn(|_| spec(factory, IDLE));
    let [kept, killed, between] = &specs;
    let first = factory.open(&instance()).await;
    let mut runners = Vec::new();
    for spec in &specs {
        runners.push(first.create(spec).await.expect("starts").runner);
    }
    drop(first);
    // One ends while no provider is there to see it.
    let pid = i32::try_from(runners[2].expect("it runs").pid).expect("a process id");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("it runs");
    until("it is gone", || alive(&between.id).is_empty().then_some(())).await;

    let second = factory.open(&instance()).await;
    let mut exits = second.exits();
    assert_eq!(second.list().await.expect("readable").len(), 3);
    let found = second.find(&kept.id).await.expect("readable").expect("it runs");
    assert_eq!(found.state, State::Running(runners[0]));
    assert_eq!(found.labels, kept.labels);
    assert_eq!(second.create(kept).await.expect("finds it").runner, runners[0]);
    let found = second.find(&between.id).await.expect("readable").expect("its files are left");
    assert!(matches!(found.state, State::Ended(ref exit) if exit.signal == Some(9)), "{found:?}");

    second.signal(&killed.id, Target::Runner, Signal::Kill).await.expect("it runs");
    assert_eq!(exit_of(&mut exits, &killed.id).await.signal, Some(9));
    for spec in &specs {
        second.destroy(&spec.id).await.expect("ends");
        assert_gone(&spec.id, "all");
    }
    assert_eq!(second.list().await.expect("readable"), []);
}

/// A provider neither lists nor touches the sandboxes of another instance.
pub async fn instances_leave_each_other_alone(factory: &impl Factory) {
    let mine = factory.open(&instance()).await;
    let theirs = factory.open(&Instance::new("0badf00d").expect("legal")).await;
    let (my, their) = (spec(factory, IDLE), spec(factory, IDLE));
    mine.create(&my).await.expect("starts");
    theirs.create(&their).await.expect("starts");

    assert_eq!(ids(&mine.list().await.expect("readable")), [my.id.as_str()]);
    assert_eq!(ids(&theirs.list().await.expect("readable")), [their.id.as_str()]);
    assert_eq!(mine.find(&their.id).await.expect("readable"), None);
    assert!(mine.signal(&their.id, Target::Runner, Signal::Kill).await.is_err());
    mine.destroy(&their.id).await.expect("not there, as far as it knows");
    let found = theirs.find(&their.id).await.expect("readable").expect("untouched");
    assert!(matches!(found.state, State::Running(_)), "{found:?}");

    mine.destroy(&my.id).await.expect("ends");
    theirs.destroy(&their.id).await.expect("ends");
}

/// Many at once start, and many at once end.
pub async fn many_come_and_go_at_once(factory: &impl Factory) {
    let provider = std::sync::Arc::new(factory.open(&instance()).await);
    let specs: Vec<Spec> = (0..factory.many()).map(|_| spec(factory, IDLE)).collect();
    let work = async |end: bool| {
        let jobs = specs.iter().map(async |spec| {
            if end {
                provider.destroy(&spec.id).await.expect("ends");
            } else {
                provider.create(spec).await.expect("starts");
            }
        });
        within("many sandboxes", join_all(jobs)).await;
    };
    work(false).await;
    let found = provider.list().await.expect("readable");
    assert_eq!(found.iter().filter(|found| matches!(found.state, State::Running(_))).count(), specs.len());
    work(true).await;
    assert_eq!(provider.list().await.expect("readable"), []);
    for spec in &specs {
        assert_gone(&spec.id, "all");
    }
}

/// Runs all futures at once on this task.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        pending.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
