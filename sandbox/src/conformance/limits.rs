//! Laws of what a sandbox is given and held to.

use super::{Factory, instance, spec, written};
use crate::{Provider, Spec};

/// Those of signal(7) that are no real-time signals: 1 to 31.
const STANDARD_SIGNALS: u64 = 0x7fff_ffff;

async fn outcome(factory: &impl Factory, spec: &Spec) -> String {
    let provider = factory.open(&instance()).await;
    let running = provider.create(spec).await.expect("starts");
    let text = written(factory, &running, "outcome").await;
    provider.destroy(&spec.id).await.expect("ends");
    text
}

/// The runner gets its arguments, and neither variables nor descriptors nor ignored signals of the platform.
pub async fn the_environment_is_clean(factory: &impl Factory) {
    let script = "#!/bin/sh\nfor fd in /proc/$$/fd/*; do readlink $fd; done >fds\n\
        { echo \"$@\"; pwd; stat -c %a .; ps -o sid= -p $$; env | cut -d= -f1 | sort | tr '\\n' ' '; echo\n\
        tr '\\n' ' ' <fds; echo; grep -E 'Sig(Blk|Ign)' /proc/$$/status | cut -f2 | tr '\\n' ' '; echo; } >fresh\n\
        mv fresh outcome\nexec tail -f outcome\n";
    let spec = spec(factory, script);
    // Left open across exec, as by a careless program that starts the platform.
    let _leak = nix::unistd::pipe().expect("descriptors are left");
    let text = outcome(factory, &spec).await;
    let lines: Vec<&str> = text.lines().collect();
    let [arguments, cwd, mode, session, variables, descriptors, signals] = lines[..] else {
        panic!("seven lines, but {text}");
    };
    let expected = format!(
        "--socket {} --sandbox {} --work {cwd} --orphan-grace-ms {}",
        factory.socket(&spec, arguments.split(' ').nth(1).unwrap_or_default()).display(),
        spec.id,
        spec.orphan_grace_ms
    );
    assert_eq!(arguments, expected);
    // Who sees the directory at all is its kind's affair; nobody else may change it.
    assert!(["700", "755"].contains(&mode), "{mode}");
    let own = nix::unistd::getsid(None).expect("every process has one");
    assert_ne!(session.trim(), own.to_string(), "a session of its own");
    let allowed = [
        "HOME",
        "HOSTNAME",
        "HYPERCODE_SANDBOX_DIR",
        "LANG",
        "OLDPWD",
        "PATH",
        "PWD",
        "SHLVL",
        "TMPDIR",
        "_",
    ];
    for variable in variables.split_whitespace() {
        assert!(allowed.contains(&variable), "`{variable}` of `{variables}`");
    }
    for descriptor in descriptors.split_whitespace() {
        assert!(factory.may_hold(&spec, descriptor), "`{descriptor}` of `{descriptors}`");
    }
    for mask in signals.split_whitespace() {
        let mask = u64::from_str_radix(mask, 16).expect(mask);
        assert_eq!(mask & STANDARD_SIGNALS, 0, "blocked and ignored: {signals}");
    }
}

/// A process cannot open more files than allowed.
pub async fn open_files_are_limited(factory: &impl Factory) {
    let script = "#!/usr/bin/env python3\nimport errno, time\nheld = []\ntry:\n  for _ in range(1000): \
                  held.append(open('/dev/null'))\n  outcome = 'unlimited'\nexcept OSError as error:\n  \
                  outcome = errno.errorcode[error.errno] + ' ' + str(len(held))\nheld.clear()\n\
                  open('fresh', 'w').write(outcome)\nimport os\nos.rename('fresh', 'outcome')\ntime.sleep(600)\n";
    let mut spec = spec(factory, script);
    spec.resources.open_files = 64;
    let text = outcome(factory, &spec).await;
    let opened: u32 = text.strip_prefix("EMFILE ").and_then(|count| count.parse().ok()).expect(&text);
    assert!((32..64).contains(&opened), "{text}");
}

/// Fills memory in a child, which says how many mebibytes it got before it was refused more, or killed.
const GREEDY: &str = r"#!/usr/bin/env python3
import os, time
counter, count = os.pipe()
if os.fork() == 0:
    held = []
    try:
        for _ in range(512):
            held.append(b'x' * (1 << 20))
            os.write(count, b'.')
    except MemoryError:
        pass
    os._exit(0)
os.close(count)
got = sum(len(read) for read in iter(lambda: os.read(counter, 512), b''))
open('fresh', 'w').write(str(got))
os.rename('fresh', 'outcome')
time.sleep(600)
";

/// A process cannot use more memory than allowed, and has use of most of what is.
pub async fn memory_is_limited(factory: &impl Factory) {
    let mut spec = spec(factory, GREEDY);
    spec.resources.memory_bytes = 128 << 20;
    let text = outcome(factory, &spec).await;
    let mebibytes: u32 = text.parse().expect(&text);
    assert!((64..128).contains(&mebibytes), "{text}");
}

/// A file cannot grow beyond what the work directory may hold, and may hold most of that.
pub async fn file_size_is_limited(factory: &impl Factory) {
    let script = "#!/bin/sh\n( head -c 9000000 /dev/zero >big ) 2>/dev/null\nsize=$(stat -c %s big)\nrm big\n\
                  echo $size >fresh\nmv fresh outcome\nexec tail -f outcome\n";
    let mut spec = spec(factory, script);
    spec.resources.work_bytes = 1 << 20;
    let size: u64 = outcome(factory, &spec).await.trim().parse().expect("a number");
    assert!(((1 << 19)..=(1 << 20)).contains(&size), "{size}");
}
