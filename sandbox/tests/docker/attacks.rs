//! What hostile code in a sandbox tries, and what becomes of it.

use hypercode_sandbox::conformance::{Factory, assert_gone, exit_of, instance, spec, written};
use hypercode_sandbox::{Docker, Error, Provider, Running, Signal, Spec, Target};
use serde_json::{Value, json};

use crate::support::{Place, docker};

/// Says in the work directory what came of each attempt: the name of the error, or what was got.
const PRELUDE: &str = r#"#!/usr/bin/env python3
import ctypes, errno, json, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attempt(name, deed):
    try:
        found[name] = str(deed())
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error))
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), '')
    return 'done'
def tell():
    open('fresh', 'w').write(json.dumps(found))
    os.rename('fresh', 'outcome')
    time.sleep(600)
"#;

/// Starts the script in a sandbox, and answers with what it found out.
async fn found(place: &Place, provider: &Docker, body: &str) -> Value {
    let spec = spec(place, &format!("{PRELUDE}{body}\ntell()\n"));
    let (_, outcome) = tried(place, provider, &spec).await;
    provider.destroy(&spec.id).await.unwrap();
    outcome
}

async fn tried(place: &Place, provider: &Docker, spec: &Spec) -> (Running, Value) {
    let running = provider.create(spec).await.unwrap();
    let outcome = written(place, &running, "outcome").await;
    (running, serde_json::from_str(&outcome).unwrap())
}

/// T19, T21 to T23: nothing answers, for there is no network; no name is resolved.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_network() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let body = r"
def connect(host, port):
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as link:
        link.settimeout(5)
        link.connect((host, port))
def send(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.sendto(b'x', (host, 53))
for host in ['1.1.1.1', '172.17.0.1', '172.17.0.2', '10.0.0.1', '192.168.0.1', '169.254.169.254', '2001:db8::1', 'fe80::1']:
    for port in [53, 80, 2375, 4222, 5432]:
        attempt(f'{host}:{port}', lambda: connect(host, port))
for host in ['1.1.1.1', '172.17.0.1', '224.0.0.1', '255.255.255.255']:
    attempt(f'udp {host}', lambda: send(host))
attempt('own dns', lambda: connect('127.0.0.11', 53))
attempt('host loopback', lambda: connect('127.0.0.1', 7400))
try:
    socket.getaddrinfo('stolen.example.org', 80)
    found['name'] = 'resolved'
except socket.gaierror:
    found['name'] = 'unknown'
found['devices'] = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
";
    let mut outcome = found(&place, &provider, body).await;
    let outcome = outcome.as_object_mut().unwrap();
    assert_eq!(outcome.remove("devices"), Some(json!(["lo"])));
    assert_eq!(outcome.remove("name"), Some(json!("unknown")));
    for local in ["own dns", "host loopback"] {
        assert_eq!(outcome.remove(local), Some(json!("ECONNREFUSED")), "{local}");
    }
    for (attempt, result) in outcome {
        let unreachable =
            ["ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "EACCES"].contains(&result.as_str().unwrap());
        assert!(unreachable, "{attempt}: {result}");
    }
}

/// T20, T24: no way into the kernel, no socket of other families, no other user.
#[tokio::test(flavor = "multi_thread")]
async fn no_privilege_can_be_used_or_gained() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let body = r"
calls = dict(ptrace=101, syslog=103, setuid=105, mknod=133, pivot_root=155, chroot=161, settimeofday=164, mount=165,
    umount2=166, swapon=167, reboot=169, sethostname=170, iopl=172, init_module=175, delete_module=176, quotactl=179,
    clock_settime=227, mbind=237, kexec_load=246, add_key=248, request_key=249, keyctl=250, unshare=272,
    move_pages=279, perf_event_open=298, open_by_handle_at=304, setns=308, process_vm_readv=310, process_vm_writev=311,
    kcmp=312, finit_module=313, bpf=321, userfaultfd=323, io_uring_setup=425, open_tree=428, move_mount=429,
    fsopen=430, pidfd_getfd=438, mount_setattr=442)
for name, number in calls.items():
    attempt(name, lambda: call(number, 0, 0, 0, 0, 0))
attempt('user namespace', lambda: call(56, 0x10000000 | 17, 0, 0, 0, 0))
for name, family in dict(packet=17, vsock=40, alg=38, netlink_audit=16, bluetooth=31).items():
    attempt(name, lambda: socket.socket(family, socket.SOCK_RAW, 9 if family == 16 else 0))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
found['status'] = {line.split(':')[0]: line.split(':')[1].strip() for line in open('/proc/self/status')
    if line.split(':')[0] in ['CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Uid', 'Groups']}
";
    let mut outcome = found(&place, &provider, body).await;
    let outcome = outcome.as_object_mut().unwrap();
    let status = outcome.remove("status").unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Seccomp"].as_str()), (Some("1"), Some("2")));
    assert_eq!(status["Uid"], "10001\t10001\t10001\t10001");
    for (attempt, result) in outcome {
        assert_eq!(result, "EPERM", "{attempt}");
    }
}

