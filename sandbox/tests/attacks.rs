//! Attacks from within a native sandbox, each tried for real by its first process. The numbers are those of the
//! threats that the project's security tests are listed by.
#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hypercode_sandbox::conformance::{Factory, assert_gone, exit_of, instance, spec, written};
use hypercode_sandbox::{Confinement, Exit, Instance, Kept, Options, Provider, Running, Spec, State};
use serde_json::json;
use tempfile::TempDir;

const STUB: &str = env!("CARGO_BIN_EXE_sandbox-stub");
const ATTACK: &str = include_str!("attacks/attack.py");
const DENIED: &str = include_str!("attacks/denied.txt");

/// A sandbox to attack from, one beside it, and a host with something to reach.
struct Range {
    dir: TempDir,
    loopback: TcpListener,
    anywhere: TcpListener,
    _abstract: UnixListener,
    abstract_name: String,
}

#[async_trait]
impl Factory for Range {
    type Provider = Kept;

    async fn open(&self, instance: &Instance) -> Kept {
        let mut options = Options::new(self.dir.path().join("sandboxes"), instance.clone());
        options.keeper = PathBuf::from(STUB);
        options.confinement = Some(Confinement::new());
        Kept::open(options).await.unwrap()
    }

    fn scratch(&self) -> &Path {
        self.dir.path()
    }

    fn work(&self, running: &Running) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", running.runner.unwrap().pid, running.work.display()))
    }
}

impl Range {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let abstract_name = format!("hypercode-attack-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        fs::write(dir.path().join("secret"), "the host's").unwrap();
        Self {
            dir,
            loopback: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            anywhere: TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap(),
            _abstract: UnixListener::bind_addr(&address).unwrap(),
            abstract_name,
        }
    }

    /// A sandbox that carries out these attacks, and the gateway's end of its link.
    fn spec(&self, attacks: &[&str]) -> (Spec, UnixListener) {
        let spec = spec(self, &format!("#!/usr/bin/env python3\n{ATTACK}"));
        let link = UnixListener::bind(&spec.socket).unwrap();
        fs::set_permissions(&spec.socket, fs::Permissions::from_mode(0o666)).unwrap();
        let told = json!({
            "attacks": attacks,
            "address": own_address(),
            "port": self.anywhere.local_addr().unwrap().port(),
            "abstract": self.abstract_name,
            "other": self.dir.path().join("other/s"),
            "secret": self.dir.path().join("secret"),
            "pid": std::process::id(),
        });
        fs::write(spec.socket.with_file_name("told.json"), told.to_string()).unwrap();
        (spec, link)
    }

    /// What came of these attacks, line by line.
    async fn outcome(&self, attacks: &[&str]) -> String {
        let provider = self.open(&instance()).await;
        let (spec, _link) = self.spec(attacks);
        let running = provider.create(&spec).await.unwrap();
        let text = written(self, &running, "outcome").await;
        provider.destroy(&spec.id).await.unwrap();
        assert_gone(&spec.id, "after the attack");
        text
    }
}

/// An address of this host by which its services can be reached, should it have another than loopback.
fn own_address() -> String {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: the kernel only chooses by which address it would be.
    let _ = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9));
    socket.local_addr().unwrap().ip().to_string()
}

