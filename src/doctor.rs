//! What this machine offers, what is missing, and how to mend it.

mod bus;
mod docker;
pub(crate) mod sinks;
pub(crate) mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

use events::store::postgres::{Database, Postgres};
use events::store::sqlite;
use sandbox::{Instance, Isolation, Kept, Kind, Provider as _};
use serde::Serialize;
use tokio::process::Command;

use crate::config::{Config, SandboxKind};
use crate::{http, room, sandboxes};

/// Free space below which the log may soon find no room, in MiB.
const FREE_MIB_LEAST: u64 = 1_024;
/// Open files that a platform with a few hundred agents needs.
const OPEN_FILES_LEAST: u64 = 4_096;
/// What to do where agents are isolated from nothing.
const NOT_ISOLATED: &str = "run only handlers that you would run yourself";
/// How long a program may take to say its version.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not everything, or not safely.
    Warning,
    /// The platform cannot run so.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is to be taken.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// How to mend it; empty where there is nothing to mend.
    pub mend: &'static str,
}

impl Finding {
    /// A finding.
    pub fn new(what: &'static str, verdict: Verdict, found: impl Into<String>, mend: &'static str) -> Self {
        Self { what, verdict, found: found.into(), mend }
    }
}

/// What a platform says that runs.
#[derive(Clone, Debug, Default)]
pub enum Said<T> {
    /// This.
    This(T),
    /// That whoever asks may not look. What is there without a platform says nothing of one that runs.
    Denied,
    /// Nothing: none answers, or it does not know what it is asked.
    #[default]
    Nothing,
}

/// That whoever asks may not look at this.
pub(crate) fn denied(what: &'static str) -> Finding {
    let found = "the platform that runs does not show it to this token: it may not look";
    Finding::new(what, Verdict::Warning, found, "ask with a token that may, such as the administrator's")
}

/// Looks at everything that needs no platform; `running` is what the agents of one that runs are held to.
pub async fn examine(config: &Config, running: &Said<http::SandboxKind>) -> Vec<Finding> {
    let mut findings = vec![
        Finding::new("version", Verdict::Ok, format!("hypercode {}", env!("CARGO_PKG_VERSION")), ""),
        kernel(),
    ];
    findings.push(data_dir(&config.data_dir).await);
    if let Some(database) = &config.database_url {
        findings.push(self::database(database).await);
    }
    findings.extend(free_space(&config.data_dir));
    findings.push(open_files());
    findings.push(python().await);
    findings.push(match running {
        Said::This(sandbox) => isolation_of(sandbox),
        Said::Denied => denied("isolation"),
        Said::Nothing => isolation(config).await,
    });
    findings.push(control_groups());
    findings.push(user_namespaces());
    findings.extend(docker::examine(config).await);
    findings.extend(bus::examine(config).await);
    findings
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match release.trim() {
        "" => {
            Finding::new("kernel", Verdict::Error, "there is no /proc", "mount /proc: the sandboxes need it")
        }
        release => {
            Finding::new("kernel", Verdict::Ok, format!("Linux {release}, {}", std::env::consts::ARCH), "")
        }
    }
}

/// Opens and closes the log as the platform would: that says who has it, too.
async fn data_dir(dir: &Path) -> Finding {
    const WHAT: &str = "data directory";
    let shown = dir.display();
    if !dir.join(sqlite::LOG_FILE).exists() {
        let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or_else(|| Path::new("."));
        return match nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK) {
            Ok(()) => {
                Finding::new(WHAT, Verdict::Ok, format!("`{shown}` holds no log yet and can be made"), "")
            }
            Err(error) => {
                let found = format!("write to `{}`: {error}", existing.display());
                Finding::new(WHAT, Verdict::Error, found, "choose another one with `--data-dir`")
            }
        };
    }
    match sqlite::Sqlite::open(dir, sqlite::Options::default()).await {
        Ok(store) => {
            store.close().await;
            Finding::new(WHAT, Verdict::Ok, format!("`{shown}` can be used, and nobody uses it"), "")
        }
        Err(sqlite::OpenError::InUse { pid, .. }) => {
            let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            Finding::new(WHAT, Verdict::Ok, format!("`{shown}` is in use by {holder}"), "")
        }
        Err(error) => {
            Finding::new(WHAT, Verdict::Error, error.to_string(), "see what the message says of the file")
        }
    }
}

