//! A Docker daemon of a test's own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, PAUSE};

/// A daemon with a socket, images and containers of its own. Nothing of it is left when it is dropped.
#[derive(Debug)]
pub struct Dockerd {
    directory: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Dockerd {
    /// Starts one whose files are all in this directory, with these arguments beside.
    ///
    /// # Panics
    /// When it does not come to answer.
    #[must_use]
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut daemon = Self { directory: directory.to_owned(), arguments, process: None };
        daemon.begin();
        daemon
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// What its command line answers.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.socket().display());
        let output = Command::new("docker").args(["--host", &host]).args(arguments).output();
        let output = output.expect("the client is installed");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills it, as the kernel may for want of memory; its containers may go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().and_then(|()| process.wait()).expect("it is our child");
        // Its helper dies with it, a moment later; the next daemon would take that one for its own.
        let helper = fs::read_to_string(self.directory.join("exec/containerd/containerd.pid"));
        let helper = Path::new("/proc").join(helper.unwrap_or_default().trim());
        let deadline = Instant::now() + PATIENCE;
        while helper.join("stat").exists() {
            assert!(Instant::now() < deadline, "`containerd` outlives `dockerd`");
            sleep(PAUSE);
        }
    }

    /// Starts it again after it was killed.
    ///
    /// # Panics
    /// When it does not come to answer.
    pub fn begin(&mut self) {
        let log = self.directory.join("dockerd.log");
        let file = || File::options().append(true).create(true).open(&log).expect("its log can be written");
        let below = |name: &str| self.directory.join(name).display().to_string();
        // In a network of its own: it would take the host's bridge away from the host's daemon.
        let mut command = Command::new("unshare");
        command.args(["--net", "dockerd"]);
        command.args(["--host", &format!("unix://{}", self.socket().display())]);
        if !self.arguments.iter().any(|argument| argument.starts_with("--data-root")) {
            command.args(["--data-root", &below("data")]);
        }
        command.args(["--exec-root", &below("exec"), "--pidfile", &below("pid")]);
        command.args(["--bridge", "none", "--iptables=false", "--shutdown-timeout", "1"]);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(file()).stderr(file());
        let mut process = command.spawn().expect("`unshare` is installed");
        let deadline = Instant::now() + PATIENCE;
        // It listens long before it answers.
        while !self.answers() {
            let ended = process.try_wait().expect("it is our child");
            let is_late = Instant::now() > deadline;
            if ended.is_some() || is_late {
                let text = fs::read_to_string(&log).unwrap_or_default();
                panic!("`dockerd` does not answer ({ended:?}):\n{text}");
            }
            sleep(PAUSE);
        }
        self.process = Some(process);
    }

    fn answers(&self) -> bool {
        let host = format!("unix://{}", self.socket().display());
        let asked = Command::new("docker").args(["--host", &host, "version"]).output();
        asked.is_ok_and(|output| output.status.success())
    }

    fn end(&mut self) {
        if self.process.is_none() {
            self.begin();
        }
        let ids = self.docker(&["ps", "--all", "--quiet"]);
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            let _ = self.docker(&[&["rm", "--force", "--volumes"], &ids[..]].concat());
        }
        if let Some(mut process) = self.process.take() {
            let _ = kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM);
            let _ = process.wait();
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // After a failure it may be gone, with what ran in it unattended: that ends when nobody links to it.
        if !std::thread::panicking() || self.answers() {
            self.end();
        } else if let Some(mut process) = self.process.take() {
            let _ = process.kill().and_then(|()| process.wait());
        }
        // What it mounted keeps its directory from being removed.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let below: Vec<&str> = points.filter(|point| Path::new(point).starts_with(&self.directory)).collect();
        for point in below.into_iter().rev() {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}