fn result<'a>(outcome: &'a str, name: &str) -> &'a str {
    let found = outcome.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("nothing came of `{name}` in\n{outcome}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_t21_t23_no_host_no_peer_and_nothing_outside_is_reached() {
    let range = Range::new();
    let outcome = range.outcome(&["network"]).await;
    for (target, errors) in [
        ("loopback", ["ECONNREFUSED", ""]),
        ("host", ["ENETUNREACH", "ECONNREFUSED"]),
        ("outside", ["ENETUNREACH", ""]),
        ("metadata", ["ENETUNREACH", ""]),
        ("an abstract socket", ["ECONNREFUSED", ""]),
        ("another's link", ["ENOENT", ""]),
    ] {
        let got = result(&outcome, &format!("connect to {target}"));
        assert!(errors.contains(&got), "{target}: {got}");
    }
    assert_eq!(result(&outcome, "connect to its own link"), "done", "its one way out");
    assert_eq!(result(&outcome, "devices"), "lo");
    for listener in [&range.loopback, &range.anywhere] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_t24_what_reaches_into_the_kernel_is_denied() {
    assert_eq!(Range::new().outcome(&["calls"]).await, DENIED);
}

#[tokio::test(flavor = "multi_thread")]
async fn t25_t29_nothing_is_written_but_its_own_and_nothing_of_the_host_is_seen() {
    let outcome = Range::new().outcome(&["files"]).await;
    for line in outcome.lines() {
        let (what, got) = line.split_once(": ").unwrap();
        let is_refused = match what.split(' ').next().unwrap() {
            "write" | "remove" => ["EROFS", "EACCES", "ENOENT"].contains(&got),
            "replace" => ["EROFS", "EXDEV", "EACCES"].contains(&got),
            "see" => got == "ENOENT",
            "read" => ["0", "EACCES", "ENOENT"].contains(&got),
            _ => got == "none",
        };
        assert!(is_refused, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t28_it_sees_itself_alone_and_no_path_of_the_host() {
    let outcome = Range::new().outcome(&["processes"]).await;
    assert_eq!(result(&outcome, "processes"), "1");
    assert_eq!(result(&outcome, "parent"), "0", "its keeper is nowhere");
    assert_eq!(result(&outcome, "signal the host"), "ESRCH");
    assert_eq!(result(&outcome, "the host's paths in its environment"), "False");
    let allowed = ["HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR"];
    for variable in result(&outcome, "read its own environment").split(' ') {
        assert!(allowed.contains(&variable), "{variable}");
    }
}

/// Bombs go off within their sandbox, and the one beside it does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn t26_bombs_are_bounded_and_the_neighbour_is_unharmed() {
    let range = Range::new();
    let provider = range.open(&instance()).await;
    let (neighbour, _its_link) = range.spec(&["network"]);
    let beside = provider.create(&neighbour).await.unwrap();
    let (mut bomb, _link) = range.spec(&["forks", "space"]);
    bomb.resources.pids = 40;
    let running = provider.create(&bomb).await.unwrap();
    let outcome = written(&range, &running, "outcome").await;

    let (error, count) = result(&outcome, "forks").split_once(' ').unwrap();
    assert!(error == "EAGAIN" && count.parse::<u32>().unwrap() < 40, "{outcome}");
    for (path, mebibytes) in [("/tmp/x", 16), ("/dev/shm/x", 8)] {
        let (error, size) = result(&outcome, &format!("fill {path}")).split_once(' ').unwrap();
        assert!(error == "ENOSPC" && size.parse::<u32>().unwrap() <= mebibytes, "{outcome}");
    }
    let (error, count) = result(&outcome, "files").split_once(' ').unwrap();
    assert!(error == "ENOSPC" && count.parse::<u32>().unwrap() <= 1024, "{outcome}");

    assert!(written(&range, &beside, "outcome").await.contains("devices: lo"));
    let found = provider.find(&neighbour.id).await.unwrap().unwrap();
    assert_eq!(found.state, State::Running(beside.runner));
    for id in [&bomb.id, &neighbour.id] {
        provider.destroy(id).await.unwrap();
    }
}

/// Where control groups hold a sandbox's memory as a whole, the kernel kills in it, and that is reported.
#[tokio::test(flavor = "multi_thread")]
async fn t26_memory_is_bounded_as_a_whole_where_the_platform_says_so() {
    let range = Range::new();
    let provider = range.open(&instance()).await;
    let mut exits = provider.exits();
    let (mut spec, _link) = range.spec(&["memory"]);
    spec.resources.memory_bytes = 128 << 20;
    let running = provider.create(&spec).await.unwrap();
    if provider.isolation().held.contains(&"total memory") {
        assert_eq!(result(&written(&range, &running, "outcome").await, "memory"), "SIGKILL");
        provider.destroy(&spec.id).await.unwrap();
        assert!(exit_of(&mut exits, &spec.id).await.oom);
    } else {
        assert!(provider.isolation().not_held.iter().any(|what| what.starts_with("total memory")));
        provider.destroy(&spec.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_a_flood_of_output_ends_at_its_bound() {
    let range = Range::new();
    let provider = range.open(&instance()).await;
    let (mut spec, _link) = range.spec(&["flood"]);
    spec.resources.work_bytes = 8 << 20;
    let running = provider.create(&spec).await.unwrap();
    let outcome = written(&range, &running, "outcome").await;
    assert_eq!(result(&outcome, "flood 1"), "done", "its stdout leads nowhere");
    assert_eq!(result(&outcome, "flood 2"), "EFBIG");
    let log = range.dir.path().join("sandboxes").join(spec.id.as_str()).join("runner.log");
    assert!(fs::metadata(&log).unwrap().len() <= 8 << 20);
    provider.destroy(&spec.id).await.unwrap();
}

/// A daemon that leaves its session and blocks every signal ends with the first process, which has exited with 0.
#[tokio::test(flavor = "multi_thread")]
async fn t34_a_daemon_does_not_outlive_its_sandbox() {
    let range = Range::new();
    let provider = range.open(&instance()).await;
    let mut exits = provider.exits();
    let (spec, _link) = range.spec(&["daemon"]);
    provider.create(&spec).await.unwrap();
    let Exit { code, .. } = exit_of(&mut exits, &spec.id).await;
    assert_eq!(code, Some(0));
    assert_gone(&spec.id, "the daemon");
    provider.destroy(&spec.id).await.unwrap();
}

/// A killed keeper takes its sandbox with it at once, without the platform's help.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_ends_with_its_killed_keeper() {
    let range = Range::new();
    let provider = range.open(&instance()).await;
    let (spec, link) = range.spec(&["network"]);
    let running = provider.create(&spec).await.unwrap();
    written(&range, &running, "outcome").await;
    drop(provider);
    let birth = range.dir.path().join("sandboxes").join(spec.id.as_str()).join("birth.json");
    let birth: serde_json::Value = serde_json::from_slice(&fs::read(birth).unwrap()).unwrap();
    let keeper = i32::try_from(birth["keeper"]["pid"].as_i64().unwrap()).unwrap();
    let raw = nix::unistd::Pid::from_raw;
    nix::sys::signal::kill(raw(keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
    // The attacker connected once; its end of the line is closed with it.
    link.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap();
    hypercode_sandbox::conformance::until("all of it is gone", || {
        hypercode_sandbox::conformance::alive(&spec.id).is_empty().then_some(())
    })
    .await;
    range.open(&instance()).await.destroy(&spec.id).await.unwrap();
}