/// T25, T28, T29: nothing can be written but what is its own, and nothing tells of others.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_there_to_change_or_to_read() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let body = r"
def write(path, text='x'):
    with open(path, 'w') as file: file.write(text)
for path in ['/x', '/etc/passwd', '/usr/bin/x', '/hypercode/x', '/hypercode/hypercode-runner', '/run/hypercode/x',
        '/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/fs/cgroup/x', '/sys/kernel/x', '/dev/x']:
    attempt(path, lambda: write(path))
attempt('/proc/1/oom_score_adj', lambda: write('/proc/1/oom_score_adj', '-1000'))
attempt('unlink', lambda: os.unlink('/run/hypercode/s'))
attempt('rename', lambda: os.rename('/run/hypercode/s', '/run/hypercode/t'))
attempt('bind', lambda: socket.socket(socket.AF_UNIX).bind('/run/hypercode/t'))
found['run'] = sorted(os.listdir('/run')), sorted(os.listdir('/run/hypercode'))
found['pids'] = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())
found['environment'] = sorted(line.split('=')[0] for line in open('/proc/1/environ').read().split('\0') if line)
found['firmware'] = os.listdir('/sys/firmware')
for path in ['/proc/kcore', '/proc/keys', '/proc/timer_list']:
    attempt('read ' + path, lambda: open(path, 'rb').read(1))
";
    let text = format!("{PRELUDE}{body}\ntell()\n");
    let spec = spec(&place, &text);
    std::fs::write(&spec.socket, "a stand-in").unwrap();
    let (_, mut outcome) = tried(&place, &provider, &spec).await;
    let outcome = outcome.as_object_mut().unwrap();
    assert_eq!(outcome.remove("run"), Some(json!([["hypercode"], ["boot", "s"]])));
    assert_eq!(outcome.remove("pids"), Some(json!([1])));
    assert_eq!(outcome.remove("environment"), Some(json!(["HOME", "HOSTNAME", "LANG", "PATH", "TMPDIR"])));
    assert_eq!(outcome.remove("firmware"), Some(json!([])), "it is covered");
    // What this host's kernel does not have cannot be written to.
    outcome.retain(|attempt, result| result != "ENOENT" || std::path::Path::new(attempt).exists());
    for (attempt, result) in outcome {
        let right: &[&str] = match attempt.starts_with("read ") {
            // What the daemon covers is empty, where this kernel has it.
            true => &["b''", "ENOENT", "EACCES", "EPERM"],
            false => &["EROFS", "EACCES", "EPERM"],
        };
        assert!(right.contains(&result.as_str().unwrap()), "{attempt}: {result}");
    }
    assert_eq!(std::fs::read_to_string(&spec.socket).unwrap(), "a stand-in");
    provider.destroy(&spec.id).await.unwrap();
}

/// T26: bombs go off inside, and only there.
#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_contained() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let body = r"
def fill(path, chunk):
    written = 0
    try:
        with open(path, 'wb', buffering=0) as file:
            while True: written += file.write(chunk)
    except OSError as error:
        found[path] = [errno.errorcode[error.errno], written]
    os.unlink(path)
fill('/tmp/big', b'x' * 65536)
fill('/dev/shm/big', b'x' * 65536)
fill('/workspace/big', b'x' * 65536)
files = 0
try:
    while True:
        open(f'/tmp/{files}', 'w').close()
        files += 1
except OSError as error:
    found['files'] = [errno.errorcode[error.errno], files]
held = []
try:
    while True: held.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    found['open'] = [errno.errorcode[error.errno], len(held)]
for descriptor in held: os.close(descriptor)
began, spent = time.monotonic(), time.process_time()
while time.monotonic() - began < 2: pass
found['cpu'] = (time.process_time() - spent) / (time.monotonic() - began)
children = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        children += 1
except OSError as error:
    found['fork'] = [errno.errorcode[error.errno], children]
";
    let mut spec = spec(&place, &format!("{PRELUDE}{body}\ntell()\n"));
    spec.resources.work_bytes = 8 << 20;
    spec.resources.open_files = 128;
    spec.resources.pids = 32;
    spec.resources.cpu_millis = 250;
    let (_, outcome) = tried(&place, &provider, &spec).await;
    let limited = |name: &str, error: &str, most: u64| {
        assert_eq!(outcome[name][0], error, "{name}");
        let got = outcome[name][1].as_u64().unwrap();
        assert!(got <= most && got >= most / 2, "{name}: {got} of {most}");
    };
    limited("/tmp/big", "ENOSPC", 16 << 20);
    limited("/dev/shm/big", "ENOSPC", 8 << 20);
    limited("/workspace/big", "ENOSPC", 8 << 20);
    limited("files", "ENOSPC", 1024);
    limited("open", "EMFILE", 128);
    limited("fork", "EAGAIN", 32);
    assert!(outcome["cpu"].as_f64().unwrap() < 0.4, "{}", outcome["cpu"]);
    provider.destroy(&spec.id).await.unwrap();
    assert_gone(&spec.id, "the bombs");
}