/// Looks at the database that holds the log, without changing anything in it.
async fn database(database: &Database) -> Finding {
    const WHAT: &str = "database";
    let standing = match Postgres::look(database).await {
        Ok(standing) => standing,
        Err(error) => {
            let mend = "see to it that the server runs, and that the URL names it, a role that may connect, and a database";
            return Finding::new(WHAT, Verdict::Error, error.to_string(), mend);
        }
    };
    let found = format!("`{database}`, {}", standing.server);
    match standing.schema {
        None => Finding::new(WHAT, Verdict::Ok, format!("{found}: it holds no log yet"), ""),
        Some(schema) if schema == standing.known => Finding::new(
            WHAT,
            Verdict::Ok,
            format!("{found}: the log is at position {}", standing.position),
            "",
        ),
        Some(schema) if schema < standing.known => {
            let found =
                format!("{found}: its schema {schema} is older than this program's {}", standing.known);
            Finding::new(WHAT, Verdict::Error, found, "run `hypercode migrate`")
        }
        Some(schema) => {
            let found =
                format!("{found}: its schema {schema} is newer than this program's {}", standing.known);
            Finding::new(WHAT, Verdict::Error, found, "use the newer program")
        }
    }
}

fn free_space(dir: &Path) -> Option<Finding> {
    let existing: PathBuf = dir.ancestors().find(|dir| dir.exists())?.to_owned();
    let free = room::free_kib(&existing)?;
    let (verdict, mend) = match free {
        ..room::KIB_LEAST => (Verdict::Error, "make room: nothing can be kept"),
        _ if free >> 10 < FREE_MIB_LEAST => (Verdict::Warning, "make room, or choose another data directory"),
        _ => (Verdict::Ok, ""),
    };
    let found = format!("{} MiB free at `{}`", free >> 10, existing.display());
    Some(Finding::new("free space", verdict, found, mend))
}

fn open_files() -> Finding {
    use nix::sys::resource::{Resource, getrlimit};
    const WHAT: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft < OPEN_FILES_LEAST => {
            let found = format!("at most {soft}, which may not do for hundreds of agents");
            Finding::new(WHAT, Verdict::Warning, found, "raise the limit with `ulimit -n 65536`")
        }
        Ok((soft, _)) => Finding::new(WHAT, Verdict::Ok, format!("at most {soft}"), ""),
        Err(error) => Finding::new(WHAT, Verdict::Warning, format!("read the limit: {error}"), ""),
    }
}

async fn python() -> Finding {
    const MEND: &str = "install it if your handlers are in Python, as those of deploy/examples are";
    let mut command = Command::new("python3");
    command.arg("--version").kill_on_drop(true);
    match tokio::time::timeout(VERSION_WAIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Finding::new("python3", Verdict::Ok, version, "")
        }
        Ok(Ok(output)) => {
            Finding::new("python3", Verdict::Warning, format!("it ended with {}", output.status), MEND)
        }
        Ok(Err(error)) => Finding::new("python3", Verdict::Warning, format!("start it: {error}"), MEND),
        Err(_) => Finding::new("python3", Verdict::Warning, "it does not answer", MEND),
    }
}

/// What the sandboxes hold agents to, in the provider's own words; of native ones only once a canary found no way out.
async fn isolation(config: &Config) -> Finding {
    const WHAT: &str = "isolation";
    let proven = sandboxes::proven(config).await;
    match (config.sandbox, proven) {
        (SandboxKind::Auto | SandboxKind::Native, Ok((_, isolation))) => {
            Finding::new(WHAT, Verdict::Ok, in_words(Kind::Native, &isolation), "")
        }
        (SandboxKind::Docker, _) => {
            Finding::new(WHAT, Verdict::Ok, "agents run in Docker containers; see `docker isolation`", "")
        }
        (SandboxKind::Native, Err(error)) => {
            Finding::new(WHAT, Verdict::Error, format!("failed to {error}"), "mend what the message names")
        }
        (_, proven) => {
            let why = match proven {
                Ok(_) => "they are asked for; native ones could be used here".to_owned(),
                Err(error) => format!("failed to {error}"),
            };
            match of_processes().await {
                Ok(isolation) => {
                    let found = format!("{}. why: {why}", in_words(Kind::Process, &isolation));
                    Finding::new(WHAT, Verdict::Warning, found, NOT_ISOLATED)
                }
                Err(reason) => Finding::new(WHAT, Verdict::Error, reason, "mend what the message names"),
            }
        }
    }
}

