//! A child process in a process group of its own, with a clean environment and its stderr in the log.

use std::{collections::BTreeMap, io, path::PathBuf, process::ExitStatus, time::Duration};

use nix::sys::{prctl, signal::Signal};
use tokio::{
    process::{ChildStdin, ChildStdout, Command},
    sync::watch,
};

use crate::{
    carrier::LAST_WORDS_MS_MAX,
    log::{Log, Words},
    process::{Family, signal_group},
};

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// What it is told that it is called, where that is not its path.
    pub(crate) name: Option<&'static str>,
    pub(crate) args: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Self { code: status.code(), signal: status.signal() }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => match Signal::try_from(signal) {
                Ok(signal) => write!(f, "was ended by {signal}"),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
            (Some(code), None) => write!(f, "exited with code {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// A running child. Cheap to clone; dropping it does not end it, the end of the runner does.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pid: i32,
    exit: watch::Receiver<Option<Exit>>,
    /// The end of its stderr.
    words: Words,
    /// Whether its stderr is in the log to the end.
    last_words: watch::Receiver<bool>,
}

/// The ends of the child's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
}

impl Child {
    /// Starts a process with pipes for stdin and stdout.
    pub(crate) fn spawn(program: &Program, log: &Log, family: &Family) -> io::Result<(Self, Pipes)> {
        let mut command = command(program);
        let mut process = command.spawn()?;
        // A child that is not reaped yet has a pid.
        let pid = process.id().map_or(0, u32::cast_signed);
        family.add(pid);
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(io::Error::other("the pipes of the child are missing"));
        };
        let (log, words) = (log.clone(), Words::default());
        let said = words.clone();
        let (written, last_words) = watch::channel(false);
        tokio::spawn(async move {
            log.copy(stderr, said).await;
            written.send_replace(true);
        });
        let (ended, exit) = watch::channel(None);
        let family = family.clone();
        tokio::spawn(async move {
            let status = process.wait().await;
            // What it left behind in its group has nobody to answer to any more.
            signal_group(pid, Signal::SIGKILL);
            family.remove(pid);
            family.reap_orphans();
            ended.send_replace(Some(status.map(Exit::from).unwrap_or_default()));
        });
        Ok((Self { pid, exit, words, last_words }, Pipes { stdin, stdout }))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or_default(),
            Err(_) => Exit::default(),
        }
    }

    /// The end of its stderr, at most 4 KiB; once it has ended, waits until that is in the log, but not for ever.
    pub(crate) async fn last_words(&self) -> String {
        let mut last_words = self.last_words.clone();
        let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
        // Its descendants may hold the pipe open: what has come by then is what there is.
        let _ = tokio::time::timeout(limit, last_words.wait_for(|written| *written)).await;
        self.words.text()
    }

    /// Sends a signal to the child's group, unless the child has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.has_ended() {
            signal_group(self.pid, signal);
        }
    }

    /// SIGTERM, and SIGKILL if that does not help in time.
    pub(crate) async fn terminate(&self, grace: Duration) -> Exit {
        self.signal(Signal::SIGTERM);
        // A stopped process takes SIGTERM only when it goes on.
        self.signal(Signal::SIGCONT);
        if let Ok(exit) = tokio::time::timeout(grace, self.ended()).await {
            return exit;
        }
        self.signal(Signal::SIGKILL);
        self.ended().await
    }
}

#[allow(unsafe_code, reason = "`pre_exec` is the only way to do this between fork and exec")]
fn command(program: &Program) -> Command {
    use std::process::Stdio;
    let mut command = Command::new(&program.path);
    command.args(&program.args).current_dir(&program.cwd).env_clear().envs(&program.env).process_group(0);
    if let Some(name) = program.name {
        command.arg0(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: prctl(2) is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            // Should the runner itself be killed, its nearest child goes with it.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        })
    };
    command
}