/// T26: a runner that takes more memory than it has is killed, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn want_of_memory_is_told() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let mut exits = provider.exits();
    let mut spec =
        spec(&place, "#!/usr/bin/env python3\nheld = []\nwhile True: held.append(b'x' * (1 << 20))\n");
    spec.resources.memory_bytes = 64 << 20;
    provider.create(&spec).await.unwrap();
    let exit = exit_of(&mut exits, &spec.id).await;
    assert_eq!((exit.code, exit.signal, exit.oom), (None, Some(9), true));
    provider.destroy(&spec.id).await.unwrap();
}

/// T27: however much is said, little is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_log_stays_small() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let script =
        "#!/bin/sh\nhead -c 67108864 /dev/zero | tr '\\0' 'x' >&2\necho yes >ready\nexec tail -f ready\n";
    let spec = spec(&place, script);
    let running = provider.create(&spec).await.unwrap();
    written(&place, &running, "ready").await;
    let log = docker(&["inspect", "--format", "{{.LogPath}}", spec.id.as_str()]);
    let log = std::path::Path::new(log.trim());
    let files = std::fs::read_dir(log.parent().unwrap()).unwrap().flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().contains("json.log"));
    let bytes: u64 = logs.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 4 << 20, "{bytes}");
    provider.signal(&spec.id, Target::Runner, Signal::Kill).await.unwrap();
    provider.destroy(&spec.id).await.unwrap();
}

/// T31: what an image asks for changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_cannot_loosen_anything() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let name = format!("hypercode-tests/hostile:{}", std::process::id());
    let context = place.scratch().join("hostile");
    std::fs::create_dir(&context).unwrap();
    let lines = [
        &format!("FROM {}", place.options(&instance()).image),
        "RUN cp /usr/bin/id /usr/bin/root-id && chmod 4755 /usr/bin/root-id && mkdir /data",
        "USER 0",
        "VOLUME /data",
        "ENV LD_PRELOAD=/nonexistent.so PYTHONSTARTUP=/data/x PATH=/usr/bin:/data",
        "HEALTHCHECK --interval=1s CMD touch /tmp/checked",
        "ENTRYPOINT [\"/bin/false\"]",
        "CMD [\"--privileged\"]",
    ];
    std::fs::write(context.join("Dockerfile"), lines.join("\n")).unwrap();
    docker(&["build", "--quiet", "--network", "none", "--tag", &name, context.to_str().unwrap()]);
    let body = r"
import subprocess
found['id'] = subprocess.run(['/usr/bin/root-id', '-u'], capture_output=True, text=True).stdout.strip()
found['environment'] = sorted(os.environ)
found['path'] = os.environ['PATH']
found['data'] = [line.split()[2] for line in open('/proc/mounts') if line.split()[1] == '/data']
";
    let mut spec = spec(&place, &format!("{PRELUDE}{body}\ntell()\n"));
    spec.image = Some(name.clone());
    let (_, outcome) = tried(&place, &provider, &spec).await;
    assert_eq!(outcome["id"], "10001", "a set-user-id program gains nothing");
    assert_eq!(outcome["data"], json!(["tmpfs"]), "a volume is bounded memory");
    assert_eq!(outcome["environment"], json!(["HOME", "HOSTNAME", "LANG", "PATH", "TMPDIR"]));
    assert_eq!(outcome["path"], "/usr/bin:/data");
    let health = docker(&["inspect", "--format", "{{json .Config.Healthcheck.Test}}", spec.id.as_str()]);
    assert_eq!(health.trim(), "[\"NONE\"]");
    provider.destroy(&spec.id).await.unwrap();
    docker(&["rmi", "--force", &name]);

    spec.id = hypercode_sandbox::conformance::fresh_id();
    let error = provider.create(&spec).await.unwrap_err();
    assert!(
        matches!(error, Error::Image { .. }) && error.to_string().contains("is not at the Docker daemon"),
        "{error}"
    );
}

/// T31: an image that is too large is not used.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_a_largest_size() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    let mut options = place.options(&instance());
    let image = options.image.clone();
    assert!(provider.pin(&image).await.unwrap().is_some_and(|id| id.starts_with("sha256:")));
    options.limits.image_bytes_max = 1_000;
    let provider = Docker::open(options).await.unwrap();
    let error = provider.create(&spec(&place, "#!/bin/sh\n")).await.unwrap_err();
    assert!(error.to_string().contains("at most 1000 are allowed"), "{error}");
}
