//! Laws of how a sandbox ends although its processes try to get away (SB-3).

use super::{Factory, alive, assert_gone, exit_of, instance, spec, until, written};
use crate::{Provider, Signal, Target};

/// Ways to get away, as shell: each leaves something behind that a kill of runner and handler alone would miss.
/// `$held` is a file to wait on for ever; its name, which is the sandbox's id, stays in the command line.
const WAYS: [(&str, &str); 10] = [
    ("double fork", r#"( ( tail -f "$held" & ) & )"#),
    ("session of its own", r#"setsid tail -f "$held" &"#),
    (
        "ignores signals",
        r#"sh -c 'trap "" HUP INT QUIT TERM CHLD; while :; do tail -f "$0"; done' "$held" &"#,
    ),
    ("is stopped", r#"sh -c 'kill -STOP $$; tail -f "$0"' "$held" &"#),
    (
        "clears environment, directory and descriptors",
        r#"( cd / && exec env -i /usr/bin/setsid /bin/sh -c 'tail -f "$0" >/dev/null 2>&1 </dev/null & ' "$held" )"#,
    ),
    ("grows", r#"sh -c 'while :; do tail -f "$0" & sleep 0.01; done' "$held" &"#),
    (
        "continues what is stopped",
        r#"tail -f "$held" & sh -c 'while :; do kill -CONT $1; done' "$held" $! 2>/dev/null &"#,
    ),
    ("forks and exits all the time", r#"python3 -c "$wander" "$held" & await wandering"#),
    ("gathers orphans", r#"python3 -c "$gather" "$held" & await gathering"#),
    ("threads that fork", r#"python3 -c "$threads" "$held" & await threading"#),
];

const PRELUDE: &str = r#"#!/bin/sh
held="$PWD/$4"
: >"$held"
await() { while [ ! -e "$1" ]; do sleep 0.01; done; }
# Always another process, in another session: whoever reads its number finds it gone.
wander='
import os
open("wandering", "w").close()
while True:
    if os.fork(): os._exit(0)
    os.setsid()
'
# Its orphans do not fall to the keeper as long as it lives.
gather='
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0:
    os.setsid()
    os.fork()
    os.fork()
    if os.fork(): os._exit(0)
else:
    open("gathering", "w").close()
while True: time.sleep(60)
'
threads='
import os, threading, time
def run():
    while True:
        if os.fork() == 0:
            os.setsid()
            time.sleep(0.2)
            os._exit(0)
        time.sleep(0.01)
for _ in range(4): threading.Thread(target=run).start()
open("threading", "w").close()
'
"#;

const POSTLUDE: &str = "\necho yes >ready\nexec tail -f \"$held\"\n";

/// How many processes of a sandbox have its id in their command line although it does nothing.
async fn idle(factory: &impl Factory) -> usize {
    let provider = factory.open(&instance()).await;
    let spec = spec(factory, &format!("{PRELUDE}{POSTLUDE}"));
    let running = provider.create(&spec).await.expect("starts");
    written(factory, &running, "ready").await;
    let count = alive(&spec.id).len();
    provider.destroy(&spec.id).await.expect("ends");
    count
}

/// When destroy returns, nothing that the sandbox ever started is left, however it tried to get away.
pub async fn sb_3_destroy_ends_every_descendant(factory: &impl Factory) {
    let idle = idle(factory).await;
    let provider = factory.open(&instance()).await;
    for (name, way) in WAYS {
        let spec = spec(factory, &format!("{PRELUDE}{way}{POSTLUDE}"));
        let running = provider.create(&spec).await.expect("starts");
        written(factory, &running, "ready").await;
        until(&format!("{name} is under way"), || (alive(&spec.id).len() > idle).then_some(())).await;
        provider.destroy(&spec.id).await.unwrap_or_else(|error| panic!("{name}: failed to {error}"));
        assert_gone(&spec.id, name);
        assert!(!factory.work(&running).exists(), "{name}");
    }
}

/// The same when the runner itself is killed: its orphans end with it, and only then is its exit announced.
pub async fn sb_3_every_descendant_ends_with_its_killed_runner(factory: &impl Factory) {
    let provider = factory.open(&instance()).await;
    let mut exits = provider.exits();
    for (name, way) in WAYS {
        let spec = spec(factory, &format!("{PRELUDE}{way}{POSTLUDE}"));
        let running = provider.create(&spec).await.expect("starts");
        written(factory, &running, "ready").await;
        provider.signal(&spec.id, Target::Runner, Signal::Kill).await.expect("it runs");
        let exit = exit_of(&mut exits, &spec.id).await;
        assert_eq!(exit.signal, Some(9), "{name}");
        assert_gone(&spec.id, name);
        provider.destroy(&spec.id).await.expect("removes its files");
    }
}
