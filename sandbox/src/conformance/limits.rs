//! Laws of what a sandbox is given and held to.

use super::{Factory, instance, spec, written};
use crate::{Provider, Spec};

/// Those of signal(7) that are no real-time signals: 1 to 31.
const STANDARD_SIGNALS: u64 = 0x7fff_ffff;

async fn outcome(factory: &impl Factory, spec: &Spec) -> String {
    let provider = factory.open(&instance()).await;
    let running = provider.create(spec).await.expect("starts");
    let text = written(&running, "outcome").await;
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
        spec.socket.display(),
        spec.id,
        spec.orphan_grace_ms
    );
    assert_eq!(arguments, expected);
    assert_eq!(mode, "700");
    let own = nix::unistd::getsid(None).expect("every process has one");
    assert_ne!(session.trim(), own.to_string(), "a session of its own");
    let allowed = ["HOME", "HYPERCODE_SANDBOX_DIR", "LANG", "OLDPWD", "PATH", "PWD", "SHLVL", "TMPDIR", "_"];
    for variable in variables.split_whitespace() {
        assert!(allowed.contains(&variable), "`{variable}` of `{variables}`");
    }
    for descriptor in descriptors.split_whitespace() {
        let own = descriptor == "/dev/null" || descriptor.contains(spec.id.as_str());
        assert!(own, "`{descriptor}` of `{descriptors}`");
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

/// A process cannot use more memory than allowed, and has use of most of what is.
pub async fn memory_is_limited(factory: &impl Factory) {
    let script = "#!/usr/bin/env python3\nimport time\nheld = []\noutcome = 'unlimited'\ntry:\n  for _ in \
                  range(512): held.append(bytearray(1 << 20))\nexcept MemoryError:\n  count = len(held)\n  \
                  held.clear()\n  outcome = str(count)\nopen('fresh', 'w').write(outcome)\nimport os\n\
                  os.rename('fresh', 'outcome')\ntime.sleep(600)\n";
    let mut spec = spec(factory, script);
    spec.resources.memory_bytes = 128 << 20;
    let text = outcome(factory, &spec).await;
    let mebibytes: u32 = text.parse().expect(&text);
    assert!((64..128).contains(&mebibytes), "{text}");
}

/// A file cannot grow beyond what the work directory may hold.
pub async fn file_size_is_limited(factory: &impl Factory) {
    let script = "#!/bin/sh\n( head -c 9000000 /dev/zero >big ) 2>/dev/null\nstat -c %s big >fresh\n\
                  mv fresh outcome\nexec tail -f outcome\n";
    let mut spec = spec(factory, script);
    spec.resources.work_bytes = 1 << 20;
    assert_eq!(outcome(factory, &spec).await.trim(), (1 << 20).to_string());
}
