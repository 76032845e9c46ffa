//! A canary: a program in a sandbox of its own that tries what must not be possible there, before any agent may.

mod network;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getpid, getuid, setresuid};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use self::network::Ears;
use super::{LINK, WORK};
use crate::{Exit, Id, Labels, Provider, Resources, Runner, Spec};

/// The name by which the `hypercode` binary knows that it is to be a canary.
pub const CANARY: &str = "hypercode-canary";

/// In the directory of its socket: the host's paths that a canary must not see, one a line.
const HIDDEN: &str = "hidden";

/// How long a canary may take. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// What may be written nowhere but by the host.
const READ_ONLY: [&str; 7] = [
    "/x",
    "/usr/x",
    "/etc/x",
    "/dev/x",
    "/run/hypercode/x",
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
];

/// Starts a canary in a sandbox of `provider`, and has it look for a way out.
///
/// `program` calls [`canary_main`] when its name is [`CANARY`]; `directory` is empty, and must not be seen under its
/// own path, no more than any of `hidden`. Where sandboxes come to the platform over a network, it is tried as well.
///
/// # Errors
/// Why sandboxes of this kind cannot be trusted here: one cannot be started, or something got through.
pub async fn prove(
    provider: &dyn Provider,
    program: &Path,
    directory: &Path,
    hidden: &[&Path],
    has_network: bool,
) -> Result<(), String> {
    let mut lines = String::new();
    for path in hidden.iter().copied().chain([directory]) {
        lines += &format!("{}\n", path.display());
    }
    let unprepared = |error: io::Error| format!("cannot prepare a canary: {error}");
    let seen = if has_network { directory.join(link::bootstrap::DIRECTORY) } else { directory.to_owned() };
    let open_to_all = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let list = seen.join(HIDDEN);
    fs::create_dir_all(&seen)
        .and_then(|()| fs::write(&list, lines))
        .and_then(|()| open_to_all(&list, 0o644))
        .and_then(|()| open_to_all(&seen, 0o755))
        .and_then(|()| open_to_all(directory, 0o755))
        .map_err(unprepared)?;
    let ears = has_network.then(|| Ears::open(&seen)).transpose().map_err(unprepared)?;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let id = Id::new(format!("canary-{}-{now:x}", std::process::id())).map_err(|error| error.to_string())?;
    let spec = Spec {
        id: id.clone(),
        labels: Labels::default(),
        socket: directory.join("s"),
        image: None,
        runtime: None,
        resources: Resources::default(),
        orphan_grace_ms: 0,
        runner: Runner { program: program.to_owned(), argv0: CANARY.to_owned() },
    };
    let mut exits = provider.exits();
    let sung = match provider.create(&spec).await {
        Ok(_) => timeout(PATIENCE, exit_of(&mut exits, &id)).await.unwrap_or(None),
        Err(error) => {
            let _ = provider.destroy(&id).await;
            return Err(format!("failed to {error}"));
        }
    };
    provider.destroy(&id).await.map_err(|error| format!("failed to {error}"))?;
    if let Some(heard) = ears.and_then(|ears| ears.heard()) {
        return Err(heard);
    }
    match sung {
        Some(Exit { code: Some(0), .. }) => Ok(()),
        Some(Exit { log, .. }) if !log.is_empty() => Err(log.replace('\n', "; ")),
        Some(exit) => Err(format!("a canary ended with {:?} and signal {:?}", exit.code, exit.signal)),
        None => Err("a canary did not come to its end".to_owned()),
    }
}

async fn exit_of(exits: &mut Receiver<Exit>, id: &Id) -> Option<Exit> {
    loop {
        let exit = exits.recv().await.ok()?;
        if exit.id == *id {
            return Some(exit);
        }
    }
}

/// The canary's whole life, with `args` as a runner gets them: it says on standard error what got through, and
/// fails then.
pub fn canary_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let relay =
        args.into_iter().find_map(|arg| arg.to_str()?.strip_prefix(link::bootstrap::TCP)?.parse().ok());
    let found = breaches(relay);
    let mut stderr = io::stderr();
    for breach in &found {
        let _ = writeln!(stderr, "{breach}");
    }
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All that a sandbox must not be able to do and this one is.
fn breaches(relay: Option<SocketAddr>) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let devices = table.lines().skip(2).filter_map(|line| Some(line.trim().split_once(':')?.0));
    let networks: Vec<&str> = devices.filter(|name| *name != "lo").collect();
    let device = networks.first().copied().unwrap_or_default();
    let of_network = network::breaches(Path::new(LINK), relay, device);
    let networks_right = usize::from(of_network.is_some());
    let mut found = of_network.unwrap_or_default();
    let mut must = |holds: bool, breach: String| {
        if !holds {
            found.push(breach);
        }
    };
    must(
        !getuid().is_root() && getpid().as_raw() == 1,
        format!("it is user {} and process {}", getuid(), getpid()),
    );
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, right) in [
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":"));
        let value = value.unwrap_or_default().trim();
        must(value == right, format!("{field} is `{value}`"));
    }
    let names = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let others =
        names.filter(|name| name.to_str().is_some_and(|name| name.parse().is_ok_and(|pid: u32| pid != 1)));
    let others = others.count();
    must(others == 0, format!("it sees {others} other processes"));
    must(networks.len() == networks_right, format!("it has {} network devices", networks.len()));
    let hidden = fs::read_to_string(Path::new(LINK).join(HIDDEN)).unwrap_or_default();
    must(!hidden.is_empty(), format!("it cannot read in `{LINK}`"));
    for path in hidden.lines() {
        must(!Path::new(path).exists(), format!("it sees `{path}` of the host"));
    }
    for path in READ_ONLY {
        let opened = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
        must(opened.is_err(), format!("it writes to `{path}`"));
    }
    must(unshare(CloneFlags::CLONE_NEWUSER).is_err(), "it makes a user namespace".to_owned());
    let nothing = None::<&str>;
    let mounted = mount(nothing, "/tmp", Some("tmpfs"), MsFlags::empty(), nothing);
    must(mounted.is_err(), "it mounts".to_owned());
    let root = Uid::from_raw(0);
    must(setresuid(root, root, root).is_err(), "it becomes root".to_owned());
    must(fs::write(Path::new(WORK).join("x"), "x").is_ok(), format!("it cannot write to `{WORK}`"));
    found
}