/// What the agents of a platform that runs are held to, whatever this command would choose.
fn isolation_of(sandbox: &http::SandboxKind) -> Finding {
    let found = format!("of the platform that runs: {}", told(sandbox));
    match sandbox.isolation == sandbox::Level::None.to_string() {
        true => Finding::new("isolation", Verdict::Warning, found, NOT_ISOLATED),
        false => Finding::new("isolation", Verdict::Ok, found, ""),
    }
}

fn in_words(kind: Kind, isolation: &Isolation) -> String {
    told(&http::SandboxKind::new(kind, isolation))
}

fn told(sandbox: &http::SandboxKind) -> String {
    let http::SandboxKind { kind, isolation, held, not_held } = sandbox;
    format!("{isolation} ({kind} sandboxes). held: {}. not held: {}", held.join("; "), not_held.join("; "))
}

async fn of_processes() -> Result<Isolation, String> {
    let root = tempfile::Builder::new().prefix("hypercode-doctor-").tempdir();
    let root = root.map_err(|error| format!("make a temporary directory: {error}"))?;
    let instance = Instance::new("d0c70000").map_err(|error| error.to_string())?;
    let provider = Kept::open(sandbox::Options::new(root.path().to_owned(), instance)).await;
    provider.map(|provider| provider.isolation()).map_err(|error| error.to_string())
}

fn control_groups() -> Finding {
    const WHAT: &str = "control groups";
    const MEND: &str = "nothing must be done; without them native sandboxes hold less, and the keeper finds processes by itself";
    match sandbox::control_groups() {
        found if found.is_empty() => Finding::new(WHAT, Verdict::Ok, "none can be made", MEND),
        found => Finding::new(WHAT, Verdict::Ok, found.join("; "), ""),
    }
}

/// Sandboxes of namespaces need them; sandboxes of plain processes do not.
fn user_namespaces() -> Finding {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let most = number("/proc/sys/user/max_user_namespaces").unwrap_or(0);
    let is_allowed = number("/proc/sys/kernel/unprivileged_userns_clone") != Some(0);
    let found = match (most, is_allowed) {
        (0, _) => "none are allowed".to_owned(),
        (_, false) => "for root only".to_owned(),
        (most, true) => format!("up to {most}"),
    };
    Finding::new("user namespaces", Verdict::Ok, found, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_data_directory_in_use_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        assert!(data_dir(&dir.path().join("new")).await.found.contains("can be made"));
        let store = sqlite::Sqlite::open(dir.path(), sqlite::Options::default()).await.unwrap();
        let finding = data_dir(dir.path()).await;
        assert!(finding.verdict == Verdict::Ok && finding.found.contains("is in use by"), "{finding:?}");
        assert!(!finding.found.contains("stop"), "there is nothing to mend: {finding:?}");
        store.close().await;
        assert!(data_dir(dir.path()).await.found.contains("nobody uses it"));

        std::fs::write(dir.path().join(sqlite::LOG_FILE), "no database").unwrap();
        assert_eq!(data_dir(dir.path()).await.verdict, Verdict::Error);
    }

    #[tokio::test]
    async fn isolation_is_not_made_better_than_it_is() {
        // The program of this test is no canary, so native sandboxes are not proven.
        let finding = isolation(&Config::default()).await;
        assert!(finding.verdict == Verdict::Warning && finding.found.starts_with("none"), "{finding:?}");
        let held =
            |isolation: &str| http::SandboxKind { isolation: isolation.to_owned(), ..Default::default() };
        assert_eq!(isolation_of(&held("none")).verdict, Verdict::Warning);
        assert_eq!(isolation_of(&held("namespaces")).verdict, Verdict::Ok);
    }
}
