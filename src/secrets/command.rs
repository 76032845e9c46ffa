//! The operator's command that fetches secrets from a vault.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use actors::Unresolved;
use events::Tenant;
use link::limits::SECRET_BYTES_MAX;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Commands that run at once: a crew that starts asks for many secrets at the same time.
const RUNNING_MAX: usize = 8;
/// Where the command finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that writes the secret of a key, which is its only argument, to standard output. It is started without a
/// shell, in an environment that holds `PATH`, `HOME` and `HYPERCODE_TENANT` alone; what it writes to standard error is
/// on the platform's.
pub(super) struct Vault {
    program: PathBuf,
    limit: Duration,
    running: Semaphore,
}

impl Vault {
    pub(super) fn new(program: PathBuf, limit_ms: u64) -> Self {
        Self { program, limit: Duration::from_millis(limit_ms), running: Semaphore::new(RUNNING_MAX) }
    }

    /// What the command writes for this key.
    pub(super) async fn ask(&self, tenant: &Tenant, key: &str) -> Result<String, Unresolved> {
        let _running = self.running.acquire().await.expect("it is never closed");
        let program = self.program.display();
        let failed = |what: String| Unresolved(format!("the command `{program}` {what}"));
        let mut command = Command::new(&self.program);
        command.arg(key).env_clear().env("PATH", PATH).env("HYPERCODE_TENANT", tenant.as_str());
        command.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}; see `secret_command`")))?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        let answered = tokio::time::timeout(self.limit, answer(&mut child)).await;
        if !matches!(answered, Ok(Ok(Answer::Text(_)))) {
            // It may have started others, which hold on to what it has open.
            group.map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
        }
        match answered {
            Err(_) => Err(failed(format!(
                "did not end within {} ms; see `secret_command_ms`",
                self.limit.as_millis()
            ))),
            Ok(Err(error)) => Err(failed(format!("cannot be read: {error}"))),
            Ok(Ok(Answer::TooLong)) => Err(failed(format!("wrote more than {SECRET_BYTES_MAX} bytes"))),
            Ok(Ok(Answer::Failed(how))) => {
                Err(failed(format!("ended with {how}; what it said is on the platform's standard error")))
            }
            Ok(Ok(Answer::Text(bytes))) => String::from_utf8(bytes)
                .map_err(|_| failed("wrote what is not UTF-8 text: have it write base64".to_owned())),
        }
    }
}

enum Answer {
    Text(Vec<u8>),
    TooLong,
    Failed(std::process::ExitStatus),
}

async fn answer(child: &mut Child) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() > SECRET_BYTES_MAX {
        return Ok(Answer::TooLong);
    }
    let status = child.wait().await?;
    Ok(if status.success() { Answer::Text(bytes) } else { Answer::Failed(status) })
}
